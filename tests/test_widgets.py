"""The viewers without a browser: what a control does, what reaches the picture, and what bad input gets."""

import subprocess
import sys

import ipywidgets as widgets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shown import every_widget, pixels

from medkit.errors import ImageError, SignalError
from medkit.figures import png_bytes
from medkit.imaging.dicom import read_image
from medkit.imaging.phantom import simulate_abdomen
from medkit.imaging.series import list_series, write_series
from medkit.imaging.volume import Mask, Volume, axial_affine
from medkit.imaging.window import PRESETS, Window
from medkit.signals.beats import find_beats
from medkit.signals.clean import clean
from medkit.signals.recording import Recording
from medkit.signals.simulate import simulate_bcg
from medkit.signals.vitals import measure_vitals
from medkit.widgets.trace import lay_out, trace_png, trace_strip, trace_text, view_recording
from medkit.widgets.viewer import browse_series, cut_plane, frame_png, series_options, slice_count, slice_png, slice_text, small_png, view_image, view_volume, viewer_strip


@pytest.fixture(scope="module")
def patient():
    return simulate_abdomen(seed=5, tumour=True, shape=(16, 64, 64))


@pytest.fixture(scope="module")
def night():
    recording, _ = simulate_bcg(180, 100, snr_db=10, seed=7, movements_per_hour=120, bed_exits_per_hour=0)
    return recording, find_beats(clean(recording)), measure_vitals(recording)


def test_every_slider_changes_the_picture_and_its_words(patient):
    viewer = view_volume(*patient)
    for control, value in ((viewer.index, 3), (viewer.center, 100), (viewer.width, 900)):
        before, said = bytes(viewer.picture.value), viewer.readout.value
        control.value = value
        assert bytes(viewer.picture.value) != before and viewer.readout.value != said
    before = bytes(viewer.picture.value)
    viewer.opacity.value = 100
    assert bytes(viewer.picture.value) != before


@pytest.mark.parametrize("name", PRESETS)
def test_preset_moves_the_sliders_and_own_numbers_leave_it(patient, name):
    viewer = view_volume(*patient, window=Window(123, 456))
    assert viewer.preset.value == "own"
    viewer.preset.value = name
    assert viewer.window == PRESETS[name]
    assert bytes(viewer.picture.value) == slice_png(patient[0], viewer.index.value, name, patient[1], size_px=360)
    viewer.center.value += 7
    assert viewer.preset.value == "own"
    viewer.center.value -= 7
    assert viewer.preset.value == name


def test_values_out_of_range_are_held_at_the_ends(patient):
    viewer = view_volume(*patient)
    viewer.index.value = 10_000
    assert viewer.index.value == slice_count(patient[0]) - 1
    viewer.width.value = -5
    assert viewer.width.value > 0
    viewer.center.value = 1e9
    assert viewer.center.value == viewer.center.max
    assert pixels(viewer.picture.value).any()


def test_changing_the_plane_keeps_the_slice_within_it(patient):
    viewer = view_volume(*patient, slice_index=15)
    for plane in ("coronal", "sagittal", "axial", "sagittal"):
        viewer.plane.value = plane
        assert 0 <= viewer.index.value <= viewer.index.max == slice_count(patient[0], plane) - 1
        assert plane.capitalize() in viewer.readout.value


def test_labels_can_be_chosen_and_hidden(patient):
    viewer = view_volume(*patient, slice_index=8)
    viewer.labels.value = "liver"
    assert "liver" in viewer.readout.value and "spine" not in viewer.readout.value
    viewer.labels.value = "none"
    bare = pixels(slice_png(patient[0], 8, size_px=360))
    assert (pixels(viewer.picture.value)[:, :bare.shape[1]] == bare).all()


def test_every_control_has_a_visible_label_and_only_core_widgets_are_used(patient, night):
    for viewer in (view_volume(*patient), view_recording(*night)):
        for part in every_widget(viewer):
            assert type(part).__module__.startswith(("ipywidgets.", "medkit.widgets."))
            if isinstance(part, widgets.FloatSlider | widgets.IntSlider | widgets.Dropdown):
                assert part.description
    labels = [part.description for part in every_widget(view_volume(*patient)) if hasattr(part, "description")]
    assert "Window centre (HU)" in labels and "Window width (HU)" in labels


def test_a_still_picture_with_alternative_text_goes_with_each_viewer(patient, night):
    for viewer, word in ((view_volume(*patient), "pancreas"), (view_recording(*night), "beats")):
        data, about = viewer._repr_mimebundle_()
        assert "application/vnd.jupyter.widget-view+json" in data
        assert len(data["image/png"]) < 60 * 1024 and word in about["image/png"]["alt"]
        assert len(data["text/plain"]) < 200


