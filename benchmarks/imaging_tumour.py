"""Small tumours in two stages, and a patient's probability, learnt in hospital A and judged in A and B.

Two models. The quick one learns from 240 patients within 180 processor seconds and outlines. The patient one learns from 480, each also
as another scanner would show him (blurred, with less contrast, with coarse noise), for some eight minutes, and gives a probability, fitted
to 160 further patients of hospital A. 200 of each hospital judge; no setting was chosen on them. Settings were chosen on 100 others of each
hospital. Half have a tumour, 6 to 40 mm wide and mostly small; half have a look-alike. Dice is of a patient's whole tumour, averaged
over the patients with a tumour of 10 mm or more (a sphere of its volume); a patient in whom the organ was not found counts 0.

Hospital B's pictures show less: a late phase, thicker slices and coarse noise halve the contrast of a tumour. So the quick model is also
learnt in B itself, as what its pictures allow. The patients are drawn once and kept in the temporary folder.
"""

import hashlib
import statistics
import tempfile
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from medkit.imaging import GLAND, LABELS, Case, Mask, Volume, Window, anatomy, lesions, phantom, simulate_abdomen
from medkit.learning import Augment, DiceCrossEntropy, Split, auroc, bootstrap_by_patient, calibration_error
from medkit.learning.cases import Field, TwoStage, fit_outliner, predict_case
from medkit.learning.metrics import dice

TRAIN, MORE, VALID, TEST = 240, 480, 160, 200  # patients
SHAPE, HEIGHT_MM, WIDTH_MM = (28, 160, 160), 140.0, {"A": 384.0, "B": 410.0}
SEEDS = (0, 1, 2)  # of the three trainings
ORGAN_PATIENTS, ORGAN_EPOCHS, TUMOUR_EPOCHS = 80, 2, 4
COARSE, FINE, LEVEL_HU = Field((5, 6, 6), (64, 64)), Field((5, 2.4, 2.4), (48, 80)), 90.0
WINDOWS, STACK = (Window(90, 140), Window(40, 400)), 5
LOUD = (1, 1, 3, 3, 3, 3)  # weights of background and the classes of the gland in the cross-entropy
SIGNS, LEVEL = {"duct": 5.0}, 0.2  # how loud a millilitre of duct speaks; the probability from which a tumour is drawn
WIDE = Augment(offset_hu=30, contrast=0.25, noise_hu=20, gamma=0, value_chance=0.5, rotation_deg=12, zoom=0.15)  # for the organ
SLIGHT = Augment(offset_hu=6, contrast=0.05, noise_hu=8, gamma=0, value_chance=0.2, rotation_deg=8, zoom=0.1, geometry_chance=0.3,
                 bend=0.01)


def read_stored(path: Path, key: str) -> tuple[Volume, Mask]:
    "A simulated patient from disk."
    with np.load(path) as kept:
        affine, spacing = kept["affine"], tuple(kept["spacing_mm"].tolist())
        return (Volume(kept["voxels"], affine, spacing, patient_key=key), Mask(kept["labels"], dict(LABELS), affine, spacing, key))


def store(folder: Path, hospital: str, seed: int) -> Case:
    "The patient of this seed, drawn if it was not drawn before."
    path, spacing = folder / f"{hospital}-{seed}.npz", (HEIGHT_MM / SHAPE[0], *(WIDTH_MM[hospital] / side for side in SHAPE[1:]))
    if not path.exists():
        volume, mask = simulate_abdomen(seed, seed % 2 == 0, shape=SHAPE, spacing_mm=spacing, hospital=hospital)
        half = path.with_suffix(".part.npz")
        np.savez(half, voxels=volume.voxels, labels=mask.labels, affine=volume.affine, spacing_mm=volume.spacing_mm)
        half.rename(path)
    key = f"sim-{hospital}{seed:05d}"
    return Case(key, {}, lambda: read_stored(path, key))


