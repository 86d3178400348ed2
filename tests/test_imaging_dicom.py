"Real and packaged DICOM files: every kind of picture, every kind of fault, and agreement with dcmtk."

import os
import shutil
import struct
import subprocess
import tracemalloc
import warnings
import zlib
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.data import get_testdata_file

import medkit.imaging.dicom
from medkit.errors import ImageError, MedkitError
from medkit.imaging import Window, apply_window, convert, list_series, read_image, read_series, to_uint8
from medkit.imaging.dicom import _PLUGINS, _clear_high_bits, _draw, _Lut, _Pipeline, render_frame

warnings.filterwarnings("ignore", module="pydicom")
DATA = Path(os.environ["MEDKIT_DATA"]) / "imaging" if "MEDKIT_DATA" in os.environ else None
real = pytest.mark.skipif(DATA is None, reason="MEDKIT_DATA is not set: real recordings are not here")
PACKAGED = Path(get_testdata_file("CT_small.dcm", download=False)).parent


def changed(name, target, **tags):
    dataset = pydicom.dcmread(PACKAGED / name)
    for keyword, value in tags.items():
        delattr(dataset, keyword) if value is None else setattr(dataset, keyword, value)
    dataset.save_as(target)
    return read_image(target)


def test_monochrome1_is_the_inverse(tmp_path):
    plain = read_image(PACKAGED / "MR_small.dcm")
    film = changed("MR_small.dcm", tmp_path / "film.dcm", PhotometricInterpretation="MONOCHROME1")
    for window in ("header", "minmax", Window(600, 900)):
        assert (film.display(window) == 255 - plain.display(window)).all()
    assert (film.pixels() == plain.pixels()).all()


def test_same_picture_in_every_encoding():
    plain = read_image(PACKAGED / "MR_small.dcm").display()
    for name in ("MR_small_RLE", "MR_small_bigendian", "MR_small_expb", "MR_small_implicit", "MR_small_padded"):
        assert (read_image(PACKAGED / f"{name}.dcm").display() == plain).all(), name
    lossless = read_image(PACKAGED / "MR_small_jp2klossless.dcm").display()
    assert (lossless == plain).all()


def test_modality_values_keep_whole_numbers(tmp_path):
    image = read_image(PACKAGED / "CT_small.dcm")
    assert image.pixels().dtype == np.int16 and image.pixels().min() == -896
    half = changed("CT_small.dcm", tmp_path / "half.dcm", RescaleSlope="0.5").pixels()
    assert half.dtype == np.float32 and half.min() == 128 * 0.5 - 1024
    tiny = changed("CT_small.dcm", tmp_path / "tiny.dcm", RescaleSlope="1e-7", RescaleIntercept="0")
    shown = tiny.display()
    assert shown.min() == 0 and shown.max() == 255  # dcmtk paints these black


def test_window_width_below_one_is_shown(tmp_path):
    image = changed("CT_small.dcm", tmp_path / "pet.dcm", RescaleSlope="1e-4", RescaleIntercept="0", WindowCenter="0.1", WindowWidth="0.2")
    assert image.windows[0].function == "LINEAR_EXACT"
    assert len(np.unique(image.display())) > 100


def test_several_windows_by_number_and_name(tmp_path):
    image = changed("CT_small.dcm", tmp_path / "two.dcm", WindowCenter=[40, -600], WindowWidth=[300, 1500],
                    WindowCenterWidthExplanation=["SOFT", "LUNG A"])
    assert (image.display() == image.display(0)).all()
    assert (image.display(1) == image.display(Window(-600, 1500))).all()
    assert (image.display("LUNG A") == image.display(1)).all()
    with pytest.raises(ImageError, match="LUNG A"):
        image.display(2)


def test_voi_function_of_the_header(tmp_path):
    for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        image = changed("CT_small.dcm", tmp_path / "f.dcm", WindowCenter=40, WindowWidth=30, VOILUTFunction=function)
        assert (image.display() == image.display(Window(40, 30, function))).all()


def test_padding_is_left_out_of_minmax(tmp_path):
    dataset = pydicom.dcmread(PACKAGED / "CT_small.dcm")
    pixels = dataset.pixel_array.copy()
    pixels[:20] = -2000
    dataset.PixelData, dataset.PixelPaddingValue = pixels.tobytes(), -2000
    dataset.save_as(tmp_path / "padded.dcm")
    picture = read_image(tmp_path / "padded.dcm").display("minmax")
    whole = read_image(PACKAGED / "CT_small.dcm").display("minmax")
    assert picture[:20].max() == 0 and np.abs(picture[20:].astype(int) - whole[20:]).max() <= 8


