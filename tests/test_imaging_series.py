"Series: real ones, faulty ones, and what other programs read back from those medkit writes."

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medkit.errors import ImageError, MedkitError
from medkit.imaging import Mask, Volume, axial_affine, check_same_frame, find_faults, list_series, read_series, series_affine, slice_normal, write_series

DATA = Path(os.environ["MEDKIT_DATA"]) / "imaging" if "MEDKIT_DATA" in os.environ else None
real = pytest.mark.skipif(DATA is None, reason="MEDKIT_DATA is not set: real recordings are not here")


def made_up(shape=(5, 8, 9), spacing=(3.0, 0.7, 0.9), origin=(-10.5, 20.25, 7.125), seed=0):
    voxels = np.random.default_rng(seed).integers(-1024, 3000, shape).astype(np.int16)
    return Volume(voxels, axial_affine(spacing, origin), spacing, patient_key=f"sim-{seed:05d}")


steps = st.floats(0.1, 10).map(lambda value: round(value, 4))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.tuples(*[st.integers(2, 5)] * 3), st.tuples(steps, steps, steps), st.tuples(*[st.floats(-900, 900)] * 3), st.integers(0, 99))
def test_round_trip(tmp_path_factory, shape, spacing, origin, seed):
    volume, folder = made_up(shape, spacing, origin, seed), tmp_path_factory.mktemp("trip") / "series"
    write_series(volume, folder)
    back = read_series(folder)
    assert (back.voxels == volume.voxels).all() and back.voxels.dtype == np.int16
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-6)
    np.testing.assert_allclose(back.spacing_mm, volume.spacing_mm, atol=1e-6)
    assert (back.patient_key, back.unit, back.faults) == (volume.patient_key, "HU", ())


@pytest.mark.parametrize("degrees", [0, 30, 90])
def test_round_trip_of_an_oblique_volume(tmp_path, degrees):
    angle = np.radians(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    plain = made_up()
    affine = plain.affine.copy()
    affine[:3, :3] = turn @ plain.affine[:3, :3]
    volume = replace(plain, affine=affine)
    write_series(volume, tmp_path / "series")
    back = read_series(tmp_path / "series")
    np.testing.assert_allclose(back.affine, affine, atol=1e-6)
    assert (back.voxels == volume.voxels).all()


def test_head_to_feet_comes_back_at_the_same_places(tmp_path):
    "A stack may be stored from the head down; the order on reading follows the normal, every voxel keeps its place."
    plain = made_up()
    affine = plain.affine @ np.array([[-1, 0, 0, 4], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    write_series(replace(plain, voxels=plain.voxels[::-1], affine=affine), tmp_path / "series")
    back = read_series(tmp_path / "series")
    assert (back.voxels == plain.voxels).all()
    np.testing.assert_allclose(back.affine, plain.affine, atol=1e-6)


def oblique():
    "A volume turned by 30 degrees about x, with values from end to end of 16 bits, stored from the feet up."
    plain, angle = made_up(), np.radians(30)
    affine = plain.affine.copy()
    affine[:3, :3] = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]) @ plain.affine[:3, :3]
    voxels = np.random.default_rng(1).integers(-(2**15), 2**15, plain.shape).astype(np.int16)
    voxels[0, 0, :2] = -(2**15), 2**15 - 1
    return replace(plain, voxels=voxels, affine=affine)


@pytest.mark.parametrize("make", [made_up, oblique])
def test_simpleitk_reads_the_same(tmp_path, make):
    "Voxels, spacing, origin and directions, all of them."
    sitk = pytest.importorskip("SimpleITK")
    volume = make()
    write_series(volume, tmp_path / "series")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "series")))
    image = reader.Execute()
    assert np.array_equal(sitk.GetArrayFromImage(image), volume.voxels)
    np.testing.assert_allclose(image.GetSpacing()[::-1], volume.spacing_mm, rtol=1e-9)
    np.testing.assert_allclose(image.GetOrigin(), volume.affine[:3, 3], atol=1e-9)
    steps = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()  # columns: mm along column, row, slice
    np.testing.assert_allclose(steps[:, ::-1], volume.affine[:3, :3], atol=1e-6)
    for index in np.ndindex(2, 2, 2):
        corner = tuple(int(end * (size - 1)) for end, size in zip(index, volume.shape))
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(corner[::-1]), (volume.affine @ (*corner, 1))[:3], atol=1e-6)


