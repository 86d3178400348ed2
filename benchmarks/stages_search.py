"""Searches that are killed must end like those that are not, and learning must beat chance: `python benchmarks/stages_search.py`."""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier

from medkit.learning import Choice, Integers, LogUniform, SearchResult, Uniform, read_search, search
from timing import print_rows

SPACE = {"x": Uniform(-2, 2), "y": Uniform(-2, 2), "kind": Choice(["smooth", "steep"])}
EPOCHS, SEED = 9, 5


def bowl(params: dict, report) -> None:
    "A slow training whose value is highest at (0.3, -0.5); a trial that is better is better from its first epoch on."
    height = 3 - (params["x"] - 0.3) ** 2 - (params["y"] + 0.5) ** 2 + 0.1 * (params["kind"] == "steep")
    for epoch in range(EPOCHS):
        time.sleep(float(os.environ.get("MEDKIT_EPOCH_S", "0")))
        report(epoch, (1 - 0.5 ** (epoch + 1)) * height)


def run(folder: Path | None, engine: str, trials: int) -> SearchResult:
    workers = 2 if engine == "ray" else 1
    return search(bowl, SPACE, trials=trials, direction="max", engine=engine, workers=workers, seed=SEED, folder=folder, progress=False)


def alike(a: SearchResult, b: SearchResult) -> bool:
    "The same best trial."
    return (a.best.number, a.best.params, a.best.value, a.best.reports) == (b.best.number, b.best.params, b.best.value, b.best.reports)


# kills

def start(folder: Path, engine: str, trials: int, epoch_s: float) -> subprocess.Popen:
    "The same search in a process group of its own."
    code = "import sys; from pathlib import Path; from stages_search import run; run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))"
    environment = {**os.environ, "MEDKIT_EPOCH_S": str(epoch_s), "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", code, folder, engine, str(trials)], env=environment, start_new_session=True)


def ended(folder: Path) -> int:
    return len(read_search(folder).trials) if (folder / "search.jsonl").exists() else 0


def wait_for(process: subprocess.Popen, folder: Path, trials: int) -> None:
    "Until so many trials have ended."
    deadline = time.monotonic() + 240
    while ended(folder) < trials:
        assert process.poll() is None and time.monotonic() < deadline, "the search ended, or hangs, before it was killed"
        time.sleep(0.02)


def kill_worker(process: psutil.Process) -> int:
    "SIGKILL to one of the processes in which Ray trains; returns its number."
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for child in process.children(recursive=True):
            try:
                if "ImplicitFunc" in " ".join(child.cmdline()):  # Ray's name for a training function
                    child.kill()
                    return child.pid
            except psutil.Error:
                continue  # it has just ended
    raise AssertionError("Ray has no worker")


