"""Scores over patients: the table, its metrics with naive guesses, and subgroups, on outlines and answers that are known."""

import json
from copy import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from medkit.errors import MedkitError, ModelError
from medkit.imaging import Mask, Volume, Window
from medkit.learning.learner import classification_learner, segmentation_learner
from medkit.learning.loaders import slice_loaders
from medkit.learning.report import Scores
from medkit.learning.saving import load_learner, save_learner
from medkit.learning.scoring import evaluate, patient_table, predict, subgroups
from medkit.learning.split import Split
from medkit.learning.view import View

torch.set_num_threads(1)
SPACING = (5.0, 1.0, 2.0)


def box_case(number: int, shift: int = 0, empty: bool = False, corner: int = 0) -> tuple:
    "A patient with a bright box as organ; what the network will draw is 100 HU and more."
    voxels, labels = np.zeros((4, 24, 24), np.int16), np.zeros((4, 24, 24), np.uint8)
    if not empty:
        labels[1:3, 6:14, 8:16] = 1
        voxels[1:3, 6:14, 8 + shift:16 + shift] = 200
    voxels[1, 0, 0] = corner
    affine = np.diag([1.0, 1, 1, 1])
    affine[:3, :3] = [[0, 0, 2], [0, 1, 0], [5, 0, 0]]  # slices along z, rows along y, columns along x
    volume = Volume(voxels, affine, SPACING, patient_key=f"p{number}")
    return volume, Mask(labels, {1: "organ"}, affine, SPACING, f"p{number}"), {"hospital": "AB"[number % 2], "size_mm": 5.0 * number}


class Bright(nn.Module):
    "Draws what is bright."

    def forward(self, pictures):
        return torch.cat([0.5 - pictures, pictures - 0.5], 1) * 20


@pytest.fixture(scope="module")
def dls():
    cases = [box_case(number, shift=number % 3, empty=number == 9) for number in range(12)]
    split = Split([volume.patient_key for volume, *_ in cases], train=[0], valid=[1], test=range(2, 12))
    return slice_loaders(cases, split, window=Window(100, 200), classes={"organ": ["organ"]})


@pytest.fixture(scope="module")
def learn(dls):
    learn = segmentation_learner(dls, width=2, depth=1)
    learn.model = Bright()
    return learn


def test_outlines_score_what_they_must(learn, dls):
    table = patient_table(learn, dls.test, tolerance_mm=1, lesions="organ").set_index("patient")
    for patient, row in table.drop(index="p9").iterrows():
        shift = int(patient[1:]) % 3
        assert row["dice organ"] == pytest.approx((8 - shift) / 8)
        assert row["hd95 organ"] == pytest.approx(2 * shift)
        assert row["ml organ"] == row["ml drawn organ"] == 128 * 10 / 1000 and row["volume error organ"] == 0
        assert (row["lesions organ"], row["lesions found organ"], row["false positives organ"]) == (1, 1, 0)
    assert table.loc["p9", ["dice organ", "hd95 organ", "surface dice organ"]].isna().all()
    assert table["hospital"].tolist() == ["AB"[int(patient[1:]) % 2] for patient in table.index]


def test_scores_are_means_of_the_table(learn, dls):
    table = patient_table(learn, dls.test, tolerance_mm=1)
    scores = evaluate(learn, dls.test, tolerance_mm=1, lesions=["organ"])
    for name in ("dice organ", "iou organ", "hd95 organ", "surface dice organ", "volume error organ"):
        assert scores[name].value == pytest.approx(table[name].mean())
    assert scores["dice organ"].patients == 9 and scores["volume error organ"].patients == 10
    assert any("1 patients without it" in note for note in scores.notes)
    assert scores["lesion sensitivity organ"].value == 1 and scores["false positives a patient organ"].value == 0
    assert scores["hd95 organ"].unit == "mm" and not scores["hd95 organ"].higher_is_better
    assert Scores.from_dict(json.loads(json.dumps(scores.as_dict()))) == scores


def test_a_saved_learner_remembers_whom_it_learnt_from(dls, tmp_path):
    first = segmentation_learner(dls, width=2, depth=1)
    again = load_learner(save_learner(first, tmp_path / "one"))
    assert evaluate(again, dls.test)["dice organ"].value == evaluate(first, dls.test)["dice organ"].value
    later = load_learner(save_learner(again, tmp_path / "two"))  # saved again without its loaders
    for one in (again, later):
        with pytest.raises(ModelError, match="before it was saved"):
            evaluate(one, dls.train)
    assert '"p0"' not in (tmp_path / "two" / "model.json").read_text()


def test_slices_through_another_window_are_refused(learn, dls):
    other = copy(dls.test.dataset)
    other.view = View(Window(-600, 1500))
    for ask in (predict, evaluate):
        with pytest.raises(ModelError, match="not seen as the network learnt"):
            ask(learn, other)


def test_a_missed_organ_costs_the_diagonal(learn, dls):
    class Blind(Bright):
        def forward(self, pictures):
            return super().forward(torch.zeros_like(pictures))

    scores = evaluate(learn, dls.test, tolerance_mm=1, network=Blind())
    assert scores["dice organ"].value == scores["surface dice organ"].value == 0
    assert scores["hd95 organ"].value == pytest.approx(np.linalg.norm(np.array((4, 24, 24)) * SPACING))
    assert any("diagonal" in note for note in scores.notes)