def test_volume_without_a_unit_gets_no_hounsfield_presets():
    values = np.random.default_rng(0).random((4, 20, 30)).astype(np.float32)
    values[0, 0, 0] = np.nan
    viewer = view_volume(Volume(values, axial_affine((3, 1, 1)), (3, 1, 1), unit=""))
    assert "HU" not in viewer.center.description + viewer.readout.value and "lung" not in viewer.preset.options
    assert viewer.center.step < 0.01
    viewer.center.value += 10 * viewer.center.step
    assert pixels(viewer.picture.value).any()


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(3)), st.lists(st.sampled_from([-1, 1]), min_size=3, max_size=3))
def test_every_orientation_is_turned_the_same_way(order, signs):
    "However the axes of the array run, the picture shows the same patient: right on the left, front on top, head on top."
    array = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)  # (z, y, x) towards head, back, left
    turned = np.transpose(array, order)[tuple(slice(None, None, sign) for sign in signs)]
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([sign * np.eye(3)[2 - axis] for axis, sign in zip(order, signs)])
    volume = Volume(turned, affine, (1, 1, 1))
    for plane, axis, picture in (("axial", 0, array[2]), ("coronal", 1, array[::-1, 2]), ("sagittal", 2, array[::-1, :, 2])):
        own = order.index(axis)
        index = 2 if signs[own] > 0 else array.shape[axis] - 3
        cut = cut_plane(volume, index, plane)
        assert (cut.values == picture).all()
        assert cut.letters == {"axial": tuple("RLAP"), "coronal": tuple("RLSI"), "sagittal": tuple("APSI")}[plane]


def test_proportions_follow_the_spacing():
    volume = Volume(np.full((10, 40, 40), 500, np.int16), axial_affine((5, 1, 1)), (5, 1, 1))
    grey = pixels(slice_png(volume, 20, "pancreas", plane="coronal", size_px=200))
    rows, columns = (np.ptp(np.flatnonzero((grey[..., 0] > 200).mean(axis=axis) > 0.3)) + 1 for axis in (1, 0))
    assert rows / columns == pytest.approx(50 / 40, rel=0.03)


@pytest.mark.parametrize("change, reason", [
    ({"volume": None}, "bad_shape"), ({"volume": np.zeros((2, 2, 2))}, "bad_shape"), ({"mask": "liver"}, "bad_shape"),
    ({"window": "no such"}, "unknown_window"), ({"window": 3}, "unknown_window"), ({"plane": "oblique"}, "bad_option"),
    ({"plane": None}, "bad_option"), ({"slice_index": 999}, "bad_frame"), ({"slice_index": "3"}, "bad_frame"),
])
def test_bad_input_to_the_slice_viewer_is_refused_in_words(patient, change, reason):
    with pytest.raises(ImageError) as caught:
        view_volume(**({"volume": patient[0], "mask": patient[1]} | change))
    assert caught.value.reason == reason


def test_labels_of_another_frame_are_refused(patient):
    volume, mask = patient
    moved = Mask(mask.labels, mask.names, mask.affine + np.diag([0, 0, 0, 0]) + np.eye(4, k=3) * 9, mask.spacing_mm)
    for act in (lambda: view_volume(volume, moved), lambda: slice_text(volume, 0, None, moved), lambda: viewer_strip(volume, moved)):
        with pytest.raises(ImageError, match="frame_mismatch"):
            act()


def test_signal_viewer_follows_its_sliders(night):
    viewer = view_recording(*night)
    for control, value in ((viewer.start, 30), (viewer.length, 40), (viewer.band, viewer.band.options[0])):
        before = bytes(viewer.picture.value)
        control.value = value
        assert bytes(viewer.picture.value) != before
    assert "From 30 to 70 s" in viewer.readout.value
    viewer.length.value = 1e6
    assert viewer.start.value + viewer.length.value <= night[0].duration_s + 1


def test_withheld_time_is_hatched_and_named_with_its_reason(night):
    recording, beats, vitals = night
    trace = lay_out(*night)
    assert beats.withheld, "the example should hold a movement"
    start, stop, reason = beats.withheld[0]
    words = trace_text(trace, max(start - 2, 0), 10)
    assert "Withheld" in words and reason in words
    assert trace_png(trace, max(start - 2, 0), 10) != trace_png(lay_out(recording, beats=None), max(start - 2, 0), 10)


def test_short_slow_or_gappy_recordings_still_show_what_they_are():
    for recording in (Recording(np.ones(50), 100.0), Recording(np.arange(300.0), 10.0), Recording(np.full(4000, np.nan), 100.0)):
        viewer = view_recording(recording, length_s=2)
        assert list(viewer.band.options) == ["as recorded"] and "Only the raw signal" in viewer.readout.value


