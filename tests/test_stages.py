"""Stages: a store that only grows, honest assays, grids that resume, gates that fail when nothing was measured."""

import math
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkit import stages
from medkit.errors import MedkitError, StageError
from medkit.learning.report import Metric, Scores

HOSTILE = "<script>alert('x')</script>"


def scored(value, name="dice", naive=0.3, better=True):
    return Metric(name, value, value - 0.05, value + 0.05, naive, "threshold", 30, better)


@pytest.fixture
def store(tmp_path):
    return stages.Store(tmp_path / "project.sqlite")


@pytest.fixture
def idea():
    return stages.Idea(
        name="flag", question="tumour?", users="radiologist", output="flag", metric="sensitivity", needed=0.85, naive=0.5,
        latency_s=60, macs_per_item=1e9, memory_mb=100, patients=200, labels="histology",
        input=stages.study_input("CT", voxels=(100, 512, 512), bits=16, studies_per_day=50),
    )


@pytest.fixture
def place():
    return stages.Deployment(
        name="workstation", computes_at="device", sources=1, macs_per_s=1e10, memory_mb=1000, network_mbit_per_s=100,
        round_trip_s=0.01, storage_mb_per_day=1e5,
    )


def test_import_loads_no_torch_and_no_fastai():
    names = "Store Idea Deployment assay decide Grid Run leaderboard Gate check_gates Variant"
    code = (f"import sys; from medkit import stages; [getattr(stages, n) for n in '{names}'.split()]; "
            "print([m for m in ('torch', 'fastai', 'torchvision', 'ipywidgets') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# the store

@pytest.mark.parametrize("change", [
    "UPDATE records SET body = '{}'", "DELETE FROM records", "UPDATE OR REPLACE records SET id = 9",
    "INSERT OR REPLACE INTO records VALUES (1, 'a', 'b', 'c', '{}', 'd', 'e', 'f')", "REPLACE INTO records VALUES (1, 'a', 'b', 'c', '{}', 'd', 'e', 'f')",
])
def test_records_are_append_only(store, change):
    store.append("note", "a", {"n": 1})
    connection = sqlite3.connect(store.path)
    with pytest.raises(sqlite3.DatabaseError, match="append-only"):
        connection.execute(change)
    connection.close()
    assert store.verify() == 1


def test_a_store_opens_again_and_keeps_its_records(store):
    store.append("note", "a", {"text": "ä \ud800 \x00 " + HOSTILE, "list": [1, 2.5, None]})
    again = stages.Store(str(store.path))
    assert again.records() == store.records()
    assert again.latest("note", "a").body["list"] == [1, 2.5, None]
    assert sqlite3.connect(store.path).execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("body", [{"a": math.nan}, {"a": math.inf}, {"a": {1, 2}}, {"a": object()}, [1], None, "text"])
def test_a_body_that_would_not_come_back_is_refused(store, body):
    with pytest.raises(StageError):
        store.append("note", "a", body)
    assert store.records() == ()


@pytest.mark.parametrize("key", ["", " ", None, 3, "two\nlines", "\ud800", "\x00"])
def test_a_key_must_be_one_line_of_text(store, key):
    with pytest.raises(StageError):
        store.append("note", key, {})


def _write(path, writer, count):
    store = stages.Store(path)
    for number in range(count):
        store.append("row", f"writer {writer}", {"n": number})


def test_several_writers_lose_nothing_even_on_a_new_file(tmp_path):
    path, context = tmp_path / "new.sqlite", multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    workers = [context.Process(target=_write, args=(path, writer, 25)) for writer in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 6
    store = stages.Store(path)
    assert store.verify() == 150
    for writer in range(6):
        assert [record.body["n"] for record in store.records("row", f"writer {writer}")] == list(range(25))


def test_a_killed_writer_keeps_every_acknowledged_record(tmp_path):
    path, said = tmp_path / "killed.sqlite", tmp_path / "said.txt"
    code = ("import sys; from medkit.stages import Store; s = Store(sys.argv[1])\n"
            "for n in range(10**6): r = s.append('row', 'k', {'n': n, 'pad': 'x' * 20000}); print(r.id, flush=True)")
    with said.open("wb") as out:
        worker = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=out)
        deadline = time.monotonic() + 30
        while said.stat().st_size < 100 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    acknowledged = [int(line) for line in said.read_text().splitlines(keepends=True) if line.endswith("\n")]
    store = stages.Store(path)
    assert len(acknowledged) > 5
    assert store.verify() in (len(acknowledged), len(acknowledged) + 1)
    assert store.append("row", "after", {}).id > acknowledged[-1]


def test_files_that_are_no_store(tmp_path):
    (tmp_path / "text").write_text("hello " * 500)
    sqlite3.connect(tmp_path / "other").executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1);")
    stages.Store(tmp_path / "later")
    sqlite3.connect(tmp_path / "later").execute("PRAGMA user_version = 99")
    before = (tmp_path / "other").read_bytes()
    for name, reason in (("text", "unsupported_format"), ("other", "unsupported_format"), ("later", "unsupported_format"),
                         ("no/such/folder", "not_found"), ("", "not_writable"), ("nul\0", "not_writable")):
        with pytest.raises(StageError) as caught:
            stages.Store(str(tmp_path) + "/" + name)
        assert caught.value.reason == reason, name
    assert (tmp_path / "other").read_bytes() == before


