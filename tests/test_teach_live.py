"""What a learner can do to `check`: one line comes back, it is useful, and it never shows the test nor a traceback."""

import json
import linecache
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from medkit.errors import MedkitError
from medkit.teach import Exercise, catch_up, check, hint, join, judge, note, progress, read_lesson, solution
from medkit.teach.exercise import bank_text
from medkit.files import Manifest, shipped

TEMPLATE = shipped("data/lessons/X00_template.ipynb")
RATE, SHORTEST = read_lesson(TEMPLATE).exercises
CHECK_LINES = {line.strip() for task in (RATE, SHORTEST) for line in task.check.splitlines() if len(line.strip()) > 20}


def verdict(source: str, task: Exercise = RATE):
    "The verdict after the learner ran a cell."
    names = {"__name__": "__main__"}
    linecache.cache["<cell 7>"] = len(source), None, source.splitlines(True), "<cell 7>"  # as IPython does
    exec(compile(source, "<cell 7>", "exec"), names)
    return judge(task, names, names)


def body(text: str) -> str:
    return f"def heart_rate(intervals_s):\n    {text}"


ATTACKS = {  # what a learner may write -> (state, words of the line)
    "docstring only": ('def heart_rate(intervals_s):\n    "I know this."', "not attempted", "Replace the `...` of"),
    "pass": (body("pass"), "not attempted", "Replace the `...` of"),
    "ellipsis": (body("..."), "not attempted", "Replace the `...` of"),
    "raises": (body("raise ValueError('no idea')"), "stopped", r"line 2, `raise ValueError\('no idea'\)`: ValueError: no idea"),
    "own assert": (body("assert 1 == 2, 'mine'"), "stopped", "line 2, .*AssertionError: mine"),
    "zero": (body("return 60 / 0"), "stopped", "line 2, `return 60 / 0`: ZeroDivisionError"),
    "name error": (body("return 60 / mean(intervals_s)"), "stopped", r"line 2.*NameError: name 'mean' is not defined \(a slip, or its cell"),
    "exit": (body("raise SystemExit"), "stopped", "SystemExit"),
    "sys.exit": ("import sys\n" + body("sys.exit(3)"), "stopped", "line 3.*SystemExit: 3"),
    "interrupt": (body("raise KeyboardInterrupt"), "stopped", "line 2.*you interrupted it"),
    "recursion": (body("return heart_rate(intervals_s)"), "stopped", "line 2.*RecursionError"),
    "generator exit": (body("raise GeneratorExit"), "stopped", "GeneratorExit"),
    "base exception": ("class Odd(BaseException): pass\n" + body("raise Odd"), "stopped", "Odd"),
    "broken text": ("class Odd(Exception):\n    def __str__(self): 1 / 0\n" + body("raise Odd"), "stopped", "Odd"),
    "memory": (body("raise MemoryError"), "stopped", "MemoryError"),
    "in a helper": ("def helper(x):\n    return x['a']\n\n" + body("return helper(intervals_s)"), "stopped", "line 2 of `helper`"),
    "returns none": (body("60 / sum(intervals_s)"), "not yet", "gave nothing"),
    "prints instead": (body("print(60)"), "not yet", "gave nothing.* prints does not count"),
    "returns ellipsis": (body("return ..."), "not yet", "gave `...`"),
    "returns text": (body("return 'eighty'"), "not yet", "gave a str of 6"),
    "returns list": (body("return [80]"), "not yet", "gave a list of 1"),
    "returns itself": (body("return heart_rate"), "not yet", "gave a function"),
    "returns array": ("import numpy as np\n" + body("return 60 / np.asarray(intervals_s)"), "not yet", "an array of shape"),
    "generator": (body("yield 60"), "not yet", "gave a generator"),
    "coroutine": ("async " + body("return 60"), "not yet", "gave a coroutine"),
    "no argument": ("def heart_rate():\n    return 60", "not yet", "must take what its first line"),
    "one too many": ("def heart_rate(a, b):\n    return 60", "not yet", "must take what its first line"),
    "a number": ("heart_rate = 80", "not yet", "is now an int, no function"),
    "none": ("heart_rate = None", "not yet", "no function"),
    "a class": ("class heart_rate:\n    def __init__(self, x): pass", "not yet", "heart_rate"),
    "a lambda": ("heart_rate = lambda x: 60 * len(x) / sum(x)", "passed", ""),
    "a built-in": ("heart_rate = len", "not yet", "per minute"),
    "hard coded": (body("return 120"), "not yet", "are .* per minute, not 120.0"),
    "numpy shadowed": ("np = 3\n" + body("return 60 * len(intervals_s) / sum(intervals_s)"), "passed", ""),
    "builtins shadowed": ("abs = list = sum = 3\n" + body("n = 0\n    for x in intervals_s: n += x\n    return 60 * len(intervals_s) / n"),
                          "passed", ""),
    "shadowed and used": ("list = [1]\n" + body("return list(intervals_s)"), "stopped", "'list' object is not callable"),
    "wrapped": ("import functools\n@functools.cache\ndef rate(x): return 60 / x\n" + body("return rate(sum(intervals_s) / len(intervals_s))"),
                "passed", ""),
    "wrong comparison": ("class Evil(float):\n    def __gt__(self, other): return True\n    def __lt__(self, other): return True\n"
                         "    __abs__ = __sub__ = __rsub__ = lambda self, *a: self\n" + body("return Evil(1)"), "passed", ""),
    "numpy raises": ("import numpy as np\nnp.seterr(all='raise')\n" + body("return np.float64(1) / 0"), "stopped", "FloatingPointError"),
    "wraps itself": (body("return 1") + "\nheart_rate.__wrapped__ = heart_rate", "not yet", "per minute"),
    "callable object": ("class C:\n    def __call__(self, x): return 60 * len(x) / sum(x)\nheart_rate = C()", "passed", ""),
    "evil object": ("class C:\n    def __getattr__(self, n): raise KeyError(n)\n" + body("return C()"), "stopped", "cannot be shown"),
    "evil list": ("class C(list):\n    def __len__(self): raise KeyError\n" + body("return C()"), "stopped", "cannot be shown"),
    "evil callable": ("class C:\n    def __getattr__(self, n): raise KeyError(n)\n    def __call__(self, x): return 1\nheart_rate = C()",
                      "not yet", "per minute"),
    "endless text": (body("raise ValueError('x' * 10**6)"), "stopped", "ValueError: xxx"),
    "partial": ("import functools\nheart_rate = functools.partial(lambda k, x: k * len(x) / sum(x), 60)", "passed", ""),
    "mutates": (body("intervals_s[0] = 0; return 60"), "not yet", "."),
    "warnings": ("import warnings\nwarnings.simplefilter('error')\n" + body("warnings.warn('x'); return 60 * len(intervals_s) / sum(intervals_s)"),
                 "passed", ""),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_one_line_whatever_the_learner_writes(name):
    import warnings

    import numpy as np

    source, state, words = ATTACKS[name]
    with warnings.catch_warnings(), np.errstate():
        found = verdict(source)
    assert found.state == state, str(found)
    assert re.search(words, found.message), str(found)
    assert "\n" not in str(found) and "Traceback" not in str(found) and len(str(found)) < 330
    assert not any(line in str(found) for line in CHECK_LINES), "the test is shown"


@pytest.mark.parametrize("value, state", [("...", "not attempted"), ("None", "not yet"), ("'0.2'", "not yet"), ("[0.2]", "not yet"), ("-1", "not yet"),
                                          ("0.2", "passed"), ("float('nan')", "not yet"), ("lambda: 0.2", "not yet"), ("0.8", "not yet")])
def test_values(value, state):
    assert verdict(f"shortest_s = {value}", SHORTEST).state == state


def test_a_value_of_the_wrong_kind_is_named():
    assert "`shortest_s` gave a str of 3" in str(verdict("shortest_s = '0.2'", SHORTEST))


TWO = """def low(x):
    ### BEGIN SOLUTION
    return min(x)
    ### END SOLUTION


def high(x):
    ### BEGIN SOLUTION
    return max(x)
    ### END SOLUTION


### BEGIN SOLUTION
unit = "bpm"
### END SOLUTION"""


def two() -> Exercise:
    from medkit.teach.exercise import Cell, _exercise

    cells = [Cell("code", "assert low([1, 2]) == 1 and high([1, 2]) == 2 and unit == 'bpm', 'no'", "check", "two")]
    return _exercise(Cell("code", TWO, "exercise", "two"), cells, "X")


def test_half_attempted():
    task = two()
    assert task.names == ("low", "high", "unit")
    assert verdict(task.stub, task).state == "not attempted"
    half = verdict(task.stub.replace("...", "return min(x)", 1), task)
    assert half.state == "not yet" and half.message == "still to do: `high` and `unit`"
    assert verdict(task.solution, task).state == "passed"
    assert verdict(task.solution.replace("def high", "def higher"), task).message == "still to do: `high`"


def test_a_class_as_an_exercise():
    from medkit.teach.exercise import Cell, _exercise

    source = ('class Buffer:\n    "Keeps numbers."\n    def __init__(self):\n        ### BEGIN SOLUTION\n        self.x = []\n'
              "        ### END SOLUTION\n\n    def size(self):\n        return len(self.x)")
    task = _exercise(Cell("code", source, "exercise", "b"), [Cell("code", "assert Buffer().size() == 0, 'no'", "check", "b")], "X")
    assert verdict(task.stub, task).state == "not attempted"
    assert verdict(task.solution, task).state == "passed"
    stopped = verdict(task.stub.replace("...", "self.y = 1"), task)
    assert stopped.state == "stopped" and "line" in stopped.message


def test_names_and_nearest_ids(tmp_path, monkeypatch):
    desk(tmp_path, monkeypatch)
    for given in ("hart_rate", "", 3, None, ["heart_rate"], "x" * 500):
        for verb in (check, hint, solution, catch_up):
            said = str(verb(given))
            assert "No exercise has this name" in said and "heart_rate" in said and len(said) < 300


def desk(folder: Path, monkeypatch) -> None:
    "Work in `folder`, with the template as the course."
    (folder / "bank.json").write_text(bank_text([read_lesson(TEMPLATE)]))
    monkeypatch.chdir(folder)


def test_the_verbs_in_plain_python(tmp_path, monkeypatch):
    desk(tmp_path, monkeypatch)
    script = tmp_path / "mine.py"
    script.write_text("""
from medkit.teach import *
print(check("heart_rate"))
def heart_rate(intervals_s):
    return 60 / unknown
print(check("heart_rate"))
def inside():
    def heart_rate(intervals_s): return 60 * len(intervals_s) / sum(intervals_s)
    print(check("heart_rate"))
inside()
import numpy as np
beat_times_s = np.array([0, 0.8, 1.0])
print(catch_up("shortest_s"), check("shortest_s"), hint("shortest_s"), progress(), sep="\\n")
""")
    done = subprocess.run([sys.executable, "-W", "error", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "not attempted" in lines[0] and "Run the cell above first" in lines[0]
    assert "line 5, `return 60 / unknown`: NameError" in lines[1]
    assert lines[2] == "✔ passed: heart_rate"
    assert "✔ passed: shortest_s" in lines and any("caught up" in line for line in lines)


def test_asserts_count_when_python_optimises(tmp_path, monkeypatch):
    desk(tmp_path, monkeypatch)
    code = "from medkit.teach import check\ndef heart_rate(x): return 1\nprint(check('heart_rate'))"
    done = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert "✘ not yet" in done.stdout


def test_the_verbs_in_a_kernel(tmp_path, monkeypatch):
    desk(tmp_path, monkeypatch)
    sources = ["from medkit.teach import *", "def heart_rate(intervals_s):\n    x = 1\n    return x / 0", 'check("heart_rate")',
               "np = 3", "def heart_rate(x):\n    return 60 * len(x) / sum(x)", 'check("heart_rate")', 'hint("heart_rate")', "progress()"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in sources])
    NotebookClient(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = ["".join(out.get("data", {}).get("text/plain", "") for out in cell.outputs) for cell in notebook.cells]
    assert "line 3, `return x / 0`: ZeroDivisionError" in shown[2]
    assert "✔ passed" in shown[5] and "Hint 1 of 2" in shown[6] and "passed" in shown[7]
    assert "--jp-warn-color1" in notebook.cells[2].outputs[0]["data"]["text/html"]


def ran(tmp_path: Path, *sources: str) -> list[str]:
    "What the cells of a notebook show, one after the other; a cell may fail."
    first = "import numpy as np\nfrom medkit.teach import *"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(one) for one in (first, *sources)])
    NotebookClient(notebook, timeout=60, kernel_name="python3", allow_errors=True, resources={"metadata": {"path": str(tmp_path)}}).execute()
    return ["".join(out.get("text", "") + out.get("data", {}).get("text/plain", "") for out in cell.outputs) for cell in notebook.cells[1:]]


def test_a_cell_that_did_not_run_is_no_answer(tmp_path, monkeypatch):
    desk(tmp_path, monkeypatch)
    right = body("return 60 * len(intervals_s) / sum(intervals_s)")
    ask = 'check("heart_rate")'
    shown = ran(tmp_path, right, ask, body("return (1"), ask, 'hint("heart_rate")', ask, right, ask, body("return 1"), ask, ask,
                "def heart_rate(x:", 'catch_up("heart_rate")', ask)
    assert "✔ passed" in shown[1] and "✔ passed" in shown[7] and "✔ passed" in shown[13]
    for number in (3, 5):
        assert shown[number].startswith("⚠ stopped: heart_rate. Your last version did not run; its line 2: '(' was never closed")
        assert "same code" not in shown[number]
    assert "✘ not yet" in shown[9] and "same code" not in shown[9]
    assert "✘ not yet" in shown[10] and "The same code as at your last check" in shown[10]


def test_a_loop_that_prints_does_not_fill_the_page(tmp_path, monkeypatch):
    desk(tmp_path, monkeypatch)
    prints = body("for _ in range(10**6): print('still here')\n    return 60 * len(intervals_s) / sum(intervals_s)")
    shown = ran(tmp_path, prints, 'check("heart_rate")')[1]
    assert "… cut" in shown and "✔ passed" in shown and shown.count("\n") <= 22


def test_a_reference_answer_without_its_imports_is_not_blamed_on_the_learner(tmp_path, monkeypatch):
    desk(tmp_path, monkeypatch)
    shown = ran(tmp_path, "del np", 'catch_up("heart_rate")', 'check("heart_rate")')
    assert re.match(r"⚠ stopped: heart_rate. The reference answer's line \d+: NameError: .*Run > Run All Above", shown[2]), shown[2]


def test_a_verb_without_a_name_is_one_line(tmp_path, monkeypatch):
    desk(tmp_path, monkeypatch)
    for verb in (check, hint, solution, catch_up):
        assert "No exercise has this name; there are heart_rate" in str(verb())


def test_hints_come_in_order_then_all(tmp_path, monkeypatch):
    desk(tmp_path, monkeypatch)
    assert [str(hint("heart_rate")).count("**Hint") for _ in range(3)] == [1, 2, 2]
    assert "Hint 2" not in str(hint("heart_rate", 1)) and "Hint 2 of 2" in str(hint("heart_rate", 99))


def test_rows_hold_no_source_code(tmp_path, monkeypatch):
    desk(tmp_path, monkeypatch)
    globals()["heart_rate"] = eval("lambda x: secret_name / 0")
    check("heart_rate")
    globals()["heart_rate"] = eval("lambda x: 60")
    check("heart_rate"), hint("heart_rate"), solution("heart_rate"), catch_up("shortest_s")
    text = Path("progress.jsonl").read_text()
    assert "secret_name" not in text and "lambda" not in text and "np.mean" not in text
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["state"] for row in rows if row["verb"] == "check"] == ["stopped", "not yet"]
    assert set().union(*rows) <= {"at", "verb", "lesson", "exercise", "state", "says"}


