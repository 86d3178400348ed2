"""The store: what was tampered with is named, what was acknowledged is kept, old files open, and lines of text come back the same."""

import hashlib
import json
import multiprocessing
import os
import random
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkit import stages
from medkit.errors import DataError, MedkitError, MissingExtra, StageError
from medkit.stages.store import _connected, _row_faults, _Row

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import stages_store  # noqa: E402

LEGACY = """
PRAGMA journal_mode = WAL;
CREATE TABLE records (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, key TEXT NOT NULL,
    created TEXT NOT NULL, body TEXT NOT NULL, checksum TEXT NOT NULL);
CREATE INDEX records_by_key ON records (kind, key, id);
CREATE TRIGGER records_no_update BEFORE UPDATE ON records BEGIN SELECT RAISE(ABORT, 'records are append-only'); END;
CREATE TRIGGER records_no_delete BEFORE DELETE ON records BEGIN SELECT RAISE(ABORT, 'records are append-only'); END;
CREATE TRIGGER records_no_replace BEFORE INSERT ON records
    WHEN EXISTS (SELECT 1 FROM records WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'records are append-only'); END;
PRAGMA application_id = 1835361387;
PRAGMA user_version = 1;
"""


@pytest.fixture
def store(tmp_path):
    return stages.Store(tmp_path / "project.sqlite", author="Ada")


def filled(path, count=8):
    store = stages.Store(path, author="Ada")
    with store.kept_open():
        for number in range(count):
            store.append("note", f"idea {number % 3}", {"n": number})
    return store


def by_hand(path, *changes):
    "Change a store past medkit, with the triggers away and back again."
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        guards = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in guards:
            connection.execute(f"DROP TRIGGER {name}")
        for change in changes:
            connection.execute(change)
        for _, sql in guards:
            connection.execute(sql)


def short(faults):
    return [(fault.id, fault.what) for fault in faults]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "The rows of a store nobody touched."
    store = filled(tmp_path_factory.mktemp("whole") / "whole.sqlite", 12)
    with closing(sqlite3.connect(store.path)) as connection:
        return [_Row(*row) for row in connection.execute("SELECT * FROM records ORDER BY id")]


# what was done behind our back is named

@pytest.mark.parametrize("tamper", stages_store.TAMPERING.values(), ids=lambda tamper: tamper.__name__)
def test_what_was_tampered_with_is_named_in_a_file(tmp_path, tamper):
    assert stages_store.named(tmp_path, tamper, 5) == 5


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([stages_store.changed, stages_store.forged, stages_store.deleted, stages_store.swapped]), st.integers(0, 10**6))
def test_nobody_else_is_accused(whole, tamper, seed):
    rows, (number, what) = tamper(list(whole), random.Random(seed))
    moved = {row.id for row, kept in zip(rows, whole) if row != kept} if what == "moved" else {number}
    assert {(fault.id, fault.what) for fault in _row_faults(rows, len(whole))} == {(place, what) for place in moved}


@settings(max_examples=200, deadline=None)
@given(st.permutations(range(12)), st.sets(st.integers(0, 11), min_size=1))
def test_any_order_and_any_selection_is_named(whole, order, kept):
    rows = [whole[place]._replace(id=number) for number, place in enumerate([place for place in order if place in kept], 1)]
    faults = _row_faults(rows, 12)
    assert {fault.id for fault in faults if fault.what == "moved"} == {row.id for row in rows if whole[row.id - 1].body != row.body}
    assert not any(fault.what == "changed" for fault in faults)
    assert bool(faults) == (rows != whole)


def test_a_fault_says_kind_and_key(store, tmp_path):
    store = filled(tmp_path / "a.sqlite")
    by_hand(store.path, "UPDATE records SET body = '{}' WHERE id = 5")
    fault, = store.check()
    assert (fault.id, fault.kind, fault.key, fault.what) == (5, "note", "idea 1", "changed")
    with pytest.raises(StageError, match="Record 5 .note 'idea 1'. changed") as caught:
        store.verify()
    assert caught.value.reason == "bad_record"


