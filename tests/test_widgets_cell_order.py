"""The tiny notebook: what it shows and remembers, held against a real Jupyter kernel; and every button of the widget."""

import io

import ipywidgets as widgets
import numpy as np
import pytest
from chromium import keep_screenshot, nothing_in_the_way, page_of, press_button, wait_for_words
from hypothesis import given, settings
from hypothesis import strategies as st
from jupyter_client.manager import start_new_kernel
from notebooks import ROOT
from PIL import Image
from shown import every_widget, html_of

from medkit.errors import ExerciseError
from medkit.widgets.cell_order import cell_order_strip, compare_pages, fresh_page, page_png, page_text, press_cells, replay_page

CELLS = ("rates = [95, 64, 60]", "rates = rates[1:]", "mean = sum(rates) / len(rates)\nmean")
EDITS = {1: "rates = [95, 70, 72]"}
ACTIONS = ["run 1", "run 2", "run 3", "restart", "run all", "edit 1"]


@pytest.fixture(scope="module")
def kernel():
    manager, client = start_new_kernel(kernel_name="python3")
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def ran(client, code: str) -> tuple[int, str]:
    "The number in the brackets and the output, of a real kernel."
    said = []

    def listen(message):
        content = message["content"]
        kind = message["header"]["msg_type"]
        if kind == "execute_result":
            said.append(content["data"]["text/plain"])
        elif kind == "error":
            said.append(f"{content['ename']}: {content['evalue']}")
        elif kind == "stream":
            said.append(content["text"].strip())

    reply = client.execute_interactive(code, output_hook=listen, timeout=30)
    return reply["content"]["execution_count"], "\n".join(said)


@pytest.mark.parametrize("order", [(1, 2, 3), (1, 2, 2, 3), (3,), (2, 1, 3), (1, 3, 2, 3), (1, 2, 2, 2, 2, 3)])
def test_page_and_memory_are_those_of_a_real_kernel(kernel, order):
    "The counts rise from wherever the kernel stands; the outputs are the same."
    ran(kernel, "%reset -f")
    before = ran(kernel, "0")[0]
    for number in order:
        count, output = ran(kernel, CELLS[number - 1])
    page = replay_page(CELLS, [f"run {number}" for number in order])
    assert page.cells[order[-1]].count == count - before
    assert page.cells[order[-1]].output == output
    names = {name: ran(kernel, name)[1] for name in ("rates", "mean")}
    assert dict(page.memory) == {name: value for name, value in names.items() if "NameError" not in value}


@pytest.mark.parametrize("source", ["print('a')\n1 + 1", "1 / 0", "x = (", "{'a': [1, 2]}['b']", "def f():\n    return 2\nf()", "print('only')"])
def test_output_of_a_cell_is_that_of_a_real_kernel(kernel, source):
    shown = replay_page((source,), ("run 1",)).cells[1].output
    real = ran(kernel, source)[1]
    assert shown == real or shown.split(":")[0] == real.split(":")[0] == "SyntaxError"


@settings(max_examples=40, deadline=None)
@given(actions=st.lists(st.sampled_from(ACTIONS), max_size=8))
def test_a_fresh_run_ends_every_difference(actions):
    page = replay_page(CELLS, actions, EDITS)
    assert page == replay_page(CELLS, actions, EDITS)
    clean = fresh_page(page)
    assert {row["same?"] for row in compare_pages(clean)} <= {"= same"}
    assert dict(fresh_page(clean).memory) == dict(clean.memory)
    again = replay_page(CELLS, (*actions, "run all"), EDITS)
    assert dict(again.memory) == dict(clean.memory)
    assert [cell.output for cell in again.cells.values()] == [cell.output for cell in clean.cells.values()]


def test_a_cell_that_was_changed_keeps_its_number_and_output():
    page = replay_page(CELLS, ("run all", "edit 1"), EDITS)
    assert [cell.count for cell in page.cells.values()] == [1, 2, 3] and page.cells[3].output == "62.0"
    assert "from 1 without a gap" in page_text(page) and "71.0 fresh" in page_text(page)


def test_a_deleted_cell_is_gone_and_its_variable_is_not():
    page = replay_page(CELLS, ("run 1", "delete 1"))
    assert list(page.cells) == [2, 3] and page.memory["rates"] == "[95, 64, 60]"
    assert "NameError" in page_text(page)


