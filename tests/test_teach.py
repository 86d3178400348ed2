"""Lessons prove themselves: `verify` names every planted fault, and `build` keeps what learners wrote. (test_lessons.py verifies the shipped ones.)"""

import json
import re
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

from medkit.cli import app
from medkit.errors import DataError, ExerciseError
from medkit.files import shipped
from medkit.teach import build, build_verified, export_nbgrader, lay_out, read_bank, read_lesson, read_lessons, verify
from medkit.teach.build import copy_of

TEMPLATE = shipped("data/lessons/X00_template.ipynb")
LESSONS = read_lessons(shipped("lessons"))


def answer_lines(source: str) -> set[str]:
    regions = re.findall(r"### BEGIN SOLUTION\n(.*?)\n\s*### END SOLUTION", source, re.S)
    return {line.strip() for region in regions for line in region.splitlines() if len(line.strip()) >= 20}


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.id)
def test_no_answer_in_the_learners_copy(lesson):
    "Counted anew, without `verify`: long lines of answers, marks, outputs, notes of the instructor."
    text = nbformat.writes(copy_of(lesson))
    cells = copy_of(lesson).cells
    for cell in lesson.cells:
        if cell.mark == "exercise":
            assert not [line for line in answer_lines(cell.source) if line in "\n".join(one.source for one in cells).splitlines()]
        if cell.mark == "instructor":
            assert json.dumps(cell.body.strip())[1:60] not in text
    assert not re.search(r"SOLUTION|#\| (check|wrong|alternative)|<!-- (why|instructor|hint)", text)
    assert all(not one.get("outputs") and one.get("execution_count") is None for one in cells)
    assert sum(one.source.startswith("check(") for one in cells) == len(lesson.exercises)


def test_no_name_is_used_twice():
    tasks = [task.id for lesson in LESSONS for task in lesson.exercises]
    quizzes = [quiz.id for lesson in LESSONS for quiz in lesson.quizzes]
    assert len(tasks) == len(set(tasks)) and len(quizzes) == len(set(quizzes))
    assert set(read_bank().exercises) == set(tasks) and set(read_bank().quizzes) == set(quizzes)


def planted(folder: Path, *changes: tuple[str, str]) -> Path:
    "The template with some text exchanged."
    notebook = nbformat.read(TEMPLATE, 4)
    for old, new in changes:
        hit = [cell for cell in notebook.cells if old in cell.source]
        assert hit, old
        for cell in hit:
            cell.source = cell.source.replace(old, new)
    path = folder / "X01_planted.ipynb"
    nbformat.write(notebook, path)
    return path


def test_faults_that_running_shows(tmp_path):
    found = str(verify(planted(
        tmp_path,
        ('take the mean of the intervals first, then the rate"', 'take the mean of the intervals first, then the rate" * 9'),
        ("assert abs(heart_rate(uneven) - np.mean(60 / uneven)) > 1e-6", "assert True"),  # `averages rates` meets the last assert
        ("    return 60 * len(intervals_s) / sum(intervals_s)", "    return 60 * len(intervals_s) / sum(intervals_s) + 1"),
        ("return 1 / np.mean(intervals_s)", "return [1 / np.mean(intervals_s)]"),
        ("assert shortest_s < 0.5", "assert shortest_s < 99"), ("abs(shortest_s - 0.2) < 1e-9", "shortest_s > 0.1"),
        ("#| fig-alt", "#| no-alt"), ("**Needs** 1 s, 150 MB", "**Needs** 1 s, 10 MB"),
        ("## Key points", "## Points"), ("A rate needs its unit", "![](x.png) A rate needs its unit"),
    )))
    for words in ("the alternative is not accepted", "accepts the wrong answer 'takes the longest' in 5 of 5 draws",
                  "'forgets the minute' is not refused by an assert", "`beat_times_s = np.array", "no alternative text", "promises 10 MB",
                  "lacks a section `## Key points`", "`![](x.png)` has no alternative text"):
        assert words in found, f"{words}\n\n{found}"


