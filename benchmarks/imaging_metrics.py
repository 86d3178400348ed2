"""Our metrics beside those of MONAI, surface-distance, scikit-learn and scikit-image, on random masks and patients.

    python benchmarks/imaging_metrics.py

Random masks include full ones, single voxels, blocks at the border and uneven spacing; empty masks are compared in words, because
the packages do not agree on them. The bar: every difference at most 1e-6 (mm, or a share) under the stated definition.
"""

import sys
import time
import warnings
from collections.abc import Callable

import numpy as np

from medkit.learning.fidelity import psnr, ssim
from medkit.learning.metrics import auroc, dice
from medkit.learning.probability import average_precision, brier_score, calibration_line
from medkit.learning.surface import average_surface_distance, hd95, surface_dice
from timing import median_cpu_s, print_rows

LARGEST_DIFFERENCE = 1e-6  # relative to the value where it is above 1: MONAI answers in 32 bits
TOLERANCE_MM = 1.35  # for surface Dice; no multiple of a spacing, where rounding would decide
SPACINGS = ((1.0, 1.0, 1.0), (2.5, 0.7, 0.7), (0.3, 4.0, 1.1))
PAIRS = 40  # of random masks
TIMED_SHAPE, TIMED_SPACING = (100, 256, 256), (2.5, 0.8, 0.8)


def random_mask(draw: np.random.Generator) -> np.ndarray:
    "Scattered voxels, a block, a block at the border, one voxel, or everything."
    mask = np.zeros((9, 14, 12), dtype=bool)
    kind = draw.integers(5)
    if kind == 0:
        mask |= draw.random(mask.shape) < 0.3
    elif kind == 1:
        start = draw.integers(1, 5, 3)
        mask[tuple(slice(first, first + 4) for first in start)] = True
    elif kind == 2:
        mask[:draw.integers(1, 9), :, :draw.integers(1, 12)] = True
    elif kind == 3:
        mask[tuple(draw.integers(0, size) for size in mask.shape)] = True
    else:
        mask[:] = True
    return mask


def largest_difference(ours: Callable, theirs: Callable, samples: list) -> float:
    "The largest difference over the samples, relative where the value is above 1."
    found = [(ours(*sample), theirs(*sample)) for sample in samples]
    return max(abs(a - b) / max(1, abs(b)) for a, b in found)


def mask_pairs() -> list:
    draw = np.random.default_rng(0)
    return [(random_mask(draw), random_mask(draw), SPACINGS[number % 3]) for number in range(PAIRS)]


def patient_samples() -> list:
    draw, samples = np.random.default_rng(1), []
    for count in (5, 20, 100, 1000):
        for digits in (1, 9):  # with ties and without
            scores = draw.random(count).round(digits)
            samples.append((np.append((draw.random(count - 2) < scores[2:]).astype(int), (0, 1)), scores))
    return samples


def surface_rows(quick: bool) -> list:
    import torch
    from monai import metrics as monai

    def batch(*masks):
        return [torch.from_numpy(mask[None, None]) for mask in masks]

    def monai_hd95(one, two, spacing):
        return monai.compute_hausdorff_distance(*batch(one, two), True, percentile=95, spacing=spacing).item()

    def monai_mean(one, two, spacing):
        return monai.compute_average_surface_distance(*batch(one, two), True, symmetric=True, spacing=spacing).item()

    def monai_share(subvoxel):
        return lambda one, two, spacing: monai.compute_surface_dice(
            *batch(one, two), [TOLERANCE_MM], True, spacing=spacing, use_subvoxels=subvoxel).item()

    pairs = mask_pairs()[:10 if quick else None]
    cases = [
        ("HD95 (voxels), MONAI", hd95, monai_hd95), ("average surface distance, MONAI", average_surface_distance, monai_mean),
        ("surface Dice (voxels), MONAI", lambda *pair: surface_dice(*pair, TOLERANCE_MM, "voxels"), monai_share(False)),
        ("surface Dice (area), MONAI", lambda *pair: surface_dice(*pair, TOLERANCE_MM), monai_share(True)),
        ("Dice, MONAI", lambda one, two, _: dice(one, two), lambda one, two, _: monai.compute_dice(*batch(one, two)).item()),
        *google_cases(),
    ]
    return [(what, largest_difference(ours, theirs, pairs)) for what, ours, theirs in cases]


