"""Corrected beats and the viewer that corrects them, without a browser: what each key does, what is saved, what is refused."""

import json
from dataclasses import replace

import ipywidgets as widgets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shown import every_widget, pixels

from medkit.errors import DataError, MedkitError, SignalError
from medkit.signals.beats import find_beats
from medkit.signals.clean import clean
from medkit.signals.recording import Recording
from medkit.signals.simulate import simulate_bcg
from medkit.signals.vitals import measure_vitals
from medkit.widgets.marks import Marks, add_beat, fingerprint, move_beat, nearest_beat, read_marks, remove_beat, save_marks, undo
from medkit.widgets.trace import _reach, lay_out, press, show_at, trace_png, trace_text, view_recording

LENGTH_S = 60.0


@pytest.fixture(scope="module")
def night():
    recording, _ = simulate_bcg(180, 100, snr_db=10, seed=7, movements_per_hour=120, bed_exits_per_hour=0)
    return recording, find_beats(clean(recording)), measure_vitals(recording)


@pytest.fixture
def viewer(night):
    return view_recording(*night)


# the list of beats

CHANGES = st.lists(st.tuples(st.sampled_from(["add", "remove", "move"]), st.floats(-5, 65), st.floats(-5, 65)), max_size=25)


def after(changes) -> Marks:
    "A list to which these changes were applied as far as they are allowed."
    marks = Marks(np.arange(0.5, LENGTH_S, 0.9), LENGTH_S, (), "abc")
    for kind, at_s, to_s in changes:
        before = marks.beats_s
        try:
            marks = {"add": lambda: add_beat(marks, at_s), "remove": lambda: remove_beat(marks, at_s),
                     "move": lambda: move_beat(marks, at_s, to_s)}[kind]()
        except SignalError as error:
            assert error.reason == "bad_option" and error.hint
            assert np.array_equal(marks.beats_s, before), "a refusal must change nothing"
    return marks


@settings(max_examples=60, deadline=None)
@given(CHANGES)
def test_beats_stay_sorted_apart_and_inside_whatever_is_tried(changes):
    marks = after(changes)
    assert (np.diff(marks.beats_s) >= 0.2 - 1e-9).all()
    assert not len(marks.beats_s) or (marks.beats_s[0] >= 0 and marks.beats_s[-1] < LENGTH_S)


@settings(max_examples=40, deadline=None)
@given(CHANGES)
def test_every_change_can_be_taken_back(changes):
    marks = after(changes)
    for left in range(len(marks.edits), 0, -1):
        assert undo(marks).edits == marks.edits[:left - 1]
        marks = undo(marks)
    assert np.array_equal(marks.beats_s, marks.found_s)


@settings(max_examples=25, deadline=None)
@given(changes=CHANGES, who=st.text(max_size=20))
def test_saved_beats_come_back_exactly(tmp_path_factory, changes, who):
    marks, path = after(changes), tmp_path_factory.mktemp("marks") / "beats.jsonl"
    signed = save_marks(marks, path, who)
    again = read_marks(path)
    assert np.array_equal(again.beats_s, marks.beats_s) and np.array_equal(again.found_s, marks.found_s)
    assert again.edits == signed.edits and {edit.who for edit in again.edits} <= {who}
    assert again.samples_sha256 == "abc" and again.duration_s == LENGTH_S


def test_each_correction_keeps_its_own_author(tmp_path):
    path = tmp_path / "beats.jsonl"
    save_marks(after([("remove", 0.5, 0)]), path, "AB")
    save_marks(add_beat(read_marks(path), 0.5), path, "CD")
    assert [(edit.kind, edit.who) for edit in read_marks(path).edits] == [("remove", "AB"), ("add", "CD")]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0]["who"] == "CD" and lines[0]["medkit"] == "beats" and "T" in lines[0]["saved"]
    assert [line["source"] for line in lines if "beat_s" in line].count("added") == 1


def test_another_file_is_never_overwritten(tmp_path):
    marks, path = after([]), tmp_path / "notes.txt"
    path.write_text("call back on Monday")
    for act in (lambda: save_marks(marks, path), lambda: save_marks(marks, tmp_path)):
        with pytest.raises(DataError) as caught:
            act()
        assert caught.value.reason in ("already_exists", "not_writable")
    assert path.read_text() == "call back on Monday"
    save_marks(marks, tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="already_exists"):
        save_marks(replace(marks, samples_sha256="of another recording"), tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="not_writable"):
        save_marks(marks, tmp_path / "no such folder" / "a.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "notes.txt"]


def test_a_failed_save_leaves_the_old_list(tmp_path, monkeypatch):
    marks, path = after([]), tmp_path / "a.jsonl"
    save_marks(marks, path, "AB")
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DataError, match="not_writable"):
        save_marks(add_beat(marks, 0.1), path, "AB")
    assert path.read_bytes() == before and [one.name for one in tmp_path.iterdir()] == ["a.jsonl"]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_list_is_refused_or_equal(tmp_path_factory, data):
    "Any cut or changed byte: the same list, or an error of the family; never another list in silence."
    folder = tmp_path_factory.mktemp("damaged")
    marks = save_marks(after([("remove", 0.5, 0), ("move", 1.4, 1.5), ("add", 0.7, 0)]), folder / "a.jsonl", "AB")
    content = bytearray((folder / "a.jsonl").read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:at]
    else:
        content[at] = data.draw(st.integers(0, 255))
    (folder / "b.jsonl").write_bytes(content)
    try:
        again = read_marks(folder / "b.jsonl")
    except MedkitError as error:
        assert error.reason in ("bad_record", "not_readable")
    else:
        assert np.array_equal(again.beats_s, marks.beats_s)


