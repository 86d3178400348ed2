"""From scans on disk to batches: slices a second of one core, first epoch and later ones. `python benchmarks/imaging_data.py [--quick]`"""

import os

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import statistics  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from dataclasses import replace  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402
from medkit.imaging import read_series, simulate_abdomen, write_series  # noqa: E402
from medkit.imaging.collections import Case  # noqa: E402
from medkit.learning.augment import Augment  # noqa: E402
from medkit.learning.loaders import slice_loaders  # noqa: E402
from medkit.learning.split import patient_split  # noqa: E402
from medkit.learning.view import View  # noqa: E402
from timing import print_rows  # noqa: E402

PATIENTS, SHAPE, STACK, BATCH, BAR = 25, (8, 128, 128), 3, 16, 400


MASKS = {}  # seed -> mask; only the scans are decoded from files


def read_pair(folder: Path, seed: int) -> tuple:
    "A scan decoded from its DICOM files, and its mask."
    volume, mask = read_series(folder), MASKS[seed]
    return volume, replace(mask, affine=volume.affine, spacing_mm=volume.spacing_mm)


def write_cases(folder: Path, patients: int) -> list[Case]:
    for seed in range(patients):
        volume, MASKS[seed] = simulate_abdomen(seed, shape=SHAPE)
        write_series(volume, folder / f"{seed}")
    return [Case(f"patient-{seed}", {}, partial(read_pair, folder / f"{seed}", seed)) for seed in range(patients)]


def loaders(cases: list[Case], folder: Path, **options):
    split = patient_split([case.patient_key for case in cases], valid=0.1, test=0, seed=0)
    return slice_loaders(cases, split, window="pancreas", classes={"pancreas": ["pancreas", "tumour"]}, stack=STACK, batch_size=BATCH,
                         cache=folder, **options)


def epoch_s(loader) -> float:
    "Processor seconds of one epoch, nothing learnt."
    start = time.process_time()
    for _ in loader:
        pass
    return time.process_time() - start


def augment_ms(turns: int) -> float:
    "Milliseconds of processor time to augment a batch of 16 slices of 128 x 128 with their masks."
    values, masks = torch.randn(BATCH, 1, *SHAPE[1:]) * 100, torch.zeros(BATCH, *SHAPE[1:], dtype=torch.uint8)
    generator, seconds = torch.Generator().manual_seed(0), []
    for _ in range(turns):
        start = time.process_time()
        Augment()(values, masks, View("pancreas"), generator)
        seconds.append(time.process_time() - start)
    return statistics.median(seconds) * 1e3


def rows(quick: bool) -> list[tuple[str, str, str, bool]]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        cases, cache = write_cases(Path(folder), 8 if quick else PATIENTS), Path(folder) / "cache"
        seconds = []
        for _ in range(2):  # an empty cache, then a full one
            start = time.process_time()
            dls = loaders(cases, cache, augment=Augment())
            first = epoch_s(dls.train)
            seconds.append(time.process_time() - start)
        later = statistics.median(epoch_s(dls.train) for _ in range(1 if quick else 5))
        plain = statistics.median(epoch_s(loaders(cases, cache).train) for _ in range(1 if quick else 5))
    count = len(dls.train) * BATCH
    rate = count / later
    return [
        ("cached slices/s: window, stack of 3, augmented", f"{rate:.0f}", f">= {BAR}", rate >= BAR),
        ("cached slices/s: window, stack of 3", f"{count / plain:.0f}", f">= {BAR}", count / plain >= BAR),
        ("first epoch with decoding, CPU-s", f"{seconds[0]:.2f}", "bound by decoding", seconds[0] > 2 * later),
        ("first epoch of a second run, from the cache, CPU-s", f"{seconds[1]:.2f}", "< half of the first", seconds[1] < seconds[0] / 2),
        ("later epochs, CPU-s", f"{later:.2f}", f"as the first batches ({first:.2f})", later < 1.5 * first),
        ("augmentation of 16 slices, CPU-ms", f"{augment_ms(5 if quick else 40):.1f}", "<= 15", augment_ms(5) <= 15),
    ]


def main() -> None:
    print_rows(rows("--quick" in sys.argv))


if __name__ == "__main__":
    main()
