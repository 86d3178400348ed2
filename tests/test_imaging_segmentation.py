"DICOM SEG: real files beside other readers, files that highdicom writes, and files that lie."

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medkit.errors import ImageError, MedkitError
from medkit.imaging import Volume, axial_affine, check_same_frame, read_segmentation, read_series, write_series

DATA = Path(os.environ["MEDKIT_DATA"]) / "imaging" if "MEDKIT_DATA" in os.environ else None
real = pytest.mark.skipif(DATA is None, reason="MEDKIT_DATA is not set: real recordings are not here")


def source(folder, turn=None, count=6):
    "A written series, its volume and its data sets."
    volume = Volume(np.random.default_rng(0).integers(-100, 300, (count, 16, 12)).astype(np.int16), axial_affine((4, 1.5, 2), (-5, 8, 30)), (4, 1.5, 2))
    if turn is not None:
        affine = volume.affine.copy()
        affine[:3, :3] = turn @ affine[:3, :3]
        volume = replace(volume, affine=affine)
    paths = write_series(volume, folder)
    return read_series(folder), [pydicom.dcmread(path) for path in paths]


def by_highdicom(path, datasets, labels, kind="BINARY", names=("liver", "tumour"), **options):
    "A SEG file as highdicom writes it."
    seg = pytest.importorskip("highdicom.seg", reason="highdicom, the independent writer, is not installed")
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.sr import CodedConcept
    from pydicom.uid import generate_uid

    what = CodedConcept("85756007", "SCT", "Tissue")
    algorithm = AlgorithmIdentificationSequence("by hand", CodedConcept("123", "99X", "none"), "1")
    described = [seg.SegmentDescription(number, name, what, what, "AUTOMATIC", algorithm) for number, name in enumerate(names, 1)]
    made = seg.Segmentation(
        datasets, labels, kind, described, generate_uid(), 1, generate_uid(), 1, "medkit tests", "model", "1", "0", **options)
    made.save_as(path)
    return path


def two_segments(shape):
    labels = np.zeros(shape, np.uint8)
    labels[1:4, 2:10, 3:9] = 1
    labels[2:4, 4:7, 5:8] = 2
    return labels


TURN = np.array([[1, 0, 0], [0, np.cos(0.4), -np.sin(0.4)], [0, np.sin(0.4), np.cos(0.4)]])


@pytest.mark.parametrize("turn", [None, TURN], ids=["axial", "oblique"])
@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("empty", [True, False], ids=["sparse", "full"])
def test_what_highdicom_writes_is_read_in_place(tmp_path, kind, turn, empty):
    "Slices in the reverse order, empty frames left out or not; every label lies where it was drawn."
    volume, datasets = source(tmp_path / "series", turn)
    labels = two_segments(volume.shape)
    path = by_highdicom(tmp_path / "a.dcm", datasets[::-1], labels[::-1], kind, omit_empty_frames=empty)
    mask = read_segmentation(path, volume)
    check_same_frame(volume, mask)
    assert (mask.labels == labels).all() and mask.names == {1: "liver", 2: "tumour"}
    assert mask.volume_ml("tumour") == pytest.approx(18 * 12 / 1000)


def test_a_stack_stored_from_the_head_down_gets_the_same_labels(tmp_path):
    volume, datasets = source(tmp_path / "series")
    labels = two_segments(volume.shape)
    path = by_highdicom(tmp_path / "a.dcm", datasets, labels)
    upside = Volume(volume.voxels[::-1, ::-1], volume.affine @ np.array([[-1, 0, 0, 5], [0, -1, 0, 15], [0, 0, 1, 0], [0, 0, 0, 1]]), volume.spacing_mm)
    assert (read_segmentation(path, upside).labels == labels[::-1, ::-1]).all()
    sagittal = Volume(volume.voxels.transpose(2, 0, 1), volume.affine[:, [2, 0, 1, 3]], (2, 4, 1.5))
    assert (read_segmentation(path, sagittal).labels == labels.transpose(2, 0, 1)).all()


@pytest.mark.parametrize("threshold", [0.2, 0.5, 1.0])
def test_fractions_count_from_the_threshold(tmp_path, threshold):
    volume, datasets = source(tmp_path / "series")
    share = np.round(np.random.default_rng(1).random(volume.shape) * 255) / 255
    path = by_highdicom(tmp_path / "a.dcm", datasets, share[..., None].astype(np.float32), "FRACTIONAL", ("liver",), max_fractional_value=255)
    labels = read_segmentation(path, volume, threshold=threshold).labels
    assert (labels == (np.rint(share * 255) >= threshold * 255)).all()