def test_frames_and_colours():
    film = read_image(PACKAGED / "examples_ybr_color.dcm")
    assert film.frames == 30 and film.display(frame=29).shape == (240, 320, 3)
    for frame in (-1, 30, 1.0, None, True, "0"):
        with pytest.raises(ImageError) as caught:
            film.display(frame=frame)
        assert caught.value.reason == "bad_frame"
    bars = {name: read_image(PACKAGED / name).display() for name in ("SC_rgb_rle.dcm", "SC_rgb_rle_16bit.dcm", "SC_rgb_rle_32bit.dcm")}
    assert all(picture.dtype == np.uint8 for picture in bars.values())
    assert (np.abs(bars["SC_rgb_rle.dcm"].astype(int) - bars["SC_rgb_rle_16bit.dcm"]) <= 1).all()
    red = read_image(PACKAGED / "SC_rgb_jpeg_dcmtk.dcm").display()[5, 50]
    assert red[0] > 250 and red[1] < 5 and red[2] < 5


def test_without_suffix_preamble_or_syntax(tmp_path):
    raw = (PACKAGED / "CT_small.dcm").read_bytes()
    plain = read_image(PACKAGED / "CT_small.dcm")
    shutil.copy(PACKAGED / "CT_small.dcm", tmp_path / "IM_0001")
    (tmp_path / "bare").write_bytes(raw[132:])
    for name in ("IM_0001", "bare"):
        assert (read_image(tmp_path / name).display() == plain.display()).all()
    dataset = pydicom.dcmread(PACKAGED / "CT_small.dcm")
    del dataset.file_meta.TransferSyntaxUID
    pydicom.dcmwrite(tmp_path / "no_syntax", dataset, implicit_vr=False, little_endian=True, enforce_file_format=False)
    image = read_image(tmp_path / "no_syntax")
    assert (image.display() == plain.display()).all() and "transfer syntax" in image.notes[0]