@pytest.mark.parametrize("where", [0.02, 0.3, 0.6, 0.95])
def test_a_damaged_store_is_an_error_of_ours(store, where):
    for number in range(40):
        store.append("note", f"k{number}", {"text": "x" * 1000})
    sqlite3.connect(store.path).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(store.path.read_bytes())
    start = int(len(data) * where)
    data[start:start + 3000] = b"\xff" * len(data[start:start + 3000])
    store.path.write_bytes(data)
    with pytest.raises(MedkitError):
        stages.Store(store.path).verify()


def test_a_record_changed_behind_our_back_is_found(store):
    for number in range(5):
        store.append("note", "k", {"n": number})
    connection = sqlite3.connect(store.path)
    connection.executescript("DROP TRIGGER records_no_delete; DELETE FROM records WHERE id = 3;")
    connection.close()
    with pytest.raises(StageError, match="Record 3 missing"):
        store.verify()


# ideas

@settings(max_examples=200, deadline=None)
@given(st.floats(0, 1), st.floats(0.005, 0.95))
def test_the_wilson_interval_of_patients_needed_is_just_narrow_enough(value, effect):
    def width(n, z=1.959964):
        return 2 * z / (n + z * z) * math.sqrt(n * value * (1 - value) + z * z / 4)

    n = stages.patients_needed(value, effect)
    assert width(n) <= effect * (1 + 1e-6)
    assert n == 2 or width(n - 1) > effect * (1 - 1e-6)


@settings(max_examples=100, deadline=None)
@given(st.floats(1, 2000), st.integers(1, 16), st.sampled_from([8, 12, 16, 24]), st.floats(1, 60), st.floats(0.1, 60),
       st.integers(1, 50), st.floats(0.001, 1000))
def test_link_arithmetic(rate, channels, bits, window_s, hop_s, beds, link):
    source = stages.signal_input("BCG", sampling_rate_hz=rate, channels=channels, bits=bits, window_s=window_s, hop_s=hop_s)
    idea = stages.Idea(name="a", question="b", users="c", input=source, output="d", metric="e", needed=0.9, naive=0.5, latency_s=1)
    place = stages.Deployment(name="p", computes_at="cloud", sources=beds, network_mbit_per_s=link)
    check = {row.what: row for row in stages.assay(idea, place).checks}["link"]
    assert check.needed == pytest.approx(rate * channels * bits * beds / 1e6)
    assert check.verdict == ("pass" if link >= check.needed else "reject")


def test_delay_counts_sending_only_in_the_cloud(idea, place):
    def verdict(place):
        return {row.what: row for row in stages.assay(idea, place).checks}["real time"].verdict

    assert verdict(place) == "pass"
    assert verdict(replace(place, computes_at="cloud", network_mbit_per_s=1)) == "reject"  # 52 MB over 1 Mbit/s: 419 s
    assert verdict(replace(place, network_mbit_per_s=0)) == "pass"
    assert verdict(replace(place, computes_at="cloud", network_mbit_per_s=0)) == "reject"