def test_overlaps_are_named_chosen_or_settled(tmp_path):
    volume, datasets = source(tmp_path / "series")
    both = np.zeros((*volume.shape, 2), np.uint8)
    both[1:4, 2:10, 3:9, 0] = both[2, 4:7, 5:8, 1] = 1
    path = by_highdicom(tmp_path / "a.dcm", datasets, both)
    with pytest.raises(ImageError) as caught:
        read_segmentation(path, volume)
    assert caught.value.reason == "overlapping_labels" and "liver and tumour in 9 voxels" in str(caught.value)
    assert (read_segmentation(path, volume, segments=("liver",)).labels == both[..., 0]).all()
    assert (read_segmentation(path, volume, segments=2).labels == 2 * both[..., 1]).all()
    assert (read_segmentation(path, volume, on_overlap="last").labels == np.where(both[..., 1], 2, both[..., 0])).all()


def test_another_grid_is_refused(tmp_path):
    volume, datasets = source(tmp_path / "series")
    path = by_highdicom(tmp_path / "a.dcm", datasets, two_segments(volume.shape))
    moved = {"z": np.eye(4) + 0, "x": np.eye(4) + 0}
    moved["z"][0, 3], moved["x"][2, 3] = 0.5, 1
    for change in moved.values():
        with pytest.raises(ImageError, match="frame_mismatch"):
            read_segmentation(path, replace(volume, affine=volume.affine @ change))
    for part in (volume.voxels[:2], volume.voxels[:, :8], volume.voxels[:, :, :-1]):
        with pytest.raises(ImageError, match="frame_mismatch"):
            read_segmentation(path, Volume(part, volume.affine, volume.spacing_mm))
    with pytest.raises(ImageError, match="frame_mismatch"):
        read_segmentation(path, Volume(volume.voxels, volume.affine @ np.diag([1, 0.5, 0.5, 1]), (4, 0.75, 1)))


def test_a_segmentation_of_another_patient_is_refused(tmp_path):
    volume, datasets = source(tmp_path / "series")
    for one in datasets:
        one.PatientID = "p01"
    path = by_highdicom(tmp_path / "a.dcm", datasets, two_segments(volume.shape))
    mask = read_segmentation(path, replace(volume, patient_key="p01"))
    assert mask.patient_key == "p01" and read_segmentation(path, volume).patient_key == "p01"  # the series states none
    with pytest.raises(ImageError, match="two patients") as caught:
        read_segmentation(path, replace(volume, patient_key="p02"))
    assert caught.value.reason == "frame_mismatch" and "p01" not in str(caught.value)


def lie(path, change):
    one = pydicom.dcmread(path)
    change(one)
    one.save_as(path)
    return path


@pytest.mark.parametrize("change", [
    lambda one: setattr(one, "NumberOfFrames", 999), lambda one: setattr(one, "NumberOfFrames", 1), lambda one: delattr(one, "SegmentSequence"),
    lambda one: setattr(one.SegmentSequence[0], "SegmentNumber", 400), lambda one: delattr(one, "SharedFunctionalGroupsSequence"),
    lambda one: delattr(one, "PerFrameFunctionalGroupsSequence"), lambda one: setattr(one, "SegmentationType", "DRAWN"),
    lambda one: setattr(one, "Modality", "CT"), lambda one: setattr(one, "PixelData", one.PixelData[:20]),
    lambda one: delattr(one.PerFrameFunctionalGroupsSequence[1], "PlanePositionSequence"),
    lambda one: delattr(one.PerFrameFunctionalGroupsSequence[1], "SegmentIdentificationSequence"),
    lambda one: setattr(one.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0], "ImagePositionPatient", [1e300, 0, 0]),
    lambda one: setattr(one.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0], "ImageOrientationPatient", [0, 0, 0, 0, 0, 0]),
    lambda one: setattr(one, "Rows", 12),
], ids=lambda value: None)
def test_files_that_lie_are_refused(tmp_path, change):
    volume, datasets = source(tmp_path / "series")
    path = lie(by_highdicom(tmp_path / "a.dcm", datasets, two_segments(volume.shape)), change)
    try:
        mask = read_segmentation(path, volume)
    except MedkitError as error:
        assert error.found is not None and error.expected is not None
    else:
        assert pydicom.dcmread(path).NumberOfFrames == 1 and mask.labels.any()  # fewer frames than there are is no contradiction


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.integers(132, 6000), st.integers(0, 255)), max_size=6), st.integers(0, 7000))
def test_mutants_give_a_mask_or_a_named_error(tmp_path_factory, changes, length):
    folder = tmp_path_factory.getbasetemp() / "mutants"
    if not folder.exists():
        folder.mkdir()
        volume, datasets = source(folder / "series")
        by_highdicom(folder / "a.dcm", datasets, two_segments(volume.shape))
    volume, data = read_series(folder / "series"), bytearray((folder / "a.dcm").read_bytes())
    for at, value in changes:
        data[at % len(data)] = value
    (folder / "mutant.dcm").write_bytes(data[:length] if length < 6000 else data)
    try:
        assert read_segmentation(folder / "mutant.dcm", volume, on_overlap="last").shape == volume.shape
    except MedkitError:
        pass


