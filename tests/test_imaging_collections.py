"""Public layouts of scans and labels, written small and true to the original, with their traps and faults."""

import gzip
import json
import pickle
import shutil
import time
from dataclasses import replace
from functools import cache

import nibabel
import numpy as np
import pytest
from pydicom import dcmread

from medkit.errors import MedkitError
from medkit.imaging import (
    Mask, Volume, read_case_folder, read_cptac_pda, read_decathlon, read_nih_pancreas, read_nnunet, simulate_abdomen,
    write_nifti, write_series,
)

NAMES = {1: "pancreas", 2: "tumour"}


@cache
def patient(seed):
    "A small abdomen with pancreas (1) and tumour (2)."
    volume, mask = simulate_abdomen(seed, shape=(10, 80, 80), tumour_diameter_mm=30)
    labels = ((mask.labels == 9) + 2 * (mask.labels == 10)).astype(np.uint8)
    return volume, Mask(labels, NAMES, mask.affine, mask.spacing_mm)


def turned(mask, shift_mm=0.0):
    "Labels as NIH publishes them: [column, row from the back, slice] against the DICOM stack."
    flip = np.diag([1.0, -1, 1, 1])
    flip[1, 3] = mask.shape[1] - 1
    affine = mask.affine @ flip
    affine[:3, 3] += shift_mm
    return Mask((mask.labels[:, ::-1] > 0).astype(np.uint8), {1: "pancreas"}, affine, mask.spacing_mm)


@pytest.fixture
def nih(tmp_path):
    labels = tmp_path / "TCIA_pancreas_labels-02-05-2017"
    labels.mkdir()
    for number in (1, 2, 25, 70):
        volume, mask = patient(number % 20)
        write_series(replace(volume, patient_key=f"PANCREAS_{number:04d}"),
                     tmp_path / f"manifest-1599750808610/Pancreas-CT/PANCREAS_{number:04d}/1.2.{number}/1.2.{number}.1")
        write_nifti(turned(mask), labels / f"label{number:04d}.nii.gz")
    (tmp_path / "Pancreas-CT-20200910.tcia").write_text("downloadServerUrl=...")
    return tmp_path


@pytest.fixture
def task(tmp_path):
    place = tmp_path / "Task07_Pancreas"
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (place / part).mkdir(parents=True)
    for number in (1, 4, 10):
        volume, mask = patient(number)
        write_nifti(volume, place / f"imagesTr/pancreas_{number:03d}.nii.gz")
        write_nifti(mask, place / f"labelsTr/pancreas_{number:03d}.nii.gz")
        for part in ("imagesTr", "labelsTr"):
            (place / part / f"._pancreas_{number:03d}.nii.gz").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X")
    write_nifti(patient(5)[0], place / "imagesTs/pancreas_002.nii.gz")
    both = [{"image": f"./imagesTr/pancreas_{n:03d}.nii.gz", "label": f"./labelsTr/pancreas_{n:03d}.nii.gz"} for n in (10, 1, 4)]
    (place / "dataset.json").write_text(json.dumps({
        "name": "Pancreas", "description": "Pancreas and cancer segmentation", "relase": "1.0 04/05/2018", "licence": "CC-BY-SA 4.0",
        "tensorImageSize": "3D", "modality": {"0": "CT"}, "labels": {"0": "background", "1": "pancreas", "2": "cancer"},
        "numTraining": 3, "numTest": 1, "training": both, "test": ["./imagesTs/pancreas_002.nii.gz"]}))
    return place


@pytest.fixture
def nnunet(tmp_path):
    place = tmp_path / "Dataset007_Pancreas"
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (place / part).mkdir(parents=True)
    for number in (1, 4):
        volume, mask = patient(number)
        write_nifti(volume, place / f"imagesTr/pancreas_{number:03d}_0000.nii.gz")
        write_nifti(mask, place / f"labelsTr/pancreas_{number:03d}.nii.gz")
    write_nifti(patient(5)[0], place / "imagesTs/pancreas_002_0000.nii.gz")
    (place / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "numTraining": 2, "file_ending": ".nii.gz",
                                                    "labels": {"background": 0, "pancreas": 1, "tumour": 2}}))
    return place