def dcmtk_values(path, folder):
    "What dcmtk reads in a file: the text of every tag, and the bytes of the pixels."
    dump = subprocess.run(["dcmdump", "+W", str(folder), "+L", str(path)], capture_output=True, text=True, timeout=60)
    assert dump.returncode == 0 and not dump.stderr.strip(), dump.stderr
    raw, = folder.glob(f"{path.name}*.raw")
    values = {}
    for line in dump.stdout.splitlines():
        match = re.match(r"\(\w{4},\w{4}\) \w\w (?:\[(.*?)\]|=?(\S+)).*# .* (\w+)$", line)
        if match:
            values[match[3]] = match[1] if match[1] is not None else match[2]
    return values, raw.read_bytes()


@pytest.mark.skipif(shutil.which("dcmdump") is None, reason="dcmdump (dcmtk) is not installed")
@pytest.mark.parametrize("make", [made_up, oblique])
def test_dcmtk_reads_the_same(tmp_path, make):
    "Every voxel of every slice as dcmtk extracts it, with the place, the spacing and the rescale it reads."
    volume = make()
    for number, path in enumerate(write_series(volume, tmp_path / "series")):
        (tmp_path / str(number)).mkdir()
        tags, pixels = dcmtk_values(path, tmp_path / str(number))
        numbers = {name: np.array(text.split("\\"), float) for name, text in tags.items()
                   if name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept")}
        shape = int(tags["Rows"]), int(tags["Columns"])
        assert (tags["BitsAllocated"], tags["PixelRepresentation"], tags["SOPClassUID"]) == ("16", "1", "CTImageStorage")
        stored = np.frombuffer(pixels, "<i2").reshape(shape)
        assert np.array_equal(stored * numbers["RescaleSlope"] + numbers["RescaleIntercept"], volume.voxels[number])
        np.testing.assert_allclose(numbers["ImagePositionPatient"], (volume.affine @ (number, 0, 0, 1))[:3], atol=1e-9)
        np.testing.assert_allclose(numbers["PixelSpacing"], volume.spacing_mm[1:], atol=1e-9)
        cosines = np.concatenate([volume.affine[:3, 2] / volume.spacing_mm[2], volume.affine[:3, 1] / volume.spacing_mm[1]])
        np.testing.assert_allclose(numbers["ImageOrientationPatient"], cosines, atol=1e-9)


@pytest.mark.skipif(shutil.which("dcmconv") is None, reason="dcmconv (dcmtk) is not installed")
@pytest.mark.parametrize("syntax", ["+ti", "+tb", "+td"])
def test_what_dcmtk_rewrites_reads_the_same(tmp_path, syntax):
    "The series in another encoding (implicit, big endian, deflated) is the same volume."
    volume = oblique()
    (tmp_path / "other").mkdir()
    for path in write_series(volume, tmp_path / "series"):
        done = subprocess.run(["dcmconv", syntax, str(path), str(tmp_path / "other" / path.name)], capture_output=True, timeout=60)
        assert done.returncode == 0 and not done.stderr, done.stderr
    back = read_series(tmp_path / "other")
    assert np.array_equal(back.voxels, volume.voxels)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-9)


@pytest.mark.parametrize("volume", [None, "volume", np.zeros((2, 3, 4)), {}, 5, read_series], ids=lambda value: type(value).__name__)
def test_only_a_volume_is_written(tmp_path, volume):
    with pytest.raises(ImageError) as caught:
        write_series(volume, tmp_path / "new")
    assert caught.value.reason == "bad_option" and caught.value.expected == "Volume"
    assert not list(tmp_path.iterdir())


def test_every_refusal_says_what_was_found_and_expected(tmp_path):
    volume, packaged = made_up(), Path(pydicom.data.get_testdata_file("CT_small.dcm", download=False)).parent
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("a")
    study, gappy = packaged / "dicomdirtests" / "98892001", packaged / "dicomdirtests" / "77654033"
    asks = {
        "no_series": [lambda: read_series(tmp_path / "empty"), lambda: read_series(study, series="9.9.9"),
                      lambda: read_series(study, series="0.2"), lambda: list_series(tmp_path / "full")],
        "several_series": [lambda: read_series(packaged / "dicomdirtests" / "98892003")],
        "not_found": [lambda: read_series(tmp_path / "none"), lambda: read_series("a\0b")],
        "not_readable": [lambda: read_series(tmp_path / "full" / "a.txt")],
        "missing_slices": [lambda: read_series(gappy, series="28319.0.2")],
        "bad_option": [lambda: read_series(study, on_fault="x"), lambda: read_series(study, on_fault=None),
                       lambda: write_series(replace(volume, unit=""), tmp_path / "new"), lambda: write_series(None, tmp_path / "new"),
                       lambda: write_series(replace(volume, patient_key="a\\b"), tmp_path / "new"),
                       lambda: check_same_frame(volume, None)],
        "already_exists": [lambda: write_series(volume, tmp_path / "full")],
        "not_writable": [lambda: write_series(volume, tmp_path / "full" / "a.txt" / "below")],
        "bad_shape": [lambda: write_series(replace(volume, voxels=volume.voxels + 0.5), tmp_path / "new")],
    }
    for reason, calls in asks.items():
        for call in calls:
            with pytest.raises(MedkitError) as caught:
                call()
            assert caught.value.reason == reason
            assert None not in (caught.value.found, caught.value.expected), (reason, caught.value)


