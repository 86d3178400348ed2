"Batches: rows equal inputs whatever files do, whenever the job is stopped, whoever dies; on this machine and on Ray."

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs import Stop, stop_at

from medkit.batch import _alone, _settle, run_batch
from medkit.desk import MANIFEST, PRIVATE, SEAL, SUPERSEDED, WORK, Desk, Job
from medkit.errors import DataError
from medkit.files import Manifest, sha256
from medkit.isolate import Limits
from medkit.verify import FAULTS, verify

JOB = Job("jobs:act")
QUICK = Limits(seconds=1.5, memory_mb=1024)


def fill(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def books(target: Path) -> list[dict]:
    "The rows, after checking that they, the private list and the files on disk agree."
    rows, private = Manifest(target / "manifest.jsonl").rows(), Manifest(target / "sources.private.jsonl").rows()
    assert [row["id"] for row in rows] == [row["id"] for row in private] and len({row["id"] for row in rows}) == len(rows)
    kept = [name for row in rows if row["status"] in ("ok", "ok_warn") for name in row["outputs"]]
    assert sorted(kept) == sorted(path.relative_to(target).as_posix() for path in target.rglob("*.txt"))
    assert len(kept) == len(set(kept))
    for row in rows:
        assert all(sha256(target / name) == digest for name, digest in zip(row["outputs"], row["output_sha256"], strict=True))
        assert (row["reason"] is None) == (row["status"] == "ok" or bool(row.get("notes")))
    assert not (target / WORK).exists() and not list(target.rglob("*.part"))
    return rows


def result(target: Path) -> tuple:
    "What a job leaves, without times: for comparing two runs."
    lines = [{name: value for name, value in row.items() if name not in ("seconds", "peak_mb")} for row in books(target)]
    return lines, {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*.txt")}


HOSTILE = {"a": "fine", "b": "refuse", "c": "odd", "d": "hang", "e": "segfault", "f": "exit", "g": "eat", "h": "noise", "i/j": "fine", "k": "frames 7"}
REASONS = {"b": "truncated", "c": "undecodable", "d": "timed_out", "e": "crashed", "f": "crashed", "g": "out_of_memory"}


@pytest.mark.parametrize("workers", [1, 2])
def test_whatever_files_do_the_rest_is_done(tmp_path, workers):
    report = run_batch(JOB, fill(tmp_path / "in", HOSTILE), tmp_path / "out", workers=workers, limits=QUICK)
    assert {row["source"]: row["reason"] for row in report.files if row["reason"]} == REASONS
    assert report.counts == {"ok": 4, "ok_warn": 0, "skipped": 0, "failed": 6}
    assert len(books(tmp_path / "out")) == len(HOSTILE)
    assert "secret" not in (tmp_path / "out" / "manifest.jsonl").read_text()


def test_the_time_limit_counts_from_one_sign_of_life_to_the_next(tmp_path):
    report = run_batch(JOB, fill(tmp_path / "in", {"long": "frames 7"}), tmp_path / "out", limits=Limits(seconds=1.0))
    assert report.counts["ok"] == 1 and len(report.files[0]["outputs"]) == 7  # 2.1 s in all


def test_shared_identities_are_settled_in_input_order(tmp_path):
    texts = {"a": "same 7", "b": "same 7", "c": "same  7", "d": "same 8", "e": "fine"}
    source = fill(tmp_path / "in", texts)
    runs = [run_batch(JOB, source, tmp_path / f"out{workers}", workers=workers) for workers in (1, 2)]
    for report in runs:
        rows = {row["source"]: row for row in report.files}
        assert {name: (row["status"], row["reason"]) for name, row in rows.items()} == {
            "a": ("ok_warn", "uid_conflict"), "b": ("skipped", "duplicate"), "c": ("ok_warn", "uid_conflict"), "d": ("ok", None), "e": ("ok", None)}
        assert rows["b"]["outputs"] == rows["a"]["outputs"] and rows["b"]["duplicate_of"] == rows["a"]["id"]
        assert report.counts == {"ok": 2, "ok_warn": 2, "skipped": 1, "failed": 0}
        assert report.reasons == {"uid_conflict": 2, "duplicate": 1}
    again = run_batch(JOB, tmp_path / "in", tmp_path / "out1")
    assert again.resumed == 5 and again.counts == runs[0].counts and again.reasons == runs[0].reasons
    assert result(tmp_path / "out1") == result(tmp_path / "out2")
    (tmp_path / "in" / "a").write_text("same   7")  # the first is another picture now: `b` needs one of its own
    assert run_batch(JOB, tmp_path / "in", tmp_path / "out1").counts == {"ok": 2, "ok_warn": 3, "skipped": 0, "failed": 0}
    books(tmp_path / "out1")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=7))
