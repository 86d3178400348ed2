"""De-identification: every attribute of the profile at three depths, two processes, references, pixels, and what an audit must see."""

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import warnings
import zlib
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from dicomanonymizer.simpledicomanonymizer import initialize_actions
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import DataElement, dcmread, dcmwrite
from pydicom.data import get_testdata_file
from pydicom.datadict import dictionary_has_tag, dictionary_keyword, dictionary_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, MRImageStorage, RLELossless,
    SecondaryCaptureImageStorage, SegmentationStorage,
)

from medkit.errors import DataError, ImageError, MedkitError
from medkit.imaging.audit import audit_deidentified
from medkit.imaging.deid import deidentify, deidentify_file, pseudonym, read_key
from medkit.imaging.dicom import read_image
from medkit.imaging.series import read_series
from medkit.imaging.share import deidentify_folder

KEY = bytes(range(32))
# what can stand in a dataset: neither file meta nor commands, and of a kind that pydicom knows
PROFILE = sorted(
    tag[0] << 16 | tag[1] for tag in initialize_actions("dicomfields_2026c")
    if len(tag) == 2 and tag[0] > 4 and dictionary_has_tag(tag[0] << 16 | tag[1])
)


def base(**values) -> Dataset:
    "A small CT slice of a simulated patient."
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = values.pop("syntax", ExplicitVRLittleEndian)
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "1.2.3.4.5.6"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = "1.2.3.1", "1.2.3.2", "1.2.3.3"
    dataset.PatientID, dataset.PatientName, dataset.Modality = "SIM-4711", "Testcase^Sim", "CT"
    dataset.StudyDate, dataset.StudyTime = "20240229", "101530"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel, dataset.BitsAllocated = 4, 4, 1, 16
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = np.arange(16, dtype="<u2").tobytes()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def as_bytes(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def planted_value(tag: int, number: int, depth: int):  # the value, and the bytes that must not be found again
    "A value of the right kind, found nowhere else."
    vr, unique = dictionary_VR(tag), depth * 1000 + number
    if vr == "SQ":
        item = Dataset()
        item.CodeMeaning = f"PLANT{unique:05}"
        return Sequence([item]), f"PLANT{unique:05}".encode()
    if vr in ("DA", "DT"):  # dates further apart than any shift could hide: the fraction or the year tells
        day = f"{1600 + unique % 390}{1 + unique % 12:02}{1 + unique % 28:02}"
        text = day if vr == "DA" else f"{day}101530.{unique:06}"
        return text, text.encode()
    if vr == "TM":
        return f"101530.{unique:06}", f"101530.{unique:06}".encode()
    if vr == "UI":
        return f"1.2.826.99.{unique}.7", f"1.2.826.99.{unique}.7".encode()
    if vr in ("US", "UL", "FD", "FL"):
        value = 40_000 + unique
        return value, struct.pack({"US": "<H", "UL": "<L", "FD": "<d", "FL": "<f"}[vr], value)
    if vr in ("DS", "IS"):
        return f"77{unique:05}", f"77{unique:05}".encode()
    if vr == "AS":
        return "077Y", b"077Y"
    text = f"PLANT{unique:05}" + "U" * (vr == "CS")
    return (text.encode(), text.encode()) if vr in ("OB", "UN", "OW") else (text, text.encode())


def planted(depth: int, syntax=ExplicitVRLittleEndian) -> tuple[Dataset, dict[int, bytes]]:
    "A slice with a unique value in every attribute of the profile, `depth` sequences down."
    dataset, values = base(syntax=syntax), {}
    place = dataset
    for _ in range(depth):
        place.DerivationCodeSequence = [Dataset()]  # a sequence that the profile keeps
        place = place.DerivationCodeSequence[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, tag in enumerate(PROFILE):
            value, values[tag] = planted_value(tag, number, depth)
            place.add_new(tag, dictionary_VR(tag), value)
    place.add_new(0x00091010, "LO", "PRIVATEPLANT")
    place.add_new(0x60003000, "OW", b"OVERLAYPLANT")
    place.add_new(0x50000010, "US", 1)
    return dataset, values


def test_the_profile_is_as_long_as_measured(record_property):
    record_property("profile attributes planted at each of three depths", len(PROFILE))
    assert len(PROFILE) >= 613


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian], ids=lambda s: s.keyword)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_no_planted_value_is_left(depth, syntax, tmp_path, record_property):
    dataset, values = planted(depth, syntax)
    numeric = {tag for tag in values if dictionary_VR(tag) in ("US", "UL", "FD", "FL")}
    if syntax != ExplicitVRBigEndian:
        before = as_bytes(dataset)
        assert all(value in before for value in values.values())
    (tmp_path / "in.dcm").write_bytes(as_bytes(dataset))
    safe = deidentify(dcmread(tmp_path / "in.dcm"), KEY)
    after = as_bytes(safe)
    left = [hex(tag) for tag, value in values.items() if tag not in numeric and value in after]
    left += [hex(tag) for tag in numeric if any(item.value for item in safe.iterall() if item.tag == tag)]
    record_property(f"left at depth {depth}, {syntax.keyword}", f"{len(left)} of {len(values)}")
    assert left == []
    assert b"PRIVATEPLANT" not in after and b"OVERLAYPLANT" not in after
    assert not any(element.tag.is_private or element.tag.group & 0xFF00 in (0x5000, 0x6000) for element in safe.iterall())
    (tmp_path / "out.dcm").write_bytes(after)
    assert audit_deidentified(tmp_path / "out.dcm") == []


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_the_audit_sees_every_planted_value(depth, tmp_path):
    dataset, values = planted(depth)
    (tmp_path / "in.dcm").write_bytes(as_bytes(dataset))
    seen = {leftover.where.split("].")[-1] for leftover in audit_deidentified(tmp_path / "in.dcm")}
    kept = {"ReferencedImageSequence", "SourceImageSequence"}  # they may hold references, so their items are judged
    assert {dictionary_keyword(tag) for tag in values} - kept <= seen