def test_a_hostile_decoder_stays_in_the_family(monkeypatch):
    class Panic(BaseException):
        pass

    def explode(kind):
        def as_array(*args, **kwargs):
            raise kind("boom")
        return as_array

    image = read_image(PACKAGED / "JPEG2000.dcm")
    decoder = pydicom.pixels.get_decoder(image.dataset.file_meta.TransferSyntaxUID)
    for kind, reason in ((Panic, "undecodable"), (ValueError, "undecodable"), (RecursionError, "undecodable"), (MemoryError, "too_large")):
        monkeypatch.setattr(type(decoder), "as_array", explode(kind))
        with pytest.raises(ImageError) as caught:
            image.display()
        assert caught.value.reason == reason
    monkeypatch.setattr(type(decoder), "as_array", explode(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        image.display()


def test_a_missing_codec_names_the_extra(monkeypatch):
    image = read_image(PACKAGED / "MR_small_jpeg_ls_lossless.dcm")
    decoder = pydicom.pixels.get_decoder(image.dataset.file_meta.TransferSyntaxUID)
    monkeypatch.setattr(type(decoder), "is_available", property(lambda self: False))
    with pytest.raises(ImageError, match=r"medkit\[codecs\]") as caught:
        image.display()
    assert caught.value.reason == "undecodable"


def test_size_is_refused_before_decoding(tmp_path):
    image = changed("CT_small.dcm", tmp_path / "huge.dcm", Rows=65535, Columns=65535)
    with pytest.raises(ImageError) as caught:
        image.pixels()
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize("path", [None, 3, b"\xff", "a\0b", "", "/", "~nobody/x.dcm", "x" * 5000])
def test_odd_paths(path):
    with pytest.raises((MedkitError, TypeError)):
        read_image(path)


def test_repr_never_fails_and_escapes(tmp_path):
    image = changed("CT_small.dcm", tmp_path / "odd.dcm", PixelSpacing=None, Modality="<b>")
    assert "spacing not stated" in repr(image) and image.spacing_mm is None
    assert "<b>" not in image._repr_html_().replace("<b>DICOM image</b>", "")
    assert "CompressedSamples" not in changed("CT_small.dcm", tmp_path / "x.dcm", PatientName="CompressedSamples")._repr_html_()


def _decodable():
    folders = [PACKAGED] + ([DATA / "pydicom-data", DATA / "dcm4che"] if DATA else [])
    return [path for folder in folders for path in sorted(folder.glob("*.dcm"))]


def test_the_corpus_is_shown_or_refused_with_a_reason():
    outcome = {}
    for path in _decodable():
        try:
            picture = read_image(path).display()
            outcome[path.name] = "ok" if picture.min() != picture.max() else "blank"
        except MedkitError as error:
            outcome[path.name] = error.reason
    assert "blank" not in outcome.values(), outcome
    counts = {reason: list(outcome.values()).count(reason) for reason in set(outcome.values())}
    assert counts["ok"] >= (138 if DATA else 58), counts


# dcmtk is right and comparable where one of its own options says the same thing as our default
_NOT_COMPARABLE = {
    "eCT_Supplemental.dcm": "dcmtk does not read the window of a functional group",
    "rtdose_expb.dcm": "dcmtk reads 32-bit big-endian pixels in the wrong order", "rtdose_expb_1frame.dcm": "as rtdose_expb.dcm",
}


def _dcmtk(path, image, target):
    header = image.dataset
    options = ["+Wl", "1"] if header.get("VOILUTSequence") else ["+Wi", "1"] if header.get("WindowCenter") not in (None, "") else ["+Wm"]
    options = options if header.PhotometricInterpretation.startswith("MONOCHROME") else []
    done = subprocess.run(["dcm2pnm", "-O", *options, str(path), str(target)], capture_output=True, timeout=60)
    return np.asarray(Image.open(target)) if done.returncode == 0 and target.exists() else None


@pytest.mark.skipif(shutil.which("dcm2pnm") is None, reason="dcm2pnm (dcmtk) is not installed")
def test_agreement_with_dcmtk(tmp_path):
    compared, apart = 0, {}
    for number, path in enumerate(_decodable()):
        if path.name in _NOT_COMPARABLE:
            continue
        try:
            image = read_image(path)
            ours = image.display()
        except MedkitError:
            continue
        theirs = _dcmtk(path, image, tmp_path / f"{number}.pnm")
        if theirs is None:
            continue
        assert theirs.shape == ours.shape, path.name
        compared += 1
        near = np.abs(theirs.astype(int) - ours.astype(int)) <= (1 if ours.ndim == 2 else 3)
        if near.mean() < 0.999:
            apart[path.name] = round(float(near.mean()), 4)
    assert not apart
    assert compared >= (70 if DATA else 25)


@real
@pytest.mark.parametrize("name, values", [
    ("parametric_map_float.dcm", np.float32), ("parametric_map_double_float.dcm", np.float64),
])
def test_float_pixels(name, values):
    image = read_image(DATA / "pydicom-data" / name)
    assert image.pixels().dtype == values and image.display().max() == 255


@real
@pytest.mark.parametrize("name", ["mlut_18.dcm", "vlut_04.dcm", "OT-PAL-8-face.dcm", "gdcm-US-ALOKA-16_big.dcm", "liver.dcm", "emri_small.dcm",
                                  "SC_rgb_32bit_2frame.dcm", "RG1_J2KI.dcm", "color-pl.dcm"])
def test_odd_real_files_are_shown(name):
    picture, used = render_frame(read_image(DATA / "pydicom-data" / name))
    assert picture.dtype == np.uint8 and picture.std() > 1


@real
def test_planar_configuration_makes_no_difference():
    names = ["SC_rgb_dcmtk_ebcr_dcmd.dcm", "SC_rgb.dcm"]
    one, other = (read_image(DATA / "pydicom-data" / name).display() for name in names)
    assert one.shape == other.shape
    assert read_image(DATA / "pydicom-data" / "color-pl.dcm").dataset.PlanarConfiguration == 1


def test_every_refusal_says_what_was_found_and_expected(tmp_path, monkeypatch):
    whole = (PACKAGED / "CT_small.dcm").read_bytes()
    for name, data in {"empty": b"", "page": b"<html>" * 99, "cut": whole[:-9000], "head": whole[:132]}.items():
        (tmp_path / name).write_bytes(data)
    image = read_image(PACKAGED / "CT_small.dcm")
    asks = {
        "not_found": [lambda: read_image(tmp_path / "none"), lambda: read_image(tmp_path / "none" / "none"), lambda: read_image("a\0b")],
        "not_readable": [lambda: read_image(tmp_path)],
        "empty": [lambda: read_image(tmp_path / "empty")],
        "not_dicom": [lambda: read_image(tmp_path / "page")],
        "truncated": [lambda: read_image(tmp_path / "cut"), lambda: read_image(tmp_path / "head")],
        "no_pixels": [lambda: read_image(PACKAGED / "test-SR.dcm")],
        "unknown_window": [lambda: image.display("pancraes"), lambda: image.display(7), lambda: image.display(None)],
        "bad_frame": [lambda: image.display(frame=3), lambda: image.display(frame=None), lambda: image.pixels("a")],
        "bad_option": [lambda: render_frame(image, bits=12), lambda: render_frame(image, bits=None), lambda: render_frame(None)],
        "bad_header": [lambda: changed("CT_small.dcm", tmp_path / "a", RescaleSlope=0).pixels(),
                       lambda: changed("CT_small.dcm", tmp_path / "b", Rows=127).display(),
                       lambda: changed("CT_small.dcm", tmp_path / "c", Rows=None).display(),
                       lambda: changed("CT_small.dcm", tmp_path / "d", SamplesPerPixel=3).display(),
                       lambda: changed("CT_small.dcm", tmp_path / "e", PixelSpacing=[0, 1]).spacing_mm],
        "bad_window": [lambda: changed("CT_small.dcm", tmp_path / "f", WindowCenter=[1, 2], WindowWidth=[3]).display(),
                       lambda: changed("CT_small.dcm", tmp_path / "g", WindowCenter=[1], WindowWidth=[0]).display()],
        "too_large": [lambda: changed("CT_small.dcm", tmp_path / "h", Rows=65535, Columns=65535).display()],
    }
    for reason, calls in asks.items():
        for number, call in enumerate(calls):
            with pytest.raises(ImageError) as caught:
                call()
            assert caught.value.reason == reason, number
            assert None not in (caught.value.found, caught.value.expected), (reason, number)
    monkeypatch.setattr("medkit.imaging.dicom.MAX_FILE_BYTES", 1000)
    with pytest.raises(ImageError) as caught:
        read_image(PACKAGED / "CT_small.dcm")
    assert caught.value.reason == "too_large" and None not in (caught.value.found, caught.value.expected)


def with_raw(target, tag, vr, value):
    "CT_small with one element replaced by raw bytes, which no writer would produce."
    dataset = pydicom.dcmread(PACKAGED / "CT_small.dcm")
    if tag in dataset:
        del dataset[tag]
    dataset.save_as(target)
    data, at = bytearray(target.read_bytes()), None
    at = data.rfind(b"\xe0\x7f\x10\x00OW")
    data[at:at] = struct.pack("<HH", *tag) + vr + struct.pack("<H", len(value)) + value
    target.write_bytes(data)
    return target


HOSTILE = {
    "BurnedInAnnotation": (0x28, 0x301), "PixelPresentation": (0x8, 0x9205), "Modality": (0x8, 0x60), "Rows": (0x28, 0x10),
    "SeriesInstanceUID": (0x20, 0xE), "ImageType": (0x8, 0x8), "PixelSpacing": (0x28, 0x30), "NumberOfFrames": (0x28, 0x8),
    "SharedFunctionalGroups": (0x5200, 0x9229), "PhotometricInterpretation": (0x28, 0x4), "WindowCenter": (0x28, 0x1050),
    "Orientation": (0x20, 0x37), "BitsStored": (0x28, 0x101), "PixelPaddingValue": (0x28, 0x120), "charset": (0x8, 0x5),
}
RAW = [(b"FD", b"abc"), (b"US", b"abc"), (b"ZZ", b"abcd"), (b"IS", b"1.5x"), (b"DS", b"nan "), (b"DS", b"1\\nan ")]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_values_give_the_family_everywhere(tmp_path, name):
    (tmp_path / "in").mkdir()
    for number, (vr, value) in enumerate(RAW):
        path = with_raw(tmp_path / "in" / f"{number}.dcm", HOSTILE[name], vr, value)
        single = tmp_path / f"series{number}"
        single.mkdir()
        shutil.copy(path, single)
        for ask in (lambda: read_image(path), lambda: read_image(path).display(), lambda: read_image(path).show(), lambda: read_image(path).spacing_mm,
                    lambda: read_image(path).frames, lambda: read_image(path).windows, lambda: read_series(single), lambda: list_series(single)):
            try:
                ask()
            except MedkitError as error:
                assert None not in (error.found, error.expected)
        try:
            image = read_image(path)
        except ImageError:
            continue
        assert repr(image) and image._repr_html_()
    plt.close("all")
    report = convert(tmp_path / "in", tmp_path / "out")
    assert len(report.files) == len(RAW) and all(row["status"] in ("ok", "ok_warn", "failed", "skipped") for row in report.files)


@pytest.mark.parametrize(("vr", "value"), [(b"FD", b"abc"), (b"ZZ", b"abcd")])
def test_a_tag_that_cannot_be_parsed_is_a_bad_header(tmp_path, vr, value):
    with pytest.raises(ImageError) as caught:
        read_image(with_raw(tmp_path / "odd.dcm", HOSTILE["PixelPresentation"], vr, value))
    assert caught.value.reason == "bad_header" and "PixelPresentation" in caught.value.message
    assert "bad_header" in repr(read_image(with_raw(tmp_path / "odd.dcm", HOSTILE["Modality"], vr, value)))
    doubtful = read_image(with_raw(tmp_path / "odd.dcm", HOSTILE["BurnedInAnnotation"], vr, value))
    assert doubtful.burned_in and "text is burned into the pixels" in doubtful.notes  # nobody can tell, so to be safe: yes


@pytest.mark.parametrize("preamble", [True, False])
def test_a_deflate_bomb_is_refused_with_and_without_preamble(tmp_path, preamble):
    dataset = pydicom.dcmread(PACKAGED / "image_dfl.dcm")
    whole = (PACKAGED / "image_dfl.dcm").read_bytes()
    head = whole[:144 + dataset.file_meta.FileMetaInformationGroupLength]
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = zlib.decompress(whole[len(head):], -15)
    bomb = squeeze.compress(body) + b"".join(squeeze.compress(bytes(1 << 24)) for _ in range(65)) + squeeze.flush()
    path = tmp_path / "bomb.dcm"
    path.write_bytes((head if preamble else head[132:]) + bomb)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert caught.value.reason == "too_large"
    path.write_bytes((head if preamble else head[132:]) + whole[len(head):])
    assert (read_image(path).display() == read_image(PACKAGED / "image_dfl.dcm").display()).all()


# The table in place of the formula, and the frames that stay in the file


def written(target, stored, bits_stored=None, **tags):
    "A grey file of whole numbers; with three axes, a film."
    dataset = pydicom.dcmread(PACKAGED / "CT_small.dcm")
    stored = np.ascontiguousarray(stored)
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    if stored.ndim == 3:
        dataset.NumberOfFrames = len(stored)
    dataset.BitsAllocated = stored.dtype.itemsize * 8
    dataset.BitsStored = bits_stored or dataset.BitsAllocated
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(stored.dtype.kind == "i")
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OB" if stored.dtype.itemsize == 1 else "OW"
    dataset.save_as(target)
    return target


RAMP = np.random.default_rng(7).permutation(np.arange(1 << 17) % (1 << 16)).reshape(512, 256).astype(np.uint16)
ENTRIES = np.random.default_rng(8).integers(0, 1 << 16, 300).astype(np.uint16).tobytes()
LUTS = st.builds(_Lut, st.integers(-40000, 65535), st.just(ENTRIES), st.integers(8, 16))
NUMBERS = st.floats(-1e5, 1e5, allow_nan=False).filter(lambda number: abs(number) > 1e-9)
WINDOWS = st.builds(Window, st.floats(-1e5, 1e5), st.floats(1, 1e5), st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]))
PIPELINES = st.builds(
    _Pipeline, LUTS | st.tuples(NUMBERS, st.floats(-1e5, 1e5)) | st.tuples(st.sampled_from([1.0, -2.0, 3.0]), st.sampled_from([0.0, -1024.0, 30000.0])),
    LUTS | WINDOWS, st.booleans(), st.sampled_from([8, 16]))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(pipeline=PIPELINES, kind=st.sampled_from(["<i2", "<u2", "<u1", "<i1"]), bits=st.integers(1, 16))