def test_settling_twice_changes_nothing_and_keeps_one_of_each(pictures):
    rows = _settle([{"id": str(at), "outputs": [str(at)], "output_sha256": [one], "status": "ok", "reason": None} for at, one in enumerate(pictures)])
    kept = [row for row in rows if row["status"] != "skipped"]
    assert [row["output_sha256"][0] for row in kept] == list(dict.fromkeys(pictures))
    before = [dict(row) for row in rows]
    assert _settle(rows) == before


RUN = """
import sys
sys.path.insert(0, {tests!r})
from medkit.batch import run_batch
from medkit.desk import Job
from medkit.isolate import Limits
run_batch(Job("jobs:act"), sys.argv[1], sys.argv[2], workers=2, limits=Limits(seconds=5))
"""


def start(source: Path, target: Path) -> subprocess.Popen:
    code = RUN.format(tests=str(Path(__file__).parent))
    return subprocess.Popen([sys.executable, "-c", code, str(source), str(target)], start_new_session=True, stderr=subprocess.PIPE)


@pytest.mark.parametrize("group", [True, False], ids=["everything", "parent only"])
def test_killed_at_random_and_resumed_equals_uninterrupted(tmp_path, group):
    texts = {f"{number % 7}/{number:03d}": "slow 0.01" for number in range(240)}
    texts |= {f"same{number}": f"same {number // 2 + 1}" for number in range(20)} | {f"bad{number}": "refuse" for number in range(9)}
    source = fill(tmp_path / "in", texts)
    assert start(source, tmp_path / "whole").wait(60) == 0
    dice = random.Random(5 + group)
    killed, manifest = 0, tmp_path / "out" / "manifest.jsonl"
    for attempt in range(12):
        goal = dice.randrange(1, 80) + (manifest.read_bytes().count(b"\n") if manifest.exists() else 0)
        with start(source, tmp_path / "out") as process:
            while process.poll() is None and not (manifest.exists() and manifest.read_bytes().count(b"\n") >= goal):
                time.sleep(0.003)
            if process.poll() is None:
                (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
                killed += 1
        assert all(sha256(path) for path in (tmp_path / "out").rglob("*.txt"))
        if process.returncode == 0:
            break
        time.sleep(0.1)
        rows = Manifest(manifest).rows()
        assert len({row["id"] for row in rows}) == len(rows)  # nothing is done twice
    assert killed >= 2
    assert start(source, tmp_path / "out").wait(60) == 0
    assert result(tmp_path / "out") == result(tmp_path / "whole")


def test_rows_of_an_interrupted_job_are_not_done_again(tmp_path):
    source = fill(tmp_path / "in", {f"{number:03d}": "slow 0.002" for number in range(200)} | {"bad": "refuse"})

    with pytest.raises(Stop):
        run_batch(JOB, source, tmp_path / "out", workers=1, on_progress=stop_at(100))
    kept = Manifest(tmp_path / "out" / "manifest.jsonl").rows()
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.txt")}
    report = run_batch(JOB, source, tmp_path / "out", workers=1)
    assert report.resumed == len(kept) >= 100 and report.counts == {"ok": 200, "ok_warn": 0, "skipped": 0, "failed": 1}
    same = [name for row in kept for name in row["outputs"]]
    assert all((tmp_path / "out" / name).stat().st_mtime_ns == times[name] for name in same)
    books(tmp_path / "out")
    assert run_batch(JOB, source, tmp_path / "out").resumed == 200  # what failed is tried again, once a job has ended


def test_a_worker_killed_in_mid_run_loses_nothing(tmp_path):
    source = fill(tmp_path / "in", {f"{number:03d}": "slow 0.01" for number in range(150)})
    shots = []

    def kill(done, total, row):
        for child in psutil.Process().children():
            if done in (40, 90) and "medkit.isolate" in " ".join(child.cmdline()):
                child.kill()
                shots.append(child.pid)

    report = run_batch(JOB, source, tmp_path / "out", workers=2, on_progress=kill)
    assert len(shots) >= 2 and report.counts["ok"] == 150
    books(tmp_path / "out")


def test_two_jobs_do_not_share_a_target(tmp_path):
    source = fill(tmp_path / "in", {f"{number:03d}": "slow 0.05" for number in range(60)})
    with start(source, tmp_path / "out") as first:
        while not (tmp_path / "out" / "manifest.jsonl").exists():
            time.sleep(0.05)
        with pytest.raises(DataError) as caught:
            run_batch(JOB, source, tmp_path / "out")
        assert caught.value.reason == "busy"
        assert first.wait(60) == 0
    assert len(books(tmp_path / "out")) == 60


def test_a_target_that_fills_up_stops_the_job_and_a_later_run_resumes(tmp_path, monkeypatch):
    source = fill(tmp_path / "in", {f"{number}": "fine" for number in range(5)})
    (tmp_path / "out" / WORK).mkdir(parents=True)
    desk = Desk({"function": "jobs:act", "digest": JOB.digest(), "target": str(tmp_path / "out"), "options": {}})
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:2]))
    with pytest.raises(DataError) as caught:
        desk({"id": "0", "path": str(source / "0"), "relative": "0"}, lambda: None)
    assert caught.value.reason == "not_writable" and "run again" in caught.value.hint
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "out")
    assert run_batch(JOB, source, tmp_path / "out").counts["ok"] == 5


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    source = fill(tmp_path / "in", {f"{number:03d}": "x" * 9000 for number in range(200)})
    (tmp_path / "disk").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path / "disk")], capture_output=True).returncode:
        pytest.skip("this machine allows no mount")
    try:
        with pytest.raises(DataError) as caught:
            run_batch(JOB, source, tmp_path / "disk" / "out")
        assert caught.value.reason == "not_writable" and None not in (caught.value.found, caught.value.expected)
        rows = Manifest(tmp_path / "disk" / "out" / "manifest.jsonl").rows()
        assert all(sha256(tmp_path / "disk" / "out" / name) == digest for row in rows for name, digest in zip(row["outputs"], row["output_sha256"]))
        assert not (tmp_path / "disk" / "out" / WORK).exists()
        assert all(path.stat().st_size == 9000 for path in (tmp_path / "disk" / "out").glob("*.txt"))
        subprocess.run(["mount", "-o", "remount,size=20m", str(tmp_path / "disk")], check=True)
        assert run_batch(JOB, source, tmp_path / "disk" / "out").counts["ok"] == 200
        books(tmp_path / "disk" / "out")
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        with pytest.raises(DataError) as caught:
            run_batch(Job("jobs:act", {"other": 1}), source, tmp_path / "disk" / "out")
        assert caught.value.reason == "not_writable"
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "disk")], check=True)


