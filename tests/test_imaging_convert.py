"Conversion: evidence for every input, nothing lost, nothing outside, nothing of the patient, and malformed files."

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from jobs import Stop, stop_at
from PIL import Image
from pydicom.data import get_testdata_file

from medkit.errors import DataError, MedkitError
from medkit.files import Manifest, sha256
from medkit.imaging import convert, deidentify_folder, read_image, read_key
from medkit.isolate import Limits

PACKAGED = Path(get_testdata_file("CT_small.dcm", download=False)).parent
DATA = Path(os.environ["MEDKIT_DATA"]) / "imaging" if "MEDKIT_DATA" in os.environ else None
FUZZ = Path(os.environ.get("MEDKIT_FUZZ", DATA.parents[1] / "fuzz" if DATA else "none")) / "make_dicom_corpus.py"


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "in"
    (folder / "deep" / "er").mkdir(parents=True)
    for name, place in [("CT_small.dcm", "a.dcm"), ("MR_small.dcm", "deep/b"), ("SC_rgb_rle_2frame.dcm", "deep/er/c.dcm"),
                        ("JPEG2000.dcm", "deep/er/a.dcm"), ("test-SR.dcm", "report.dcm")]:
        shutil.copy(PACKAGED / name, folder / place)
    (folder / "note.txt").write_text("hello")
    return folder


def check_books(report, target):
    "Rows equal inputs, pictures of ok rows equal files on disk, hashes hold."
    rows = Manifest(target / "manifest.jsonl").rows()
    assert [row["id"] for row in rows] == [row["id"] for row in report.files]
    listed = [name for row in rows if row["status"] in ("ok", "ok_warn") for name in row["outputs"]]
    assert sorted(listed) == sorted(path.relative_to(target).as_posix() for path in target.rglob("*.png"))
    assert all(row["reason"] for row in rows if row["status"] in ("skipped", "failed"))
    for row in rows:
        assert len(row["outputs"]) == len(row["output_sha256"])
        assert all(sha256(target / name) == digest for name, digest in zip(row["outputs"], row["output_sha256"]))
    assert not [path for path in target.rglob("*") if path.name.startswith(".")]


@pytest.mark.parametrize("names", ["hash", "mirror"])
def test_books(source, tmp_path, names):
    report = convert(source, tmp_path / "out", names=names)
    assert report.counts == {"ok": 2, "ok_warn": 2, "skipped": 2, "failed": 0} and len(report.files) == 6
    check_books(report, tmp_path / "out")
    json.dumps(report.as_dict(), allow_nan=False)
    by_source = {row["source"]: row for row in report.files}
    picture = np.asarray(Image.open(tmp_path / "out" / by_source["deep/b"]["outputs"][0]))
    assert (picture == read_image(PACKAGED / "MR_small.dcm").display()).all()
    assert len(by_source["deep/er/c.dcm"]["outputs"]) == 2


def test_a_torn_row_of_an_interrupted_job_is_done_again(source, tmp_path):
    whole = convert(source, tmp_path / "whole")

    with pytest.raises(Stop):
        convert(source, tmp_path / "out", on_progress=stop_at(3))
    with open(tmp_path / "out" / "manifest.jsonl", "ab") as file:
        file.write(b'{"id": "torn')
    with pytest.warns(UserWarning, match="torn"):
        report = convert(source, tmp_path / "out")
    assert report.counts == whole.counts and report.resumed == 3
    check_books(report, tmp_path / "out")


def test_other_options_are_not_taken_for_done(source, tmp_path):
    convert(source, tmp_path / "out", window="minmax")
    assert convert(source, tmp_path / "out", window="minmax").resumed == 6
    assert convert(source, tmp_path / "out", window="lung").resumed == 0
    assert convert(source, tmp_path / "out", window="lung", resume=False).resumed == 0


