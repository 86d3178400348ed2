"""The doctor's panel: what it shows, what it answers, and both in a real browser by keyboard alone."""

import re

import ipywidgets as widgets
import pytest
from chromium import keep_screenshot, nothing_in_the_way, page_of, press_button, wait_for_words
from notebooks import ROOT
from shown import HOSTILE, harmless

from medkit.doctor import Check, Report
from medkit.errors import DataError
from medkit.widgets import doctor_strip, report_html, report_words, view_doctor

WELL = Report((Check("Python", "ok", "3.12.4"),))
SICK = Report((Check("disk", "ok", "9 GB"), Check("memory", "warn", "1.4 GB", "close programs"), Check("proxy", "fail", "407", "export HTTPS_PROXY=x")))


def test_the_worst_stands_on_top_and_says_so_in_words():
    page = report_html(SICK)
    assert page.index("proxy") < page.index("memory") < page.index("<details>") < page.index("disk")
    assert [word for word in re.findall(r"red|amber|green", re.sub("<[^>]*>", "", page))] == ["red", "amber", "green", "green"]
    assert report_words(SICK) == "Something will not work: 1 red, 1 amber, 1 green."


def test_looking_again_replaces_the_report():
    found = iter((SICK, WELL))
    panel = view_doctor(look=lambda: next(found))
    assert "1 red" in panel.readout.value and "export HTTPS_PROXY=x" in panel.lines.value
    panel.again.click()
    assert "is ready" in panel.readout.value and "HTTPS_PROXY" not in panel.lines.value and panel.report is WELL


def test_the_button_keeps_the_focus_while_it_looks():
    "A button that is switched off for a moment loses the keyboard's focus."
    seen = []
    panel = view_doctor(SICK, look=lambda: seen.append((panel.again.disabled, panel.readout.value)) or WELL)
    panel.again.click()
    assert seen[0][0] is False and "Looking at this machine" in seen[0][1]


def test_a_pasted_error_is_answered_when_it_is_pasted_and_when_the_button_is_pressed():
    panel = view_doctor(SICK)
    panel.pasted.value = "RuntimeError: operator torchvision::nms does not exist"
    assert "torch and torchvision do not fit" in panel.answer.value and 'role="status"' in panel.answer.value
    panel.answer.value = ""
    panel.recognise.click()
    assert "torch and torchvision do not fit" in panel.answer.value
    panel.pasted.value = "KeyError: 'volume'"
    assert "Not recognised" in panel.answer.value and "torchvision" not in panel.answer.value


def test_no_word_becomes_markup():
    sly = Report((Check(HOSTILE, "fail", HOSTILE, HOSTILE),))
    panel = view_doctor(sly)
    panel.pasted.value = HOSTILE
    for page in (report_html(sly), doctor_strip(sly, [HOSTILE]), panel.lines.value, panel.readout.value, panel.answer.value):
        assert harmless(page, "img"), page


def test_every_control_has_a_label_and_is_a_core_widget():
    panel = view_doctor(WELL)
    assert all(type(part).__module__.startswith("ipywidgets.") for part in panel.children)
    assert all(part.description for part in panel.children if not isinstance(part, widgets.HTML))


def test_the_twin_needs_no_kernel():
    page = doctor_strip(SICK, ["[Errno 28] No space left on device", "???"])
    assert harmless(page, "img") and "The disk is full" in page and "Not recognised" in page and page.count("<details>") == 3
    assert view_doctor(SICK)._repr_mimebundle_()["text/html"] == doctor_strip(SICK)


@pytest.mark.parametrize("given", [("all is well",), (3,), (SICK, "look")])
def test_what_is_no_report_is_refused(given):
    with pytest.raises(DataError) as refusal:
        view_doctor(*given)
    assert refusal.value.reason == "bad_option" and refusal.value.hint


@pytest.fixture(scope="module")
def page(tmp_path_factory, playwright):
    with page_of(tmp_path_factory.mktemp("lab"), playwright, ROOT / "nbs/7_faces/75a_doctor_panel.ipynb") as opened:
        yield opened


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
def test_it_is_used_with_the_keyboard_alone_in_jupyterlab(page):
    cell = page.locator(".jp-CodeCell", has=page.locator("textarea.widget-input, .widget-textarea textarea, .jupyter-widgets textarea")).first
    cell.get_by_role("button", name="Look again").wait_for()
    cell.scroll_into_view_if_needed()
    keep_screenshot(page, "doctor_panel")
    press_button(page, cell, "Look again", "Enter")
    wait_for_words(page, cell, "This machine is ready: 0 red, 0 amber, 1 green.")
    box = cell.get_by_label("Paste an error")
    box.focus()
    page.keyboard.insert_text("OSError: [Errno 28] No space left on device")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    wait_for_words(page, cell, "Recognised: The disk is full.")
    cell.scroll_into_view_if_needed()
    keep_screenshot(page, "doctor_panel_answer")
    assert nothing_in_the_way(page)