def test_required_attributes_are_there(tmp_path):
    one = pydicom.dcmread(write_series(made_up(), tmp_path / "series")[0])
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID", "StudyDate",
                    "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID", "SeriesNumber", "InstanceNumber", "PatientBirthDate",
                    "PatientSex", "PatientName", "Manufacturer", "ImageType", "RescaleSlope", "RescaleIntercept", "RescaleType", "KVP",
                    "AcquisitionNumber", "PositionReferenceIndicator", "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient"):
        assert keyword in one, keyword
    assert all(len(str(value)) <= 16 for value in (*one.ImagePositionPatient, *one.PixelSpacing, one.SliceThickness))
    assert len({pydicom.dcmread(path).SOPInstanceUID for path in (tmp_path / "series").iterdir()}) == 5


def test_writing_leaves_nothing_half_done(tmp_path, monkeypatch):
    import medkit.imaging.series as module

    calls = []

    def fails(*args):
        calls.append(args)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return original(*args)

    original = module._slice_dataset
    monkeypatch.setattr(module, "_slice_dataset", fails)
    with pytest.raises(MedkitError) as caught:
        write_series(made_up(), tmp_path / "series")
    assert caught.value.reason == "not_writable" and list(tmp_path.iterdir()) == []


def test_a_second_run_replaces_the_series_and_nothing_else(tmp_path, monkeypatch):
    "An earlier series of medkit is replaced whole; a folder that holds anything else, or no folder, is left alone."
    import medkit.imaging.series as module

    folder = tmp_path / "series"
    write_series(made_up(shape=(6, 8, 9)), folder)
    write_series(made_up(seed=1), folder)
    assert (read_series(folder).voxels == made_up(seed=1).voxels).all() and [one.name for one in tmp_path.iterdir()] == ["series"]

    def fails(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(MedkitError):
        patched.setattr(module, "_slice_dataset", fails)
        write_series(made_up(), folder)
    assert (read_series(folder).voxels == made_up(seed=1).voxels).all() and [one.name for one in tmp_path.iterdir()] == ["series"]
    rename = os.rename

    def fails_once(source, target):
        if Path(target) == folder and not str(source).endswith(".old"):
            raise OSError(5, "Input/output error")
        rename(source, target)

    with monkeypatch.context() as patched, pytest.raises(MedkitError):
        patched.setattr(os, "rename", fails_once)
        write_series(made_up(), folder)
    assert (read_series(folder).voxels == made_up(seed=1).voxels).all() and [one.name for one in tmp_path.iterdir()] == ["series"]
    packaged = Path(pydicom.data.get_testdata_file("CT_small.dcm", download=False))
    others = {"hospital.dcm": lambda path: shutil.copy(packaged, path), "notes.txt": lambda path: path.write_text("a"), "below": Path.mkdir}
    for name, add in others.items():
        place = tmp_path / f"with {name}"
        write_series(made_up(), place)
        add(place / name)
        before = sorted(place.iterdir())
        with pytest.raises(MedkitError) as caught:
            write_series(made_up(seed=1), place)
        assert caught.value.reason == "already_exists" and sorted(place.iterdir()) == before
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(MedkitError) as caught:
        write_series(made_up(), tmp_path / "link")
    assert caught.value.reason == "already_exists"


def test_several_series_are_counted_as_they_are_listed(tmp_path):
    for number in range(14):
        for path in write_series(made_up(shape=(2, 4, 4), seed=number), tmp_path / f"{number}"):
            if number == 13:
                one = pydicom.dcmread(path)
                one.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
                one.save_as(path)
    assert len(list_series(tmp_path)) == 14
    with pytest.raises(ImageError, match="13 stacks of slices that are volumes, and 1 that are none") as caught:
        read_series(tmp_path)
    assert caught.value.reason == "several_series" and caught.value.found.count("CT, 2 axial") == 12
    assert caught.value.found.endswith("; and 1 more") and "localizer" not in caught.value.found


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=3, max_size=12), st.integers(0, 2**31))
def test_even_stacks_have_no_fault_in_any_order(_, seed):
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    count, step = int(rng.integers(2, 30)), float(rng.uniform(0.3, 8))
    orientation = (*turn[:, 0], *turn[:, 1])
    positions = rng.normal(size=3) * 100 + np.outer(np.arange(count) * step, slice_normal(orientation))
    assert find_faults(positions, orientation) == ()
    affine = series_affine(orientation, (0.5, 0.6), positions)
    np.testing.assert_allclose((affine @ (count - 1, 0, 0, 1))[:3], positions[-1], atol=1e-9)
    if count > 5:
        kinds = {fault.kind for fault in find_faults(np.delete(positions, 2, axis=0), orientation)}
        assert kinds == {"missing_slices"}