def ray_killed(folder: Path, trials: int = 8) -> tuple[SearchResult, SearchResult, int]:  # calm, restored, taken over
    "Eight trials on two workers: one worker is killed, then everything, then the search is restored."
    calm = run(None, "ray", trials)
    process = start(folder, "ray", trials, 0.25)
    wait_for(process, folder, 1)
    kill_worker(psutil.Process(process.pid))
    wait_for(process, folder, 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    restored = run(folder, "ray", trials)
    return calm, restored, restored.resumed


def optuna_killed(folder: Path, trials: int, kills: int) -> tuple[SearchResult, SearchResult]:  # calm, restored
    "The same with Optuna, killed several times at moments of no choice."
    calm = run(None, "optuna", trials)
    for turn in range(kills):
        process = start(folder, "optuna", trials, 0.01)
        wait_for(process, folder, (turn + 1) * trials // (kills + 2))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return calm, run(folder, "optuna", trials)


# what learning and pruning are worth

NETWORK = {"width": Integers(4, 128, log=True), "depth": Integers(1, 3), "lr": LogUniform(1e-5, 1e-1), "decay": LogUniform(1e-7, 1),
           "batch": Choice([16, 64, 256])}
METHODS = {"random": ("random", False), "random, pruned": ("random", True), "TPE": ("tpe", False), "TPE, pruned": ("tpe", True)}
FULL = 20  # trainings to the end that a search may spend, pruned ones by their share


def digits() -> tuple[np.ndarray, ...]:  # pictures and answers to learn from, and to judge by
    "Handwritten digits of 8 x 8 pixels, which come with scikit-learn; 300 to learn from."
    pictures, answers = load_digits(return_X_y=True)
    return pictures[:300] / 16, answers[:300], pictures[300:900] / 16, answers[300:900]


def train_network(params: dict, report, data: tuple) -> None:
    "A small network, an epoch at a time; the value is its loss on the pictures to judge by."
    seen, answers, unseen, truth = data
    model = MLPClassifier((params["width"],) * params["depth"], learning_rate_init=params["lr"], alpha=params["decay"],
                          batch_size=params["batch"], random_state=0)
    for epoch in range(EPOCHS):
        model.partial_fit(seen, answers, classes=range(10))
        report(epoch, log_loss(truth, model.predict_proba(unseen)))


class Spent(Exception):
    "The epochs are used up."


def best_within(epochs: int, data: tuple, folder: Path, **options) -> float:
    "The best value that a search has found when so many epochs are spent; a trial that would need more does not count."
    def look(done: int, total: int, row: dict) -> None:
        if sum(trial.epochs for trial in read_search(folder).trials) >= epochs:
            raise Spent

    try:
        search(partial(train_network, data=data), NETWORK, trials=1000, direction="min", folder=folder, progress=look, **options)
    except Spent:
        trials = read_search(folder).trials
    spent = np.cumsum([trial.epochs for trial in trials])
    return min(trial.value for trial, used in zip(trials, spent) if trial.state == "complete" and used <= epochs)


def compare(seeds: int) -> dict[str, list[float]]:  # method -> loss by seed
    "The best loss of each method after the same number of epochs."
    data = digits()
    with tempfile.TemporaryDirectory() as folder:
        return {name: [best_within(FULL * EPOCHS, data, Path(folder) / f"{name} {seed}", sampler=sampler, prune=prune, seed=seed)
                       for seed in range(seeds)] for name, (sampler, prune) in METHODS.items()}


def rows(quick: bool) -> list[tuple]:
    with tempfile.TemporaryDirectory() as temporary:
        calm, restored, taken = ray_killed(Path(temporary) / "ray")
        whole, again = optuna_killed(Path(temporary) / "optuna", 30, 1 if quick else 4)
    losses = compare(3 if quick else 11)
    plain, learned = losses["random"], losses["TPE, pruned"]
    medians = ", ".join(f"{name} {statistics.median(values):.3f}" for name, values in losses.items())
    won, lost = sum(a < b for a, b in zip(learned, plain)), sum(a > b for a, b in zip(learned, plain))
    whole_list = [number == trial.number for number, trial in enumerate(restored.trials)]
    return [
        ("Ray Tune: 8 trials, 2 workers, one killed, all killed, restored", f"{sum(whole_list)} accounted for, {taken} taken over", "8",
         sum(whole_list) == 8),
        ("Ray Tune: best trial as without the kills", f"{restored.best.value:.4f} and {calm.best.value:.4f}", "the same",
         alike(restored, calm)),
        (f"Optuna: 30 trials, killed {1 if quick else 4} times, restored", f"{len(again.trials)} accounted for", "30", len(again.trials) == 30),
        ("Optuna: every trial as without the kills", f"{again.best.value:.4f} and {whole.best.value:.4f}", "the same",
         [replace(one, seconds=0) for one in again.trials] == [replace(one, seconds=0) for one in whole.trials]),
        (f"median best loss after {FULL * EPOCHS} epochs, {len(plain)} seeds", medians, "TPE, pruned below random",
         statistics.median(learned) < statistics.median(plain)),
        ("TPE with pruning against random search, seed by seed", f"better {won}, equal {len(plain) - won - lost}, worse {lost}", "", None),
    ]


def main() -> None:
    print_rows(rows(quick="--quick" in sys.argv))


if __name__ == "__main__":
    main()