def test_a_folder_in_the_place_of_an_output_costs_one_row(tmp_path):
    source = fill(tmp_path / "in", {"a": "fine", "b": "fine"})
    (tmp_path / "out" / f"{JOB.input_id('a')}.txt" / "mine").mkdir(parents=True)
    report = run_batch(JOB, source, tmp_path / "out")
    assert report.counts == {"ok": 1, "ok_warn": 0, "skipped": 0, "failed": 1} and report.reasons == {"already_exists": 1}
    assert (tmp_path / "out" / f"{JOB.input_id('a')}.txt" / "mine").is_dir()


def test_the_private_list_is_for_its_owner_alone(tmp_path):
    run_batch(JOB, fill(tmp_path / "in", {"Doe^Jane": "fine"}), tmp_path / "out")
    private = tmp_path / "out" / "sources.private.jsonl"
    assert private.stat().st_mode & 0o77 == 0 and "Doe^Jane" in private.read_text()
    assert "Doe" not in (tmp_path / "out" / "manifest.jsonl").read_text()
    assert all("Doe" not in path.name for path in (tmp_path / "out").iterdir())


def test_progress_counts_every_input_once(tmp_path):
    source = fill(tmp_path / "in", {f"{number:03d}": "fine" for number in range(70)})
    (source / "link").symlink_to("/etc/hostname")
    seen = []
    run_batch(JOB, source, tmp_path / "out", on_progress=lambda done, total, row: seen.append((done, total, row.get("status"))))
    assert seen[0] == (1, 71, None)  # before the first result: what is done already
    assert [done for done, _, _ in seen] == list(range(1, 72)) and {total for _, total, _ in seen} == {71}
    assert Counter(status for _, _, status in seen[1:]) == {"ok": 70}
    seen.clear()
    run_batch(JOB, source, tmp_path / "out", on_progress=lambda *call: seen.append(call))
    assert seen == [(71, 71, {})]


