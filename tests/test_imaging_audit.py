"The audit of files that are about to leave: what it must find, and where it must stay silent."

import gzip
import io
import json
import os
import struct
import time
import zipfile
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from jobs import nested
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from medkit.errors import DataError, MedkitError
from medkit.imaging.audit import audit_deidentified
from medkit.imaging.deid import deidentify, read_key


def png(*chunks: tuple[bytes, bytes], tail: bytes = b"") -> bytes:
    parts = [(b"IHDR", struct.pack(">LLBBBBB", 1, 1, 8, 0, 0, 0, 0)), *chunks, (b"IDAT", zlib.compress(b"\0\0")), (b"IEND", b"")]
    body = b"".join(struct.pack(">L", len(d)) + k + d + struct.pack(">L", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + body + tail


@pytest.mark.parametrize("kind", [b"tEXt", b"iTXt", b"zTXt", b"eXIf", b"tIME", b"abCd"], ids=bytes.decode)
def test_png_metadata_is_listed(kind, tmp_path):
    (tmp_path / "a.png").write_bytes(png((kind, b"who\0Testcase")))
    assert [(item.kind, item.where) for item in audit_deidentified(tmp_path)] == [("png_metadata", f"chunk {kind.decode()}")]


def test_png_tail_and_torn_png_are_listed(tmp_path):
    (tmp_path / "a.png").write_bytes(png(tail=b"Testcase"))
    (tmp_path / "b.png").write_bytes(png()[:-6])
    (tmp_path / "c.png").write_bytes(png())
    assert [(item.file, item.kind) for item in audit_deidentified(tmp_path)] == [("a.png", "trailing_bytes"), ("b.png", "unreadable")]


@pytest.mark.parametrize("text, kinds", [
    ("PatientName,score\nJane,1\n", {"identifier"}), ("note\n=cmd|' /C calc'!A0\n", {"formula"}), ("a;b\n1;@SUM(A1)\n", {"formula"}),
    ("x\n-1.5\n+3e2\n", set()), ("when\n29.02.2024\n", {"date"}), ("x\njane@example.org\n", {"email"}), ("x\n+49 89 12345678\n", {"phone", "formula"}),
    ("x\nDoe^Jane\n", {"person_name"}), ("x\n1.2.276.0.7230010.3.1.4\n", {"uid"}), ("start_s,heart_rate_bpm\n0.0,61.5\n", set()),
    ("position\n-158.1\\-75.7\n\"-1, -2\"\n", set()), ("x\n-1\\=1\n", {"formula"}), ("x\n1.2.840.10008.1.2.8.1\n", set()),
    ("x\n1.2.840.10008.20240229101530.7\n", {"uid", "date"}), ("x\n0.20101123\\0.5\n", set()),
    ("=header\n1\n", {"formula"}), ("", set()), ("\ufeffMRN\n12\n", {"identifier"}),
])
def test_tables(text, kinds, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    assert {item.kind for item in audit_deidentified(tmp_path)} == kinds


@pytest.mark.parametrize("name, kind", [
    ("Doe^Jane.png", "person_name"), ("Doe, Jane.png", "person_name"), ("scan_20240229.png", "date"), ("2024-02-29", "date"),
    ("4711234.png", "number"), ("MRN-88.png", "number"), ("1.2.276.0.7230010.3.1.dcm", "uid"),
    ("Müller_Jörg", "person_name"), ("JOHN_DOE", "person_name"), ("Doe_John.nii.gz", "person_name"), ("Doe-John.png", "person_name"),
    ("John Doe", "person_name"), ("MR_DOE", "person_name"), ("Mu\u0308ller_Jo\u0308rg", "person_name"), ("O'Hara_Jane", "person_name"),
])
def test_names(name, kind, tmp_path):
    (tmp_path / name).mkdir()
    assert [(item.kind, item.where) for item in audit_deidentified(tmp_path)] == [(kind, "name")]


@pytest.mark.parametrize("name", [
    "without_tumour", "with_tumour", "manifest.jsonl", "CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "IMG_0001", "IM000012", "slice_07.png",
    "0123456789abcdef", "0123456789abcdef.0.png", "sim-00012", "headers.csv", "SC_rgb_small_odd.dcm", "CT_ABDOMEN", "T1_MPRAGE", "Head Neck",
    "README", "SERIES_1", "John", "john_doe", "DICOMDIR",
])
def test_names_that_tell_nothing(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / "empty.csv").touch()
    assert audit_deidentified(tmp_path) == []


@pytest.mark.parametrize("suffix", [".txt", ".md", ".html", ".log", ".xml"])
def test_free_text_is_never_settled(suffix, tmp_path):
    (tmp_path / f"a{suffix}").write_text("Patient John Doe born 1960-01-01, tel 0171 2345678")
    (tmp_path / f"b{suffix}").write_text("the tall one from bed 7\nsaid: hello\n")
    found = [(item.file[0], item.kind) for item in audit_deidentified(tmp_path)]
    assert {kind for file, kind in found if file == "a"} == {"person_name", "date", "phone", "unchecked"}
    assert [kind for file, kind in found if file == "b"] == ["unchecked"]


def test_nothing_to_audit_is_no_comfort(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(DataError) as caught:
        audit_deidentified(tmp_path)
    assert caught.value.reason == "empty"
    (tmp_path / "a" / "Doe_Jane").mkdir()
    assert [item.kind for item in audit_deidentified(tmp_path)] == ["person_name"]


def test_the_audit_tells_how_far_it_is(tmp_path):
    (tmp_path / "folder").mkdir()
    for number in range(3):
        (tmp_path / "folder" / f"{number}.csv").write_text("x\n1\n")
    calls = []
    assert audit_deidentified(tmp_path, on_progress=lambda *call: calls.append(call)) == []
    assert calls == [(done, 3, {}) for done in range(4)]


def test_links_pipes_keys_and_private_lists_are_named_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "sources.private.jsonl").write_text('{"source": "/home/x/Doe^Jane.dcm"}\n')
    read_key(tmp_path / "study", create=True)
    found = {item.file: item.kind for item in audit_deidentified(tmp_path)}
    assert found == {"pipe": "not_opened", "loop": "not_opened", "sources.private.jsonl": "must_not_share", "study": "must_not_share"}


def test_damaged_and_unknown_files_are_listed(tmp_path):
    for name, content in (("a.dcm", b"x" * 200), ("b.json", b"{"), ("c.npz", b"PK"), ("d.nii.gz", b"\x1f\x8b"), ("e.pdf", b"%PDF"),
                          ("f.json", b"[" * 100_000), ("g.csv", b'"' + b"x" * 200_000 + b'"\n')):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "empty.bin").write_bytes(b"")
    found = {item.file: item.kind for item in audit_deidentified(tmp_path)}
    assert set(found) == {"a.dcm", "b.json", "c.npz", "d.nii.gz", "e.pdf", "f.json", "g.csv"}
    assert set(found.values()) <= {"unreadable", "unchecked"}


def test_no_false_alarm_on_what_medkit_writes(tmp_path):
    from medkit.imaging import convert, simulate_abdomen, write_series

    volume, _ = simulate_abdomen(seed=2, shape=(3, 32, 32))
    write_series(volume, tmp_path / "in")
    convert(tmp_path / "in", tmp_path / "out")
    found = audit_deidentified(tmp_path / "out")
    assert {(item.file, item.kind) for item in found} == {("sources.private.jsonl", "must_not_share")}


def test_values_are_short_and_printable(tmp_path):
    (tmp_path / "a.png").write_bytes(png((b"tEXt", b"\x1b[31m" + b"x" * 5000)))
    (item,) = audit_deidentified(tmp_path)
    assert len(item.value) <= 60 and item.value.isprintable()


# what an attacker found in November 2026

def cleaned(**values):
    "A cleaned slice of a simulated patient, with something added afterwards."
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = CTImageStorage, "1.2.3.4.5.6", "CT"
    dataset.PatientID, dataset.PatientName = "SIM-4711", "Testcase^Sim"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel, dataset.BitsAllocated, dataset.BitsStored = 64, 64, 1, 8, 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.PhotometricInterpretation = 7, 0, "MONOCHROME2"
    dataset.PixelData = (np.arange(64 * 64) % 251).astype(np.uint8).tobytes()
    safe = deidentify(dataset, bytes(range(32)))
    for name, value in values.items():
        setattr(safe, name, value)
    return safe


def kinds_of(dataset, tmp_path) -> list[tuple[str, str]]:
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    return [(item.where, item.kind) for item in audit_deidentified(tmp_path / "a.dcm")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name, value, kind", [
    ("ImageType", ["ORIGINAL", "DOEXYZ^JANEXYZ"], "free_text"), ("BodyPartExamined", "Jane Doe", "free_text"),
    ("ManufacturerModelName", "born 1960-01-02 MRN 9876543", "date"), ("ManufacturerModelName", "MRN 9876543", "number"),
    ("Manufacturer", "Doe, Jane", "person_name"), ("Manufacturer", "山田^太郎", "person_name"),
    ("PatientName", ["0123456789abcdef", "Doe^Jane"], "identifier"), ("PatientID", "0123456789abcdef\\MRN9876543", "identifier"),
    ("AccessionNumber", "1234567890123456", "identifier"), ("DeidentificationMethod", ["by Doe^Jane"], "person_name"),
    ("DeidentificationMethod", ["Jane Doe"], "person_name"), ("FrameOfReferenceUID", "2.25.329800735698586629295641978511506172918", "uid"),
    ("BurnedInAnnotation", "Y", "burned_in_text"), ("BurnedInAnnotation", ["YES", "NO"], "burned_in_text"),
    ("PatientBirthDateInAlternativeCalendar", "1338-10-12", "profile"),
])
def test_what_is_added_to_a_cleaned_file_is_found(name, value, kind, tmp_path):
    assert kinds_of(cleaned(), tmp_path) == []
    dataset = cleaned()
    if not str(value).isascii():
        dataset.SpecificCharacterSet = "ISO_IR 192"
    setattr(dataset, name, value)
    assert (name, kind) in kinds_of(dataset, tmp_path)


def test_what_is_added_beside_the_elements_is_found(tmp_path):
    dataset = cleaned()
    item = dataset.DeidentificationMethodCodeSequence[0]
    item.CodeMeaning = "done by Doe^Jane"
    dataset.file_meta.ImplementationVersionName = "DOE^JANE"
    dataset.file_meta.ImplementationClassUID = "1.2.276.19600102"
    assert kinds_of(dataset, tmp_path) == [("ImplementationClassUID", "file_meta"), ("ImplementationVersionName", "file_meta"),
                                           ("DeidentificationMethodCodeSequence[0].CodeMeaning", "person_name")]


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


TEXT = b"DOEXYZ^JANE MRN9876543"


@pytest.mark.parametrize("change", [
    lambda j: j[:2] + segment(0xFE, TEXT) + j[2:], lambda j: j[:2] + segment(0xE0, TEXT) + j[2:], lambda j: j[:2] + segment(0xE8, TEXT) + j[2:],
    lambda j: j[:2] + segment(0xEE, TEXT) + j[2:], lambda j: j + TEXT, lambda j: TEXT + j,
    lambda j: j[:(at := j.find(b"\xff\xc4", j.find(b"\xff\xda")))] + segment(0xFE, TEXT) + j[at:],
], ids=["comment", "app0", "app8", "app14", "after the end", "before the start", "between scans"])
def test_text_in_a_jpeg_is_found(change, tmp_path):
    buffer = io.BytesIO()
    Image.fromarray((np.arange(64 * 64) % 251).astype(np.uint8).reshape(64, 64)).save(buffer, "JPEG", progressive=True)
    for stream, expected in ((buffer.getvalue(), []), (change(buffer.getvalue()), ["comment", "unchecked"])):
        dataset = cleaned(PixelData=encapsulate([stream]))
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
        found = kinds_of(dataset, tmp_path)
        assert len(found) == bool(expected) and {kind for _, kind in found} <= set(expected), found


@pytest.mark.parametrize("text, kinds", [
    ("patient\nJane Doe\n", {"identifier"}), ("patient,dice\n7,0.9\nP08,0.8\n", set()), ("PatID\n12\n", {"identifier"}),
    ("Nachname;Vorname;Geburtsdatum\nDoe;Jane;2.1.1960\n", {"identifier", "date"}), ("name|dob\nJane|1\n", {"identifier"}),
    ("List of March\nno,first_name\n1,Jane\n", {"identifier"}), ("patient_id\n1234567890123456\n", {"identifier"}),
    ("x\n＝cmd\n", {"formula"}), ("x\n\"\n=cmd\"\n", {"formula"}), ("x\n =cmd\n", {"formula"}), ("x,y\n\"a;=cmd|'x'\",1\n", {"formula"}),
    ("x\n20210304101112\n", {"date"}), ("x\n4 Mar 2021\n", {"date"}), ("x\n04-03-2021\n", {"date"}), ("x\n3/4/21\n", {"date"}),
    ("x\n2021-3-4\n", {"date"}), ("epoch,valid_loss\n0,1.25\n1,-0.5\n", set()), (",case,dice\n0,sim-00001,0.9\n1,sim-00002,0.8\n", set()),
])
def test_tables_of_other_people(text, kinds, tmp_path):
    (tmp_path / "t.csv").write_text(text, newline="")
    assert {item.kind for item in audit_deidentified(tmp_path)} == kinds


@pytest.mark.parametrize("text, kinds", [
    ('{"Doe^Jane": 1}', {"person_name"}), ('{"Jane Doe": [1]}', {"person_name"}), ('{"patient_id": 9876543.0}', {"identifier"}),
    ('{"patient_name": {"first": "Jane"}}', {"identifier"}), ('{"patients": 12, "mean_dice": 0.9, "spacing_mm": [1.5, 0.7]}', set()),
])
def test_keys_and_numbers_in_lists(text, kinds, tmp_path):
    (tmp_path / "t.json").write_text(text)
    assert {item.kind for item in audit_deidentified(tmp_path)} == kinds


@pytest.mark.parametrize("content", ["name\nMüller\n".encode("utf-16"), b"PK\x03\x04\0\0\0", b"\xff\xd8\xff\xe0\0\x10JFIF", "Müller".encode("latin-1")],
                         ids=["utf-16", "xlsx", "jpeg", "latin-1"])
def test_tables_that_are_no_text_in_utf8_are_not_settled(content, tmp_path):
    (tmp_path / "t.csv").write_bytes(content)
    assert [item.kind for item in audit_deidentified(tmp_path)] == ["unchecked"]


@pytest.mark.parametrize("change, where", [
    (lambda h: h[:148] + b"9876543" + h[155:], "descrip"), (lambda h: h[:148] + b"1960.01.02" + h[158:], "descrip"),
    (lambda h: h[:148] + b"SPM12\0Doe" + h[157:], "descrip"), (lambda h: h + b"Doe^Jane", "end of file"),
    (lambda h: h[:108] + struct.pack("<f", 368) + h[112:352] + b"Doe^Jane" + bytes(8) + h[352:], "before the voxels"),
], ids=["number", "date", "after zero", "tail", "gap"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_text_in_a_nifti_file_is_found(change, where, suffix, tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)), tmp_path / "plain.nii.gz")
    plain = gzip.decompress((tmp_path / "plain.nii.gz").read_bytes())
    data = change(plain)
    (tmp_path / f"scan{suffix}").write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    assert [(item.file, item.where) for item in audit_deidentified(tmp_path)] == [(f"scan{suffix}", where)]


def test_the_gzip_header_and_a_second_member_are_found(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)), tmp_path / "a.nii")
    data = (tmp_path / "a.nii").read_bytes()
    with gzip.GzipFile("Doe^Jane.nii", "wb", fileobj=open(tmp_path / "b.nii.gz", "wb")) as file:
        file.write(data)
    with gzip.open(tmp_path / "c.nii.gz", "wb") as file:  # its own name
        file.write(data)
    (tmp_path / "d.nii.gz").write_bytes(gzip.compress(data) + gzip.compress(b"Doe"))
    assert [(item.file, item.where) for item in audit_deidentified(tmp_path)] == [("b.nii.gz", "gzip header"), ("d.nii.gz", "end of file")]