@real
def test_real_ct_series():
    volume = read_series(DATA / "totalsegmentator" / "example_ct_dicom")
    assert volume.shape == (20, 512, 512) and volume.faults == () and volume.unit == "HU"
    assert volume.voxels.min() == -1024 and 1000 < volume.voxels.max() < 4000
    assert np.median(volume.voxels[:, 200:300, 200:300]) == pytest.approx(40, abs=80)
    files = [pydicom.dcmread(path, stop_before_pixels=True) for path in (DATA / "totalsegmentator" / "example_ct_dicom").iterdir()]
    heights = sorted(float(one.ImagePositionPatient[2]) for one in files)
    np.testing.assert_allclose([(volume.affine @ (number, 0, 0, 1))[2] for number in range(20)], heights, atol=1e-3)


@real
def test_real_ct_series_agrees_with_nifti():
    nibabel = pytest.importorskip("nibabel")
    volume = read_series(DATA / "totalsegmentator" / "example_ct_dicom")
    labels = nibabel.load(DATA / "totalsegmentator" / "example_seg_dicom.nii.gz")
    to_ras = np.diag([-1, -1, 1, 1]) @ volume.affine
    corner = np.linalg.inv(labels.affine) @ to_ras @ (0, 0, 0, 1)
    other = np.linalg.inv(labels.affine) @ to_ras @ (19, 511, 511, 1)
    low, high = np.minimum(corner, other)[:3], np.maximum(corner, other)[:3]
    np.testing.assert_allclose(low, 0, atol=0.01)
    np.testing.assert_allclose(high, np.array(labels.shape) - 1, atol=0.01)


@real
def test_real_gantry_tilt_is_named_kept_and_mended():
    folder = DATA / "dcm_qa_ct_gantrytilt"
    with pytest.raises(ImageError) as caught:
        read_series(folder)
    assert caught.value.reason in ("gantry_tilt", "uneven_spacing") and "tilt of 18.5 degrees" in str(caught.value)
    kept = read_series(folder, on_fault="warn")
    assert {fault.kind for fault in kept.faults} == {"gantry_tilt", "uneven_spacing"}
    mended = read_series(folder, on_fault="correct")
    assert all(fault.corrected for fault in mended.faults)
    across, down, step = mended.affine[:3, 2], mended.affine[:3, 1], mended.affine[:3, 0]
    assert abs(step @ across) < 1e-6 and abs(step @ down) < 1e-6
    assert mended.spacing_mm[0] == pytest.approx(4.0, abs=0.01)
    np.testing.assert_allclose(np.linalg.norm(mended.affine[:3, :3], axis=0), mended.spacing_mm, rtol=1e-6)
    headers = [pydicom.dcmread(path) for path in sorted(folder.glob("GE_*.dcm"))]
    normal = slice_normal(headers[0].ImageOrientationPatient)
    heights = np.array([np.array(one.ImagePositionPatient, float) @ normal for one in headers])
    grid = mended.affine[:3, 3] @ normal + mended.spacing_mm[0] * np.arange(mended.shape[0])
    assert grid[0] == pytest.approx(heights[0], abs=1e-6) and heights[-1] - mended.spacing_mm[0] < grid[-1] <= heights[-1] + 1e-6
    for number in (0, 5, 13):  # slices that lie on the grid keep their pixels, moved by a whole or broken number of rows
        at = int(np.argmin(abs(grid - heights[number])))
        assert abs(grid[at] - heights[number]) < 0.02
        source = headers[number].pixel_array.astype(float)
        rows = np.linalg.inv(mended.affine) @ (*map(float, headers[number].ImagePositionPatient), 1)
        assert rows[0] == pytest.approx(at, abs=0.01) and rows[2] == pytest.approx(0, abs=1e-5)
        whole, part = int(np.floor(rows[1])), rows[1] % 1
        expected = source[1:400] * (1 - part) + source[:399] * part
        assert abs(mended.voxels[at, whole + 1:whole + 400] - expected).max() <= 3