@pytest.fixture
def own(tmp_path):
    place = tmp_path / "ward"
    for number in (1, 4):
        volume, mask = patient(number)
        write_series(replace(volume, patient_key=f"H-{number}"), place / f"p{number:02d}/study/ct")
    write_nifti(patient(1)[1], place / "p01/organs.nii.gz")
    (place / "labels").mkdir()
    write_nifti(patient(4)[1], place / "labels/p04_organs.nii.gz")
    return place


def rewritten(place, **changes):
    "dataset.json with some values changed; None removes one."
    content = json.loads((place / "dataset.json").read_text())
    content.update(changes)
    (place / "dataset.json").write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def refused(use, reason, *words):
    with pytest.raises(MedkitError) as caught:
        use()
    error = caught.value
    assert error.reason == reason, str(error)
    assert all(word in str(error) for word in words) and error.hint, str(error)


# ---- the layouts as they are ------------------------------------------------------------------------------------------

def test_nih_as_downloaded(nih):
    cases = read_nih_pancreas(nih)
    assert cases.patients == ["nih_pancreas_ct/PANCREAS_0001", "nih_pancreas_ct/PANCREAS_0002"]
    assert sum("withdrawn" in note for note in cases.notes) == 2 and len(cases.notes) == 2
    for case, number in zip(cases, (1, 2)):
        volume, mask, tags = case.load()
        assert np.array_equal(mask.labels, patient(number)[1].labels > 0) and mask.names[1] == "pancreas"
        assert np.array_equal(volume.voxels, patient(number)[0].voxels) and volume.patient_key == mask.patient_key == case.patient_key
        assert tags["also_in"] == "panorama" and tags["collection"] == "nih_pancreas_ct"


def test_nih_below_its_own_folder_and_above_it(nih):
    shutil.move(nih / "TCIA_pancreas_labels-02-05-2017", nih / "manifest-1599750808610/Pancreas-CT/labels")
    assert read_nih_pancreas(nih / "manifest-1599750808610/Pancreas-CT").patients == read_nih_pancreas(nih).patients


def test_nih_labels_with_another_origin_are_placed_by_their_grid_and_say_so(nih):
    path = nih / "TCIA_pancreas_labels-02-05-2017/label0001.nii.gz"
    write_nifti(turned(patient(1)[1], shift_mm=120), path)
    volume, mask, _ = read_nih_pancreas(nih)[0].load()
    assert np.array_equal(mask.labels, patient(1)[1].labels > 0) and np.array_equal(mask.affine, volume.affine)
    assert f"{120 * 3 ** 0.5:.1f} mm away" in volume.notes[-1]


def test_decathlon_as_unpacked(task):
    for folder in (task, task.parent):
        cases = read_decathlon(folder)
        assert cases.patients == [f"msd_pancreas/pancreas_{n:03d}" for n in (1, 2, 4, 10)] and cases.notes == ()
    assert [case.tags["split"] for case in cases] == ["training", "test", "training", "training"] and len(cases.labelled) == 3
    volume, mask, _ = cases[2].load()
    assert volume.unit == "HU" and mask.names == {0: "background", 1: "pancreas", 2: "cancer"}
    assert np.array_equal(mask.labels, patient(4)[1].labels) and cases[1].load()[1] is None


def test_nnunet_as_planned(nnunet):
    cases = read_nnunet(nnunet.parent)
    assert cases.patients == [f"Dataset007_Pancreas/pancreas_{n:03d}" for n in (1, 4, 2)] and cases.notes == ()
    volume, mask, tags = cases[1].load()
    assert np.array_equal(mask.labels, patient(4)[1].labels) and tags["split"] == "training" and volume.unit == "HU"


def test_cptac_keeps_the_series_of_a_person_together(tmp_path):
    for case, study, series in (("C3L-00017", "1.1", "1.1.1"), ("C3L-00017", "1.1", "1.1.2"), ("C3N-00198", "1.2", "1.2.1")):
        write_series(replace(patient(1)[0], patient_key=case), tmp_path / "manifest-77/CPTAC-PDA" / case / study / series)
    other = next((tmp_path / "manifest-77/CPTAC-PDA/C3N-00198").rglob("*.dcm"))
    scan = dcmread(other)
    scan.Modality = "MR"
    for series in ("1.9",):
        target = other.parents[1] / series
        target.mkdir()
        scan.save_as(target / "1-01.dcm")
    cases = read_cptac_pda(tmp_path)
    assert cases.patients == ["cptac_pda/C3L-00017"] * 2 + ["cptac_pda/C3N-00198"] and "(MR)" in cases.notes[0]
    assert cases[0].tags["slices"] == 10 and cases[2].load()[1] is None