def held(target: Path) -> dict[str, bytes]:
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}


def test_a_second_source_does_not_take_the_place_of_the_first(tmp_path):
    first, second = (fill(tmp_path / who / "loop", {"1": f"picture of {who}", "2": f"another of {who}"}) for who in ("pA", "pB"))
    os.utime(second / "1", ns=(stamp := (first / "1").stat().st_mtime_ns, stamp))  # same name, size and time: as from an archive
    os.utime(second / "2", ns=(stamp := (first / "2").stat().st_mtime_ns, stamp))
    run_batch(JOB, first, tmp_path / "out")
    before = held(tmp_path / "out")
    for source in (second, second / "1"):
        with pytest.raises(DataError) as caught:
            run_batch(JOB, source, tmp_path / "out")
        assert caught.value.reason == "already_exists" and "pA" in caught.value.found and "resume=False" in caught.value.hint
    assert held(tmp_path / "out") == before
    report = run_batch(JOB, second, tmp_path / "out", resume=False)
    assert report.resumed == 0 and report.counts["ok"] == 2
    assert b"PICTURE OF PB" in held(tmp_path / "out").values() and verify(tmp_path / "out").findings == ()
    with pytest.raises(DataError, match="already_exists"):
        run_batch(JOB, first, tmp_path / "out")


def test_another_disc_under_the_same_path_is_another_source(tmp_path):
    source = fill(tmp_path / "cdrom", {"IM0": "picture of one", "IM1": "another", "VIEWER": "refuse"})
    run_batch(JOB, source, tmp_path / "out")
    fill(source, {"IM0": "picture of somebody else", "IM1": "a fourth one"})
    with pytest.raises(DataError, match="already_exists"):
        run_batch(JOB, source, tmp_path / "out")


def test_a_source_that_was_moved_is_known_by_its_content(tmp_path):
    source = fill(tmp_path / "in", {"1": "one", "2": "two", "3": "refuse"})
    run_batch(JOB, source, tmp_path / "out")
    moved = source.rename(tmp_path / "moved")
    assert run_batch(JOB, moved, tmp_path / "out").resumed == 2  # what failed is tried again
    shutil.copytree(moved, tmp_path / "copied", copy_function=shutil.copyfile)  # other times
    fill(tmp_path / "copied", {"4": "four"})
    assert run_batch(JOB, tmp_path / "copied", tmp_path / "out").counts["ok"] == 3
    assert verify(tmp_path / "out").findings == ()
    with pytest.raises(DataError, match="already_exists"):  # it lacks one input that has a result
        run_batch(JOB, moved, tmp_path / "out")


def test_a_target_whose_source_is_not_recorded_is_left_alone(tmp_path):
    source = fill(tmp_path / "in", {"1": "one"})
    run_batch(JOB, source, tmp_path / "out")
    (tmp_path / "out" / "sources.private.jsonl").unlink()
    with pytest.raises(DataError, match="not recorded"):
        run_batch(JOB, source, tmp_path / "out")
    assert run_batch(JOB, source, tmp_path / "out", resume=False).counts["ok"] == 1


@pytest.mark.parametrize("other", [Job("jobs:act", {"named": "x"}), Job("jobs:act", secret=b"other")], ids=["options", "key"])
def test_other_options_leave_no_file_of_the_old_ones(tmp_path, other):
    source = fill(tmp_path / "in", {"a": "frames 3", "b": "fine", "gone": "fine", "c": "same 1", "d": "same 1"})
    run_batch(JOB, source, tmp_path / "out")
    orphan = f"{JOB.input_id('gone')}.txt"
    (source / "gone").unlink()
    (source / "a").write_text("frames 2")
    (tmp_path / "out" / "mine.txt").write_text("not ours")
    report = run_batch(other, source, tmp_path / "out")
    assert report.resumed == 0 and report.counts == {"ok": 3, "ok_warn": 0, "skipped": 1, "failed": 0}
    named = {name for row in report.files for name in row["outputs"]}
    assert {name for name in held(tmp_path / "out") if name.endswith(".txt")} == named | {orphan, "mine.txt"}
    assert {(one.kind, one.name) for one in verify(tmp_path / "out").findings} == {("unexplained", orphan), ("unexplained", "mine.txt")}
    run_batch(other, source, tmp_path / "out", resume=False)  # what no row names is nobody's to remove
    assert orphan in held(tmp_path / "out")