def test_the_table_draws_the_same_picture_bit_for_bit(pipeline, kind, bits):
    stored = RAMP.astype(kind)
    by_table, by_steps = _draw(stored, bits, pipeline), pipeline.draw(_clear_high_bits(stored, bits))
    assert by_table.dtype == by_steps.dtype and (by_table == by_steps).all()
    assert (_draw(stored[:99], bits, pipeline) == by_table[:99]).all()  # a small picture takes the steps


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(slope=st.sampled_from([1.0, 2.0, -1.0, 0.5, 1e-6]), intercept=st.sampled_from([0.0, -1024.0, 0.25]), window=WINDOWS,
       kind=st.sampled_from(["<i2", "<u2"]), bits=st.sampled_from([8, 12, 16]), inverted=st.booleans())
def test_a_file_shows_what_the_formula_says(tmp_path, slope, intercept, window, kind, bits, inverted):
    tags = {"RescaleSlope": slope, "RescaleIntercept": intercept, "PhotometricInterpretation": f"MONOCHROME{2 - inverted}"}
    image = read_image(written(tmp_path / "x.dcm", RAMP.astype(kind), bits, **tags))
    values = _clear_high_bits(RAMP.astype(kind), bits).astype(float) * slope + intercept
    center, width = window.center, window.width
    if window.function == "SIGMOID":
        grey = 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    elif window.function == "LINEAR_EXACT":
        grey = np.clip((values - center) / width + 0.5, 0, 1)
    else:
        grey = np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1) if width > 1 else (values > center - 0.5).astype(float)
    grey = 1 - grey if inverted else grey
    for depth, near in ((8, 1), (16, 16)):
        picture, used = render_frame(image, window, bits=depth)
        apart = np.abs(picture - grey * (2**depth - 1)) > near
        assert used == window and apart.mean() < 1e-3  # at the step of a narrow window one float in many falls on the other side
    plain = to_uint8(apply_window(image.pixels(), window))
    assert (image.display(window) == (255 - plain if inverted else plain)).all()