def test_own_folder_with_labels_below_and_beside(own):
    cases = read_case_folder(own, NAMES)
    assert cases.patients == ["ward/H-1", "ward/H-4"] and cases.notes == ()
    for case, number in zip(cases, (1, 4)):
        assert np.array_equal(case.load()[1].labels, patient(number)[1].labels)
    assert read_case_folder(own, NAMES, name="north")[0].patient_key == "north/H-1"


def test_own_folder_of_one_case_and_in_images(own, tmp_path):
    assert read_case_folder(own / "p01", NAMES).patients == ["p01/H-1"]
    (own / "images").mkdir()
    for case in ("p01", "p04"):
        shutil.move(own / case, own / "images" / case)
    assert read_case_folder(own, NAMES).labelled.patients == ["ward/H-1", "ward/H-4"]


def test_two_folders_of_one_patient_get_one_key(own):
    write_series(replace(patient(9)[0], patient_key="H-1"), own / "p09")
    assert read_case_folder(own, NAMES).patients == ["ward/H-1", "ward/H-4", "ward/H-1"]


def seg_file(folder, mask, path, names):
    "A DICOM SEG file of a mask, made by highdicom."
    highdicom = pytest.importorskip("highdicom")
    from highdicom.sr.coding import CodedConcept

    images = sorted((dcmread(one) for one in folder.rglob("*.dcm")), key=lambda one: one.ImagePositionPatient[2])
    for one in images:
        one.StudyID, one.AccessionNumber = "1", ""
        for keyword in ("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName"):
            if keyword not in one:
                setattr(one, keyword, "")
    organ = CodedConcept("15776009", "SCT", "Pancreas")
    segments = [highdicom.seg.SegmentDescription(number, name, organ, organ, "MANUAL") for number, name in names.items()]
    made = highdicom.seg.Segmentation(
        images, np.stack([mask.labels == number for number in names], axis=-1).astype(np.uint8), "BINARY", segments,
        series_instance_uid="1.2.3.4", series_number=9, sop_instance_uid="1.2.3.4.5", instance_number=1, manufacturer="m",
        manufacturer_model_name="m", software_versions="1", device_serial_number="1", omit_empty_frames=True)
    made.save_as(path)


@pytest.mark.parametrize("where", ["p01/organs.dcm", "p01/study/ct/seg.dcm", "p01.dcm", "labels/p01_organs.dcm"])
def test_dicom_seg_labels_are_renumbered_by_name(own, where):
    (own / "p01/organs.nii.gz").unlink()
    seg_file(own / "p01", patient(1)[1], own / where, {1: "Pancreas", 2: "TUMOUR"})
    cases = read_case_folder(own, {3: "tumour", 7: "pancreas"})
    assert cases[0].tags["labelled"] == "yes"
    mask = cases[0].load()[1]
    expected = np.array([0, 7, 3], np.uint8)[patient(1)[1].labels]
    assert np.array_equal(mask.labels, expected) and mask.names == {3: "tumour", 7: "pancreas"}


def test_dicom_seg_labels_without_names_are_taken_as_they_are(own):
    (own / "p01/organs.nii.gz").unlink()
    shutil.rmtree(own / "labels")
    seg_file(own / "p01", patient(1)[1], own / "p01/seg.dcm", {1: "Pancreas", 2: "Mass"})
    case = read_case_folder(own)[0]
    assert case.load()[1].names == {1: "Pancreas", 2: "Mass"}
    refused(lambda: read_case_folder(own, {1: "spleen"})[0].load(), "unknown_label", "Pancreas", "spleen")


def test_cases_are_lazy_and_travel_to_other_processes(task):
    cases = read_decathlon(task)
    (task / "imagesTr/pancreas_001.nii.gz").write_bytes(b"")
    again = pickle.loads(pickle.dumps(cases[2]))
    assert again.patient_key == cases[2].patient_key and np.array_equal(again.load()[0].voxels, patient(4)[0].voxels)
    refused(cases[0].load, "empty", "msd_pancreas/pancreas_001")