def google_cases() -> list:
    import surface_distance

    def distances(one, two, spacing):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return surface_distance.compute_surface_distances(two, one, spacing)

    return [
        ("HD95 (area), surface-distance", lambda *pair: hd95(*pair, "area"),
         lambda *pair: surface_distance.compute_robust_hausdorff(distances(*pair), 95)),
        ("surface Dice (area), surface-distance", lambda *pair: surface_dice(*pair, TOLERANCE_MM),
         lambda *pair: surface_distance.compute_surface_dice_at_tolerance(distances(*pair), TOLERANCE_MM)),
    ]


def other_rows(quick: bool) -> list:
    from skimage import metrics as skimage
    from sklearn import metrics as sklearn

    draw = np.random.default_rng(2)
    pictures = [(clean + draw.normal(0, 30, clean.shape), clean) for clean in draw.normal(40, 90, (4, 64, 64))]
    paper = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=400)
    patients = patient_samples()
    return [
        ("AUROC, scikit-learn", largest_difference(auroc, sklearn.roc_auc_score, patients)),
        ("average precision, scikit-learn", largest_difference(average_precision, sklearn.average_precision_score, patients)),
        ("Brier score, scikit-learn", largest_difference(brier_score, sklearn.brier_score_loss, patients)),
        ("calibration slope, scikit-learn", largest_difference(lambda *p: calibration_line(*p)[0], logistic_slope, patients[4:])),
        ("PSNR, scikit-image", largest_difference(lambda a, b: psnr(a, b, 400),
                                                  lambda a, b: skimage.peak_signal_noise_ratio(b, a, data_range=400), pictures)),
        ("SSIM, scikit-image", largest_difference(lambda a, b: ssim(a, b, 400),
                                                  lambda a, b: skimage.structural_similarity(a, b, **paper), pictures)),
    ]


def logistic_slope(positive: np.ndarray, scores: np.ndarray) -> float:
    from sklearn.linear_model import LogisticRegression

    chances = np.clip(scores, 1e-6, 1 - 1e-6)
    odds = np.log(chances / (1 - chances))
    return LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(odds[:, None], positive).coef_.item()


def time_rows(quick: bool) -> list:
    import torch
    from monai.metrics import compute_hausdorff_distance

    axes = np.meshgrid(*(np.arange(size) * step for size, step in zip(TIMED_SHAPE, TIMED_SPACING)), indexing="ij")

    def ball(centre, radius):
        return sum((axis - middle) ** 2 for axis, middle in zip(axes, centre)) < radius**2

    one, two = ball((125, 102, 102), 40), ball((127, 105, 100), 38)
    pair = [torch.from_numpy(mask[None, None]) for mask in (one, two)]
    repeats = 1 if quick else 3
    ours = median_cpu_s(lambda: hd95(one, two, TIMED_SPACING), repeats)
    theirs = median_cpu_s(lambda: compute_hausdorff_distance(*pair, True, percentile=95, spacing=TIMED_SPACING), repeats)
    size = " x ".join(map(str, TIMED_SHAPE))
    return [(f"HD95 of {size} voxels, CPU time", f"{1000 * ours:.0f} ms", "not slower than MONAI", ours <= theirs),
            ("HD95, MONAI's time over ours", f"{theirs / ours:.1f} x", ">= 1", ours <= theirs)]


def rows(quick: bool) -> list[tuple[str, str, str, bool]]:  # what, figure, bar, whether it is met
    differences = [*surface_rows(quick), *other_rows(quick)]
    found = [(f"{what}: largest difference", f"{value:.1e}", f"<= {LARGEST_DIFFERENCE:g}", bool(value <= LARGEST_DIFFERENCE))
             for what, value in differences]
    return found + time_rows(quick)


def main() -> None:
    start = time.process_time()
    print_rows(rows("--quick" in sys.argv))
    print(f"{time.process_time() - start:.0f} CPU-s")


if __name__ == "__main__":
    main()
