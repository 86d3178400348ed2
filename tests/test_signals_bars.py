"""What benchmarks/bench_bcg.py prints, on fewer seeds: each bar of the table fails here first."""

import sys
from pathlib import Path

import numpy as np
import pytest

from medkit.errors import SignalError
from medkit.signals import (
    BcgStream, Recording, clean, find_beats, hrv, match_beats, measure_vitals, read_recording, reference_rate, respiration, simulate_bcg,
)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import bcg_records as records  # noqa: E402


def errors(beds, policy="default"):
    "Absolute errors of the told rates, and the share of windows told, among those with a reference."
    found = []
    for bed in beds:
        frame = measure_vitals(bed.recording, policy=policy).to_frame()
        reference = reference_rate(bed.beat_times_s, frame.start_s)
        found.append(np.abs(frame.heart_rate_bpm - reference)[np.isfinite(reference)])
    found = np.concatenate(found)
    return found[np.isfinite(found)], np.isfinite(found).mean()


@pytest.mark.parametrize("snr_db, error, coverage, f1", [(10, 0.3, 0.95, 0.98), (5, 0.3, 0.95, 0.98), (0, 0.6, 0.85, 0.95)])
def test_beds_that_share_no_code_with_the_simulator(snr_db, error, coverage, f1):
    beds = [records.bed(seed, snr_db, duration_s=300) for seed in range(40, 48)]
    found, told = errors(beds)
    scores = []
    for bed in beds:
        beats = find_beats(clean(bed.recording))
        if len(beats.times_s):
            scores.append(match_beats(beats.times_s, bed.beat_times_s, spans=beats.spans, delay_s="fit").f1)
    print(f"{snr_db} dB: {found.mean():.2f} bpm, told {told:.2f}, F1 {np.mean(scores):.3f}")
    assert found.mean() < error and told > coverage and np.mean(scores) > f1


@pytest.mark.parametrize("kind", list(records.NOISES))
def test_nobody_is_withheld(kind):
    told = [measure_vitals(records.noise(kind, seed, (100, 226, 50, 125)[seed % 4])).to_frame().heart_rate_bpm.notna().mean()
            for seed in range(200, 208)]
    assert np.mean(told) <= 0.03


@pytest.mark.parametrize("kind", records.HUMS)
def test_machines_are_withheld_by_the_strict_policy(kind):
    told = [measure_vitals(records.machine(kind, seed, (100, 226, 50, 125)[seed % 4]), policy="strict").to_frame().heart_rate_bpm.notna().mean()
            for seed in range(300, 308)]
    assert np.mean(told) <= 0.1


def test_strict_still_tells_what_is_there():
    found, told = errors([records.bed(seed, 5, duration_s=300) for seed in range(50, 56)], "strict")
    assert told >= 0.6 and found.mean() < 0.6


@pytest.mark.parametrize("bpm", [40, 62, 100, 118, 150])
def test_a_steady_heart_is_told_at_its_own_rate(bpm):
    "Neither half nor double nor a third, at the end of a recording too, where the last segment is short."
    recording, _ = simulate_bcg(240, 125, snr_db=10, seed=508, rr=np.full(900, 60 / bpm), movements_per_hour=0, bed_exits_per_hour=0)
    rates = measure_vitals(recording).to_frame().heart_rate_bpm
    assert rates.notna().all() and (rates - bpm).abs().max() < 1


def test_the_same_wave_is_marked_in_every_segment():
    "A beat with two blows of equal strength: the marks may lie on either, but on the same one for ten minutes."
    bed = records.bed(10, 10)
    beats = find_beats(clean(bed.recording))
    assert match_beats(beats.times_s, bed.beat_times_s, spans=beats.spans, delay_s="fit").f1 > 0.98


def test_polarity_moves_all_beats_alike():
    recording, truth = simulate_bcg(120, 100, snr_db=15, seed=6, movements_per_hour=0, bed_exits_per_hour=0)
    swapped = find_beats(clean(Recording(-recording.samples, 100)))
    match = match_beats(swapped.times_s, truth.beat_times_s, delay_s="fit")
    assert match.f1 > 0.97 and abs(match.delay_s) > 0.03 and match.interval_mae_s < 0.01