def test_a_blank_notebook_that_stops_is_named(tmp_path):
    late = nbformat.read(TEMPLATE, 4)
    place = next(number for number, cell in enumerate(late.cells) if cell.source.startswith("#| wrong heart_rate averages")) + 1
    late.cells.insert(place, nbformat.v4.new_code_cell("print(heart_rate([1.0]) + 1)"))
    nbformat.write(late, tmp_path / "X02_late.ipynb")
    found = verify(tmp_path / "X02_late.ipynb")
    assert len(found.problems) == 1 and "blank, stops at `print(heart_rate([1.0]) + 1)`: TypeError" in found.problems[0]


@pytest.mark.parametrize("code, words", [("import os; os._exit(3)", "ended with status 3"), ("while True: pass", "did not come to its end"),
                                         ("1 / 0", "The source stops at `1 / 0`: ZeroDivisionError")])
def test_a_lesson_that_stops_hangs_or_dies(tmp_path, code, words):
    path = planted(tmp_path, ("import matplotlib.pyplot as plt", f"import matplotlib.pyplot as plt\n{code}" if "1 / 0" not in code else code))
    assert words in str(verify(path, limit_s=12 if code.startswith("while") else 120))


FAULTS = [  # old text, new text, words of the problem
    ("#| check heart_rate", "#| check heart_rte", "marks without an exercise"),
    ("    ### END SOLUTION", "    # the end", "is not marked"),
    ("<!-- hint: heart_rate -->", "<!-- hnit: heart_rate -->", "unknown mark"),
    ("question: Beats come", "ask: Beats come", "quiz `rate-unit` cannot be read"),
    ("    return 60 / np.mean(intervals_s)", "    return 60 / np.mean(intervals_s", "not valid Python"),
    ("<!-- lesson: X00 -->", "", "not a lesson"),
    ("#| exercise heart_rate", "#| excercise heart_rate", "unknown mark"),
    ("#| wrong shortest_s", "#| worng shortest_s", "unknown mark"),
    ("    why: That is 60 times 0.75", "    right: true\n    why: That is 60 times 0.75", "3 options, 2 right"),
    ("### BEGIN SOLUTION", "...  # your code here", "is a learner's copy"),
    ("# Heart rate from a pulse", "Heart rate", "not a lesson"),
]


@pytest.mark.parametrize("old, new, words", FAULTS, ids=[f"{number} {words}" for number, (*_, words) in enumerate(FAULTS)])
def test_a_source_that_contradicts_itself_is_one_clear_sentence(tmp_path, old, new, words):
    found = verify(planted(tmp_path, (old, new)))
    assert len(found.problems) == 1 and words in found.problems[0] and "what to do" in found.problems[0]


def test_files_that_are_no_notebooks(tmp_path):
    for number, content in enumerate((b"", b"{}", b"[]", b"\xff\xfe", b'{"cells": 3}', b'{"cells": [{"cell_type": "code"}]}', b"[" * 9999)):
        path = tmp_path / f"{number}.ipynb"
        path.write_bytes(content)
        with pytest.raises(ExerciseError, match="not a notebook"):
            read_lesson(path)


def test_notebooks_with_text_as_one_string(tmp_path):
    notebook = json.loads(TEMPLATE.read_text())
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    (tmp_path / "a.ipynb").write_text(json.dumps(notebook))
    assert read_lesson(tmp_path / "a.ipynb").exercises == read_lesson(TEMPLATE).exercises


def test_a_learners_work_is_kept(tmp_path):
    source, target = tmp_path / "source", tmp_path / "course"
    source.mkdir()
    planted(source)
    name = "X01_planted.ipynb"
    assert build(source, target).written == (name,)
    notebook = nbformat.read(target / "learner" / name, 4)
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", text="7 beats")]
    notebook.cells.append(nbformat.v4.new_code_cell(""))  # as JupyterLab does when the last cell is run
    nbformat.write(notebook, target / "learner" / name)
    assert build(source, target).written == (), "a run is no change, and its outputs stay"
    assert "7 beats" in (target / "learner" / name).read_text()
    planted(source, ("Somebody has", "A nurse has"))
    assert build(source, target).written == (name,), "the course has changed and the learner has not"
    notebook.cells[2].source = "mine = 1"
    nbformat.write(notebook, target / "learner" / name)
    built = build(source, target)
    assert built.kept == (name,) and "kept as you left them" in str(built) and "mine = 1" in (target / "learner" / name).read_text()
    notebook.cells[2].source = "more = 2\n" + notebook.cells[3].source
    del notebook.cells[3]
    nbformat.write(notebook, target / "learner" / name)
    assert build(source, target).kept == (name,), "cells were joined"
    (target / "learner" / name).write_text("half a notebo")
    assert build(source, target).kept == (name,)
    assert build(source, target, fresh=True).written == (name,)


