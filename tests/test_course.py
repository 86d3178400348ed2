"""The learner's folder: what is written there stays, the start page tells the truth, and a lesson is worked through in a browser."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import nbformat
import pytest
from chromium import address, cell_of, keep_screenshot, nothing_in_the_way, opened, own_folders, run_all, served, wait_for_words
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


def test_what_was_caught_up_is_not_shown_as_passed(tmp_path):
    make_course(tmp_path, READY)
    first, *others = read_bank().lessons[0].exercises
    rows = [{"verb": "catch_up", "exercise": first.id}, {"verb": "check", "exercise": first.id, "state": "passed"}]
    rows += [{"verb": "check", "exercise": one.id, "state": "passed"} for one in others]
    for kept, said in ((rows, f"… {len(others)} of {len(others) + 1}, 1 caught up |"), (rows[1:], f"✔ {len(others) + 1} of {len(others) + 1} |")):
        (tmp_path / "progress.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
        page = nbformat.read(make_course(tmp_path, READY), as_version=4).cells[0].source
        assert [line for line in page.splitlines() if line.startswith(f"| [**{first.lesson}**") and line.endswith(said)], page


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
    told = runner.invoke(app, ["teach", "verify", "--only", "l02"]).output
    assert f"expected: {', '.join(one.id for one in read_bank().lessons)}\n" in told and "did you mean --only L02?" in told, told
    command = lab_command(tmp_path, "start.ipynb", "--no-browser")
    assert re.search(r"jupyter_server_config\.py$", command[3]) and os.path.exists(command[3].split("=", 1)[1])
    for name in ("lab", "build", "verify", "export"):
        told = runner.invoke(app, ["teach", name, "--help"]).output
        assert "Example: medkit teach" in told and "Exit codes" in told


posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows has no signals of this kind")
START = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # even if this test runs in the background
SKIP_DOCTOR = """import medkit.course
from medkit.doctor import Check, Report
medkit.course.run_doctor = lambda: Report((Check("Python", "ok", "3.11"),))
"""
TYPED = "from medkit.__main__ import main; main()"


@contextmanager
def lab_at_work(folder: Path, code: str = START + SKIP_DOCTOR + TYPED, stdin=subprocess.DEVNULL) -> Iterator[tuple[subprocess.Popen, Path]]:
    "`medkit teach lab`, and the file with what it prints."
    command = [sys.executable, "-c", code, "teach", "lab", str(folder / "course"), "--no-browser"]
    with open(folder / "log", "wb") as output:
        process = subprocess.Popen(command, env=own_folders(folder), cwd=folder, stdin=stdin, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process, folder / "log"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(holds: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


@posix_only
@pytest.mark.parametrize("name, status", [("SIGTERM", 0), ("SIGHUP", -1)])  # JupyterLab puts itself in order; it knows no SIGHUP
def test_jupyterlab_does_not_outlive_the_command(name, status, tmp_path):
    with lab_at_work(tmp_path) as (process, log):
        url = address(process, tmp_path / "jupyter_runtime_dir", log, "start.ipynb")
        process.send_signal(getattr(signal, name))
        assert process.wait(30) == status and "Traceback" not in log.read_text(), log.read_text()
        with pytest.raises(OSError) as refused:  # refused, or cut off while it ended
            urlopen(url, timeout=5)
        assert not isinstance(refused.value, HTTPError), "somebody answered"


@posix_only
@pytest.mark.parametrize("code, written", [(START + TYPED, "L*.ipynb"), (START + SKIP_DOCTOR + TYPED, "start.ipynb")],
                         ids=["the doctor looks", "JupyterLab starts"])
def test_ctrl_c_in_the_first_seconds_is_one_quiet_line(code, written, tmp_path):
    with lab_at_work(tmp_path, code) as (process, log):
        wait_until(lambda: any((tmp_path / "course").glob(written)), log)
        time.sleep(0.2)  # now the doctor's probes run, or JupyterLab is being imported
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to everything that was started
        assert process.wait(30) == 130
        assert log.read_text().splitlines()[1:] == ["stopped"], log.read_text()


@posix_only
def test_the_first_ctrl_c_in_a_terminal_is_a_question(tmp_path):
    import pty

    ours, theirs = pty.openpty()
    with lab_at_work(tmp_path, stdin=theirs) as (process, log):
        url = address(process, tmp_path / "jupyter_runtime_dir", log, "start.ipynb")
        os.killpg(process.pid, signal.SIGINT)
        wait_until(lambda: "Shut down this Jupyter server" in log.read_text(), log)
        time.sleep(1)
        assert urlopen(url, timeout=5).status == 200 and process.poll() is None
        os.write(ours, b"y\n")
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:  # a machine so busy that the 5 s for an answer were over
            os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 0 and "Traceback" not in log.read_text(), log.read_text()
    os.close(ours), os.close(theirs)


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
        run_all(page)
        book = page.locator(".jp-NotebookPanel:visible")
        wait_for_words(page, book, "not attempted: slice_step_mm")
        keep_screenshot(page, "blank")
        task = cell_of(book, "#| exercise to_hu")
        type_into(page, task, dict(read_bank().exercises["to_hu"].wrong)["forgets the intercept"])
        asked = cell_of(book, re.compile(r'(check|hint)\("to_hu"\)'))
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