@pytest.mark.parametrize("shape", [(40, 50), (300, 300)])
def test_minmax_by_table_and_by_formula(tmp_path, shape):
    stored = np.random.default_rng(1).integers(-2000, 3000, shape).astype(np.int16)
    stored[:9] = -2000
    for padding in (-2000, 63536):  # the same bits
        path = written(tmp_path / "p.dcm", stored, PixelPaddingValue=0)
        dataset = pydicom.dcmread(path)
        dataset["PixelPaddingValue"].VR = "US" if padding > 0 else "SS"
        dataset.PixelPaddingValue = padding
        dataset.save_as(path)
        image = read_image(path)
        picture, used = render_frame(image, "minmax")
        real = stored[stored != -2000]
        assert used.limits == (float(real.min()) - 1024, float(real.max()) - 1024)
        assert (picture == to_uint8(apply_window(image.pixels(), used))).all()


@pytest.mark.parametrize("kind, bits", [("<u1", 8), ("<i1", 8), ("<u2", 9), ("<i2", 16), ("<u4", 32), ("<i4", 20), ("<u4", 24)])
def test_whole_numbers_of_every_kind(tmp_path, kind, bits):
    info = np.iinfo(kind)
    stored = np.random.default_rng(2).integers(info.min, info.max, (2, 60, 70), endpoint=True).astype(kind)
    image = read_image(written(tmp_path / "k.dcm", stored, bits, RescaleIntercept=0))
    assert (image.pixels(1) == _clear_high_bits(stored[1], bits)).all() and image.pixels().flags.writeable
    assert image.display(frame=1).max() == 255 or bits > 8