def test_a_sequence_hidden_as_unknown_is_opened(tmp_path):
    "An explicit file may carry a sequence with VR UN and implicit content (PS3.5 6.2.2)."
    inner = Dataset()
    inner.PatientName, inner.ReferencedSOPInstanceUID = "HIDDEN^NAME", "1.2.3.4.5.6"
    stream = io.BytesIO()
    dcmwrite(stream, inner, implicit_vr=True, little_endian=True)
    item = b"\xfe\xff\x00\xe0" + struct.pack("<L", len(stream.getvalue())) + stream.getvalue()
    for length, tail in ((len(item), b""), (0xFFFFFFFF, b"\xfe\xff\xdd\xe0" + bytes(4))):
        element = struct.pack("<HH2s2xL", 0x0008, 0x9215, b"UN", length) + item + tail
        whole = as_bytes(base())
        at = whole.index(struct.pack("<HH", 0x0010, 0x0010))
        (tmp_path / "un.dcm").write_bytes(whole[:at] + element + whole[at:])
        safe = deidentify(dcmread(tmp_path / "un.dcm"), KEY)
        assert b"HIDDEN" not in as_bytes(safe)
        assert safe.DerivationCodeSequence[0].ReferencedSOPInstanceUID == safe.SOPInstanceUID


def test_private_creators_sequences_and_contents_go():
    dataset = base()
    block = dataset.private_block(0x0029, "SIM MAKER", create=True)
    inner = Dataset()
    inner.PatientName = "INNER^NAME"
    block.add_new(1, "SQ", [inner])
    assert b"INNER" not in as_bytes(deidentify(dataset, KEY)) and b"MAKER" not in as_bytes(deidentify(dataset, KEY))


def test_group_length_padding_unknown_and_lying_kinds_go(tmp_path):
    dataset = base()
    dataset.add_new(0x00080000, "UL", 1)
    dataset.add_new(0x00280007, "LO", "UNKNOWN PUBLIC")
    dataset.add_new(0x00280030, "LO", "NOT A SPACING")  # PixelSpacing is a number
    dataset.add_new(0xFFFCFFFC, "OB", b"PADDING NAME")
    safe = as_bytes(deidentify(dataset, KEY))
    for text in (b"UNKNOWN", b"SPACING", b"PADDING"):
        assert text not in safe
    (tmp_path / "in.dcm").write_bytes(as_bytes(dataset))
    assert {"padding", "unknown_element", "wrong_kind"} <= {item.kind for item in audit_deidentified(tmp_path / "in.dcm")}


def test_the_patients_own_words_are_found_anywhere():
    code = Dataset()
    code.CodeMeaning, code.CodeValue = "Follow-up of TESTCASE", "SIM-4711"
    safe = deidentify(base(DerivationCodeSequence=[code], ConvolutionKernel="Testcase"), KEY)
    assert b"TESTCASE" not in as_bytes(safe).upper() and b"4711" not in as_bytes(safe)


def test_free_text_outside_the_profile_goes():
    safe = deidentify(base(SurfaceComments="seen by nobody", SegmentDescription="somebody's liver", SegmentLabel="Liver"), KEY)
    assert "SurfaceComments" not in safe and "SegmentDescription" not in safe and safe.SegmentLabel == "Liver"


def test_a_second_run_changes_nothing():
    first = deidentify(base(AccessionNumber="A1", StudyID="S1"), KEY)
    assert as_bytes(deidentify(first, KEY)) == as_bytes(first)
    assert deidentify(first, bytes(32)[:31] + b"1").SOPInstanceUID != first.SOPInstanceUID


def test_a_forged_or_edited_stamp_saves_nobody():
    first = deidentify(base(), KEY)
    first.ReferringPhysicianName, first.AccessionNumber = "Doctor^Who", "REAL-ACCESSION"
    first.ReferencedSOPInstanceUID = "1.2.3.9"
    again = as_bytes(deidentify(first, KEY))
    assert b"Doctor" not in again and b"REAL-ACC" not in again and b"1.2.3.9" not in again
    forged = base(DeidentificationMethod=list(first.DeidentificationMethod))
    assert b"SIM-4711" not in as_bytes(deidentify(forged, KEY))


def test_the_input_is_untouched():
    data = as_bytes(planted(1)[0])
    dataset = dcmread(io.BytesIO(data))
    deidentify(dataset, KEY)
    assert as_bytes(dataset) == data
    memory = planted(1)[0]
    text = str(memory)
    safe = deidentify(memory, KEY)
    safe.DerivationCodeSequence[0].clear()
    safe.ImageType = ["CHANGED"]
    assert str(memory) == text


SCRIPT = """
import sys, json
from pathlib import Path
from medkit.imaging.deid import deidentify_file
rows = [deidentify_file(Path(p), lambda n, d: (Path(sys.argv[1]) / n.replace("/", "_")).write_bytes(d), {"key": sys.argv[2]}, lambda: None)
        for p in sys.argv[3:]]
print(json.dumps(rows))
"""


def test_two_processes_with_one_key_keep_a_series_together(tmp_path):
    paths = []
    for number in range(6):
        dataset = base(SOPInstanceUID=f"1.2.3.4.{number}", InstanceNumber=number, ContentTime=f"10153{number}.5", ContentDate="20240301")
        dataset.ImagePositionPatient = [0, 0, number]
        paths.append(tmp_path / f"{number}.dcm")
        paths[-1].write_bytes(as_bytes(dataset))
    key = tmp_path / "key"
    read_key(key, create=True)
    (tmp_path / "out").mkdir()
    env = {**os.environ, "PYTHONHASHSEED": "random"}
    for half in (paths[:3], paths[3:]):
        subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / "out"), str(key), *map(str, half)], check=True, env=env)
    made = [dcmread(path) for path in sorted((tmp_path / "out").iterdir())]
    assert len(made) == 6 and len({m.SOPInstanceUID for m in made}) == 6
    for name in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "StudyDate", "ContentDate"):
        assert len({str(m[name].value) for m in made}) == 1
    times = sorted((m.InstanceNumber, float(str(m.ContentTime)[-4:])) for m in made)
    assert all(b[1] - a[1] in (1.0, -59.0) for a, b in zip(times, times[1:]))
    assert audit_deidentified(tmp_path / "out") == []


