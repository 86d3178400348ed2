"""The display pipeline of DICOM written a second time, straight from the standard, and the judge of a picture against it.

Nothing here imports medkit: pydicom decodes, numpy does the rest (PS3.3 C.11.1, C.11.2, C.7.6.3.1, PS3.4 N.2).
"""

import os
import warnings
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, pixel_array

PACKAGED = Path(pydicom.__file__).parent / "data" / "test_files"
GOOD_ERROR, GOOD_R = 6, 0.95  # grey levels, correlation: the judgement of the published comparison


def data_folder() -> Path | None:
    "The folder of real recordings, or None where MEDKIT_DATA is unset."
    return Path(os.environ["MEDKIT_DATA"]) if os.environ.get("MEDKIT_DATA") else None


def corpus() -> list[Path]:
    "Every file with pixels of pydicom's packaged files, and of pydicom-data where it is there."
    folders = [PACKAGED] + ([data_folder() / "imaging" / "pydicom-data"] if data_folder() else [])
    return [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file() and has_pixels(path)]


def has_pixels(path: Path) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, force=True)
        except Exception:  # not DICOM: a text, a colour profile
            return False
    return any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))


def reference(path: Path) -> np.ndarray:  # uint8, (row, column) or (row, column, 3)
    "The picture of the first frame; raises whatever pydicom raises where it cannot decode."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=True)
        stored = np.asarray(pixel_array(dataset, index=0))  # YBR comes out as RGB
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            return palette(apply_color_lut(stored, dataset)[..., :3])
        if stored.ndim == 3:
            return np.rint(stored * (255 / (2.0 ** int(dataset.BitsStored) - 1))).astype(np.uint8)
        return grey(dataset, stored)


def palette(colours: np.ndarray) -> np.ndarray:
    "8-bit colours of a palette: 16-bit entries span 0 to 65535 unless all of them are small."
    return colours.astype(np.uint8) if colours.max() <= 255 else np.rint(colours / 257.0).astype(np.uint8)


def grey(dataset: Dataset, stored: np.ndarray) -> np.ndarray:
    "Modality, then VOI table or first window or min-max, then photometric interpretation."
    real = stored if stored.dtype.kind == "f" else stored.astype(np.int64)
    values = modality(dataset, real)
    window = first_window(dataset)
    if dataset.get("VOILUTSequence"):
        level = look_up(dataset.VOILUTSequence[0], values, values.min() < 0)
    elif window:
        level = windowed(values, *window)
    else:
        inside = values[not_padding(dataset, real)]
        low, high = (inside.min(), inside.max()) if inside.size else (values.min(), values.max())
        level = np.clip((values - low) / ((high - low) or 1), 0, 1)
    level = 1 - level if dataset.PhotometricInterpretation == "MONOCHROME1" else level
    return np.rint(level * 255).astype(np.uint8)


def modality(dataset: Dataset, stored: np.ndarray) -> np.ndarray:
    "C.11.1: a table, or slope and intercept; enhanced objects keep them in functional groups."
    if dataset.get("ModalityLUTSequence"):
        return look_up(dataset.ModalityLUTSequence[0], stored, bool(dataset.get("PixelRepresentation")), raw=True)
    for header in (dataset, *groups(dataset, "PixelValueTransformationSequence")):
        if header.get("RescaleSlope") is not None:
            return stored * float(header.RescaleSlope) + float(header.RescaleIntercept)
    return stored.astype(float)


def groups(dataset: Dataset, name: str) -> list[Dataset]:
    "Items of one functional group for the first frame, its own before the shared one."
    found = []
    for outer in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        if dataset.get(outer) and dataset[outer].value[0].get(name):
            found.append(dataset[outer].value[0][name].value[0])
    return found


def look_up(item: Dataset, values: np.ndarray, signed: bool, raw: bool = False) -> np.ndarray:
    "C.11.1.1, C.11.2.1.1: descriptor (entries, first value, bits), values outside take the nearest entry."
    entries, first, bits = (int(number) for number in item.LUTDescriptor)
    entries = entries or 65536
    first = first - 65536 if signed and first > 32767 else first
    table = item.LUTData
    if isinstance(table, bytes):
        table = np.frombuffer(table, "<u2" if len(table) >= 2 * entries else "u1")
    table = np.asarray(table).astype(np.int64)[:entries] & 0xFFFF
    found = table[np.clip(np.rint(values).astype(np.int64) - first, 0, len(table) - 1)]
    return found.astype(float) if raw else found / (2.0**bits - 1)


def first_window(dataset: Dataset) -> tuple[float, float, str] | None:
    "Centre, width and function of the first window."
    for header in (dataset, *groups(dataset, "FrameVOILUTSequence")):
        if header.get("WindowCenter") is not None and header.get("WindowWidth") is not None:
            centre, width = (np.atleast_1d(header[name].value) for name in ("WindowCenter", "WindowWidth"))
            return float(centre[0]), float(width[0]), header.get("VOILUTFunction") or "LINEAR"
    return None


def windowed(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    "C.11.2.1.2 and C.11.2.1.3, from 0 to 1."
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR_EXACT" or width < 1:  # LINEAR needs a width of 1 at least
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if width == 1:
        return (values > centre - 0.5).astype(float)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def not_padding(dataset: Dataset, stored: np.ndarray) -> np.ndarray:
    "C.7.5.1.1.2: which pixels are image; padding is one value or a range."
    if (value := dataset.get("PixelPaddingValue")) is None:
        return np.ones(stored.shape, bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return (stored < low) | (stored > high)


def judge(picture: np.ndarray, truth: np.ndarray) -> str:
    "good, tone off, inverted, blank or wrong."
    picture, truth = (np.asarray(image, float) for image in (picture, truth))
    if picture.ndim == 3 and truth.ndim == 2 and np.ptp(picture[..., :3], axis=2).max() == 0:
        picture = picture[..., 0]
    picture = picture[..., :3] if picture.ndim == 3 else picture
    if picture.shape != truth.shape:
        return "wrong"
    error, spread = abs(picture - truth).mean(), (np.ptp(picture), np.ptp(truth))
    if 0 in spread:
        return "good" if error < GOOD_ERROR else "blank" if spread[0] == 0 else "wrong"
    r = np.corrcoef(picture.ravel(), truth.ravel())[0, 1]
    if error < GOOD_ERROR and r > GOOD_R:
        return "good"
    return "inverted" if r < -0.5 else "tone off" if r > 0.5 else "wrong"


def agreement(picture: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    "How many samples differ by one grey level at most, and how many there are."
    close = abs(picture.astype(int) - other.astype(int)) <= 1
    return int(close.sum()), close.size