def test_what_stands_beside_arrays_is_found(tmp_path):
    np.savez(tmp_path / "a.npz", rows=np.array([("Jane", 1)], [("name", "U20"), ("age", "i4")]))
    np.savez(tmp_path / "b.npz", when=np.array(["2021-03-04"], "M8[D]"))
    np.savez(tmp_path / "c.npz", x=np.zeros(2))
    plain = (tmp_path / "c.npz").read_bytes()
    (tmp_path / "d.npz").write_bytes(b"Doe^Jane" + plain)
    with zipfile.ZipFile(tmp_path / "e.npz", "w") as archive:
        archive.writestr("x.npy", zipfile.ZipFile(tmp_path / "c.npz").read("x.npy") + b"Doe^Jane")
        archive.comment = b"Doe^Jane"
    found = [(item.file, item.kind) for item in audit_deidentified(tmp_path)]
    assert found == [("a.npz", "unchecked"), ("b.npz", "unchecked"), ("d.npz", "trailing_bytes"), ("e.npz", "trailing_bytes"), ("e.npz", "trailing_bytes")]


def test_text_in_the_plain_chunks_of_a_png_is_found(tmp_path):
    for number, kind in enumerate((b"gAMA", b"tRNS", b"PLTE", b"pHYs", b"sBIT", b"bKGD", b"cHRM")):
        (tmp_path / f"{number}.png").write_bytes(png((kind, b"Doe^Jane 1")))
    (tmp_path / "8.png").write_bytes(png((b"gAMA", bytes(4)), (b"gAMA", b"Jane")))
    body = png()
    hidden = zlib.compress(b"\0\0") + b"Doe^Jane"
    old = struct.pack(">L", len(zlib.compress(b"\0\0"))) + b"IDAT" + zlib.compress(b"\0\0")
    (tmp_path / "9.png").write_bytes(body.replace(old, struct.pack(">L", len(hidden)) + b"IDAT" + hidden))
    assert [(item.file[0], item.kind) for item in audit_deidentified(tmp_path)] == [
        *((str(number), "png_metadata") for number in (0, 1, 2, 3, 4, 5, 6, 8)), ("9", "trailing_bytes")]