@pytest.mark.parametrize("change, reason", [
    ({"recording": None}, "bad_shape"), ({"beats": [1.0]}, "bad_shape"), ({"vitals": 3}, "bad_shape"),
    ({"channel": "no such"}, "bad_column"), ({"length_s": 0}, "bad_option"), ({"length_s": float("nan")}, "bad_option"),
    ({"length_s": "long"}, "bad_option"),
])
def test_bad_input_to_the_signal_viewer_is_refused_in_words(night, change, reason):
    with pytest.raises(SignalError) as caught:
        view_recording(**(dict(zip(("recording", "beats", "vitals"), night)) | change))
    assert caught.value.reason == reason


def test_twins_need_no_script_and_escape_their_text(patient, night):
    volume, mask = patient
    hostile = Mask(mask.labels, {**mask.names, 2: '<img src=x onerror="alert(1)">'}, mask.affine, mask.spacing_mm)
    for page in (viewer_strip(volume, hostile, slices=(8,), windows=("lung", "bone")), trace_strip(lay_out(*night), starts_s=(0, 60))):
        assert "<script" not in page and "<img src=x" not in page and "http" not in page
        assert page.count('type="radio"') == page.count("<figure>") == 2
        assert page.count(" checked") == 1 and page.count("<img alt=") == 2


def test_widgets_load_only_when_named():
    code = "import sys, medkit.widgets; print('ipywidgets' in sys.modules, 'medkit.signals' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == ["False"] * 2


@pytest.fixture(scope="module")
def folder(patient, tmp_path_factory):
    "Two series, the second with a gap, the third with cut files."
    place = tmp_path_factory.mktemp("series")
    for number, name in enumerate(("whole", "gap", "cut")):
        volume = patient[0] if number == 0 else simulate_abdomen(seed=8 + number, shape=(8, 64, 64))[0]
        paths = write_series(volume, place / name)
        if name == "gap":
            paths[4].unlink()
        if name == "cut":
            for path in paths:
                path.write_bytes(path.read_bytes()[:-500])
    return place


def test_browser_shows_each_series_or_says_why_not(patient, folder):
    browser, seen = browse_series(folder, patient[1]), {}
    for words, number in series_options(browser.found):
        browser.series.value = number
        name = browser.found[number].paths[0].parent.name
        seen[name] = browser.message.value
        shown = browser.viewer is not None
        assert shown == (name != "cut") == (browser.viewer in browser.children)
        assert "slices of 64 x 64 pixels" in words and 'role="status"' in browser.message.value
        if name == "whole":
            assert (browser.viewer.volume.voxels == patient[0].voxels).all() and browser.viewer.mask is patient[1]
    assert "gap of" in seen["gap"] and "cannot be shown" in seen["cut"] and "Fault" not in seen["whole"]


def test_browser_leaves_a_still_picture_and_takes_found_series(folder):
    found = [one for one in list_series(folder) if one.paths[0].parent.name == "whole"]
    browser = browse_series(tuple(found), window="lung")
    data, about = browser._repr_mimebundle_()
    assert len(data["image/png"]) < 60 * 1024 and "width 1500" in about["image/png"]["alt"]
    for part in every_widget(browser):
        assert type(part).__module__.startswith(("ipywidgets.", "medkit.widgets."))


@pytest.mark.parametrize("change, reason", [
    ({"folder": None}, "not_readable"), ({"folder": ()}, "bad_option"), ({"folder": ("a",)}, "bad_option"), ({"folder": "/no such"}, "not_found"),
    ({"mask": 5}, "bad_shape"), ({"window": "no such"}, "unknown_window"),
])
def test_bad_input_to_the_browser_is_refused_in_words(folder, change, reason):
    with pytest.raises(ImageError) as caught:
        browse_series(**({"folder": folder} | change))
    assert caught.value.reason == reason


def test_overlays_are_drawn_until_they_are_switched_off():
    from pydicom.data import get_testdata_file

    image = read_image(get_testdata_file("examples_overlay.dcm", download=False))
    rows, columns = image.pixels().shape[:2]
    size = max(rows, columns)
    bare, drawn = (pixels(frame_png(image, overlays=choice, size_px=size)) for choice in (False, True))
    if bare.shape[:2] == (rows, columns):
        changed, overlay = (drawn != bare).any(axis=-1), image.overlay(0)
        assert overlay.any() and not (changed & ~overlay).any() and (drawn[changed] == (0xF0, 0xE4, 0x42)).all()
        assert (overlay & ~changed).sum() < 0.1 * overlay.sum()  # under the letters of the edges
    viewer = view_image(image)
    before = bytes(viewer.picture.value)
    viewer.overlays.value = False
    assert bytes(viewer.picture.value) != before and "not drawn" in viewer.readout.value
    viewer.preset.value = "minmax"
    assert bytes(viewer.picture.value) == frame_png(image, 0, "minmax", overlays=False, size_px=360)


