"""Reading and showing one 512 x 512 slice, beside SimpleITK in the same run."""

import os
import tempfile
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS="1")

import SimpleITK as sitk  # noqa: E402
from medkit import imaging  # noqa: E402
from PIL import Image  # noqa: E402
from pydicom import dcmread  # noqa: E402
from pydicom.data import get_testdata_file  # noqa: E402
from timing import median_cpu_s, row  # noqa: E402


def simpleitk(source: str, target: str) -> None:
    "Read, window (C 40 W 400) and write a PNG, as a SimpleITK user does."
    shown = sitk.IntensityWindowing(sitk.ReadImage(source), -160, 240, 0, 255)
    sitk.WriteImage(sitk.Cast(shown[:, :, 0], sitk.sitkUInt8), target)


def medkit(source: str, target: str) -> None:
    Image.fromarray(imaging.read_image(source).display("pancreas")).save(target, compress_level=1)


with tempfile.TemporaryDirectory() as folder:
    compressed = get_testdata_file("693_J2KI.dcm", download=False)
    raw = str(Path(folder) / "raw.dcm")
    dataset = dcmread(compressed)
    dataset.decompress()
    dataset.save_as(raw)
    target = str(Path(folder) / "out.png")
    for what, source in (("raw", raw), ("JPEG 2000", compressed)):
        ours, theirs = (median_cpu_s(lambda: work(source, target), repeats=15) for work in (medkit, simpleitk))
        row(f"{what} 512 x 512: read, window, PNG", f"{ours * 1e3:.1f} ms", f"SimpleITK {theirs * 1e3:.1f} ms, ratio {ours / theirs:.2f}")
