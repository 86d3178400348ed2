"""Reports of cases: outlines in the scan's own frame, sizes, probabilities, what is withheld, and saved pairs.

The networks here are thresholds on grey values, so that every expected answer is known without training.
"""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from medkit.errors import REASONS, MedkitError, ModelError
from medkit.imaging import Mask, Volume, Window, axial_affine, read_series, write_series
from medkit.imaging.geometry import Fault
from medkit.learning.cases import (
    CaseReport, Field, Outliner, TwoStage, _calibrate, _drawn_labels, fit_outliner, load_two_stage, longest_diameter, predict_case,
    save_two_stage,
)
from medkit.learning.learner import classification_learner, segmentation_learner
from medkit.learning.loaders import slice_loaders
from medkit.learning.saving import load_learner, save_learner
from medkit.learning.split import Split

torch.set_num_threads(1)
ORGAN, TUMOUR = (20.0, -10.0, 5.0), (32.0, -14.0, 12.0)  # centres, LPS mm
GREY = Window(80, 160)
NAMES = {0: "background", 1: "pancreas", 2: "tumour"}


class Bands(nn.Module):
    "Organ above 80 HU, tumour above 130 HU."

    def __init__(self, classes: int = 2):
        super().__init__()
        self.settings = {"classes": classes}
        self.steep = nn.Parameter(torch.tensor(40.0))

    def forward(self, pictures):
        bands = [torch.zeros_like(pictures[:, 0])]
        for edge in (80, 130)[:self.settings["classes"] - 1]:
            bands.append(bands[-1] + self.steep * (pictures[:, 0] - edge / 160))
        return torch.stack(bands, 1)


def draw(affine, shape, radius_mm=9.0, key="sim-1", organ_hu=100.0, tumour=True) -> tuple[Volume, Mask]:
    "A round body with a round organ and a round tumour in it, computed at each voxel's place in the patient."
    where = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    apart = lambda center: np.linalg.norm(where - center, axis=-1)  # noqa: E731
    hu = np.where(np.hypot(where[..., 0], where[..., 1]) < 110, 40.0, -1000.0)
    organ, lump = apart(ORGAN) < 30, (apart(TUMOUR) < radius_mm) & tumour
    hu[organ], hu[lump] = organ_hu, 160.0
    labels = np.where(lump, 2, organ).astype(np.uint8)
    spacing = tuple(np.linalg.norm(affine[:3, :3], axis=0))
    return Volume(hu.astype(np.int16), affine, spacing, patient_key=key), Mask(labels, NAMES, affine, spacing, key)


def upright(spacing=(3.0, 2.0, 2.0), shape=(40, 120, 120)) -> np.ndarray:
    return axial_affine(spacing, [-(n - 1) / 2 * mm for n, mm in zip(shape[::-1], spacing[::-1])])


def turned(affine, shape, degrees) -> np.ndarray:
    "The same grid, turned about all three axes round its middle."
    a, b, c = np.radians(degrees)
    about = [np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]),
             np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]),
             np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])]
    matrix = np.eye(4)
    matrix[:3, :3] = about[0] @ about[1] @ about[2]
    return matrix @ affine


SHAPE = (40, 120, 120)
STRAIGHT = upright()
FLIPPED = STRAIGHT @ np.array([[-1, 0, 0, 39], [0, -1, 0, 119], [0, 0, -1, 119], [0, 0, 0, 1.0]])
SAGITTAL = (STRAIGHT[:, [2, 0, 1, 3]], (120, 40, 120))  # slices towards the left, rows towards the head
FRAMES = {
    "straight": (STRAIGHT, SHAPE), "flipped": (FLIPPED, SHAPE), "sagittal": SAGITTAL,
    "oblique": (turned(STRAIGHT, SHAPE, (8, -6, 12)), SHAPE),
    "fine": (upright((2.0, 1.1, 1.1), (60, 210, 210)), (60, 210, 210)),
    "coarse": (upright((4.0, 3.0, 3.0), (30, 80, 80)), (30, 80, 80)),
}


@pytest.fixture(scope="module")
def stages():
    cases = [draw(STRAIGHT, SHAPE, key=f"sim-{number}") for number in (1, 2)]
    split = Split(("sim-1", "sim-2"), np.array([0]), np.array([1]), np.array([], int))
    make = lambda field, classes: Outliner(segmentation_learner(slice_loaders(  # noqa: E731
        [(field.cut(volume), field.cut(mask)) for volume, mask in cases], split, window=GREY, classes=classes),
        Bands(len(classes) + 1)), field)
    return (make(Field((3, 6, 6), (48, 48)), {"pancreas": ["pancreas", "tumour"]}),
            make(Field((3, 2, 2), (64, 64)), {"pancreas": ["pancreas"], "tumour": ["tumour"]}))