@real
def test_real_segmentation_is_what_the_nrrd_holds():
    sitk = pytest.importorskip("SimpleITK")
    volume = read_series(DATA / "dcmqi")
    mask = read_segmentation(DATA / "dcmqi" / "liver.dcm", volume)
    image = sitk.ReadImage(str(DATA / "dcmqi" / "liver_seg.nrrd"))
    other = sitk.GetArrayFromImage(image)
    assert mask.names == {1: "Liver"} and (mask.labels > 0).sum() == (other > 0).sum() == 107098
    for index in np.argwhere(mask.labels)[::5003]:
        place = tuple(float(value) for value in (volume.affine @ (*index, 1))[:3])
        assert image[image.TransformPhysicalPointToIndex(place)] > 0
    assert 30 < np.median(volume.voxels[mask.labels > 0]) < 160


@real
def test_real_overlaps_agree_with_highdicom():
    seg = pytest.importorskip("highdicom.seg")
    volume, path = read_series(DATA / "dcmqi"), DATA / "dcmqi" / "partial_overlaps.dcm"
    with pytest.raises(ImageError, match="overlapping_labels"):
        read_segmentation(path, volume)
    other = seg.segread(path)
    frames = {}
    for frame, group in zip(other.pixel_array, other.PerFrameFunctionalGroupsSequence):
        at = (group.SegmentIdentificationSequence[0].ReferencedSegmentNumber, round(float(group.PlanePositionSequence[0].ImagePositionPatient[2]), 2))
        frames[at] = frame
    for number in range(1, 6):
        mask = read_segmentation(path, volume, segments=number)
        for index in range(3):
            height = round(float((volume.affine @ (index, 0, 0, 1))[2]), 2)
            assert (mask.labels[index] == number * frames.get((number, height), np.zeros((512, 512)))).all()


@pytest.mark.parametrize("name", ["liver_1frame.dcm", "liver_expb_1frame.dcm"])
def test_packaged_segmentations(name):
    path = pydicom.data.get_testdata_file(name, download=False)
    one = pydicom.dcmread(path)
    affine = axial_affine((1, 0.810547, 0.810547), [float(value) for value in one.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient])
    shape = (1, one.Rows, one.Columns)
    mask = read_segmentation(path, Volume(np.zeros(shape, np.int16), affine, (1, 0.810547, 0.810547)))
    assert (mask.labels[0] == one.pixel_array).all()


def test_an_odd_path_or_option_is_refused(tmp_path):
    volume, _ = source(tmp_path / "series")
    shutil.copy(pydicom.data.get_testdata_file("CT_small.dcm", download=False), tmp_path / "ct.dcm")
    for path in (None, 5, "", "a\0b", tmp_path, tmp_path / "none", tmp_path / "ct.dcm"):
        with pytest.raises(MedkitError):
            read_segmentation(path, volume)
    for options in ({"threshold": 2}, {"threshold": None}, {"threshold": float("nan")}, {"on_overlap": None}, {"on_overlap": "first"}):
        with pytest.raises(ImageError, match="bad_option"):
            read_segmentation(tmp_path / "ct.dcm", volume, **options)