@pytest.mark.parametrize("owner, field", [
    ("place", "macs_per_s"), ("place", "memory_mb"), ("place", "network_mbit_per_s"), ("place", "storage_mb_per_day"),
    ("idea", "macs_per_item"), ("idea", "memory_mb"), ("idea", "patients"), ("idea", "labels"),
])
def test_what_is_not_stated_is_unknown_never_passed(idea, place, owner, field):
    assert stages.assay(idea, place).verdict == "pass"
    if owner == "place":
        place = replace(place, **{field: None})
    else:
        idea = replace(idea, **{field: "" if field == "labels" else None})
    assert stages.assay(idea, place).verdict == "unknown"


def test_too_few_patients_and_a_naive_guess_that_is_good_enough(idea, place):
    assert stages.assay(replace(idea, patients=3), place).verdict == "reject"
    assert stages.assay(replace(idea, patients=0), place).verdict == "reject"
    assert stages.assay(replace(idea, naive=0.9), place).verdict == "reject"
    assert stages.assay(replace(idea, needed=3.0, naive=6.0, higher_is_better=False), place).verdict == "unknown"
    assert stages.assay(replace(idea, needed=3.0, naive=6.0, higher_is_better=False, spread=4.0), place).verdict == "pass"


@pytest.mark.parametrize("value", [math.nan, math.inf, -1, 0, "1", True, [1]])
@pytest.mark.parametrize("field", ["latency_s", "macs_per_item", "memory_mb", "spread"])
def test_impossible_numbers_are_refused(idea, field, value):
    with pytest.raises(StageError):
        replace(idea, **{field: value})


def test_accepting_a_rejected_idea_needs_an_override(store, idea, place):
    bad = stages.assay(idea, replace(place, memory_mb=1))
    words = {"level": 2, "reason": "we like it", "by": "team"}
    for override in ("", "  "):
        with pytest.raises(StageError, match="rejected"):
            stages.decide(store, idea, bad, accept=True, override=override, **words)
    assert store.records() == ()
    decision = stages.decide(store, idea, bad, accept=True, override="new machine ordered", **words)
    assert stages.read_decisions(store) == (decision,)
    assert "new machine ordered" in decision._repr_html_()
    stages.decide(store, idea, bad, accept=False, level=1, reason="does not fit", by="team")
    assert [one.accept for one in stages.read_decisions(store, idea.name)] == [True, False]


@pytest.mark.parametrize("wrong", [{"level": 3}, {"level": 0}, {"accept": "yes"}, {"reason": ""}, {"by": " "}, {"reason": None}])
def test_a_decision_must_be_whole(store, idea, place, wrong):
    words = {"accept": True, "level": 1, "reason": "fits", "by": "team", **wrong}
    with pytest.raises(StageError):
        stages.decide(store, idea, stages.assay(idea, place), **words)


# experiments

def test_a_grid_resumes_and_retries_only_what_failed(store):
    calls, broken = [], {3}

    def train(params):
        calls.append(params["width"])
        if params["width"] in broken:
            raise ValueError(HOSTILE)
        return {"dice": scored(0.1 * params["width"])}

    grid = stages.Grid("g", {"width": [1, 2, 3, 4]}, (0,), "abc")
    first = grid.run(train, store)
    assert [bool(run.error) for run in first] == [False, False, True, False]
    broken.clear(), calls.clear()
    assert [bool(run.error) for run in grid.run(train, store)] == [False] * 4
    assert calls == [3]
    wider = replace(grid, factors={"width": [1, 2, 3, 4, 5]})
    calls.clear(), wider.run(train, store)
    assert calls == [5]
    assert len(stages.read_runs(store)) == 5 and store.verify() == 6


def test_an_interrupted_grid_keeps_the_runs_before(store):
    def train(params):
        if params["seed"] == 2:
            raise KeyboardInterrupt
        return scored(0.8)

    grid = stages.Grid("g", {"width": [1]}, (0, 1, 2, 3), "abc")
    with pytest.raises(KeyboardInterrupt):
        grid.run(train, store)
    assert [run.seed for run in stages.read_runs(store)] == [0, 1]


