"""Simulated beds: old seeds give old numbers, the truth is true, and every option does what it says."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, sosfiltfilt, welch

from medkit.errors import SignalError
from medkit.signals import INTERFERENCE, RHYTHMS, simulate_bcg, simulate_interference, simulate_rr
from medkit.signals import simulate

QUICK = settings(max_examples=60, deadline=None, derandomize=True)
CALM = {"movements_per_hour": 0, "bed_exits_per_hour": 0}
LIVELY = {"preset": "bench-1"}


def band(values, low=1.0, high=12.0, rate_hz=125):
    return sosfiltfilt(butter(3, (low, high), "bandpass", fs=rate_hz, output="sos"), values)


def around(values, times_s, rate_hz, reach_s=0.3):
    "`values` around each time, (time, sample), by interpolation."
    offsets = np.arange(-reach_s, reach_s, 1 / rate_hz)
    times_s = times_s[(times_s > 1) & (times_s < len(values) / rate_hz - 1)]
    return offsets, np.interp(times_s[:, None] + offsets, np.arange(len(values)) / rate_hz, values)


# ---- numbers that never change ----

FROZEN = [  # taken before the options were added: length, rate, options, and samples 0, 500 and the last
    (180, 125, {"snr_db": 10, "seed": 55, "movements_per_hour": 60, "bed_exits_per_hour": 20},
     (-3.077944766315677, -3.553940291995746, -2.414836118089351)),
    (120, 100, {"snr_db": 10, "seed": 3}, (-5.0839937068472985, -0.4864639147241524, 2.4345755999992935)),
    (90, 226, {"snr_db": -5, "seed": 1, "rr": np.full(200, 0.7)}, (-3.726854016408825, 4.915572280258548, -4.204762470947813)),
    (60, 31.25, {"snr_db": 0, "seed": 9, **CALM}, (-3.1159169285324846, -3.5379807024080794, -3.298188572595252)),
    (1200, 125, {"snr_db": 5, "seed": 1}, (1.7360096927938886, 3.5637175994112575, 3.3815022795340357)),
]
BENCH = [
    (180, 125, {"snr_db": 10, "seed": 55, "movements_per_hour": 60, "bed_exits_per_hour": 20},
     (-2.2251067951192587, -2.350543336180178, -1.594734303757012, 6.530534657221334, 12.601401319235077)),
    (60, 100, {"snr_db": 0, "seed": 4, "rr": np.full(80, 0.9), "sensors": 2, "sign_flips": 0.5, "noise_colour": "pink"},
     (0.21708862770302692, -0.45172782769207886, -2.8194237380912344, 9.156006254156768, 10.867547892748807)),
]


@pytest.mark.parametrize("duration_s, rate_hz, options, expected", FROZEN, ids=range(len(FROZEN)))
def test_old_seeds_give_old_numbers(duration_s, rate_hz, options, expected):
    for preset in ({}, {"preset": "plain-1"}):
        force = simulate_bcg(duration_s, rate_hz, **options, **preset)[0].samples[0]
        assert np.allclose(force[[0, 500, -1]], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("duration_s, rate_hz, options, expected", BENCH, ids=range(len(BENCH)))
def test_the_bench_preset_never_moves(duration_s, rate_hz, options, expected):
    recording, truth = simulate_bcg(duration_s, rate_hz, **options, **LIVELY)
    told = (*recording.samples[-1, [0, 500, -1]], truth.beat_times_s[10], truth.breath_times_s[3])
    assert np.allclose(told, expected, rtol=1e-9, atol=1e-9), told


def test_the_same_call_gives_the_same_numbers_and_another_seed_does_not():
    options = {"snr_db": 5, "sensors": 2, "interference": {"fan": 0, "frame": 3}, "rhythm": "ectopy", **LIVELY}
    first, again, other = (simulate_bcg(60, 100, seed=seed, **options)[0].samples for seed in (1, 1, 2))
    assert (first == again).all() and not np.allclose(first, other)


@QUICK
@given(seed=st.integers(0, 2**63 - 1), preset=st.sampled_from(["plain-1", "bench-1"]), rhythm=st.sampled_from(RHYTHMS),
       rate_hz=st.sampled_from([25, 50.5, 125]), movements=st.floats(0, 1000), exits=st.floats(0, 1000), snr_db=st.floats(-60, 200))
def test_any_request_is_finite_and_its_truth_in_order(seed, preset, rhythm, rate_hz, movements, exits, snr_db):
    recording, truth = simulate_bcg(90, rate_hz, snr_db=snr_db, seed=seed, preset=preset, rhythm=rhythm, movements_per_hour=movements,
                                    bed_exits_per_hour=exits, interference={kind: 0 for kind in INTERFERENCE})
    assert np.isfinite(recording.samples).all() and recording.duration_s == pytest.approx(90, abs=1)
    assert (np.diff(truth.beat_times_s) > 0.1).all() and (np.diff(truth.breath_times_s) > 0.5).all()
    for times_s in (truth.beat_times_s, truth.breath_times_s):
        starts = np.searchsorted(truth.occupied_spans_s[:, 0], times_s, side="right") - 1
        assert (starts >= 0).all() and (times_s <= truth.occupied_spans_s[starts, 1]).all()
    assert (truth.movement_spans_s >= 0).all() and (np.diff(truth.movement_spans_s, axis=1) > 0).all()
    phase = truth.breath_phase(recording.times_s)
    assert (np.isnan(phase) | ((phase >= 0) & (phase < 1))).all()


def test_the_truth_does_not_depend_on_the_sampling_rate():
    slow, fast = (simulate_bcg(120, rate_hz, snr_db=5, seed=6, **LIVELY)[1] for rate_hz in (50, 250))
    assert np.allclose(slow.beat_times_s, fast.beat_times_s, atol=2e-3)  # the breath is stepped at the sampling rate
    assert np.array_equal(slow.movement_spans_s, fast.movement_spans_s)


# ---- the livelier bed ----


@pytest.mark.parametrize("seed", range(5))
def test_j_is_the_top_at_its_stated_time(seed):
    "Intervals of 1.5 s keep the beats apart."
    recording, truth = simulate_bcg(120, 1000, rr=np.full(90, 1.5), snr_db=80, seed=seed, **CALM, **LIVELY)
    force = sosfiltfilt(butter(3, 1.2, "highpass", fs=1000, output="sos"), recording.samples[0])  # without the breath
    offsets, beats = around(force, truth.beat_times_s, 1000, 0.04)
    tops_s = offsets[beats.argmax(axis=1)]
    assert abs(np.median(tops_s)) < 0.004 and np.abs(tops_s).max() < 0.015, tops_s


@pytest.mark.parametrize("seed", range(30))
def test_changes_of_shape_leave_the_top_of_j_where_it_is(seed):
    "Breath and chance at three times their usual size, two grid points of 2 ms at most."
    waves, ring = simulate._draw_waves(np.random.default_rng(seed))
    tables = simulate._shape_tables(waves, ring, 4, simulate._PRESETS["bench-1"], np.random.default_rng(seed))
    middle = np.abs(simulate._SHAPE_TIMES_S).argmin()
    for weights in ([1, 0, 0, 0], [1, 1.2, 0, 0], [1, -1.2, 0, 0], [1, 1, 3, 3], [1, -1, -3, -3], [1, 1, 3, -3]):
        beats = np.einsum("c,pct->pt", weights, tables)
        assert np.allclose(beats[:, middle], 1, atol=0.005)
        assert np.abs(beats[:, middle - 15: middle + 16].argmax(axis=1) - 15).max() <= 1


def test_an_empty_bed_feels_only_the_floor():
    options = {"snr_db": 0, "seed": 1, "movements_per_hour": 0, "bed_exits_per_hour": 20}
    for preset in ("plain-1", "bench-1"):
        recording, truth = simulate_bcg(400, 125, preset=preset, **options)
        left_s, back_s = truth.occupied_spans_s.ravel()[1:3]
        empty = recording.samples[0][int((left_s + 25) * 125): int((back_s - 5) * 125)]  # the base line has crept back
        assert len(empty) > 500 and empty.std() < 0.05 * recording.samples[0].std()


def test_given_intervals_are_those_of_the_r_peaks():
    "A heart that beats every second: R keeps the second, J wanders around it by some milliseconds."
    _, truth = simulate_bcg(120, 50, rr=np.full(140, 1.0), snr_db=10, seed=3, **CALM, **LIVELY)
    assert np.allclose(np.diff(truth.r_peak_times_s), 1, atol=1e-9)
    wander_s = np.diff(truth.beat_times_s).std()
    assert 0.002 < wander_s < 0.02
    wait_s = truth.beat_times_s - truth.r_peak_times_s
    assert 0.14 < wait_s.min() and wait_s.max() < 0.28


def test_the_heart_quickens_while_breathing_in():
    gaps = {"in": [], "out": []}
    for seed in range(10):
        _, truth = simulate_bcg(300, 50, snr_db=10, seed=seed, **CALM, **LIVELY)
        middles, intervals = (truth.r_peak_times_s[1:] + truth.r_peak_times_s[:-1]) / 2, np.diff(truth.r_peak_times_s)
        phase = truth.breath_phase(middles)  # 0 at the end of the breath in: the second half is the next breath in
        steady = intervals / np.median(intervals)
        gaps["in"].append(steady[(phase > 0.6) & (phase < 0.9)].mean())
        gaps["out"].append(steady[(phase > 0.1) & (phase < 0.4)].mean())
    swing = np.subtract(gaps["out"], gaps["in"])
    assert (swing > 0).mean() > 0.85 and 0.01 < swing.mean() < 0.12, swing


def test_a_beat_after_a_short_interval_is_weak():
    recording, truth = simulate_bcg(300, 125, snr_db=40, seed=2, rhythm="af", **CALM, **LIVELY)
    offsets, beats = around(band(recording.samples[0]), truth.beat_times_s, 125, 0.01)
    kept = truth.beat_times_s[(truth.beat_times_s > 1) & (truth.beat_times_s < 299)]
    correlation = np.corrcoef(np.diff(kept), beats.max(axis=1)[1:])[0, 1]
    assert correlation > 0.3, correlation


def test_shapes_differ_between_people_postures_and_beats():
    def mean_beats(seed):
        recording, truth = simulate_bcg(1200, 125, snr_db=40, seed=seed, movements_per_hour=20, bed_exits_per_hour=0, **LIVELY)
        calm = np.ones(len(truth.beat_times_s), dtype=bool)
        for start_s, stop_s in truth.movement_spans_s:
            calm &= (truth.beat_times_s < start_s - 2) | (truth.beat_times_s > stop_s + 10)
        posture = np.searchsorted(truth.posture_starts_s, truth.beat_times_s) - 1
        force, means = band(recording.samples[0]), []
        for number in np.unique(posture):
            beats = around(force, truth.beat_times_s[calm & (posture == number)], 125)[1]
            if len(beats) > 20:
                means.append(beats.mean(axis=0) / np.linalg.norm(beats.mean(axis=0)))
        return means

    one, other = mean_beats(1), mean_beats(5)
    assert len(one) > 1 and len(other) > 1
    assert min(one[0] @ mean for mean in one[1:]) < 0.99  # another shape after a turn, and still a beat
    assert min(one[0] @ mean for mean in one[1:]) > 0.4
    assert one[0] @ other[0] < 0.99


def test_sensors_feel_one_heart_with_their_own_noise():
    recording, truth = simulate_bcg(240, 250, snr_db=20, seed=8, sensors=4, **CALM, **LIVELY)
    assert recording.samples.shape == (4, 60000) and truth.sensor_gains[0] == 1 and truth.sensor_delays_s[0] == 0
    for force, gain, delay_s in zip(recording.samples, truth.sensor_gains, truth.sensor_delays_s):
        offsets, beats = around(np.sign(gain) * band(force, rate_hz=250), truth.beat_times_s + delay_s, 250, 0.03)
        assert abs(offsets[beats.mean(axis=0).argmax()]) < 0.013
    noisy, _ = simulate_bcg(240, 125, snr_db=-40, seed=8, sensors=4, **CALM, **LIVELY)
    between = np.corrcoef([band(force) for force in noisy.samples])
    assert np.abs(between[~np.eye(4, dtype=bool)]).max() < 0.1
    alone, _ = simulate_bcg(240, 250, snr_db=20, seed=8, **CALM, **LIVELY)
    assert alone.channels == ("bed force",) and recording.channels[1] == "bed force 2"


def test_sign_flips_turn_the_beat_upside_down():
    options = {"snr_db": 40, "seed": 4, "movements_per_hour": 25, "bed_exits_per_hour": 0, **LIVELY}
    recording, truth = simulate_bcg(900, 125, sign_flips=1.0, **options)
    assert len(truth.posture_signs) > 2 and (truth.posture_signs[:-1] == -truth.posture_signs[1:]).all()
    posture = np.searchsorted(truth.posture_starts_s, truth.beat_times_s, side="right") - 1
    force = band(recording.samples[0])
    for number, sign in enumerate(truth.posture_signs):
        beats = around(force, truth.beat_times_s[posture == number], 125, 0.005)[1]
        if len(beats) > 60:
            assert np.median(beats) * sign > 0
    assert (simulate_bcg(900, 125, **options)[1].posture_signs == 1).all()


def test_movements_are_loud_and_shift_the_base_line():
    recording, truth = simulate_bcg(1200, 125, snr_db=20, seed=3, movements_per_hour=30, bed_exits_per_hour=0, **LIVELY)
    moving = np.zeros(recording.samples.shape[1], dtype=bool)
    for start_s, stop_s in truth.movement_spans_s:
        moving[int(start_s * 125): int(stop_s * 125)] = True
    force = band(recording.samples[0])
    assert force[moving].std() > 8 * force[~moving].std()


# ---- noise and interference ----


@pytest.mark.parametrize("preset", ["plain-1", "bench-1"])
@pytest.mark.parametrize("snr_db", [-10, 0, 10])
def test_the_noise_has_the_stated_size(preset, snr_db):
    options = {"seed": 11, "preset": preset, **CALM}
    heart, loud = (band(simulate_bcg(300, 125, snr_db=level, **options)[0].samples[0]) for level in (200, snr_db))
    assert 10 * np.log10(heart.var() / (loud - heart).var()) == pytest.approx(snr_db, abs=0.5)


@pytest.mark.parametrize("colour, slope", [("white", 0), ("pink", 1), ("brown", 2)])
@pytest.mark.parametrize("preset", ["plain-1", "bench-1"])
def test_the_noise_has_the_stated_colour(colour, slope, preset):
    noise = simulate_bcg(600, 125, snr_db=-60, seed=2, noise_colour=colour, preset=preset, **CALM)[0].samples[0]
    frequencies, power = welch(noise, 125, nperseg=1250)
    inside = (frequencies > 1) & (frequencies < 30)
    assert np.polyfit(np.log(frequencies[inside]), np.log(power[inside]), 1)[0] == pytest.approx(-slope, abs=0.1)


@pytest.mark.parametrize("kind", INTERFERENCE)
@pytest.mark.parametrize("preset", ["plain-1", "bench-1"])
def test_interference_has_the_stated_size_and_leaves_the_rest_alone(kind, preset):
    options = {"snr_db": 40, "seed": 21, "preset": preset, **CALM}
    heart, truth = simulate_bcg(300, 125, **options)
    size = band(heart.samples[0]).std()
    for decibel in (-10, 0, 10):
        mixed, same = simulate_bcg(300, 125, interference={kind: decibel}, **options)
        added = mixed.samples[0] - heart.samples[0]
        assert 20 * np.log10(added.std() / size) == pytest.approx(decibel, abs=1.2)
        assert np.array_equal(truth.beat_times_s, same.beat_times_s)
    assert f"{kind.replace('_', ' ')} at 10 dB" in mixed.notes


def test_a_fan_hums_beside_an_empty_bed_and_a_breath_does_not():
    options = {"snr_db": 20, "seed": 1, "movements_per_hour": 0, "bed_exits_per_hour": 20, **LIVELY}
    bare, truth = simulate_bcg(400, 125, **options)
    empty = np.ones(bare.samples.shape[1], dtype=bool)
    for start_s, stop_s in truth.occupied_spans_s:
        empty[max(int((start_s - 0.5) * 125), 0): int((stop_s + 0.5) * 125)] = False
    assert empty.sum() > 1000
    hum, breath = (simulate_bcg(400, 125, interference=kind, **options)[0].samples[0] - bare.samples[0]
                   for kind in ("fan", "breathing_harmonics"))
    assert hum[empty].std() > 0.5 * hum.std() and breath[empty].std() == 0 and breath.std() > 0


def test_harmonics_follow_the_breath_of_the_recording():
    options = {"snr_db": 60, "seed": 5, **CALM, **LIVELY}
    bare, truth = simulate_bcg(300, 125, **options)
    added = simulate_bcg(300, 125, interference="breathing_harmonics", **options)[0].samples[0] - bare.samples[0]
    around_tops = around(added, truth.breath_times_s, 125, 0.5)[1]
    assert around_tops.mean(axis=0).std() > 0.8 * added.std()  # the same wave at the top of each breath


@QUICK
@given(kind=st.sampled_from(list(INTERFERENCE)), rate_hz=st.floats(25, 500), rms=st.floats(0, 1e6), seed=st.integers(0, 99))
def test_interference_alone(kind, rate_hz, rms, seed):
    values = simulate_interference(kind, 60, rate_hz, rms=rms, seed=seed)
    assert len(values) == round(60 * rate_hz) and np.isfinite(values).all() and np.abs(values).max() <= 8 * rms
    if kind in ("fan", "frame", "breathing_harmonics") and rms:
        assert values.std() == pytest.approx(rms, rel=0.15)


def test_a_resonant_frame_has_quality_factor_eight():
    frequencies, power = welch(simulate_interference("frame", 3000, 125, frequency_hz=5, seed=1), 125, nperseg=2500)
    half = frequencies[power > power.max() / 2]
    assert 5 / (half.max() - half.min()) == pytest.approx(8, rel=0.15)
    assert frequencies[power.argmax()] == pytest.approx(5, abs=0.3)


# ---- rhythms ----


@QUICK
@given(bpm=st.floats(30, 200), seed=st.integers(0, 1000), rhythm=st.sampled_from(RHYTHMS))
def test_rhythms_keep_the_mean_rate_and_fill_the_time(bpm, seed, rhythm):
    rr = simulate_rr(300, heart_rate_bpm=bpm, seed=seed, rhythm=rhythm)
    assert rr.sum() >= 300 and 60 / rr.mean() == pytest.approx(bpm, rel=0.1) and (rr > 0.1).all()


def test_fibrillation_is_irregular_and_an_early_beat_is_made_up_for():
    sinus, af, ectopy = (simulate_rr(3000, heart_rate_bpm=60, seed=1, rhythm=rhythm) for rhythm in RHYTHMS)
    assert sinus.std() < 0.08 < 0.18 < af.std() < 0.26
    assert abs(np.corrcoef(af[:-1], af[1:])[0, 1]) < 0.06 < np.corrcoef(sinus[:-1], sinus[1:])[0, 1]  # no memory
    early = np.flatnonzero(ectopy < 0.78)
    assert 0.02 < len(early) / len(ectopy) < 0.08
    assert np.abs(ectopy[early] + ectopy[early + 1] - 2).max() < 0.4 and (ectopy[early + 1] > 1.05).all()


# ---- odd input and speed ----


ODD = [{"preset": value} for value in (None, 3, "", "bench-2", ["bench-1"])] + [
    {"rhythm": value} for value in (None, 0, "AF ", {})] + [
    {"sensors": value} for value in (0, -1, 2.0, None, 65, True)] + [
    {"sensors": 2}, {"sign_flips": 0.1}, {"sign_flips": np.nan, **LIVELY}, {"sign_flips": 2, **LIVELY}] + [
    {"noise_colour": value} for value in ("grey", 1, ["white"])] + [
    {"interference": value} for value in ("", 3, ["fan"], {"fan": None}, {"fan": np.nan}, {"fan": 1e9}, {1: 2}, {"fan": True})] + [
    {"rr": np.ones(99), "rhythm": "af"}, {"seed": -1, **LIVELY}, {"snr_db": np.inf, **LIVELY}, {"rr": np.full(99, np.nan), **LIVELY}]


@pytest.mark.parametrize("options", ODD, ids=map(str, range(len(ODD))))
def test_an_odd_option_is_named(options):
    with pytest.raises(SignalError) as caught:
        simulate_bcg(**({"duration_s": 60, "sampling_rate_hz": 50, "snr_db": 10, "seed": 1} | options))
    assert caught.value.reason == "bad_option" and caught.value.found and caught.value.expected and caught.value.hint


@pytest.mark.parametrize("options", [{"kind": "hum"}, {"kind": None}, {"rms": -1}, {"frequency_hz": "fast"}, {"seed": None},
                                     {"kind": "frame", "frequency_hz": 40}, {"duration_s": 1}], ids=str)
def test_odd_interference_is_named(options):
    with pytest.raises(SignalError) as caught:
        simulate_interference(**({"kind": "fan", "duration_s": 60, "sampling_rate_hz": 50, "seed": 1} | options))
    assert caught.value.reason == "bad_option"


def test_too_many_sensors_for_the_memory():
    with pytest.raises(SignalError) as caught:
        simulate_bcg(1e5, 500, snr_db=1, seed=1, sensors=3, **LIVELY)
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize("options", [{}, LIVELY, {"interference": {kind: 0 for kind in INTERFERENCE}, **LIVELY}], ids=["plain", "bench", "hum"])
def test_an_hour_is_quick(options, record_property):
    start = time.process_time()
    simulate_bcg(3600, 125, snr_db=5, seed=1, **options)
    seconds = time.process_time() - start
    record_property("cpu_s_per_hour", seconds)
    assert seconds < 2