@real
def test_real_mr_series_and_a_mixed_folder():
    volume = read_series(DATA / "dcm4che" / "MR_series")
    assert volume.shape == (16, 256, 256) and volume.unit == "" and volume.faults == ()
    with pytest.raises(ImageError) as caught:
        read_series(DATA / "dcm4che")
    assert caught.value.reason == "several_series" and "MR, 16 coronal slices" in str(caught.value)
    uid = next(part.split()[0] for part in str(caught.value.found).split("; ") if "16 coronal" in part)
    assert np.array_equal(read_series(DATA / "dcm4che", series=uid).voxels, volume.voxels)
    beside_segmentations = read_series(DATA / "dcmqi")
    assert beside_segmentations.shape[0] == 3 and len(beside_segmentations.notes) == 3
    assert sum("segmentation" in note for note in beside_segmentations.notes) == 2


def test_mask_and_volume_frames():
    volume = made_up()
    mask = Mask(np.ones(volume.shape, np.uint8), {1: "all"}, volume.affine, volume.spacing_mm)
    check_same_frame(volume, mask)
    assert mask.volume_ml("all") == pytest.approx(5 * 8 * 9 * 3 * 0.7 * 0.9 / 1000)
    for matrix in (np.diag([1, -1, 1, 1]), np.diag([1, 1, 1, 1]) + np.eye(4, k=3)):
        with pytest.raises(ImageError, match="frame_mismatch"):
            check_same_frame(volume, replace(mask, affine=mask.affine @ matrix))


@pytest.mark.parametrize("arguments", [
    (None, np.eye(4), (1, 1, 1)), (np.zeros(3), np.eye(4), (1, 1, 1)), (np.zeros((1, 1, 1)), None, (1, 1, 1)), ("abc", np.eye(4), (1, 1, 1)),
    (np.zeros((1, 1, 1)), np.eye(3), (1, 1, 1)), (np.zeros((1, 1, 1)), np.eye(4), (1, 1)), (np.zeros((1, 1, 1)), np.eye(4), (np.nan, 1, 1)),
    (np.zeros((0, 1, 1)), np.eye(4), (1, 1, 1)), (np.array([[["a"]]]), np.eye(4), (1, 1, 1)),
])
def test_odd_volumes(arguments):
    with pytest.raises((MedkitError, TypeError, ValueError)) as caught:
        Volume(*arguments)
    assert isinstance(caught.value, (MedkitError, TypeError)), repr(caught.value)


@pytest.mark.parametrize(("keyword", "value"), [("SeriesInstanceUID", b"abc"), ("ImageType", b"abc"), ("PixelSpacing", b"abc"), ("NumberOfFrames", b"abc")])
@pytest.mark.parametrize("vr", ["FD", "ZZ"])
def test_a_slice_with_an_unreadable_tag_is_a_bad_header(tmp_path, keyword, value, vr):
    write_series(made_up(), tmp_path / "series")
    path = sorted((tmp_path / "series").iterdir())[2]
    dataset = pydicom.dcmread(path)
    tag = pydicom.tag.Tag(keyword)
    if tag in dataset:
        del dataset[tag]
    dataset.save_as(path)
    data = bytearray(path.read_bytes())
    at = data.rfind(b"\xe0\x7f\x10\x00OW")
    data[at:at] = tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little") + vr.encode() + len(value).to_bytes(2, "little") + value
    path.write_bytes(data)
    for ask in (read_series, list_series) if keyword == "SeriesInstanceUID" else (read_series,):
        try:
            ask(tmp_path / "series")
        except ImageError as error:
            assert error.reason == "bad_header"
        else:
            assert ask is list_series


@pytest.mark.parametrize("frames", ["2147483647", "6", "-1"])
def test_a_lying_number_of_frames_does_not_loop(tmp_path, frames):
    write_series(made_up(shape=(1, 8, 9)), tmp_path / "series")
    path = next((tmp_path / "series").iterdir())
    dataset, group = pydicom.dcmread(path), pydicom.Dataset()
    for sequence, keyword in [("PlanePositionSequence", "ImagePositionPatient"), ("PlaneOrientationSequence", "ImageOrientationPatient"),
                              ("PixelMeasuresSequence", "PixelSpacing")]:
        item = pydicom.Dataset()
        item[keyword] = dataset[keyword]
        setattr(group, sequence, [item])
    dataset.SharedFunctionalGroupsSequence, dataset.NumberOfFrames = [group], frames
    dataset.save_as(path)
    with pytest.raises(ImageError) as caught:
        read_series(tmp_path / "series")
    assert caught.value.reason == "bad_header"


def written(folder, change, count=6, seed=0, shape=(8, 9)):
    "A written series, each slice changed by `change(dataset, number)`; slices for which it returns False are left out."
    write_series(made_up(shape=(count, *shape), seed=seed), folder)
    for number, path in enumerate(sorted(folder.iterdir())):
        one = pydicom.dcmread(path)
        if change(one, number) is False:
            path.unlink()
        else:
            one.save_as(path)
    return folder


