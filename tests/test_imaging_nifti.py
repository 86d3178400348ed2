"NIfTI: real files beside their DICOM, what other programs read back, odd affines and hostile bytes."

import gzip
import os
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import medkit.imaging.nifti as module
from medkit.errors import ImageError, MedkitError
from medkit.imaging import Mask, Volume, align_to, axial_affine, check_same_frame, read_nifti, read_nifti_mask, read_series, write_nifti

DATA = Path(os.environ["MEDKIT_DATA"]) / "imaging" if "MEDKIT_DATA" in os.environ else None
real = pytest.mark.skipif(DATA is None, reason="MEDKIT_DATA is not set: real recordings are not here")
TO_RAS = np.diag([-1.0, -1, 1, 1])


def made_up(shape=(4, 6, 5), spacing=(3.0, 0.7, 0.9), kind=np.int16):
    return Volume(np.random.default_rng(0).integers(0, 200, shape).astype(kind), axial_affine(spacing, (-10, 20, 7)), spacing)


def saved(path, array, affine=None, **header):
    image = nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine)
    image.header.set_xyzt_units("mm")
    data = image.to_bytes()
    lying = nibabel.Nifti1Header(data[:348], check=False)
    for name, value in header.items():
        lying[name] = value
    path.write_bytes(lying.binaryblock + data[348:])
    return path


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.permutations(range(3)), st.lists(st.sampled_from([-1, 1]), min_size=3, max_size=3))
def test_every_turn_and_flip_is_undone_exactly(tmp_path_factory, order, signs):
    "However a label file is stored, `align_to` finds the image's grid from the affines, and each voxel keeps its place."
    volume, folder = made_up(), tmp_path_factory.mktemp("turn")
    labels = (volume.voxels % 7).astype(np.uint8)
    ras = TO_RAS @ volume.affine[:, [2, 1, 0, 3]]
    array = labels.T
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for new, (old, sign) in enumerate(zip(order, signs)):
        turn[old, new] = sign
        turn[old, 3] = array.shape[old] - 1 if sign < 0 else 0
    stored = array[tuple(slice(None, None, signs[order.index(axis)]) for axis in range(3))].transpose(order)
    mask = read_nifti_mask(saved(folder / "labels.nii", stored, ras @ turn))
    aligned = align_to(mask, volume)
    check_same_frame(volume, aligned)
    assert (aligned.labels == labels).all()
    index = (2, 3, 1)
    place = volume.affine @ (*index, 1)
    there = np.rint(np.linalg.inv(mask.affine) @ place)[:3].astype(int)
    assert mask.labels[tuple(there)] == labels[index]


def test_round_trip_and_simpleitk(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    plain = made_up()
    angle = np.radians(30)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = plain.affine.copy()
    affine[:3, :3] = turn @ affine[:3, :3]
    volume = replace(plain, affine=affine)
    for name in ("a.nii", "a.nii.gz"):
        path = write_nifti(volume, tmp_path / name)
        back = read_nifti(path, unit="HU", patient_key="p1")
        assert (back.voxels == volume.voxels).all() and back.patient_key == "p1" and back.faults == () and back.notes == ()
        np.testing.assert_allclose(back.affine, affine, atol=1e-5)
        np.testing.assert_allclose(back.spacing_mm, volume.spacing_mm, atol=1e-6)
        image = sitk.ReadImage(str(path))
        assert (sitk.GetArrayFromImage(image) == volume.voxels).all()
        for index in np.ndindex(2, 2, 2):
            corner = tuple(int(end * (size - 1)) for end, size in zip(index, volume.shape))
            np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(corner[::-1]), (affine @ (*corner, 1))[:3], atol=1e-4)


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "int32", "float32", "float64", "int64", "bool", "float16"])
def test_kinds_of_voxels_come_back(tmp_path, kind):
    volume = replace(made_up(), voxels=(made_up().voxels % 2).astype(kind) if kind == "bool" else made_up().voxels.astype(kind))
    back = read_nifti(write_nifti(volume, tmp_path / "a.nii"))
    assert (back.voxels == volume.voxels).all() and back.voxels.dtype in (np.int16, np.float32)


@pytest.mark.parametrize("endian", "<>")
@pytest.mark.parametrize("two", [False, True], ids=["nifti1", "nifti2"])
def test_both_versions_and_byte_orders(tmp_path, endian, two):
    kind = nibabel.Nifti2Image if two else nibabel.Nifti1Image
    array = np.arange(24, dtype=f"{endian}i2").reshape(2, 3, 4)
    image = kind(array, np.diag([1, 2, 3, 1.0]), header=kind.header_class(endianness=endian))
    image.header.set_data_dtype(array.dtype)
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    volume = read_nifti(tmp_path / "a.nii")
    assert (volume.voxels == array.T).all() and volume.spacing_mm == (3, 2, 1)


