"""Sleep and wake on simulated nights, judged on unseen people: models against the watch and the bed. `python benchmarks/stages_sleep.py`.

Every person is judged once, in one of the folds, by models that have not seen them. A figure is the mean over people of the balanced
accuracy over all windows of 30 s that got an answer, with a 95 % interval over people; a model's figure for a person is the mean over
seeds. The model to be judged was chosen beforehand: boosting on features of five windows.
"""

import tempfile
import time

import numpy as np
import torch

from medkit.learning import (
    ByPatient, Metric, SignalTrainer, SignalView, bootstrap_by_patient, fit_bed_rule, patient_folds, wrist_rule,
)
from medkit.signals import simulate_night
from timing import print_rows

SEEDS = (0, 1, 2)
MODELS = {"boosting": "features", "logistic": "features", "CNNLSTM": "longer features"}
VIEWS = {"features": SignalView("features", context=5), "longer features": SignalView("features", context=11)}
RULES = {"watch (Cole 1992)": wrist_rule(("wake", "sleep")), "movement in the bed": fit_bed_rule}
OPTIONS = {"CNNLSTM": {"depth": 2, "width": 32, "hidden": 32, "layers": 1}}


def simulate(quick: bool) -> tuple[list, list]:
    "Nights of as many people, and folds of them."
    nights = [simulate_night(seed, hours=1.5 if quick else 4) for seed in range(700, 712 if quick else 724)]
    return nights, patient_folds([night.person for night in nights], 2 if quick else 3, valid=0.2, seed=1)


def judge(trainer: SignalTrainer, **settings) -> dict[str, ByPatient]:
    "The metrics of everybody, one fold after the other."
    folds = [trainer({**settings, "fold": fold}) for fold in range(len(trainer.folds))]
    return {parts[0].name: ByPatient.join(parts) for parts in zip(*folds)}


def over_seeds(runs: list[dict[str, ByPatient]], name: str) -> Metric:
    "The metric over people, each the mean over the seeds."
    first = runs[0][name]
    values = {person: float(np.mean([run[name].values[person] for run in runs])) for person in first.values}
    return ByPatient(name, values, first.naive, first.naive_name).metric()


def against(ours: list[dict], theirs: dict, name: str = "balanced accuracy") -> tuple[float, float, float]:
    "How much higher than a rule on the same people, with the interval over people."
    gains = [np.mean([run[name].values[person] for run in ours]) - value for person, value in theirs[name].values.items()]
    gains = np.array(gains)[np.isfinite(gains)]
    return float(gains.mean()), *bootstrap_by_patient(gains, seed=0)


def words(metric: Metric) -> str:
    return f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}], n = {metric.patients} people"


def rows(quick: bool) -> list[tuple]:
    torch.set_num_threads(1)
    nights, folds = simulate(quick)
    with tempfile.TemporaryDirectory() as cache:
        start = time.process_time()
        trainer = SignalTrainer(nights, folds, VIEWS, epochs=4, options=OPTIONS, rules=RULES, cache=cache)
        models = {name: space for name, space in MODELS.items() if not quick or name != "CNNLSTM"}
        runs = {name: [judge(trainer, space=space, model=name, seed=seed) for seed in SEEDS] for name, space in models.items()}
        rules = {name: judge(trainer, heuristic=name, seed=0) for name in RULES}
        spent = time.process_time() - start
    best, rivals = over_seeds(runs["boosting"], "balanced accuracy"), {
        name: found["balanced accuracy"].metric() for name, found in rules.items()}
    found = [("sleep and wake: boosting on features, 3 seeds", words(best), "intervals disjoint from both rules",
              None if quick else all(best.low > rival.high for rival in rivals.values()))]  # a quick run has too few people
    for name, rival in rivals.items():
        gain, low, high = against(runs["boosting"], rules[name])
        found.append((f"  rule: {name}", f"{words(rival)}; boosting is {gain:+.3f} [{low:+.3f}, {high:+.3f}]", "below", low > 0))
    found += [(f"  {name} on {MODELS[name]}, 3 seeds", words(over_seeds(some, "balanced accuracy")), "", None)
              for name, some in runs.items() if name != "boosting"]
    found.append(("  majority guess", f"{best.naive:.3f}", "", None))
    for name in ("sensitivity wake", "sensitivity sleep", "auroc", "coverage"):
        found.append((f"  boosting: {name}", words(over_seeds(runs["boosting"], name)), "", None))
    found.append(("  processor time, features included", f"{spent:.0f} s", "", None))
    return found


def main() -> None:
    print_rows(rows(quick=False))


if __name__ == "__main__":
    main()