def test_different_keys_and_patients_differ():
    a, b, c = deidentify(base(), KEY), deidentify(base(), bytes(reversed(KEY))), deidentify(base(PatientID="SIM-2"), KEY)
    assert a.PatientID != b.PatientID and a.SOPInstanceUID != b.SOPInstanceUID and a.StudyDate != b.StudyDate
    assert a.PatientID != c.PatientID and a.SOPInstanceUID == c.SOPInstanceUID and a.StudyDate != c.StudyDate


def test_references_between_objects_stay_consistent():
    image = deidentify(base(), KEY)
    segmentation = base(SOPClassUID=SegmentationStorage, SOPInstanceUID="1.2.3.77", Modality="SEG")
    source, series, derivation = Dataset(), Dataset(), Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = CTImageStorage, "1.2.3.4.5.6"
    source.CodeMeaning = "PLANTED"
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = "1.2.3.2", [source]
    derivation.SourceImageSequence = [source]
    segmentation.ReferencedSeriesSequence, segmentation.DerivationImageSequence = [series], [derivation]
    safe = deidentify(segmentation, KEY)
    assert safe.FrameOfReferenceUID == image.FrameOfReferenceUID
    assert safe.ReferencedSeriesSequence[0].SeriesInstanceUID == image.SeriesInstanceUID
    for item in (safe.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0], safe.DerivationImageSequence[0].SourceImageSequence[0]):
        assert item.ReferencedSOPInstanceUID == image.SOPInstanceUID and item.ReferencedSOPClassUID == CTImageStorage
    assert "CodeMeaning" not in safe.DerivationImageSequence[0].SourceImageSequence[0]
    assert safe.SOPClassUID == SegmentationStorage


def test_file_meta_is_new_and_the_preamble_empty(tmp_path):
    dataset = base()
    dataset.preamble = b"SECRET NAME".ljust(128, b"\1")
    dataset.file_meta.SourceApplicationEntityTitle = "SCANNER_AE"
    dataset.file_meta.PrivateInformationCreatorUID, dataset.file_meta.PrivateInformation = "1.2.3.9", b"PRIVATEINFO"
    (tmp_path / "in.dcm").write_bytes(as_bytes(dataset))
    assert {"preamble", "file_meta"} <= {item.kind for item in audit_deidentified(tmp_path / "in.dcm")}
    data = as_bytes(deidentify(dcmread(tmp_path / "in.dcm"), KEY))
    made = dcmread(io.BytesIO(data))
    assert data[:132] == bytes(128) + b"DICM" and b"SCANNER_AE" not in data and b"PRIVATEINFO" not in data
    assert made.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID


@pytest.mark.parametrize("tail", [b"\0\0\0\0trailing name", b"NAME", b"\x11\x00\x09\x10LO\x04\x00NAME"], ids=["zeros", "short", "element"])
def test_bytes_after_the_end_are_listed_and_never_copied(tail, tmp_path):
    (tmp_path / "in.dcm").write_bytes(as_bytes(base()) + tail)
    (tmp_path / "key").write_text(KEY.hex())
    (tmp_path / "key").chmod(0o600)
    assert {"trailing_bytes", "unreadable", "private", "unknown_element"} & {item.kind for item in audit_deidentified(tmp_path / "in.dcm")}
    made = {}
    try:
        deidentify_file(tmp_path / "in.dcm", made.__setitem__, {"key": str(tmp_path / "key")}, lambda: None)
    except MedkitError as error:
        assert error.reason in ("truncated", "bad_header")
    assert not any(b"name" in data.lower() for data in made.values())


def test_what_the_new_file_says_of_itself():
    safe = deidentify(base(), KEY)
    assert safe.PatientIdentityRemoved == "YES" and safe.LongitudinalTemporalInformationModified == "MODIFIED"
    assert [item.CodeValue for item in safe.DeidentificationMethodCodeSequence] == ["113100", "113107"]
    assert safe.PatientID == safe.PatientName == pseudonym("SIM-4711", KEY)


# dates

moments = st.datetimes(datetime(1930, 1, 1), datetime(2090, 1, 1)).map(lambda moment: moment.replace(microsecond=0))


def moved(**values) -> Dataset:
    dataset = Dataset()
    dataset.PatientID = "SIM-4711"
    for name, value in values.items():
        setattr(dataset, name, value)
    return deidentify(dataset, KEY)


@settings(max_examples=60, deadline=None)
@given(moments, moments)
def test_intervals_stay_exact(one, two):
    safe = moved(
        StudyDate=one.strftime("%Y%m%d"), StudyTime=one.strftime("%H%M%S"), SeriesDate=two.strftime("%Y%m%d"),
        SeriesTime=two.strftime("%H%M%S"), AcquisitionDateTime=two.strftime("%Y%m%d%H%M%S"))
    first = datetime.strptime(safe.StudyDate + safe.StudyTime, "%Y%m%d%H%M%S")
    second = datetime.strptime(safe.SeriesDate + safe.SeriesTime, "%Y%m%d%H%M%S")
    assert second - first == two - one
    assert datetime.strptime(safe.AcquisitionDateTime, "%Y%m%d%H%M%S") == second
    assert timedelta(days=730) < one - first < timedelta(days=3653)


