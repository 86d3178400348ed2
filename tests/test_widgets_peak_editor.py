"""The peak editor and the two filters: what counts as a mistake, what each key changes, what is late; then both in a real browser."""

import math

import ipywidgets as widgets
import numpy as np
import pytest
from chromium import (
    cell_of, cut_labels, keep_screenshot, labelled, nothing_in_the_way, notebook_of, page_of, press_button, wait_for_words,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from shown import HOSTILE, every_widget, html_of

from medkit import widgets as faces
from medkit.errors import MedkitError
from medkit.signals.recording import Recording
from medkit.signals.simulate import simulate_bcg


@pytest.fixture(scope="module")
def bed():
    recording, truth = simulate_bcg(30, 100, snr_db=14, seed=5, movements_per_hour=0, bed_exits_per_hour=0)
    true_s = truth.beat_times_s
    wrong_s = np.sort(np.r_[np.delete(true_s, [12, 20]), true_s[5] + 0.3, true_s[20] - 0.25])
    return recording, wrong_s, true_s


@pytest.fixture
def editor(bed):
    return faces.edit_peaks(*bed, length_s=30)


# the score

beats = st.lists(st.floats(0.3, 1.5), min_size=4, max_size=40).map(np.cumsum)


@settings(max_examples=80, deadline=None)
@given(beats, st.data())
def test_every_planted_mistake_is_counted_once(true_s, data):
    "Beats apart by 0.3 s or more: what is taken away is missed, what is put in the middle of a gap is extra."
    away = data.draw(st.sets(st.integers(0, len(true_s) - 1), max_size=3))
    gaps = [at for at in range(len(true_s) - 1) if true_s[at + 1] - true_s[at] > 0.62 and not {at, at + 1} & away]
    more = data.draw(st.sets(st.sampled_from(gaps), max_size=3)) if gaps else set()
    middles = [(true_s[at] + true_s[at + 1]) / 2 for at in more]
    score = faces.score_marks(np.sort(np.r_[np.delete(true_s, sorted(away)), middles]), true_s)
    assert (score.extra, score.missed) == (len(more), len(away))
    assert score.marks == len(true_s) - len(away) + len(more)


@settings(max_examples=60, deadline=None)
@given(beats, st.floats(-1e3, 1e3))
def test_the_rate_depends_on_intervals_only(true_s, later_s):
    score = faces.score_marks(true_s + later_s, true_s)
    assert math.isclose(score.rate_bpm, 60 * (len(true_s) - 1) / (true_s[-1] - true_s[0]), rel_tol=1e-6)
    assert abs(score.error_bpm) < 1e-3


@settings(max_examples=60, deadline=None)
@given(beats)
def test_doubtful_gaps_are_intervals_and_steady_ones_are_not(marks_s):
    pairs = set(zip(marks_s[:-1].tolist(), marks_s[1:].tolist()))
    assert {tuple(gap) for gap in faces.doubtful_gaps(marks_s).tolist()} <= pairs
    assert len(faces.doubtful_gaps(np.arange(20) * 0.8)) == 0


def test_mistakes_that_cancel_are_told(bed):
    score = faces.score_marks(*bed[1:])
    assert abs(score.error_bpm) < 0.05 and (score.extra, score.missed) == (2, 2)
    assert "no error in the rate. 2 missed, 2 extra" in faces.score_text(score)


# the editor

def test_keys_mend_the_marks_and_the_words_follow(editor, bed):
    "Next doubtful gap, arrow keys, Remove: what a person without a mouse does."
    true_s = bed[2]
    editor.jump.click()
    assert true_s[5] < editor.viewer.cursor.value < true_s[5] + 0.3 and "doubtful gap" in editor.viewer.message.value
    while editor.viewer.cursor.value < true_s[5] + 0.29:
        editor.viewer.cursor.value += editor.viewer.cursor.step  # the right arrow
    said, drawn = editor.readout.value, bytes(editor.rates.value)
    editor.viewer.buttons["Remove beat"].click()
    assert editor.score.extra == 1 and editor.readout.value != said and bytes(editor.rates.value) != drawn
    assert 'role="status"' in editor.readout.value and "too low" in editor.readout.value
    editor.viewer.buttons["Undo"].click()
    assert editor.readout.value == said and bytes(editor.rates.value) == drawn


def test_jumps_go_round_and_move_the_view(bed):
    editor, seen = faces.edit_peaks(*bed, length_s=6), []
    for _ in range(len(faces.doubtful_gaps(bed[1])) + 1):
        editor.jump.click()
        cursor_s = editor.viewer.cursor.value
        assert editor.viewer.start.value <= cursor_s <= editor.viewer.start.value + editor.viewer.length.value
        seen.append(cursor_s)
    assert seen[0] == seen[-1] and seen[:-1] == sorted(set(seen))


def test_only_core_widgets_with_names_are_used(editor, bed):
    chart = faces.compare_filters(bed[0])
    for part in (*every_widget(editor), *every_widget(chart)):
        assert type(part).__module__.startswith(("ipywidgets.", "medkit.widgets."))
        if isinstance(part, widgets.Button | widgets.FloatSlider | widgets.Dropdown):
            assert part.description and not part.disabled and part.tabbable is not False


@pytest.mark.parametrize("marks", [[], [3.0], [3.0, 3.1], np.arange(0.0, 30.0, 0.21)])
def test_odd_lists_of_marks_are_shown(bed, marks):
    editor = faces.edit_peaks(bed[0], marks, bed[2])
    assert "missed" in editor.readout.value and len(editor._repr_mimebundle_()[0]["image/png"]) < 60 * 1024
    editor.jump.click()


def test_a_name_with_markup_stays_text(bed):
    recording = Recording(bed[0].samples, 100.0, (HOSTILE,), (HOSTILE,))
    box, twin = faces.edit_peaks(recording, bed[1], bed[2]), faces.peak_strip(recording, {HOSTILE: bed[1]}, bed[2])
    assert "<script>" not in twin + html_of(box)


@settings(max_examples=40, deadline=None)
@given(st.one_of(st.none(), st.text(max_size=5), st.lists(st.floats(), max_size=3), st.integers(), st.just([[1], [2, 3]])))
def test_bad_marks_get_an_error_of_ours(bed, marks):
    try:
        faces.edit_peaks(bed[0], marks, bed[2])
    except MedkitError as error:
        assert error.hint


# two filters

@settings(max_examples=25, deadline=None)
@given(st.integers(-30, 30), st.floats(0.01, 100), st.integers(0, 10))
def test_a_known_delay_is_measured(by, size, seed):
    trace = np.random.default_rng(seed).normal(size=2000)
    assert faces.measure_lag(trace, size * np.roll(trace, by), 100.0) == by / 100


@pytest.mark.parametrize("rate_hz", [50.0, 100.0, 250.0])
def test_forwards_only_is_late_and_both_ways_is_not(rate_hz):
    recording, truth = simulate_bcg(30, rate_hz, snr_db=20, seed=7, movements_per_hour=0, bed_exits_per_hour=0)
    pair = faces.pair_filters(recording, true_s=truth.beat_times_s)
    assert 0.01 <= pair.lag_s <= 0.06
    beats = truth.beat_times_s[(truth.beat_times_s > 1) & (truth.beat_times_s < 29)]
    reach = np.arange(-int(0.08 * rate_hz), int(0.08 * rate_hz) + 1)
    delays = [[reach[np.argmax(trace[round(at_s * rate_hz) + reach])] / rate_hz for at_s in beats] for trace in (pair.upper, pair.lower)]
    assert abs(np.median(delays[0])) <= 1 / rate_hz and 0.01 <= np.median(delays[1]) <= 0.06


def test_the_chart_never_starts_by_itself_and_stops_at_the_end(bed):
    chart = faces.compare_filters(bed[0], length_s=8)
    assert not chart.clock.playing and chart.now.value == 8
    chart.buttons["Play"].click()
    for _ in range(60):
        chart.clock.value += 1  # what the browser sends
    assert chart.now.value == 30 and not chart.clock.playing
    chart.buttons["From the start"].click()
    assert chart.now.value == 8


def test_words_change_with_the_filters_and_not_with_time(bed):
    chart = faces.compare_filters(bed[0])
    said = chart.readout.value
    faces.scroll_on(chart, 5)
    assert chart.readout.value == said
    chart.chosen[0].value = "breath, both ways"
    assert "different things" in chart.readout.value


def test_less_motion_is_asked_of_the_browser(bed):
    chart = faces.compare_filters(bed[0])
    assert "prefers-reduced-motion" in html_of(chart) and "medkit-moving" in chart.buttons["Play"]._dom_classes


# the browser

SETUP = """import numpy as np
from medkit import widgets as faces
from medkit.signals import simulate_bcg
recording, truth = simulate_bcg(30, 100, snr_db=14, seed=5, movements_per_hour=0, bed_exits_per_hour=0)
true_s = truth.beat_times_s
wrong_s = np.sort(np.r_[np.delete(true_s, [12, 20]), true_s[5] + 0.3, true_s[20] - 0.25])"""
CELLS = ["faces.edit_peaks(recording, wrong_s, true_s, length_s=30)", "faces.compare_filters(recording, true_s=true_s)"]


@pytest.fixture(scope="module")
def page(tmp_path_factory, playwright):
    folder = tmp_path_factory.mktemp("lab")
    with page_of(folder, playwright, notebook_of(folder, SETUP, *CELLS)) as opened:
        opened.get_by_role("button", name="Step 1 s").wait_for(timeout=120_000)
        yield opened


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
class TestInTheBrowser:
    "With keys only, as somebody without a mouse."

    def test_a_double_mark_is_removed_by_keyboard(self, page):
        cell = cell_of(page, "faces.edit_peaks")
        wait_for_words(page, cell, "no error in the rate. 2 missed, 2 extra.")
        press_button(page, cell, "Next doubtful gap", "Enter")
        wait_for_words(page, cell, "A doubtful gap around")
        press_button(page, cell, "Next beat", "Space")
        press_button(page, cell, "Remove beat", "Enter")
        wait_for_words(page, cell, "2 missed, 1 extra.")
        keep_screenshot(page, "peak_editor")
        press_button(page, cell, "Undo", "Enter")
        wait_for_words(page, cell, "2 missed, 2 extra.")
        assert nothing_in_the_way(page)

    def test_the_chart_plays_pauses_and_steps(self, page):
        cell = cell_of(page, "faces.compare_filters")
        wait_for_words(page, cell, "ms late")
        place = labelled(cell, "Time (s)").locator(".widget-readout")
        start = float(place.text_content())
        press_button(page, cell, "Play", "Space")
        page.wait_for_function("([line, at]) => parseFloat(line.textContent) > at + 0.9", arg=[place.element_handle(), start])
        press_button(page, cell, "Pause", "Space")
        page.wait_for_timeout(1500)
        held = float(place.text_content())
        page.wait_for_timeout(1500)
        assert float(place.text_content()) == held, "Pause stops the chart"
        press_button(page, cell, "Step 1 s", "Enter")
        page.wait_for_function("([line, at]) => parseFloat(line.textContent) == at + 1", arg=[place.element_handle(), held])
        keep_screenshot(page, "two_filters")

    def test_less_motion_hides_play_and_says_why(self, page):
        cell = cell_of(page, "faces.compare_filters")
        page.emulate_media(reduced_motion="reduce")
        assert not cell.get_by_role("button", name="Play", exact=True).is_visible()
        assert cell.get_by_text("Your system asks for less motion").is_visible()
        page.emulate_media(reduced_motion="no-preference")
        assert cell.get_by_role("button", name="Play", exact=True).is_visible()
        assert not cell.get_by_text("Your system asks for less motion").is_visible()

    def test_no_label_is_cut_off(self, page):
        assert cut_labels(page) == []