def test_a_stopped_replacement_is_brought_to_its_end_by_the_next_run(tmp_path):
    source = fill(tmp_path / "in", {f"{number}": "frames 1" for number in range(8)})
    run_batch(JOB, source, tmp_path / "out")
    old = [name for name in held(tmp_path / "out") if name.endswith(".txt")]
    other = Job("jobs:act", secret=b"other")

    with pytest.raises(Stop):
        run_batch(other, source, tmp_path / "out", on_progress=stop_at(3))
    assert set(old) <= held(tmp_path / "out").keys()  # until the new ones are complete
    assert verify(tmp_path / "out").counts["unfinished"] == 1
    report = run_batch(other, source, tmp_path / "out")
    assert report.resumed >= 3 and report.counts["ok"] == 8 and verify(tmp_path / "out").findings == ()
    assert not any((tmp_path / "out" / name).parent.exists() for name in old)  # nor their folders


def test_nothing_outside_is_removed_whatever_an_old_manifest_names(tmp_path):
    source = fill(tmp_path / "in", {"1": "one"})
    fill(tmp_path, {"out/keep/mine.txt": "mine", "precious": "mine too"})
    (tmp_path / "out" / "link").symlink_to(tmp_path / "precious")
    (tmp_path / "out" / "elsewhere").symlink_to(tmp_path)
    names = ["../precious", str(tmp_path / "precious"), "link", "elsewhere/precious", "keep", "sources.private.jsonl", ".", ""]
    row = {"id": "x", "status": "ok", "outputs": names, "output_sha256": ["0"] * len(names)}
    Manifest(tmp_path / "out" / "manifest.jsonl").append(row)
    run_batch(JOB, source, tmp_path / "out", resume=False)
    assert (tmp_path / "precious").read_text() == "mine too" and (tmp_path / "out" / "keep" / "mine.txt").exists()
    assert (tmp_path / "out" / "link").is_symlink() and (tmp_path / "out" / "sources.private.jsonl").exists()


def test_a_damaged_output_is_made_anew(tmp_path):
    source = fill(tmp_path / "in", {"1": "one", "2": "two", "3": "three"})
    first = run_batch(JOB, source, tmp_path / "out")
    whole = held(tmp_path / "out")
    for row in first.files[:2]:
        (tmp_path / "out" / row["outputs"][0]).write_text("eno"[: 3 * (row["source"] == "1")])
    assert verify(tmp_path / "out").counts == {"changed": 2}
    assert run_batch(JOB, source, tmp_path / "out").resumed == 1
    assert verify(tmp_path / "out").findings == ()
    assert {name: data for name, data in held(tmp_path / "out").items() if name.endswith("txt")} == {
        name: data for name, data in whole.items() if name.endswith("txt")}


def test_the_full_cause_is_kept_in_the_private_list_alone(tmp_path):
    source = fill(tmp_path / "in", HOSTILE | {"m": "same 7", "n": "same 7"})
    (source / "link").symlink_to("/etc/hostname")
    (source / "Doe").symlink_to("nowhere")
    report = run_batch(JOB, source, tmp_path / "out", limits=QUICK)
    details = {row["source"]: row["detail"] for row in report.files if row["detail"]}
    assert details.keys() == REASONS.keys() | {"link", "Doe", "n"}
    assert details["b"] == "b is cut" and details["c"] == "ValueError: a secret name" and "took too long" in details["d"]
    assert details["link"] == "a link to /etc/hostname" and details["n"] == "the same as m"
    assert all(len(text) <= 300 and "\n" not in text for text in details.values())
    private = Manifest(tmp_path / "out" / "sources.private.jsonl").rows()
    assert all("detail" in row for row in private) and "folder" in private[0] and len(private) == len(report.files)
    manifest = (tmp_path / "out" / "manifest.jsonl").read_text()
    assert not any(word in manifest for word in ('"detail"', "secret", "hostname", "nowhere", "is cut"))
    assert all(row["hint"] for row in report.files if row["reason"])
    again = run_batch(JOB, source, tmp_path / "out", limits=QUICK)
    assert {row["source"]: row["detail"] for row in again.files if row["detail"]} == details