@pytest.mark.parametrize("result", [None, 0.8, {}, {"dice": 0.8}, "good"])
def test_a_training_without_scores_is_a_failed_run(result):
    run, = stages.Grid("g", {"width": [1]}, (0,), "abc").run(lambda params: result)
    assert run.scores is None and "StageError" in run.error


def test_another_split_is_another_run_and_is_never_compared(store):
    for split in ("abc", "xyz"):
        stages.Grid("g", {"width": [1]}, (0,), split).run(lambda params: scored(0.8), store)
    assert len(stages.read_runs(store)) == 2
    with pytest.raises(StageError, match="different splits"):
        stages.leaderboard(store, "dice")


def test_the_leaderboard_sorts_by_the_direction_of_the_metric():
    def board(better):
        values = iter([3.0, 1.0, 2.0])
        runs = stages.Grid("g", {"w": [1, 2, 3]}, (0,), "s").run(lambda p: scored(next(values), naive=1.5, better=better))
        return stages.leaderboard(runs, "dice")

    assert board(True).best.params == {"w": 1} and board(False).best.params == {"w": 2}
    assert [row["value"] for row in board(False).table()] == ["1.000", "1.500", "2.000", "3.000"]
    assert board(True).show().get_xlabel().startswith("dice")


# gates

def variant(name="int8", value=0.8, size=100, p95=4.0):
    return stages.Variant(name, size, p95 / 2, p95, Scores((scored(value),), 30))


@pytest.mark.parametrize("bar, passes", [
    ({"at_least": 0.8}, True), ({"at_least": 0.81}, False), ({"at_most": 0.8}, True), ({"at_most": 0.79}, False),
    ({"at_least": 0.74, "whole_interval": True}, True), ({"at_least": 0.76, "whole_interval": True}, False),
    ({"at_most": 0.84, "whole_interval": True}, False), ({"beats_naive": True}, True), ({"at_least": 0.7, "at_most": 0.9}, True),
])
def test_bars(bar, passes):
    assert stages.check_gates([stages.Gate(name="g", metric="dice", **bar)], variant()).passed is passes


@pytest.mark.parametrize("measured", [{}, {"dice": None}, {"dice": math.nan}, {"dice": "0.9"}, {"dice": True}, {"iou": 0.9}])
def test_what_was_not_measured_fails_with_a_reason(measured):
    row, = stages.check_gates([stages.Gate(name="g", metric="dice", at_least=0.1)], measured).rows
    assert (row.verdict, row.measured) == ("fail", "not measured") and "was not measured" in row.reason


def test_ratios_need_both_sides():
    gate = stages.Gate(name="g", metric="size_bytes", variant="int8", ratio_to="fp32", at_most=0.4)
    assert stages.check_gates([gate], [variant(), variant("fp32", size=400)]).passed
    assert not stages.check_gates([gate], [variant(), variant("fp32", size=200)]).passed
    assert "fp32" in stages.check_gates([gate], [variant()]).rows[0].reason
    assert "no ratio" in stages.check_gates([gate], [variant(), variant("fp32", size=0)]).rows[0].reason


@pytest.mark.parametrize("measured", [None, 3, [1, 2], [variant(), variant()], {"a": 1, "b": {"dice": 1}}])
def test_odd_measurements_are_refused(measured):
    with pytest.raises(StageError):
        stages.check_gates([stages.Gate(name="g", metric="dice", at_least=0.1)], measured)


def test_hostile_text_is_escaped_everywhere(store, idea, place):
    idea, place = replace(idea, name=HOSTILE, users=HOSTILE), replace(place, name=HOSTILE)
    assay = stages.assay(idea, place)
    decision = stages.decide(store, idea, assay, accept=True, level=1, reason=HOSTILE, by=HOSTILE)
    runs = stages.Grid(HOSTILE, {HOSTILE: [HOSTILE]}, (0,), HOSTILE).run(lambda p: scored(0.8, name=HOSTILE), store)
    board = stages.leaderboard(runs, HOSTILE)
    result = stages.check_gates([stages.Gate(name=HOSTILE, metric=HOSTILE, at_least=0)], {HOSTILE: 1})
    for thing in (assay, decision, runs[0], board, result, store, *store.records(), replace(variant(), name=HOSTILE), idea.input):
        assert "<script>" not in thing._repr_html_()
        assert "\n" not in repr(thing)
