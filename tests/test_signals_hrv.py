"""Heart rate variability: by hand, against NeuroKit2, under gaps, scaling, shifting and bad input."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkit.errors import MedkitError, SignalError
from medkit.signals import HRV_INDICES, clean, find_beats, hrv, simulate_bcg, simulate_rr

QUICK = settings(max_examples=40, deadline=None, derandomize=True)
SAME_AS_NEUROKIT = {  # index here -> column there; where both define the same
    "mean_nn_ms": "MeanNN", "median_nn_ms": "MedianNN", "min_nn_ms": "MinNN", "max_nn_ms": "MaxNN", "sdnn_ms": "SDNN", "cvnn": "CVNN",
    "mad_nn_ms": "MadNN", "iqr_nn_ms": "IQRNN", "triangular_index": "HTI", "rmssd_ms": "RMSSD", "sdsd_ms": "SDSD", "cvsd": "CVSD",
    "pnn50_percent": "pNN50", "pnn20_percent": "pNN20", "sd1_ms": "SD1", "sd2_ms": "SD2", "sd1_sd2": "SD1SD2", "sample_entropy": "SampEn",
    "vlf_ms2": "VLF", "lf_ms2": "LF", "hf_ms2": "HF", "lf_hf": "LFHF", "ln_hf": "LnHF",
}
MILLISECONDS = [name for name, (unit, *_) in HRV_INDICES.items() if unit == "ms"]


@pytest.mark.parametrize("module", ["hrv", "beats"])
def test_the_function_stays_the_function(module):
    code = f"import medkit.signals.{module}, medkit.signals as s; from medkit.signals import hrv; assert callable(hrv) and callable(s.hrv)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_six_intervals_by_hand():
    found = hrv([0.8, 0.81, 0.79, 0.86, 0.8], fewest=2)
    assert found["mean_nn_ms"] == pytest.approx(812) and found["rmssd_ms"] == pytest.approx(np.sqrt(9000 / 4))
    assert found["sdnn_ms"] == pytest.approx(np.sqrt(3080 / 4)) and found["pnn50_percent"] == pytest.approx(40)
    assert found["pnn20_percent"] == pytest.approx(40), "a difference of exactly 20 ms is not over 20 ms"
    assert found["sd1_ms"] == pytest.approx(found["sdsd_ms"] / np.sqrt(2))
    assert found["mean_heart_rate_bpm"] == pytest.approx(60000 / 812)


def neurokit(rr_s: np.ndarray) -> dict:
    nk = pytest.importorskip("neurokit2", reason='NeuroKit2 is the extra "ecg"')
    given_rr = {"RRI": 1000 * rr_s, "RRI_Time": np.cumsum(rr_s)}
    parts = [nk.hrv_time(given_rr), nk.hrv_frequency(given_rr, normalize=False, silent=True)]
    parts += [nk.hrv_nonlinear(given_rr)] if len(rr_s) < 600 else []  # its other indices take minutes on long series
    values = {name.removeprefix("HRV_"): value for part in parts for name, value in part.iloc[0].items()}
    return values | {"SampEn": nk.entropy_sample(1000 * rr_s, dimension=2, tolerance=0.2 * np.std(1000 * rr_s, ddof=1))[0]}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seconds, bpm, seed, decimals", [(500, 66, 3, 9), (1300, 80, 4, 9), (320, 100, 6, 3)])
def test_equal_to_neurokit_where_both_define_the_same(seconds, bpm, seed, decimals):
    rr_s = np.round(simulate_rr(seconds, heart_rate_bpm=bpm, seed=seed), decimals)
    found, other = hrv(rr_s), neurokit(rr_s)
    compared = [name for name, column in SAME_AS_NEUROKIT.items() if name not in found.reasons and column in other]
    assert len(compared) >= (len(SAME_AS_NEUROKIT) - 1 if len(rr_s) < 600 else len(SAME_AS_NEUROKIT) - 4)
    for name in compared:
        assert found[name] == pytest.approx(other[SAME_AS_NEUROKIT[name]], rel=1e-6), name


@pytest.mark.filterwarnings("ignore")
def test_equal_to_neurokit_on_a_real_night(real_data):
    rr_s = pd.read_csv(real_data / "signals/li2024_rr_reference/02_20231103_RR.csv").iloc[3000:4500, 2].to_numpy()
    found, other = hrv(rr_s), neurokit(rr_s)
    assert not found.reasons
    for name, column in SAME_AS_NEUROKIT.items():
        assert column not in other or found[name] == pytest.approx(other[column], rel=1e-6), name


def test_sample_entropy_by_counting_pairs():
    x = np.round(np.random.default_rng(1).normal(800, 40, 150))
    tolerance, size = 0.2 * x.std(ddof=1), len(x) - 2
    alike = [sum(np.abs(x[i: i + m] - x[j: j + m]).max() <= tolerance for i in range(size) for j in range(size) if i != j) for m in (2, 3)]
    assert hrv(x / 1000)["sample_entropy"] == pytest.approx(-np.log(alike[1] / alike[0]), rel=1e-9)


def test_power_of_a_sine_lies_in_its_band():
    for hz, name in ((0.02, "vlf_ms2"), (0.1, "lf_ms2"), (0.25, "hf_ms2")):
        found = hrv(0.8 + 0.02 * np.sin(2 * np.pi * hz * 0.8 * np.arange(800)))
        assert found[name] == pytest.approx(200, rel=0.08)
        assert found["total_power_ms2"] == pytest.approx(found[name], rel=0.05)


@given(st.floats(0.5, 2.0), st.integers(0, 1000))
@QUICK
def test_scaling_time_scales_every_index_in_ms(factor, seed):
    rr_s = simulate_rr(200, heart_rate_bpm=70, seed=seed)
    one, other = hrv(rr_s), hrv(factor * rr_s)
    for name in MILLISECONDS:
        assert other[name] == pytest.approx(factor * one[name], rel=1e-9)
    assert other["sd1_sd2"] == pytest.approx(one["sd1_sd2"], rel=1e-9) and other["cvnn"] == pytest.approx(one["cvnn"], rel=1e-9)
    assert other["sample_entropy"] == pytest.approx(one["sample_entropy"], rel=1e-3)


@given(st.floats(0.05, 0.4), st.integers(0, 1000))
@QUICK
def test_adding_a_constant_moves_levels_only(offset_s, seed):
    rr_s = simulate_rr(200, heart_rate_bpm=80, seed=seed)
    one, other = hrv(rr_s), hrv(rr_s + offset_s)
    assert other["mean_nn_ms"] == pytest.approx(one["mean_nn_ms"] + 1000 * offset_s)
    for name in ("sdnn_ms", "rmssd_ms", "sdsd_ms", "sd1_ms", "sd2_ms", "iqr_nn_ms", "pnn50_percent"):
        assert other[name] == pytest.approx(one[name], rel=1e-6, abs=1e-6)


@given(st.floats(-1e5, 1e5), st.integers(0, 100))
@QUICK
def test_moving_the_clock_changes_nothing(shift_s, seed):
    rr_s = simulate_rr(150, heart_rate_bpm=70, seed=seed)
    times_s = np.cumsum(rr_s)
    one, other = hrv(rr_s, times_s=times_s), hrv(rr_s, times_s=times_s + shift_s)
    assert one.coverage == pytest.approx(other.coverage) and dict(one.reasons) == dict(other.reasons)
    np.testing.assert_allclose(list(one.values.values()), list(other.values.values()), rtol=1e-9)


@given(st.lists(st.integers(0, 239), min_size=1, max_size=60, unique=True), st.integers(0, 100))
@QUICK
def test_no_difference_reaches_across_a_gap(missing, seed):
    rr_s = simulate_rr(220, heart_rate_bpm=70, seed=seed)[:240]
    rr_s[missing] = np.nan
    found, steps = hrv(rr_s), np.diff(1000 * rr_s)
    steps = steps[np.isfinite(steps)]
    assert found["rmssd_ms"] == pytest.approx(np.sqrt((steps**2).mean()))
    assert found["mean_nn_ms"] == pytest.approx(1000 * np.nanmean(rr_s))
    assert found.coverage == pytest.approx(np.isfinite(rr_s).mean())


def test_a_hole_in_time_splits_as_a_missing_interval_does():
    rr_s = simulate_rr(400, heart_rate_bpm=70, seed=2)
    times_s = np.cumsum(rr_s)
    keep = np.ones(len(rr_s), dtype=bool)
    keep[100:140] = False
    by_time, by_nan = hrv(rr_s[keep], times_s=times_s[keep]), hrv(np.where(keep, rr_s, np.nan))
    for name in HRV_INDICES:
        assert by_time[name] == pytest.approx(by_nan[name], nan_ok=True), name
    assert by_time.coverage == pytest.approx(rr_s[keep].sum() / times_s[-1])
    assert hrv(rr_s[keep])["rmssd_ms"] != by_time["rmssd_ms"], "without the times nothing tells of the hole"


def test_a_jump_across_a_gap_does_not_enter_the_spectrum():
    low, high = 0.7 + 0 * np.arange(400), 1.0 + 0 * np.arange(300)
    step = hrv(np.r_[low, np.nan, high])
    assert step["lf_ms2"] == pytest.approx(0, abs=1e-6) and "lf_hf" in step.reasons


@pytest.mark.parametrize("size, withheld", [
    (9, {"all"}), (60, {"bands", "sample_entropy", "triangular_index"}), (160, {"vlf_ms2", "total_power_ms2", "triangular_index"}),
    (400, {"triangular_index"}), (1600, set()),
])
def test_what_is_withheld_when_short(size, withheld):
    found = hrv(simulate_rr(3000, heart_rate_bpm=72, seed=4)[:size])
    bands = {name for name in HRV_INDICES if name.endswith("ms2") or name in ("lf_hf", "lf_nu_percent", "hf_nu_percent", "ln_hf")}
    expected = set(HRV_INDICES) if withheld == {"all"} else {n for n in withheld if n != "bands"} | (bands if "bands" in withheld else set())
    assert set(found.reasons) == expected
    assert all(np.isnan(found[name]) == (name in found.reasons) for name in HRV_INDICES)
    assert all(found.reasons.values()) and set(found.to_frame()["unit"]) == {"ms", "bpm", "1", "%", "ms2"}


def test_low_coverage_withholds_everything_and_can_be_set():
    rr_s = simulate_rr(600, heart_rate_bpm=70, seed=1)
    assert set(hrv(rr_s, duration_s=2000).reasons) == set(HRV_INDICES)
    assert "rmssd_ms" not in hrv(rr_s, duration_s=2000, lowest_coverage=0.2).reasons
    assert hrv(rr_s, duration_s=1200).coverage == pytest.approx(0.5, abs=0.02)


@given(st.integers(20, 150), st.sampled_from([0.5, 2.0]), st.integers(0, 50))
@QUICK
def test_a_missed_or_extra_beat_is_left_out_only_when_asked(place, factor, seed):
    rr_s = simulate_rr(150, heart_rate_bpm=70, seed=seed)
    place = place % len(rr_s)
    spoilt = rr_s.copy()
    spoilt[place] *= factor
    kept, left = hrv(spoilt), hrv(spoilt, max_jump=0.3)
    assert kept.left_out == 0 and left.left_out == 1 and np.isnan(left.intervals_s[place]) and left.coverage < 1
    assert kept["rmssd_ms"] > 1.2 * left["rmssd_ms"]
    assert left["rmssd_ms"] == pytest.approx(hrv(rr_s)["rmssd_ms"], rel=0.1)


def test_an_outlier_at_either_end_is_found():
    rr_s = simulate_rr(100, heart_rate_bpm=70, seed=1)
    assert hrv(np.r_[1.8, rr_s, 1.8], max_jump=0.2).left_out == 2


def test_beats_of_a_bed_and_their_truth():
    recording, truth = simulate_bcg(300, 100, snr_db=10, seed=24, movements_per_hour=60, bed_exits_per_hour=0)
    beats = find_beats(clean(recording))
    found, true = hrv(beats), hrv(np.diff(truth.beat_times_s))
    assert found.coverage == pytest.approx(np.diff(beats.spans, axis=1).sum() / 300, abs=1e-6)
    np.testing.assert_allclose(found.intervals_s[np.isfinite(found.intervals_s)], beats.intervals_s)
    assert found["mean_nn_ms"] == pytest.approx(true["mean_nn_ms"], rel=0.02) and found["sdnn_ms"] == pytest.approx(true["sdnn_ms"], rel=0.25)


def test_intervals_stay_within_spans():
    beats = SimpleNamespace(times_s=np.r_[np.arange(0, 30, 0.8), np.arange(31.5, 60, 0.9)], spans=np.array([[0, 30], [31, 60]]), duration_s=60.0)
    found = hrv(beats)
    assert int(np.isnan(found.intervals_s).sum()) == 1 and found["max_nn_ms"] == pytest.approx(900) and found.coverage == pytest.approx(59 / 60)
    assert found["rmssd_ms"] == pytest.approx(0, abs=1e-6)


def test_jitter_adds_six_times_its_variance_to_rmssd_squared():
    rng, times_s = np.random.default_rng(0), np.cumsum(simulate_rr(7200, heart_rate_bpm=60, seed=9))
    clear, blurred = hrv(np.diff(times_s)), hrv(np.diff(times_s + rng.normal(0, 0.008, len(times_s))))
    assert blurred["rmssd_ms"] ** 2 - clear["rmssd_ms"] ** 2 == pytest.approx(6 * 8**2, rel=0.1)
    assert blurred["sdnn_ms"] ** 2 - clear["sdnn_ms"] ** 2 == pytest.approx(2 * 8**2, rel=0.25)


BAD = {
    "milliseconds": ([800, 810, 790], {}, "bad_unit"), "zero": ([0.8, 0, 0.9], {}, "bad_unit"), "negative": ([0.8, -0.8], {}, "bad_unit"),
    "empty": ([], {}, "empty"), "only NaN": ([np.nan] * 5, {}, "all_missing"), "infinite": ([0.8, np.inf], {}, "not_finite"),
    "words": (["a", "b"], {}, "not_numeric"), "none": (None, {}, "not_numeric"), "complex": ([0.8 + 1j], {}, "not_numeric"),
    "two dimensions": (np.ones((2, 3)), {}, "bad_shape"), "a number": (0.8, {}, "bad_shape"), "object": (object(), {}, "not_numeric"),
    "huge": ([10**400], {}, "not_numeric"), "text": ("0.8", {}, "not_numeric"), "dates": (np.array(["2024-01-01"], "M8[D]"), {}, "not_numeric"),
    "times too few": ([0.8] * 20, {"times_s": [1, 2]}, "bad_shape"), "times back": ([0.8] * 3, {"times_s": [3, 2, 1]}, "bad_record"),
    "times NaN": ([0.8] * 3, {"times_s": [1, np.nan, 3]}, "bad_record"), "coverage": ([0.8] * 20, {"lowest_coverage": 2}, "bad_option"),
    "jump": ([0.8] * 20, {"max_jump": -1}, "bad_option"), "fewest": ([0.8] * 20, {"fewest": 2.5}, "bad_option"),
    "duration": ([0.8] * 20, {"duration_s": "long"}, "bad_option"), "rate": ([0.8] * 20, {"interpolation_rate_hz": np.nan}, "bad_option"),
    "window": ([0.8] * 20, {"welch_window_s": 1}, "bad_option"),
    "no beats": (SimpleNamespace(times_s=np.array([]), spans=np.empty((0, 2)), duration_s=9.0), {}, "empty"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_words(case):
    given_input, options, reason = BAD[case]
    with pytest.raises(SignalError) as caught:
        hrv(given_input, **options)
    assert caught.value.reason == reason and caught.value.found and caught.value.expected


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=40))
@QUICK
def test_any_list_gives_indices_or_a_medkit_error(values):
    try:
        found = hrv(values)
    except MedkitError:
        return
    assert set(found.values) == set(HRV_INDICES) and all(np.isfinite(v) or name in found.reasons for name, v in found.values.items())
    repr(found), found._repr_html_()


@pytest.mark.parametrize("first_s", [0.0, 0.4, 500.0])
def test_beat_times_are_told_from_milliseconds(first_s):
    times_s = first_s + np.cumsum(np.tile([0.8, 0.85, 0.9], 20))
    with pytest.raises(SignalError) as caught:
        hrv(times_s)
    assert caught.value.reason == "bad_unit" and caught.value.hint == "give np.diff(times)"
    with pytest.raises(SignalError) as caught:
        hrv(1000 * np.diff(times_s))
    assert caught.value.hint == "divide milliseconds by 1000"
    assert hrv(np.diff(times_s))["mean_nn_ms"] > 800