@pytest.mark.skipif(os.name == "nt" or not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("fault", ["folder", "link", "class gone"])
def test_feedback_comes_when_progress_cannot_be_kept(tmp_path, monkeypatch, fault):
    desk(tmp_path, monkeypatch)
    if fault == "folder":
        Path("progress.jsonl").mkdir()
    elif fault == "link":
        Path("progress.jsonl").symlink_to("/dev/full")
    else:
        Path("class.json").write_text(json.dumps({"folder": str(tmp_path / "gone"), "nickname": "ada"}))
    globals()["heart_rate"] = eval("lambda x: 60 * len(x) / sum(x)")
    found = check("heart_rate")
    assert found.state == "passed" and "Progress is not kept" in found.note and str(found).count("\n") == 1
    assert "Hint 1 of 2" in str(hint("heart_rate")) and "Progress is not kept" in str(solution("heart_rate"))


def test_a_full_disk(tmp_path, monkeypatch):
    desk(tmp_path, monkeypatch)
    code = ("import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
            "from medkit.teach import check\ndef heart_rate(x): return 60 * len(x) / sum(x)\nprint(check('heart_rate'))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert "✔ passed" in done.stdout and "Progress is not kept" in done.stdout, done.stderr


def test_torn_and_foreign_lines_are_left_out_with_a_word(tmp_path, monkeypatch):
    desk(tmp_path, monkeypatch)
    good = json.dumps({"verb": "check", "exercise": "heart_rate", "state": "passed"})
    lines = [good[:20].encode(), b"hello", b"\xff\xfe", b"[1, 2]", b"{}", b"\0\0\0", b"[" * 5000, b"NaN", good.encode(), b'"x"']
    Path("progress.jsonl").write_bytes(b"\n".join(lines))
    found = progress()
    assert found.rows[0]["state"] == "passed" and found.left_out == 8
    assert "foreign: 8" in str(found) and "foreign: 8" in found._repr_html_()


def test_caught_up_stays_caught_up(tmp_path, monkeypatch):
    desk(tmp_path, monkeypatch)
    globals()["np"] = __import__("numpy")
    globals()["beat_times_s"] = np.array([0, 0.8, 1.0])  # noqa: F821
    catch_up("shortest_s")
    assert check("shortest_s").state == "passed"
    assert [row["state"] for row in progress().rows] == ["not tried", "caught up"]


WRITER = """
import sys
from medkit.teach import join, note
from medkit.teach.live import _record
from medkit.teach import read_bank
join(sys.argv[1], sys.argv[2])
task = read_bank().exercises["heart_rate"]
for number in range(int(sys.argv[3])):
    assert _record("check", task, state="not yet", says=str(number)) == ""
    note(f"line {number} of " + sys.argv[2] + " " + "x" * 200)
    print(number, flush=True)
"""


def test_eight_writers_lose_nothing_and_three_may_be_killed(tmp_path, monkeypatch):
    "Every row and note that was acknowledged is there, whole; four of the eight share one nickname."
    shared, writers = tmp_path / "class", []
    for number in range(8):
        home = tmp_path / f"home{number}"
        home.mkdir()
        (home / "bank.json").write_text(bank_text([read_lesson(TEMPLATE)]))
        name = "crowd" if number < 4 else f"nick{number}"
        writers.append(subprocess.Popen([sys.executable, "-c", WRITER, str(shared), name, "150"], cwd=home,
                                        stdout=open(home / "out", "w"), stderr=subprocess.PIPE))
    deadline = time.monotonic() + 60
    for number in (1, 5, 6):
        while len((tmp_path / f"home{number}" / "out").read_text().split()) < 20 and time.monotonic() < deadline:
            time.sleep(0.02)
        writers[number].send_signal(signal.SIGKILL)
    for writer in writers:
        writer.wait(timeout=120)
        writer.stderr.close()
    acknowledged = [len((tmp_path / f"home{number}" / "out").read_text().split()) for number in range(8)]
    assert all(acknowledged[number] == 150 for number in (0, 2, 3, 4, 7)) and all(acknowledged[number] >= 20 for number in (1, 5, 6))
    with warnings.catch_warnings(action="ignore"):  # a killed writer may leave half a row
        rows = {path.stem: Manifest(path).rows() for path in (shared / "progress").iterdir()}
    assert len(rows["crowd"]) >= sum(acknowledged[:4])
    for number in range(4, 8):
        said = [row["says"] for row in rows[f"nick{number}"]]
        assert said[: acknowledged[number]] == [str(one) for one in range(acknowledged[number])]
    notes = [line for line in (shared / "notes.md").read_text().splitlines() if line]
    whole = [line for line in notes if re.fullmatch(r"- \*\*\w+\*\*: line \d+ of \w+ x{200}", line)]
    assert len(whole) >= sum(acknowledged) and len(notes) - len(whole) <= 3


@pytest.mark.parametrize("bad", ["", " ", "../ada", "a/b", "a\\b", "a\nb", "a\0b", "\u202eada", "con", "x" * 41, 3, None, "\ud800"])
def test_nicknames_that_are_refused(tmp_path, monkeypatch, bad):
    desk(tmp_path, monkeypatch)
    with pytest.raises(MedkitError):
        join(tmp_path / "class", bad)
    assert not Path("class.json").exists()


@pytest.mark.parametrize("name", ["ada", "Ada Lovelace", "Zoë", "李", "o'brien-2"])
def test_nicknames_that_are_fine(tmp_path, monkeypatch, name):
    desk(tmp_path, monkeypatch)
    assert name in join(tmp_path / "class", name)
    note("one\ntwo")
    assert (tmp_path / "class" / "notes.md").read_text() == f"- **{name}**: one\n  two\n"


def test_a_class_folder_that_cannot_be_made(tmp_path, monkeypatch):
    desk(tmp_path, monkeypatch)
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", None, 3):
        with pytest.raises(MedkitError):
            join(folder, "ada")


def test_a_note_needs_words(tmp_path, monkeypatch):
    desk(tmp_path, monkeypatch)
    for empty in ("", " \n", None, 3):
        assert str(note(empty)).startswith("⚠ stopped: note. A note needs words")
    Path("notes.md").mkdir()
    assert "The note is not kept" in str(note("mine"))