def test_segments_hide_no_beat():
    recording, truth = simulate_bcg(700, 100, snr_db=20, seed=3, movements_per_hour=0, bed_exits_per_hour=0)
    beats = find_beats(clean(recording))
    for border in range(110, 700, 100):
        near = (truth.beat_times_s > border - 5) & (truth.beat_times_s < border + 5)
        here = (beats.times_s > border - 5) & (beats.times_s < border + 5)
        assert abs(near.sum() - here.sum()) <= 1
    assert match_beats(beats.times_s, truth.beat_times_s).f1 > 0.99


def test_stream_and_batch_agree():
    for seed, snr_db in ((1, 10), (3, 0)):
        bed = records.bed(seed, snr_db, duration_s=240)
        frame, stream = measure_vitals(bed.recording).to_frame().set_index("start_s"), BcgStream(100)
        rows = [row for second in range(240) for row in stream.push(bed.recording.samples[0, 100 * second: 100 * second + 100])]
        batch, live = frame.heart_rate_bpm.loc[[row.start_s for row in rows]].to_numpy(), np.array([row.heart_rate_bpm for row in rows])
        assert len(rows) == 20 and (np.isnan(batch) == np.isnan(live)).mean() >= 0.95
        assert np.nanpercentile(np.abs(batch - live), 90) <= 1


def test_a_stream_forgets():
    import tracemalloc

    stream, second = BcgStream(100), np.random.default_rng(0).normal(size=100)
    for _ in range(120):
        stream.push(second)
    tracemalloc.start()
    for _ in range(30):
        stream.push(second)
    early = tracemalloc.get_traced_memory()[0]
    for _ in range(600):
        stream.push(second)
    late, tracemalloc_peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert late < early + 200_000


@pytest.mark.parametrize("piece, reason", [([["a"]], "not_numeric"), ([[1.0, 2.0]], "bad_shape"), ([np.inf], "not_finite")])
def test_a_stream_refuses_and_goes_on(piece, reason):
    stream = BcgStream(100)
    stream.push(np.zeros(50))
    with pytest.raises(SignalError) as caught:
        stream.push(piece)
    assert caught.value.reason == reason and stream.duration_s == 0.5
    stream.push([])
    stream.push(np.zeros(50))
    assert stream.duration_s == 1.0


@pytest.mark.parametrize("options", [{"window_s": 5}, {"window_s": 90}, {"hop_s": 0}, {"policy": "x"}, {"hop_s": "a"}])
def test_stream_options(options):
    with pytest.raises(SignalError) as caught:
        BcgStream(100, **options)
    assert caught.value.reason == "bad_option"


def test_an_odd_sampling_rate_and_piece_size_stream_alike():
    recording, _ = simulate_bcg(120, 100.3, snr_db=12, seed=4, movements_per_hour=0, bed_exits_per_hour=0)
    whole, parts = BcgStream(100.3), BcgStream(100.3)
    rows = whole.push(recording.samples[0])
    cut = [row for start in range(0, recording.samples.shape[1], 77) for row in parts.push(recording.samples[0, start: start + 77])]
    np.testing.assert_array_equal([row.heart_rate_bpm for row in rows], [row.heart_rate_bpm for row in cut])
    assert len(rows) == 8 and np.isfinite([row.heart_rate_bpm for row in rows]).all()


def test_several_channels_must_agree():
    rng = np.random.default_rng(1)
    bed = simulate_bcg(60, 100, snr_db=12, seed=2, movements_per_hour=0, bed_exits_per_hour=0)[0].samples[0]
    three = Recording(np.stack([bed, rng.normal(size=6000), 0.3 * bed + 0.05 * bed.std() * rng.normal(size=6000)]), 100, ("a", "noise", "c"))
    assert measure_vitals(three, channel=["a", "noise"]).to_frame().heart_rate_bpm.isna().all()
    assert measure_vitals(three, channel=["a", "c"]).to_frame().heart_rate_bpm.notna().all()
    row = measure_vitals(three, channel=("a", "noise")).rows[0]
    assert "only one channel" in row.reason
    for bad in (["a"], [], ["a", "nobody"]):
        with pytest.raises(SignalError):
            measure_vitals(three, channel=bad)


