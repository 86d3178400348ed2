"""Surface distances, probabilities, fidelity and lesions against other packages, closed forms and hostile input."""

import json
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import distance_transform_edt

from medkit.errors import MedkitError, ModelError
from medkit.learning.fidelity import contrast_to_noise, psnr, ssim
from medkit.learning.lesions import froc_points, lesion_rates, match_lesions, rates_by_size
from medkit.learning.probability import (
    Calibration, average_precision, brier_score, calibration_error, calibration_line, choose_threshold, count_calls,
    fit_calibration, predictive_values, wilson_interval,
)
from medkit.learning.surface import average_surface_distance, hd95, surface_dice

SPACINGS = [(1.0, 1.0, 1.0), (2.5, 0.7, 0.7), (0.3, 4.0, 1.1)]


def random_masks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    "Two masks: scattered voxels, blocks, at the border, single voxels, or full."
    draw = np.random.default_rng(seed)
    masks = []
    for _ in range(2):
        mask = np.zeros((7, 11, 9), dtype=bool)
        kind = draw.integers(5)
        if kind == 0:
            mask |= draw.random(mask.shape) < 0.3
        elif kind == 1:
            mask[1:5, 2:8, 3:7] = True
            mask = np.roll(mask, draw.integers(-1, 2, 3), (0, 1, 2))
        elif kind == 2:
            mask[:draw.integers(1, 7), :, :draw.integers(1, 9)] = True
        elif kind == 3:
            mask[tuple(draw.integers(0, size) for size in mask.shape)] = True
        else:
            mask[:] = True
        masks.append(mask)
    return masks[0], masks[1]


@pytest.fixture(scope="module")
def monai():
    return pytest.importorskip("monai.metrics")


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(12))
def test_surface_scores_are_those_of_monai(seed, spacing, monai):
    one, two = random_masks(seed)
    pair = [torch.from_numpy(mask[None, None]) for mask in (one, two)]
    theirs = monai.compute_hausdorff_distance(*pair, True, percentile=95, spacing=spacing).item()
    assert hd95(one, two, spacing) == pytest.approx(theirs, rel=1e-6, abs=1e-6)
    theirs = monai.compute_average_surface_distance(*pair, True, symmetric=True, spacing=spacing).item()
    assert average_surface_distance(one, two, spacing) == pytest.approx(theirs, rel=1e-6, abs=1e-6)
    for subvoxel, definition in ((False, "voxels"), (True, "area")):
        theirs = monai.compute_surface_dice(*pair, [1.35], True, spacing=spacing, use_subvoxels=subvoxel).item()
        assert surface_dice(one, two, spacing, 1.35, definition) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(12))
def test_area_definitions_are_those_of_surface_distance(seed, spacing):
    package = pytest.importorskip("surface_distance")
    one, two = random_masks(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distances = package.compute_surface_distances(two, one, spacing)
    assert hd95(one, two, spacing, "area") == pytest.approx(package.compute_robust_hausdorff(distances, 95), abs=1e-6)
    theirs = package.compute_surface_dice_at_tolerance(distances, 1.35)
    assert surface_dice(one, two, spacing, 1.35) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(6))
def test_pooled_hd95_by_distance_transform(seed, spacing):
    "medpy is not installed: its definition, spelt out with a distance transform of the padded masks."
    surfaces = []
    for mask in random_masks(seed):
        padded, inner = np.pad(mask, 1), np.pad(mask, 1)
        for axis in range(3):
            inner = inner & np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
        surfaces.append(padded & ~inner)
    one, two = surfaces
    pooled = [distance_transform_edt(~other, spacing)[own] for own, other in ((one, two), (two, one))]
    assert hd95(*random_masks(seed), spacing, "pooled") == pytest.approx(np.percentile(np.concatenate(pooled), 95), abs=1e-9)