def test_an_end_cut_off_is_seen_without_a_head_unless_the_count_was_put_back(tmp_path):
    store = filled(tmp_path / "a.sqlite")
    head = store.head
    by_hand(store.path, "DELETE FROM records WHERE id > 5")
    assert short(store.check()) == [(6, "cut off")]
    by_hand(store.path, "UPDATE sqlite_sequence SET seq = 5")
    assert store.check() == () and short(store.check(head=head)) == [(6, "cut off")]
    with pytest.raises(StageError, match="cut off"):
        store.verify(head=head)
    for _ in range(4):
        store.append("note", "later", {})
    assert short(store.check(head=head)) == [(8, "changed")]
    assert store.check() == ()


def test_a_head_of_the_past_holds_while_the_store_grows(store):
    heads = [store.head]
    for number in range(3):
        store.append("note", "a", {"n": number})
        heads.append(store.head)
    assert all(store.check(head=head) == () for head in heads)
    assert heads[0] == "0:" + "0" * 64 and heads[3].startswith("3:")


@pytest.mark.parametrize("head", ["", "3", "3:abc", 3, b"3", ":" + "0" * 64, "x:" + "0" * 64, "9" * 30 + ":" + "0" * 64])
def test_what_is_no_head(store, head):
    with pytest.raises(StageError) as caught:
        store.check(head=head)
    assert caught.value.reason == "bad_option"


def test_a_guard_that_is_gone_or_added_is_named(store):
    store.append("note", "a", {})
    with closing(sqlite3.connect(store.path)) as connection:
        connection.executescript("""DROP TRIGGER records_no_delete; DROP VIEW latest;
            CREATE VIEW latest AS SELECT * FROM records LIMIT 1;
            CREATE TRIGGER swallow BEFORE INSERT ON records BEGIN SELECT RAISE(IGNORE); END;""")
    found = {(fault.kind, fault.key, fault.what) for fault in store.check()}
    assert found == {("trigger", "records_no_delete", "missing"), ("view", "latest", "changed"), ("trigger", "swallow", "changed")}


@pytest.mark.parametrize("change", [
    "INSERT INTO records VALUES (1000000000, 'a', 'b', 'c', '{}', 'd', 'e', 'f')",
    "UPDATE records SET id = -5 WHERE id = 3", "UPDATE records SET body = x'00ff' WHERE id = 3", "UPDATE records SET author = '' WHERE id = 3",
    "UPDATE records SET kind = x'00', key = x'01' WHERE id = 1", "UPDATE records SET previous = checksum", "UPDATE records SET body = '['",
    "DELETE FROM records", "INSERT INTO records SELECT id + 20, kind, key, created, body, checksum, author, previous FROM records",
])
def test_rough_changes_are_found(tmp_path, change):
    store = filled(tmp_path / "a.sqlite")
    by_hand(store.path, change)
    assert store.check()
    with pytest.raises(StageError):
        store.verify()


def test_a_table_that_is_not_ours_any_more_is_an_error_of_ours(tmp_path):
    store = filled(tmp_path / "a.sqlite")
    by_hand(store.path, "ALTER TABLE records ADD COLUMN more TEXT")
    assert store.check() == () and store.append("note", "a", {}).id == 9
    by_hand(store.path, "DROP VIEW latest", "ALTER TABLE records RENAME COLUMN author TO writer")
    with pytest.raises(StageError):
        store.records()


# writers that are killed

def test_eight_writers_with_four_killed_lose_nothing_acknowledged(tmp_path, record_property):
    lost, said = stages_store.lost_records(tmp_path, 1.0)
    record_property("records acknowledged by 8 writers, 4 of them killed", f"{said}, lost {lost}")
    assert lost == 0 and said > 8


def test_a_commit_waits_for_the_disk(store):
    "A power cut cannot be tried here; this is the setting that SQLite names for it."
    with _connected(store.path) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.slow