def test_the_image_viewer_offers_what_makes_sense_and_names_its_window():
    "Presets in HU for CT alone, a slider only for several frames, the window in words."
    from pydicom.data import get_testdata_file

    opened = {name: view_image(read_image(get_testdata_file(name, download=False)))
              for name in ("CT_small.dcm", "MR_small.dcm", "examples_ybr_color.dcm")}
    controls = {name: [part.description for part in every_widget(viewer) if isinstance(part, widgets.Dropdown | widgets.IntSlider)]
                for name, viewer in opened.items()}
    assert controls == {"CT_small.dcm": ["Window"], "MR_small.dcm": ["Window"], "examples_ybr_color.dcm": ["Frame"]}
    ct, mr, colour = opened.values()
    assert set(PRESETS) < set(ct.preset.options) and mr.preset.options == ("as opened", "minmax")
    ct.preset.value = "lung"
    assert "centre -600 HU, width 1500 HU (lung)" in ct.readout.value and "Window" not in colour.readout.value
    assert "Window centre" in mr.readout.value and "HU" not in mr.readout.value


def test_the_image_viewer_letters_the_edges_where_the_header_states_them(tmp_path):
    import pydicom
    from pydicom.data import get_testdata_file

    one = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
    drawn = pixels(frame_png(read_image(one.filename)))
    assert ((drawn == (0xF0, 0xE4, 0x42)).all(axis=-1)).any()
    for stated in ([1, 0, 0, 1, 0, 0], None):
        one.ImageOrientationPatient = stated
        one.save_as(tmp_path / "odd.dcm")
        drawn = pixels(frame_png(read_image(tmp_path / "odd.dcm")))
        assert (np.ptp(drawn, axis=-1) == 0).all()


def test_small_pictures_keep_rare_colours_greys_and_white(patient):
    volume, mask = patient
    full = pixels(slice_png(volume, 8, "pancreas", mask, size_px=300)).astype(int)
    for colours, most in ((256, 40), (64, 64)):
        few = pixels(small_png(slice_png(volume, 8, "pancreas", mask, size_px=300), colours)).astype(int)
        assert np.abs(few - full).max() < most and len(np.unique(few.reshape(-1, 3), axis=0)) <= colours
    white = np.full((20, 20, 3), 255, np.uint8)
    assert (pixels(small_png(png_bytes(white), 8)) == 255).all()


def test_labels_of_another_patient_are_not_drawn(tmp_path):
    "Two simulated patients share one grid to the millimetre; the labels of one are never drawn on the other."
    (volume, mask), (other, _) = (simulate_abdomen(seed=seed, shape=(8, 64, 64)) for seed in (3, 4))
    assert np.allclose(volume.affine, other.affine) and mask.patient_key == volume.patient_key != other.patient_key
    for act in (lambda: view_volume(other, mask), lambda: slice_png(other, 0, None, mask), lambda: other.show(mask=mask)):
        with pytest.raises(ImageError, match="two patients") as caught:
            act()
        assert caught.value.reason == "frame_mismatch" and "sim-" not in str(caught.value)
    write_series(volume, tmp_path / "with")
    write_series(other, tmp_path / "without")
    browser = browse_series(tmp_path, mask)
    assert browser.viewer.volume.patient_key == mask.patient_key and browser.viewer.mask is mask
    browser.series.value = 1 - browser.series.value
    assert browser.viewer.mask is None and "labels belong to another scan and are not drawn" in browser.message.value
    unstated = Mask(mask.labels, mask.names, mask.affine, mask.spacing_mm)
    assert browse_series(tmp_path, unstated).viewer.mask is unstated


def test_frames_are_leafed_through_and_broken_ones_named(tmp_path):
    from pydicom.data import get_testdata_file

    viewer = view_image(read_image(get_testdata_file("examples_ybr_color.dcm", download=False)))
    seen = set()
    for frame in (0, 10, 29):
        viewer.frame.value = frame
        seen.add(bytes(viewer.picture.value))
        assert f"Frame {frame} (0 to 29)" in viewer.readout.value
    assert len(seen) == 3 and len([part for part in every_widget(viewer) if isinstance(part, widgets.Checkbox)]) == 0
    with pytest.raises(ImageError, match="bad_shape"):
        view_image("file.dcm")
