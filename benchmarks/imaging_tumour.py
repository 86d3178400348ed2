"""Small tumours in two stages, and a patient's probability, learnt in hospital A and judged in A and B.

240 patients to learn from, 80 to calibrate on, all of hospital A; 200 of each hospital to judge by, never seen before. Half have
a tumour, 6 to 40 mm wide and mostly small; half have a look-alike. Dice is of a patient's whole tumour, averaged over the patients
with a tumour of 10 mm or more (a sphere of its volume); a patient in whom the organ was not found counts 0. The patients are drawn once
and kept in the temporary folder.
"""

import hashlib
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medkit.imaging import LABELS, Mask, Volume, Window, anatomy, lesions, phantom, simulate_abdomen
from medkit.learning import Augment, Split, auroc, bootstrap_by_patient, calibration_error
from medkit.learning.cases import Field, TwoStage, fit_outliner, predict_case
from medkit.learning.metrics import dice

TRAIN, VALID, TEST = 240, 80, 200  # patients
SHAPE, HEIGHT_MM, WIDTH_MM = (28, 160, 160), 140.0, {"A": 384.0, "B": 410.0}
SEEDS = (0, 1, 2)  # of the three trainings
ORGAN_PATIENTS, ORGAN_EPOCHS, TUMOUR_EPOCHS = 80, 2, 4
COARSE, FINE = Field((5, 6, 6), (64, 64)), Field((5, 2.4, 2.4), (48, 80))
GLAND = ("pancreas", "tumour", "duct", "cyst")
SCANNERS = dict(offset_hu=30.0, contrast=0.25, noise_hu=20.0, gamma=0.0, value_chance=0.5, rotation_deg=12.0, zoom=0.15)


@dataclass(frozen=True)
class Stored:
    "A simulated patient on disk."
    path: Path
    patient_key: str

    def load(self) -> tuple[Volume, Mask]:
        with np.load(self.path) as kept:
            affine, spacing = kept["affine"], tuple(kept["spacing_mm"].tolist())
            return (Volume(kept["voxels"], affine, spacing, patient_key=self.patient_key),
                    Mask(kept["labels"], dict(LABELS), affine, spacing, self.patient_key))


def store(folder: Path, hospital: str, seed: int) -> Stored:
    "The patient of this seed, drawn if it was not drawn before."
    path, spacing = folder / f"{hospital}-{seed}.npz", (HEIGHT_MM / SHAPE[0], *(WIDTH_MM[hospital] / side for side in SHAPE[1:]))
    if not path.exists():
        volume, mask = simulate_abdomen(seed, seed % 2 == 0, shape=SHAPE, spacing_mm=spacing, hospital=hospital)
        half = path.with_suffix(".part.npz")
        np.savez(half, voxels=volume.voxels, labels=mask.labels, affine=volume.affine, spacing_mm=volume.spacing_mm)
        half.rename(path)
    return Stored(path, f"sim-{hospital}{seed:05d}")


def patients(quick: bool) -> dict[str, list[Stored]]:
    "All parts of the study; the folder's name changes with the phantom."
    sources = b"".join(Path(module.__file__).read_bytes() for module in (phantom, anatomy, lesions))
    folder = Path(tempfile.gettempdir()) / f"medkit-tumour-{hashlib.sha256(sources + repr(SHAPE).encode()).hexdigest()[:12]}"
    folder.mkdir(exist_ok=True)
    tests = TEST // 2 if quick else TEST
    parts = {"train": ("A", 0, TRAIN), "valid": ("A", 10_000, VALID), "A": ("A", 30_000, tests), "B": ("B", 30_000, tests)}
    return {part: [store(folder, hospital, first + number) for number in range(count)] for part, (hospital, first, count) in parts.items()}


def fit(train: list[Stored], valid: list[Stored], seed: int) -> tuple[TwoStage, float]:
    "The two stages, and the processor seconds of both trainings."
    start, watched, few = time.process_time(), valid[:10], train[:ORGAN_PATIENTS]
    parted = lambda some: Split([case.patient_key for case in [*some, *watched]], range(len(some)),  # noqa: E731
                                range(len(some), len(some) + len(watched)), [])
    organ = fit_outliner([*few, *watched], parted(few), COARSE, {"gland": GLAND}, window=Window(40, 400), epochs=ORGAN_EPOCHS,
                         seed=seed, quiet=True, augment=Augment(**SCANNERS))
    tumour = fit_outliner([*train, *watched], parted(train), FINE, {name: [name] for name in GLAND}, around=GLAND, level_hu=90.0, stack=3,
                          window=(Window(90, 140), Window(40, 400)), epochs=TUMOUR_EPOCHS, seed=seed, quiet=True, batch_size=8,
                          augment=Augment(**SCANNERS), sampling="classes")
    return TwoStage(organ, tumour, signs=("duct",)), time.process_time() - start


