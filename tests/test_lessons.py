"""Every lesson is sound, teaches enough, and gives nothing away; seen from outside, on the files that learners get."""

import json

import pytest
from notebooks import NBS

from medkit.teach import build, check, read_lessons, verify

LESSONS = read_lessons(NBS / "lessons")
FIRST = {"L00", "L01", "L02", "L10", "L11", "P1"}


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course")
    build(NBS / "lessons", folder)
    return folder


def lines_of(path) -> set[str]:
    "Every line of a notebook, blanks aside."
    cells = json.loads(path.read_text())["cells"]
    return {"".join(line.split()) for cell in cells for line in "".join(cell["source"]).splitlines()}


@pytest.mark.notebook
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.id)
def test_lesson_is_sound(lesson):
    "Answers pass, each wrong answer meets an assert of its own, nothing leaks, and the learner's copy runs blank and caught up."
    found = verify(lesson.path)
    print(found, f"{found.seconds:.1f} s of processor time, {found.memory_mb:.0f} MB")
    assert found.sound
    assert len(found.refused) == sum(len(task.wrong) for task in lesson.exercises) >= 2 * len(lesson.exercises) > 0
    assert found.seconds < 60 and found.memory_mb < 2000


def test_there_is_enough_to_do():
    tasks = [task for lesson in LESSONS for task in lesson.exercises]
    assert FIRST <= {lesson.id for lesson in LESSONS}
    assert len([task for task in tasks if task.lesson in FIRST]) >= 20
    for lesson in LESSONS:
        assert len(lesson.goals) == 3 and len(lesson.quizzes) == 3 and lesson.exercises, lesson
        assert set(lesson.first) <= {one.id for one in LESSONS}, f"{lesson.id} asks for a lesson that is not there"
        assert all(sum(option.right for option in one.options) == 1 for one in lesson.quizzes)
        assert all(option.why for one in lesson.quizzes for option in one.options)
        for task in lesson.exercises:
            assert len(task.wrong) >= 2 and task.hints and task.why and task.alternative, task


def test_nothing_of_an_answer_stands_in_the_tree_of_the_learners(course):
    "Looked for in the files, by other code than that of `verify`: answers line by line, checks and wrong answers whole."
    pages = {path.name: lines_of(path) for path in (course / "learner").glob("*.ipynb")}
    assert {lesson.path.name for lesson in LESSONS} == pages.keys()
    everything = set().union(*pages.values())
    for lesson in LESSONS:
        for task in lesson.exercises:
            inside, secret = False, set()
            for line in task.source.splitlines():
                text = "".join(line.split())
                secret |= {text} if inside and len(text) > 16 else set()
                inside = text == "###BEGINSOLUTION" or inside and text != "###ENDSOLUTION"
            asserts = {"".join(line.split()) for line in task.check.splitlines() if line.startswith("assert")}
            assert not (secret | asserts) & everything, task
    raw = "".join(path.read_text() for path in (course / "learner").iterdir())
    for mark in ("BEGIN SOLUTION", "#| wrong", "#| check", "#| alternative", "<!-- instructor", "<!-- why"):
        assert mark not in raw
    assert all(label not in raw for lesson in LESSONS for task in lesson.exercises for label, _ in task.wrong if len(label) > 20)


def test_a_blank_copy_says_not_attempted_and_a_solved_one_holds_no_notes(course, tmp_path, monkeypatch):
    for lesson in LESSONS:
        source = (course / "learner" / lesson.path.name).read_text()
        assert source.count('check(\\"') == len(lesson.exercises) and source.count("your code here") >= len(lesson.exercises)
        assert "instructor" not in (course / "solution" / lesson.path.name).read_text()
    guide = (course / "guide" / "guide.html").read_text()
    assert all(f"{task.id} (" in guide for lesson in LESSONS for task in lesson.exercises) and "<script" not in guide
    monkeypatch.chdir(tmp_path)  # where progress is kept
    assert str(check("to_hu")).startswith("○ not attempted")