@pytest.mark.parametrize("content", [
    b"", b"\n", b"[]", b"3", b"null", b'{"medkit": "beats"}', b"\xff\xfe", b'{"medkit": "beats", "version": 2}', b"[" * 100_000,
    b'{"medkit": "beats", "version": 1, "duration_s": NaN, "samples_sha256": ""}\n{"found_s": NaN}\n{"beat_s": NaN, "source": "found"}',
    b'{"medkit": "beats", "version": 1, "duration_s": 9, "samples_sha256": ""}\n{"found_s": 12}\n{"beat_s": 12, "source": "found"}',
    b'{"medkit": "beats", "version": 1, "duration_s": 9, "samples_sha256": ""}\n{"edit": {"kind": "explode"}}',
    b'{"medkit": "beats", "version": 1, "duration_s": 9, "samples_sha256": ""}\n{"edit": {"kind": "add", "from_s": null, "to_s": "x", "when": "", "who": ""}}',
])
def test_what_is_no_list_of_beats_is_refused_in_words(tmp_path, content):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_marks(tmp_path / "a.jsonl")
    assert caught.value.reason in ("bad_record", "not_readable") and str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("odd", [None, "3", float("nan"), float("inf"), -1.0, LENGTH_S, True, [1.0], 10**400])
def test_odd_times_are_refused_in_words(odd):
    marks = after([])
    for act in (lambda: add_beat(marks, odd), lambda: move_beat(marks, 0.5, odd), lambda: remove_beat(marks, odd), lambda: nearest_beat(marks, odd)):
        try:
            act()
        except SignalError as error:
            assert error.reason == "bad_option"
        else:
            assert odd == LENGTH_S, "only times near a beat may pass"


def test_the_fingerprint_is_of_the_channel(night):
    recording = night[0]
    trace = lay_out(recording)
    assert trace.samples_sha256 == fingerprint(recording.samples[0], recording.sampling_rate_hz)
    assert lay_out(recording.part(0, 100)).samples_sha256 != trace.samples_sha256


# the viewer

def test_every_control_is_reached_by_tab(viewer):
    "Only core ipywidgets that browsers put in the order of Tab, each with a name."
    controls = [part for part in every_widget(viewer) if isinstance(part, widgets.Button | widgets.FloatSlider | widgets.Dropdown)]
    assert len(controls) == 15 and all(part.description and not part.disabled and part.tabbable is not False for part in controls)
    for part in every_widget(viewer):
        assert type(part).__module__.startswith(("ipywidgets.", "medkit.widgets."))


def test_a_click_does_what_press_does(viewer):
    for name, button in viewer.buttons.items():
        before = (viewer.start.value, viewer.length.value, viewer.cursor.value, viewer.marks, viewer.message.value)
        button.click()
        after_click = (viewer.start.value, viewer.length.value, viewer.cursor.value, viewer.marks, viewer.message.value)
        assert before != after_click or name == "Earlier", f"{name} did nothing"


def test_a_beat_is_corrected_with_keys_only(viewer, night):
    "Next beat, arrow keys on the cursor, Move beat here: what a person without a mouse does."
    found = np.asarray(night[1].times_s)
    show_at(viewer, 0, 20, 2.0)
    press(viewer, "Next beat")
    beat_s = viewer.cursor.value
    assert beat_s in found and beat_s > 2
    for _ in range(12):
        viewer.cursor.value += viewer.cursor.step  # the right arrow
    press(viewer, "Move beat here")
    assert beat_s not in viewer.beats_s and np.abs(viewer.beats_s - beat_s - 0.12).min() < 1e-3
    assert "Moved the beat" in viewer.message.value and "1 correction" in viewer.readout.value and 'role="status"' in viewer.message.value
    assert len(viewer.beats_s) == len(found)
    press(viewer, "Undo")
    assert np.array_equal(viewer.beats_s, found) and "Took back" in viewer.message.value
    press(viewer, "Undo")
    assert "nothing to take back" in viewer.message.value