def test_empty_masks_are_defined():
    "MONAI's percentile of a missed organ is NaN, which its mean leaves out; ours is infinite, so that nobody can."
    full, empty = np.ones((3, 4, 5), bool), np.zeros((3, 4, 5), bool)
    for definition in ("voxels", "pooled", "area"):
        assert hd95(full, empty, (1, 1, 1), definition) == hd95(empty, full, (1, 1, 1), definition) == np.inf
        assert np.isnan(hd95(empty, empty, (1, 1, 1), definition))
    for definition in ("area", "voxels"):
        assert surface_dice(full, empty, (1, 1, 1), 100, definition) == 0
        assert np.isnan(surface_dice(empty, empty, (1, 1, 1), 1, definition))
    assert average_surface_distance(empty, full, (1, 1, 1)) == np.inf


masks = hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5))


@settings(max_examples=50, deadline=None)
@given(masks, st.integers(0, 2**32 - 1), st.sampled_from(SPACINGS))
def test_surface_properties(one, seed, spacing):
    two = np.random.default_rng(seed).random(one.shape) < 0.4
    if not one.any() or not two.any():
        return
    for definition in ("voxels", "pooled", "area"):
        value = hd95(one, two, spacing, definition)
        assert hd95(two, one, spacing, definition) == pytest.approx(value)
        assert hd95(one, two, 3 * np.array(spacing), definition) == pytest.approx(3 * value)
        assert hd95(*(np.pad(mask, 2) for mask in (one, two)), spacing, definition) == pytest.approx(value)
        assert hd95(*(mask.transpose(2, 0, 1) for mask in (one, two)), (spacing[2], *spacing[:2]), definition) == pytest.approx(value)
    assert hd95(one, one, spacing) == 0 and surface_dice(one, one, spacing, 0) == 1
    shares = [surface_dice(one, two, spacing, tolerance) for tolerance in (0, 1, 2, 1000)]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)


@pytest.mark.parametrize("odd", [
    (np.ones((2, 2, 2)), np.ones((2, 2, 2)), (1, 1, 1)), (np.ones((2, 2, 2), bool), np.ones((2, 2, 3), bool), (1, 1, 1)),
    (np.ones((2, 2, 2), bool), np.ones((2, 2, 2), bool), None), (np.ones((2, 2, 2), bool), np.ones((2, 2, 2), bool), (1, 0, 1)),
    (np.ones((2, 2, 2), bool), np.ones((2, 2, 2), bool), (1, np.nan, 1)), (None, None, (1, 1, 1)), ("a", "b", "c"),
    (np.ones(3, bool), np.ones(3, bool), (1,)), (np.ones((2, 2, 2), bool), np.ones((2, 2, 2), bool), "1mm"),
])
def test_odd_masks_are_a_medkit_error(odd):
    for call in (hd95, average_surface_distance, lambda *args: surface_dice(*args, 1), match_lesions):
        with pytest.raises(MedkitError):
            call(*odd)


patients = st.lists(
    st.tuples(st.booleans(), st.one_of(st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.floats(0, 1))), min_size=2, max_size=60,
).filter(lambda rows: len({positive for positive, _ in rows}) == 2)