def merge(target, *folders):
    target.mkdir()
    for folder in folders:
        for path in folder.iterdir():
            shutil.copy(path, target / f"{folder.name}_{path.name}")
    return target


@pytest.mark.parametrize("keyword, values", [("EchoTime", ("4.6", "30")), ("EchoNumbers", ("1", "2")), ("AcquisitionNumber", ("1", "2")),
                                             ("TemporalPositionIdentifier", ("1", "2")), ("ConvolutionKernel", ("B30f", "B60f"))])
def test_pictures_of_one_place_are_told_apart(tmp_path, keyword, values):
    "Two pictures of each place under one series UID are two stacks, each with its own name."
    def change(value, seed):
        def act(one, number):
            setattr(one, keyword, value)
            one.SeriesInstanceUID, one.SOPInstanceUID = "1.2.3", f"1.2.3.{seed}.{number + 1}"
        return act

    folders = [written(tmp_path / f"part{seed}", change(value, seed), seed=seed) for seed, value in enumerate(values)]
    both = merge(tmp_path / "both", *folders)
    found = list_series(both)
    assert [one.key for one in found] == ["1.2.3#1", "1.2.3#2"] and all(value in one.detail for one, value in zip(found, values))
    with pytest.raises(ImageError, match="several_series"):
        read_series(both)
    for seed, one in enumerate(found):
        expected = made_up(shape=(6, 8, 9), seed=seed)
        for ask in (lambda: read_series(one), lambda: read_series(both, series=one.key), lambda: read_series(both, series=f"#{seed + 1}")):
            volume = ask()
            assert np.array_equal(volume.voxels, expected.voxels) and volume.faults == ()


def test_each_slice_with_its_own_acquisition_number_stays_one_stack(tmp_path):
    def change(one, number):
        one.AcquisitionNumber = number + 1

    folder = written(tmp_path / "series", change)
    assert len(list_series(folder)) == 1 and read_series(folder).shape[0] == 6
    again = pydicom.dcmread(sorted(folder.iterdir())[2])
    again.SOPInstanceUID, again.AcquisitionNumber = "1.2.3.99", 7
    again.save_as(folder / "sent_again")
    assert len(list_series(folder)) == 1
    with pytest.raises(ImageError, match="duplicate_slices"):
        read_series(folder)
    assert np.array_equal(read_series(folder, on_fault="correct").voxels, made_up(shape=(6, 8, 9)).voxels)


def test_localizer_report_and_screenshot_do_not_block(tmp_path):
    def localizer(one, number):
        one.ImageType, one.SeriesInstanceUID = ["ORIGINAL", "PRIMARY", "LOCALIZER"], "1.2.3.9"
        one.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        return number < 2

    def screenshot(one, number):
        one.Modality = "OT"
        del one.ImagePositionPatient, one.ImageOrientationPatient, one.PixelSpacing
        one.SeriesInstanceUID = "1.2.3.8"
        return number < 1

    plain = written(tmp_path / "plain", lambda one, number: True)
    mixed = merge(tmp_path / "mixed", plain, written(tmp_path / "scout", localizer), written(tmp_path / "shot", screenshot))
    (mixed / "report.txt").write_text("all is well")
    volume = read_series(mixed)
    assert np.array_equal(volume.voxels, made_up(shape=(6, 8, 9)).voxels)
    text = "; ".join(volume.notes)
    assert text.count("localizer") == 2 and text.count("no place") == 1 and text.count("not_dicom") == 1 and len(volume.notes) == 4


def test_a_localizer_under_the_same_series_uid_is_set_aside(tmp_path):
    def first_is_scout(one, number):
        if number == 0:
            one.ImageType, one.ImageOrientationPatient = ["ORIGINAL", "PRIMARY", "LOCALIZER"], [0, 1, 0, 0, 0, -1]

    folder = written(tmp_path / "series", first_is_scout)
    volume = read_series(folder)
    assert volume.shape[0] == 5 and volume.faults == () and volume.notes == ("slice_0001.dcm: localizer",)


def test_axial_and_coronal_under_one_uid_are_two_stacks(tmp_path):
    def coronal(one, number):
        one.ImageOrientationPatient, one.ImagePositionPatient = [1, 0, 0, 0, 0, -1], [0, 3 * number, 0]
        one.SeriesInstanceUID, one.SOPInstanceUID = "1.2.3", f"1.2.3.2.{number + 1}"

    def axial(one, number):
        one.SeriesInstanceUID = "1.2.3"

    both = merge(tmp_path / "both", written(tmp_path / "a", axial), written(tmp_path / "c", coronal, seed=1))
    found = list_series(both)
    assert [("axial" in repr(one), "coronal" in repr(one)) for one in found] == [(True, False), (False, True)]
    assert np.array_equal(read_series(found[1]).voxels, made_up(shape=(6, 8, 9), seed=1).voxels)


