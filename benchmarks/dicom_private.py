"""Is anything of the patient left, and do two processes agree? Every attribute of the profile has a value, at three depths."""

import importlib
import importlib.util
import tempfile
from pathlib import Path

import pydicom
from dicom_reference import PACKAGED
from processes import run_python
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset

TABLE = "dicomanonymizer.dicom_anonymization_databases.dicomfields_2026c"  # PS3.15 Table E.1-1
TEXT = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
MARK = "ZQ"  # two letters that no cleaned value starts with

JOB = """
import sys
from pydicom import dcmread
from medkit import imaging
dataset = imaging.deidentify(dcmread(sys.argv[1]), imaging.read_key(sys.argv[2]))
names = "SeriesInstanceUID StudyInstanceUID FrameOfReferenceUID StudyDate SeriesDate PatientID"
print(*(dataset.get(name) for name in names.split()))
"""


def profile_tags() -> list[int]:
    "Every attribute of the profile that has a number of its own; what is in a range (curves, overlays) is planted apart."
    found = importlib.import_module(TABLE)
    return sorted({tag[0] << 16 | tag[1] for tag in found.ALL_TAGS if len(tag) == 2 and tag[0] != 2})


def value_of(vr: str, number: int) -> object:
    "A value that no other attribute has; None for kinds that hold other attributes."
    if vr in TEXT:
        return f"{MARK}{number:05d}"
    return {
        "DA": f"19{10 + number % 80}{1 + number % 12:02d}{1 + number % 28:02d}",
        "TM": f"{number % 24:02d}{number % 60:02d}{number % 59:02d}.{number:06d}",
        "DT": f"1950010112{number % 60:02d}00.{number:06d}",
        "UI": f"1.2.999.{number}",
        "IS": str(700000 + number),
        "DS": f"{number}.7531",
        "AS": f"{number % 1000:03d}Y",
        "US": 20000 + number,
        "UL": 7 * 10**8 + number,
        "SL": 7 * 10**8 + number,
        "FD": number + 0.7531,
        "FL": number + 0.5,
        "OB": f"{MARK}{number:06d}".encode(),
        "OW": f"{MARK}{number:06d}".encode(),
        "UN": f"{MARK}{number:06d}".encode(),
    }.get(vr)


def fill(dataset: Dataset, tags: list[int], offset: int) -> dict[str, tuple[int, object]]:
    "Plant every attribute of `tags`; what was planted, by path and tag."
    planted = {}
    for number, tag in enumerate(tags, offset):
        vr = dictionary_VR(tag).split(" ")[0] if pydicom.datadict.dictionary_has_tag(tag) else "LO"
        if (value := value_of(vr, number)) is not None:
            dataset.add_new(tag, vr, value)
            planted[str(dataset[tag].value)] = (tag, offset)
    return planted


def planted_file() -> tuple[Dataset, dict]:
    "CT_small with all of the profile at the root, in a sequence, and in a sequence of that; a private group and an overlay."
    dataset, tags = pydicom.dcmread(PACKAGED / "CT_small.dcm"), profile_tags()
    inner, outer = Dataset(), Dataset()
    planted = fill(dataset, tags, 10_000) | fill(outer, tags, 20_000) | fill(inner, tags, 30_000)
    outer.ReferencedImageSequence = [inner]
    dataset.ReferencedStudySequence = [outer]
    dataset.DerivationCodeSequence = [outer]  # stays in every profile, so what is inside has to be cleaned
    dataset.private_block(0x0099, "MEDKIT TEST", create=True).add_new(1, "LO", f"{MARK}private")
    dataset.add_new(0x60004000, "LT", f"{MARK}overlay")
    dataset.add_new(0x60003000, "OW", f"{MARK}overlay!".encode())
    return dataset, planted


def left(dataset: Dataset, planted: dict) -> list[str]:
    "Planted values that are still there, in any depth, and private or overlay elements."
    found = []
    for element in dataset.iterall():
        where = planted.get(str(element.value)) if element.VR != "SQ" else None
        if where and where[0] == int(element.tag) or MARK in str(element.value)[:400] and element.VR != "SQ":
            found.append(f"{element.tag} {element.keyword}")
        elif element.tag.is_private or element.tag.group & 0xFF01 == 0x6000:
            found.append(f"{element.tag}")
    return found


def missing() -> str | None:
    if not importlib.util.find_spec("medkit.imaging.deid"):
        return "medkit.imaging.deid is not there yet"
    return None if importlib.util.find_spec("dicomanonymizer") else "dicom-anonymizer is not installed"


def planted_left() -> tuple[int, list[str]]:  # attributes planted, those left
    from medkit import imaging

    with tempfile.TemporaryDirectory() as folder:
        key = imaging.read_key(Path(folder) / "key", create=True)
        dataset, planted = planted_file()
        return len(planted), left(imaging.deidentify(dataset, key, burned_in="keep"), planted)


def two_processes() -> list[str]:
    "What two processes with one key say of two slices of one series: one line if they agree."
    from medkit import imaging

    with tempfile.TemporaryDirectory() as folder:
        imaging.read_key(Path(folder) / "key", create=True)
        said = []
        for number in range(2):
            dataset = pydicom.dcmread(PACKAGED / "CT_small.dcm")
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.999.{number}"
            dataset.save_as(Path(folder) / f"{number}.dcm")
            used = run_python(JOB, Path(folder) / f"{number}.dcm", Path(folder) / "key")
            said.append(used.output.strip() or used.errors.strip()[-200:])
        return list(dict.fromkeys(said))


def measure() -> list[tuple[str, str, str, str, bool | None]]:
    "Rows of the table: what, bar, measured, best peer, met."
    if why := missing():
        return [("profile attributes, private, overlay", "0 left", why, "dicom-anonymizer + recursion: 0", None)]
    planted, rest = planted_left()
    said = two_processes()
    return [
        (
            f"{planted} planted profile attributes, private, overlay",
            "0 left",
            f"{len(rest)} left {', '.join(rest[:5])}",
            "dicom-anonymizer: 0 at the root, all nested",
            not rest,
        ),
        (
            "two processes, one key",
            "same UIDs, same shift",
            "same" if len(said) == 1 else " / ".join(said)[:200],
            "",
            len(said) == 1,
        ),
    ]
