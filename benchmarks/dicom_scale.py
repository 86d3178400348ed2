"""Very many small files: is memory flat, and is the last tenth as fast as the first?"""

import io
import json
import statistics
from pathlib import Path

import pydicom
from dicom_reference import PACKAGED
from processes import run_python

UID = "1.2.826.0.1.3680043.8.498.1000000"
KEPT = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RescaleIntercept",
    "RescaleSlope",
    "PixelSpacing",
)

# marks are kept at every hundredth of the way; the first call comes before the first file
CONVERT = """
import json, sys, time
from medkit import imaging
marks = []
def progress(done, total, row):
    if done * 100 // total > (done - 1) * 100 // total:
        marks.append((time.time(), done))
report = imaging.convert(sys.argv[1], sys.argv[2], workers=int(sys.argv[3]), on_progress=progress)
print(json.dumps({"marks": marks, "counts": report.counts}))
"""


def template() -> bytes:
    "A CT of 16 x 16 pixels and of little more than 1 KB."
    dataset = pydicom.dcmread(PACKAGED / "CT_small.dcm")
    small = pydicom.Dataset()
    for name in KEPT:
        if name in dataset:
            small[name] = dataset[name]
    small.Rows = small.Columns = 16
    small.WindowCenter, small.WindowWidth, small.SOPInstanceUID = 1000, 2000, UID
    small.add_new("PixelData", "OW", dataset.pixel_array[40:56, 40:56].tobytes())
    small.file_meta = pydicom.dataset.FileMetaDataset()
    small.file_meta.TransferSyntaxUID, small.file_meta.MediaStorageSOPInstanceUID = (
        pydicom.uid.ExplicitVRLittleEndian,
        UID,
    )
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, small, enforce_file_format=True)
    return buffer.getvalue()


def small_files(folder: Path, count: int, a_folder: int = 1000) -> Path:
    "`count` files with a UID and a pixel of their own, a thousand a folder."
    data, old = template(), UID.encode()
    for number in range(count):
        place = folder / f"{number // a_folder:04d}"
        if number % a_folder == 0:
            place.mkdir(parents=True)
        new = bytearray(data.replace(old, (UID[:-7] + str(1_000_000 + number)).encode()))
        new[-4:] = (number & 0x3FF).to_bytes(2, "little") + (number >> 10 & 0x3FF).to_bytes(2, "little")
        (place / f"{number:06d}.dcm").write_bytes(new)
    return folder


def measure(folder: Path, count: int, workers: int = 1) -> dict:
    "Convert `count` small files; memory of the family and rate early on and in the last tenth."
    source = small_files(folder / "in", count)
    used = run_python(CONVERT, source, folder / "out", workers, timeout=3600, every_s=0.1)
    assert used.returncode == 0, used.errors[-800:]
    said = json.loads(used.output.splitlines()[-1])
    marks = said["marks"]
    at = {done: when for when, done in marks}
    tenth = count // 10
    first, second, last = at[tenth] - at[0], at[2 * tenth] - at[tenth], at[count] - at[count - tenth]
    early, late = memory(used.samples, at[tenth], at[2 * tenth]), memory(used.samples, at[count - tenth], at[count])
    return {
        "files": count,
        "ok": said["counts"].get("ok", 0),
        "rate": (count - marks[1][1]) / (marks[-1][0] - marks[1][0]),
        "late_over_first": first / last,  # the first tenth holds the start-up of the workers
        "late_over_second": second / last,  # so this one is the harder bar
        "memory_early_mb": early,
        "memory_late_mb": late,
        "growth": late / early - 1,
        "peak_mb": used.peak_mb,
        "others": used.others,
    }


def memory(samples: list[tuple[float, float]], start: float, end: float) -> float:
    "Median memory of the family between two moments, MB."
    return statistics.median([size for when, size in samples if start <= when <= end] or [samples[-1][1]])
