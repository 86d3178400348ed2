"""Processor time of converting real 512 x 512 slices, all in, beside SimpleITK and Pillow in the same run."""

import io
import os
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from dicom_reference import PACKAGED, data_folder
from PIL import Image
from processes import Usage, busy_s, run_python

QUIET = 0.25  # cores that others may keep busy during a run; above it the run is thrown away
SMALL = 40  # files of the job that tells what starting costs

CONVERT = """
import sys
from medkit import imaging
report = imaging.convert(sys.argv[1], sys.argv[2], workers=int(sys.argv[3]))
bad = [row["reason"] for row in report.files if not row["status"].startswith("ok")]
assert not bad, (len(bad), bad[:3])
print(len(report.files))
"""

SIMPLEITK = """
import sys, time
from pathlib import Path
import SimpleITK as sitk
def work(path, target):
    image = sitk.ReadImage(str(path))
    centre, width = (float(image.GetMetaData(tag).split("\\\\")[0]) for tag in ("0028|1050", "0028|1051"))
    shown = sitk.IntensityWindowing(image[:, :, 0], centre - width / 2, centre + width / 2, 0, 255)
    sitk.WriteImage(sitk.Cast(shown, sitk.sitkUInt8), str(target / (path.name + ".png")))
paths, target = sorted(Path(sys.argv[1]).iterdir())[:int(sys.argv[3])], Path(sys.argv[2])
target.mkdir()
work(paths[0], target)
start = time.process_time()
for path in paths:
    work(path, target)
print((time.process_time() - start) / len(paths))
"""


@dataclass
class Figure:
    "A median with what it is worth."

    value: float  # median of the runs kept
    runs: int  # runs kept
    others: float  # cores that others kept busy in the worst run kept
    spread: tuple[float, float] = (0.0, 0.0)  # least and greatest

    @property
    def fair(self) -> bool:
        return self.others <= QUIET

    def said(self, unit: str = "ms", digits: int = 2) -> str:
        return f"{self.value:.{digits}f} {unit}" + (
            "" if self.fair else f" CONTENDED ({self.others:.1f} cores busy elsewhere)"
        )


def figure(runs: list[tuple[float, float]], least: int = 5) -> Figure:  # runs: (value, others)
    "The median of the quiet runs; where too few are quiet, of all, and it says so."
    quiet = [run for run in runs if run[1] <= QUIET]
    kept = quiet if len(quiet) >= min(least, len(runs)) else runs
    values = [value for value, _ in kept]
    return Figure(statistics.median(values), len(kept), max(others for _, others in kept), (min(values), max(values)))


UID = "1.2.826.0.1.3680043.8.498.1000000"


def raw_sources() -> list[bytes]:
    "Uncompressed real slices: a head CT of 28, or one CT that pydicom packages."
    return [prepared(path) for path in real("dcm_qa_ct_gantrytilt")] or [
        prepared(PACKAGED / "693_J2KI.dcm", decompress=True)
    ]


def jpeg2000_sources() -> list[bytes]:
    return [prepared(path) for path in real("totalsegmentator/example_ct_dicom")] or [
        prepared(PACKAGED / "693_J2KI.dcm")
    ]


def real(name: str) -> list[Path]:
    "The DICOM files of one folder of real recordings; none where they are not there."
    paths = (data_folder() / "imaging" / name).rglob("*") if data_folder() else ()
    return sorted(path for path in paths if path.is_file() and b"DICM" in path.read_bytes()[:132])


def prepared(path: Path, decompress: bool = False) -> bytes:
    "The file with a SOP Instance UID that is easily changed, since some have none."
    dataset, buffer = pydicom.dcmread(path), io.BytesIO()
    if decompress:
        dataset.decompress()
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID
    dataset.save_as(buffer)
    return buffer.getvalue()


def copies(folder: Path, sources: list[bytes], count: int, touch: bool) -> Path:
    "`count` files, each with a SOP Instance UID of its own, and with two pixels of its own where `touch` is set."
    folder.mkdir(parents=True)
    for number in range(count):
        data = bytearray(
            sources[number % len(sources)].replace(UID.encode(), (UID[:-7] + str(1_000_000 + number)).encode())
        )
        if touch:
            place = data.rfind(b"\xe0\x7f\x10\0") + 12 + 2 * 1000
            data[place], data[place + 2] = number & 0xFF, number >> 8 & 0xFF
        (folder / f"{number:06d}.dcm").write_bytes(data)
    return folder


def convert_once(source: Path, workers: int = 1) -> Usage:
    "One whole job in a new process, into a new target that is removed."
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        used = run_python(CONVERT, source, Path(folder) / "out", workers)
    assert used.returncode == 0, used.errors[-800:]
    return used


def convert_cost(
    source: Path, small: Path, repeats: int, workers: int = 1
) -> tuple[Figure, Figure]:  # (CPU ms, wall ms) a file
    "What one more file costs: the large job less the small one, start-up being in both."
    files, few = (len(list(folder.iterdir())) for folder in (source, small))
    cpu, wall = [], []
    for turn in range(1, repeats + 4):
        large, start = convert_once(source, workers), convert_once(small, workers)
        others = max(large.others, start.others)
        cpu.append(((large.cpu_s - start.cpu_s) / (files - few) * 1e3, others))
        wall.append(((large.wall_s - start.wall_s) / (files - few) * 1e3, others))
        quiet = sum(others <= QUIET for _, others in cpu)
        if quiet >= repeats or turn >= repeats and not quiet:  # a machine that is never idle gets no more chances
            break
    return figure(cpu, repeats), figure(wall, repeats)