def test_what_usual_programs_write_raises_no_alarm(tmp_path):
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "I;16"):
        Image.new(mode, (13, 7)).save(tmp_path / f"{mode.replace(';', '')}.png", dpi=(72, 72), optimize=True)
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB").quantize(16)
    grey.save(tmp_path / "palette.png", transparency=3, bits=4)
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6, 2), np.int16), np.eye(4)), tmp_path / "scan.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.eye(4)), tmp_path / "scan.nii")
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros((3, 4), ">i4"), b=np.array(3), c=np.zeros(0, bool), d=np.asfortranarray(np.ones((3, 2))))
    assert audit_deidentified(tmp_path) == []


def test_keys_in_other_dress_are_known(tmp_path):
    (tmp_path / "a").write_text("  " + "0123456789ABCDEF" * 4 + "\r\n")
    assert [item.kind for item in audit_deidentified(tmp_path)] == ["must_not_share"]


def test_no_line_stalls_the_audit(tmp_path):
    for number, letters in enumerate(("a" * 10_000, "a." * 5_000, "1." * 5_000, "pid" * 3_000, "+1 " * 3_000)):
        (tmp_path / f"{number}.txt").write_text((letters + "\n") * 20)
        (tmp_path / f"{number}.json").write_text(json.dumps({letters: letters}))
    start = time.process_time()
    audit_deidentified(tmp_path)
    assert time.process_time() - start < 5