def test_variability_of_found_beats():
    recording, truth = simulate_bcg(300, 100, snr_db=15, seed=9, movements_per_hour=0, bed_exits_per_hour=0)
    found, true = hrv(find_beats(clean(recording))), hrv(np.diff(truth.beat_times_s))
    assert abs(found["sdnn_ms"] / true["sdnn_ms"] - 1) < 0.1 and found.coverage > 0.9


# ---- real recordings ----


def test_consensus_records(real_data):
    found, told = errors(records.under_mattress(real_data / "signals"))
    strict, strict_told = errors(records.under_mattress(real_data / "signals"), "strict")
    assert found.mean() <= 0.7 and told >= 0.9 and strict.mean() <= 0.7 and strict_told >= 0.9


def test_a_fan_under_a_real_record(real_data):
    false = []
    for seed, bed in enumerate(list(records.under_mattress(real_data / "signals"))[::3]):
        for level_db in (0, 6, 12):
            one = records.shaken(bed, "fan", level_db, seed)
            frame = measure_vitals(one.recording, policy="strict").to_frame()
            false.append((np.abs(frame.heart_rate_bpm - reference_rate(one.beat_times_s, frame.start_s)) > 5).mean())
    assert np.mean(false) <= 0.1


def test_paced_breathing_to_three_percent(real_data):
    for file in sorted((real_data / "signals/chest_acc_paced_breathing").glob("*.txt")):
        paced_s = float(file.stem.split("_")[1][:-1])
        found = [60 / np.nanmedian(respiration(read_recording(file, column=n)).breathing_per_min) for n in (1, 2, 3)]
        assert abs(np.median(found) / paced_s - 1) <= 0.03


def test_single_lost_samples_cost_little():
    "A dropped sample here and there takes no interval with it."
    recording, truth = simulate_bcg(180, 100, snr_db=12, seed=14, movements_per_hour=0, bed_exits_per_hour=0)
    values = recording.samples[0].copy()
    values[::100] = np.nan
    frame = measure_vitals(Recording(values, 100)).to_frame()
    error = (frame.heart_rate_bpm - reference_rate(truth.beat_times_s, frame.start_s)).abs()
    assert frame.heart_rate_bpm.notna().mean() > 0.9 and error.max() < 1


def test_half_of_a_bigeminal_rhythm_is_not_told():
    rng = np.random.default_rng(3)
    intervals = np.tile([0.65, 1.05], 300) + rng.normal(0, 0.01, 600)
    recording, truth = simulate_bcg(180, 100, snr_db=8, seed=3, rr=intervals, movements_per_hour=0, bed_exits_per_hour=0)
    frame = measure_vitals(recording).to_frame()
    error = (frame.heart_rate_bpm - reference_rate(truth.beat_times_s, frame.start_s)).abs()
    assert not (error > 5).any()


@pytest.mark.parametrize("length_s", [12, 30, 50])
def test_a_long_movement_is_movement(length_s):
    recording, truth = simulate_bcg(180, 100, snr_db=15, seed=3, movements_per_hour=0, bed_exits_per_hour=0)
    values, burst = recording.samples[0].copy(), np.random.default_rng(length_s).normal(size=100 * length_s)
    values[7000: 7000 + 100 * length_s] += 20 * clean(recording).heart.std() * burst
    frame = measure_vitals(Recording(values, 100)).to_frame()
    error = (frame.heart_rate_bpm - reference_rate(truth.beat_times_s, frame.start_s)).abs()
    assert error.max() < 2 and frame.movement.max() > min(length_s / 30, 1) * 0.8


def test_heart_rate_of_any_beats():
    from medkit.signals import heart_rate

    recording, truth = simulate_bcg(90, 100, snr_db=15, seed=8, movements_per_hour=0, bed_exits_per_hour=0)
    rates = heart_rate(find_beats(clean(recording), method="shin2008"))
    assert list(rates.columns) == ["start_s", "heart_rate_bpm", "coverage"] and len(rates) == 7
    assert np.nanmedian(np.abs(rates.heart_rate_bpm - reference_rate(truth.beat_times_s, rates.start_s))) < 3
