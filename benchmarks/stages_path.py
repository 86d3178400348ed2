"""The path a, b, c against the whole grid: does it find the same winner at 40 % of the runs? `python benchmarks/stages_path.py [--quick]`.

Ten cohorts of simulated people in bed (`simulate_night`), none of them in two cohorts. The question is wake or sleep, in windows of 30 s.
Six feature spaces and five scikit-learn models make 30 cells. Each has three seeds, and folds by person. A random choice of as many cells
is what the path must beat. What a choice is truly worth is read from the other cohorts. One space that wins with every model makes the path
easy, so the path is gone again without the space that wins most often, by the same scores.
"""

import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medkit import signals, stages
from medkit.learning.report import ByPatient
from timing import print_rows

PEOPLE, FOLDS, HOURS, METRIC = 12, 3, 0.75, "balanced accuracy"
SPACES = {"time": ("time",), "frequency": ("frequency",), "wavelet": ("wavelet",), "beats": ("beat", "hrv"), "breathing": ("breathing",),
          "movement": ("movement",)}
MODELS: dict[str, Callable] = {
    "logistic": lambda seed: LogisticRegression(max_iter=300, class_weight="balanced"),
    "naive Bayes": lambda seed: GaussianNB(priors=[0.5, 0.5]),
    "neighbours": lambda seed: KNeighborsClassifier(15),
    "forest": lambda seed: RandomForestClassifier(30, max_depth=8, class_weight="balanced", random_state=seed),
    "boosting": lambda seed: GradientBoostingClassifier(n_estimators=30, subsample=0.5, random_state=seed),
}
CHANCES = ("forest", "boosting")  # their seed matters


def balanced(truth: np.ndarray, said: np.ndarray) -> float:
    "Balanced accuracy; NaN for somebody who was only awake or only asleep."
    rates = [float((said[truth == label] == label).mean()) for label in (0, 1) if (truth == label).any()]
    return float(np.mean(rates)) if len(rates) == 2 else float("nan")


class Cohort:
    "Simulated people with their features, and the training function of a grid."

    def __init__(self, number: int):
        nights = [signals.simulate_night(1000 * number + person, hours=HOURS) for person in range(PEOPLE)]
        found = [signals.extract_features(night.bed, signals.make_windows(night.bed, person=night.person, night="1")) for night in nights]
        self.names, self.values = found[0].names, np.concatenate([features.values for features in found])
        self.labels = np.concatenate([night.labels for night in nights])
        self.people = np.array([name for features in found for name in features.windows.person])
        everyone = [night.person for night in nights]
        folds = tuple(tuple(everyone[start::FOLDS]) for start in range(FOLDS))
        factors = {"space": list(SPACES), "model": list(MODELS)}
        self.grid = stages.Grid(f"cohort {number}", factors, (0, 1, 2), stages.split_hash(folds=everyone), folds)
        self.fitted: dict[tuple, ByPatient] = {}

    def score(self, said: np.ndarray, here: np.ndarray) -> ByPatient:
        "What each person of a fold got."
        values = {person: balanced(self.labels[self.people == person], said[self.people[here] == person])
                  for person in dict.fromkeys(self.people[here])}
        return ByPatient(METRIC, values, dict.fromkeys(values, 0.5), "always asleep")

    def columns(self, space: str) -> np.ndarray:
        return np.array([signals.FEATURES[name].space in SPACES[space] for name in self.names])

    def train(self, settings: dict) -> ByPatient:
        seed = settings["seed"] if settings["model"] in CHANCES else 0
        key = settings["space"], settings["model"], seed, settings["fold"]
        if key not in self.fitted:  # a model without chance gives the same for every seed
            here = np.isin(self.people, self.grid.folds[settings["fold"]])
            model = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler(), MODELS[key[1]](seed))
            values = self.values[:, self.columns(settings["space"])]
            self.fitted[key] = self.score(model.fit(values[~here], self.labels[~here]).predict(values[here]), here)
        return self.fitted[key]

    def rule(self, settings: dict) -> ByPatient:
        "Who moves is awake."
        here = np.isin(self.people, self.grid.folds[settings["fold"]])
        return self.score(1 - (self.values[here, self.names.index("movement_share")] > 0), here)


def judge(cohort: Cohort, number: int, folder: Path) -> dict:
    "The whole grid and the path through one cohort."
    store = stages.Store(folder / f"{number}.sqlite")
    with store.kept_open():
        found = stages.walk(cohort.grid, cohort.train, cohort.rule, METRIC, store, heuristic_name="who moves is awake", seed=number)
        runs = cohort.grid.run(cohort.train, store)
    board = stages.leaderboard([*runs, *found.board.heuristics], METRIC)
    names = [cell.name for cell in board.cells]
    values = {cell.name: cell.value for cell in board.cells}
    best, chosen = board.cells[0], board.cells[names.index(found.winner.name)]
    return {"cells": board.cells, "values": values, "best": best, "chosen": chosen, "taken": found.taken, "full": found.full,
            "contradicted": bool(found.contradictions), "low": best.interval[0], "failed": len(board.failed)}


