"""The doctor's tests, counted: faults that were provoked for real and named, and pasted texts that were recognised."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent


def passed(marked: str) -> tuple[int, int]:  # passed, all
    "How many cases of the tests whose name begins so pass."
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        files = sorted(str(path) for path in (ROOT / "tests").glob("test_doctor*.py"))
        command = [sys.executable, "-m", "pytest", *files, "-q", "-k", marked, f"--junitxml={report}"]
        subprocess.run(command, cwd=ROOT, capture_output=True)
        cases = [case for case in ElementTree.parse(report).iter("testcase") if re.match(marked, case.get("name"))]
    return sum(len(case) == 0 for case in cases), len(cases)


def rows(quick: bool) -> Iterator[tuple[str, str, str, bool | None]]:
    faults, texts = passed("test_fault"), passed("test_text_is_recognised")
    yield "faults provoked for real, and named with a fix", f"{faults[0]} of {faults[1]}", "all, 20 or more", \
        faults[0] == faults[1] >= 20
    yield "pasted error messages recognised", f"{texts[0]} of {texts[1]}", "30 or more", texts[0] == texts[1] >= 30
    silent = passed("test_fault_dead_network")
    yield "a dead or slow network: within 15 s", f"{silent[0]} of {silent[1]} kinds", "all", silent[0] == silent[1] > 0