@pytest.fixture(scope="module")
def patients():
    rng = np.random.default_rng(0)
    return [draw(STRAIGHT, SHAPE, rng.uniform(6, 12), f"sim-{number}", rng.uniform(95, 105), number % 2 == 0) for number in range(12)]


@pytest.fixture(scope="module")
def model(stages, patients):
    return TwoStage(*stages).calibrated(patients, "twelve round patients")


@pytest.mark.parametrize("name", FRAMES)
def test_report_lies_in_the_frame_of_the_scan(model, name):
    scan, truth = draw(*FRAMES[name])
    report = predict_case(scan, model)
    assert report.mask.shape == scan.shape and np.allclose(report.mask.affine, scan.affine)
    middle = np.argwhere(report.mask.labels == 2).mean(0) @ scan.affine[:3, :3].T + scan.affine[:3, 3]
    assert np.linalg.norm(middle - TUMOUR) < 1.2
    for label in ("pancreas", "tumour"):
        assert report.volumes_ml[label] == pytest.approx(truth.volume_ml(label), rel=0.12)
    assert report.diameter.mm == pytest.approx(18, abs=2.2)
    assert report.withheld == () and report.probability > 0.8


@pytest.mark.parametrize("name", FRAMES)
def test_deciding_slices_are_axial_slices_of_the_scan(model, name):
    scan, _ = draw(*FRAMES[name])
    report = predict_case(scan, model)
    axis = {"sagittal": 1}.get(name, 0)
    way = np.linalg.inv(scan.affine)[axis] @ (*TUMOUR, 1)
    step = scan.spacing_mm[axis]
    assert len(report.slices) == 3
    assert all(abs(index - way) * step < 9 + step for index, _ in report.slices)
    assert abs(report.diameter.slice_index - way) * step < 5 + step
    scores = [score for _, score in report.slices]
    assert scores == sorted(scores, reverse=True) and 0 <= scores[-1] and scores[0] <= 1


def test_a_grid_of_the_same_spacing_copies_and_does_not_blur():
    scan, truth = draw(STRAIGHT, SHAPE)
    field = Field((3, 2, 2), (64, 64))
    cut = field.cut(scan, (20.7, -10.2, 5.1), 30)
    first = np.rint((np.linalg.inv(scan.affine) @ cut.affine[:, 3])[:3]).astype(int)
    part = tuple(slice(a, a + n) for a, n in zip(first, cut.shape))
    assert np.array_equal(cut.voxels, scan.voxels[part])
    assert np.array_equal(field.cut(truth, (20.7, -10.2, 5.1), 30).labels, truth.labels[part])


def test_read_series_and_predict(model, tmp_path):
    scan, _ = draw(STRAIGHT, SHAPE)
    write_series(scan, tmp_path)
    fresh = read_series(tmp_path)
    ours, theirs = predict_case(scan, model), predict_case(fresh, model)
    assert theirs.volumes_ml == pytest.approx(ours.volumes_ml) and theirs.probability == pytest.approx(ours.probability)


def broken(scan):
    voxels = scan.voxels.astype(np.float32)
    voxels[5, 60, 60] = np.nan
    return replace(scan, voxels=voxels)


WITHHELD = {
    "not numbers": broken,
    "Hounsfield": lambda scan: replace(scan, voxels=(scan.voxels.clip(-160, 240) + 160).astype(np.uint8)),
    "Hounsfield units": lambda scan: replace(scan, unit=""),
    "not found": lambda scan: replace(scan, voxels=np.where(scan.voxels > 50, 60, scan.voxels)),
    "first or last slice": lambda scan: replace(scan, voxels=scan.voxels[:22]),
    "edge of the slices": lambda scan: draw(STRAIGHT @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 70], [0, 0, 0, 1.0]]), (40, 120, 50))[0],
    "HU": lambda scan: replace(scan, voxels=np.where(scan.voxels > 80, scan.voxels + 50, scan.voxels)),
    "ml": lambda scan: replace(scan, voxels=np.where((scan.voxels > -500), 100, scan.voxels)),
    "apart": lambda scan: draw(upright((7.0, 2.0, 2.0), (17, 120, 120)), (17, 120, 120))[0],
    "pixels measure": lambda scan: draw(upright((3.0, 5.0, 5.0), (40, 50, 50)), (40, 50, 50))[0],
    "unevenly": lambda scan: replace(scan, faults=(Fault("missing_slices", "a gap.", (3,), 6.0),)),
}


@pytest.mark.parametrize("why", WITHHELD)
def test_withheld_with_a_reason_and_without_a_probability(model, why):
    report = predict_case(WITHHELD[why](draw(STRAIGHT, SHAPE)[0]), model)
    assert report.probability is None and any(why in word for word in report.withheld), report.withheld
    assert "withheld" in repr(report) and "withheld" in report._repr_html_()
    assert json.loads(json.dumps(report.as_dict()))["probability"] is None


