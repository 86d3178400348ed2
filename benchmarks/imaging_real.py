"""Liver and spleen of one real person, learnt from another: the honest split beside the one that leaks.

Two scans of TotalSegmentator's tests (the outlines are a model's, not a radiologist's). MEDKIT_DATA names their folder.
"""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import label

from medkit.imaging import Mask, Volume, Window, align_to, crop, read_nifti, read_nifti_mask, read_series, resample
from medkit.learning import Augment, SliceLoader, SliceLoaders, dice, predict, read_cases, segmentation_learner
from medkit.models import UNet
from timing import print_rows

BAR = 0.85
SPACING_MM = 3.0
SIDE = 128  # pixels
STEPS = 96  # of training, for each direction
RATE = 5e-3
STACK = 3  # slices the network sees at once
WINDOW = Window(60, 360)
ORGANS = {5: "liver", 1: "spleen"}  # TotalSegmentator's numbers
CHANGES = Augment(rotation_deg=12, zoom=0.25, shift=0.08, bend=0.03, offset_hu=60, contrast=0.3, geometry_chance=0.9,
                  value_chance=0.7)  # one person had contrast agent, the other none: 50 HU apart


def folder() -> Path | None:
    "Where the scans are, or None."
    found = Path(os.environ.get("MEDKIT_DATA", "")) / "imaging" / "totalsegmentator"
    return found if os.environ.get("MEDKIT_DATA") and found.is_dir() else None


def upright(volume: Volume, mask: Mask) -> tuple[Volume, Mask]:
    "The pair with columns to the left and rows to the back, liver 1 and spleen 2."
    mask = align_to(mask, volume)
    flips = tuple(np.flatnonzero(volume.affine[[2, 1, 0], [0, 1, 2]] < 0).tolist())  # axes that run the other way
    corner = np.where(np.isin(np.arange(3), flips), np.array(volume.shape) - 1, 0)
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ corner
    affine[:3, list(flips)] *= -1
    labels = sum((mask.labels == number) * np.uint8(place) for place, number in enumerate(ORGANS, 1))
    names = {0: "background", **dict(enumerate(ORGANS.values(), 1))}
    key = volume.patient_key
    return (Volume(np.flip(volume.voxels, flips).copy(), affine, volume.spacing_mm, patient_key=key),
            Mask(np.flip(labels, flips).copy(), names, affine, volume.spacing_mm, key))


def people() -> list[tuple[Volume, Mask]]:
    "Both persons at one spacing, in a square around the body."
    scans, pairs = folder(), []
    for key, volume, mask in (("person 1", read_series(scans / "example_ct_dicom"), "example_seg_dicom.nii.gz"),
                              ("person 2", read_nifti(scans / "example_ct_sm.nii.gz", unit="HU"), "example_seg.nii.gz")):
        pair = upright(replace(volume, patient_key=key), replace(read_nifti_mask(scans / mask), patient_key=key))
        pair = [resample(part, SPACING_MM) for part in pair]
        body = np.argwhere(pair[0].voxels > -300)
        center, slices = (body.min(0) + body.max(0)) / 2, pair[0].shape[0]
        pairs.append(tuple(crop(part, tuple(center.tolist()), (slices, SIDE, SIDE)) for part in pair))
    return pairs


def learner(train: list, test: list, stack: int, seed: int):
    "A U-Net trained on `train`; nothing was chosen by looking at anybody else, so the training cases stand in for validation."
    torch.manual_seed(seed)
    how = {"window": WINDOW, "classes": {name: (name,) for name in ORGANS.values()}, "stack": stack}
    slices = sum(volume.shape[0] for volume, _ in train)
    again = -(-16 * 8 // slices)  # a round of about eight batches
    shuffled = {"shuffle": True, "drop_last": True, "augment": CHANGES, "seed": seed}
    loaders = [SliceLoader(read_cases(train * again, **how), bs=16, num_workers=0, **shuffled),
               *(SliceLoader(read_cases(part, **how), bs=16, num_workers=0) for part in (train, test))]
    learn = segmentation_learner(SliceLoaders(*loaders, device="cpu"), UNet(stack, 3, 16, 3), seed=seed)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(max(1, round(STEPS / len(loaders[0]))), RATE)
    return learn


def largest(drawn: np.ndarray) -> np.ndarray:
    "Of every organ only the largest piece that holds together: a person has one liver and one spleen."
    kept = np.zeros_like(drawn)
    for number in range(1, len(ORGANS) + 1):
        pieces, count = label(drawn == number)
        if count: kept[pieces == np.bincount(pieces.ravel())[1:].argmax() + 1] = number
    return kept


def scores(learn, test: list, whole: bool = True) -> list[float]:
    "Dice of liver and spleen over all slices of the test."
    drawn = predict(learn, learn.dls.test).argmax(1).numpy()
    if whole: drawn = largest(drawn)
    truth = np.concatenate([mask.labels for _, mask in test])
    return [float(dice(drawn == number, truth == number)) for number in range(1, len(ORGANS) + 1)]


def single_slices(pairs: list) -> list:
    "Every slice as if it were a person: what a split that knows no patients works with."
    cut = lambda part, at: crop(part, (at, (SIDE - 1) / 2, (SIDE - 1) / 2), (1, SIDE, SIDE))
    return [tuple(replace(cut(part, at), patient_key=f"{part.patient_key} slice {at}") for part in pair)
            for pair in pairs for at in range(pair[0].shape[0])]


def leaky(pairs: list, seed: int) -> list[float]:
    "The same network on a random fifth of the slices, whose neighbours it has learnt from."
    slices = single_slices(pairs)
    order = np.random.default_rng(seed).permutation(len(slices))
    test, train = ([slices[at] for at in part] for part in np.split(order, [len(slices) // 5]))
    return scores(learner(train, test, 1, seed), test, whole=False)


def rows(quick: bool) -> list[tuple[str, str, str, bool | None]]:
    "What, figure, bar, met."
    if folder() is None:
        return [("real CT", "skipped: MEDKIT_DATA names no folder with the scans", f">= {BAR}", None)]
    pairs, table, seeds = people(), [], range(1 if quick else 3)
    for learnt, asked in ((1, 0), (0, 1)):
        train, test = [pairs[learnt]], [pairs[asked]]
        found = np.median([scores(learner(train, test, STACK, seed), test) for seed in seeds], axis=0)
        for organ, value in zip(ORGANS.values(), found):
            what = f"{organ}: learnt from person {learnt + 1}, asked of person {asked + 1}"
            table.append((what, f"Dice {value:.3f}", f">= {BAR}", bool(value >= BAR)))
    shared = np.median([leaky(pairs, seed) for seed in seeds], axis=0)
    return table + [(f"{organ}: random slices of both, the split that leaks", f"Dice {value:.3f}", "shown, not a result", None)
                    for organ, value in zip(ORGANS.values(), shared)]


def main() -> None:
    start = time.process_time()
    print_rows(rows(quick="--quick" in sys.argv[1:]))
    print(f"{time.process_time() - start:.0f} s of processor time")


if __name__ == "__main__":
    main()