def test_listing_a_large_folder_takes_no_pixels(tmp_path):
    place = tmp_path / "many"
    one = write_series(patient(1)[0], tmp_path / "one")[0].read_bytes()
    for case in range(20):
        (place / f"p{case}").mkdir(parents=True)
        for number in range(100):
            (place / f"p{case}" / f"{number}.dcm").write_bytes(one[:2000])
    start = time.process_time()
    assert len(read_case_folder(place)) == 20
    assert time.process_time() - start < 2


# ---- faults: each is an error with a name, or a note ------------------------------------------------------------------

def change_label(path, change):
    "Rewrite a label file through `change(array, affine) -> array, affine`."
    image = nibabel.load(path)
    array, affine = change(np.asarray(image.dataobj).copy(), image.affine.copy())
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


LABEL = "labelsTr/pancreas_001.nii.gz"


@pytest.mark.parametrize("change, reason", [
    (lambda a, f: (a[:-1], f), "frame_mismatch"),  # another shape
    (lambda a, f: (a, f + 4 * np.eye(4, k=3)), "frame_mismatch"),  # another place
    (lambda a, f: (a, f @ np.diag([2, 2, 1, 1])), "frame_mismatch"),  # another spacing
    (lambda a, f: (a, f @ np.diag([-1, 1, 1, 1])), "frame_mismatch"),  # mirrored about its first column
    (lambda a, f: (a, np.eye(4)), "frame_mismatch"),  # an affine that says nothing
    (lambda a, f: (np.where(a == 2, 3, a).astype(np.uint8), f), "unknown_label"),  # a number without a name
    (lambda a, f: (a + 0.5, f), "bad_shape"),  # no whole numbers
    (lambda a, f: (a.astype(np.int16) - 1, f), "bad_shape"),  # below 0
    (lambda a, f: (np.stack([a, a], axis=-1), f), "bad_shape"),  # four axes
    (lambda a, f: (np.roll(a, 40, axis=1), f), "frame_mismatch"),  # on air: the affine agrees, and lies
])
def test_labels_that_do_not_fit(task, change, reason):
    change_label(task / LABEL, change)
    case = read_decathlon(task)[0]
    refused(case.load, reason, "msd_pancreas/pancreas_001")


def test_a_mirrored_slice_order_is_caught_by_the_tissue(tmp_path):
    "An affine that lies in the same way as the array: nothing but the tissue can tell."
    hu = np.full((12, 40, 40), -900, np.int16)  # lung above
    hu[:6, 8:32, 8:32] = 40
    volume = Volume(hu, np.diag([5.0, 1, 1, 1])[[2, 1, 0, 3]], (5, 1, 1))
    labels = np.zeros(hu.shape, np.uint8)
    labels[1:4, 15:25, 15:25] = 1
    from medkit.imaging.collections import _check_tissue
    good = Mask(labels, {1: "pancreas"}, volume.affine, volume.spacing_mm)
    _check_tissue(volume, good)
    refused(lambda: _check_tissue(volume, replace(good, labels=labels[::-1])), "frame_mismatch", "mirrored in slices")


def test_missing_label_missing_image_and_spare_files_are_noted(task):
    (task / LABEL).unlink()
    (task / "imagesTr/pancreas_010.nii.gz").unlink()
    shutil.copy(task / "imagesTr/pancreas_004.nii.gz", task / "imagesTr/pancreas_999.nii.gz")
    cases = read_decathlon(task)
    assert cases.patients == [f"msd_pancreas/pancreas_{n:03d}" for n in (1, 2, 4)] and len(cases.labelled) == 1
    assert cases.notes == ("1 listed images are missing: pancreas_010.nii.gz", "1 listed label files are missing: pancreas_001.nii.gz",
                           "1 files are not listed and left out: pancreas_999.nii.gz")