def test_details_of_a_stopped_job_are_carried_over(tmp_path):
    source = fill(tmp_path / "in", {"0": "refuse", "1": "odd"} | {f"a{number}": "fine" for number in range(30)})

    with pytest.raises(Stop):
        run_batch(JOB, source, tmp_path / "out", workers=1, on_progress=stop_at(20))
    report = run_batch(JOB, source, tmp_path / "out", workers=1)
    assert report.resumed >= 20
    assert [row["detail"] for row in report.files] == ["0 is cut", "ValueError: a secret name"] + [None] * 30
    books(tmp_path / "out")


def test_verification_counts_outputs_apart_from_rows(tmp_path):
    source = fill(tmp_path / "in", {"a": "frames 3", "b": "same 1", "c": "same 1", "d": "refuse"})
    run_batch(JOB, source, tmp_path / "out")
    calls = []
    found = verify(tmp_path / "out", on_progress=lambda *call: calls.append(call))
    assert (found.rows, found.named, found.files) == (4, 4, 4) and calls == [(done, 4) for done in range(5)]
    next((tmp_path / "out").rglob("0.txt")).unlink()
    found = verify(tmp_path / "out")
    assert (found.named, found.files, found.as_dict()["named"]) == (4, 3, 4)
    assert repr(found) == "Verification(3 of 4 files as written, 4 rows: 1 missing)" and "again" in FAULTS["missing"]


def test_a_worker_with_the_least_memory_does_its_work(tmp_path):
    assert run_batch(JOB, fill(tmp_path / "in", {"1": "one"}), tmp_path / "out", limits=Limits(memory_mb=64)).counts["ok"] == 1


# --- what is in a target may have been put there by somebody else

def refused(reason: str, *args, **options) -> None:
    with pytest.raises(DataError) as caught:
        run_batch(JOB, *args, **options)
    assert caught.value.reason == reason


def test_a_work_folder_that_is_a_link_or_holds_other_files_costs_nothing(tmp_path):
    source, theirs = fill(tmp_path / "in", {"a": "fine"}), fill(tmp_path / "theirs", {"thesis.docx": "x", "0123456789abcdef.0": "x"})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / WORK).symlink_to(theirs)
    refused("not_writable", source, tmp_path / "out")
    assert sorted(path.name for path in theirs.iterdir()) == ["0123456789abcdef.0", "thesis.docx"]
    (tmp_path / "out" / WORK).unlink()
    fill(tmp_path / "out" / WORK, {"foo.d/x": "x", "thesis.docx": "x"})
    (tmp_path / "out" / WORK / f"{JOB.input_id('a')}.0").symlink_to(theirs / "thesis.docx")
    (tmp_path / "out" / ".manifest.jsonl.x.part").mkdir()
    assert run_batch(JOB, source, tmp_path / "out").counts["ok"] == 1
    assert {path.name for path in (tmp_path / "out" / WORK).iterdir()} == {"foo.d", "thesis.docx"}
    assert (theirs / "thesis.docx").read_text() == "x"
    for odd in (lambda path: path.symlink_to(theirs / "new"), os.mkfifo, Path.mkdir):
        odd(lock := tmp_path / "out" / WORK / "lock")
        refused("not_writable", source, tmp_path / "out")
        lock.rmdir() if lock.is_dir() else lock.unlink()
    assert not (theirs / "new").exists()


def test_lists_that_name_files_of_others_remove_none(tmp_path):
    source = fill(tmp_path / "in", {"a": "fine"})
    run_batch(JOB, source, tmp_path / "out")
    fill(tmp_path / "out", {"mine.txt": "mine", "also.txt": "mine"})
    Manifest(tmp_path / "out" / SUPERSEDED).append({"outputs": ["mine.txt"], "output_sha256": ["0" * 64]})
    rows = Manifest(tmp_path / "out" / MANIFEST).rows()
    rows[0]["outputs"].append("also.txt"), rows[0]["output_sha256"].append("0" * 64)
    edit(tmp_path / "out" / MANIFEST, rows)
    run_batch(JOB, source, tmp_path / "out")
    assert {"mine.txt", "also.txt"} < held(tmp_path / "out").keys()


def edit(path: Path, rows: list[dict]) -> None:
    path.unlink(missing_ok=True)
    for row in rows:
        Manifest(path).append(row)


