"""Every lesson verified: exercises, wrong answers refused with messages of their own, lines that leak."""

from collections.abc import Iterator
from pathlib import Path

from medkit.teach import find_leaks, read_lessons, verify_all

LESSONS = read_lessons(Path(__file__).resolve().parent.parent / "nbs" / "lessons")


def rows(quick: bool) -> Iterator[tuple[str, str, str, bool | None]]:
    lessons = LESSONS[:1] if quick else LESSONS
    found = verify_all([lesson.path for lesson in lessons])
    tasks, leaks = [task for lesson in lessons for task in lesson.exercises], find_leaks(LESSONS)
    wrong = sum(len(task.wrong) for task in tasks)
    refused = {(task, label): message for one in found for task, label, message in one.refused}
    own = all(len({message for (name, _), message in refused.items() if name == task.id}) == len(task.wrong) for task in tasks)
    problems = [problem for one in found for problem in one.problems]
    yield "lessons, exercises", f"{len(found)}, {len(tasks)}", "20 exercises", len(tasks) >= 20
    yield "wrong answers refused, each with its message", f"{len(refused)} of {wrong}", "all, 2 or more each", \
        len(refused) == wrong and own and min(len(task.wrong) for task in tasks) >= 2
    yield "lines of answers in the learners' tree", str(len(leaks)), "0", not leaks
    yield "problems of any kind", "; ".join(problems)[:200] or "0", "0", not problems
