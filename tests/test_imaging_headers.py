"Header tables: every file has a row, names in every script are right, no cell starts a formula, no person without consent."

import csv
import os
import shutil
import time
import warnings
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_charset_files, get_testdata_file

import medkit.imaging.headers
from medkit.desk import Job
from medkit.errors import DataError, MedkitError
from medkit.imaging.headers import PERSONAL, TECHNICAL, _unharmed, read_headers, write_headers

warnings.filterwarnings("ignore", module="pydicom")
DATA = Path(os.environ["MEDKIT_DATA"]) / "imaging" if "MEDKIT_DATA" in os.environ else None
CT = Path(get_testdata_file("CT_small.dcm", download=False))

NAMES = {  # as pydicom's FileInfo.txt and PS3.5 Annexes H, I and J give them
    "chrArab.dcm": "قباني^لنزار", "chrFren.dcm": "Buc^Jérôme", "chrFrenMulti.dcm": "Buc^Jérôme", "chrGerm.dcm": "Äneas^Rüdiger",
    "chrGreek.dcm": "Διονυσιος", "chrH31.dcm": "Yamada^Tarou=山田^太郎=やまだ^たろう", "chrH32.dcm": "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
    "chrHbrw.dcm": "שרון^דבורה", "chrI2.dcm": "Hong^Gildong=洪^吉洞=홍^길동", "chrJapMulti.dcm": "やまだ^たろう",
    "chrJapMultiExplicitIR6.dcm": "やまだ^たろう", "chrKoreanMulti.dcm": "김희중", "chrRuss.dcm": "Люкceмбypг", "chrX1.dcm": "Wang^XiaoDong=王^小東",
    "chrX2.dcm": "Wang^XiaoDong=王^小东",
}


def rows_of(path):
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def written(target, **tags):
    dataset = pydicom.dcmread(CT)
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    dataset.save_as(target)
    return target


def test_names_in_every_character_set(tmp_path):
    (tmp_path / "in").mkdir()
    for name in get_charset_files("*.dcm"):
        shutil.copy(name, tmp_path / "in")
    table = write_headers(tmp_path / "in", tmp_path / "table.csv", ["PatientName"], private=True)
    assert not table["reason"].any()
    found = {row["file"]: row["PatientName"] for row in rows_of(tmp_path / "table.csv")}
    assert {name: found[name] for name in NAMES} == NAMES


def test_several_names_and_values(tmp_path):
    written(tmp_path / "a.dcm", SpecificCharacterSet="ISO_IR 192", OperatorsName=["山田^太郎", "Buc^Jérôme"], ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])
    row = read_headers(tmp_path, ["OperatorsName", "ImageType", "PixelSpacing"], private=True).iloc[0]
    assert row["OperatorsName"] == "山田^太郎\\Buc^Jérôme" and row["ImageType"] == "ORIGINAL\\PRIMARY\\AXIAL"
    assert row["PixelSpacing"] == "0.661468\\0.661468"


def test_an_unknown_character_set_is_no_end(tmp_path):
    data = CT.read_bytes()
    at = data.find(b"\x08\0\x08\0CS")
    (tmp_path / "odd.dcm").write_bytes(data[:at] + b"\x08\0\x05\0CS\x08\0NOT_REAL" + data[at:])
    row = read_headers(tmp_path, ["Modality", "PatientName"], private=True).iloc[0]
    assert (row["reason"], row["Modality"], row["PatientName"]) == ("", "CT", "CompressedSamples^CT1")