@pytest.mark.parametrize("changes", [
    {"labels": None}, {"labels": []}, {"labels": {"background": "0"}}, {"training": "all"}, {"training": [7]}, {"modality": None},
    {"training": [{"image": 3}]}, {"labels": {"0": "background", "300": "pancreas"}}, {"training": [], "test": []},
])
def test_dataset_json_with_odd_values(task, changes):
    rewritten(task, **changes)
    refused(lambda: read_decathlon(task), "bad_manifest")


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "\0\1", "[" * 100000])
def test_dataset_json_that_is_none(task, text):
    (task / "dataset.json").write_text(text)
    refused(lambda: read_decathlon(task), "bad_manifest")
    refused(lambda: read_nnunet(task), "bad_manifest")


def test_dataset_json_with_several_channels_or_a_way_out(task):
    rewritten(task, modality={"0": "T1", "1": "T2"})
    refused(lambda: read_decathlon(task), "bad_shape", "several channels")
    rewritten(task, modality={"0": "CT"}, test=["../../../etc/passwd"])
    refused(lambda: read_decathlon(task), "unsafe_path")
    rewritten(task, test=["./imagesTs/none.nii.gz"], training=[])
    refused(lambda: read_decathlon(task), "not_found")


def test_a_path_that_leaves_the_folder_is_a_fault_of_dataset_json(task):
    for changes in ({"test": ["../../../etc/passwd"]}, {"training": [{"image": "./imagesTr/pancreas_001.nii.gz", "label": "../x.nii"}]}):
        rewritten(task, **{"training": [], "test": [], **changes})
        refused(lambda: read_decathlon(task), "unsafe_path", "correct it in dataset.json", "../")
        with pytest.raises(MedkitError) as caught:
            read_decathlon(task)
        assert "slice_07.png" not in str(caught.value)


def test_what_dataset_json_lists_twice_is_read_once_and_noted(task):
    listed = json.loads((task / "dataset.json").read_text())["training"]
    rewritten(task, training=listed + listed, test=["imagesTs/pancreas_002.nii.gz", "./imagesTs/pancreas_002.nii.gz", listed[0]["image"]])
    cases = read_decathlon(task)
    assert cases.patients == [f"msd_pancreas/pancreas_{n:03d}" for n in (1, 2, 4, 10)] and len(cases.labelled) == 3
    (note,) = cases.notes
    assert note.startswith("5 entries repeat an image, which is read once: ")
    assert all(note.count(f"pancreas_{n:03d}") == 1 for n in (1, 2, 4, 10))
    other = {**listed[0], "label": listed[1]["label"]}
    rewritten(task, training=[*listed, other])
    refused(lambda: read_decathlon(task), "several_labels", "pancreas_010.nii.gz", "pancreas_001.nii.gz")


def test_notes_name_what_was_left_out_once(task, own):
    listed = json.loads((task / "dataset.json").read_text())["training"]
    rewritten(task, training=listed[:2])  # image and labels of 004 have one name
    assert read_decathlon(task).notes == ("2 files are not listed and left out: pancreas_004.nii.gz",)
    for place in (own, own / "labels"):
        write_nifti(patient(1)[1], place / "p77.nii.gz")
    assert read_case_folder(own, NAMES).notes == ("labels without a case: p77.nii.gz",)


def test_without_dataset_json_the_error_says_what_is_there_and_what_to_write(tmp_path):
    place = tmp_path / "livers"
    (place / "imagesTr").mkdir(parents=True)
    (place / "labelsTr").mkdir()
    write_nifti(patient(1)[0], place / "imagesTr/p01_0000.nii.gz")
    write_nifti(patient(1)[1], place / "labelsTr/p01.nii.gz")
    for reader in (read_decathlon, read_nnunet):
        refused(lambda: reader(place), "not_found", "no dataset.json in `livers`", "found: imagesTr/, labelsTr/", "names the labels",
                '"labels": {"background": 0, "liver": 1}')
    refused(lambda: read_case_folder(place, NAMES), "not_found", "read_nnunet", "names their labels", "dataset.json")
    (place / "dataset.json").write_text(
        '{"channel_names": {"0": "CT"},\n "labels": {"background": 0, "pancreas": 1, "tumour": 2},\n "file_ending": ".nii.gz"}')
    cases = read_nnunet(place)  # the three lines that the pages show are enough
    assert cases.patients == ["livers/p01"] and cases.notes == () and np.array_equal(cases[0].load()[1].labels, patient(1)[1].labels)