def elsewhere(case: Case, gland_hu: float = 100.0) -> Case:
    "The patient as another scanner shows him: smoother, with less contrast around the gland, with coarser noise."
    key = f"{case.patient_key} elsewhere"

    def read() -> tuple[Volume, Mask]:
        (volume, mask, _), rng = case.load(), np.random.default_rng(zlib.crc32(case.patient_key.encode()))
        sigma_mm = rng.uniform(0, 1.5, 2)[[0, 1, 1]]
        smooth = gaussian_filter(volume.voxels.astype(np.float32), sigma_mm / volume.spacing_mm)
        pale = gland_hu + (smooth - gland_hu) * rng.uniform(0.55, 1.05)
        grain = gaussian_filter(rng.standard_normal(volume.shape, np.float32), (0.3, 1.1, 1.1))  # voxels
        hu = pale + grain * (rng.uniform(0, 14) / grain.std())
        return replace(volume, voxels=hu.astype(np.float32), patient_key=key), replace(mask, patient_key=key)

    return Case(key, {}, read)


def patients(quick: bool) -> dict[str, list[Case]]:
    "All parts of the study; the folder's name changes with the phantom."
    sources = b"".join(Path(module.__file__).read_bytes() for module in (phantom, anatomy, lesions))
    folder = Path(tempfile.gettempdir()) / f"medkit-tumour-{hashlib.sha256(sources + repr(SHAPE).encode()).hexdigest()[:12]}"
    folder.mkdir(exist_ok=True)
    tests = TEST // 2 if quick else TEST
    parts = {"train": ("A", 0, MORE), "valid": ("A", 10_000, VALID), "train in B": ("B", 0, TRAIN), "valid in B": ("B", 10_000, 10),
             "A": ("A", 40_000, tests), "B": ("B", 40_000, tests)}
    return {part: [store(folder, hospital, first + number) for number in range(count)] for part, (hospital, first, count) in parts.items()}


def fit(train: list[Case], valid: list[Case], seed: int, augment: Augment | None = None) -> tuple[TwoStage, float]:
    "The two stages, and the processor seconds of both trainings."
    start, watched, few = time.process_time(), valid[:10], train[:ORGAN_PATIENTS]
    parted = lambda some: Split([case.patient_key for case in [*some, *watched]], range(len(some)),  # noqa: E731
                                range(len(some), len(some) + len(watched)), [])
    organ = fit_outliner([*few, *watched], parted(few), COARSE, {"gland": GLAND}, window=Window(40, 400), epochs=ORGAN_EPOCHS,
                         seed=seed, quiet=True, augment=WIDE)
    tumour = fit_outliner([*train, *watched], parted(train), FINE, {name: [name] for name in GLAND}, around=GLAND, level_hu=LEVEL_HU,
                          window=WINDOWS, stack=STACK, epochs=TUMOUR_EPOCHS, seed=seed, quiet=True, batch_size=8, augment=augment,
                          sampling="classes", learner={"loss": DiceCrossEntropy(0, LOUD)})
    return TwoStage(organ, tumour, signs=SIGNS, level=LEVEL), time.process_time() - start


def fit_patient(train: list[Case], valid: list[Case], seed: int) -> tuple[TwoStage, float]:
    "The same, learnt from twice as many patients, each of them seen by two scanners, and calibrated."
    model, seconds = fit([*train, *map(elsewhere, train)], valid, seed, SLIGHT)
    return model.calibrated(valid, "simulated, hospital A"), seconds


def sphere_mm(mask: Mask) -> float:
    "Diameter of a sphere with the volume of the tumour; 0 without one."
    return float((6000 * mask.volume_ml("tumour") / np.pi) ** (1 / 3))


def judge(model: TwoStage, cases: list[Case]) -> np.ndarray:  # (patient, 5)
    "Diameter of the true tumour, Dice, Dice of the whole gland called tumour, score, probability (0.5 where withheld)."
    found = []
    for volume, mask, _ in (case.load() for case in cases):
        report, truth = predict_case(volume, model), mask.labels == 10
        drawn = np.zeros_like(truth) if report.mask is None else report.mask.labels == 2
        gland = np.isin(mask.labels, [label for label, name in LABELS.items() if name in GLAND])
        chance = 0.5 if report.probability is None else report.probability
        found.append((sphere_mm(mask), dice(drawn, truth), dice(gland, truth), report.score or 0.0, chance))
    return np.nan_to_num(np.array(found))


def large(found: np.ndarray) -> np.ndarray:
    return found[found[:, 0] >= 10]


def measured(found: np.ndarray) -> dict[str, float]:
    ill, clear = found[:, 0] > 0, (found[:, 0] == 0) | (found[:, 0] >= 10)
    return {"dice": large(found)[:, 1].mean(), "auroc": auroc(ill, found[:, 3]), "large": auroc(ill[clear], found[clear, 3]), "ece": calibration_error(ill, found[:, 4]),
            "withheld": int((found[:, 4] == 0.5).sum())}


