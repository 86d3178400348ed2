"""The image commands as people meet them: what stands on the screen after a good run, a bad one, and Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydicom.data import get_testdata_file
from typer.testing import CliRunner

from medkit.cli import app
from medkit.imaging.window import PRESETS

COMMAND = [sys.executable, "-m", "medkit"]
KEY = "0123456789abcdef" * 4


def typed(*words, cwd: Path, columns: int = 80):
    "What the command prints, in this process, which has its packages loaded."
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.delenv("FORCE_COLOR", raising=False)
        done = CliRunner().invoke(app, [*map(str, words)], env={"COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return SimpleNamespace(returncode=done.exit_code, stdout=done.stdout, stderr=done.stderr)


def bytes_of(name: str) -> bytes:
    return Path(get_testdata_file(name, download=False)).read_bytes()


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("CT_small.dcm", "MR_small.dcm", "test-SR.dcm"):
        (folder / name).write_bytes(bytes_of(name))
    (folder / "notes.txt").write_text("no picture here")
    return tmp_path


def test_report_counts_pictures_and_says_why_each_failed(home):
    for number in range(13):
        (home / "scans" / f"cut {number:02}.dcm").write_bytes(bytes_of("CT_small.dcm")[:-9000 - number])
    done = typed("convert", "scans", "out", cwd=home)
    assert done.returncode == 1
    assert "17 inputs, 2 pictures in" in done.stdout and "done before" not in done.stdout
    causes = re.findall(r"^failed: cut \d\d\.dcm \(truncated\): .*23,[89]\d\d bytes", done.stdout, re.MULTILINE)
    assert len(causes) == 10, done.stdout
    assert "and 3 more: the file sources.private.jsonl has the cause of each" in done.stdout
    assert "skipped: the file sources.private.jsonl has the names and causes of all 2" in done.stdout
    rows = [json.loads(line) for line in (home / "out" / "sources.private.jsonl").read_text().splitlines()]
    assert all(row["detail"] for row in rows if row["source"].startswith(("cut", "notes", "test-SR")))


def test_one_input_is_not_inputs_and_resumed_ones_are_told(home):
    assert "1 input, 1 picture in" in typed("convert", "scans/CT_small.dcm", "one", cwd=home).stdout
    again = typed("convert", "scans/CT_small.dcm", "one", cwd=home)
    assert "1 input, 1 picture in" in again.stdout and "1 input done before" in again.stdout
    assert "1/1 inputs" in again.stderr and "/s" not in again.stderr  # nothing was done in this run


def test_remarks_are_counted(home):
    (home / "scans" / "photo.dcm").write_bytes(bytes_of("SC_rgb_rle_2frame.dcm"))
    done = typed("convert", "scans", "out", cwd=home, columns=120)
    assert done.returncode == 0
    assert re.search(r"remark +│ +1 │ text may be burned into the pixels", done.stdout), done.stdout


def test_advice_after_a_total_failure_is_that_of_the_failure(home):
    for number in (1, 2):
        (home / "scans" / f"text {number}.txt").write_text("words")
    windows = typed("convert", "scans", "out", "--window", "7", cwd=home)
    assert windows.returncode == 2 and "[unknown_window]" in windows.stderr, windows.stderr
    assert "centre/width such as 40/400" in windows.stderr and "give a folder of DICOM" not in windows.stderr
    (home / "texts").mkdir()
    (home / "texts" / "a.txt").write_text("words")
    texts = typed("convert", "texts", "out2", cwd=home)
    assert texts.returncode == 2 and "give a folder of DICOM images" in texts.stderr


def test_bar_is_legible_and_begins_with_the_first_file(home):
    (home / "scans" / "cut.dcm").write_bytes(bytes_of("CT_small.dcm")[:-9000])
    for columns in (80, 120):
        done = typed("convert", "scans", f"out{columns}", cwd=home, columns=columns)
        assert "5/5 inputs" in done.stderr and "1 truncated" in done.stderr and "?" not in done.stderr, done.stderr
        assert max(map(len, done.stderr.splitlines())) <= columns


@pytest.mark.parametrize("words", [
    ("convert", "scans", "out", "--window", "40/four"), ("convert", "scans", "out", "--window", "lungs"),
    ("convert", "scans", "out", "--bits", "9"), ("convert", "scans", "out", "--key", "none.key"),
    ("verify", "scans"), ("headers", "scans", "table.json"), ("audit", "none"), ("deid", "none", "out", "--key", "home.key"),
])
def test_refusal_is_all_that_is_printed(home, words):
    before = sorted(home.rglob("*"))
    done = typed(*words, cwd=home)
    assert done.returncode == 2 and done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 4 and lines[0].endswith("]"), done.stderr
    for line, start in zip(lines[1:], ("found:", "expected:", "what to do:")):
        assert line.strip().startswith(start)
    assert sorted(home.rglob("*")) == before


@pytest.mark.parametrize("window", ["40/400", "-600/1500", "lung", "header", "minmax", "0"])
def test_windows_that_can_be_typed(home, window):
    done = typed("convert", "scans/MR_small.dcm", "out", "--window", window, "--json", cwd=home)
    used = json.loads(done.stdout)["files"][0]["window"]
    assert done.returncode == 0
    if "/" in window:
        assert [used["center"], used["width"]] == [float(part) for part in window.split("/")]


def test_window_of_the_header_by_its_name(home):
    import pydicom

    scan = pydicom.dcmread(home / "scans" / "CT_small.dcm")
    scan.WindowCenter, scan.WindowWidth, scan.WindowCenterWidthExplanation = [40, 500], [400, 2000], ["WINDOW1", "WINDOW2"]
    scan.save_as(home / "two.dcm")
    done = typed("convert", "two.dcm", "out", "--window", "name:WINDOW2", "--json", cwd=home)
    assert json.loads(done.stdout)["files"][0]["window"]["center"] == 500, done.stdout + done.stderr


def test_help_has_an_example_the_exit_codes_and_the_windows():
    for command in [None, *(one.callback.__name__ for one in app.registered_commands)]:
        done = typed(*([command] if command else []), "--help", cwd=Path.cwd())
        assert done.returncode == 0 and max(map(len, done.stdout.splitlines())) <= 80
        if command:
            assert f"Example: medkit {command}" in done.stdout
            assert re.search(r"^ Exit codes: 0 all well.* 2 .*130 stopped *$", done.stdout, re.MULTILINE), done.stdout
    told = re.sub(r"[\s│]+", " ", typed("convert", "--help", cwd=Path.cwd()).stdout)
    assert ", ".join(PRESETS) in told and "centre/width such as 40/400" in told and "name:NAME" in told


def test_deid_says_loudly_that_it_made_a_key_and_only_then(home):
    done = typed("deid", "scans", "shared", "--key", "home.key", cwd=home)
    assert done.returncode == 0 and "made a new key: home.key. Keep it" in done.stderr
    assert "new key" not in typed("deid", "scans", "shared", "--key", "home.key", cwd=home).stderr
    assert typed("deid", "scans", "shared2", "--key", "new.key", "--json", cwd=home).stdout.startswith("{")


@pytest.mark.parametrize("words, part", [
    (("none", "out", "--key", "k"), "[not_found]"), (("scans", "out", "--key", "no/k"), "There is no folder `no` for the key"),
    (("empty", "out", "--key", "k"), "[empty]"), (("scans", "out", "--key", "out/k"), "outside"), (("scans", "out", "--key", ""), "path"),
])
def test_deid_makes_no_key_for_nothing(home, words, part):
    (home / "empty").mkdir()
    done = typed("deid", *words, cwd=home)
    assert done.returncode == 2 and part in done.stderr and "Traceback" not in done.stderr
    assert not (home / "k").exists() and not (home / "out").exists()


def test_key_is_made_once_and_named_where_it_is_missing(home):
    missing = typed("convert", "scans", "out", "--key", "my.key", cwd=home)
    assert missing.returncode == 2 and "medkit key my.key" in missing.stderr and "read_key" not in missing.stderr
    made = typed("key", "my.key", cwd=home)
    assert made.returncode == 0 and "made a new key: my.key" in made.stderr
    first = (home / "my.key").read_text()
    assert len(first.strip()) == 64
    if os.name == "posix":
        assert (home / "my.key").stat().st_mode & 0o777 == 0o600
    again = typed("key", "my.key", cwd=home)
    assert again.returncode == 2 and "[already_exists]" in again.stderr and (home / "my.key").read_text() == first
    assert typed("convert", "scans", "out", "--key", "my.key", cwd=home).returncode == 0


def test_hints_are_those_of_a_terminal(home):
    (home / "short.key").write_text("abc")
    (home / "short.key").chmod(0o600)
    done = typed("convert", "scans", "out", "--key", "short.key", cwd=home)
    assert "medkit key FILE" in done.stderr and "read_key" not in done.stderr
    typed("convert", "scans", "out", cwd=home)
    (home / "other").mkdir()
    (home / "other" / "a.dcm").write_bytes(bytes_of("693_J2KI.dcm"))
    other = typed("convert", "other", "out", cwd=home)
    assert other.returncode == 2 and "[already_exists]" in other.stderr and "--no-resume" in other.stderr


def test_verify_in_words(home):
    typed("convert", "scans", "out", cwd=home)
    assert typed("verify", "out", cwd=home).stdout == "2 of 2 files as written, 4 rows\n"
    next((home / "out").glob("*.png")).write_bytes(b"changed")
    (home / "out" / "mine.txt").write_text("who put this here?")
    done = typed("verify", "out", cwd=home, columns=120)
    assert done.returncode == 1 and done.stdout.startswith("1 of 2 files as written, 4 rows\n")
    assert "run the same command again" in done.stdout and "take it out" in done.stdout and "unexplained: mine.txt" in done.stdout
    (home / "out" / "mine.txt").unlink()
    typed("convert", "scans", "out", cwd=home)
    assert typed("verify", "out", cwd=home).returncode == 0


def test_headers_write_csv_only_and_count_in_words(home):
    refused = typed("headers", "scans", "table.json", cwd=home)
    assert "[bad_option]" in refused.stderr and ".csv" in refused.stderr and not (home / "table.json").exists()
    assert typed("headers", "scans/CT_small.dcm", "table.csv", cwd=home).stdout == "1 row: table.csv\n"
    told = re.sub(r"\s+", " ", typed("headers", "--help", cwd=home).stdout)
    assert "column `id` numbers the files" in told and "--private the column `file` names them" in told
    assert (home / "table.csv").read_text("utf-8-sig").startswith('"id","reason",')
    typed("headers", "scans", "named.csv", "--private", cwd=home)
    assert (home / "named.csv").read_text("utf-8-sig").startswith('"file","reason",')


def test_audit_shows_the_gravest_first_and_three_of_each(home):
    folder = home / "shared"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:016x}{'0' * 60}{number:016x}.dcm").write_bytes(bytes_of("CT_small.dcm"))
    (folder / "zz sources.private.jsonl").write_text("{}")
    (folder / "home.txt").write_text(KEY)
    done = typed("audit", "shared", cwd=home)
    lines = done.stdout.splitlines()
    assert done.returncode == 1 and max(map(len, lines[:-1])) <= 80
    kinds = re.findall(r"^│ (\w+) +│", done.stdout, re.MULTILINE)
    assert kinds[0] == "must_not_share" and {"identifier", "date", "uid"} <= set(kinds)
    at = lines.index("must_not_share")
    assert "home.txt" in lines[at + 1] and "zz sources.private.jsonl" in lines[at + 2]
    at = next(number for number, line in enumerate(lines) if line.startswith("identifier, 3 of"))
    assert re.match(r"  0{12}…0+\.dcm  PatientName: CompressedSamples", lines[at + 1]), lines[at + 1]
    assert any(line.startswith("42 files looked at:") and "in 42 files and folders" in line for line in lines), done.stdout
    assert len(json.loads(typed("audit", "shared", "--json", cwd=home).stdout)) > 200


def test_audit_of_nothing_bad_says_how_many_it_saw(home):
    (home / "clean").mkdir()
    (home / "clean" / "table.csv").write_text("volume_ml\n81\n")
    done = typed("audit", "clean", cwd=home)
    assert done.returncode == 0 and "1 file looked at: nothing was found." in done.stdout


def test_audit_sends_a_person_to_every_free_text_and_refuses_nothing_at_all(home):
    (home / "texts").mkdir()
    (home / "texts" / "note.txt").write_text("Patient John Doe born 1960-01-01, tel 0171 2345678")
    done = typed("audit", "texts", cwd=home)
    assert done.returncode == 1 and set(re.findall(r"^│ (\w+) +│", done.stdout, re.MULTILINE)) == {"person_name", "phone", "date", "unchecked"}
    (home / "hollow").mkdir()
    done = typed("audit", "hollow", cwd=home)
    assert done.returncode == 2 and "[empty]" in done.stderr and "0/0" not in done.stderr and done.stdout == ""


@pytest.mark.parametrize("words", [("audit", "scans"), ("headers", "scans", "table.csv")])
def test_the_bar_counts_files(home, words):
    assert "4/4 files" in typed(*words, cwd=home).stderr


def test_a_cd_with_its_index_is_no_failure(home):
    (home / "scans" / "DICOMDIR").write_bytes(bytes_of("DICOMDIR"))
    done = typed("deid", "scans", "out", "--key", "home.key", cwd=home, columns=160)
    assert done.returncode == 0 and "an index of other files" in done.stdout


def heed_interrupts():
    "A test run that a script starts in the background hands on an ignored Ctrl-C; a terminal does not."
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent to a group of processes as a POSIX terminal does")
@pytest.mark.parametrize("words", [("convert", "many", "out"), ("deid", "many", "out", "--key", "home.key")])
def test_ctrl_c_says_where_it_stopped_and_the_same_command_goes_on(home, words):
    (home / "many").mkdir()
    for number in range(900):  # some seconds of work, so that the interrupt comes in time
        (home / "many" / f"{number:03}.dcm").write_bytes(bytes_of("693_J2KI.dcm"))
    job = subprocess.Popen([*COMMAND, *words, "--workers", "1"], cwd=home, text=True, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, start_new_session=True, preexec_fn=heed_interrupts)
    manifest, until = home / "out" / "manifest.jsonl", time.monotonic() + 60
    while time.monotonic() < until and not (manifest.exists() and manifest.read_bytes().count(b"\n") > 2):
        time.sleep(0.01)
    os.killpg(job.pid, signal.SIGINT)
    out, errors = job.communicate(timeout=60)
    assert job.returncode == 130 and out == "" and "Traceback" not in errors, errors
    stopped = re.search(r"^stopped: (\d+) of 900 inputs are done; the same command goes on from there$", errors, re.MULTILINE)
    assert stopped, errors
    before = int(stopped[1])
    rows = manifest.read_text().splitlines()
    assert 0 < before <= len(rows) < 900
    assert not [row for row in rows if json.loads(row)["status"] == "failed"]
    again = typed(*words, cwd=home)
    assert again.returncode == 0 and f"{len(rows)} inputs done before" in again.stdout, again.stdout


def test_audit_of_a_path_that_no_disk_holds_is_refused_in_words(home):
    done = typed("audit", "x" * 5_000, cwd=home)
    assert done.returncode == 2 and "[not_found]" in done.stderr and "Traceback" not in done.stderr
