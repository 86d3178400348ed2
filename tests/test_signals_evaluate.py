"""Scores: figures computed by hand, intervals that hold what they promise, and coverage beside every error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import f_oneway

from medkit.errors import SignalError
from medkit.signals import bland_altman, coverage_error_curve, match_beats, score_heart_rate

QUICK = settings(max_examples=80, deadline=None, derandomize=True)
RATES = st.floats(30, 200)
WINDOWS = st.lists(st.tuples(RATES, RATES, st.sampled_from("abcd"), st.floats(0, 1)), min_size=4, max_size=40)
NAN = float("nan")


def reason(call, *values, **options):
    with pytest.raises(SignalError) as caught:
        call(*values, **options)
    assert caught.value.found and caught.value.expected and caught.value.hint
    return caught.value.reason


# ---- heart rate ----


def test_heart_rate_by_hand():
    measured = [61, 59, NAN, 82, 70, 90]
    reference = [60, 62, 64, 80, 84, NAN]
    score = score_heart_rate(measured, reference, ["a", "a", "a", "b", "b", "b"])
    assert score.mae_bpm == pytest.approx((1 + 3 + 2 + 14) / 4)
    assert score.naive_mae_bpm == pytest.approx((11 + 9 + 9 + 13) / 4)  # around the median of 60, 62, 80, 84: 71
    assert score.person_mean_mae_bpm == pytest.approx((1 + 1 + 2 + 2) / 4)  # 61 for a, 82 for b
    assert (score.coverage, score.windows, score.people, score.within_5_bpm) == (0.8, 5, 2, 0.75)
    assert score.low_bpm == pytest.approx(2) and score.high_bpm == pytest.approx(8)  # each person alone
    assert "coverage 80% of 5 windows" in repr(score) and "person's mean 1.50" in repr(score)


def test_old_calls_keep_their_meaning():
    from medkit.signals import HeartRateScore

    old = HeartRateScore(0.6, 0.4, 0.9, 6.3, 0.99, 0.95, 240, 8)
    assert np.isnan(old.person_mean_mae_bpm) and old.people == 8 and old.naive_mae_bpm == 6.3


@QUICK
@given(windows=WINDOWS, seed=st.integers(0, 99), names=st.sampled_from([dict(zip("abcd", "wxyz")), dict(zip("abcd", range(4)))]))
def test_order_and_names_do_not_matter(windows, seed, names):
    measured, reference, people, _ = map(np.array, zip(*windows))
    score = score_heart_rate(measured, reference, people)
    order = np.random.default_rng(seed).permutation(len(windows))
    again = score_heart_rate(measured[order], reference[order], [names[one] for one in people[order]])
    for name in ("mae_bpm", "naive_mae_bpm", "person_mean_mae_bpm", "coverage", "people"):
        assert getattr(again, name) == pytest.approx(getattr(score, name))
    constant = score_heart_rate(measured, np.array([50.0 + 10 * "abcd".index(one) for one in people]), people)
    assert constant.person_mean_mae_bpm == pytest.approx(0, abs=1e-9)


@QUICK
@given(windows=WINDOWS, hidden=st.integers(0, 3))
def test_withholding_lowers_coverage_only_by_what_is_withheld(windows, hidden):
    measured, reference, people, _ = map(np.array, zip(*windows))
    measured[:hidden] = np.nan
    score = score_heart_rate(measured, reference, people)
    assert score.coverage == pytest.approx(1 - hidden / len(measured))
    assert score.mae_bpm == pytest.approx(np.abs(measured - reference)[hidden:].mean())


@pytest.mark.parametrize("people", ["aaaa", 5, ["a"], [], 3.2, object()], ids=range(6))
def test_odd_people_are_named(people):
    for call in (score_heart_rate, bland_altman):
        assert reason(call, [60, 61, 62, 63], [60, 61, 62, 60], people=people) == "bad_shape"


# ---- beats ----


def test_beats_by_hand():
    true = np.arange(1.0, 11.0)
    found = np.r_[true[:4] + 0.01, 4.6, true[6] + 0.04]
    score = match_beats(found, true, spans=[[0.5, 5.2], [6.5, 7.5]])
    assert score.coverage == 0.6 and (score.found, score.true) == (6, 6)
    assert score.sensitivity == score.precision == score.f1 == pytest.approx(5 / 6)
    assert score.jitter_s == pytest.approx(0.08 / 5) and score.interval_mae_s == pytest.approx(0, abs=1e-12)
    assert "coverage 60%" in repr(score) and "coverage 100%" in repr(match_beats(found, true))


def test_a_beat_found_outside_the_reported_spans_still_counts():
    true = np.arange(1.0, 11.0)
    wrong = match_beats([1, 2, 7.5], true, spans=[[0.5, 2.5]])
    assert wrong.precision == pytest.approx(2 / 3) and wrong.sensitivity == 1 and wrong.coverage == 0.2
    right = match_beats([1, 2, 7.0], true, spans=[[0.5, 2.5]])
    assert right.f1 == 1 and right.true == 3 and right.coverage == 0.2


def test_spans_are_on_the_clock_of_the_found_beats():
    true = np.arange(1.0, 11.0)
    score = match_beats(true[:5] + 0.2, true, delay_s="fit", spans=[[1.1, 5.3]])
    assert score.delay_s == pytest.approx(0.2) and score.f1 == 1 and score.coverage == 0.5


def test_nothing_reported():
    nothing = match_beats([], [1, 2, 3], spans=np.empty((0, 2)))
    assert nothing.coverage == 0 and np.isnan(nothing.f1) and nothing.true == 0
    assert np.isnan(match_beats([1.0], []).coverage)


@QUICK
@given(true=st.lists(st.floats(0, 60), min_size=1, max_size=40, unique=True), found=st.lists(st.floats(0, 60), max_size=40),
       edges=st.lists(st.tuples(st.floats(0, 60), st.floats(0, 30)), max_size=5))
def test_spans_arithmetic(true, found, edges):
    spans = np.array([(start, start + length) for start, length in edges]).reshape(-1, 2)  # they may overlap
    score, whole = match_beats(found, true, spans=spans), match_beats(found, true)
    inside = np.array([any(start <= time < stop for start, stop in spans) for time in true])
    assert score.coverage == pytest.approx(inside.mean()) and whole.coverage == 1
    assert inside.sum() <= score.true <= whole.true == len(true) and score.found == whole.found == len(found)
    assert score.precision == pytest.approx(whole.precision, nan_ok=True)
    if score.true and score.found:
        matched = score.precision * score.found
        assert score.sensitivity * score.true == pytest.approx(matched)
        assert score.f1 == pytest.approx(2 * matched / (score.found + score.true))
        assert score.sensitivity >= whole.sensitivity - 1e-12
    everything = match_beats(found, true, spans=[[-1, 100]])
    assert (everything.f1, everything.coverage, everything.true) == (pytest.approx(whole.f1), 1, len(true))


@pytest.mark.parametrize("options, expected", [({"spans": [[2, 1]]}, "bad_option"), ({"spans": [[NAN, 1]]}, "bad_option"),
                                               ({"spans": [1, 2, 3]}, "bad_shape"), ({"spans": "all"}, "bad_shape"),
                                               ({"found_s": [NAN]}, "not_finite"), ({"true_s": [np.inf]}, "not_finite"),
                                               ({"found_s": ["a"]}, "not_numeric"), ({"tolerance_s": 0}, "bad_option"),
                                               ({"delay_s": "guess"}, "bad_option")], ids=str)
def test_odd_beats_are_named(options, expected):
    assert reason(match_beats, **({"found_s": [1.0], "true_s": [1.0]} | options)) == expected


# ---- agreement ----


def test_bland_altman_by_hand():
    "Differences 1, -1, 2, 0, 3: mean 1, variance 2.5; Student's t with 4 degrees of freedom is 2.776445."
    agreement = bland_altman([61, 69, 82, 90, 53], [60, 70, 80, 90, 50])
    spread = 2.5**0.5
    assert agreement.bias == pytest.approx(1)
    assert (agreement.low, agreement.high) == (pytest.approx(1 - 1.96 * spread), pytest.approx(1 + 1.96 * spread))
    assert agreement.bias_interval == pytest.approx((1 - 2.776445 * spread / 5**0.5, 1 + 2.776445 * spread / 5**0.5))
    reach = 2.776445 * (2.5 * (1 / 5 + 1.96**2 / 8)) ** 0.5
    assert agreement.high_interval == pytest.approx((agreement.high - reach, agreement.high + reach))
    assert agreement.low_interval == pytest.approx((agreement.low - reach, agreement.low + reach))
    assert agreement.coverage == 1 and agreement.people == 0 and "taken as independent" in repr(agreement)


def test_the_published_standard_errors():
    "Bland and Altman 1999: the standard error of a limit is about 1.71 standard deviations over the root of the number of pairs."
    differences = np.random.default_rng(0).normal(size=2000)
    agreement = bland_altman(60 + differences, np.full(2000, 60.0))
    error = (agreement.high_interval[1] - agreement.high) / 1.961
    assert error == pytest.approx(1.71 * differences.std(ddof=1) / 2000**0.5, rel=0.01)


def test_people_by_analysis_of_variance():
    "Equal numbers of pairs: the variance components of Bland and Altman 2007."
    rng = np.random.default_rng(1)
    groups = [rng.normal(rng.normal(0, 2), 1, 6) for _ in range(8)]
    agreement = bland_altman(60 + np.concatenate(groups), np.full(48, 60.0), people=np.repeat(np.arange(8), 6))
    within = np.mean([group.var(ddof=1) for group in groups])
    between = f_oneway(*groups).statistic * within  # mean square between
    spread = ((between - within) / 6 + within) ** 0.5
    assert agreement.bias == pytest.approx(np.mean(groups))
    assert agreement.high == pytest.approx(agreement.bias + 1.96 * spread)
    assert agreement.people == 8 and "8 people" in repr(agreement)


def test_unequal_people_by_hand():
    "a: 0, 2, 4 (mean 2, squares 8); b: 6 alone; c: 1, 3 (mean 2, squares 2)."
    differences = np.array([0, 2, 4, 6, 1, 3.0])
    agreement = bland_altman(60 + differences, np.full(6, 60.0), people=list("aaabcc"))
    between, within = np.var([2, 6, 2], ddof=1), 10 / 3
    spread = (between + (1 - (1 / 3 + 1 + 1 / 2) / 3) * within) ** 0.5
    assert agreement.bias == pytest.approx(10 / 3)  # each person once; the mean of the pairs is 8 / 3
    assert agreement.low == pytest.approx(10 / 3 - 1.96 * spread)
    inner, outer = np.diff([agreement.high_interval[0], agreement.high, agreement.high_interval[1]])
    assert outer > inner > 0


def covered(rounds, people, windows, between, within, grouped):
    "How often the three intervals hold the truth: 0 and -+ 1.96 standard deviations."
    rng, hits = np.random.default_rng(5), np.zeros(3)
    true_limit = 1.96 * (between**2 + within**2) ** 0.5
    names = np.repeat(np.arange(people), windows)
    for _ in range(rounds):
        differences = rng.normal(0, between, people)[names] + rng.normal(0, within, people * windows)
        found = bland_altman(60 + differences, np.full(len(names), 60.0), people=names if grouped else None)
        for number, (value, (low, high)) in enumerate(((0, found.bias_interval), (-true_limit, found.low_interval),
                                                       (true_limit, found.high_interval))):
            hits[number] += low <= value <= high
    return hits / rounds


def test_intervals_hold_the_truth_as_often_as_they_promise():
    independent = covered(600, 20, 1, 0, 1, grouped=False)
    grouped = covered(600, 10, 8, 2, 1, grouped=True)
    careless = covered(300, 10, 8, 2, 1, grouped=False)  # windows taken for people
    print(independent, grouped, careless)
    assert (independent > 0.92).all() and (independent < 0.985).all()
    assert (grouped > 0.92).all() and (grouped < 0.985).all()
    assert (careless < 0.75).all()


@QUICK
@given(windows=WINDOWS, shift=st.floats(-20, 20), grouped=st.booleans())
def test_agreement_moves_with_the_differences(windows, shift, grouped):
    measured, reference, people, _ = map(np.array, zip(*windows))
    if len(set(people)) < 2:
        people[0], people[1:] = "a", "b"
    first, moved, turned = (bland_altman(one, other, people=people if grouped else None) for one, other in (
        (measured, reference), (measured + shift, reference), (reference, measured)))
    assert first.low <= first.bias <= first.high
    for name in ("bias_interval", "low_interval", "high_interval"):
        low, high = getattr(first, name)
        assert low <= high and getattr(moved, name) == pytest.approx((low + shift, high + shift), abs=1e-6)
    assert first.low_interval[0] <= first.low <= first.low_interval[1] and first.high_interval[0] <= first.high <= first.high_interval[1]
    assert turned.bias == pytest.approx(-first.bias, abs=1e-9)
    assert turned.high_interval == pytest.approx((-first.low_interval[1], -first.low_interval[0]), abs=1e-6)


def test_agreement_states_coverage_and_refuses_one_person():
    agreement = bland_altman([61, NAN, 69, 82, 50], [60, 61, 70, 80, NAN])
    assert agreement.coverage == 0.75 and "coverage 75%" in repr(agreement)
    assert "coverage 75%" in agreement.show().get_title(loc="left")
    assert reason(bland_altman, [60, 61, 62], [60, 60, 60], people=[1, 1, 1]) == "too_short"
    assert reason(bland_altman, [60, 61, 62, NAN], [60, 60, 60, 60], people=[1, 1, 1, 2]) == "too_short"  # 2 answers nothing
    assert bland_altman([61, 69, 82], [60, 70, 80], "mm").unit == "mm"


# ---- error against coverage ----


def test_curve_by_hand():
    curve = coverage_error_curve([60, 70, 99, NAN], [60, 72, 90, 80], [0.9, 0.5, 0.1, 0.95])
    assert np.allclose(curve.coverage, [0.25, 0.5, 0.75]) and np.allclose(curve.mae, [0, 1, 11 / 3])
    assert curve.area == pytest.approx((0.25 * 0 + 0.25 * 0.5 + 0.25 * (1 + 11 / 3) / 2) / 0.75)
    assert curve.naive_mae == pytest.approx((12 + 0 + 18) / 3)
    assert curve.at(0.5) == (pytest.approx(0.5), pytest.approx(1)) and curve.at(0.91)[0] == 0
    assert curve.at_coverage(0.5) == pytest.approx(1) and np.isnan(curve.at_coverage(0.9))
    assert "coverage 75%" in repr(curve)


def test_the_operating_point_is_drawn_and_named():
    curve = coverage_error_curve([60, 70, 99, 80], [60, 72, 90, 80], [0.9, 0.5, 0.1, 0.95])
    named = [text.get_text() for text in curve.show(threshold=0.5).get_legend().get_texts()]
    assert "quality 0.5: 0.67 at 75%" in named  # errors 0, 0 and 2
    assert len(curve.show(threshold=2).lines) == len(curve.show().lines) == 2  # no window is so good: no point


@QUICK
@given(windows=WINDOWS, threshold=st.floats(0, 1))
def test_operating_point_is_what_answering_gives(windows, threshold):
    measured, reference, _, quality = map(np.array, zip(*windows))
    curve = coverage_error_curve(measured, reference, quality)
    share, error = curve.at(threshold)
    answered = quality >= threshold
    assert share == pytest.approx(answered.mean())
    assert error == pytest.approx(np.abs(measured - reference)[answered].mean() if answered.any() else NAN, nan_ok=True)
    assert curve.mae.min() - 1e-9 <= curve.area <= curve.mae.max() + 1e-9
    assert curve.at_coverage(1) == pytest.approx(np.abs(measured - reference).mean())