@settings(max_examples=30, deadline=None)  # scikit-learn takes a third of a second for one
@given(patients)
def test_probabilities_are_those_of_scikit_learn(rows):
    metrics, calibration = pytest.importorskip("sklearn.metrics"), pytest.importorskip("sklearn.calibration")
    positive, scores = (np.array(column) for column in zip(*rows))
    assert average_precision(positive, scores) == pytest.approx(metrics.average_precision_score(positive, scores), abs=1e-9)
    assert brier_score(positive, scores) == pytest.approx(metrics.brier_score_loss(positive, scores), abs=1e-9)
    table = count_calls(positive, scores, 0.5)
    assert table.sensitivity == metrics.recall_score(positive, scores >= 0.5)
    share, mean = calibration.calibration_curve(positive, scores, n_bins=10)
    count = np.histogram(np.searchsorted(np.linspace(0, 1, 11)[1:-1], scores), np.arange(11))[0]
    assert calibration_error(positive, scores) == pytest.approx((np.abs(share - mean) * count[count > 0]).sum() / len(scores), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(patients, st.floats(0.05, 1))
def test_a_chosen_threshold_keeps_its_promise(rows, wanted):
    positive, scores = (np.array(column) for column in zip(*rows))
    assert count_calls(positive, scores, choose_threshold(positive, scores, wanted)).sensitivity >= wanted - 1e-9
    best = count_calls(positive, scores, choose_threshold(positive, scores))
    for level in np.unique(scores):
        other = count_calls(positive, scores, level)
        assert best.sensitivity + best.specificity >= other.sensitivity + other.specificity - 1e-9


@settings(max_examples=100, deadline=None)
@given(st.floats(0.01, 1), st.floats(0, 0.99), st.floats(0.001, 0.999))
def test_bayes_by_counting(sensitivity, specificity, prevalence):
    ppv, npv = predictive_values(sensitivity, specificity, prevalence)
    people = 1e6 * np.array([prevalence * sensitivity, (1 - prevalence) * (1 - specificity)])
    assert ppv == pytest.approx(people[0] / people.sum()) and 0 <= npv <= 1
    assert predictive_values(sensitivity, specificity, prevalence / 2)[0] <= ppv


@pytest.mark.parametrize("patients_seen", [10, 50, 400])
def test_calibration_line_is_logistic_regression(patients_seen):
    linear = pytest.importorskip("sklearn.linear_model")
    draw = np.random.default_rng(patients_seen)
    chance = draw.uniform(0.05, 0.95, patients_seen)
    ill = (draw.random(patients_seen) < 1 - chance / 2).astype(int)
    odds = np.log(chance / (1 - chance))
    model = linear.LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(odds[:, None], ill)
    slope, large = calibration_line(ill, chance)
    assert slope == pytest.approx(model.coef_.item(), abs=1e-4)
    assert (1 / (1 + np.exp(-odds - large))).mean() == pytest.approx(ill.mean(), abs=1e-6)


def test_calibration_is_platts_sigmoid():
    "scikit-learn's own Platt scaling has the other sign of slope and intercept."
    package = pytest.importorskip("sklearn.calibration")
    draw = np.random.default_rng(3)
    chance = draw.uniform(0.01, 0.99, 200)
    ill = (draw.random(200) < chance).astype(int)
    model = package._SigmoidCalibration().fit(np.log(chance / (1 - chance)), ill)
    mine = fit_calibration(ill, chance)
    assert (mine.slope, mine.intercept) == pytest.approx((-model.a_, -model.b_), abs=1e-3)
    again = Calibration.from_dict(json.loads(json.dumps(mine.as_dict())))
    np.testing.assert_array_equal(again(chance), mine(chance))


def test_calibration_mends_what_is_too_sure():
    draw = np.random.default_rng(0)
    chance = draw.beta(1, 1, 2000)
    ill, sure = (draw.random(2000) < chance).astype(int), chance**4 / (chance**4 + (1 - chance) ** 4)
    mended = fit_calibration(ill[:1000], sure[:1000])(sure[1000:])
    assert calibration_line(ill[1000:], sure[1000:])[0] == pytest.approx(0.25, abs=0.05)
    assert calibration_line(ill[1000:], mended)[0] == pytest.approx(1, abs=0.15)
    assert calibration_error(ill[1000:], mended) < 0.04 < 0.1 < calibration_error(ill[1000:], sure[1000:])


def test_a_perfect_separation_has_no_finite_slope_and_no_certainty():
    ill, scores = np.array([0] * 5 + [1] * 5), np.linspace(0.1, 0.9, 10)
    assert calibration_line(ill, scores)[0] == np.inf and calibration_line(1 - ill, scores)[0] == -np.inf
    assert np.isnan(calibration_line([0, 1], [0.5, 0.5])[0])
    assert np.all(fit_calibration(ill, scores)(scores) < 0.999)


@pytest.mark.parametrize("count", [(0, 1), (1, 1), (5, 9), (300, 301)])
def test_wilson_interval_solves_its_equation(count):
    successes, total = count
    for end in wilson_interval(successes, total):
        if 0 < end < 1:
            assert abs(successes / total - end) == pytest.approx(1.959964 * np.sqrt(end * (1 - end) / total), rel=1e-5)


@pytest.mark.parametrize("positive, scores", [
    ([], []), ([1], [np.nan]), ([2, 0], [0.1, 0.2]), (["a"], [0.1]), ([0, 1], ["a", "b"]), ([0, 1], [0.1]), (None, None), ([[0, 1]], [[0, 1]]),
    ([0, 1], [0.5, np.inf]),
])
def test_odd_patients_are_a_medkit_error(positive, scores):
    for call in (average_precision, brier_score, calibration_error, calibration_line, choose_threshold, fit_calibration,
                 lambda p, s: count_calls(p, s, 0.5)):
        with pytest.raises(MedkitError):
            call(positive, scores)


@pytest.mark.parametrize("seed", range(4))
def test_fidelity_is_scikit_image_under_the_papers_settings(seed):
    package = pytest.importorskip("skimage.metrics")
    draw = np.random.default_rng(seed)
    clean = draw.normal(40, 100, (3, 32, 40))
    other = clean + draw.normal(0, 30, clean.shape)
    assert psnr(other, clean, 400) == pytest.approx(package.peak_signal_noise_ratio(clean, other, data_range=400), abs=1e-9)
    theirs = [package.structural_similarity(a, b, data_range=400, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
              for a, b in zip(other, clean)]
    assert ssim(other, clean, 400) == pytest.approx(np.mean(theirs), abs=1e-9)
    assert ssim(other[0], clean[0], 400) == pytest.approx(theirs[0], abs=1e-9)


@pytest.mark.parametrize("odd", [None, "a", np.zeros(3), np.zeros((2, 12, 12, 2)), np.full((12, 12), np.inf), np.zeros((12, 13))])
def test_odd_pictures_are_a_medkit_error(odd):
    clean = np.zeros((12, 12))
    for call in (lambda: psnr(odd, clean, 1), lambda: ssim(odd, clean, 1), lambda: psnr(clean, clean, odd),
                 lambda: contrast_to_noise(odd, clean > 0, clean == 0)):
        with pytest.raises(MedkitError):
            call()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 0.1, 0.5]))
