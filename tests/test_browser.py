"""The viewers in a real browser: JupyterLab in Debian's Chromium, moved with the keyboard.

Without Chromium or Playwright they are skipped, or fail where MEDKIT_REQUIRE_BROWSER=1 (tests/chromium.py).
"""

import re
from urllib.parse import urlsplit

import pytest
from chromium import (
    PICTURE_BYTES, cell_of, keep_screenshot, labelled, nothing_in_the_way, page_of, press_button, wait_for_picture,
    wait_for_words,
)
from notebooks import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def page(tmp_path_factory, playwright):
    with page_of(tmp_path_factory.mktemp("lab"), playwright, ROOT / "nbs" / "how_to" / "view_slices.ipynb") as opened:
        yield opened


def handle(page, label: str):
    "The first slider's handle that goes with a visible label."
    return labelled(page, label).locator(".noUi-handle").first


def press_and_see(page, picture, label: str, key: str) -> None:
    "A key on the slider of that label changes the picture."
    before = picture.evaluate(PICTURE_BYTES)
    handle(page, label).focus()
    page.keyboard.press(key)
    wait_for_picture(page, picture, {before}, label)


def test_slice_viewer_follows_the_keyboard(page):
    picture = page.locator("img.widget-image, img.jupyter-widget-image").first
    picture.wait_for()
    picture.scroll_into_view_if_needed()
    words = page.get_by_role("status").filter(has_text="Axial slice").first
    said = words.text_content()
    for label, key in (("Window centre (HU)", "ArrowRight"), ("Window width (HU)", "ArrowLeft"), ("Slice", "ArrowRight")):
        press_and_see(page, picture, label, key)
    keep_screenshot(page, "slice_viewer")
    assert words.text_content() != said, "the words below the picture did not change"
    assert nothing_in_the_way(page)


def test_controls_are_reached_as_the_page_says(page):
    "Click the cell's number, press Tab: the slider has the focus. On a list, Space, an arrow and Enter choose."
    cell = page.locator(".jp-CodeCell", has=page.locator("img.widget-image, img.jupyter-widget-image")).first
    page.locator("img.widget-image, img.jupyter-widget-image").nth(4).wait_for()  # the last viewer: the run is over
    cell.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)
    cell.locator(".jp-InputPrompt").first.click()
    for _ in range(3):  # a click on an active cell leaves the focus on its slider's number, two Tabs from the next slider
        page.keyboard.press("Tab")
        page.wait_for_timeout(200)
        if "noUi-handle" in page.evaluate("() => document.activeElement.className"):
            break
    else:
        raise AssertionError("Tab did not reach a slider")
    presets = cell.locator("select").first
    chosen = "list => list.selectedOptions[0].text"
    before = presets.evaluate(chosen)
    presets.focus()
    for key in ("Space", "ArrowDown", "Enter"):
        page.keyboard.press(key)
        page.wait_for_timeout(200)
    assert presets.evaluate(chosen) != before
    assert page.evaluate("() => document.activeElement.tagName") == "SELECT", "the key left the list"


def test_signal_viewer_follows_the_keyboard(page):
    picture = page.locator("img.widget-image, img.jupyter-widget-image").nth(1)
    picture.wait_for()
    picture.scroll_into_view_if_needed()
    press_and_see(page, picture, "Start (s)", "ArrowRight")
    keep_screenshot(page, "signal_viewer")
    assert nothing_in_the_way(page)


def test_a_beat_is_corrected_without_a_mouse(page):
    "Next beat, arrow keys on the cursor, Move beat here, Undo: with keys only, and in the order of Tab."
    cell = cell_of(page, "Previous beat")
    picture = cell.locator("img.widget-image, img.jupyter-widget-image").first
    picture.scroll_into_view_if_needed()
    before = picture.evaluate(PICTURE_BYTES)
    press_button(page, cell, "Next beat", "Space")
    wait_for_words(page, cell, "on a beat")
    handle(page, "Cursor (s)").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    wait_for_words(page, cell, "a beat 0.05 s before it")
    names, chosen = [], "() => document.activeElement.textContent"
    for _ in range(4):  # the slider's number, then the three buttons beside it
        page.keyboard.press("Tab")
        names.append(page.evaluate(chosen).strip())
    assert names[1:] == ["Previous beat", "Next beat", "To the peak"], names
    press_button(page, cell, "Move beat here", "Enter")
    wait_for_words(page, cell, "Moved the beat")
    keep_screenshot(page, "beat_moved")
    assert picture.evaluate(PICTURE_BYTES) != before
    press_button(page, cell, "Add beat", "Enter")
    wait_for_words(page, cell, "Another beat is too close")
    press_button(page, cell, "Undo", "Space")
    wait_for_words(page, cell, "Took back: move")
    assert nothing_in_the_way(page)


def test_the_strip_chart_plays_and_pauses(page):
    cell = cell_of(page, "Step 10 s")
    picture = cell.locator("img.widget-image, img.jupyter-widget-image").first
    picture.scroll_into_view_if_needed()
    press_button(page, cell, "Step 10 s", "Enter")
    cell.get_by_text("Second 70.0 of 120.0.").wait_for(timeout=20_000)
    before = picture.evaluate(PICTURE_BYTES)
    press_button(page, cell, "Play", "Space")
    cell.get_by_text(re.compile(r"Second (7[5-9]|8\d)\.\d of 120\.0\.")).wait_for(timeout=20_000)
    press_button(page, cell, "Pause", "Enter")
    keep_screenshot(page, "strip_chart")
    assert picture.evaluate(PICTURE_BYTES) != before
    page.wait_for_timeout(1500)
    at_rest = cell.get_by_text(re.compile("Second .* of 120")).text_content()
    page.wait_for_timeout(1500)
    assert cell.get_by_text(re.compile("Second .* of 120")).text_content() == at_rest, "the chart went on after the pause"
    assert nothing_in_the_way(page)


def test_lab_stays_on_this_machine_and_starts_quietly(page):
    elsewhere = {urlsplit(url).hostname for url in page.asked if url.startswith("http")} - {"127.0.0.1"}
    assert not elsewhere, f"the page asked {sorted(elsewhere)}"
    log = page.log.read_text()
    assert "without encryption" not in log and "Traceback" not in log, log[-4000:]