def test_eight_writers_killed_again_and_again(tmp_path):
    for turn in range(10):
        (tmp_path / str(turn)).mkdir()
        lost, said = stages_store.lost_records(tmp_path / str(turn), 3.0)
        assert lost == 0 and said > 8, turn


# a block that keeps the file open

def test_errors_of_the_block_stay_the_callers(store):
    with pytest.raises(ValueError, match="mine"), store.kept_open():
        store.append("note", "a", {})
        raise ValueError("mine")
    assert store.append("note", "b", {}).id == 2


def test_two_stores_a_thread_and_a_process_inside_one_block(tmp_path):
    a, b = stages.Store(tmp_path / "a"), stages.Store(tmp_path / "b")
    with a.kept_open(), b.kept_open():
        a.append("note", "a", {}), b.append("note", "b", {})
        for kind in (threading.Thread, multiprocessing.get_context("fork").Process):
            other = kind(target=a.append, args=("note", "other", {}))
            other.start()
            other.join(30)
        a.append("note", "c", {})
    assert [record.key for record in a.records()] == ["a", "other", "other", "c"]
    assert (a.verify(), b.verify()) == (4, 1)


def test_a_damaged_row_leaves_no_transaction_behind(tmp_path):
    store = filled(tmp_path / "a.sqlite")
    with store.kept_open():
        store.check()
        store.append("note", "x", {})
        with pytest.raises(StageError):
            stages.Store.from_jsonl(store.to_jsonl(tmp_path / "a.jsonl"), store.path)
        assert store.append("note", "y", {}).id == 10


# the newest

def test_the_view_is_the_newest_of_each_key(tmp_path):
    store = filled(tmp_path / "a.sqlite")
    with closing(sqlite3.connect(store.path)) as connection:
        seen = connection.execute("SELECT id FROM latest ORDER BY id").fetchall()
    assert [record.id for record in store.records(newest=True)] == [number for number, in seen] == [6, 7, 8]
    assert store.latest("note", "idea 0") == store.records("note", "idea 0")[-1] == store.records("note", "idea 0", newest=True)[0]
    assert store.records("run", newest=True) == ()


# who wrote

def test_the_author_comes_from_the_environment_unless_given(tmp_path, monkeypatch):
    for name in ("MEDKIT_AUTHOR", "LOGNAME", "USER", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "a.sqlite"
    assert stages.Store(path).append("note", "a", {}).author == "unknown"
    monkeypatch.setenv("LOGNAME", "ada")
    assert stages.Store(path).append("note", "a", {}).author == "ada"
    monkeypatch.setenv("MEDKIT_AUTHOR", "Ada L.")
    assert stages.Store(path).append("note", "a", {}).author == "Ada L."
    store = stages.Store(path, author="Bob")
    assert store.append("note", "a", {}).author == "Bob" and store.append("note", "a", {}, author="Eve").author == "Eve"
    assert store.verify() == 5


@pytest.mark.parametrize("author", [" ", "two\nlines", 3, "\ud800"])
def test_an_author_is_one_line_of_text(tmp_path, store, author):
    with pytest.raises(StageError):
        stages.Store(tmp_path / "a.sqlite", author=author)
    with pytest.raises(StageError):
        store.append("note", "a", {}, author=author)


# nothing about a patient

@pytest.mark.parametrize("body", [
    {"PatientName": "x"}, {"a": [{"b": {"patient_id": 1}}]}, {"Patient's Birth Name": 1}, {"patient birth date": ""}, {"(0010,0010)": "x"},
    {"0010|0030": 1}, {"a": ({"OtherPatientIDs": []},)}, {"PatientMotherBirthName": 1},
])
def test_fields_called_like_a_patients_are_refused(store, body):
    with pytest.raises(StageError, match="patient") as caught:
        store.append("note", "a", body)
    assert caught.value.reason == "bad_record" and store.records() == ()


def test_other_words_with_patient_in_them_are_kept(store):
    body = {"patients": 30, "patient_key": "sim-00001", "patients_needed": 12, "too_few_patients": True, "patient": "by person"}
    assert store.append("note", "a", body).body == body


def test_keys_that_are_numbers_come_back_as_text_and_never_twice(store, tmp_path):
    record = store.append("note", "a", {10: "x", 9: "y", "text": (1, 2)})
    assert record.body == {"10": "x", "9": "y", "text": [1, 2]} and store.verify() == 1
    with pytest.raises(StageError, match="same name"):
        store.append("note", "a", {"b": {1: "x", "1": "y"}})
    assert stages.Store.from_jsonl(store.to_jsonl(tmp_path / "a.jsonl"), tmp_path / "b").records() == store.records()


# lines of text

plain = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
                     lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=6)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.dictionaries(st.text(), plain, max_size=3), max_size=4))