def test_lesions_pair_one_to_one(seed, min_iou):
    draw = np.random.default_rng(seed)
    one, two = draw.random((2, 4, 8, 8)) < 0.12
    match = match_lesions(one, two, (1, 1, 1), min_iou, probability=draw.random(one.shape))
    finders = [finder for finder in match.finders if finder >= 0]
    assert len(set(finders)) == len(finders) == sum(match.hits) == sum(match.found)
    assert sum(size**3 * np.pi / 6 for size in match.diameters_mm) == pytest.approx(two.sum())
    assert sum(row["lesions"] for row in rates_by_size([match])) == match.lesions
    if match.lesions:
        assert all(match_lesions(two, two, (1, 1, 1), 1.0).found)
        rates, points = lesion_rates([match]), froc_points([match])
        if points:
            assert points[-1][1:] == pytest.approx((rates["false_positives_per_patient"], rates["sensitivity"]))
            assert [point[2] for point in points] == sorted(point[2] for point in points)


def test_lesions_agree_with_counting_by_components():
    measure = pytest.importorskip("skimage.measure")
    mask = np.random.default_rng(0).random((6, 20, 20)) < 0.08
    assert match_lesions(mask, mask, (1, 1, 1)).lesions == measure.label(mask, connectivity=3).max()


def test_contrast_to_noise_ignores_scale_and_offset():
    draw = np.random.default_rng(0)
    picture, region = draw.normal(size=(20, 20)), np.arange(400).reshape(20, 20) < 40
    value = contrast_to_noise(picture + 3 * region, region, ~region)
    assert contrast_to_noise(7 * (picture + 3 * region) - 1000, region, ~region) == pytest.approx(value)
    with pytest.raises(ModelError, match="empty"):
        contrast_to_noise(picture, region & False, ~region)