def test_a_leaning_stack_is_a_fault_that_can_be_written(tmp_path):
    affine = np.diag([1, 1, 3, 1.0])
    affine[1, 2] = 1
    volume = read_nifti(saved(tmp_path / "a.nii", np.zeros((4, 5, 6), np.int16), affine))
    assert [fault.kind for fault in volume.faults] == ["gantry_tilt"] and volume.spacing_mm == (3, 1, 1)
    again = read_nifti(write_nifti(volume, tmp_path / "b.nii"))
    np.testing.assert_allclose(again.affine, volume.affine, atol=1e-6)
    with pytest.raises(ImageError, match="gantry_tilt"):
        read_nifti_mask(tmp_path / "a.nii")


@pytest.mark.parametrize(("change", "reason"), [
    ({"dim": [3, -4, 4, 4, 1, 1, 1, 1]}, "bad_shape"), ({"dim": [3, 0, 4, 4, 1, 1, 1, 1]}, "bad_shape"),
    ({"dim": [2, 4, 4, 1, 1, 1, 1, 1]}, "bad_shape"), ({"dim": [9, 4, 4, 4, 1, 1, 1, 1]}, "bad_shape"),
    ({"dim": [4, 4, 4, 4, 3, 1, 1, 1]}, "bad_shape"), ({"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}, "too_large"),
    ({"dim": [3, 400, 400, 400, 1, 1, 1, 1]}, "truncated"), ({"datatype": 999}, "bad_header"), ({"datatype": 128}, "bad_shape"),
    ({"datatype": 32}, "bad_shape"), ({"vox_offset": np.nan}, "bad_header"), ({"vox_offset": -5}, "bad_header"),
    ({"vox_offset": 1e30}, "bad_header"), ({"vox_offset": 0}, "bad_header"), ({"magic": b"ni1"}, "unsupported_format"),
    ({"magic": b"\0\0\0"}, "unsupported_format"), ({"sizeof_hdr": 7}, "unsupported_format"), ({"srow_x": np.nan}, "geometry_missing"),
    ({"srow_x": 0}, "geometry_missing"), ({"srow_x": [1, 0.9, 0, 0]}, "geometry_missing"), ({"sform_code": 0, "qform_code": 0}, "geometry_missing"),
    ({"sform_code": 0, "qform_code": 1, "quatern_b": 5}, "geometry_missing"), ({"sform_code": 0, "qform_code": 1, "pixdim": np.nan}, "geometry_missing"),
    ({"scl_slope": 1, "scl_inter": np.inf}, "bad_header"),
], ids=lambda value: None)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_headers_that_lie_are_named(tmp_path, change, reason, packed):
    path = saved(tmp_path / "a.nii", np.zeros((4, 4, 4), np.int16), **({"scl_slope": 1, "scl_inter": 0} | change))
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ImageError) as caught:
        read_nifti(path)
    assert caught.value.reason == reason and caught.value.found is not None and caught.value.expected is not None


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    "Behind a small volume lie 200 MB of zeros; only what the header asks for is unpacked."
    import tracemalloc

    data = saved(tmp_path / "a.nii", np.ones((4, 4, 4), np.int16)).read_bytes()
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(data + bytes(200 << 20), 1))
    tracemalloc.start()
    assert read_nifti(tmp_path / "bomb.nii.gz").voxels.sum() == 64
    assert tracemalloc.get_traced_memory()[1] < 40 << 20
    tracemalloc.stop()
    monkeypatch.setattr(module, "MAX_NIFTI_BYTES", 100)
    with pytest.raises(ImageError, match="too_large"):
        read_nifti(tmp_path / "bomb.nii.gz")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.integers(0, 479), st.integers(0, 255)), max_size=8), st.integers(0, 480), st.booleans())
def test_mutants_give_a_volume_or_a_named_error(tmp_path_factory, changes, length, packed):
    folder = tmp_path_factory.mktemp("mutant")
    data = bytearray(saved(folder / "a.nii", np.zeros((4, 4, 4), np.int16)).read_bytes())
    for at, value in changes:
        data[at] = value
    data = data[:length] if length < 480 else data
    (folder / "a.nii").write_bytes(gzip.compress(data) if packed else data)
    for read in (read_nifti, read_nifti_mask):
        try:
            content = read(folder / "a.nii")
        except MedkitError:
            continue
        assert np.isfinite(content.affine).all()