def test_lines_make_the_same_store_and_the_same_lines(tmp_path_factory, bodies):
    folder = tmp_path_factory.mktemp("lines")
    store = stages.Store(folder / "a", author="Ädä")
    with store.kept_open():
        for body in bodies:
            store.append("note", "é 😀", body)
    lines = store.to_jsonl(folder / "a.jsonl")
    again = stages.Store.from_jsonl(lines, folder / "b")
    assert again.records() == store.records() and again.head == store.head and again.verify(head=store.head) == len(bodies)
    assert again.to_jsonl(folder / "b.jsonl").read_bytes() == lines.read_bytes()


def test_a_growing_store_only_adds_lines(tmp_path):
    store = filled(tmp_path / "a.sqlite")
    before = store.to_jsonl(tmp_path / "a.jsonl").read_bytes()
    store.append("note", "a", {"b": 1, "a": 2})
    after = store.to_jsonl(tmp_path / "a.jsonl").read_bytes()
    assert after.startswith(before) and after[len(before):].count(b"\n") == 1 and after.isascii()
    for line in after.decode().splitlines():
        fields = json.loads(line)
        assert list(fields) == sorted(fields) and list(fields["body"]) == sorted(fields["body"])
    assert (again := stages.Store.from_jsonl(tmp_path / "a.jsonl", tmp_path / "b", author="Bob")).append("note", "a", {}).author == "Bob"
    assert again.verify(head=store.head) == 10


@pytest.mark.parametrize("spoil, match", [
    (lambda lines: lines[:2] + lines[3:], "Record 3 missing"), (lambda lines: lines[:2] + [lines[2][:20]], "Line 3"),
    (lambda lines: [lines[0].replace(b'"n": 0', b'"n": 7')] + lines[1:], "Record 1"), (lambda lines: [b"[]\n"] + lines, "Line 1"),
    (lambda lines: lines + lines[:1], "Line 9 is out of order"), (lambda lines: [lines[0].replace(b'"key"', b'"clef"')], "Line 1"),
    (lambda lines: [lines[0].replace(b'"id": 1', b'"id": "1"')], "Line 1"), (lambda lines: [b"\xff\xfe\n"], "Line 1"),
    (lambda lines: [lines[0].replace(b'"body": {"n": 0}', b'"body": []')], "Line 1"),
])
def test_spoilt_lines_are_refused_and_no_store_is_made(tmp_path, spoil, match):
    lines = filled(tmp_path / "a.sqlite").to_jsonl(tmp_path / "a.jsonl")
    lines.write_bytes(b"".join(spoil(lines.read_bytes().splitlines(keepends=True))))
    with pytest.raises(StageError, match=match):
        stages.Store.from_jsonl(lines, tmp_path / "b.sqlite")
    assert not (tmp_path / "b.sqlite").exists()


def test_lines_that_are_not_there_and_a_folder_that_is_not(tmp_path, store):
    with pytest.raises(DataError):
        stages.Store.from_jsonl(tmp_path / "no.jsonl", tmp_path / "b")
    with pytest.raises(DataError):
        store.to_jsonl(tmp_path / "no" / "a.jsonl")
    (tmp_path / "empty.jsonl").touch()
    assert stages.Store.from_jsonl(tmp_path / "empty.jsonl", tmp_path / "b").records() == ()


# files of the first medkit