def test_rescale_differs_from_slice_to_slice(tmp_path):
    "In CT a fault, in PET the rule; every slice is converted by its own numbers."
    def ct(one, number):
        one.RescaleIntercept = -1024 if number == 2 else 0

    def pet(one, number):
        one.Modality, one.SOPClassUID, one.Units, one.RescaleSlope = "PT", "1.2.840.10008.5.1.4.1.1.128", "BQML", 1 + number / 4
        del one.RescaleType

    plain = made_up(shape=(6, 8, 9)).voxels
    folder = written(tmp_path / "ct", ct)
    with pytest.raises(ImageError) as caught:
        read_series(folder)
    assert caught.value.reason == "inconsistent_rescale"
    for choice in ("warn", "correct"):
        volume = read_series(folder, on_fault=choice)
        assert [(fault.kind, fault.slices) for fault in volume.faults] == [("inconsistent_rescale", (2,))]
        assert np.array_equal(volume.voxels[2], plain[2] - 1024) and np.array_equal(volume.voxels[3], plain[3])
    volume = read_series(written(tmp_path / "pet", pet))
    assert volume.faults == () and volume.unit == "BQML"
    np.testing.assert_allclose(volume.voxels, plain * (1 + np.arange(6) / 4)[:, None, None], rtol=1e-6)


def test_slices_in_two_units_are_never_mended(tmp_path):
    def change(one, number):
        one.RescaleType = "HU" if number else "US"

    folder = written(tmp_path / "series", change)
    for choice in ("raise", "correct"):
        with pytest.raises(ImageError) as caught:
            read_series(folder, on_fault=choice)
        assert caught.value.reason == "inconsistent_rescale"
    assert len(read_series(folder, on_fault="warn").faults) == 1


def body(points):
    "A smooth body in HU at places in mm."
    x, y, z = np.moveaxis(np.asarray(points), -1, 0)
    return 60 * np.cos(x / 15) + 50 * np.sin(y / 12 + 0.5) + 40 * np.cos(z / 14 + 0.3)


@pytest.mark.parametrize("degrees", [-20, 5, 18.5, 25])
@pytest.mark.parametrize("heights", [np.arange(20) * 3.0, np.r_[np.arange(12) * 3.0, 33 + 4.5 * np.arange(1, 7)], np.delete(np.arange(20) * 3.0, 7)],
                         ids=["even", "uneven", "gap"])
def test_a_body_scanned_with_a_tilted_gantry_is_mended(tmp_path, degrees, heights):
    "Sampled on leaning slices, corrected, and compared with the body itself at the places that the new affine states."
    angle, plain = np.radians(degrees), made_up(shape=(len(heights), 48, 40), spacing=(3, 1.5, 1.5))
    down = np.array([0, np.cos(angle), -np.sin(angle)])
    write_series(plain, tmp_path / "series")
    for path, height in zip(sorted((tmp_path / "series").iterdir()), heights):
        one = pydicom.dcmread(path)
        places = np.array([0, -30, height]) + 1.5 * np.arange(48)[:, None, None] * down + 1.5 * np.arange(40)[None, :, None] * [1, 0, 0]
        one.PixelData = np.rint(body(places) * 20).astype("<i2").tobytes()
        one.ImagePositionPatient, one.ImageOrientationPatient = [0, -30, float(height)], [1, 0, 0, *map(float, down)]
        one.save_as(path)
    with pytest.raises(ImageError):
        read_series(tmp_path / "series")
    mended = read_series(tmp_path / "series", on_fault="correct")
    assert {fault.kind for fault in mended.faults} >= {"gantry_tilt"} and all(fault.corrected for fault in mended.faults)
    assert abs(mended.affine[:3, 0] @ down) < 1e-9 and abs(mended.affine[0, 0]) < 1e-9
    assert mended.spacing_mm[0] == pytest.approx(3 * np.cos(angle), abs=1e-6) and mended.shape[1] > 48
    index = np.stack(np.meshgrid(*map(np.arange, mended.shape), indexing="ij"), axis=-1)
    places = index @ mended.affine[:3, :3].T + mended.affine[:3, 3]
    inside = mended.voxels != mended.voxels.min()
    inside = np.all([np.roll(inside, aside, 1) for aside in range(-3, 4)], axis=0)  # no voxel mixed with what no slice saw
    error = np.abs(mended.voxels / 20 - body(places))[inside]
    assert inside.mean() > 0.5 and np.median(error) < 0.5 and error.max() < 6
    if len(heights) == 20:
        assert error.max() < 1.5