@pytest.mark.parametrize("names", [["liver", "spleen"], ("liver",), "liver", 5, {"liver"}, [1, 2], b"a"])
def test_names_that_are_no_mapping(own, names):
    refused(lambda: read_case_folder(own, names), "bad_option", '{1: "liver"}')


def test_each_layout_names_the_reader_of_the_other(task, nnunet):
    refused(lambda: read_nnunet(task), "bad_manifest", "read_decathlon")
    refused(lambda: read_decathlon(nnunet), "bad_manifest", "read_nnunet")
    refused(lambda: read_decathlon(task.parent), "bad_option", "2 folders")


@pytest.mark.parametrize("changes, reason", [
    ({"file_ending": ".nrrd"}, "unsupported_format"), ({"file_ending": None}, "unsupported_format"), ({"labels": None}, "bad_manifest"),
    ({"labels": {"background": 0, "whole": [1, 2]}}, "bad_manifest"), ({"channel_names": {"0": "CT", "1": "PET"}}, "bad_shape"),
    ({"channel_names": None}, "bad_manifest"), ({"labels": {"background": 0, "a": 1, "b": 1}}, "bad_manifest"),
])
def test_nnunet_json_with_odd_values(nnunet, changes, reason):
    rewritten(nnunet, **changes)
    refused(lambda: read_nnunet(nnunet), reason)


def test_nnunet_names_and_counts(nnunet):
    (nnunet / "labelsTr/pancreas_001.nii.gz").unlink()
    shutil.copy(nnunet / "imagesTr/pancreas_004_0000.nii.gz", nnunet / "imagesTr/pancreas_005.nii.gz")
    rewritten(nnunet, numTraining=281)
    cases = read_nnunet(nnunet)
    assert len(cases) == 3 and len(cases.labelled) == 1 and len(cases.notes) == 3
    shutil.copy(nnunet / "imagesTr/pancreas_004_0000.nii.gz", nnunet / "imagesTr/pancreas_004_0001.nii.gz")
    refused(lambda: read_nnunet(nnunet), "bad_shape", "pancreas_004_0001")


@pytest.mark.parametrize("name", ["imagesTr/pancreas_001.nii.gz", LABEL])
@pytest.mark.parametrize("keep", [0, 10, 200, -100])
def test_a_cut_file_is_named(task, name, keep):
    whole = (task / name).read_bytes()
    (task / name).write_bytes(whole[:keep])
    with pytest.raises(MedkitError, match="pancreas_001") as caught:
        read_decathlon(task)[0].load()
    assert caught.value.reason in ("empty", "truncated", "unsupported_format")


def test_a_header_cut_inside_the_gzip(task):
    path = task / "imagesTr/pancreas_001.nii.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:100]))
    refused(read_decathlon(task)[0].load, "unsupported_format", "pancreas_001")


