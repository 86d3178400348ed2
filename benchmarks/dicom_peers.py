"""What other ways of turning DICOM into a picture give for the same files, each in processes that may crash.

Run as a script it is one peer at work: it leaves OUT/NUMBER.npy or OUT/NUMBER.txt for every file.
"""

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np


def stretched(values: np.ndarray) -> np.ndarray:
    "The 8-bit min-max of every snippet."
    values = np.asarray(values, float)
    return ((values - values.min()) / ((values.max() - values.min()) or 1) * 255).astype(np.uint8)


def first_frame(values: np.ndarray, dataset) -> np.ndarray:
    return values[0] if int(dataset.get("NumberOfFrames") or 1) > 1 else values


def min_max_snippet(path: str) -> np.ndarray:
    "The most copied one: pixel_array to 0-255."
    from pydicom import dcmread

    dataset = dcmread(path)
    return stretched(first_frame(dataset.pixel_array, dataset))


def voi_snippet(path: str) -> np.ndarray:
    "Popular on Kaggle: the window without the rescale, MONOCHROME1 turned round."
    from pydicom import dcmread
    from pydicom.pixels import apply_voi_lut

    dataset = dcmread(path)
    values = apply_voi_lut(first_frame(dataset.pixel_array, dataset), dataset).astype(float)
    return stretched(values.max() - values if dataset.PhotometricInterpretation == "MONOCHROME1" else values)


def simpleitk(path: str) -> np.ndarray:
    "Read, window with the header's first window or min-max, 8 bit."
    import SimpleITK as sitk

    image = sitk.ReadImage(path)
    image = image[:, :, 0] if image.GetDimension() == 3 else image
    if image.GetNumberOfComponentsPerPixel() > 1:
        return sitk.GetArrayFromImage(image).clip(0, 255).astype(np.uint8)
    found = [image.GetMetaData(tag) if image.HasMetaDataKey(tag) else "" for tag in ("0028|1050", "0028|1051")]
    if not all(found):
        return sitk.GetArrayFromImage(sitk.Cast(sitk.RescaleIntensity(image, 0, 255), sitk.sitkUInt8))
    centre, width = (float(text.split("\\")[0]) for text in found)
    return sitk.GetArrayFromImage(
        sitk.Cast(sitk.IntensityWindowing(image, centre - width / 2, centre + width / 2, 0, 255), sitk.sitkUInt8)
    )


def gdcm(path: str) -> np.ndarray:
    "The buffer as its example code takes it, then min-max."
    import gdcm as library

    reader = library.ImageReader()
    reader.SetFileName(path)
    if not reader.Read():
        raise OSError("gdcm cannot read it")
    image = reader.GetImage()
    kind = np.dtype(
        image.GetPixelFormat().GetScalarTypeAsString().lower().replace("float32", "f4").replace("float64", "f8")
    )
    data = np.frombuffer(image.GetBuffer().encode("utf-8", "surrogateescape"), kind)
    columns, rows = image.GetDimensions()[:2]
    samples = image.GetPixelFormat().GetSamplesPerPixel()
    shape = (rows, columns, samples) if samples > 1 else (rows, columns)
    return stretched(data[: rows * columns * samples].reshape(shape))


def dcm2pnm(path: str, *options: str) -> np.ndarray:
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.pnm"
        for program in ("dcmj2pnm", "dcml2pnm"):  # one decodes JPEG, the other JPEG-LS; both raw and RLE
            done = subprocess.run(
                [program, *options, path, str(target)], capture_output=True, text=True, timeout=60, errors="replace"
            )
            if not done.returncode and target.is_file() and target.stat().st_size:
                return np.asarray(Image.open(target))
    raise OSError(done.stderr.strip()[-200:] or "no picture")


def dcmtk(path: str) -> np.ndarray:
    return dcm2pnm(path)


def dcmtk_windowed(path: str) -> np.ndarray:
    "The header's first window, else min-max, as its manual advises; overlays are not drawn over the picture."
    try:
        return dcm2pnm(path, "-O", "+Wi", "1")
    except OSError:
        return dcm2pnm(path, "-O", "+Wm")


def dicom2jpg(path: str) -> np.ndarray:
    import dicom2jpg as library

    if (picture := library.dicom2img(path)) is None:
        raise OSError("no picture")
    return picture


def fastai(path: str) -> np.ndarray:
    "PILDicom.save, as its documentation shows."
    from fastai.medical.imaging import PILDicom
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        PILDicom.create(Path(path)).save(Path(folder) / "out.png")
        return np.asarray(Image.open(Path(folder) / "out.png"))


PEERS: dict[str, tuple[Callable, str]] = {  # title: how, and the module or program that must be there
    "pydicom min-max snippet": (min_max_snippet, "pydicom"),
    "VOI-without-modality snippet": (voi_snippet, "pydicom"),
    "fastai PILDicom.save": (fastai, "fastai.medical.imaging"),
    "dicom2jpg": (dicom2jpg, "dicom2jpg"),
    "SimpleITK": (simpleitk, "SimpleITK"),
    "gdcm buffer + min-max": (gdcm, "gdcm"),
    "dcmtk defaults": (dcmtk, "dcmj2pnm"),
    "dcmtk +Wi 1, else +Wm": (dcmtk_windowed, "dcmj2pnm"),
}


def missing(title: str) -> str | None:
    "Why a peer is left out, or None."
    needed = PEERS[title][1]
    if needed == "dcmj2pnm":
        return None if shutil.which(needed) else "dcmtk is not installed"
    if needed.startswith("fastai"):  # its medical module imports vision.all, torchvision and kornia
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", f"import {needed}"], capture_output=True, text=True
        )
        return done.stderr.strip().splitlines()[-1] if done.returncode else None
    return None if importlib.util.find_spec(needed) else f"{needed} is not installed"


def pictures(title: str, paths: list[Path], folder: Path) -> list[np.ndarray | str]:
    "The picture of each file or why there is none; a process that dies costs one file."
    folder.mkdir()
    results: list[np.ndarray | str] = []
    while len(results) < len(paths):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", __file__, title, str(folder), str(len(results)), *map(str, paths)],
            capture_output=True,
            timeout=600,
        )
        while len(results) < len(paths) and (found := outcome(folder, len(results))) is not None:
            results.append(found)
        if len(results) < len(paths):
            results.append(f"crash: exit code {done.returncode}")
    return results


def outcome(folder: Path, number: int) -> np.ndarray | str | None:
    if (folder / f"{number}.npy").is_file():
        return np.load(folder / f"{number}.npy")
    return (folder / f"{number}.txt").read_text() if (folder / f"{number}.txt").is_file() else None


def work(title: str, folder: Path, first: int, paths: list[str]) -> None:
    "One peer at the files from number `first` on."
    for number, path in enumerate(paths[first:], first):
        try:
            picture = np.asarray(PEERS[title][0](path), np.uint8)
        except BaseException as error:  # a decoder's panic is no Exception
            (folder / f"{number}.txt").write_text(f"{type(error).__name__}: {error}"[:200], errors="replace")
        else:
            np.save(folder / "writing.npy", picture)
            (folder / "writing.npy").rename(folder / f"{number}.npy")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    work(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