def test_no_tag_reaches_names_pictures_or_manifest(tmp_path):
    (tmp_path / "in").mkdir()
    dataset = pydicom.dcmread(PACKAGED / "CT_small.dcm")
    for number, value in enumerate(["../../../../tmp/ESCAPED", "<script>SECRETSECRET</script>", "CON", "SECRETSECRET" * 5]):
        dataset.PatientID = dataset.PatientName = dataset.StudyDescription = value
        dataset.PixelData = dataset.PixelData[2 * number:] + dataset.PixelData[:2 * number]
        dataset.save_as(tmp_path / "in" / f"{number}.dcm")
    report = convert(tmp_path / "in", tmp_path / "out")
    assert report.reasons == {"uid_conflict": 4}  # equal ids do not collapse into one picture
    check_books(report, tmp_path / "out")
    (tmp_path / "out" / "sources.private.jsonl").unlink()
    for path in (tmp_path / "out").iterdir():
        assert "SECRET" not in path.name and b"SECRET" not in path.read_bytes() and b"ESCAPED" not in path.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


def test_target_below_source_is_not_converted(source):
    first = convert(source, source / "out")
    second = convert(source, source / "out")
    assert len(first.files) == len(second.files) == second.resumed == 6


@pytest.mark.parametrize("arguments", [
    {"window": "pancraes"}, {"window": None}, {"bits": 12}, {"bits": "8"}, {"names": "patient"}, {"engine": "cloud"}, {"workers": 0}, {"workers": "a"},
    {"deidentify": None}, {"deidentify": 0}, {"deidentify": 1}, {"window": (40, 400)}, {"window": np.zeros(2)}, {"names": np.zeros(2)},
    {"workers": np.zeros(2)}, {"engine": np.zeros(2)},
], ids=str)
def test_wrong_options_do_nothing(source, tmp_path, arguments):
    with pytest.raises(MedkitError) as caught:
        convert(source, tmp_path / "out", **arguments)
    assert caught.value.reason == ("unknown_window" if "window" in arguments else "bad_option")
    assert None not in (caught.value.found, caught.value.expected)
    assert not (tmp_path / "out").exists()


def test_burned_in_text_is_refused_unless_told_otherwise(tmp_path):
    (tmp_path / "in").mkdir()
    dataset = pydicom.dcmread(PACKAGED / "CT_small.dcm")
    dataset.BurnedInAnnotation = "YES"
    dataset.save_as(tmp_path / "in" / "burned")
    refused = convert(tmp_path / "in", tmp_path / "out")
    assert refused.reasons == {"burned_in_text": 1} and "deidentify=False" in refused.files[0]["hint"]
    assert not list((tmp_path / "out").glob("*.png"))
    told = convert(tmp_path / "in", tmp_path / "out", deidentify=False)
    assert told.counts["ok_warn"] == 1 and told.files[0]["notes"] == ["text is burned into the pixels"]


@pytest.mark.parametrize(("name", "reason"), [("empty", "empty"), ("none", "not_found"), ("a\0b", "not_found")])
def test_a_source_without_files_leaves_no_target(tmp_path, name, reason):
    (tmp_path / "empty").mkdir()
    for target in (tmp_path / "out", tmp_path / "empty" / "out", tmp_path / "out" / "deeper"):
        with pytest.raises(DataError) as caught:
            convert(tmp_path / name, target)
        assert caught.value.reason == reason and None not in (caught.value.found, caught.value.expected)
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