def test_memory_is_that_of_the_volume_and_one_slice(tmp_path):
    import tracemalloc

    write_series(made_up(shape=(40, 256, 256)), tmp_path / "series")
    size = 40 * 256 * 256 * 2
    tracemalloc.start()
    volume = read_series(tmp_path / "series")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert volume.voxels.nbytes == size and peak < 1.6 * size


def test_a_damaged_file_of_the_series_is_named_or_left_out(tmp_path):
    folder = written(tmp_path / "series", lambda one, number: True)
    path = sorted(folder.iterdir())[3]
    path.write_bytes(path.read_bytes()[:-40])
    for choice in ("raise", "correct"):
        with pytest.raises(ImageError, match="slice_0004"):
            read_series(folder, on_fault=choice)
    volume = read_series(folder, on_fault="warn")
    assert volume.shape[0] == 5 and [fault.kind for fault in volume.faults] == ["missing_slices"] and "slice_0004" in volume.notes[-1]
    assert len(list_series(folder)[0].slices) == 6


def test_odd_things_in_a_folder_neither_hang_nor_hide(tmp_path):
    folder = written(tmp_path / "series", lambda one, number: True)
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "dead").symlink_to("/nowhere")
    (folder / "zeros").write_bytes(bytes(500))
    (folder / "page.dcm").write_text("<html>proxy</html>" * 30)
    volume = read_series(folder)
    assert volume.shape[0] == 6 and len(volume.notes) == 5


def enhanced(folder, positions, **facts):
    "One file with a frame at each position; `facts` are one value per frame: sequence__keyword."
    from pydicom.dataset import Dataset

    folder.mkdir()
    source = write_series(made_up(shape=(1, 8, 9)), folder / "source")[0]
    one = pydicom.dcmread(source)
    shutil.rmtree(folder / "source")
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness, orientation.ImageOrientationPatient = [1, 1], 2, [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    groups = []
    for number, place in enumerate(positions):
        group, plane = Dataset(), Dataset()
        plane.ImagePositionPatient = [0, 0, place]
        group.PlanePositionSequence = [plane]
        for name, values in facts.items():
            sequence, keyword = name.split("__")
            item = Dataset()
            setattr(item, keyword, values[number])
            setattr(group, sequence, [item])
        groups.append(group)
    del one.ImagePositionPatient, one.ImageOrientationPatient, one.PixelSpacing
    one.NumberOfFrames, one.SharedFunctionalGroupsSequence, one.PerFrameFunctionalGroupsSequence = len(groups), [shared], groups
    one.PixelData = (np.arange(len(groups), dtype="<i2")[:, None, None] * np.ones((1, 8, 9), "<i2")).tobytes()
    one.save_as(folder / "enhanced.dcm")
    return folder


def test_a_multi_frame_file_is_a_series(tmp_path):
    volume = read_series(enhanced(tmp_path / "one", [4, 0, 2, 6]))
    assert volume.voxels[:, 0, 0].tolist() == [1, 2, 0, 3] and volume.spacing_mm == (2, 1, 1) and volume.affine[2, 3] == 0


@pytest.mark.parametrize("name, values", [("FrameContentSequence__TemporalPositionIndex", [1, 1, 2, 2]),
                                          ("MREchoSequence__EffectiveEchoTime", [4.6, 4.6, 30.0, 30.0])])
def test_frames_of_two_times_or_echoes_are_two_stacks(tmp_path, name, values):
    folder = enhanced(tmp_path / "two", [0, 2, 0, 2], **{name: values})
    found = list_series(folder)
    assert len(found) == 2 and [read_series(one).voxels[:, 0, 0].tolist() for one in found] == [[0, 1], [2, 3]]


def test_a_damaged_file_of_another_series_does_not_block(tmp_path):
    def other(one, number):
        one.SeriesInstanceUID, one.Rows = "1.2.3.4", 0 if number == 2 else 8

    plain = written(tmp_path / "plain", lambda one, number: True)
    mixed = merge(tmp_path / "mixed", plain, written(tmp_path / "other", other, seed=1))
    uid = pydicom.dcmread(next(plain.iterdir())).SeriesInstanceUID
    volume = read_series(mixed, series=uid)
    assert np.array_equal(volume.voxels, made_up(shape=(6, 8, 9)).voxels) and "damaged" in volume.notes[0]
    with pytest.raises(ImageError, match="bad_header"):
        read_series(mixed, series="1.2.3.4")
    assert read_series(mixed, series="1.2.3.4", on_fault="warn").shape[0] == 5
