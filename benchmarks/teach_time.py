"""How long it takes to build and to verify one lesson, beside one run of the lesson."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from medkit.teach import build, read_lessons, verify

ROOT = Path(__file__).resolve().parent.parent
RUN = """
import sys
from pathlib import Path
from nbdev.config import get_config
from nbdev.test import test_nb
test_nb(Path(sys.argv[1]), skip_flags=get_config().tst_flags.split(), basepath=get_config().config_path)
"""


def took_s(call) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def own_run(path: Path) -> None:
    "The lesson's source, run as the tests run it."
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-c", RUN, str(path)], cwd=ROOT, env=env, check=True, capture_output=True)


def rows(quick: bool) -> Iterator[tuple[str, str, str, bool | None]]:
    with tempfile.TemporaryDirectory() as folder:
        built_s = took_s(lambda: build(ROOT / "nbs" / "lessons", folder))
    lessons = read_lessons(ROOT / "nbs" / "lessons")
    for lesson in lessons[: 1 if quick else None]:
        own_s, verified_s = took_s(lambda: own_run(lesson.path)), took_s(lambda: verify(lesson.path))
        beyond_s = built_s / len(lessons) + verified_s - own_s
        figure = f"{beyond_s:.1f} s beyond its own run of {own_s:.1f} s"
        yield f"{lesson.id}: build and verify (three runs)", figure, "10 s", beyond_s <= 10