@settings(max_examples=60, deadline=None)
@given(moments, moments)
def test_days_between_lone_dates_stay_exact(one, two):
    safe = moved(StudyDate=one.strftime("%Y%m%d"), SeriesDate=two.strftime("%Y%m%d"))
    days = datetime.strptime(safe.SeriesDate, "%Y%m%d") - datetime.strptime(safe.StudyDate, "%Y%m%d")
    assert days == two.replace(hour=0, minute=0, second=0) - one.replace(hour=0, minute=0, second=0)


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=20))
def test_any_text_as_a_date_is_moved_or_removed(text):
    dataset = Dataset()
    dataset.PatientID = "SIM-4711"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword in ("StudyDate", "StudyTime", "AcquisitionDateTime"):
            dataset[keyword] = DataElement(keyword, dictionary_VR(keyword), text)
        safe = deidentify(dataset, KEY)
    for keyword in ("StudyDate", "StudyTime", "AcquisitionDateTime"):
        value = str(safe.get(keyword) or "")
        assert value == "" or value.replace(".", "").isdigit()


@pytest.mark.parametrize("bad", ["20230229", "2024", "00010101", "20240229-20240301", "yesterday", "20241301", "00000000"])
def test_invalid_dates_are_removed(bad):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert moved(StudyDate=bad).StudyDate in ("", None)
        assert "CurveDate" not in moved(CurveDate=bad)


def test_zones_and_births_go():
    safe = moved(AcquisitionDateTime="20240229101530.25+0530", TimezoneOffsetFromUTC="+0530", PatientBirthDate="19500101",
                 PatientBirthTime="1200")
    assert "+0530" not in str(safe) and not safe.PatientBirthDate and "PatientBirthTime" not in safe
    assert safe.AcquisitionDateTime.endswith(".25")


# pixels

def test_bits_above_those_in_use_are_cleared(tmp_path):
    values = np.arange(16, dtype="<u2")
    dataset = base(PixelData=(values | (np.arange(16, dtype="<u2") % 2 << 12)).astype("<u2").tobytes() + b"NAME")
    dataset.add_new(0x60000102, "US", 12)  # an overlay that lives in bit 12
    (tmp_path / "in.dcm").write_bytes(as_bytes(dataset))
    assert {"high_bits", "surplus_pixels", "overlay"} <= {item.kind for item in audit_deidentified(tmp_path / "in.dcm")}
    safe = deidentify(dcmread(tmp_path / "in.dcm"), KEY)
    assert safe.PixelData == values.tobytes()


def test_high_bits_of_big_endian_and_signed_pixels():
    stored = np.array([-2048, -1, 0, 2047, 5, 6, 7, 8] * 2, dtype=">i2")
    dirty = (stored.astype("<u2") & 0x0FFF | 0x5000).astype(">u2")
    safe = deidentify(base(syntax=ExplicitVRBigEndian, PixelRepresentation=1, PixelData=dirty.tobytes()), KEY)
    assert (np.frombuffer(safe.PixelData, ">i2") == stored).all()
    clean = deidentify(base(syntax=ExplicitVRBigEndian, PixelRepresentation=1, PixelData=stored.tobytes()), KEY)
    assert clean.PixelData == stored.tobytes()


def test_an_overlay_inside_compressed_pixels_is_taken_out():
    values = (np.arange(16, dtype="<u2") | (np.arange(16, dtype="<u2") % 2 << 12)).astype("<u2")
    dataset = base(PixelData=values.tobytes(), BitsStored=16, HighBit=15)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.add_new(0x60000102, "US", 12)
    safe = deidentify(dataset, KEY)
    assert (safe.pixel_array.ravel() == np.arange(16)).all() and (np.frombuffer(safe.PixelData, "<u2") < 4096).all()


def test_comments_in_compressed_pixels_are_blanked(tmp_path):
    path = get_testdata_file("MR_small_jp2klossless.dcm", download=False)
    dataset = dcmread(path)
    before = dataset.pixel_array
    safe = deidentify(dataset, KEY)
    (tmp_path / "out.dcm").write_bytes(as_bytes(safe))
    assert [item for item in audit_deidentified(tmp_path / "out.dcm") if item.kind == "comment"] == []
    assert (dcmread(tmp_path / "out.dcm").pixel_array == before).all()
    jpeg = b"\xff\xd8\xff\xfe\x00\x0bSIM NAME!" + b"\xff\xda\x00\x02" + b"x\xff\xd9"
    dataset = base(syntax="1.2.840.10008.1.2.4.50", PixelData=encapsulate([jpeg]))
    dataset["PixelData"].is_undefined_length = True
    assert b"SIM NAME" not in as_bytes(deidentify(dataset, KEY))


def packaged() -> list[str]:
    names = """CT_small.dcm MR_small.dcm MR_small_RLE.dcm MR_small_bigendian.dcm MR_small_implicit.dcm JPEG2000.dcm SC_rgb_jpeg_dcmtk.dcm
    693_J2KI.dcm MR_small_jpeg_ls_lossless.dcm image_dfl.dcm color-pl.dcm examples_palette.dcm SC_rgb_small_odd.dcm SC_rgb_jpeg.dcm
    liver_1frame.dcm rtdose.dcm rtstruct.dcm rtplan.dcm reportsi.dcm test-SR.dcm waveform_ecg.dcm
    ExplVR_BigEnd.dcm SC_rgb_small_odd_big_endian.dcm examples_overlay.dcm examples_ybr_color.dcm eCT_Supplemental.dcm emri_small_RLE.dcm"""
    return [name for name in names.split() if get_testdata_file(name, download=False)]


@pytest.mark.parametrize("name", packaged())
def test_packaged_files_come_out_clean_and_readable(name, tmp_path):
    made = {}
    key = tmp_path / "key"
    read_key(key, create=True)
    path = Path(get_testdata_file(name, download=False))
    facts = deidentify_file(path, made.__setitem__, {"key": str(key)}, lambda: None)
    json.dumps(facts)
    (data,) = made.values()
    out = tmp_path / "out.dcm"
    out.write_bytes(data)
    assert {item.kind for item in audit_deidentified(out)} <= {"burned_in_unknown"}
    original, safe = dcmread(path, force=True), dcmread(out)
    if "PixelData" in original and original.file_meta.get("TransferSyntaxUID"):
        try:
            before = original.pixel_array
        except Exception:
            return
        assert (safe.pixel_array == before).all()
    if shutil.which("dcmdump"):
        done = subprocess.run(["dcmdump", "-q", str(out)], capture_output=True, text=True)
        assert done.returncode == 0 and "E:" not in done.stderr, done.stderr
    if name in ("CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm"):
        SimpleITK = pytest.importorskip("SimpleITK")
        read = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(out)))
        assert (read == SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))).all()