@pytest.mark.parametrize("path", [None, 5, b"abc", "", "a\0b", "no such", [], {}], ids=repr)
def test_odd_paths(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for act in (lambda: read_nifti(path), lambda: read_nifti_mask(path), lambda: write_nifti(made_up(), path)):
        with pytest.raises(MedkitError):
            act()


def test_a_second_run_replaces_the_file_and_a_failed_one_leaves_it(tmp_path):
    path = write_nifti(made_up(), tmp_path / "a.nii.gz")
    whole = path.read_bytes()
    with pytest.raises(ImageError, match="bad_shape"):
        write_nifti(replace(made_up(), voxels=np.full((4, 6, 5), 2**40)), path)
    assert path.read_bytes() == whole
    brighter = replace(made_up(), voxels=made_up().voxels + 1)
    write_nifti(brighter, path)
    assert (read_nifti(path).voxels == brighter.voxels).all() and list(tmp_path.iterdir()) == [path]
    (tmp_path / "b.nii").mkdir()
    with pytest.raises(MedkitError) as caught:
        write_nifti(brighter, tmp_path / "b.nii")
    assert caught.value.reason == "not_writable"


def test_nothing_half_written_is_left(tmp_path):
    broken = replace(made_up(), voxels=np.full((4, 6, 5), 2**40))
    with pytest.raises(ImageError, match="bad_shape"):
        write_nifti(broken, tmp_path / "a.nii.gz")
    assert not list(tmp_path.iterdir())


@real
def test_real_labels_lie_on_their_ct():
    "The NIfTI runs another way than the DICOM series; turned by its affine, each organ lies on tissue of its own density."
    folder = DATA / "totalsegmentator"
    volume = read_series(folder / "example_ct_dicom")
    stored = read_nifti_mask(folder / "example_seg_dicom.nii.gz", {1: "spleen", 5: "liver", 7: "pancreas"})
    with pytest.raises(ImageError, match="frame_mismatch"):
        check_same_frame(volume, stored)
    mask = align_to(stored, volume)
    check_same_frame(volume, mask)
    assert (mask.labels == 7).sum() == 1327
    mean = lambda labels, label: volume.voxels[labels == label].mean()
    for label, low, high in ((1, 60, 100), (5, 70, 110), (7, 40, 80), (52, 140, 220)):  # spleen, liver, pancreas, aorta, in HU
        assert low < mean(mask.labels, label) < high
    for wrong in (mask.labels[:, ::-1], mask.labels[:, :, ::-1]):
        assert mean(wrong, 5) < 20


@real
@pytest.mark.parametrize("name", ["example_ct_sm", "example_ct", "example_mr_sm", "example_seg"])
def test_real_files_agree_with_nibabel_and_simpleitk_in_the_patient(name):
    sitk = pytest.importorskip("SimpleITK")
    path = DATA / "totalsegmentator" / f"{name}.nii.gz"
    volume, other, image = read_nifti(path), nibabel.load(path), sitk.ReadImage(str(path))
    values, itk = np.asarray(other.dataobj), sitk.GetArrayFromImage(image)
    assert np.allclose(volume.voxels, values.T, atol=0.01) and np.allclose(volume.voxels, itk, atol=0.01)
    for index in [(0, 0, 0), tuple(size - 1 for size in volume.shape), tuple(size // 2 for size in volume.shape)]:
        place = (volume.affine @ (*index, 1))[:3]
        np.testing.assert_allclose(place * [-1, -1, 1], (other.affine @ (*index[::-1], 1))[:3], atol=1e-3)
        np.testing.assert_allclose(place, image.TransformIndexToPhysicalPoint(tuple(map(int, index[::-1]))), atol=1e-2)


@real
def test_the_small_ct_and_its_labels_share_a_frame():
    folder = DATA / "totalsegmentator"
    volume = read_nifti(folder / "example_ct_sm.nii.gz", unit="HU")
    mask = read_nifti_mask(folder / "example_seg.nii.gz", {1: "spleen", 5: "liver", 7: "pancreas", 52: "aorta"})
    check_same_frame(volume, mask)
    for name, low, high in (("liver", 30, 60), ("pancreas", -20, 30), ("spleen", 20, 50)):
        label = next(number for number, known in mask.names.items() if known == name)
        assert low < volume.voxels[mask.labels == label].mean() < high