def sphere_mm(mask: Mask) -> float:
    "Diameter of a sphere with the volume of the tumour; 0 without one."
    return float((6000 * mask.volume_ml("tumour") / np.pi) ** (1 / 3))


def judge(model: TwoStage, cases: list[Stored]) -> np.ndarray:  # (patient, 5)
    "Diameter of the true tumour, Dice, Dice of the whole gland called tumour, score, probability (0.5 where withheld)."
    found = []
    for volume, mask in (case.load() for case in cases):
        report, truth = predict_case(volume, model), mask.labels == 10
        drawn = np.zeros_like(truth) if report.mask is None else report.mask.labels == 2
        gland = np.isin(mask.labels, [9, 10, 11, 12])
        chance = 0.5 if report.probability is None else report.probability
        found.append((sphere_mm(mask), dice(drawn, truth), dice(gland, truth), report.score or 0.0, chance))
    return np.nan_to_num(np.array(found))


def measured(found: np.ndarray) -> dict[str, float]:
    large, ill = found[:, 0] >= 10, found[:, 0] > 0
    return {"dice": found[large, 1].mean(), "naive": found[large, 2].mean(), "auroc": auroc(ill, found[:, 3]),
            "ece": calibration_error(ill, found[:, 4]), "withheld": int((found[:, 4] == 0.5).sum())}


def intervals(found: np.ndarray) -> dict[str, tuple[float, float]]:
    large, ill = found[:, 0] >= 10, found[:, 0] > 0
    rank = lambda rows: auroc(rows[:, 0] > 0, rows[:, 1]) if 0 < (rows[:, 0] > 0).mean() < 1 else float("nan")  # noqa: E731
    miss = lambda rows: calibration_error(rows[:, 0] > 0, rows[:, 1])  # noqa: E731
    return {"dice": bootstrap_by_patient(found[large, 1], seed=0), "large": int(large.sum()), "ill": int(ill.sum()),
            "auroc": bootstrap_by_patient(found[:, [0, 3]], rank, seed=0, rounds=500),
            "ece": bootstrap_by_patient(found[:, [0, 4]], miss, seed=0, rounds=500)}


def rows(quick: bool) -> list[tuple]:
    torch.set_num_threads(1)
    parts, runs, spent = patients(quick), [], []
    for seed in SEEDS[:1] if quick else SEEDS:
        model, seconds = fit(parts["train"], parts["valid"], seed)
        model = model.calibrated(parts["valid"], "simulated, hospital A")
        spent.append(seconds)
        runs.append({hospital: judge(model, parts[hospital]) for hospital in "AB"})
    seconds, lines = statistics.median(spent), []
    for hospital, least, rank in (("A", 0.60, 0.95), ("B", 0.50, 0.90)):
        every = [measured(run[hospital]) for run in runs]
        value = {name: statistics.median(one[name] for one in every) for name in every[0]}
        ends, n = intervals(runs[0][hospital]), len(runs[0][hospital])
        span = lambda name: "{:.2f} [{:.2f}, {:.2f}]".format(value[name], *ends[name])  # noqa: E731
        lines += [
            (f"tumours >= 10 mm in two stages, hospital {hospital}", f"Dice {span('dice')}, n = {ends['large']}, {seconds:.0f} CPU-s",
             f">= {least:.2f} in <= 180 CPU-s, gland {value['naive']:.2f}", value["dice"] >= least and seconds <= 180),
            (f"tumour or none, look-alikes, hospital {hospital}", f"AUROC {span('auroc')}, {ends['ill']} of {n} ill",
             f">= {rank:.2f}, coin 0.50", value["auroc"] >= rank),
            (f"calibration error, hospital {hospital}", f"ECE {span('ece')}, n = {n}, {value['withheld']:.0f} withheld",
             "<= 0.08" + " (A)" * (hospital == "B"), value["ece"] <= 0.08 if hospital == "A" else None),
        ]
    return lines


def main() -> None:
    from timing import print_rows

    print_rows(rows(quick=False))


if __name__ == "__main__":
    main()