def test_one_bit_frames_that_share_bytes(tmp_path):
    stored = np.random.default_rng(3).integers(0, 2, (5, 7, 3)).astype(np.uint8)
    path = written(tmp_path / "bits.dcm", stored, 1, BitsAllocated=1, RescaleIntercept=0)
    dataset = pydicom.dcmread(path)
    dataset.BitsAllocated, dataset.PixelData = 1, np.packbits(stored.ravel(), bitorder="little").tobytes() + b"\0"
    dataset.save_as(path)
    image = read_image(path)
    for frame in range(5):
        assert (image.pixels(frame) == stored[frame]).all()


def test_a_large_file_stays_on_disk(tmp_path, monkeypatch):
    names = ["CT_small.dcm", "examples_ybr_color.dcm", "JPEG2000.dcm", "MR_small_bigendian.dcm", "SC_rgb_rle_2frame.dcm", "image_dfl.dcm"]
    frames = {name: read_image(PACKAGED / name) for name in names}
    wanted = {name: [image.display(frame=frame) for frame in range(min(3, image.frames))] for name, image in frames.items()}
    monkeypatch.setattr("medkit.imaging.dicom.WHOLE_FILE_BYTES", 1000)
    for name, pictures in wanted.items():
        for path in (PACKAGED / name, shutil.copy(PACKAGED / name, tmp_path / name)):
            image = read_image(path)
            assert all((image.display(frame=frame) == picture).all() for frame, picture in enumerate(pictures)), name


def test_frames_are_fetched_one_by_one(tmp_path):
    film = np.random.default_rng(4).integers(0, 4096, (60, 512, 512)).astype(np.int16)
    path = written(tmp_path / "film.dcm", film)
    assert path.stat().st_size > 30 << 20
    tracemalloc.start()
    image = read_image(path)
    for frame in range(60):
        image.display(frame=frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20
    assert (image.pixels(59) == film[59] - 1024).all()
    os.utime(path, (1, 1))
    with pytest.raises(ImageError, match="has changed"):
        image.display()
    path.unlink()
    with pytest.raises(ImageError, match="no longer") as caught:
        image.display()
    assert caught.value.reason == "not_readable"


def test_a_large_file_cut_short_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("medkit.imaging.dicom.WHOLE_FILE_BYTES", 1000)
    for name in ("examples_ybr_color.dcm", "CT_small.dcm"):
        (tmp_path / name).write_bytes((PACKAGED / name).read_bytes()[:-3000])
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / name).display(frame=0)
        assert caught.value.reason == "truncated"