def test_beats_are_added_and_removed_and_drawn_differently(viewer):
    show_at(viewer, 0, 10, 0)
    first, second = viewer.beats_s[:2]
    plain = bytes(viewer.picture.value)
    show_at(viewer, cursor_s=first)
    press(viewer, "Remove beat")
    assert first not in viewer.beats_s
    show_at(viewer, cursor_s=(first + second) / 2)
    press(viewer, "Add beat")
    assert len(viewer.beats_s) == len(viewer.marks.found_s) and bytes(viewer.picture.value) != plain
    press(viewer, "Add beat")
    assert "too close" in viewer.message.value and len(viewer.marks.edits) == 2
    assert "2 corrections" in viewer._repr_mimebundle_()[1]["image/png"]["alt"]


def test_refusals_are_words_and_change_nothing(night):
    viewer = view_recording(night[0])  # no beats known: marked from nothing
    for name in ("Next beat", "Previous beat", "Remove beat", "Move beat here"):
        press(viewer, name)
        assert 'role="status"' in viewer.message.value and not viewer.marks.edits
    press(viewer, "To the peak")
    press(viewer, "Add beat")
    assert len(viewer.beats_s) == 1
    press(viewer, "Remove beat")
    assert len(viewer.beats_s) == 0
    with pytest.raises(SignalError, match="bad_option"):
        press(viewer, "no such button")


def test_the_peak_is_the_peak(viewer):
    show_at(viewer, 20, 20, 30.0)
    press(viewer, "To the peak")
    values, rate_hz = viewer.trace.bands[viewer.band.value]
    near = values[int(np.ceil(29.9 * rate_hz)):int(30.1 * rate_hz) + 1]
    assert values[round(viewer.cursor.value * rate_hz)] == near.max() and abs(viewer.cursor.value - 30) <= 0.1


@settings(max_examples=12, deadline=None)
@given(names=st.lists(st.sampled_from(["Earlier", "Later", "Zoom in", "Zoom out", "Previous beat", "Next beat", "To the peak"]), max_size=8))
def test_panning_and_zooming_stay_inside(night, names):
    viewer = view_recording(*night)
    for name in names:
        press(viewer, name)
        start_s, length_s, cursor_s = viewer.start.value, viewer.length.value, viewer.cursor.value
        assert 0 <= start_s and start_s + length_s <= viewer.trace.duration_s + 1 and 2 <= length_s <= viewer.trace.duration_s
        assert start_s <= cursor_s <= start_s + length_s and start_s == viewer.cursor.min
        assert f"Cursor at {cursor_s:.2f} s" in viewer.readout.value
    assert viewer.quiet is False


def test_zooming_keeps_the_cursor_in_its_place(viewer):
    show_at(viewer, 40, 40, 60.0)
    press(viewer, "Zoom in")
    assert (viewer.start.value, viewer.length.value, viewer.cursor.value) == (50, 20, 60)
    press(viewer, "Zoom out")
    assert (viewer.start.value, viewer.length.value, viewer.cursor.value) == (40, 40, 60)


def test_corrections_are_saved_and_gone_on_with(viewer, night, tmp_path):
    show_at(viewer, 0, 20, float(viewer.beats_s[3]))
    press(viewer, "Remove beat")
    viewer.save(tmp_path / "night.jsonl", who="AB")
    again = view_recording(*night, marks=read_marks(tmp_path / "night.jsonl"))
    assert np.array_equal(again.beats_s, viewer.beats_s) and again.marks.edits[0].who == "AB"
    press(again, "Undo")
    assert np.array_equal(again.beats_s, night[1].times_s)
    other = Recording(night[0].samples[0] * 2, 100.0)
    with pytest.raises(SignalError) as caught:
        view_recording(other, marks=again.marks)
    assert caught.value.reason == "bad_record"


def test_the_reason_stands_on_the_span(night):
    "The words are drawn only where they fit, and always told."
    recording, beats, vitals = night
    start, stop, reason = max(beats.withheld, key=lambda span: span[1] - span[0])
    named = lay_out(recording, beats)
    nameless = replace(named, withheld=tuple((a, b, "x" * 500) for a, b, _ in named.withheld))
    shown = [pixels(trace_png(trace, max(start - 3, 0), 15)) for trace in (named, nameless)]
    changed = np.argwhere((shown[0] != shown[1]).any(axis=-1))
    assert len(changed) > 50 and changed[:, 0].max() < shown[0].shape[0] / 2, "the reason stands in the upper half"
    assert f"{reason}" in trace_text(named, max(start - 3, 0), 15)
    wide = [trace_png(trace, 0, 180) for trace in (named, nameless)]
    assert "Withheld:" in trace_text(named, 0, 180) and all(wide)


def test_withheld_seconds_do_not_blow_up_the_scale(night):
    "A stretch that is withheld as a whole is still drawn at the scale of its own signal."
    trace = lay_out(night[0])
    band = list(trace.bands)[1]
    values = trace.bands[band][0].copy()
    values[:50] *= 1e-3  # the second that is not withheld is a quiet one
    scales = [_reach(values, spans, 0.0, 50.0) for spans in ({}, {"withheld": np.array([[1.0, 180.0]])})]
    assert scales[0] == scales[1] > 100 * _reach(values, {"movement": np.array([[1.0, 180.0]])}, 0.0, 50.0)