def test_no_probability_without_calibration_or_from_a_single_outliner(stages):
    scan, truth = draw(STRAIGHT, SHAPE)
    assert "not calibrated" in predict_case(scan, TwoStage(*stages)).withheld[0]
    alone = predict_case(scan, stages[1])
    assert alone.probability is None and alone.withheld and alone.target == "" and alone.diameter is None
    assert alone.volumes_ml["tumour"] == pytest.approx(truth.volume_ml("tumour"), rel=0.1)


def test_a_level_draws_the_largest_piece_that_reaches_it(stages):
    chances = np.full((1, 3, 4, 6), 0.1)  # background, pancreas, tumour
    chances[:, 1], chances[0, 2, 1:3, 1:3], chances[0, 2, 0, 5] = 0.5, 0.25, 0.45
    seen = Volume(np.zeros((1, 4, 6), np.float32), axial_affine((1, 1, 1)), (1, 1, 1))
    drawn = {level: _drawn_labels(TwoStage(*stages, level=level), chances, seen).labels == 2 for level in (None, 0.2, 0.4, 0.6)}
    assert [int(one.sum()) for one in drawn.values()] == [0, 4, 1, 0] and drawn[0.2][0, 1:3, 1:3].all()


def test_a_learner_alone_knows_its_grid_even_after_saving(stages, tmp_path):
    learn, (scan, _) = stages[1].learn, draw(STRAIGHT, SHAPE)
    before = predict_case(scan, learn)
    again = load_learner(save_learner(learn, tmp_path / "one"), {"Bands": Bands})
    assert np.array_equal(before.mask.labels, predict_case(scan, again).mask.labels) and before.volumes_ml["pancreas"] > 10
    again.learnt = {}
    with pytest.raises(ModelError, match="the grid must be said"):
        predict_case(scan, again)


@pytest.mark.parametrize("volume", [None, 3, np.zeros((4, 4, 4)), "scan"])
def test_what_is_no_scan_is_refused(model, volume):
    with pytest.raises(ModelError, match="bad_option"):
        predict_case(volume, model)
    with pytest.raises(ModelError, match="bad_option"):
        predict_case(draw(STRAIGHT, SHAPE)[0], volume)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 20, 20), (2, 3, 200), (40, 8, 8)])
def test_odd_shapes_give_a_report_or_a_refusal(model, shape):
    scan = Volume(np.linspace(-1000, 400, int(np.prod(shape))).reshape(shape).astype(np.int16), upright(shape=shape), (3, 2, 2))
    try:
        report = predict_case(scan, model)
    except MedkitError as error:
        assert error.reason in REASONS
    else:
        assert report.probability is None and report.withheld


def test_probability_keeps_the_order_of_scores_and_never_says_never(model, patients):
    reports = [predict_case(volume, model) for volume, _ in patients]
    order = np.argsort([report.score for report in reports])
    assert (np.diff([reports[index].probability for index in order]) >= 0).all()
    assert all(0.01 < report.probability < 0.99 for report in reports)  # twelve patients are no certainty
    assert [report.probability > 0.5 for report in reports] == [(mask.labels == 2).any() for _, mask in patients]
    assert "12 patients, 6 of them positive (twelve round patients)" in reports[0].calibrated_on


def test_patients_without_an_organ_are_left_out_of_the_calibration(stages, patients):
    blank = [(replace(volume, voxels=np.where(volume.voxels > 50, 40, volume.voxels)), mask) for volume, mask in patients[:1]]
    assert _calibrate(TwoStage(*stages), [*patients, *blank], "").calibration.patients == len(patients)
    with pytest.raises(ModelError, match="too_few_patients"):
        _calibrate(TwoStage(*stages), [*patients[:9], *blank], "")


@pytest.mark.parametrize("spacing", [(3.0, 2.0, 2.0), (5.0, 0.8, 0.8), (4.0, 1.0, 2.0)])
@pytest.mark.parametrize("diameter", [8.0, 21.0, 40.0])
def test_diameter_of_spheres(spacing, diameter):
    shape = tuple(int(60 / step) for step in spacing)
    errors = []
    for seed in range(6):
        affine = axial_affine(spacing, np.random.default_rng(seed).uniform(-1, 1, 3) - 30)
        where = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
        mask = Mask((np.linalg.norm(where, axis=-1) < diameter / 2).astype(np.uint8), {0: "background", 1: "tumour"}, affine, spacing)
        errors.append(longest_diameter(mask, "tumour").mm - diameter)
    assert abs(np.mean(errors)) < 0.35 * max(spacing[1:]) + 0.3