def test_fragments_are_counted_once_for_an_image(tmp_path, monkeypatch):
    path = written(tmp_path / "film.dcm", np.random.default_rng(5).integers(0, 4096, (40, 16, 16)).astype(np.uint16))
    dataset = pydicom.dcmread(path)
    dataset.compress(pydicom.uid.RLELossless)
    dataset.save_as(path)
    calls, real_fragments = [], medkit.imaging.dicom._fragments
    monkeypatch.setattr("medkit.imaging.dicom._fragments", lambda *args: calls.append(1) or real_fragments(*args))
    image = read_image(path)
    pictures = [image.display(frame=frame) for frame in range(40)]
    assert len(calls) == 1 and len({picture.tobytes() for picture in pictures}) == 40
    image.dataset.NumberOfFrames = 41  # the header is changed: everything is checked anew
    with pytest.raises(ImageError, match="more frames"):
        image.display()


@pytest.mark.parametrize("table", [True, False])
def test_frames_of_several_fragments(tmp_path, table):
    dataset = pydicom.dcmread(PACKAGED / "JPEG2000.dcm")
    stream = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.NumberOfFrames = 2
    dataset.PixelData = pydicom.encaps.encapsulate([stream, stream], fragments_per_frame=3, has_bot=table)
    dataset.save_as(tmp_path / "two.dcm")
    image = read_image(tmp_path / "two.dcm")
    plain = read_image(PACKAGED / "JPEG2000.dcm").display()
    assert all((image.display(frame=frame) == plain).all() for frame in (0, 1))
    image.dataset.NumberOfFrames = 3
    with pytest.raises(ImageError) as caught:
        image.display()
    assert caught.value.reason == "bad_header"


# Overlays, text in the pixels, notes


def test_an_overlay_in_the_high_bits(tmp_path):
    drawn = np.zeros((64, 64), bool)
    drawn[10:20, 30:50] = True
    stored = (np.arange(4096).reshape(64, 64) | drawn.astype(np.uint16) << 12).astype(np.uint16)
    path = written(tmp_path / "high.dcm", stored, 12, RescaleIntercept=0)
    dataset = pydicom.dcmread(path)
    for element, vr, value in ((0x10, "US", 64), (0x11, "US", 64), (0x40, "CS", "G"), (0x50, "SS", [1, 1]), (0x100, "US", 16), (0x102, "US", 12)):
        dataset.add_new((0x6002, element), vr, value)
    dataset.save_as(path)
    image = read_image(path)
    assert image.overlays == (0x6002,) and (image.overlay() == drawn).all()
    assert image.pixels().max() == 4095 and "an overlay of the file is left out of the picture" in image.notes


def test_an_overlay_with_frames_of_its_own(tmp_path):
    path = written(tmp_path / "film.dcm", np.zeros((4, 8, 8), np.uint16))
    drawn = np.random.default_rng(6).integers(0, 2, (2, 8, 8)).astype(bool)
    dataset = pydicom.dcmread(path)
    for element, vr, value in ((0x10, "US", 8), (0x11, "US", 8), (0x15, "IS", 2), (0x50, "SS", [1, 1]), (0x51, "US", 2), (0x100, "US", 1), (0x102, "US", 0),
                               (0x3000, "OW", np.packbits(drawn.ravel(), bitorder="little").tobytes())):
        dataset.add_new((0x6000, element), vr, value)
    dataset.save_as(path)
    image = read_image(path)
    assert not image.overlay(frame=0).any() and not image.overlay(frame=3).any()
    assert (image.overlay(frame=1) == drawn[0]).all() and (image.overlay(frame=2) == drawn[1]).all()
    for odd in ({"number": 1}, {"number": "0"}, {"number": True}, {"frame": 4}):
        with pytest.raises(ImageError):
            image.overlay(**odd)


@pytest.mark.parametrize("element, vr, value", [(0x10, "US", 0), (0x11, "US", 60000), (0x50, "SS", [1]), (0x3000, "OW", b"ab"), (0x10, "LO", "x")])
def test_a_broken_overlay_harms_nothing_else(tmp_path, element, vr, value):
    dataset = pydicom.dcmread(PACKAGED / "examples_overlay.dcm")
    dataset.add_new((0x6000, element), vr, value)
    dataset.save_as(tmp_path / "odd.dcm")
    image = read_image(tmp_path / "odd.dcm")
    assert (image.display() == read_image(PACKAGED / "examples_overlay.dcm").display()).all()
    with pytest.raises(ImageError) as caught:
        image.overlay()
    assert caught.value.reason in ("bad_header", "too_large")