def test_a_file_that_no_job_made_is_not_overwritten(tmp_path):
    source = fill(tmp_path / "in", {"a": "fine", "b": "fine"})
    mine = fill(tmp_path / "out", {f"{JOB.input_id('a')}.txt": "mine"}) / f"{JOB.input_id('a')}.txt"
    for _ in range(2):
        report = run_batch(JOB, source, tmp_path / "out")
        assert report.counts["ok"] == 1 and report.reasons == {"already_exists": 1} and mine.read_text() == "mine"
        assert "did not make it" in report.files[0]["detail"]
    mine.unlink()
    assert run_batch(JOB, source, tmp_path / "out").counts["ok"] == 2
    assert run_batch(Job("jobs:act", {"other": 1}), source, tmp_path / "out").counts["ok"] == 2  # ours, so it is replaced
    assert not verify(tmp_path / "out").findings


def test_what_a_stopped_job_placed_without_rows_is_still_ours(tmp_path):
    source = fill(tmp_path / "in", {f"{number}": "fine" for number in range(6)})
    run_batch(JOB, source, tmp_path / "out")
    rows = Manifest(tmp_path / "out" / MANIFEST).rows()
    (tmp_path / "out" / MANIFEST).unlink(), (tmp_path / "out" / PRIVATE).unlink()
    edit(tmp_path / "out" / SUPERSEDED, [{name: row[name] for name in ("outputs", "output_sha256")} for row in rows])  # as `_announce` does
    fill(source, {f"{number}": "otherwise" for number in range(5)})
    (source / "5").unlink()
    assert run_batch(JOB, source, tmp_path / "out").counts["ok"] == 5
    assert not verify(tmp_path / "out").findings  # what was placed for the sixth is gone


def test_a_source_in_the_target_is_refused(tmp_path):
    source = fill(tmp_path / "out" / "in", {"a": "fine"})
    for place in (source, source / "a", tmp_path / "out"):
        refused("bad_option", place, tmp_path / "out")
    assert run_batch(JOB, source, source / "pictures").counts["ok"] == 1


def test_outputs_that_share_an_identity_need_a_file_to_be_ok(tmp_path):
    source = fill(tmp_path / "in", {"a": "same 7", "b": "same  7"})
    (tmp_path / "out" / f"{JOB.input_id('a')}.txt").mkdir(parents=True)
    rows = run_batch(JOB, source, tmp_path / "out").files
    assert [(row["status"], row["reason"]) for row in rows] == [("failed", "already_exists"), ("ok", None)]
    assert "identity" not in rows[0]


def test_a_lock_that_was_taken_away_is_not_held(tmp_path, monkeypatch):
    import medkit.batch as batch

    real, first = batch._lock, []

    def late(descriptor):  # between opening and locking, the last holder ends and a third job begins
        if not first:
            first.append(descriptor)
            (tmp_path / WORK / "lock").unlink()
            third.append(os.open(tmp_path / WORK / "lock", os.O_RDWR | os.O_CREAT))
            real(third[0])
        return real(descriptor)

    third: list[int] = []
    monkeypatch.setattr(batch, "_lock", late)
    with pytest.raises(DataError, match="busy"), _alone(tmp_path):
        raise AssertionError("two jobs hold the lock")
    os.close(third[0])
    with _alone(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [MANIFEST, PRIVATE, SUPERSEDED])
@pytest.mark.parametrize("odd", ["pipe", "endless"])
def test_lists_that_never_end_are_not_read(tmp_path, name, odd):
    run_batch(JOB, source := fill(tmp_path / "in", {"a": "fine"}), tmp_path / "out")
    (tmp_path / "out" / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "out" / name) if odd == "pipe" else (tmp_path / "out" / name).symlink_to("/dev/zero")
    refused("not_readable", source, tmp_path / "out")
    with pytest.raises(DataError, match="not_readable"):
        verify(tmp_path / "out")


ODD_ROWS = [{"outputs": None}, {"outputs": 5}, {"outputs": ["a\0b", 7]}, {"output_sha256": None}, {"status": None}, {"status": ["ok"]}, {"identity": "zz"},
            {"identity": "f" * 40}, {"identity": 5}, {"id": [1]}, {"reason": [1]}, {"reason": "bored"}, {"duplicate_of": [1]}, {"dropped": 5}]


