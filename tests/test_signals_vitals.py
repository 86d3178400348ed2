"""Beats, rates and breathing against simulated truth and real recordings.

The lowest quality was set on simulated noise (seeds 200 to 224, 400 windows, largest quality 0.10); the simulations below use other seeds.
The real records were looked at during development, so their figures are not held out.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from medkit.errors import SignalError
from medkit.signals import (
    Recording, bland_altman, clean, coverage_error_curve, find_beats, match_beats, measure_vitals, read_recording,
    reference_rate, respiration, score_heart_rate, simulate_bcg, track_rhythm, write_bcg_sample,
)

SAMPLES = Path(__file__).resolve().parent.parent / "data" / "samples"
QUICK = settings(max_examples=80, deadline=None, derandomize=True)


@pytest.mark.parametrize("first", ["clean", "respiration", "beats", "vitals"])
def test_functions_named_like_their_module_stay_functions(first):
    code = (f"import medkit.signals.{first}, medkit.signals as s; from medkit.signals import clean, respiration;"
            "assert callable(clean) and callable(respiration) and callable(s.clean) and callable(s.respiration)")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_world_loads_no_torch_and_no_images():
    code = "import sys, medkit.signals as s; s.measure_vitals; assert not {'torch', 'fastai', 'medkit.imaging'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def scored(snr_db, seeds, **options):
    "Heart rate score and the mean F1 of the beats within reported spans."
    rates, references, people, f1 = [], [], [], []
    for seed in seeds:
        recording, truth = simulate_bcg(150, 125, snr_db=snr_db, seed=seed, **options)
        frame = measure_vitals(recording).to_frame()
        rates.append(frame.heart_rate_bpm)
        references.append(reference_rate(truth.beat_times_s, frame.start_s))
        people.append(np.full(len(frame), seed))
        beats, times_s = find_beats(clean(recording)), truth.beat_times_s
        inside = ((times_s[:, None] >= beats.spans[:, 0]) & (times_s[:, None] < beats.spans[:, 1])).any(axis=1)
        if inside.sum() > 20:
            f1.append(match_beats(beats.times_s, times_s[inside]).f1)
    return score_heart_rate(*map(np.concatenate, (rates, references, people))), np.mean(f1)


@pytest.mark.parametrize("snr_db, error, coverage, f1", [(10, 0.3, 0.97, 0.98), (5, 0.3, 0.97, 0.98), (0, 0.5, 0.75, 0.95)])
def test_simulated_people(snr_db, error, coverage, f1):
    score, found = scored(snr_db, range(1000, 1008))
    print(f"{snr_db} dB: {score}, F1 {found:.3f}")
    assert score.mae_bpm < error < score.naive_mae_bpm and score.coverage > coverage and found > f1


def test_a_real_overnight_rhythm_drives_the_simulation(real_data):
    rows = np.genfromtxt(real_data / "signals/li2024_rr_reference/02_20231103_RR.csv", delimiter=",", skip_header=1, usecols=2)
    rows = rows[(rows > 0.4) & (rows < 2)]
    for first in (2000, 9000, 16000):
        score, found = scored(5, [first], rr=rows[first: first + 400])
        print(f"overnight from beat {first}: {score}, F1 {found:.3f}")
        assert score.mae_bpm < 1.5 and found > 0.9


def test_noise_is_not_a_heart():
    reported = 0
    for seed in range(1100, 1108):
        noise, _ = simulate_bcg(120, 100, snr_db=-60, seed=seed, movements_per_hour=0, bed_exits_per_hour=0)
        reported += measure_vitals(noise).to_frame().heart_rate_bpm.notna().sum()
    assert reported == 0


@pytest.mark.parametrize("bpm", [42, 55, 85, 110, 140])
def test_neither_half_nor_double(bpm):
    recording, _ = simulate_bcg(90, 100, rr=np.full(300, 60 / bpm) * (1 + 0.02 * np.sin(np.arange(300))), snr_db=5, seed=bpm,
                                movements_per_hour=0, bed_exits_per_hour=0)
    rates = measure_vitals(recording).to_frame().heart_rate_bpm
    assert rates.notna().mean() > 0.8 and (rates - bpm).abs().max() < 4


def test_empty_bed_gaps_movement_and_stuck_sensor_are_named():
    recording, truth = simulate_bcg(300, 100, snr_db=10, seed=1212, movements_per_hour=0, bed_exits_per_hour=0)
    values = recording.samples[0].copy()
    values[5000:12000] = np.random.default_rng(0).normal(0, 0.01, 7000)
    values[15000:20000] = np.nan
    values[23000:] = 3.0
    frame = measure_vitals(Recording(values, 100)).to_frame().set_index("start_s")
    for start, reason, occupied in ((60, "empty bed", False), (160, "missing samples", True), (250, "saturated", False)):
        assert np.isnan(frame.heart_rate_bpm[start]) and reason in frame.reason[start], frame.reason[start]
        assert frame.occupied[start] == occupied
    assert frame.heart_rate_bpm[0] > 30 and frame.heart_rate_bpm[120] > 30


def test_half_a_minute_of_nothing_and_odd_input():
    for values in (np.zeros(3000), np.full(3000, 7.0), np.r_[1e300, np.zeros(2999)], np.eye(1, 3000)[0]):
        assert measure_vitals(Recording(values, 100)).to_frame().heart_rate_bpm.isna().all()
    for recording, reason in ((Recording(np.zeros(300), 100), "too_short"), (Recording(np.zeros(900), 10), "bad_sampling_rate"),
                              (Recording(np.zeros(3000) * np.nan, 100), "all_missing"), (Recording(np.zeros((2, 3000)), 100), "bad_column")):
        with pytest.raises(SignalError) as caught:
            measure_vitals(recording)
        assert caught.value.reason == reason


@pytest.mark.parametrize("rate_hz", [25, 31.25, 50, 64, 100.3, 226, 1000])
def test_any_sampling_rate(rate_hz):
    recording, truth = simulate_bcg(60, rate_hz, snr_db=15, seed=77, movements_per_hour=0, bed_exits_per_hour=0)
    rates = measure_vitals(recording).to_frame()
    assert np.nanmax(np.abs(rates.heart_rate_bpm - reference_rate(truth.beat_times_s, rates.start_s))) < 1.5
    assert match_beats(find_beats(clean(recording)).times_s, truth.beat_times_s).f1 > 0.9


def test_size_and_offset_do_not_matter():
    recording, _ = simulate_bcg(60, 100, snr_db=10, seed=5)
    plain = measure_vitals(recording).to_frame()
    scaled = measure_vitals(Recording(1e-6 * recording.samples + 4e3, 100)).to_frame()
    assert np.allclose(plain.heart_rate_bpm, scaled.heart_rate_bpm, atol=0.1, equal_nan=True)


def test_a_fan_is_withheld_by_the_strict_policy():
    "Structured interference: a hum at 1.2 Hz in noise. The default policy may report it; that is stated in the notebook."
    times_s, rng, told = np.arange(0, 120, 0.01), np.random.default_rng(9), {}
    for noise in (0.1, 0.3, 1.0):
        bed = Recording(np.sin(2 * np.pi * 1.2 * times_s) + noise * rng.normal(size=len(times_s)), 100)
        for policy in ("default", "strict"):
            told[noise, policy] = measure_vitals(bed, policy=policy).to_frame().heart_rate_bpm.notna().mean()
    print("share of windows with a false rate:", told)
    assert all(share == 0 for (_, policy), share in told.items() if policy == "strict")


def test_strict_is_never_more_generous():
    recording, _ = simulate_bcg(180, 100, snr_db=0, seed=1300)
    default, strict = (measure_vitals(recording, policy=policy).to_frame() for policy in ("default", "strict"))
    assert not (strict.heart_rate_bpm.notna() & default.heart_rate_bpm.isna()).any()


def test_breathing_of_simulated_people():
    errors, answered = [], []
    for seed in range(1400, 1406):
        recording, truth = simulate_bcg(120, 50, snr_db=5, seed=seed, movements_per_hour=0, bed_exits_per_hour=0)
        found = respiration(recording, window_s=30)
        answered.append(np.isfinite(found.breathing_per_min))
        errors.append(found.breathing_per_min - reference_rate(truth.breath_times_s / 4, found.start_s / 4, 7.5) / 4)
    assert np.concatenate(answered).mean() > 0.8 and np.nanmean(np.abs(np.concatenate(errors))) < 0.7


def test_the_bundled_sample_is_what_medkit_makes(tmp_path):
    table, story = write_bcg_sample(tmp_path)
    made, kept = (read_recording(folder / table.name).samples for folder in (tmp_path, SAMPLES))
    assert np.abs(made - kept).max() <= 1 and kept.shape == (1, 22500)
    made, kept = (json.loads((folder / story.name).read_text()) for folder in (tmp_path, SAMPLES))
    assert all(np.allclose(made[name], kept[name], atol=1e-3) for name in kept) and set(made) == set(kept)
    frame = measure_vitals(read_recording(SAMPLES / table.name)).to_frame()
    error = frame.heart_rate_bpm - reference_rate(np.array(kept["beat_times_s"]), frame.start_s)
    assert error.abs().max() < 1 and not frame.occupied.all() and (frame.movement > 0.1).any()


@QUICK
@given(times=st.lists(st.floats(0, 100), min_size=1, max_size=30, unique=True), shift=st.floats(-0.04, 0.04))
def test_matching_arithmetic(times, shift):
    true = np.sort(times)
    same = match_beats(true, true)
    assert same.f1 == same.sensitivity == same.precision == 1 and same.jitter_s == 0
    moved = match_beats(true + shift, true)
    assert 0 <= moved.f1 <= 1 and moved.sensitivity * len(true) == pytest.approx(moved.precision * len(true))
    assert match_beats(true + 1000, true).f1 == 0


@QUICK
@given(pairs=st.lists(st.tuples(st.floats(30, 200), st.floats(30, 200), st.floats(0, 1)), min_size=3, max_size=40))
def test_score_arithmetic(pairs):
    measured, reference, quality = map(np.array, zip(*pairs))
    score, agreement = score_heart_rate(measured, reference), bland_altman(measured, reference)
    curve = coverage_error_curve(measured, reference, quality)
    assert score.mae_bpm == pytest.approx(np.abs(measured - reference).mean()) and score.coverage == 1
    assert agreement.low <= agreement.bias <= agreement.high and agreement.bias == pytest.approx((measured - reference).mean())
    assert curve.coverage[-1] == 1 and curve.mae[-1] == pytest.approx(score.mae_bpm) and (np.diff(curve.coverage) > 0).all()


def test_an_hour_is_fast(record_property):
    import time

    recording, _ = simulate_bcg(1200, 125, snr_db=5, seed=1)
    start = time.process_time()
    measure_vitals(recording)
    hour_s = 3 * (time.process_time() - start)
    record_property("cpu_s_per_hour", hour_s)
    print(f"{hour_s:.2f} s CPU per hour of signal")
    assert hour_s < 6


# ---- real recordings ----


def underbed(folder):
    return read_recording(folder / f"{folder.name.split('_')[1]}.csv", sampling_rate_hz=226)


def test_underbed_against_silver_beats(real_data):
    "Silver beats are a two-band consensus, not an ECG, and only easy records have them."
    rates, references, people = [], [], []
    for path in sorted((real_data / "signals/underbed_226hz").glob("*/silver_beats.csv")):
        frame = measure_vitals(underbed(path.parent)).to_frame()
        rates.append(frame.heart_rate_bpm)
        references.append(reference_rate(np.loadtxt(path, skiprows=1), frame.start_s))
        people += [path.parent.name.split("_")[0]] * len(frame)
    score = score_heart_rate(np.concatenate(rates), np.concatenate(references), people)
    print(score)
    assert score.people == 6 and score.mae_bpm < 0.7 < score.naive_mae_bpm and score.coverage > 0.9


def test_chair_against_its_electrocardiogram(real_data):
    path = real_data / "signals/chair_bcg_ecg_rwth/ay_rec_proc_Aydin-Left-1.mat"
    peaks_s = scipy.io.loadmat(path)["peaks_r"].ravel() / 1000
    true_bpm = 60 / np.diff(peaks_s).mean()
    recording = read_recording(path)
    row = measure_vitals(recording, channel="bcg").rows[0]
    assert abs(row.heart_rate_bpm - true_bpm) < 5 or row.reason
    tracked = 60 / np.median(track_rhythm(clean(recording, "bcg")).period_s)
    print(f"chair: true {true_bpm:.1f}, tracked {tracked:.1f}, reported {row.heart_rate_bpm:.1f} ({row.reason})")
    assert abs(tracked - true_bpm) < 5  # neither half nor double, even where it is not reported
    assert abs(measure_vitals(recording, channel="ecg").rows[0].heart_rate_bpm - true_bpm) < 1


def test_paced_breathing(real_data):
    right = {}
    for path in sorted((real_data / "signals/chest_acc_paced_breathing").glob("*.txt")):
        wanted = 60 / float(path.stem.split("_")[1][:-1])
        found = np.nanmedian(respiration(read_recording(path, column=3)).breathing_per_min)
        right[path.stem] = abs(found / wanted - 1) < 0.1
    print(right)
    assert len(right) == 8 and sum(right.values()) >= 7


def test_nothing_is_reported_from_the_empty_bed_and_the_wrist(real_data):
    signals = real_data / "signals"
    bed = measure_vitals(underbed(signals / "underbed_226hz/Subject51_1534797207")).to_frame()
    wrist = read_recording(signals / "wrist_acc_ecg_mhealth/uic_dataset.csv", sampling_rate_hz=50)
    frames = [bed, *(measure_vitals(wrist, channel=axis).to_frame() for axis in wrist.channels)]
    for frame in frames:
        assert frame.heart_rate_bpm.isna().all() and (frame.reason != "").all()
