"Clock offset and drift from beats and from recordings: accuracy, and no answer for strangers."

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkit.errors import SignalError
from medkit.signals import Recording, align, simulate_bcg, simulate_rr
from medkit.signals.collections import read_li2024_rr


def beats(seed, minutes=30.0, rate=64.0):
    return np.cumsum(simulate_rr(60 * minutes, heart_rate_bpm=rate, seed=seed))


def seen(times, rng, missing=0.1, jitter_s=0.012):
    kept = times[rng.random(len(times)) > missing]
    return np.sort(kept + rng.normal(0, jitter_s, len(kept)))


@settings(max_examples=12, deadline=None)
@given(st.floats(-600, 600), st.floats(-10_000, 10_000), st.integers(0, 10_000))
def test_offset_and_drift_are_found_to_some_milliseconds(offset, ppm, seed):
    rng = np.random.default_rng(seed)
    heart = beats(seed % 40, 20)
    bed, monitor = seen(heart, rng), offset + seen(heart, rng, 0.05, 0.005)
    fit = align(bed / (1 + 1e-6 * ppm), monitor)
    assert not fit.withheld, fit
    assert np.abs(fit.to_reference(bed / (1 + 1e-6 * ppm)) - (bed + offset)).max() < 0.02
    assert np.abs(fit.to_recording(fit.to_reference(bed)) - bed).max() < 1e-6


def test_accuracy_on_real_intervals(real_data, record_property):
    worst = drifts = 0.0
    for path in sorted((real_data / "signals" / "li2024_rr_reference").glob("*.csv")):
        heart = read_li2024_rr(path).beats_s
        for minutes, offset, ppm in ((5, -200.0, -500), (30, 40.0, -10_000), (240, 28_800.0, 500)):
            rng = np.random.default_rng(minutes)
            part = heart[(heart > 2000) & (heart < 2000 + 60 * minutes)]
            bed = seen(part, rng)
            fit = align(bed / (1 + 1e-6 * ppm), seen(heart, rng, 0.05, 0.0) + offset)
            assert not fit.withheld, (path.name, minutes, fit)
            worst = max(worst, np.abs(fit.to_reference(bed / (1 + 1e-6 * ppm)) - bed - offset).max())
            drifts = max(drifts, abs(fit.drift_ppm - ppm) if minutes == 240 else 0)
    record_property("align on real intervals", f"worst {1000 * worst:.0f} ms; drift within {drifts:.1f} ppm over 4 h")
    assert worst < 0.02 and drifts < 3


def test_strangers_are_withheld(real_data, record_property):
    "Other people, other hours of the same night, and simulated hearts of like rate."
    one, other = (read_li2024_rr(path).beats_s for path in sorted((real_data / "signals" / "li2024_rr_reference").glob("*.csv")))
    rng, answered, tried = np.random.default_rng(1), [], 0
    simulated = [beats(seed, 60, 55 + 3 * seed) for seed in range(6)]
    for number in range(36):
        minutes, start = (2, 5, 15, 30)[number % 4], rng.uniform(0, 10_000)
        pair = [(one, other), (one, one), (simulated[number % 6], simulated[(number + 1) % 6])][number // 12]
        start = start / 10 if number >= 24 else start
        part = pair[0][(pair[0] > start) & (pair[0] < start + 60 * minutes)]
        rest = pair[1][pair[1] > 22_000] if number < 24 else pair[1]
        if len(part) < 60 or np.ptp(part) < 110:
            continue
        tried += 1
        fit = align(part, rest)
        if not fit.withheld:
            answered.append(fit)
    record_property("align on strangers", f"{len(answered)} answers in {tried} pairs")
    assert tried > 30 and len(answered) <= 1


def test_eight_hours_between_epoch_clocks():
    heart = 1.7e9 + beats(3)
    fit = align(heart, heart + 8 * 3600)
    assert fit.offset_s == pytest.approx(8 * 3600, abs=0.005) and abs(fit.drift_ppm) < 5


def test_recordings_with_two_clocks_state_the_clock_error():
    first, _ = simulate_bcg(600, 100, snr_db=10, seed=3)
    local = datetime(2024, 1, 1, 8, 0, 20, tzinfo=timezone(timedelta(0)))  # wrote UTC+8 as if it were UTC
    rng = np.random.default_rng(0)
    noisy = first.samples[0, 2000:] + rng.normal(0, 0.3 * first.samples[0].std(), first.samples.shape[1] - 2000)
    fit = align(Recording(noisy, 100, start=local), Recording(first.samples[0], 100, start=datetime(2024, 1, 1, tzinfo=UTC)))
    assert fit.offset_s == pytest.approx(20, abs=0.1)
    assert fit.clock_error_s == pytest.approx(-8 * 3600, abs=0.1)
    assert align(Recording(noisy, 100), first).clock_error_s is None


def test_unrelated_recordings_are_withheld():
    first, second = (simulate_bcg(400, 100, snr_db=10, seed=seed)[0] for seed in (1, 2))
    assert align(first, second).withheld


def test_a_metronome_fits_everywhere_and_is_withheld():
    even = np.arange(0, 1200, 0.9)
    assert align(even, even + 5).withheld
    assert align(np.sort(np.random.default_rng(0).uniform(0, 1200, 1300)), even).withheld


def test_one_false_beat_in_ten_and_a_gap_of_ten_minutes():
    rng = np.random.default_rng(4)
    heart = beats(9, 60)
    bed = seen(heart, rng)
    bed = np.sort(np.concatenate([bed, rng.uniform(0, 3600, len(bed) // 10)]))
    bed = bed[(bed < 1200) | (bed > 1800)]
    fit = align(bed, heart + 31)
    assert not fit.withheld and fit.offset_s == pytest.approx(31, abs=0.02)


def test_a_fifth_of_the_beats_missing_on_both_sides():
    rng = np.random.default_rng(6)
    heart = beats(12, 30)
    fit = align(seen(heart, rng, 0.22), seen(heart, rng, 0.22) + 12)
    assert not fit.withheld and fit.offset_s == pytest.approx(12, abs=0.03), fit


def test_limits_and_bad_input():
    heart = beats(1, 10)
    assert align(heart, heart + 300, max_offset_s=60).withheld and align(heart + 300, heart, max_offset_s=60).withheld
    assert not align(heart + 300, heart, max_offset_s=310).withheld
    for call, reason in (
        (lambda: align(heart, simulate_bcg(200, 100, snr_db=10, seed=1)[0]), "bad_option"),
        (lambda: align(heart[:20], heart), "too_short"), (lambda: align(heart, heart * 1e6), "too_large"),
        (lambda: align(heart, [np.nan] * 99), "not_finite"), (lambda: align(heart, "beats"), "not_numeric"),
        (lambda: align(heart, heart, max_drift_ppm=-1), "bad_option"), (lambda: align(heart, np.zeros((4, 99))), "bad_shape"),
        (lambda: align(Recording(np.zeros(100), 100), Recording(np.zeros(100), 100)), "too_short"),
        (lambda: align(heart, heart[::-1] * 0), "too_short"),
    ):
        with pytest.raises(SignalError) as caught:
            call()
        assert caught.value.reason == reason
    flat = align(Recording(np.zeros(40_000), 100), Recording(np.zeros(40_000), 100))
    assert flat.withheld and np.isnan(flat.offset_s)
    missing = align(Recording(np.full(40_000, np.nan), 100), Recording(np.zeros(40_000), 100))
    assert missing.withheld
    with pytest.raises(SignalError) as caught:
        missing.to_reference([1.0])
    assert caught.value.reason == "not_aligned"