def test_notes_quote_nothing_of_the_file(tmp_path):
    path = with_raw(tmp_path / "odd.dcm", (0x0010, 0x0040), b"CS", b"Secret^Name lower")
    image = read_image(path)
    assert image.display().any()
    wide = changed("CT_small.dcm", tmp_path / "text.dcm", BurnedInAnnotation="YES")
    assert wide.burned_in is True and wide.notes == ("text is burned into the pixels",)
    broken = bytearray((PACKAGED / "CT_small.dcm").read_bytes())
    at = broken.find(b"\x08\0\x05\0CS")
    charset = at if at > 0 else broken.find(b"\x08\0\x08\0CS")
    broken[charset:charset] = b"\x08\0\x05\0CS\x0c\0SecretOdd^x "
    (tmp_path / "charset.dcm").write_bytes(broken)
    fixed = {"pydicom warned about the file", "text is burned into the pixels", "an overlay of the file is left out of the picture"}
    assert set(read_image(tmp_path / "charset.dcm").notes) | set(image.notes) <= fixed


# Decoders


SYNTAXES = ["JPEG2000.dcm", "JPEG-lossy.dcm", "MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_dcmtk.dcm", "MR_small_jp2klossless.dcm"]


@pytest.mark.parametrize("name", SYNTAXES)
def test_every_missing_codec_is_named(monkeypatch, name):
    image = read_image(PACKAGED / name)
    decoder = pydicom.pixels.get_decoder(image.dataset.file_meta.TransferSyntaxUID)
    monkeypatch.setattr(type(decoder), "is_available", property(lambda self: False))
    for ask in (image.display, image.pixels):
        with pytest.raises(ImageError, match=r"medkit\[codecs\]") as caught:
            ask()
        assert caught.value.reason == "undecodable" and caught.value.found == image.dataset.file_meta.TransferSyntaxUID.name


def test_gdcm_is_asked_last():
    decoders = [pydicom.pixels.get_decoder(uid) for uid in pydicom.uid.AllTransferSyntaxes if uid in _known_decoders()]
    assert len(decoders) >= 10
    for decoder in decoders:
        assert set(decoder._available) <= set(_PLUGINS) and set(decoder._unavailable) <= set(_PLUGINS), decoder.UID.name
    assert _PLUGINS[-1] == "gdcm"


def _known_decoders():
    from pydicom.pixels.decoders import base
    return base._PIXEL_DATA_DECODERS


def test_a_table_for_the_window_of_one_frame(tmp_path):
    path = written(tmp_path / "groups.dcm", np.arange(128).reshape(2, 8, 8).astype(np.uint16), RescaleIntercept=0)
    dataset, lut = pydicom.dcmread(path), pydicom.Dataset()
    lut.add_new("LUTDescriptor", "US", [128, 0, 8])
    lut.add_new("LUTData", "US", list(range(127, -1, -1)))
    voi = pydicom.Dataset()
    voi.VOILUTSequence = [lut]
    dataset.SharedFunctionalGroupsSequence = [pydicom.Dataset()]
    dataset.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence = [voi]
    dataset.save_as(path)
    picture, used = render_frame(read_image(path), frame=1)
    assert used is None and picture[0, 0] == 127 - 64 and picture[-1, -1] == 0


@pytest.mark.parametrize("tags", [{"Rows": 32}, {"Rows": 63}, {"Rows": 128}, {"Columns": 32}, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}])
@pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "SC_rgb_rle.dcm"])
def test_a_header_that_lies_about_run_length_pixels(tmp_path, name, tags):
    plain = pydicom.dcmread(PACKAGED / name)
    tags = {key: plain.get(key) // 2 if key in ("Rows", "Columns") and value == 32 else value for key, value in tags.items()}
    if all(plain.get(key) == value for key, value in tags.items()):
        tags = {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15}
    with pytest.raises(ImageError) as caught:
        changed(name, tmp_path / "lie.dcm", **tags).display()
    assert caught.value.reason == "bad_header"


@pytest.mark.parametrize("left", range(8))
def test_a_copy_cut_before_its_pixels_is_never_taken_for_a_header(left, tmp_path):
    "However many bytes of the next element are left behind, up to none at all, which nobody can tell from a whole header."
    data = (PACKAGED / "CT_small.dcm").read_bytes()
    place = data.index(b"\x28\0\x10\0US")  # Rows
    (tmp_path / "cut.dcm").write_bytes(data[: place + left])
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "cut.dcm")
    assert caught.value.reason == ("truncated" if left else "no_pixels")