def test_the_shipped_course_is_laid_out(tmp_path):
    built = lay_out(tmp_path / "desk")
    assert built.written == tuple(lesson.path.name for lesson in LESSONS) and not built.kept
    assert lay_out(tmp_path / "desk").written == ()
    (tmp_path / "desk" / built.written[0]).unlink()
    assert lay_out(tmp_path / "desk").written == built.written[:1]


def test_solution_copies_fold_the_answer(tmp_path):
    build(TEMPLATE.parent, tmp_path)
    notebook = nbformat.read(tmp_path / "solution" / TEMPLATE.name, 4)
    nbformat.validate(notebook)
    answer = next(cell for cell in notebook.cells if cell.source.startswith("#| exercise heart_rate"))
    assert answer.metadata.tags == ["hide-input"] and answer.metadata.jupyter.source_hidden and "60 / np.mean" in answer.source
    assert "Common slip" not in str(notebook) and "SOLUTION" not in str(notebook) and "#| wrong" not in str(notebook)


def test_the_guide_says_it_all_on_one_page(tmp_path):
    build_verified(TEMPLATE.parent, tmp_path)
    for name in ("guide.md", "guide.html"):
        text = (tmp_path / "guide" / name).read_text()
        for words in ("10 min", "Common slip", "turn intervals between beats", "forgets the minute", "60 times a rate per second",
                      "How many beats", "80 per minute", "np.mean(intervals_s)"):
            assert words in text, f"{name}: {words}"
    page = (tmp_path / "guide" / "guide.html").read_text()
    assert page.startswith("<!doctype html>") and not re.search(r"<script|https?://|src=|href=", page)