def test_odd_rows_are_one_error(tmp_path):
    run_batch(JOB, source := fill(tmp_path / "in", {"a": "fine"}), tmp_path / "out")
    good = Manifest(tmp_path / "out" / MANIFEST).rows()[0]
    hostile = [(MANIFEST, [good | odd]) for odd in ODD_ROWS] + [(SUPERSEDED, [{"x": 1}]), (PRIVATE, [{"id": [1], "source": 5}])]
    for name, rows in hostile:
        whole = held(tmp_path / "out")
        edit(tmp_path / "out" / name, rows)
        refused("bad_manifest", source, tmp_path / "out")
        with pytest.raises(DataError, match="bad_manifest"):
            verify(tmp_path / "out")
        (tmp_path / "out" / name).write_bytes(whole[name]) if name in whole else (tmp_path / "out" / name).unlink()
    for names in (["a/" * 3000 + "b"], ["a" * 300], ["a\0b"], ["\ud800"], ["a/" * 1900 + "b"]):
        edit(tmp_path / "out" / MANIFEST, [good | {"outputs": names}])
        assert verify(tmp_path / "out").counts.keys() >= {"edited"}
        assert run_batch(JOB, source, tmp_path / "out").counts["ok"] == 1


def test_the_seal_tells_of_every_change_of_the_manifest(tmp_path):
    source = fill(tmp_path / "in", {"a": "one", "b": "two", "c": "three"})
    run_batch(JOB, source, tmp_path / "out")
    manifest = tmp_path / "out" / MANIFEST
    whole, rows = manifest.read_bytes(), Manifest(manifest).rows()
    swapped = [rows[0] | {name: rows[1][name] for name in ("outputs", "output_sha256")}, rows[1] | {name: rows[0][name] for name in ("outputs", "output_sha256")}, rows[2]]
    for changed in ([rows[0] | {"input_sha256": "0"}, *rows[1:]], rows[::-1], swapped):
        edit(manifest, changed)
        assert verify(tmp_path / "out").counts == {"edited": 1}
    edit(manifest, [rows[0] | {"outputs": [], "output_sha256": []}, *rows[1:]])
    assert verify(tmp_path / "out").counts == {"missing": 1, "unexplained": 1, "edited": 1}
    manifest.write_bytes(whole)
    assert not verify(tmp_path / "out").findings
    fill(tmp_path / "out", {f"sub/{WORK}/evil": "x", f"{WORK}/evil": "x"})
    (tmp_path / "out" / "link").symlink_to("/etc")
    (tmp_path / "out" / "empty").mkdir()
    (tmp_path / "out" / PRIVATE).chmod(0o644)
    assert verify(tmp_path / "out").counts == {"unexplained": 4, "exposed": 1}
    (tmp_path / "out" / SEAL).unlink()
    assert verify(tmp_path / "out").counts["unfinished"] == 1


@pytest.mark.parametrize("odd", [None, 5, b"x", [], "x" * 5000], ids=lambda odd: repr(odd)[:9])
def test_what_is_no_path_is_one_error(tmp_path, odd):
    source = fill(tmp_path / "in", {"a": "fine"})
    for act in (lambda: run_batch(JOB, odd, tmp_path / "out"), lambda: run_batch(JOB, source, odd), lambda: verify(odd)):
        with pytest.raises(DataError):
            act()
    refused("bad_option", source, tmp_path / "out", limits=None)


def test_a_thousand_nested_folders_are_no_obstacle(tmp_path):
    (tmp_path / "in").mkdir()
    subprocess.run(["bash", "-c", 'for n in {1..1200}; do mkdir d && cd d; done; echo fine > x'], cwd=tmp_path / "in", check=True)
    try:
        assert run_batch(JOB, tmp_path / "in", tmp_path / "out").counts["ok"] == 1
    finally:
        subprocess.run(["find", tmp_path / "in", "-delete"], check=True)


@pytest.fixture
def cluster():
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}})
    yield
    ray.shutdown()


def test_ray_gives_the_same_as_this_machine_also_when_an_actor_is_killed(tmp_path, cluster):
    texts = {f"{number:03d}": "slow 0.01" for number in range(150)} | {name: text for name, text in HOSTILE.items() if name not in "dg"}
    source = fill(tmp_path / "in", texts)
    run_batch(JOB, source, tmp_path / "here", workers=2, limits=QUICK)
    shots = []

    def kill(done, total, row):
        if done >= 40 and not shots:
            actors = [one for one in psutil.process_iter(["cmdline"]) if (one.info["cmdline"] or [""])[0].startswith("ray::Worker")]
            actors[0].kill()
            shots.append(actors[0].pid)

    report = run_batch(JOB, source, tmp_path / "there", engine="ray", workers=2, limits=QUICK, on_progress=kill)
    assert shots and report.counts["ok"] == 154
    assert result(tmp_path / "there") == result(tmp_path / "here")