def test_nih_label_faults(nih):
    labels = nih / "TCIA_pancreas_labels-02-05-2017"
    good = (labels / "label0001.nii.gz").read_bytes()
    for change, reason in ((lambda a, f: (a[:, :, 1:], f), "frame_mismatch"), (lambda a, f: (a, np.eye(4)), "frame_mismatch"),
                           (lambda a, f: (a, f @ np.diag([1.1, 1.1, 1, 1])), "frame_mismatch"), (lambda a, f: (2 * a, f), "unknown_label"),
                           (lambda a, f: (np.roll(a, a.shape[0] // 2, axis=0), f), "frame_mismatch"),
                           (lambda a, f: (a, f @ np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
                                          @ np.diag([1, 1, 3, 1])), "frame_mismatch")):
        change_label(labels / "label0001.nii.gz", change)
        refused(read_nih_pancreas(nih)[0].load, reason, "PANCREAS_0001")
        (labels / "label0001.nii.gz").write_bytes(good)
    shutil.copy(labels / "label0001.nii.gz", labels / "label0099.nii.gz")
    (labels / "label0002.nii.gz").unlink()
    cases = read_nih_pancreas(nih)
    assert len(cases.labelled) == 1 and cases.notes[2:] == ("no label file for 0002", "labels without a scan: 0099")
    (labels / "label0001.nii").write_bytes(gzip.decompress(good))
    refused(lambda: read_nih_pancreas(nih), "several_labels", "label0001.nii")


def test_nih_twice_on_disk_and_two_series(nih):
    first = nih / "manifest-1599750808610/Pancreas-CT/PANCREAS_0001"
    write_series(replace(patient(3)[0], patient_key="PANCREAS_0001"), first / "1.2.1/1.2.1.2")
    refused(read_nih_pancreas(nih)[0].load, "several_series", "PANCREAS_0001")
    shutil.copytree(first, nih / "manifest-2/Pancreas-CT/PANCREAS_0001")
    refused(lambda: read_nih_pancreas(nih), "several_labels", "0001")


def test_nih_with_a_lost_slice(nih):
    place = nih / "manifest-1599750808610/Pancreas-CT/PANCREAS_0001"
    sorted(place.rglob("*.dcm"))[4].unlink()
    refused(read_nih_pancreas(nih)[0].load, "missing_slices", "PANCREAS_0001")
    volume, mask, _ = read_nih_pancreas(nih, on_fault="correct")[0].load()
    assert volume.shape == mask.shape


def test_own_folder_faults(own):
    refused(lambda: read_case_folder(own), "bad_option", "names=")
    refused(lambda: read_case_folder(own, {"pancreas": 1}), "bad_option")
    refused(read_case_folder(own, {1: "pancreas"})[0].load, "unknown_label", "ward/H-1")
    write_nifti(patient(1)[1], own / "p01.nii.gz")
    refused(lambda: read_case_folder(own, NAMES), "several_labels", "organs.nii.gz", "p01.nii.gz")
    (own / "p01.nii.gz").rename(own / "p77.nii.gz")
    (own / "p01/organs.nii.gz").unlink()
    assert read_case_folder(own, NAMES).notes == ("no labels for p01", "labels without a case: p77.nii.gz")
    write_series(replace(patient(9)[0], patient_key="H-1"), own / "p01/study/late")
    refused(read_case_folder(own, NAMES)[0].load, "several_series", "ward/H-1")


def test_a_folder_without_what_it_should_hold(tmp_path, task):
    (tmp_path / "bare").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text/readme.txt").write_text("nothing here")
    for reader in (read_nih_pancreas, read_cptac_pda, read_case_folder, read_decathlon, read_nnunet):
        with pytest.raises(MedkitError) as caught:
            reader(tmp_path / "bare")
        assert caught.value.reason in ("empty", "not_found")
        refused(lambda: reader(tmp_path / "text"), "not_found")
        for odd in (None, 5, tmp_path / "none", "a\0b", tmp_path / "text/readme.txt"):
            with pytest.raises(MedkitError) as caught:
                reader(odd)
            assert caught.value.reason in ("not_found", "not_readable")


def test_a_scan_without_a_patient_says_so(own):
    for path in (own / "p04").rglob("*.dcm"):
        one = dcmread(path)
        one.PatientID = ""
        one.save_as(path)
    cases = read_case_folder(own, NAMES)
    assert cases.patients == ["ward/H-1", "ward/p04"] and "no header states the patient" in cases.notes[0]
    assert cases[1].load()[0].patient_key == "ward/p04"


def test_pooled_collections_share_no_key(nih, task, nnunet):
    pool = [*read_nih_pancreas(nih), *read_decathlon(task), *read_nnunet(nnunet)]
    assert len({case.patient_key for case in pool}) == len(pool) and {case.tags.get("also_in") for case in pool} == {"panorama"}


def test_labels_are_merged_to_common_ones(nih, task):
    organ = {"pancreas": ("pancreas", "cancer")}
    pool = [*read_decathlon(task).labelled.merged(organ), *read_nih_pancreas(nih).merged(organ)]
    for case in pool:
        mask = pickle.loads(pickle.dumps(case)).load()[1]
        assert mask.names == {0: "background", 1: "pancreas"} and set(np.unique(mask.labels)) == {0, 1}
    only = read_decathlon(task).merged({"mass": "cancer"})
    assert only.names == {0: "background", 1: "mass"} and np.array_equal(only[0].load()[1].labels, patient(1)[1].labels == 2)
    for odd in ({"mass": "liver"}, {}, None, {3: "pancreas"}):
        refused(lambda: read_decathlon(task).merged(odd), "bad_option")