def test_a_lesson_that_cannot_be_read_stops_verify_and_build(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    planted(source)
    (source / "X02_broken.ipynb").write_text(TEMPLATE.read_text().replace("#| check heart_rate", "# check heart_rate").replace("X00", "X02"))
    for _ in range(2):
        done = CliRunner().invoke(app, ["teach", "verify", str(source), "--only", "X02_broken"])
        assert done.exit_code == 1 and "`heart_rate` needs one exercise cell and one check" in " ".join(done.output.split())
        with pytest.raises(ExerciseError, match="The lesson `X02_broken.ipynb` cannot be read. `heart_rate` needs"):
            build(source, tmp_path / "course")
        with pytest.raises(ExerciseError, match="The lesson `X02_broken.ipynb` cannot be read"):
            export_nbgrader(source, tmp_path / "graded")
    with pytest.raises(ExerciseError, match="`heart_rate` needs one"):
        build_verified(source, tmp_path / "course")
    assert not (tmp_path / "course").exists()


def test_a_notebook_with_exercises_and_no_lesson_mark_is_not_passed_over(tmp_path):
    planted(tmp_path, ("<!-- lesson: X00 -->", "<!-- leson X00 -->"))
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# My notes")]), tmp_path / "notes.ipynb")
    done = CliRunner().invoke(app, ["teach", "verify", str(tmp_path)])
    assert done.exit_code == 1 and "is not a lesson" in " ".join(done.output.split()), done.output
    with pytest.raises(ExerciseError, match="X01_planted.ipynb` cannot be read. It has exercises or a quiz, but is no lesson"):
        build(tmp_path, tmp_path / "course")


def test_what_is_not_proved_is_not_handed_to_a_grader(tmp_path):
    lax = ("abs(steady - 1 / half) > 1e-6", "True"), ("< 1e-6", "< 1e9")
    done = CliRunner().invoke(app, ["teach", "export", str(planted(tmp_path, *lax)), "--target", str(tmp_path / "graded")])
    assert done.exit_code == 2 and "accepts the wrong answer 'forgets the minute'" in done.output and "?" not in done.output, done.output
    assert not (tmp_path / "graded").exists()
    sound = CliRunner().invoke(app, ["teach", "export", str(TEMPLATE), "--target", str(tmp_path / "graded")])
    assert sound.exit_code == 0 and "nbgrader generate_assignment" in sound.output, sound.output
    with pytest.raises(ExerciseError, match="There is no lesson in `nowhere`"):
        export_nbgrader(tmp_path / "nowhere", tmp_path / "other")


def test_an_unsound_course_is_not_built(tmp_path):
    (tmp_path / "source").mkdir()
    planted(tmp_path / "source", ("abs(shortest_s - 0.2) < 1e-9", "True"), ("shortest_s > 0,", "True,"))
    with pytest.raises(ExerciseError, match="accepts the wrong answer 'counts from zero'"):
        build_verified(tmp_path / "source", tmp_path / "course")
    assert not (tmp_path / "course").exists()


def test_links_and_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "source" / "deep").mkdir(parents=True)
    planted(tmp_path / "source" / "deep", ("The wrist gives", "See [X](../x/X01_planted.ipynb), [how](../../how_to/a.ipynb), [web](https://a.org). The wrist"))
    build(tmp_path / "source", tmp_path / "course")
    assert "See [X](X01_planted.ipynb), how, [web](https://a.org)." in (tmp_path / "course" / "learner" / "X01_planted.ipynb").read_text()
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot be made"):
        lay_out(tmp_path / "file")


def test_a_leak_into_another_lesson_stops_the_build(tmp_path):
    (tmp_path / "source").mkdir()
    planted(tmp_path / "source", ("heart_rate", "pulse"), ("shortest_s", "least_s"), ("quiz: rate", "quiz: beat"), ("lesson: X00", "lesson: X01"),
            ("60 / np.mean(intervals_s)", "60.0 / np.mean(intervals_s)"), ("## Key points", "```\nreturn 60 / np.mean(intervals_s)\n```\n## Key points"))
    (tmp_path / "source" / "X00_template.ipynb").write_text(TEMPLATE.read_text())
    with pytest.raises(ExerciseError, match=r"line `return 60 / np.mean\(intervals_s\)` of its answer stands .* \(X01\)"):
        build_verified(tmp_path / "source", tmp_path / "course")
    assert not (tmp_path / "course").exists()


def test_names_used_twice_are_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.ipynb").write_text(TEMPLATE.read_text())
    with pytest.raises(ExerciseError, match="one name"):
        build(tmp_path, tmp_path / "course")


def test_nbgrader_gets_what_its_schema_asks_for(tmp_path):
    "Schema version 3; tried with nbgrader 0.9.6: full points for the answers, none for blank or wrong ones."
    (path,) = export_nbgrader(TEMPLATE.parent, tmp_path)
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    graded = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]
    for cell in graded:
        meta = cell.metadata.nbgrader
        assert meta.schema_version == 3 and meta.grade != meta.solution == (not meta.locked) and meta.task is False
        assert re.fullmatch(r"[A-Za-z0-9_-]+", meta.grade_id) and ("points" in meta) == meta.grade
        assert ("### BEGIN HIDDEN TESTS" in cell.source) == meta.grade and ("### BEGIN SOLUTION" in cell.source) == meta.solution
    assert [cell.metadata.nbgrader.get("points") for cell in graded] == [None, 4, None, 2]
    assert not re.search(r"forgets the minute|Common slip|medkit.teach", str(notebook))


def test_memory_is_that_of_the_lesson_and_not_of_the_caller():
    held = bytearray(700 << 20)
    held[::4096] = b"x" * len(held[::4096])
    assert verify(shipped("data/lessons/X00_template.ipynb")).memory_mb < 400