def first_medkit(path, count=6):
    "A store as the first medkit wrote it: schema 1, checksums over five fields."
    before, checksums = "0" * 64, []
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(LEGACY)
        for number in range(count):
            fields = ["note", f"idea {number}", "2026-01-01T00:00:00.000+00:00", json.dumps({"n": number})]
            before = hashlib.sha256(json.dumps([before, *fields]).encode()).hexdigest()
            connection.execute("INSERT INTO records (kind, key, created, body, checksum) VALUES (?, ?, ?, ?, ?)", [*fields, before])
            checksums.append(before)
    return checksums


def test_a_file_of_the_first_medkit_is_brought_up_to_date(tmp_path):
    checksums = first_medkit(tmp_path / "a")
    store = stages.Store(tmp_path / "a", author="Ada")
    assert [record.checksum for record in store.records()] == checksums
    assert [record.previous for record in store.records()] == ["0" * 64, *checksums[:-1]]
    new = store.append("note", "idea 0", {"n": 9})
    assert (new.id, new.previous, new.author) == (7, checksums[-1], "Ada")
    assert store.verify(head=f"6:{checksums[-1]}") == 7 and store.latest("note", "idea 0").body == {"n": 9}
    again = stages.Store.from_jsonl(store.to_jsonl(tmp_path / "a.jsonl"), tmp_path / "b")
    assert again.records() == store.records() and again.verify() == 7


@pytest.mark.parametrize("upgraded", [False, True])
@pytest.mark.parametrize("changes, faults", [
    (["UPDATE records SET body = '{}' WHERE id = 3"], {(3, "changed")}), (["DELETE FROM records WHERE id = 3"], {(3, "missing")}),
    (["DELETE FROM records WHERE id > 4"], {(5, "cut off")}),
    (["UPDATE records SET id = -1 WHERE id = 2", "UPDATE records SET id = 2 WHERE id = 3", "UPDATE records SET id = 3 WHERE id = -1"],
     {(2, "moved"), (3, "moved")}),
])
def test_tampering_in_a_file_of_the_first_medkit(tmp_path, changes, faults, upgraded):
    first_medkit(tmp_path / "a")
    if upgraded:
        stages.Store(tmp_path / "a")
    by_hand(tmp_path / "a", *changes)
    found = set(short(stages.Store(tmp_path / "a").check()))
    if upgraded or not {what for _, what in faults} & {"moved", "missing"}:
        assert found == faults
    else:  # the first medkit kept no checksum of the record before, so a move looks like a change
        assert {number for number, _ in faults} <= {number for number, _ in found}


def test_several_processes_bring_one_file_up_to_date(tmp_path):
    first_medkit(tmp_path / "a", 200)
    context = multiprocessing.get_context("fork")
    crew = [context.Process(target=lambda: stages.Store(tmp_path / "a").append("note", "new", {})) for _ in range(6)]
    for worker in crew:
        worker.start()
    for worker in crew:
        worker.join(60)
    assert [worker.exitcode for worker in crew] == [0] * 6
    assert stages.Store(tmp_path / "a").verify() == 206