# refusals

@pytest.mark.parametrize("name, reason", [
    ("UN_sequence.dcm", "bad_header"), ("rtplan_truncated.dcm", "truncated"), ("MR_truncated.dcm", "truncated"),
    ("DICOMDIR", "no_pixels"),
])
def test_files_that_cannot_be_made_safe_are_refused(name, reason, tmp_path):
    path = get_testdata_file(name, download=False)
    read_key(tmp_path / "key", create=True)
    made = {}
    with pytest.raises(MedkitError) as caught:
        deidentify_file(Path(path), made.__setitem__, {"key": str(tmp_path / "key")}, lambda: None)
    assert caught.value.reason == reason and made == {}


def test_burned_in_text_is_refused_unless_kept(tmp_path):
    dataset = base(BurnedInAnnotation="YES")
    with pytest.raises(ImageError) as caught:
        deidentify(dataset, KEY)
    assert caught.value.reason == "burned_in_text"
    (tmp_path / "out.dcm").write_bytes(as_bytes(deidentify(dataset, KEY, burned_in="keep")))
    assert [item.kind for item in audit_deidentified(tmp_path / "out.dcm")] == ["burned_in_text"]


@pytest.mark.parametrize("modality", ["US", "XA", "OT", "SC", "RF"])
def test_kinds_that_often_hold_text_are_remarked(modality, tmp_path):
    with pytest.warns(UserWarning, match="burned into"):
        safe = deidentify(base(Modality=modality), KEY)
    (tmp_path / "out.dcm").write_bytes(as_bytes(safe))
    assert [item.kind for item in audit_deidentified(tmp_path / "out.dcm")] == ["burned_in_unknown"]


@pytest.mark.parametrize("uid", ["1.2.840.10008.5.1.4.1.1.104.1", "1.2.840.10008.5.1.4.1.1.104.2",
                                 "1.2.840.10008.5.1.4.1.1.9.4.1"])
def test_documents_and_recordings_are_refused(uid):
    with pytest.raises(ImageError) as caught:
        deidentify(base(SOPClassUID=uid), KEY)
    assert caught.value.reason == "unsupported_format"


def test_a_dicomdir_is_left_out_and_fails_nothing(tmp_path):
    (tmp_path / "cd").mkdir()
    for name in ("DICOMDIR", "CT_small.dcm"):
        shutil.copy(get_testdata_file(name, download=False), tmp_path / "cd" / name)
    report = deidentify_folder(tmp_path / "cd", tmp_path / "out", key=tmp_path / "key", workers=1)
    assert report.counts["failed"] == 0 and report.counts["skipped"] == 1
    (row,) = [row for row in report.files if row["status"] == "skipped"]
    assert row["reason"] == "no_pixels" and row["hint"].startswith("an index of other files: make a new one")


def written(dataset: Dataset, path: Path) -> Path:
    "A file as some exports write it, whatever it lacks."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcmwrite(path, dataset, enforce_file_format=False)
    return path


@pytest.mark.parametrize("modality, stated, expected", [
    ("CT", None, CTImageStorage), ("MR", None, MRImageStorage), ("OT", None, SecondaryCaptureImageStorage),
    ("", None, SecondaryCaptureImageStorage), ("CT", SegmentationStorage, SegmentationStorage), ("CT", "1.2.3.4", CTImageStorage),
])
@pytest.mark.parametrize("empty", [True, False])
def test_missing_class_and_instance_are_made_with_a_remark(modality, stated, expected, empty, tmp_path):
    dataset = base(Modality=modality, BurnedInAnnotation="NO")
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        setattr(dataset, keyword, "") if empty else delattr(dataset, keyword)
    if stated:
        dataset.file_meta.MediaStorageSOPClassUID = stated
    read_key(tmp_path / "key", create=True)
    made = {}
    facts = deidentify_file(written(dataset, tmp_path / "in.dcm"), made.__setitem__, {"key": str(tmp_path / "key")}, lambda: None)
    safe = dcmread(io.BytesIO(*made.values()))
    assert safe.SOPClassUID == safe.file_meta.MediaStorageSOPClassUID == expected
    assert safe.SOPInstanceUID.startswith("2.25.") and safe.SOPInstanceUID.is_valid
    assert "the file had no SOP instance UID: it was taken from the file meta information or the content" in facts["notes"] and any("SOP class UID" in note for note in facts["notes"])


def test_a_made_instance_follows_key_and_content(tmp_path):
    def instance(key: bytes = KEY, **values):
        dataset = base(**values)
        del dataset.SOPInstanceUID
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return deidentify(dcmread(written(dataset, tmp_path / "a.dcm"), force=True), key).SOPInstanceUID

    others = [instance(KEY[::-1]), instance(InstanceNumber=2), instance(PixelData=bytes(32)), instance(ImageComments="removed")]
    assert len({instance(), instance(), *others}) == 5


def test_an_object_without_picture_and_class_is_still_refused(tmp_path):
    dataset = base()
    del dataset.SOPClassUID, dataset.PixelData
    read_key(tmp_path / "key", create=True)
    made = {}
    with pytest.raises(ImageError) as caught:
        deidentify_file(written(dataset, tmp_path / "in.dcm"), made.__setitem__, {"key": str(tmp_path / "key")}, lambda: None)
    assert caught.value.reason == "bad_header" and not made