def test_an_earlier_target_is_untouched_by_an_empty_source(source, tmp_path):
    convert(source, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        convert(tmp_path / "empty", tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")} == before


@pytest.mark.parametrize("target", ["in", "in/note.txt", "in/note.txt/below", "a\0b"])
def test_a_bad_target_is_refused_in_words(source, tmp_path, target):
    with pytest.raises(DataError) as caught:
        convert(source, tmp_path / target)
    assert caught.value.reason == ("bad_option" if target == "in" else "not_writable")
    assert None not in (caught.value.found, caught.value.expected)


def test_a_foreign_manifest_is_left_alone(source, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.jsonl").write_text("my list\n")
    with pytest.raises(MedkitError) as caught:
        convert(source, tmp_path / "out")
    assert caught.value.reason == "bad_manifest" and (tmp_path / "out" / "manifest.jsonl").read_text() == "my list\n"


LOOK = """
import json, sys, warnings
from pathlib import Path
import numpy as np
from medkit.errors import MedkitError
from medkit.imaging import read_image, convert
warnings.simplefilter("ignore")
folder, target = map(Path, sys.argv[1:3])
report = convert(folder, target)
json.dump(report.as_dict(), open(sys.argv[3], "w"))
for path in sorted(folder.iterdir()):
    try:
        read_image(path).display()
    except MedkitError:
        pass
"""


@pytest.mark.skipif(not FUZZ.is_file(), reason="the generator of malformed files is not here (MEDKIT_FUZZ)")
@pytest.mark.parametrize("seed", [7, 101])
def test_malformed_files(tmp_path, seed):
    corpus = tmp_path / "in"
    subprocess.run([sys.executable, str(FUZZ), str(corpus), "--seed", str(seed)], check=True, capture_output=True, timeout=120)
    expected = {row["file"]: row for row in map(json.loads, (corpus / "manifest.jsonl").read_text().splitlines())}
    inputs = len([path for path in corpus.rglob("*") if path.is_symlink() or not path.is_dir() or not any(path.iterdir())])
    done = subprocess.run([sys.executable, "-c", LOOK, str(corpus), str(tmp_path / "out"), str(tmp_path / "report.json")],
                          capture_output=True, text=True, timeout=180, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {row["source"]: row for row in json.loads((tmp_path / "report.json").read_text())["files"]}
    assert len(rows) == inputs
    silent, lost = [], []
    for name, row in expected.items():
        got = rows[name]
        base = rows["000_base.dcm"]["output_sha256"] if row["base"] == "CT_small.dcm" else None
        if row["expect"] == "error" and got["status"] == "ok":
            silent.append((row["id"], row["what"]))
        if row["expect"] == "same" and base and got["output_sha256"] != base:
            lost.append((row["id"], row["what"]))
        if row["expect"] == "same_or_error" and base and got["status"] in ("ok", "ok_warn") and got["output_sha256"] != base:
            silent.append((row["id"], row["what"]))
    assert not silent and not lost
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out", "report.json"}


@pytest.mark.parametrize("first", ["import medkit.imaging.convert", "from medkit.imaging.convert import ConversionReport", "from medkit import imaging"])
def test_the_name_convert_is_the_function(first):
    code = f"{first}\nfrom medkit import imaging\nfrom medkit.imaging import convert\nassert callable(convert) and callable(imaging.convert)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_public_name_is_there_and_no_torch():
    code = ("import sys, medkit.imaging as m\nassert all(getattr(m, name) is not None for name in m.__all__), m.__all__\n"
            "assert 'torch' not in sys.modules and 'fastai' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_two_inputs_never_share_one_picture(tmp_path):
    (tmp_path / "in" / "b.png").mkdir(parents=True)
    shutil.copy(PACKAGED / "SC_rgb_rle_2frame.dcm", tmp_path / "in" / "x")
    for place in ("x.frame0000", "b", "b.png/c", "z"):
        dataset = pydicom.dcmread(PACKAGED / "CT_small.dcm")
        dataset.SOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[place])
        dataset.save_as(tmp_path / "in" / place)
    for _ in range(2):
        report = convert(tmp_path / "in", tmp_path / "out", names="mirror")
        check_books(report, tmp_path / "out")
        assert report.counts == {"ok": 4, "ok_warn": 1, "skipped": 0, "failed": 0}
        assert {row["source"]: row["outputs"] for row in report.files} == {
            "b": ["b.png"], "b.png/c": ["b.png~/c.png"], "x": ["x/0000.png", "x/0001.png"], "x.frame0000": ["x.frame0000.png"], "z": ["z.png"]}


def test_the_manifest_holds_no_name_and_no_header_text(tmp_path):
    (tmp_path / "in").mkdir()
    dataset = pydicom.dcmread(PACKAGED / "CT_small.dcm")
    dataset.save_as(tmp_path / "in" / "SECRET_ok.dcm")
    data = (tmp_path / "in" / "SECRET_ok.dcm").read_bytes()
    (tmp_path / "in" / "SECRET_cut.dcm").write_bytes(data[:-9000])
    (tmp_path / "in" / "SECRET_text.dcm").write_text("SECRET" * 99)
    (tmp_path / "in" / "SECRET_date.dcm").write_bytes(data.replace(b"20040119", b"SECRET99"))
    dataset.RescaleSlope = 0
    dataset.save_as(tmp_path / "in" / "SECRET_slope.dcm")
    dataset.PhotometricInterpretation = "SECRET"
    dataset.save_as(tmp_path / "in" / "SECRET_kind.dcm")
    report = convert(tmp_path / "in", tmp_path / "out")
    assert report.counts["failed"] == 3 and report.counts["skipped"] == 1
    assert "SECRET" not in (tmp_path / "out" / "manifest.jsonl").read_text()


@pytest.mark.parametrize("window", [3, "name:other"])
def test_names_of_windows_in_a_header_stay_out_of_the_manifest(window, tmp_path):
    (tmp_path / "in").mkdir()
    dataset = pydicom.dcmread(PACKAGED / "CT_small.dcm")
    dataset.WindowCenter, dataset.WindowWidth, dataset.WindowCenterWidthExplanation = 40, 400, "SECRET"
    dataset.save_as(tmp_path / "in" / "a.dcm")
    report = convert(tmp_path / "in", tmp_path / "out", window=window)
    assert report.reasons == {"unknown_window": 1} and "C 40 W 400" in report.files[0]["hint"]
    assert "SECRET" not in (tmp_path / "out" / "manifest.jsonl").read_text() and "SECRET" in report.files[0]["detail"]
    assert convert(tmp_path / "in", tmp_path / "named", window="name:SECRET").counts["ok"] == 1


def test_a_file_of_a_few_bytes_does_not_flood_the_disk(tmp_path):
    (tmp_path / "in").mkdir()
    dataset = pydicom.dcmread(PACKAGED / "CT_small.dcm")
    dataset.Rows = dataset.Columns = dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit, dataset.NumberOfFrames, dataset.PixelData = 0, 40_000, bytes(5000)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "in" / "film.dcm")
    assert (tmp_path / "in" / "film.dcm").stat().st_size < 20_000
    report = convert(tmp_path / "in", tmp_path / "out")
    assert report.reasons == {"too_large": 1} and not list((tmp_path / "out").rglob("*.png"))


def test_a_name_too_long_for_the_disk_is_one_failed_row(source, tmp_path):
    shutil.copy(PACKAGED / "examples_overlay.dcm", source / ("n" * 253))
    report = convert(source, tmp_path / "out", names="mirror")
    assert report.counts == {"ok": 2, "ok_warn": 2, "skipped": 2, "failed": 1} and report.reasons["unsafe_path"] == 1


@pytest.mark.parametrize("issuer", ["", "ward 7"])
def test_convert_and_deid_give_one_patient_one_pseudonym(issuer, tmp_path):
    (tmp_path / "in").mkdir()
    dataset = pydicom.dcmread(PACKAGED / "CT_small.dcm")
    dataset.IssuerOfPatientID = issuer
    dataset.save_as(tmp_path / "in" / "a.dcm")
    read_key(tmp_path / "key", create=True)
    shared = deidentify_folder(tmp_path / "in", tmp_path / "shared", key=tmp_path / "key")
    pictures = convert(tmp_path / "in", tmp_path / "pictures", key=tmp_path / "key")
    assert pictures.files[0]["patient_key"] == shared.files[0]["patient_key"]