def test_files_too_large_to_read_are_not_settled(tmp_path):
    for name, size in (("a.dcm", 600 << 20), ("b.json", 70 << 20), ("c.png", 70 << 20), ("d.csv", 70 << 20)):
        with open(tmp_path / name, "wb") as file:
            file.write({"a": bytes(128) + b"DICM", "c": b"\x89PNG\r\n\x1a\n"}.get(name[0], b"[1"))
            file.truncate(size)
    (tmp_path / "e.json").write_text("[" + "1, " * (3 << 20) + "1]")
    assert {item.file: item.kind for item in audit_deidentified(tmp_path)} == {name: "unchecked" for name in ("a.dcm", "b.json", "c.png", "d.csv", "e.json")}


def test_a_thousand_folders_inside_each_other_are_walked(tmp_path):
    with nested(tmp_path, "a.csv", "name\nJane\n"):
        assert [item.kind for item in audit_deidentified(tmp_path)] == ["identifier"]


@pytest.mark.parametrize("path", [None, 5, b"", [], "x" * 5_000, "a\0b", "/".join(["x" * 200] * 30)], ids=lambda path: str(path)[:10])
def test_odd_paths_are_refused_in_words(path):
    with pytest.raises(MedkitError):
        audit_deidentified(path)


def test_real_series_and_their_tables_stay_silent(real_data, tmp_path):
    from medkit.imaging import deidentify_folder, write_headers

    for name in ("dcm_qa_ct_gantrytilt", "totalsegmentator/example_ct_dicom"):
        shared = tmp_path / "shared" / name.split("/")[0]
        report = deidentify_folder(real_data / "imaging" / name, shared, key=tmp_path / "key")
        assert report.counts["failed"] == 0
        (shared / "sources.private.jsonl").unlink()
        write_headers(shared, shared / "headers.csv")
        assert audit_deidentified(shared) == []


def test_a_stamp_that_reads_like_a_date_is_no_date_but_a_date_beside_it_is(tmp_path):
    original = Dataset()
    original.file_meta = FileMetaDataset()
    original.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    original.SOPClassUID, original.SOPInstanceUID, original.PatientID = CTImageStorage, "1.2.3", "7"
    clean = deidentify(original, bytes(32))
    *method, stamp = clean.DeidentificationMethod
    assert stamp.startswith("stamp ") and len(stamp) == 38
    for last, kinds in (("stamp 0a3dec45" + "0f" * 12, []), ("done 3dec45", ["date"]), ("stamp 3dec45", ["date"])):
        clean.DeidentificationMethod = [*method, last]
        clean.save_as(tmp_path / "a.dcm", enforce_file_format=True)
        assert [item.kind for item in audit_deidentified(tmp_path)] == kinds, last
