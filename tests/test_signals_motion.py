"""Activity counts and sleep-wake rules: by hand, under scaling, shifting, gaps and bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkit.errors import MedkitError, SignalError
from medkit.signals import ActivityCounts, Recording, activity_counts, sleep_wake

QUICK = settings(max_examples=40, deadline=None, derandomize=True)
MINUTES = st.lists(st.floats(0, 400), min_size=12, max_size=80).map(np.array)
COLE = {-4: 106, -3: 54, -2: 58, -1: 76, 0: 230, 1: 74, 2: 67}


def wrist(minutes=6, rate_hz=20, seed=0, unit="g"):
    "Gravity, noise and a shake of 2.5 Hz in every second minute; three axes."
    rng, t = np.random.default_rng(seed), np.arange(minutes * 60 * rate_hz) / rate_hz
    shake = 0.2 * np.sin(2 * np.pi * 2.5 * t) * ((t // 60) % 2 == 1)
    axes = np.array([0.1, 0.2, 0.97])[:, None] + np.outer([1, 0.5, 0.2], shake) + rng.normal(0, 0.002, (3, len(t)))
    return Recording(axes, rate_hz, channels=("x", "y", "z"), units=(unit,) * 3)


def test_a_shake_crosses_zero_five_times_a_second():
    values = activity_counts(wrist()).values
    assert np.abs(values[1::2] - 300).max() <= 10 and values[::2].max() <= 10


@pytest.mark.parametrize("method", ["zero_crossing", "band_sum", "vanhees2013"])
@pytest.mark.parametrize("unit, factor", [("mg", 1000), ("m/s2", 9.80665)])
def test_units_are_honoured(method, unit, factor):
    one = wrist()
    other = Recording(factor * one.samples, 20, one.channels, (unit,) * 3)
    np.testing.assert_allclose(activity_counts(one, method=method).values, activity_counts(other, method=method).values, rtol=1e-6, atol=1)


def test_band_sum_of_a_slow_swing_by_hand():
    t = np.arange(10 * 60 * 30) / 30
    counted = activity_counts(Recording(0.5 * np.sin(2 * np.pi * 0.7 * t), 30, units=("g",)), method="band_sum").values[3]
    size = np.abs(0.5 * np.sin(2 * np.pi * 0.7 * t[:1800]))
    expected = np.where(size < 0.068, 0, np.floor(size / (2.13 / 128))).sum() / 3
    assert counted == pytest.approx(expected, rel=0.05), "0.7 Hz is in the middle of the band, which passes it whole"


def test_enmo_by_hand():
    still = Recording(np.array([[0.0], [0.6], [0.9]]) * np.ones(1200), 20, units=("g",) * 3)
    assert activity_counts(still, method="vanhees2013").values[0] == pytest.approx(1000 * (np.hypot(0.6, 0.9) - 1))


@given(st.integers(0, 5), st.floats(1, 59), st.sampled_from(["zero_crossing", "vanhees2013"]))
@QUICK
def test_gaps_are_made_up_for_or_unknown(minute, length_s, method):
    whole = wrist()
    samples = whole.samples.copy()
    samples[:, minute * 1200: minute * 1200 + int(length_s * 20)] = np.nan
    found, full = (activity_counts(Recording(s, 20, units=("g",) * 3), method=method).values for s in (samples, whole.samples))
    others = np.arange(6) != minute
    np.testing.assert_allclose(found[others], full[others], atol=6)
    assert np.isnan(found[minute]) == (int(length_s * 20) > 600)
    if np.isfinite(found[minute]):
        assert found[minute] == pytest.approx(full[minute], rel=0.1, abs=12)


def test_starting_an_epoch_later_shifts_the_counts_by_one():
    whole = wrist(8)
    np.testing.assert_allclose(activity_counts(whole).values[2:-1], activity_counts(whole.part(60, 480)).values[1:-1], atol=2)


def test_an_unfinished_epoch_is_dropped_and_epochs_can_be_short():
    one = wrist(3).part(0, 150)
    assert len(activity_counts(one).values) == 2 and len(activity_counts(one, epoch_s=30).values) == 5


@given(MINUTES)
@QUICK
def test_cole_by_the_sum(counts):
    found = sleep_wake(counts)
    for minute in range(len(counts)):
        score = sum(0.001 * weight * counts[minute + lag] for lag, weight in COLE.items() if 0 <= minute + lag < len(counts))
        assert found.score[minute] == pytest.approx(score, abs=1e-9)
        assert abs(score - 1) < 1e-9 or found.asleep[minute] == (score < 1)


@given(MINUTES)
@QUICK
def test_sadeh_by_the_formula(counts):
    found, padded = sleep_wake(counts, "sadeh1994"), np.r_[np.zeros(5), counts, np.zeros(5)]
    for minute in range(len(counts)):
        eleven, six = padded[minute: minute + 11], padded[minute: minute + 6]
        score = (7.601 - 0.065 * eleven.mean() - 1.08 * ((eleven >= 50) & (eleven < 100)).sum() - 0.056 * six.std(ddof=1)
                 - 0.703 * np.log(counts[minute] + 1))
        assert found.score[minute] == pytest.approx(score, abs=1e-9) and found.asleep[minute] == (found.score[minute] >= 0)


@given(MINUTES, st.floats(0.01, 50))
@QUICK
def test_scaling_the_counts_is_the_same_as_scale(counts, factor):
    np.testing.assert_allclose(sleep_wake(counts, scale=factor).score, sleep_wake(factor * counts).score)
    np.testing.assert_allclose(sleep_wake(counts).score * factor, sleep_wake(factor * counts).score, rtol=1e-9, atol=1e-9)


@given(MINUTES, st.integers(1, 30))
@QUICK
def test_still_minutes_before_shift_the_night(counts, still):
    for method in ("cole1992", "sadeh1994"):
        np.testing.assert_allclose(sleep_wake(np.r_[np.zeros(still), counts], method).score[still:], sleep_wake(counts, method).score)


@given(MINUTES, st.sampled_from(["cole1992", "sadeh1994"]))
@QUICK
def test_more_movement_never_makes_sleep(counts, method):
    less, more = sleep_wake(counts, "cole1992"), sleep_wake(counts + 5, "cole1992")
    assert (more.asleep <= less.asleep).all()


@given(MINUTES, st.integers(0, 11))
@QUICK
def test_an_unknown_minute_makes_its_neighbours_unknown_and_no_others(counts, place):
    counts[place] = np.nan
    for method, before, after in (("cole1992", 2, 4), ("sadeh1994", 5, 5)):
        unknown = np.flatnonzero(np.isnan(sleep_wake(counts, method).asleep))
        np.testing.assert_array_equal(unknown, np.arange(max(place - before, 0), min(place + after, len(counts) - 1) + 1))


@pytest.mark.parametrize("wake, slept, again, changed", [
    (3, 20, 0, 0), (4, 20, 0, 1), (9, 20, 0, 1), (10, 20, 0, 3), (14, 20, 0, 3), (15, 20, 0, 4),  # rules a to c
    (13, 9, 10, 3), (13, 8, 13, 3), (10, 9, 10, 3), (10, 6, 9, 3),  # no d: over 6 minutes, or the wake after is short
    (13, 6, 12, 6), (30, 10, 25, 10), (30, 10, 19, 4), (30, 15, 30, 4),  # rules d and e
])
def test_rescoring_rules(wake, slept, again, changed):
    from medkit.signals.motion import _rescored

    states = np.r_[np.ones(12), np.zeros(wake), np.ones(slept), np.zeros(again)]
    states = np.r_[states, np.ones(40)] if again else states
    found = _rescored(states)[12 + wake: 12 + wake + slept]
    assert (found == 0).sum() == changed and (found[:changed] == 0).all()


@given(MINUTES, st.booleans())
@QUICK
def test_the_summary_adds_up(counts, rescore):
    found = sleep_wake(counts, "sadeh1994", rescore=rescore)
    short, plain = found.summary, sleep_wake(counts, "sadeh1994")
    assert short["time_in_bed_min"] == len(counts) and short["total_sleep_min"] == (found.asleep == 1).sum()
    assert short["efficiency_percent"] == pytest.approx(100 * short["total_sleep_min"] / len(counts))
    assert (found.asleep <= plain.asleep).all(), "rescoring makes wake only"
    if np.isfinite(short["onset_latency_min"]):
        assert (found.asleep[short["onset_latency_min"]:][:10] == 1).all()
        assert short["wake_after_onset_min"] <= len(counts) - short["total_sleep_min"]


def test_a_night_by_hand():
    counts = np.r_[np.full(20, 200.0), np.zeros(100), np.full(5, 200.0), np.zeros(60), np.full(10, 200.0)]
    short = sleep_wake(counts).summary
    assert short["onset_latency_min"] == 24, "four minutes after the last movement, its weight of 0.106 x 200 is gone"
    assert short["wake_after_onset_min"] == 2 + 5 + 4 and short["awakenings"] == 1
    assert short["total_sleep_min"] == 195 - 24 - 11 - 12


BAD = {
    "no unit": (lambda: activity_counts(Recording(np.zeros((3, 2000)), 20)), "bad_unit"),
    "odd unit": (lambda: activity_counts(Recording(np.zeros((1, 2000)), 20, units=("mV",))), "bad_unit"),
    "low rate": (lambda: activity_counts(Recording(np.zeros(2000), 5, units=("g",))), "bad_sampling_rate"),
    "short": (lambda: activity_counts(wrist(1).part(0, 30)), "too_short"), "method": (lambda: activity_counts(wrist(1), method="x"), "bad_option"),
    "axes": (lambda: activity_counts(Recording(np.zeros(2000), 20, units=("g",)), method="vanhees2013"), "bad_shape"),
    "missing": (lambda: activity_counts(Recording(np.full(2000, np.nan), 20, units=("g",))), "all_missing"),
    "epoch": (lambda: activity_counts(wrist(1), epoch_s=0), "bad_option"), "no recording": (lambda: activity_counts([1, 2]), "bad_option"),
    "half minutes": (lambda: sleep_wake(activity_counts(wrist(), epoch_s=30)), "bad_unit"),
    "milligravity": (lambda: sleep_wake(activity_counts(wrist(), method="vanhees2013")), "bad_unit"),
    "rule": (lambda: sleep_wake(np.zeros(9), "x"), "bad_option"), "negative": (lambda: sleep_wake([-1.0]), "bad_unit"),
    "infinite": (lambda: sleep_wake([np.inf]), "not_finite"), "empty": (lambda: sleep_wake([]), "bad_shape"),
    "words": (lambda: sleep_wake(["a"]), "not_numeric"), "none": (lambda: sleep_wake(None), "not_numeric"),
    "scale": (lambda: sleep_wake(np.zeros(9), scale=0), "bad_option"), "ceiling": (lambda: sleep_wake(np.zeros(9), ceiling="x"), "bad_option"),
    "rescore": (lambda: sleep_wake(np.zeros(9), rescore="yes"), "bad_option"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_words(case):
    call, reason = BAD[case]
    with pytest.raises(SignalError) as caught:
        call()
    assert caught.value.reason == reason and caught.value.found and caught.value.expected


@given(st.lists(st.one_of(st.floats(), st.none()), max_size=30))
@QUICK
def test_any_list_gives_states_or_a_medkit_error(values):
    try:
        found = sleep_wake(values)
    except MedkitError:
        return
    assert len(found.asleep) == len(values) and set(np.unique(found.asleep[np.isfinite(found.asleep)])) <= {0.0, 1.0}
    repr(found), found._repr_html_(), found.show()
    __import__("matplotlib.pyplot").pyplot.close("all")


def test_counts_know_their_unit():
    assert activity_counts(wrist()).unit == "crossings" and isinstance(activity_counts(wrist()), ActivityCounts)
    assert list(activity_counts(wrist()).to_frame().columns) == ["start_s", "value", "unit"]
