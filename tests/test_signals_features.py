"""Features of windows: known answers, invariance, what is withheld, whose window it is, and speed.

The known answers are given to `extract_features` as whole recordings, so that cleaning and cutting are in the test.
"""

import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkit.errors import MedkitError, SignalError
from medkit.learning import check_leakage, patient_split
from medkit.signals import (
    FEATURES, HRV_INDICES, Recording, Windows, clean, extract_features, find_beats, hrv, join_windows, make_windows, picture, raw_windows,
    read_recording, respiration, simulate_bcg,
)

QUICK = settings(max_examples=25, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def night():
    recording, truth = simulate_bcg(420, 125, snr_db=8, seed=15, movements_per_hour=60, bed_exits_per_hour=20)
    windows = make_windows(recording, person="anna", night="1")
    return recording, truth, windows, extract_features(recording, windows)


def features_of(values, rate_hz=100.0, window_s=30.0, **options):
    recording = Recording(values, rate_hz, **options)
    return extract_features(recording, make_windows(recording, person="p", night="n", window_s=window_s)).to_frame()


def tone(hertz, height=1.0, rate_hz=100.0, seconds=120):
    times_s = np.arange(int(seconds * rate_hz)) / rate_hz
    return height * np.sin(2 * np.pi * hertz * times_s) + 1e-3 * height * np.random.default_rng(0).normal(size=len(times_s))


def test_there_are_at_least_forty_in_every_space_with_unit_formula_and_source():
    assert len(FEATURES) >= 40
    for name, info in FEATURES.items():
        assert info.unit and len(info.formula) > 3 and info.source and name.startswith(info.space + "_")
    assert {info.space for info in FEATURES.values()} == {"time", "frequency", "wavelet", "beat", "hrv", "breathing", "movement"}
    with pytest.raises(TypeError):
        FEATURES["mine"] = None


@pytest.mark.parametrize("rate_hz", [50.0, 100.0, 125.0, 226.3])
@pytest.mark.parametrize("hertz", [2.6, 5.0, 8.3])
def test_a_sine_tells_its_height_frequency_and_crossings_at_any_sensor_rate(hertz, rate_hz):
    frame = features_of(tone(hertz, 3.0, rate_hz), rate_hz).iloc[1:3]  # away from the ends of the filters
    assert np.allclose(frame.time_rms, 3 / np.sqrt(2), rtol=0.05)  # the filters of clean end at 12 Hz
    assert np.allclose(frame.frequency_peak, hertz, atol=0.03) and np.allclose(frame.frequency_centroid, hertz, atol=0.1)
    assert np.allclose(frame.time_zero_crossings, 2 * hertz, rtol=0.01)
    assert np.allclose(frame.time_kurtosis, -1.5, atol=0.02) and np.allclose(frame.time_skewness, 0, atol=0.02)
    assert np.allclose(frame.frequency_power, 4.5, rtol=0.05) and (frame.frequency_flatness < 0.01).all()
    bands = {2.6: "1_3", 5.0: "5_7", 8.3: "7_10"}
    assert (frame[f"frequency_share_{bands[hertz]}hz"] > (0.4 if hertz == 5.0 else 0.95)).all()


def test_white_noise_is_flat_and_without_order():
    frame = features_of(np.random.default_rng(4).normal(size=36000))
    assert (frame.frequency_flatness > 0.9).all() and (frame.frequency_entropy > 0.97).all()
    assert np.allclose(frame.frequency_share_3_5hz.mean(), 2 / 9, atol=0.03) and abs(frame.frequency_slope.mean()) < 0.15
    assert abs(frame.time_kurtosis.mean()) < 0.2 and (frame.time_periodicity < 0.5).all()
    assert frame.hrv_rmssd_ms.isna().all() and frame.beat_j_height.isna().all()
    assert frame.breathing_rate.isna().mean() > 0.9


def test_a_clock_has_its_period():
    times_s = np.arange(0, 120, 0.01)
    beats = np.exp(-0.5 * (((times_s + 0.4) % 0.8 - 0.4) / 0.03) ** 2)
    frame = features_of(beats + 0.01 * np.random.default_rng(0).normal(size=len(times_s))).iloc[1:3]
    assert np.allclose(frame.time_period, 0.8, atol=0.011) and (frame.time_periodicity > 0.97).all()


@pytest.mark.parametrize("hertz, wanted", [(8.0, "6_12hz"), (4.5, "3_6hz"), (2.2, "1p6_3hz")])
def test_each_wavelet_level_holds_its_own_octave(hertz, wanted):
    frame = features_of(tone(hertz) + 0.05 * np.random.default_rng(1).normal(size=12000)).iloc[1]
    shares = {name: frame[name] for name in FEATURES if name.startswith("wavelet_share")}
    assert max(shares, key=shares.get) == f"wavelet_share_{wanted}" and shares[f"wavelet_share_{wanted}"] > 0.8
    assert np.isclose(sum(shares.values()), 1)


def test_breathing_is_the_rate_that_was_breathed(night):
    recording, truth, windows, table = night
    frame = table.to_frame()
    other = respiration(recording, window_s=30, hop_s=30)
    compared = 0
    for number, start_s in enumerate(windows.start_s):
        rate = frame.breathing_rate.iloc[number]
        tops_s = truth.breath_times_s[(truth.breath_times_s >= start_s - 4) & (truth.breath_times_s <= start_s + 34)]
        if not np.isnan(rate):
            assert abs(rate - 60 / np.diff(tops_s).mean()) < 1.5
            compared += 1
            if not np.isnan(other.breathing_per_min[number]):
                assert abs(rate - other.breathing_per_min[number]) < 2
    assert compared >= 6


def test_variability_of_a_window_is_what_hrv_says_of_its_intervals(night):
    recording, _, windows, table = night
    beats, frame = find_beats(clean(recording)), table.to_frame()
    compared = 0
    for number, start_s in enumerate(windows.start_s):
        inside = (beats.times_s >= start_s) & (beats.times_s < start_s + 30)
        times_s = beats.times_s[inside]
        owner = np.searchsorted(beats.spans[:, 0], times_s, side="right")
        gaps = np.where((np.diff(owner) == 0) & (np.diff(times_s) < 3), np.diff(times_s), np.nan)
        row = frame.iloc[number].filter(like="hrv_")
        if np.isfinite(gaps).sum() < 10:
            assert row.isna().all()
            continue
        said = hrv(gaps, duration_s=30)
        assert np.allclose(row, [said[name.removeprefix("hrv_")] for name in row.index], atol=1e-9, equal_nan=True)
        compared += row.notna().all()
    assert compared >= 6
    assert all(FEATURES[f"hrv_{name}"].formula == HRV_INDICES[name][1] for name in ("sdnn_ms", "rmssd_ms", "pnn50_percent"))


def test_the_beat_shape_is_the_simulated_one():
    recording, truth = simulate_bcg(150, 100, snr_db=20, seed=8, movements_per_hour=0, bed_exits_per_hour=0)
    frame = extract_features(recording, make_windows(recording, person="p", night="n")).to_frame()
    heart = clean(recording)
    at_j = np.interp(truth.beat_times_s, heart.times_s, heart.heart)
    assert np.allclose(frame.beat_j_height.median(), np.median(at_j), rtol=0.1)
    assert (frame.beat_likeness > 0.9).all() and (frame.beat_change < 0.05).all() and (frame.beat_clearness > 5).all()
    assert ((frame.beat_ij_time > 0.03) & (frame.beat_ij_time < 0.12)).all()


@QUICK
@given(scale=st.floats(1e-3, 1e3), sign=st.sampled_from([1.0]), offset=st.floats(-100, 100))
def test_what_has_no_unit_of_the_recording_ignores_scale_and_offset(scale, sign, offset):
    recording, _ = simulate_bcg(90, 100, snr_db=8, seed=21, movements_per_hour=60)
    windows = make_windows(recording, person="p", night="n")
    changed = Recording(scale * (sign * recording.samples + offset), 100)
    one = extract_features(recording, windows).to_frame()
    other = extract_features(changed, make_windows(changed, person="p", night="n")).to_frame()
    for name, info in FEATURES.items():
        power = {"u": 1, "u/s": 1, "u²": 2}.get(info.unit, 0)
        assert power or "u" not in info.unit, info.unit
        assert np.allclose(other[name], one[name] * scale**power, rtol=1e-4, atol=1e-6 * scale**power, equal_nan=True), name


def test_gaps_and_empty_beds_are_nan_never_zero(night):
    recording, truth, windows, table = night
    frame, people = table.to_frame(), [name for name, info in FEATURES.items() if info.space in ("beat", "hrv", "breathing")]
    here = truth.occupied_spans_s
    away = ((windows.start_s[:, None] + 30 < here[:, 0]) | (windows.start_s[:, None] > here[:, 1])).all(axis=1)
    assert away.sum() >= 2 and frame.loc[away, people].isna().all(axis=None)
    assert set(np.array(table.reason)[away]) == {"empty bed"}
    gap = recording.samples.copy()
    gap[0, 30 * 125: 62 * 125] = np.nan
    frame = features_of(gap, 125)
    shares = ["movement_usable_share", "movement_missing_share", "movement_saturated_share", "movement_empty_share"]
    assert frame.iloc[1].drop(shares).isna().all() and frame.iloc[1].movement_missing_share == 1
    assert frame.iloc[0].drop(people).notna().all() and frame.iloc[2].time_rms > 0


def test_a_gap_changes_nothing_in_windows_far_from_it(night):
    recording, _, windows, table = night
    gap = recording.samples.copy()
    gap[0, 240 * 125: 260 * 125] = np.nan
    frame, old = features_of(gap, 125), table.to_frame()
    near = [name for name, info in FEATURES.items() if info.space in ("time", "frequency", "wavelet")]
    assert np.allclose(frame[near].iloc[[0, 1]], old[near].iloc[[0, 1]], rtol=0.02, atol=0.02, equal_nan=True)


def test_a_band_that_the_sensor_does_not_hold_is_withheld():
    slow, fast = (features_of(tone(5.0, rate_hz=rate), rate).iloc[1] for rate in (26.0, 100.0))
    lacking = ["frequency_share_10_18hz", "wavelet_share_6_12hz", "wavelet_kurtosis_6_12hz"]
    assert slow[lacking].isna().all() and fast[lacking].notna().all()
    assert np.isclose(slow.frequency_peak, 5, atol=0.05)


def test_no_warning_and_finite_or_nan_on_odd_signals():
    rng = np.random.default_rng(0)
    odd = {"flat": np.zeros(9000), "step": np.r_[np.zeros(4500), np.ones(4500)], "spike": np.eye(1, 9000, 4000)[0] * 1e6,
           "tiny": 1e-300 * rng.normal(size=9000), "huge": 1e150 * rng.normal(size=9000), "ramp": np.arange(9000.0),
           "one sample known": np.where(np.arange(9000) == 77, 1.0, np.nan), "square": np.sign(np.sin(np.arange(9000) / 9))}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, values in odd.items():
            frame = features_of(values)
            assert not np.isinf(frame.to_numpy()).any() and len(frame) == 3, name
    assert features_of(odd["flat"]).time_rms.isna().all()


@QUICK
@given(start_s=st.lists(st.floats(0, 60), min_size=1, max_size=5), window_s=st.sampled_from([10.0, 17.3, 30.0]))
def test_the_three_spaces_have_the_same_windows(start_s, window_s):
    recording, _ = simulate_bcg(90, 100, snr_db=8, seed=21)
    beats = find_beats(clean(recording))
    windows = Windows(start_s, window_s, "p", "n")
    raw, table, drawn = raw_windows(recording, windows), extract_features(beats, windows), picture(beats, windows, size=(8, 8))
    assert len(raw.values) == len(table.values) == len(drawn.values) == len(windows)
    assert raw.windows is table.windows is drawn.windows is windows
    for number, start in enumerate(start_s):
        first = round(start * 100)
        assert np.array_equal(raw.values[number, 0], recording.samples[0, first: first + round(window_s * 100)])


def test_a_window_means_the_same_stretch_in_every_space():
    "A burst of 6 Hz in one window only is in that row of raw, features and pictures."
    values = 0.1 * np.random.default_rng(0).normal(size=15000)
    values[6000:9000] += np.sin(2 * np.pi * 6 * np.arange(3000) / 100)
    recording = Recording(values, 100)
    windows = make_windows(recording, person="p", night="n")
    raw, frame = raw_windows(recording, windows).values[:, 0], extract_features(recording, windows).to_frame()
    drawn = picture(recording, windows, size=(28, 16))
    assert raw.std(axis=1).argmax() == 2
    assert frame.movement_activity.argmax() == 2
    row = np.abs(drawn.rows - 6).argmin()
    told = drawn.values[2, row][~drawn.mask[2, row]]
    assert frame.movement_share.iloc[2] > 0.9 or np.median(told) > 0.9


def test_the_numbers_are_those_of_the_usable_samples_of_that_stretch():
    recording, _ = simulate_bcg(300, 50, snr_db=12, seed=14, movements_per_hour=60, bed_exits_per_hour=0)
    cleaned, windows = clean(recording), Windows([3.0, 62.5, 88.0, 150.0], 20, "p", "n")
    frame = extract_features(cleaned, windows).to_frame()
    for number, start_s in enumerate(windows.start_s):
        part = slice(round(start_s * 50), round(start_s * 50) + 1000)
        known = cleaned.heart[part][cleaned.usable[part]]
        assert np.isclose(frame.movement_usable_share.iloc[number], len(known) / 1000)
        if len(known) >= 500:
            assert np.isclose(frame.time_rms.iloc[number], np.sqrt((known**2).mean()))
    assert (frame.movement_usable_share < 1).any()


@QUICK
@given(hop_s=st.sampled_from([1.0, 7.0, 30.0]), window_s=st.sampled_from([5.0, 12.5, 60.0]))
def test_windows_lie_in_the_recording(hop_s, window_s):
    recording = Recording(np.zeros(9_100), 100)
    windows = make_windows(recording, person="p", night="n", window_s=window_s, hop_s=hop_s)
    assert (np.diff(windows.start_s) == hop_s).all() and windows.start_s[0] == 0
    assert windows.start_s[-1] + window_s <= 91 < windows.start_s[-1] + hop_s + window_s
    assert raw_windows(recording, windows).values.shape == (len(windows), 1, round(window_s * 100))


def test_persons_and_nights_stay_with_their_windows(night):
    recording, _, windows, table = night
    parts = [table]
    for person, name, seed in (("ben", "1", 31), ("anna", "2", 32), ("carl", "1", 33)):
        other = simulate_bcg(95, 100, snr_db=8, seed=seed)[0]
        parts.append(extract_features(other, make_windows(other, person=person, night=name)))
    both = join_windows(parts)
    frame = both.to_frame().sort_index()
    assert frame.groupby(["person", "night"]).size().to_dict() == {("anna", "1"): 14, ("anna", "2"): 3, ("ben", "1"): 3, ("carl", "1"): 3}
    assert np.array_equal(frame.loc[("ben", "1")].to_numpy(), parts[1].values, equal_nan=True)
    split = patient_split(both.windows.person, valid=0.34, test=0.34, seed=1)
    check_leakage({part: [both.windows.person[n] for n in getattr(split, part)] for part in ("train", "valid", "test")})
    chosen = both.windows[split.train]
    assert set(chosen.person) == set(split.patients_of("train")) and not set(frame.columns) & {"person", "night", "start_s"}


def test_windows_refuse_another_recording_than_theirs(night):
    recording, _, windows, table = night
    other = simulate_bcg(420, 125, snr_db=8, seed=16)[0]
    slower = Recording(recording.samples, 124)
    nudged = recording.samples.copy()
    nudged[0, -1] += 1e-9
    cleaned = clean(recording)
    for wrong in (other, slower, Recording(nudged, 125), recording.part(0, 419.5), clean(other), find_beats(clean(other))):
        for action in (extract_features, raw_windows, picture):
            with pytest.raises(SignalError) as caught:
                action(wrong, windows[:3])
            assert caught.value.reason == "bad_option" and "another recording" in str(caught.value)
    same = Recording(recording.samples.copy(), 125, ("other name",), ("N",))  # neither name nor unit is part of the samples
    for right in (same, cleaned, find_beats(cleaned)):
        assert np.array_equal(extract_features(right, windows).values, table.values, equal_nan=True)
    two = Recording(np.stack([recording.samples[0], other.samples[0]]), 125, ("x", "y"))
    theirs = make_windows(two, person="anna", night="1")
    assert raw_windows(two, theirs).values.shape[1] == 2 and raw_windows(two, theirs, channel="y").values.shape[1] == 1
    assert np.array_equal(extract_features(two, theirs, channel="x").values, table.values, equal_nan=True)
    with pytest.raises(SignalError):
        raw_windows(two, windows)  # made from one channel only
    assert extract_features(other, Windows([0, 30], 30, "p", "n")).values.shape[0] == 2  # made by hand: fits any recording


def test_joined_windows_still_know_their_recording(night):
    recording, _, windows, table = night
    other = simulate_bcg(95, 100, snr_db=8, seed=31)[0]
    theirs = extract_features(other, make_windows(other, person="ben", night="1"))
    one, listed = join_windows(table, theirs), join_windows([table, theirs])
    assert np.array_equal(one.values, listed.values, equal_nan=True) and one.windows.person == listed.windows.person
    ben = one.windows[np.array(one.windows.person) == "ben"]
    assert np.array_equal(extract_features(other, ben).values, theirs.values, equal_nan=True)
    with pytest.raises(SignalError, match="another recording"):
        extract_features(recording, ben)
    for wrong in ((), ([],), (table, 3), (table, None), (3,)):
        with pytest.raises(SignalError):
            join_windows(*wrong)


def test_numbers_of_nothing_are_nan_without_a_warning():
    features = extract_features.__globals__
    nothing = np.full((2, 9), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(features["_mean"](nothing)).all() and np.isnan(features["_correlation"](nothing, nothing)).all()
        shapes = np.zeros((1, 4, len(features["_LAGS_S"])))
        few = features["_beat_space"]({"shapes": shapes, "breath_at_j": np.zeros((1, 4)), "all_beats": shapes[0, 0]})
    assert all(np.isnan(value[0]) for value in few.values())


def test_what_leaks_is_refused(night):
    recording, _, windows, table = night

    def refused(reason, action):
        with pytest.raises(SignalError) as caught:
            action()
        assert caught.value.reason == reason and caught.value.hint

    stolen = extract_features(recording, make_windows(recording, person="ben", night="9"))
    refused("patient_overlap", lambda: join_windows([table, stolen]))
    refused("duplicate", lambda: join_windows([table, table]))
    refused("patient_missing", lambda: join_windows([picture(recording)]))
    refused("patient_missing", lambda: make_windows(recording, person=float("nan"), night="1"))
    refused("bad_shape", lambda: join_windows([picture(recording, windows), picture(recording, windows, "scalogram")]))
    refused("bad_option", lambda: join_windows([table, picture(recording, windows)]))
    refused("bad_option", lambda: extract_features(recording, Windows([0, 30], 30, ("anna", "ben"), "1")))
    refused("too_short", lambda: extract_features(recording, Windows([400], 30, "anna", "1")))
    refused("too_short", lambda: make_windows(recording, person="anna", night="1", window_s=600))
    refused("empty", lambda: extract_features(recording, windows[:0]))
    two = Recording(np.stack([recording.samples[0]] * 2), 125, ("x", "y"))
    refused("bad_column", lambda: extract_features(two, windows))
    assert np.array_equal(extract_features(two, windows, channel="y").values, table.values, equal_nan=True)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(junk=st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.floats(), max_size=3), st.booleans()))
