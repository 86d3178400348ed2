"""Splits, scores and intervals, against closed forms, scikit-learn and hostile input."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta
from sklearn.metrics import roc_auc_score

from medkit.errors import MedkitError, ModelError
from medkit.learning.metrics import auroc, dice, iou
from medkit.learning.report import Metric, Scores, bootstrap_by_patient, exact_bound
from medkit.learning.split import Split, check_leakage, patient_split


def test_report_loads_neither_torch_nor_fastai():
    code = ("import sys, medkit.learning.report, medkit.learning.split, medkit.learning, medkit.models; "
            "print([m for m in ('torch', 'fastai', 'onnxruntime') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("patients", [30, 100])
def test_interval_of_a_mean_agrees_with_the_formula(seed, patients):
    values = np.random.default_rng(seed).normal(0.8, 0.1, patients)
    low, high = bootstrap_by_patient(values, seed=seed)
    error = values.std() / np.sqrt(patients)
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.25 * error)


def test_interval_covers_as_often_as_it_says():
    draw = np.random.default_rng(0)
    inside = 0
    for seed in range(200):
        low, high = bootstrap_by_patient(draw.normal(0.5, 0.2, 40), seed=seed, rounds=500)
        inside += low <= 0.5 <= high
    assert 0.88 <= inside / 200 <= 0.99


def test_patients_not_slices_set_the_width():
    "Copying each patient's slices tenfold must not narrow the interval: only the mean of a patient enters."
    values = np.random.default_rng(0).normal(0.8, 0.1, 20)
    by_patient = bootstrap_by_patient(values, seed=0)
    by_slice = bootstrap_by_patient(np.repeat(values, 10), seed=0)
    assert by_patient[1] - by_patient[0] > 2 * (by_slice[1] - by_slice[0])


def test_any_statistic_and_draws_without_value():
    table = np.column_stack([[0] * 38 + [1] * 2, np.linspace(0, 1, 40)])  # draws without a positive happen and are redrawn
    score = lambda rows: auroc(rows[:, 0], rows[:, 1]) if 0 < rows[:, 0].sum() < len(rows) else float("nan")  # noqa: E731
    assert bootstrap_by_patient(table, score, seed=0, rounds=200)[1] == 1
    with pytest.raises(ModelError, match="one_class"):
        bootstrap_by_patient(np.ones(5), lambda rows: float("nan"), seed=0)


@pytest.mark.parametrize("patients", [1, 5, 30, 200])
def test_exact_bound_is_clopper_and_pearson(patients):
    assert exact_bound(patients) == pytest.approx(beta.ppf(0.025, patients, 1))


@pytest.mark.parametrize("odd", [[], [1.0], [[1.0]], ["a", "b"], None, [np.nan, 1], [np.inf, 1], np.zeros((2, 2, 2)), 3, [[1], [1, 2]]])
def test_odd_values_are_a_medkit_error(odd):
    with pytest.raises(MedkitError):
        bootstrap_by_patient(odd, seed=0)


scores_of_patients = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5, 0.75, 1.0])), min_size=2, max_size=60
).filter(lambda rows: len({positive for positive, _ in rows}) == 2)


@settings(max_examples=200, deadline=None)
@given(scores_of_patients)
def test_auroc_agrees_with_scikit_learn_ties_included(rows):
    positive, scores = (np.array(column) for column in zip(*rows))
    assert auroc(positive, scores) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    assert auroc(positive, scores) + auroc(positive, -scores) == pytest.approx(1)


@pytest.mark.parametrize("odd", [([1, 1], [0, 1]), ([0, 1], [np.nan, 1]), ([0, 1, 1], [0, 1]), ([0, 2], [0, 1]), ([], [])])
def test_auroc_refuses(odd):
    with pytest.raises(MedkitError):
        auroc(*map(np.array, odd))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_overlap_is_symmetric_and_bounded(rows):
    first, second = (np.array(column) for column in zip(*rows))
    if (first | second).any():
        assert dice(first, second) == dice(second, first) and 0 <= iou(first, second) <= dice(first, second) <= 1
    else:
        assert np.isnan(dice(first, second)) and np.isnan(iou(first, second))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=5, max_size=80).filter(lambda p: len(set(p)) >= 5), st.integers(0, 1000))
def test_split_never_shares_a_patient_and_loses_no_case(patients, seed):
    split = patient_split(patients, seed=seed)
    assert sorted(np.concatenate([split.train, split.valid, split.test])) == list(range(len(patients)))
    check_leakage({part: split.patients_of(part) for part in ("train", "valid", "test")})
    assert len(split.train) and len(split.valid) and len(split.test)


def test_split_is_the_same_everywhere():
    "The order is a hash, so a pinned value guards against a change that would move patients between parts."
    split = patient_split([f"p{n}" for n in range(10)], seed=0)
    assert split.patients_of("test") == patient_split([f"p{n}" for n in reversed(range(10))], seed=0).patients_of("test")
    assert len(split.patients_of("test")) == 2


def test_stratified_split_keeps_rare_patients_in_every_part():
    labels = [int(n % 10 == 0) for n in range(100)]
    split = patient_split(range(100), seed=3, labels=labels)
    assert [sum(labels[case] for case in part) for part in (split.train, split.valid, split.test)] == [6, 2, 2]


@pytest.mark.parametrize("patients", [[], ["a"], ["a", "b"], ["a", None, "c", "d"], ["", "b", "c", "d"], [float("nan"), 1, 2, 3], ["  ", "b"]])
def test_split_refuses(patients):
    with pytest.raises(MedkitError):
        patient_split(patients, seed=0)


@pytest.mark.parametrize("shares", [{"valid": -0.1}, {"test": 1.0}, {"valid": 0.5, "test": 0.5}, {"valid": float("nan")}])
def test_split_refuses_shares(shares):
    with pytest.raises(MedkitError):
        patient_split(range(20), seed=0, **shares)


def test_a_split_with_a_leak_cannot_be_made():
    with pytest.raises(ModelError) as caught:
        Split(("anna", "anna", "bert"), np.array([0]), np.array([2]), np.array([1]))
    assert caught.value.reason == "patient_overlap" and "anna" in caught.value.found


def test_scores_escape_and_round_trip():
    scores = Scores((Metric("<script>", 0.5, 0.4, 0.6, 0.3, "<i>", 9),), 9, ("<b>note</b>",))
    page = scores._repr_html_()
    assert "<script>" not in page and "<i>" not in page and "<b>note" not in page
    assert Scores.from_dict(scores.as_dict()) == scores


@pytest.mark.parametrize("odd", [{}, None, [], {"metrics": 3, "patients": 1, "notes": []}, {"metrics": [{}], "patients": 1, "notes": []}])
def test_scores_refuse_odd_records(odd):
    with pytest.raises(MedkitError):
        Scores.from_dict(odd)


def test_a_unit_is_kept_and_older_records_have_none():
    error = Metric("hd95", 4.0, 3.0, 6.0, 20.0, "ruler", 9, higher_is_better=False, unit="mm")
    scores = Scores((error, Metric("dice", 0.8, 0.7, 0.9, 0.1, "ruler", 9)), 9)
    assert Scores.from_dict(scores.as_dict()) == scores and "hd95 (mm)" in str(scores) and "hd95 (mm)" in scores._repr_html_()
    older = scores.as_dict()
    for row in older["metrics"]:
        del row["unit"]
    assert Scores.from_dict(older)["hd95"].unit == ""
    assert [len(scores.show(unit=unit).get_yticks()) for unit in ("mm", "")] == [1, 1]