def test_every_file_has_a_row(tmp_path):
    shutil.copy(CT, tmp_path / "IM_0001")  # no suffix
    (tmp_path / "bare").write_bytes(CT.read_bytes()[132:])  # no preamble
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "page.dcm").write_bytes(b"<html>" * 100)
    (tmp_path / "cut.dcm").write_bytes(CT.read_bytes()[:1000])
    (tmp_path / "only_pixels_cut.dcm").write_bytes(CT.read_bytes()[:-9000])
    (tmp_path / "deep" / "er").mkdir(parents=True)
    shutil.copy(CT, tmp_path / "deep" / "er" / "x.dcm")
    os.symlink(tmp_path / "nowhere", tmp_path / "broken_link")
    os.symlink(tmp_path, tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    table = read_headers(tmp_path, private=True)
    assert dict(zip(table["file"], table["reason"])) == {
        "IM_0001": "", "bare": "", "empty.dcm": "empty", "page.dcm": "not_dicom", "cut.dcm": "truncated", "only_pixels_cut.dcm": "",
        "deep/er/x.dcm": "", "broken_link": "not_readable", "loop": "not_readable", "pipe": "not_readable",
    }
    assert set(table[table["reason"] == ""]["Modality"]) == {"CT"} and set(table[table["reason"] != ""]["Modality"]) == {""}


def test_patients_are_numbered_and_not_named(tmp_path):
    for number, patient in enumerate(["Secret7", "Other9", "Secret7", ""]):
        written(tmp_path / f"{number}.dcm", PatientID=patient, PatientName="Secret^Name", StationName="Secret", PatientBirthDate="19501231")
    table = write_headers(tmp_path, tmp_path / "table.csv")
    assert list(table["patient"]) == ["1", "2", "1", ""]
    text = (tmp_path / "table.csv").read_text("utf-8-sig")
    assert not any(word in text for word in ("Secret", "Other9", "1950"))
    named = read_headers(tmp_path, private=True)
    assert list(named.columns[3:]) == [*PERSONAL, *TECHNICAL] and set(named.head(4)["PatientName"]) == {"Secret^Name"}
    for keyword in (*PERSONAL, "OperatorsName", "PatientComments", "StationName", "DeviceSerialNumber", "SOPInstanceUID"):
        with pytest.raises(DataError) as caught:
            read_headers(tmp_path, [keyword])
        assert caught.value.reason == "bad_option" and None not in (caught.value.found, caught.value.expected)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=20))
def test_no_cell_starts_a_formula(text):
    cell = _unharmed(text)
    assert cell.removeprefix("'") == text.removeprefix("'")
    if cell[:1] in ("=", "+", "-", "@", "\t", "\r") and cell:
        assert all(letter in "0123456789.+-eE\\" for letter in cell)
        assert all(map(_is_number, cell.split("\\")))


def _is_number(text):
    try:
        return float(text) is not None
    except ValueError:
        return False


@pytest.mark.parametrize("hostile", ["=1+1", "@SUM(A1)", "+1+cmd|' /C calc'!A0", "-2+3", '=HYPERLINK("http://x","y")', "a,b\"c", "<script>", "x\r\n=1+1", "../../etc"])
def test_hostile_text_stays_one_harmless_cell(tmp_path, hostile):
    written(tmp_path / "a.dcm", SeriesDescription=hostile, Manufacturer=hostile)
    write_headers(tmp_path, tmp_path / "t.csv", ["SeriesDescription", "Manufacturer"])
    rows = rows_of(tmp_path / "t.csv")
    assert len(rows) == 1 and not rows[0]["Manufacturer"].startswith(("=", "+", "-", "@"))
    assert "\n" not in rows[0]["SeriesDescription"]


def test_long_text_is_cut(tmp_path):
    written(tmp_path / "a.dcm", ImageComments="x" * 100_000)
    assert len(read_headers(tmp_path, ["ImageComments"], private=True)["ImageComments"][0]) == medkit.imaging.headers.MAX_CELL


def test_pixels_are_never_read(tmp_path, monkeypatch):
    with open(tmp_path / "big.dcm", "wb") as file:
        file.write(CT.read_bytes())
        file.truncate(3 << 30)  # sparse: three gigabytes that take no room
    started = time.perf_counter()
    assert read_headers(tmp_path, ["Rows"])["Rows"][0] == "128"
    assert time.perf_counter() - started < 2


def test_a_failed_write_leaves_the_old_table(tmp_path, monkeypatch):
    written(tmp_path / "a.dcm")
    target = tmp_path / "t.csv"
    target.write_text("old")
    monkeypatch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DataError) as caught:
        write_headers(tmp_path, target)
    assert caught.value.reason == "not_writable" and target.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["a.dcm", "t.csv"]


@pytest.mark.parametrize("keywords", ["", [""], ["Rowz"], 5, [5], ["PixelData"], ["ReferencedImageSequence"], [None], b"Rows"])
def test_odd_keywords(tmp_path, keywords):
    with pytest.raises(MedkitError) as caught:
        read_headers(tmp_path, keywords)
    assert caught.value.reason == "bad_option"


@pytest.mark.parametrize("folder", ["none", "a\0b", "x" * 5000])
def test_odd_folders(folder):
    with pytest.raises(MedkitError) as caught:
        read_headers(folder)
    assert caught.value.reason == "not_found"