def test_a_writer_that_is_killed_while_upgrading_leaves_the_old_file(tmp_path):
    first_medkit(tmp_path / "a")
    code = ("import os, signal, sys; from medkit.stages import store\n"
            "import sqlite3; real = sqlite3.connect\n"
            "def connect(*args, **options):\n"
            "    made = real(*args, **options)\n"
            "    made.set_trace_callback(lambda sql: os.kill(os.getpid(), signal.SIGKILL) if sql.startswith('UPDATE') else None)\n"
            "    return made\n"
            "store.sqlite3.connect = connect; store.Store(sys.argv[1])")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], capture_output=True)
    assert done.returncode == -9
    with closing(sqlite3.connect(tmp_path / "a")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert stages.Store(tmp_path / "a").verify() == 6


# trackers

def a_run(seed, error=""):
    metric = {"name": "dice (pancreas)", "value": 0.8, "low": 0.7, "high": 0.9, "naive": 0.3}
    scores = None if error else {"metrics": [metric], "patients": 30, "notes": []}
    return {"grid": "g", "params": {"width": 8}, "seed": seed, "split_hash": "abc", "seconds": 2.5, "scores": scores, "error": error}


class Mlflow:
    "What `mirror_runs` uses of MLflow."

    def __init__(self):
        self.runs, self.experiments = [], {}

    def MlflowClient(self):
        return self

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

    def create_experiment(self, name):
        return self.experiments.setdefault(name, str(len(self.experiments)))

    def create_run(self, experiment_id, *, run_name):
        self.runs.append({"experiment": experiment_id, "name": run_name, "params": {}, "metrics": {}})
        return SimpleNamespace(info=SimpleNamespace(run_id=len(self.runs) - 1))

    def log_param(self, run, key, value):
        self.runs[run]["params"][key] = value

    def log_metric(self, run, key, value):
        self.runs[run]["metrics"][key] = value

    def set_terminated(self, run, status):
        self.runs[run]["status"] = status


def test_runs_appear_once_in_mlflow_with_interval_and_naive_guess(store, monkeypatch):
    window = Mlflow()
    monkeypatch.setitem(sys.modules, "mlflow", window)
    for seed in (0, 1):
        store.append("run", f"{seed}" * 32, a_run(seed))
    store.append("run", "0" * 32, a_run(0, "ValueError: a secret"))
    store.append("note", "a", {})
    assert stages.mirror_runs(store, "mlflow", project="pancreas") == 2
    assert stages.mirror_runs(store, "mlflow", project="pancreas") == 0
    assert [run["status"] for run in window.runs] == ["FINISHED", "FAILED"] and window.experiments == {"pancreas": "0"}
    metrics, params = window.runs[0]["metrics"], window.runs[0]["params"]
    assert metrics == {"seconds": 2.5, "dice _pancreas_": 0.8, "dice _pancreas_ low": 0.7, "dice _pancreas_ high": 0.9,
                       "dice _pancreas_ naive": 0.3}
    assert params["checksum"] == store.latest("run", "1" * 32).checksum and params["width"] == 8
    assert "Ada" not in json.dumps(window.runs) and "secret" not in json.dumps(window.runs)
    assert window.runs[1]["params"]["failed"] == "ValueError"
    store.append("run", "0" * 32, a_run(0))
    assert stages.mirror_runs(store, "mlflow", project="pancreas") == 1
    assert stages.mirror_runs(store, "mlflow", project="other") == 2
    assert store.verify() == 8


def test_a_tracker_that_breaks_off_is_an_error_of_ours_and_goes_on_later(store, monkeypatch):
    window, broken = Mlflow(), [True]
    keep = window.set_terminated

    def set_terminated(run, status):
        if run == 1 and broken:
            raise ConnectionError("no server")
        keep(run, status)

    window.set_terminated = set_terminated
    monkeypatch.setitem(sys.modules, "mlflow", window)
    for seed in range(3):
        store.append("run", f"{seed}" * 32, a_run(seed))
    with pytest.raises(StageError, match="no server"):
        stages.mirror_runs(store, "mlflow", project="p")
    broken.clear()
    assert stages.mirror_runs(store, "mlflow", project="p") == 2


@pytest.mark.parametrize("to", ["mlflow", "trackio"])
def test_a_tracker_that_is_not_installed_names_its_extra(store, monkeypatch, to):
    monkeypatch.setitem(sys.modules, to, None)
    with pytest.raises(MissingExtra, match=rf"medkit\[{to}\]"):
        stages.mirror_runs(store, to, project="p")


@pytest.mark.parametrize("to", ["wandb", "", None, 3])
def test_an_unknown_tracker(store, to):
    with pytest.raises(MedkitError, match="mlflow or trackio"):
        stages.mirror_runs(store, to, project="p")


def test_no_tracker_is_imported_before_it_is_asked_for():
    code = ("import sys; from medkit import stages; stages.mirror_runs, stages.Store\n"
            "print([name for name in ('mlflow', 'trackio', 'torch', 'fastai') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout.strip() == "[]"