def test_the_notebook_of_the_learner_is_not_touched():
    rates = "mine"
    replay_page(CELLS, ("run all",))
    assert rates == "mine" and "mean" not in globals()


@pytest.mark.parametrize("action", ["run 0", "run 4", "run 1 2", "run x", "", "RUN 1", "edit 2", "delete", "run all 1", None, 3, "run ²"])
def test_buttons_that_are_not_there_are_refused(action):
    with pytest.raises(ExerciseError) as refused:
        replay_page(CELLS, (action,), EDITS)
    assert refused.value.reason == "bad_option"


def test_every_button_does_what_it_says():
    board = press_cells(CELLS, edits=EDITS)
    assert "Nothing was run yet" in board.readout.value
    for action, button in board.buttons.items():
        board.start_over()
        button.click()
        assert board.actions == (action,)
    board.start_over()
    restart, run_all, _ = board.whole.children
    run_all.click()
    assert [cell.count for cell in board.page.cells.values()] == [1, 2, 3] and "≠" not in board.memory.value
    restart.click()
    assert not board.page.memory and [cell.count for cell in board.page.cells.values()] == [1, 2, 3]


def test_a_pressed_button_stays_so_that_the_focus_stays():
    board = press_cells(CELLS, edits=EDITS)
    before = board.rows.children
    board.buttons["run 2"].click()
    board.buttons["run 1"].click()
    assert board.rows.children is before or list(board.rows.children) == list(before)


def test_only_core_widgets_and_every_button_names_its_cell():
    board = press_cells(CELLS, edits=EDITS)
    for part in every_widget(board):
        assert type(part).__module__.startswith(("ipywidgets.", "medkit.widgets."))
    words = [part.description for part in every_widget(board) if isinstance(part, widgets.Button)]
    assert len(set(words)) == len(words) == 8 and all(words)


def test_code_and_output_are_escaped():
    board = press_cells(("'<script>alert(1)</script>'", "a = '<b>'"), ("run 1", "run 2"))
    shown = html_of(board)
    assert "<script" not in shown and "<b>'" not in shown and "&lt;script" in shown


def test_still_pictures_are_small_and_have_words():
    data, about = press_cells(CELLS, ("run 1", "run 2", "run 2", "run 3"))._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data and len(data["image/png"]) < 60 * 1024
    assert "60.0 here, 62.0 fresh" in about["image/png"]["alt"]
    strip = cell_order_strip(CELLS, {"in order": ("run all",), "cell 1 changed": ("run all", "edit 1")}, EDITS)
    assert strip.count("<img alt=") == 2 and "<script" not in strip


def test_a_long_page_is_drawn_whole():
    page = replay_page([f"a{number} = {number}\na{number}" for number in range(25)], ("run all",))
    ink = np.asarray(Image.open(io.BytesIO(page_png(page))).convert("L"))
    assert ink.shape[0] > 600 and (ink[-60:] < 128).any()


@pytest.fixture(scope="module")
def page(tmp_path_factory, playwright):
    with page_of(tmp_path_factory.mktemp("lab"), playwright, ROOT / "nbs/7_faces/75b_cell_order.ipynb") as opened:
        yield opened


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
def test_it_is_pressed_with_the_keyboard_alone_in_jupyterlab(page):
    "A button keeps the focus while its cell runs again and again, and the line for screen readers says what came of it."
    cell = page.locator(".jp-CodeCell", has=page.get_by_role("button", name="Start over")).first
    cell.get_by_role("button", name="Start over").focus()
    page.keyboard.press("Enter")
    wait_for_words(page, cell, "Nothing was run yet.")
    press_button(page, cell, "Run cell 1", "Enter")
    press_button(page, cell, "Run cell 2", "Space")
    wait_for_words(page, cell, "Numbers in brackets: 1, 2, empty")
    page.keyboard.press("Space")
    wait_for_words(page, cell, "Numbers in brackets: 1, 3, empty")
    press_button(page, cell, "Run cell 3", "Enter")
    wait_for_words(page, cell, "variable mean is 60.0 here, 62.0 fresh")
    keep_screenshot(page, "cell_order")
    press_button(page, cell, "Delete cell 1", "Enter")
    wait_for_words(page, cell, "A fresh run stops at cell 2: NameError")
    press_button(page, cell, "Restart and run all", "Enter")
    wait_for_words(page, cell, "Numbers in brackets: 1, empty")
    assert nothing_in_the_way(page)
