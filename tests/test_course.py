"""The learner's folder: what is written there stays, the start page tells the truth, and a lesson is worked through in a browser."""

import json
import os
import re

import nbformat
import pytest
from chromium import keep_screenshot, nothing_in_the_way, opened, served, wait_for_words
from typer.testing import CliRunner

from medkit.cli import app
from medkit.course import course_map, lab_command, make_course, start_page
from medkit.doctor import Check, Report
from medkit.errors import MedkitError
from medkit.teach import Progress, lay_out, read_bank

READY = Report((Check("Python", "ok", "3.11"),))
RED = Report((Check("Python", "ok", "3.11"), Check("package index", "fail", "407 <b>", "ask for a password")))


def test_what_a_learner_wrote_stays_and_what_nobody_touched_is_renewed(tmp_path):
    make_course(tmp_path, READY)
    mine, other = (tmp_path / lesson.path.name for lesson in read_bank().lessons[:2])
    notebook = nbformat.read(mine, as_version=4)
    notebook.cells[-1].source += "\nmy own words"
    nbformat.write(notebook, mine)
    before = mine.read_bytes()
    (tmp_path / "my own.ipynb").write_text("not even a notebook")
    other.unlink()
    make_course(tmp_path, READY)
    assert mine.read_bytes() == before and other.exists() and (tmp_path / "my own.ipynb").read_text() == "not even a notebook"
    assert mine.name in lay_out(tmp_path).kept


def test_the_start_page_knows_how_far_the_learner_is(tmp_path):
    make_course(tmp_path, READY)
    task = read_bank().lessons[0].exercises[0]
    (tmp_path / "progress.jsonl").write_text(
        json.dumps({"verb": "check", "exercise": task.id, "state": "passed"}) + "\nfore{ign\n")
    page = nbformat.read(make_course(tmp_path, RED), as_version=4)
    nbformat.validate(page)
    assert "… 1 of " in page.cells[0].source and "not ready** (red): package index." in page.cells[0].source
    shown = "".join(output.data["text/html"] for cell in page.cells if cell.cell_type == "code" for output in cell.outputs)
    assert "407 &lt;b&gt;" in shown and "torn or foreign" in shown and "passed" in shown


def test_verdicts_of_the_doctor_in_one_line():
    def line(*states):
        report = Report(tuple(Check(f"part {number}", state, "") for number, state in enumerate(states)))
        return start_page(read_bank().lessons, Progress(()), report).cells[0].source.splitlines()[1]

    assert line("ok", "ok") == "**✔ This machine is ready**: all 2 lines of the doctor are green."
    assert "with remarks (amber): part 1." in line("ok", "warn")
    assert "not ready** (red): part 2." in line("ok", "warn", "fail")


def test_a_lesson_with_a_bar_in_its_title_stays_in_its_row():
    from dataclasses import replace

    lesson = replace(read_bank().lessons[0], title="a | b")
    assert r"a \| b" in course_map([lesson]) and len(course_map([lesson]).splitlines()) == 3


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MedkitError) as caught:
        make_course(tmp_path / "file" / "course", READY)
    assert caught.value.reason in ("not_writable", "not_a_folder", "not_readable")


def test_commands_of_the_course(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDKIT_OFFLINE", "1")
    runner = CliRunner()
    ran = runner.invoke(app, ["teach", "lab", str(tmp_path / "course"), "--only-make"])
    assert ran.exit_code == 0 and (tmp_path / "course" / "start.ipynb").exists(), ran.output
    assert runner.invoke(app, ["teach", "verify", str(tmp_path), "--only", "L99"]).exit_code == 2
    command = lab_command(tmp_path, "start.ipynb", "--no-browser")
    assert re.search(r"jupyter_server_config\.py$", command[3]) and os.path.exists(command[3].split("=", 1)[1])
    for name in ("lab", "build", "verify", "export"):
        told = runner.invoke(app, ["teach", name, "--help"]).output
        assert "Example: medkit teach" in told and "Exit codes" in told


def type_into(page, cell, source: str) -> None:
    "Replace a cell's text and run it."
    cell.locator(".cm-content").first.click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(source)
    page.keyboard.press("Control+Enter")


@pytest.mark.browser
def test_a_lesson_is_worked_through_in_a_browser(playwright, tmp_path):
    "From the start page to a lesson: blank, a wrong answer, a hint, a catch-up."
    make_course(tmp_path / "course", RED)
    lesson = next(one for one in read_bank().lessons if one.id == "L02")
    with served(tmp_path, tmp_path / "course", "start.ipynb") as (url, log), opened(playwright, url) as page:
        page.set_viewport_size({"width": 1280, "height": 1600})
        page.get_by_role("strong").filter(has_text="This machine is not ready").wait_for()
        page.get_by_text("ask for a password").first.wait_for()
        assert nothing_in_the_way(page)
        keep_screenshot(page, "start")
        page.get_by_role("link", name=re.compile("L02")).click()
        page.get_by_role("heading", name=lesson.title).wait_for()
        page.set_viewport_size({"width": 1280, "height": 20_000})  # so that JupyterLab draws every cell
        page.get_by_text(re.compile(r"^(?!No Kernel).* \| Idle$")).first.wait_for()
        page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
        page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()
        book = page.locator(".jp-NotebookPanel:visible")
        wait_for_words(page, book, "not attempted: slice_step_mm")
        keep_screenshot(page, "blank")
        task = book.locator(".jp-CodeCell", has_text="#| exercise to_hu")
        type_into(page, task, dict(read_bank().exercises["to_hu"].wrong)["forgets the intercept"])
        asked = book.locator(".jp-CodeCell", has_text=re.compile(r'(check|hint)\("to_hu"\)'))
        type_into(page, asked, 'check("to_hu")')
        wait_for_words(page, asked, "✘ not yet: to_hu. the intercept is missing")
        assert not asked.get_by_text("Traceback").count()
        keep_screenshot(page, "wrong")
        type_into(page, asked, 'hint("to_hu")')
        asked.get_by_text("Hint 1 of").wait_for()
        type_into(page, asked, 'catch_up("to_hu"); check("to_hu")')
        wait_for_words(page, book, "✔ passed: to_hu")
        keep_screenshot(page, "caught up")
    rows = [json.loads(line) for line in (tmp_path / "course" / "progress.jsonl").read_text().splitlines()]
    own = [(row["verb"], row.get("state")) for row in rows if row["exercise"] == "to_hu"]
    assert own == [("check", "not attempted"), ("check", "not yet"), ("hint", None), ("catch_up", None), ("check", "passed")]