def test_the_naive_guess_is_scored_alike(learn, dls):
    answers = iter(dls.test.dataset.answers)
    scores = evaluate(learn, dls.test, tolerance_mm=1, naive=lambda grey: next(answers).numpy())
    assert scores["dice organ"].naive == 1 and scores["hd95 organ"].naive == 0 and not scores.beats_naive("dice organ")
    assert evaluate(learn, dls.test)["dice organ"].naive == pytest.approx(evaluate(learn, dls.test)["dice organ"].value)  # the band is the network


def test_subgroups_split_by_tag_and_by_band(learn, dls):
    table = patient_table(learn, dls.test)
    by_name = subgroups(table, "dice organ", "hospital").table
    assert by_name["group"].tolist() == ["all", "A", "B"] and by_name["patients"].tolist() == [9, 5, 4]
    assert by_name["note"].tolist() == ["", "", "too few patients for an interval"]
    expected = table[table.hospital == "A"]["dice organ"]
    assert by_name["value"][1] == pytest.approx(expected.mean()) and by_name["low"][1] < expected.mean() < by_name["high"][1]
    bands = subgroups(table, "dice organ", "size_mm", bands=(0, 30, 60)).table
    assert bands["group"].tolist() == ["all", "0 to 30", "30 to 60"] and bands["patients"].tolist() == [9, 4, 5]
    thirds = subgroups(table, "volume error organ", "size_mm").table
    assert thirds["patients"][1:].sum() == 10
    with pytest.raises(ModelError, match="bad_option"):
        subgroups(table, "dice organ", "nowhere")
    html = subgroups(table.assign(hospital="<b>"), "dice organ", "hospital")._repr_html_()
    assert "<b>" not in html and "not for clinical use" in html


def test_a_patient_with_two_volumes_counts_once():
    table = pd.DataFrame({"patient": ["a", "a", "b"], "dice": [1.0, 0.0, 1.0], "site": "x"})
    assert subgroups(table, "dice", "site").table["patients"].tolist() == [2, 2]
    assert subgroups(table, "dice", "site").table["value"][0] == 0.75


@pytest.fixture(scope="module")
def finder():
    corners = [10 * number + 150 * (number % 3 == 0) for number in range(24)]  # what the network looks at
    cases = [(box_case(number, corner=corner)[0], int(number % 3 == 0)) for number, corner in enumerate(corners)]
    split = Split([volume.patient_key for volume, *_ in cases], train=[0, 1], valid=[2, 3], test=range(4, 24))
    dls = slice_loaders(cases, split, window=Window(200, 400), classes=("well", "ill"))
    learn = classification_learner(dls, width=2, depth=1)

    class Corner(nn.Module):
        def forward(self, pictures):
            return torch.stack([torch.zeros(len(pictures)), 6 * (pictures[:, 0, 0, 0] - 0.8)], 1)

    learn.model = Corner()
    return learn


def test_classes_agree_with_scikit_learn(finder):
    sklearn = pytest.importorskip("sklearn.metrics")
    table = patient_table(finder, finder.dls.test, pool="max")
    scores = evaluate(finder, finder.dls.test, pool="max", prevalence=0.01)
    truth, chances, called = table["truth"], table["score"], table["score"] >= 0.5
    assert scores["auroc"].value == pytest.approx(sklearn.roc_auc_score(truth, chances))
    assert scores["auprc"].value == pytest.approx(sklearn.average_precision_score(truth, chances))
    assert scores["auprc"].naive == pytest.approx(truth.mean())
    assert scores["brier score"].value == pytest.approx(sklearn.brier_score_loss(truth, chances))
    sensitivity, specificity = scores["sensitivity"].value, scores["specificity"].value
    assert sensitivity == pytest.approx(sklearn.recall_score(truth, called))
    ppv = 0.01 * sensitivity / (0.01 * sensitivity + 0.99 * (1 - specificity))
    assert scores["ppv"].value == pytest.approx(ppv) and scores["ppv"].naive == 0.01
    here = evaluate(finder, finder.dls.test, pool="max")
    assert here["ppv"].value == pytest.approx(sklearn.precision_score(truth, called))
    assert all(metric.low <= metric.value <= metric.high for metric in scores.metrics)


def test_a_calibration_moves_the_scores_but_not_their_order(finder):
    from medkit.learning.probability import fit_calibration

    table = patient_table(finder, finder.dls.test, pool="max")
    line = fit_calibration(table["truth"].to_numpy(), table["score"].to_numpy())
    plain, mended = (evaluate(finder, finder.dls.test, pool="max", calibration=c) for c in (None, line))
    assert mended["auroc"].value == plain["auroc"].value and mended["brier score"].value < plain["brier score"].value


@pytest.mark.parametrize("option", [{"pool": "median"}, {"prevalence": 2}, {"prevalence": -0.1}])
def test_odd_options_of_classes(finder, option):
    with pytest.raises(MedkitError):
        evaluate(finder, finder.dls.test, **option)


@pytest.mark.parametrize("option", [{"lesions": "liver"}, {"tolerance_mm": -1}, {"lesions": "organ", "min_iou": 3}])
def test_odd_options_of_outlines(learn, dls, option):
    with pytest.raises(MedkitError):
        evaluate(learn, dls.test, **option)


def test_prediction_leaves_the_network_as_it_was(learn, dls):
    learn.model.train()
    whole = predict(learn, dls.test)
    assert learn.model.training and torch.equal(whole, predict(learn, dls.test, batch_size=3))
    assert whole.shape == (40, 2, 24, 24)