def side_by_side(source: Path, repeats: int) -> Figure:
    "How much faster two separate jobs at once are than one after the other: what this machine's two cores allow at all."
    runs = []
    for _ in range(repeats):
        alone = convert_once(source)
        own, busy, start = sum(os.times()[:4]), busy_s(), time.perf_counter()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(convert_once, (source, source)))
        wall = time.perf_counter() - start
        others = max(0.0, (busy_s() - busy - sum(os.times()[:4]) + own) / wall)
        runs.append((2 * alone.wall_s / wall, max(alone.others, others)))
    return figure(runs, repeats)


def simpleitk_cost(source: Path, files: int, repeats: int) -> Figure:  # CPU ms a file
    "Read, the header's first window, 8 bit, PNG; imports are not counted."
    runs = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(dir=source.parent) as folder:
            used = run_python(SIMPLEITK, source, Path(folder) / "out", files)
        assert used.returncode == 0, used.errors[-800:]
        runs.append((float(used.output) * 1e3, used.others))
    return figure(runs, repeats)


def slices_512(folder: Path, small_jobs: bool, repeats: int = 5) -> dict[str, Figure]:
    "Raw and JPEG 2000 slices through medkit and SimpleITK, two workers, and two separate jobs."
    figures = {}
    for kind, sources, count, touch in (
        ("raw", raw_sources(), 600 if small_jobs else 2000, True),
        ("jpeg2000", jpeg2000_sources(), 120 if small_jobs else 300, False),
    ):
        large = copies(folder / kind / "large", sources, count, touch)
        small = copies(folder / kind / "small", sources, SMALL, touch)
        figures[kind], figures[f"{kind} wall"] = convert_cost(large, small, repeats)
        figures[f"{kind} SimpleITK"] = simpleitk_cost(large, 100 if kind == "raw" else 40, repeats)
        if kind == "raw":
            figures["raw wall 2"] = convert_cost(large, small, repeats, workers=2)[1]
            figures["two jobs"] = side_by_side(large, repeats)
        shutil.rmtree(folder / kind)
    return figures


def pillow_png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def png_cost(repeats: int = 5) -> dict[str, Figure | float]:
    "16-bit pictures of the raw slices: CPU ms and size against Pillow level 6."
    from medkit import imaging
    from medkit.imaging.png import encode_png

    with tempfile.TemporaryDirectory() as folder:
        source = copies(Path(folder) / "raw", raw_sources(), 28, True)
        pictures = [
            imaging.render_frame(imaging.read_image(path), "header", 0, 16)[0] for path in sorted(source.iterdir())
        ]
    times: dict[str, list[float]] = {"medkit": [], "Pillow": []}
    sizes = {}
    own, began, busy = time.process_time(), time.perf_counter(), busy_s()
    for _ in range(repeats + 1):  # the first warms up
        for name, encode in (("medkit", encode_png), ("Pillow", pillow_png)):
            start = time.process_time()
            sizes[name] = sum(len(encode(picture)) for picture in pictures)
            times[name].append((time.process_time() - start) / len(pictures) * 1e3)
    others = max(0.0, (busy_s() - busy - time.process_time() + own) / (time.perf_counter() - began))
    ours, theirs = (figure([(value, others) for value in times[name][1:]]) for name in ("medkit", "Pillow"))
    return {"medkit": ours, "Pillow": theirs, "size": sizes["medkit"] / sizes["Pillow"]}


def varied_slices() -> dict[str, list[np.ndarray]]:
    "8-bit pictures of real slices by modality: every file of the corpus and the two CT series, colour left out."
    from dicom_reference import corpus
    from medkit import imaging
    from medkit.errors import MedkitError

    paths = corpus()
    for name in ("dcm_qa_ct_gantrytilt", "totalsegmentator/example_ct_dicom", "dcm4che"):
        paths += (
            sorted(path for path in (data_folder() / "imaging" / name).rglob("*") if path.is_file())
            if data_folder()
            else []
        )
    found: dict[str, list[np.ndarray]] = {}
    for path in paths:
        try:
            image = imaging.read_image(path)
            picture = image.display()
        except MedkitError:
            continue
        if picture.ndim == 2 and picture.size >= 128 * 128 and np.ptp(picture):
            found.setdefault(str(image.dataset.get("Modality")), []).append(picture)
    return found


def png_sizes() -> tuple[float, dict[str, float]]:  # all together; by modality
    "Size of 8-bit PNG against Pillow level 6."
    from medkit.imaging.png import encode_png

    sizes = {
        modality: tuple(sum(len(encode(picture)) for picture in pictures) for encode in (encode_png, pillow_png))
        for modality, pictures in varied_slices().items()
    }
    ours, theirs = (sum(column) for column in zip(*sizes.values()))
    return ours / theirs, {modality: mine / other for modality, (mine, other) in sizes.items()}