def intervals(found: np.ndarray) -> dict[str, tuple[float, float]]:
    rank = lambda rows: auroc(rows[:, 0] > 0, rows[:, 1]) if 0 < (rows[:, 0] > 0).mean() < 1 else float("nan")  # noqa: E731
    miss = lambda rows: calibration_error(rows[:, 0] > 0, rows[:, 1])  # noqa: E731
    return {"ill": int((found[:, 0] > 0).sum()), "auroc": bootstrap_by_patient(found[:, [0, 3]], rank, seed=0, rounds=500),
            "ece": bootstrap_by_patient(found[:, [0, 4]], miss, seed=0, rounds=500)}


def outline_rows(parts: dict, seeds: tuple) -> list[tuple]:
    "The quick model: tumours that it outlines, in processor seconds; and what the same model learns in hospital B."
    ill = {hospital: parts[hospital][::2] for hospital in "AB"}
    spent, runs = [], []
    for seed in seeds:
        model, seconds = fit(parts["train"][:TRAIN], parts["valid"], seed)
        spent.append(seconds)
        runs.append({hospital: judge(model, ill[hospital]) for hospital in "AB"})
    inside = judge(fit(parts["train in B"], parts["valid in B"], seeds[0])[0], ill["B"])
    seconds, lines = statistics.median(spent), []
    for hospital, least in (("A", 0.60), ("B", 0.50)):
        figure, found = [large(run[hospital])[:, 1].mean() for run in runs], large(runs[0][hospital])
        low, high = bootstrap_by_patient(found[:, 1], seed=0)
        value = statistics.median(figure)
        lines.append((f"tumours >= 10 mm in two stages, hospital {hospital}",
                      f"Dice {value:.2f} [{low:.2f}, {high:.2f}], n = {len(found)}, {seconds:.0f} CPU-s",
                      f">= {least:.2f} in <= 180 CPU-s, gland {found[:, 2].mean():.2f}", value >= least and seconds <= 180))
    return [*lines, ("the same, learnt in hospital B itself", f"Dice {large(inside)[:, 1].mean():.2f}", "what its pictures allow", None)]


def patient_rows(parts: dict, seeds: tuple) -> list[tuple]:
    "The patient model: who is ill, among look-alikes, and whether the probability can be taken at its word."
    spent, runs = [], []
    for seed in seeds:
        model, seconds = fit_patient(parts["train"], parts["valid"], seed)
        spent.append(seconds)
        runs.append({hospital: judge(model, parts[hospital]) for hospital in "AB"})
    lines, seconds = [], statistics.median(spent)
    for hospital, rank in (("A", 0.95), ("B", 0.90)):
        every = [measured(run[hospital]) for run in runs]
        value = {name: statistics.median(one[name] for one in every) for name in every[0]}
        ends, n = intervals(runs[0][hospital]), len(runs[0][hospital])
        span = lambda name: "{:.2f} [{:.2f}, {:.2f}]".format(value[name], *ends[name])  # noqa: E731
        lines += [
            (f"tumour or none, look-alikes, hospital {hospital}", f"AUROC {span('auroc')}, {ends['ill']} of {n} ill, {seconds:.0f} CPU-s",
             f">= {rank:.2f}, coin 0.50", value["auroc"] >= rank),
            (f"the same without tumours below 10 mm, hospital {hospital}", f"AUROC {value['large']:.2f}", "what the small ones cost", None),
            (f"calibration error, hospital {hospital}", f"ECE {span('ece')}, n = {n}, {value['withheld']:.0f} withheld",
             "<= 0.08" + " (A)" * (hospital == "B"), value["ece"] <= 0.08 if hospital == "A" else None),
            (f"its outlines of tumours >= 10 mm, hospital {hospital}", f"Dice {value['dice']:.2f}", "beside", None),
        ]
    return lines


def rows(quick: bool) -> list[tuple]:
    torch.set_num_threads(1)
    parts, seeds = patients(quick), SEEDS[:1] if quick else SEEDS
    return outline_rows(parts, seeds) + patient_rows(parts, seeds)


def main() -> None:
    from timing import print_rows

    print_rows(rows(quick=False))


if __name__ == "__main__":
    main()