def without(space: str, result: dict) -> dict:
    "The path by the same scores, if a space were not there; its looks off the path are left out."
    left = [cell for cell in result["cells"] if cell.params["space"] != space]
    plain = max((cell for cell in left if cell.params["model"] == next(iter(MODELS))), key=lambda cell: cell.value)
    on_it = [cell for cell in left if cell.params["space"] == plain.params["space"]]
    taken, best = len(SPACES) - 1 + len(MODELS) - 1, left[0]
    return {"values": {cell.name: cell.value for cell in left}, "best": best, "chosen": max(on_it, key=lambda cell: cell.value),
            "taken": taken, "full": len(left), "low": best.interval[0]}


def random_share(result: dict, rng: np.random.Generator, draws: int = 2000) -> tuple[float, float]:  # within the interval; the same winner
    "How often the best of as many cells, drawn at random, does as well."
    values = np.array(list(result["values"].values()))
    picks = rng.random((draws, len(values))).argpartition(result["taken"], axis=1)[:, :result["taken"]]
    best = values[picks].max(1)
    return float((best >= result["low"]).mean()), float((best == values.max()).mean())


def true_losses(results: list[dict], key: str) -> list[float]:
    "What a choice costs against the best choice, by the mean over the other cohorts."
    losses = []
    for result in results:
        others = [other["values"] for other in results if other is not result]
        worth = {name: np.mean([values[name] for values in others]) for name in result["values"]}
        losses.append(max(worth.values()) - worth[result[key].name])
    return losses


def same_space(result: dict) -> bool:
    "True if one space is the best of each model."
    best = {model: max((cell for cell in result["cells"] if cell.params["model"] == model), key=lambda cell: cell.value)
            for model in MODELS}
    return len({cell.params["space"] for cell in best.values()}) == 1


def harder(results: list[dict], rng: np.random.Generator) -> list[tuple]:
    "The rows for the grids without the space that wins most often."
    space = Counter(result["best"].params["space"] for result in results).most_common(1)[0][0]
    left = [without(space, result) for result in results]
    within, same = (sum(test(result) for result in left) for test in (
        lambda result: result["chosen"].value >= result["low"], lambda result: result["chosen"].name == result["best"].name))
    by_chance = np.mean([random_share(result, rng) for result in left], axis=0)
    true = [100 * np.mean(true_losses(left, key)) for key in ("chosen", "best")]
    return [
        (f"without {space}, {left[0]['taken']} of {left[0]['full']} cells: within", f"{within} of {len(left)} cohorts", "", None),
        ("  the very same winner", f"{same} of {len(left)} cohorts", "", None),
        ("  as many cells at random: within; the very same", f"{by_chance[0]:.0%}; {by_chance[1]:.0%} of draws", "", None),
        ("  loss against the best cell, on other cohorts", f"path {true[0]:.1f}, whole grid {true[1]:.1f} points", "", None),
    ]


def rows(quick: bool) -> list[tuple]:
    count, rng = 2 if quick else 10, np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        results = [judge(Cohort(number), number, Path(folder)) for number in range(count)]
    same = sum(result["best"].name == result["chosen"].name for result in results)
    within = sum(result["chosen"].value >= result["low"] for result in results)
    share = max(result["taken"] / result["full"] for result in results)
    by_chance = np.mean([random_share(result, rng) for result in results], axis=0)
    lost = [result["best"].value - result["chosen"].value for result in results]
    true = [100 * np.mean(true_losses(results, key)) for key in ("chosen", "best")]
    widths = [result["best"].interval[1] - result["best"].interval[0] for result in results]
    return [
        ("path's winner is the grid's, or within its interval", f"{within} of {count} cohorts", f">= {0.9 * count:.0f} of {count}",
         within >= 0.9 * count),
        ("cells that the path runs", f"{results[0]['taken']} of {results[0]['full']} ({share:.0%})", "<= 40 %", share <= 0.4),
        ("the very same winner", f"{same} of {count} cohorts", "", None),
        ("cohorts in which the best space won with every model", f"{sum(map(same_space, results))} of {count} cohorts", "", None),
        ("loss against the grid's winner, on the same people", f"mean {100 * np.mean(lost):.1f}, worst {100 * max(lost):.1f} points", "", None),
        ("loss against the best cell, on other cohorts", f"path {true[0]:.1f}, whole grid {true[1]:.1f} points", "", None),
        ("width of the winner's interval", f"median {100 * np.median(widths):.1f} points, {PEOPLE} people", "", None),
        ("12 cells drawn at random: within; the very same", f"{by_chance[0]:.0%}; {by_chance[1]:.0%} of draws", "", None),
        ("a look off the path contradicts it", f"{sum(result['contradicted'] for result in results)} of {count} cohorts", "", None),
        *harder(results, rng),
        ("runs that failed", f"{sum(result['failed'] for result in results)}", "0", not any(result["failed"] for result in results)),
    ]


def main() -> None:
    print_rows(rows(quick="--quick" in sys.argv))


if __name__ == "__main__":
    main()