def test_a_real_series_without_uids_comes_out_whole(real_data, tmp_path):
    source = real_data / "imaging" / "totalsegmentator" / "example_ct_dicom"
    if not source.is_dir():
        pytest.skip("the example series of TotalSegmentator is not here")
    report = deidentify_folder(source, tmp_path / "out", key=tmp_path / "key", workers=1)
    assert report.counts["failed"] == 0 and len(list((tmp_path / "out").rglob("*.dcm"))) == len(list(source.iterdir()))
    assert all("the file had no SOP instance UID: it was taken from the file meta information or the content" in row["notes"] for row in report.files)
    before, after = read_series(source), read_series(next((tmp_path / "out").glob("*/*/")))
    assert (before.voxels == after.voxels).all() and np.allclose(before.affine, after.affine)
    (tmp_path / "out" / "sources.private.jsonl").unlink()
    assert audit_deidentified(tmp_path / "out") == []


def test_a_report_loses_its_text():
    item = Dataset()
    item.ValueType, item.TextValue = "TEXT", "Mrs Testcase has nothing"
    safe = deidentify(base(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", ContentSequence=[item]), KEY)
    assert len(safe.ContentSequence) == 0


@pytest.mark.parametrize("bad", [None, "name", b"bytes", {}, 3])
def test_anything_but_a_dataset_is_refused(bad):
    with pytest.raises(ImageError):
        deidentify(bad, KEY)


@pytest.mark.parametrize("bad", [None, "text", b"", b"short", 5])
def test_anything_but_a_key_is_refused(bad):
    with pytest.raises(DataError) as caught:
        deidentify(base(), bad)
    assert caught.value.reason == "bad_key"


def deep(levels: int) -> bytes:
    "An explicit file whose sequences lie in each other, undefined lengths."
    head = as_bytes(base())
    at = head.index(struct.pack("<HH", 0x0010, 0x0010))
    open_, close = struct.pack("<HH2s2xL", 0x0008, 0x9215, b"SQ", 0xFFFFFFFF) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff", \
        b"\xfe\xff\x0d\xe0" + bytes(4) + b"\xfe\xff\xdd\xe0" + bytes(4)
    return head[:at] + open_ * levels + close * levels + head[at:]


@pytest.mark.parametrize("levels", [60, 5000])
def test_deep_nesting_is_refused_in_words(levels, tmp_path):
    (tmp_path / "deep.dcm").write_bytes(deep(levels))
    key = tmp_path / "key"
    read_key(key, create=True)
    with pytest.raises(MedkitError):
        deidentify_file(tmp_path / "deep.dcm", lambda name, data: None, {"key": str(key)}, lambda: None)
    assert {item.kind for item in audit_deidentified(tmp_path / "deep.dcm")} & {"unreadable", "unchecked"}
    dataset = Dataset()
    for _ in range(levels):
        outer = Dataset()
        outer.DerivationCodeSequence = [dataset]
        dataset = outer
    with pytest.raises(ImageError):
        deidentify(dataset, KEY)


def test_every_mutant_is_cleaned_or_refused(tmp_path):
    "Bytes changed at random: one exception family, and never the name in the result."
    data, rng = bytearray(as_bytes(planted(1)[0])), np.random.default_rng(3)
    key = tmp_path / "key"
    read_key(key, create=True)
    for round_ in range(60):
        mutant = bytearray(data)
        for at in rng.integers(132, len(data), rng.integers(1, 12)):
            mutant[at] = rng.integers(256)
        path = tmp_path / f"m{round_}.dcm"
        path.write_bytes(mutant[: rng.integers(200, len(mutant))] if round_ % 5 == 0 else mutant)
        made = {}
        try:
            deidentify_file(path, made.__setitem__, {"key": str(key)}, lambda: None)
        except MedkitError:
            assert made == {}
        audit_deidentified(path)
        for content in made.values():
            assert b"Testcase" not in content and b"PRIVATEPLANT" not in content


# keys

def test_key_files_that_cannot_be_used(tmp_path):
    def refused(path):
        with pytest.raises(DataError) as caught:
            read_key(path)
        assert caught.value.reason == "bad_key" and caught.value.hint
    refused(tmp_path / "missing")
    refused(tmp_path / "missing" / "deeper")
    refused(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe")
    for content, mode in (("", 0o600), ("ab12", 0o600), ("x" * 64, 0o600), ("0" * 64, 0o600), (KEY.hex(), 0o640), (KEY.hex(), 0o604),
                          (KEY.hex() * 2, 0o600)):
        (tmp_path / "key").write_text(content)
        (tmp_path / "key").chmod(mode)
        refused(tmp_path / "key")
    with pytest.raises(DataError):
        read_key(tmp_path / "no" / "folder", create=True)
    (tmp_path / "key").unlink()
    assert read_key(tmp_path / "key", create=True) == read_key(tmp_path / "key", create=True)


def test_two_processes_make_one_key(tmp_path):
    code = f"from medkit.imaging.deid import read_key; print(read_key({str(tmp_path / 'key')!r}, create=True).hex())"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert len({process.communicate()[0] for process in both}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_real_recordings_come_out_clean(real_data, tmp_path):
    made, refused = {}, []
    key = tmp_path / "key"
    read_key(key, create=True)
    folder = real_data / "imaging"
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in ("", ".dcm")][::3]
    for path in paths:
        try:
            deidentify_file(path, made.__setitem__, {"key": str(key)}, lambda: None)
        except MedkitError as error:
            refused.append(error.reason)
    assert len(made) >= 10 and set(refused) <= {"not_dicom", "truncated", "bad_header", "unsupported_format", "burned_in_text", "no_pixels"}
    for number, data in enumerate(made.values()):
        (tmp_path / f"{number}.dcm").write_bytes(data)
        assert {item.kind for item in audit_deidentified(tmp_path / f"{number}.dcm")} <= {"burned_in_unknown"}


# what an attacker tried

def hidden() -> Dataset:
    item = Dataset()
    item.PatientName, item.PatientID = "Testcase^Sim", "SIM-4711"
    return item


@pytest.mark.parametrize("tag", ["SliceThickness", "Manufacturer", "BodyPartExamined", "SmallestImagePixelValue"])
def test_a_sequence_in_the_place_of_a_value_goes(tag, tmp_path):
    dataset = base()
    dataset.add_new(tag, "SQ", [hidden()])
    (tmp_path / "in.dcm").write_bytes(as_bytes(dataset))
    for one in (dataset, dcmread(tmp_path / "in.dcm")):
        assert b"Testcase" not in as_bytes(deidentify(one, KEY))


@pytest.mark.parametrize("stated", "CS DS IS US SL FD UI DA TM LT AT AE".split())
def test_a_name_stated_as_another_kind_goes(stated, tmp_path):
    data = as_bytes(base(Manufacturer="Testcase Sim    "))
    (tmp_path / "in.dcm").write_bytes(data.replace(b"\x08\0\x70\0LO", b"\x08\0\x70\0" + stated.encode()))
    try:
        assert b"Testcase" not in as_bytes(deidentify(dcmread(tmp_path / "in.dcm"), KEY))
    except ImageError as error:
        assert error.reason == "bad_header"


@pytest.mark.parametrize("stated, kind", [("YES", "CS"), ("Y", "CS"), (["YES", "NO"], "CS"), ("TRUE", "CS"), ("YES", "LO")])
def test_anything_but_no_counts_as_burned_in(stated, kind):
    dataset = base()
    dataset.add_new("BurnedInAnnotation", kind, stated)
    with pytest.raises(ImageError) as caught:
        deidentify(dataset, KEY)
    assert caught.value.reason == "burned_in_text"
    assert deidentify(dataset, KEY, burned_in="keep").BurnedInAnnotation == "YES"


def test_a_recognisable_person_is_remarked():
    with pytest.warns(UserWarning, match="can be recognised"):
        deidentify(base(RecognizableVisualFeatures="YES"), KEY)


@pytest.mark.parametrize("tag", """PatientBirthDateInAlternativeCalendar PatientDeathDateInAlternativeCalendar PatientAlternativeCalendar
    PlacerOrderNumberProcedure FillerOrderNumberProcedure ContactDisplayName HangingProtocolCreator BoardingPassID ItineraryID ICCProfile
    HPGLDocument Signature EncryptedContent ExtendedOffsetTable""".split())
def test_what_the_table_forgets_goes_at_every_depth(tag):
    dataset, item = base(), Dataset()
    for place in (dataset, item):
        place.add_new(tag, dictionary_VR(tag), b"PLANTED!" if dictionary_VR(tag) in ("OB", "OV") else "PLANTED")
    dataset.DerivationCodeSequence = [item]
    assert b"PLANTED" not in as_bytes(deidentify(dataset, KEY))


@pytest.mark.parametrize("name, keyword, text", [
    ("Testcase^Sim", "BodyPartExamined", "TESTCASE"), ("Other^Name", "ImageType", "Testcase^Sim"), ("LEE^ANN", "SegmentLabel", "LEE ANN"),
    ("Yamada^Tarou=山田^太郎", "Manufacturer", "by 山田さん"), ("Testcase^Sim", "Manufacturer", "SIMTESTCASE 4"), ("LEE^ANN", "BodyPartExamined", "LEE"),
    *(("Other^Name", "Manufacturer", day) for day in ("02.01.1960", "1960-01-02", "01/02/1960", "2 Jan 1960", "DOB19600102", "1960 01 02")),
])
def test_own_words_and_what_is_no_code_go(name, keyword, text):
    dataset = base(SpecificCharacterSet="ISO_IR 192", PatientName=name, PatientBirthDate="19600102")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        setattr(dataset, keyword, text)
        assert not deidentify(dataset, KEY).get(keyword)


def test_codes_stay_whatever_the_name():
    safe = deidentify(base(PatientName="CT^AXIAL^^MR", ImageType=["ORIGINAL", "PRIMARY", "AXIAL"], PatientPosition="HFS"), KEY)
    assert (safe.Modality, safe.PatientPosition, list(safe.ImageType)) == ("CT", "HFS", ["ORIGINAL", "PRIMARY", "AXIAL"])
    assert safe.PhotometricInterpretation == "MONOCHROME2"


SECRET = b"TESTCASE^SIM 4711 "


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def picture(kind: str, **options) -> bytes:
    Image = pytest.importorskip("PIL.Image")
    buffer = io.BytesIO()
    Image.fromarray((np.arange(4096) % 251).astype("u1").reshape(64, 64)).save(buffer, kind, **options)
    return buffer.getvalue()


def compressed(fragments: list[bytes], syntax="1.2.840.10008.1.2.4.50", table: bytes = b"", **values) -> Dataset:
    "A picture of 64 by 64 bytes, its fragments as given."
    values = {"Rows": 64, "Columns": 64, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, **values}
    items = [table, *(fragment + b"\0" * (len(fragment) % 2) for fragment in fragments)]
    data = b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<L", len(item)) + item for item in items)
    dataset = base(syntax=syntax, PixelData=data, **values)
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    return dataset


def jpegs() -> dict[str, tuple]:
    plain, layers = picture("JPEG", quality=90), picture("JPEG", progressive=True)
    scan = layers.index(b"\xff\xc4", layers.index(b"\xff\xda"))
    comment, end = segment(0xFE, SECRET), plain.index(b"\xff\xdb")
    marked = {f"marker {marker:X}": ([plain[:2] + segment(marker, SECRET) + plain[2:]],) for marker in (0xFE, 0xE0, 0xE1, 0xE8, 0xEE, 0xF0)}
    return marked | {
        "long JFIF": ([plain[:2] + segment(0xE0, plain[6:20] + SECRET) + plain[20:]],),
        "after the end": ([plain + SECRET],), "between scans": ([layers[:scan] + comment + layers[scan:]],),
        "between segments": ([plain[:end] + SECRET + plain[end:]],),
        "over two fragments": ([plain[:2] + comment[:8], comment[8:] + plain[2:]],), "in the second fragment": ([plain[:end], comment + plain[end:]],),
        "in the table": ([plain], "1.2.840.10008.1.2.4.50", SECRET + b"  "),
    }


@pytest.mark.parametrize("case", ["marker FE", "marker E0", "marker E1", "marker E8", "marker EE", "marker F0", "long JFIF", "after the end", "between scans",
                                  "between segments", "over two fragments", "in the second fragment", "in the table"])
def test_nothing_but_a_picture_stays_in_jpeg(case):
    dataset = compressed(*jpegs()[case])
    safe = deidentify(dataset, KEY)
    assert b"TESTCASE" not in as_bytes(safe)
    plain = picture("JPEG", progressive=True) if case == "between scans" else picture("JPEG", quality=90)
    assert (safe.pixel_array == compressed([plain]).pixel_array).all()
    assert as_bytes(deidentify(safe, KEY)) == as_bytes(safe)


@pytest.mark.parametrize("bare", [True, False])
def test_nothing_but_a_picture_stays_in_jpeg_2000(bare):
    plain = picture("JPEG2000", no_jp2=bare)
    start = plain.index(b"\xff\x4f") + 2
    size = start + 2 + int.from_bytes(plain[start + 2:start + 4])
    tails = [SECRET] + [struct.pack(">L", 8 + len(SECRET)) + kind + SECRET for kind in (b"url ", b"note", b"xml ")] * (not bare)
    changed = [plain + tail for tail in tails] + [plain[:size] + segment(0x64, b"\0\1" + SECRET) + plain[size:]] * bare
    for one in changed:
        safe = deidentify(compressed([one], JPEG2000Lossless), KEY)
        assert b"TESTCASE" not in as_bytes(safe) and (safe.pixel_array == compressed([plain], JPEG2000Lossless).pixel_array).all()


def test_nothing_but_a_picture_stays_in_run_lengths():
    dataset = base()
    dataset.compress(RLELossless, generate_instance_uid=False)
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    header = frame[:12] + SECRET + frame[12 + len(SECRET):]
    for one in (frame + SECRET, header):
        dirty = compressed([one], RLELossless, Rows=4, Columns=4, BitsAllocated=16, BitsStored=12, HighBit=11)
        safe = deidentify(dirty, KEY)
        assert b"TESTCASE" not in as_bytes(safe) and (safe.pixel_array.ravel() == np.arange(16)).all()


def test_frames_in_several_fragments_stay_apart():
    one, two = picture("JPEG", quality=90), picture("JPEG", quality=50)
    data = encapsulate([one + segment(0xFE, SECRET), two + SECRET], fragments_per_frame=3)
    dataset = compressed([one], NumberOfFrames=2)
    dataset.PixelData = data
    before = dataset.pixel_array
    safe = deidentify(dataset, KEY)
    assert b"TESTCASE" not in as_bytes(safe) and (safe.pixel_array == before).all() and safe.pixel_array.shape == (2, 64, 64)


@pytest.mark.parametrize("syntax, data, reason", [
    ("1.2.840.10008.1.2.4.102", b"\0\0\0\x18ftypmp42", "unsupported_format"), ("1.2.840.10008.1.2.4.110", b"\xff\x0a", "unsupported_format"),
    ("1.2.840.10008.1.2.4.50", b"TESTCASE\xff\xd8\xff\xd9", "bad_header"),
])
def test_video_and_what_is_no_picture_are_refused(syntax, data, reason):
    with pytest.raises(ImageError) as caught:
        deidentify(compressed([data], syntax), KEY)
    assert caught.value.reason == reason


def test_pixels_without_layout_are_refused_and_float_pixels_cut():
    dataset = base(PixelData=SECRET)
    del dataset.Rows
    with pytest.raises(ImageError) as caught:
        deidentify(dataset, KEY)
    assert caught.value.reason == "bad_header"
    dataset = base(BitsAllocated=32, FloatPixelData=np.arange(16, dtype="<f4").tobytes() + SECRET)
    del dataset.PixelData
    assert deidentify(dataset, KEY).FloatPixelData == np.arange(16, dtype="<f4").tobytes()


def test_bits_below_those_in_use_are_cleared_with_a_remark():
    values = (np.arange(16, dtype="<u2") << 4).astype("<u2")
    with pytest.warns(UserWarning, match="upper bits"):
        safe = deidentify(base(HighBit=15, PixelData=(values | 5).astype("<u2").tobytes()), KEY)
    assert safe.PixelData == values.tobytes()


def test_classes_of_no_standard_are_refused_or_replaced():
    with pytest.raises(ImageError) as caught:
        deidentify(base(SOPClassUID="1.2.3.19600102.9876543"), KEY)
    assert caught.value.reason == "unsupported_format"
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "TESTCASE.SIM", "1.2.3"
    assert b"TESTCASE" not in as_bytes(deidentify(base(ReferencedImageSequence=[item]), KEY))
    assert deidentify(base(SOPClassUID="1.2.840.10008.5.1.4.1.1.999.1"), KEY).SOPClassUID == "1.2.840.10008.5.1.4.1.1.999.1"


def test_one_number_of_two_hospitals_is_two_patients():
    one, two = (deidentify(base(PatientID="1", IssuerOfPatientID=issuer), KEY) for issuer in ("Hospital A", "Hospital B"))
    assert one.PatientID != two.PatientID and one.StudyDate != two.StudyDate


def test_zones_move_the_time_before_they_go():
    at = [datetime.strptime(moved(AcquisitionDateTime="20240229101530" + zone).AcquisitionDateTime, "%Y%m%d%H%M%S")
          for zone in ("+0000", "+0530", "-0100")]
    assert at[0] - at[1] == timedelta(hours=5.5) and at[2] - at[0] == timedelta(hours=1)


def test_a_key_in_the_folder_of_results_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dcm").write_bytes(as_bytes(base()))
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for key in (tmp_path / "out" / "study.key", tmp_path / "link" / "study.key"):
        with pytest.raises(DataError) as caught:
            deidentify_folder(tmp_path / "in", tmp_path / "out", key=key, workers=1)
        assert caught.value.reason == "bad_key" and list((tmp_path / "out").iterdir()) == []