def test_junk_gives_a_named_error(junk):
    recording = Recording(np.zeros(3000), 100)
    windows = Windows([0], 10, "p", "n")
    for action in (lambda: extract_features(junk, windows), lambda: extract_features(recording, junk), lambda: join_windows(junk),
                   lambda: make_windows(junk, person="p", night="n"), lambda: Windows(junk, 10, "p", "n"),
                   lambda: Windows([0], junk, "p", "n"), lambda: make_windows(recording, person="p", night="n", hop_s=junk),
                   lambda: raw_windows(junk, windows), lambda: picture(recording, windows, junk),
                   lambda: picture(recording, windows, size=junk)):
        try:
            action()
        except MedkitError as error:
            assert error.reason and error.hint


def test_later_stages_save_work_and_change_nothing(night):
    recording, _, windows, table = night
    cleaned = clean(recording)
    for given_ in (cleaned, find_beats(cleaned)):
        assert np.array_equal(extract_features(given_, windows).values, table.values, equal_nan=True)


def test_chunks_change_nothing(night, monkeypatch):
    recording, _, windows, table = night
    monkeypatch.setitem(extract_features.__globals__, "_CHUNK_S", 90.0)
    assert np.allclose(extract_features(recording, windows).values, table.values, equal_nan=True, rtol=1e-12)


def test_an_hour_takes_less_than_a_second(record_property):
    beats = find_beats(clean(simulate_bcg(3600, 226, snr_db=5, seed=3)[0]))
    windows = make_windows(beats.cleaned, person="p", night="n")
    seconds = []
    for _ in range(2):
        started = time.process_time()
        extract_features(beats, windows)
        seconds.append(time.process_time() - started)
    record_property("features of an hour, s of CPU after find_beats", f"{min(seconds):.2f}")
    assert min(seconds) < 1


def test_real_records_of_bed_and_wrist_have_features(real_data):
    signals = real_data / "signals"
    bed = read_recording(signals / "underbed_226hz/Subject38_1526160074/1526160074.csv", sampling_rate_hz=226)
    wrist = read_recording(signals / "wrist_acc_ecg_mhealth/uic_dataset.csv", sampling_rate_hz=50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for recording, channel in ((bed, 0), *((wrist, axis) for axis in wrist.channels)):
            frame = extract_features(recording, make_windows(recording, person="p", night="n"), channel=channel).to_frame()
            assert frame[["time_rms", "frequency_centroid", "movement_activity"]].notna().all(axis=1).mean() > 0.5
            assert not np.isinf(frame.to_numpy()).any()