def test_diameter_is_axial_and_of_the_largest_piece():
    labels = np.zeros((30, 40, 40), np.uint8)
    labels[2:28, 10:13, 10:13] = 1  # tall, but thin in every axial slice
    labels[5, 30, 5:35:29] = 1  # two specks far apart
    found = longest_diameter(Mask(labels, {0: "background", 1: "tumour"}, axial_affine((1, 1, 1)), (1, 1, 1)), "tumour")
    assert found.mm == pytest.approx(np.hypot(2, 2) + 0.25)


def test_report_survives_json(model):
    report = predict_case(draw(STRAIGHT, SHAPE)[0], model)
    again = CaseReport.from_dict(json.loads(json.dumps(report.as_dict(), allow_nan=False)))
    assert again.as_dict() == report.as_dict() and again.diameter == report.diameter and repr(again) == repr(report)
    for record in (None, 3, {}, {**report.as_dict(), "more": 1}, {**report.as_dict(), "slices": 4}):
        with pytest.raises(ModelError, match="bad_record"):
            CaseReport.from_dict(record)


def test_card_escapes_the_name_of_the_patient(model):
    scan = replace(draw(STRAIGHT, SHAPE)[0], patient_key="<script>alert(1)</script>")
    assert "<script>" not in predict_case(scan, model)._repr_html_()


def test_saved_pair_answers_alike(model, tmp_path):
    scan, _ = draw(*FRAMES["oblique"])
    again = load_two_stage(save_two_stage(model, tmp_path / "pair"), networks={"Bands": Bands})
    ours, theirs = predict_case(scan, model), predict_case(scan, again)
    assert theirs.as_dict() == ours.as_dict() and np.array_equal(theirs.mask.labels, ours.mask.labels)
    assert again.ground == model.ground
    assert load_two_stage(save_two_stage(replace(model, ground=None), tmp_path / "bare"), networks={"Bands": Bands}).ground is None


def test_changed_pairs_are_refused(model, tmp_path):
    good = save_two_stage(model, tmp_path / "pair")
    rng = np.random.default_rng(0)
    for number in range(24):
        bad = shutil.copytree(good, tmp_path / f"bad-{number}")
        files = sorted(path for path in bad.rglob("*") if path.is_file())
        path = files[number % len(files)]
        content = bytearray(path.read_bytes())
        if number % 3:
            content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        else:
            del content[len(content) // 2:]
        path.write_bytes(bytes(content))
        with pytest.raises(ModelError) as caught:
            load_two_stage(bad, networks={"Bands": Bands})
        assert caught.value.reason in ("bad_model_file", "unknown_architecture", "not_found")


def test_stages_of_two_models_are_not_mixed(model, stages, tmp_path):
    good = save_two_stage(model, tmp_path / "pair")
    shutil.rmtree(good / "tumour")
    shutil.copytree(good / "organ", good / "tumour")
    with pytest.raises(ModelError, match="bad_model_file"):
        load_two_stage(good, networks={"Bands": Bands})
    with pytest.raises(ModelError, match="not_found"):
        load_two_stage(tmp_path / "nowhere")


def test_outliners_need_a_segmentation_learner_and_a_field(stages):
    cases = [(draw(STRAIGHT, SHAPE, key=f"sim-{number}")[0], number) for number in (0, 1)]
    split = Split(("sim-0", "sim-1"), np.array([0]), np.array([1]), np.array([], int))
    wrong = classification_learner(slice_loaders(cases, split, window=GREY, classes=("no", "yes")))
    for learn, field in ((wrong, stages[0].field), (stages[0].learn, None), (None, stages[0].field)):
        with pytest.raises(ModelError, match="bad_option"):
            Outliner(learn, field)
    with pytest.raises(ModelError, match="bad_option"):
        TwoStage(stages[0], stages[1], target="cyst")


@pytest.mark.parametrize("spacing, shape", [((1, 2), (3, 4)), ((0, 1, 1), (8, 8)), ((1, 1, 1), (8.5, 8)), (None, (8, 8)),
                                            ((1, 1, 1), 8), ((np.nan, 1, 1), (8, 8)), ("abc", "de")])
def test_fields_that_mean_nothing_are_refused(spacing, shape):
    with pytest.raises(ModelError, match="bad_option"):
        Field(spacing, shape)


def test_fit_outliner_learns_what_a_threshold_can_tell(patients):
    split = Split([volume.patient_key for volume, _ in patients], train=range(8), valid=range(8, 12), test=[])
    fitted = fit_outliner(patients, split, Field((3, 4, 4), (32, 32)), {"pancreas": ["pancreas", "tumour"]}, window=GREY,
                          around=("pancreas", "tumour"), epochs=4, quiet=True)
    drawn, truth = fitted.outline(patients[9][0]).labels > 0, patients[9][1].labels > 0
    assert 2 * (drawn & truth).sum() / (drawn.sum() + truth.sum()) > 0.85