def test_an_empty_folder_gives_an_empty_table(tmp_path):
    assert len(read_headers(tmp_path)) == 0
    (tmp_path / "out").mkdir()
    assert list(write_headers(tmp_path / "out", tmp_path / "t.csv").columns[:3]) == ["id", "reason", "patient"]
    assert list(read_headers(tmp_path / "out", private=True).columns[:1]) == ["file"]


@pytest.mark.skipif(DATA is None, reason="MEDKIT_DATA is not set: real recordings are not here")
def test_real_files():
    table = read_headers(DATA / "pydicom-data", private=True)
    assert len(table) == sum(len(names) for _, _, names in os.walk(DATA / "pydicom-data"))
    assert (table[table["file"].str.endswith(".dcm")]["reason"] == "").mean() > 0.95


def test_names_of_files_are_numbers_unless_private(tmp_path):
    from medkit.imaging import convert

    (tmp_path / "scans" / "Müller, Jörg").mkdir(parents=True)
    shutil.copy(CT, tmp_path / "scans" / "Müller, Jörg" / "CT_small.dcm")
    table = write_headers(tmp_path / "scans", tmp_path / "table.csv")
    text = (tmp_path / "table.csv").read_text("utf-8-sig")
    assert "Müller" not in text and "CT_small" not in text and "file" not in table.columns
    report = convert(tmp_path / "scans", tmp_path / "out", workers=1)
    assert list(table["id"]) == [row["id"] for row in report.files] == [Job("").input_id("Müller, Jörg/CT_small.dcm")]
    one = convert(CT, tmp_path / "one", workers=1)
    assert list(read_headers(CT)["id"]) == [row["id"] for row in one.files]
    assert list(read_headers(tmp_path / "scans", private=True)["file"]) == ["Müller, Jörg/CT_small.dcm"]


@pytest.mark.parametrize("name", ["-leading/x.dcm", "=1+1", "-5", "@home/x.dcm", "+1.dcm", "plain.dcm"])
def test_a_file_can_be_found_by_its_cell(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    shutil.copy(CT, tmp_path / name)
    table = write_headers(tmp_path, tmp_path / "table.csv", ["Rows"], private=True)
    (row,) = rows_of(tmp_path / "table.csv")
    assert (tmp_path / row["file"]).is_file() and not row["file"].startswith(("=", "+", "-", "@")) and table["file"][0] == name


def test_progress_counts_files(tmp_path):
    for number in range(3):
        shutil.copy(CT, tmp_path / f"{number}.dcm")
    calls = []
    write_headers(tmp_path, tmp_path / "table.csv", on_progress=lambda *call: calls.append(call))
    assert calls == [(done, 3, {}) for done in range(4)]


def test_the_audit_has_nothing_to_say_of_a_table_of_clean_files(tmp_path):
    from medkit.imaging import audit_deidentified, deidentify_folder

    (tmp_path / "in").mkdir()
    for name in ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "examples_overlay.dcm"):
        shutil.copy(get_testdata_file(name, download=False), tmp_path / "in")
    deidentify_folder(tmp_path / "in", tmp_path / "shared", key=tmp_path / "key", workers=1)
    (tmp_path / "tables").mkdir()
    write_headers(tmp_path / "shared", tmp_path / "tables" / "headers.csv")
    text = (tmp_path / "tables" / "headers.csv").read_text("utf-8-sig")
    assert "-158.135803\\" in text and "JPEG 2000" in text
    assert audit_deidentified(tmp_path / "tables") == []


def test_every_cell_stands_in_quotes_and_no_later_part_is_a_formula(tmp_path):
    written(tmp_path / "a.dcm", SeriesDescription="a;=cmd|' /C calc'!A0")
    write_headers(tmp_path, tmp_path / "t.csv", ["SeriesDescription", "Rows"])
    text = (tmp_path / "t.csv").read_text("utf-8-sig")
    assert '"a;\'=cmd|' in text and all(line.startswith('"') and line.endswith('"') for line in text.splitlines())


@pytest.mark.parametrize("keyword", """CurrentPatientLocation PlacerOrderNumberImagingServiceRequest FillerOrderNumberProcedure SmokingStatus
    InsurancePlanIdentification ClinicalTrialSubjectID ScheduledStationName ReasonForStudy TextString PregnancyStatus""".split())
def test_more_that_names_a_person(keyword, tmp_path):
    with pytest.raises(DataError) as caught:
        read_headers(tmp_path, [keyword])
    assert caught.value.reason == "bad_option"
