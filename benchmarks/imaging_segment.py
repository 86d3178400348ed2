"""The default segmentation learner on the phantom: the pancreas of 12 patients after training on 25, in processor seconds.

One thread; `bench-1` patients of 8 slices of 128 x 128 pixels; median of three seeds of weights and order.
The processor seconds are those of `train`, validation after each epoch included.
"""

import statistics
import time

import torch
from fastai.callback.core import Callback

from medkit.imaging import Window, simulate_abdomen
from medkit.learning import Split, evaluate, segmentation_learner, slice_loaders
from medkit.learning.learner import train
from timing import print_rows

SEEDS = (0, 1, 2)
TRAIN, VALID, TEST = range(25), range(100, 106), range(200, 212)
CLASSES = {"pancreas": ["pancreas", "tumour"]}
BATCH, EPOCHS = 4, 18
BAR_DICE, BAR_CPU_S = 0.87, 90.0
PLAIN = "a plain U-Net of 0.49 M parameters on single pixels, 72 CPU-s: .822"


class Clock(Callback):
    "Seconds since the start and the Dice of the validation patients, after each epoch."

    order = 70  # after the recorder

    def __init__(self, clock=time.process_time):
        self.clock = clock

    def before_fit(self):
        self.start, self.seen = self.clock(), []

    def after_epoch(self):
        self.seen.append((self.clock() - self.start, self.recorder.values[-1][-1]))

    def seconds_to(self, dice: float) -> float | None:
        return next((seconds for seconds, reached in self.seen if reached >= dice), None)


def loaders(train=TRAIN, valid=VALID, test=TEST, device="cpu", **options):
    "The phantom patients, half of them with tumours."
    seeds = [*train, *valid, *test]
    cases = [simulate_abdomen(seed, tumour=seed % 2 == 0, preset="bench-1") for seed in seeds]
    parts = range(len(train)), range(len(train), len(train) + len(valid)), range(len(train) + len(valid), len(seeds))
    split = Split([volume.patient_key for volume, _ in cases], *parts)
    options = {"window": Window(40, 400), "batch_size": BATCH, **options}
    return slice_loaders(cases, split, classes=CLASSES, device=device, **options)


def one_run(dls, seed: int, epochs: int = EPOCHS) -> tuple[float, float, float | None]:
    "Mean Dice over the test patients, processor seconds of the training, processor seconds to the bar on the validation patients."
    learn, clock = segmentation_learner(dls, seed=seed), Clock()
    learn.add_cb(clock)
    with learn.no_bar(), learn.no_logging():
        start = time.process_time()
        train(learn, epochs, seed=seed)
        spent = time.process_time() - start
    return evaluate(learn, dls.test)["dice pancreas"].value, spent, clock.seconds_to(BAR_DICE)


def rows(quick: bool = False) -> list[tuple[str, str, str, bool]]:  # what, figure, bar, met
    torch.set_num_threads(1)
    dls = loaders(range(8), VALID[:2], TEST[:4]) if quick else loaders()
    runs = [one_run(dls, seed, 2 if quick else EPOCHS) for seed in (SEEDS[:1] if quick else SEEDS)]
    dice, spent = (statistics.median(column) for column in list(zip(*runs))[:2])
    reached = sorted(seconds if seconds is not None else float("inf") for _, _, seconds in runs)[len(runs) // 2]
    each = ", ".join(f"{value:.3f}" for value, _, _ in runs)
    what = f"phantom 128², {len(dls.train.dataset)} training slices, default segmentation learner"
    return [
        (what, f"pancreas Dice {dice:.3f} ({each}) in {spent:.0f} CPU-s", f"≥ {BAR_DICE} in ≤ {BAR_CPU_S:.0f} CPU-s; {PLAIN}",
         dice >= BAR_DICE and spent <= BAR_CPU_S),
        (f"the same, until the validation patients reach {BAR_DICE}", f"{reached:.0f} CPU-s", f"≤ {BAR_CPU_S:.0f} CPU-s",
         reached <= BAR_CPU_S),
    ]


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, few patients, two epochs: does it run?")
    print_rows(rows(parser.parse_args().quick))


if __name__ == "__main__":
    main()
