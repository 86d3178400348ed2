"""Added noise: as strong and as coarse as asked, everywhere; reproducible; nothing else about the scan changes."""

import numpy as np
import pytest

from medkit.errors import ImageError
from medkit.imaging import Volume, add_noise, axial_affine, low_dose_sigma


def flat(shape=(12, 96, 96), spacing_mm=(5.0, 1.5, 1.0), dtype=np.int16, value=40) -> Volume:
    return Volume(np.full(shape, value, dtype), axial_affine(spacing_mm), spacing_mm, patient_key="p")


def added(volume: Volume, *options, **named) -> np.ndarray:
    return add_noise(volume, *options, **named).voxels.astype(float) - volume.voxels


@pytest.mark.parametrize("sigma", [1.0, 12.0, 47.0])
@pytest.mark.parametrize("length", [0.0, 0.7, 3.0])
def test_as_strong_as_asked(sigma, length):
    noise = added(flat(dtype=np.float32), sigma, correlation_mm=length, seed=1)
    assert noise.std() == pytest.approx(sigma, rel=0.04) and abs(noise.mean()) < 0.04 * sigma


@pytest.mark.parametrize("length", [0.7, 2.0, 4.0])
def test_as_coarse_as_asked_in_millimetres_along_every_axis(length):
    "Rows, columns and slices have different spacings; the grain is the same in millimetres."
    noise = added(flat((24, 160, 160)), 50, correlation_mm=length, seed=2) / 50
    for axis, step in enumerate((5.0, 1.5, 1.0)):
        for lag in (1, 2, 3):
            first, second = noise.take(range(lag, noise.shape[axis]), axis), noise.take(range(noise.shape[axis] - lag), axis)
            assert (first * second).mean() == pytest.approx(np.exp(-((lag * step / length) ** 2)), abs=0.03)


def test_opposite_edges_do_not_know_each_other():
    noise = added(flat((4, 64, 400)), 50, correlation_mm=6, seed=3) / 50
    assert abs((noise[:, 0] * noise[:, -1]).mean()) < 0.35  # 64 rows of 1.5 mm; on a ring they were neighbours, with 0.94


def test_strength_follows_an_array():
    sigma = np.linspace(0, 60, 96)[None, None]
    noise = added(flat(), sigma, correlation_mm=1.5, seed=0)
    assert (noise[..., 0] == 0).all()
    assert noise[..., 90:].std() == pytest.approx(sigma[..., 90:].mean(), rel=0.1)
    single = added(flat(), sigma[0, 0], correlation_mm=1.5, seed=0)
    assert (single == noise).all()


def test_the_same_seed_is_the_same_noise_and_another_is_another():
    one, two, three = (added(flat(), 20, correlation_mm=2, seed=seed) for seed in (5, 5, 6))
    assert (one == two).all() and abs(np.corrcoef(one.ravel(), three.ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.float64])
def test_the_frame_and_the_type_stay_and_the_scan_is_not_touched(dtype):
    volume = flat(dtype=dtype)
    before = volume.voxels.copy()
    noisy = add_noise(volume, 300, correlation_mm=1, seed=0)
    assert noisy.voxels.dtype == dtype and (volume.voxels == before).all()
    assert (noisy.affine == volume.affine).all() and noisy.spacing_mm == volume.spacing_mm and noisy.patient_key == "p"
    assert "noise added: sigma 300 HU" in noisy.notes[-1]
    if dtype is np.uint8:  # no number wraps round
        free = add_noise(flat(dtype=np.float32), 300, correlation_mm=1, seed=0).voxels
        assert (noisy.voxels == np.rint(free).clip(0, 255)).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 300, 2), (2, 3, 500)])
def test_any_shape(shape):
    assert add_noise(flat(shape), 10, correlation_mm=8, seed=0).shape == shape


@pytest.mark.parametrize("options", [
    {"sigma_hu": None}, {"sigma_hu": True}, {"sigma_hu": float("inf")}, {"sigma_hu": [[1, 2], [3]]}, {"sigma_hu": np.ones((2, 96, 96))},
    {"sigma_hu": np.ones((1, 12, 96, 96))}, {"sigma_hu": -1}, {"sigma_hu": 1e9}, {"sigma_hu": np.array([])},
    {"correlation_mm": -1}, {"correlation_mm": None}, {"correlation_mm": float("nan")}, {"correlation_mm": True},
    {"seed": None}, {"seed": "1"}, {"seed": 1.5}, {"seed": -3}, {"seed": True}, {"volume": None}, {"volume": np.zeros((2, 2, 2))},
])
def test_odd_options_are_refused_in_words(options):
    with pytest.raises(ImageError, match="bad_option"):
        add_noise(**({"volume": flat(), "sigma_hu": 1.0, "correlation_mm": 1.0, "seed": 0} | options))


def test_a_share_of_the_dose():
    "Noise variances add up, and go with the inverse of the dose."
    scan = add_noise(flat(dtype=np.float32), 12, correlation_mm=1.5, seed=0)
    quarter = add_noise(scan, low_dose_sigma(12, 0.25), correlation_mm=1.5, seed=1)
    assert quarter.voxels.std() == pytest.approx(24, rel=0.04)
