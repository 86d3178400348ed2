"""Faults on the disk: names that climb, writers that die, lists that are torn."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jobs import nested

from medkit.errors import DataError, MissingExtra
from medkit.extras import require
from medkit.files import Manifest, atomic_write, inside, sha256, shipped, walk


@settings(max_examples=300, deadline=None)
@given(name=st.text(st.sampled_from(list("ab./\\: \0\u00b9~\ud800é")) | st.characters(), max_size=12))
@example("..")
@example("a/..")
@example("COM¹.txt")
@example("con .txt")
@example("a/ .. /b")
def test_a_name_stays_inside_or_is_refused(tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp() / "home"
    folder.mkdir(exist_ok=True)
    try:
        path = inside(folder, name)
    except DataError as error:
        assert error.reason == "unsafe_path"
        return
    assert path.resolve().is_relative_to(folder.resolve()) and path.resolve() != folder.resolve()
    assert not {"..", "", "."} & set(name.split("/")) and not set(name) & set("\\:\0")


@pytest.mark.parametrize("name", ["CON", "con.txt", "a/AUX", "LPT9.tar.gz", "COM\u00b2", "NUL .txt", "CONIN$", "x" * 256, "é" * 128])
def test_windows_devices_and_endless_names_are_refused(tmp_path, name):
    with pytest.raises(DataError, match="unsafe_path"):
        inside(tmp_path, name)


@pytest.mark.parametrize("name", ["console.txt", "COM10", "a/.hidden", "patient 1/slice-07.dcm", "Ünïcödé", "CT.1.3.12.2"])
def test_ordinary_names_pass(tmp_path, name):
    assert inside(tmp_path, name) == tmp_path / name


def test_links_may_stay_inside_but_not_leave(tmp_path):
    home, other = tmp_path / "home", tmp_path / "home-2"
    home.mkdir()
    other.mkdir()
    (home / "here").symlink_to(home)
    (home / "there").symlink_to(other)
    (home / "one").symlink_to(home / "two")
    (home / "two").symlink_to(home / "one")
    assert inside(home, "here/x") == home / "here" / "x"
    for name in ("there", "there/x", "here/there/x", "one/x"):
        with pytest.raises(DataError, match="unsafe_path"):
            inside(home, name)


WRITER = """
import os, sys
from medkit.files import atomic_write
with atomic_write("result.bin") as file:
    file.write(b"new" * 100_000)
    file.flush()
    {end}
"""


@pytest.mark.parametrize("end", ["os._exit(1)", "os.kill(os.getpid(), 9)", "raise KeyboardInterrupt", "sys.exit(3)", "1 / 0"])
@pytest.mark.parametrize("before", [None, b"old"])
def test_a_writer_that_dies_changes_nothing(tmp_path, end, before):
    if before:
        (tmp_path / "result.bin").write_bytes(before)
    done = subprocess.run([sys.executable, "-c", WRITER.format(end=end)], cwd=tmp_path, capture_output=True)
    assert done.returncode != 0
    shown = {path.name: path.read_bytes() for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert shown == ({"result.bin": before} if before else {})
    if "_exit" not in end and "kill" not in end:
        assert len(list(tmp_path.iterdir())) == len(shown), "a living process cleans up after itself"


def test_bytes_reach_the_disk_before_the_name_does(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (steps.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append("rename"), replace(a, b)))
    with atomic_write(tmp_path / "a") as file:
        file.write(b"1")
        assert not (tmp_path / "a").exists()
    assert steps[:2] == ["fsync", "rename"] and (tmp_path / "a").read_bytes() == b"1"


def test_permissions_are_those_of_an_ordinary_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    with atomic_write(tmp_path / "atomic"):
        pass
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("name", ["no/such/folder/x", "", "file/x", "a\0b", "x" * 300, "folder"])
def test_impossible_targets_are_not_writable(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("folder").mkdir()
    with pytest.raises(DataError) as caught, atomic_write(name) as file:
        file.write(b"1")
    assert caught.value.reason == "not_writable" and sorted(os.listdir()) == ["file", "folder"]


def test_a_full_disk_is_not_writable(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="not_writable"), atomic_write(tmp_path / "x") as file:
        file.write(b"1")
    assert os.listdir(tmp_path) == []


def test_errors_of_the_block_pass_unchanged(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "x"):
        open(tmp_path / "missing")
    with pytest.raises(DataError, match="empty"), atomic_write(tmp_path / "x"):
        raise DataError("empty", "nothing.", "give something")
    assert os.listdir(tmp_path) == []


def test_a_pipe_is_not_hashed(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not_readable"):
        sha256(tmp_path / "pipe")
    with pytest.raises(DataError):
        sha256("a\0b")


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.dictionaries(st.text(max_size=5), st.text() | st.integers() | st.none() | st.booleans(), max_size=4), max_size=6),
       cut=st.integers(0, 200))
def test_a_list_cut_anywhere_keeps_every_whole_row(tmp_path_factory, rows, cut):
    manifest = Manifest(tmp_path_factory.mktemp("list") / "m.jsonl")
    for row in rows:
        manifest.append(row)
    assert manifest.rows() == rows and manifest.torn() == ()
    text = manifest.path.read_bytes() if rows else b""
    manifest.path.write_bytes(text[:cut])
    whole = text[:cut].count(b"\n")
    manifest.append({"after": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = manifest.rows()
    kept = [json.loads(line) for line in text[:cut].split(b"\n")[whole:] if line.endswith(b"}") and line in text.split(b"\n")]
    assert found == [*rows[:whole], *kept, {"after": 1}]


def test_a_row_of_another_process_in_between_is_kept(tmp_path, monkeypatch):
    "Another process appends after this one has looked at the end of the file and before it writes."
    path, read = tmp_path / "m.jsonl", os.read
    Manifest(path).append({"first": 1})

    def read_then_interrupted(handle, count):
        found = read(handle, count)
        with open(path, "ab") as file:
            file.write(b'{"between": 1}\n')
        return found

    monkeypatch.setattr(os, "read", read_then_interrupted)
    Manifest(path).append({"last": 1})
    assert Manifest(path).rows() == [{"first": 1}, {"between": 1}, {"last": 1}]


def test_torn_row_is_reported(tmp_path):
    manifest = Manifest(tmp_path / "m.jsonl")
    manifest.append({"a": 1})
    with open(manifest.path, "ab") as file:
        file.write(b'{"b')
    with pytest.warns(UserWarning, match="1 torn row"):
        assert manifest.rows() == [{"a": 1}]
    assert manifest.torn() == (2,)


def test_a_file_that_is_no_list_is_refused(tmp_path):
    (tmp_path / "m").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(DataError, match="bad_manifest"):
        Manifest(tmp_path / "m").rows()
    with pytest.raises(DataError, match="not_readable"):
        Manifest(tmp_path).rows()
    with pytest.raises(DataError, match="not_writable"):
        Manifest(tmp_path).append({})


def _append(path, writer, rows):
    for number in range(rows):
        Manifest(path).append({"writer": writer, "number": number, "text": "x" * 200})


def test_many_writers_lose_nothing_though_one_is_killed(tmp_path):
    "Four processes append; one is killed on the way. Every row that was acknowledged is there, in each writer's order."
    path = tmp_path / "m.jsonl"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_append, args=(path, writer, 300)) for writer in range(3)]
    victim = context.Process(target=_append, args=(path, 3, 10**9))
    for worker in (*workers, victim):
        worker.start()
    while not path.exists() or path.stat().st_size < 20_000:
        time.sleep(0.01)
    os.kill(victim.pid, signal.SIGKILL)
    for worker in (*workers, victim):
        worker.join()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = Manifest(path).rows()
    for writer in range(3):
        assert [row["number"] for row in rows if row["writer"] == writer] == list(range(300))
    assert len(Manifest(path).torn()) <= 1


def test_what_is_shipped_is_found():
    assert shipped("data/datasets.toml").is_file() and shipped("data").is_dir()
    for name in ("../setup.py", "/etc/passwd", "data/../setup.py"):
        with pytest.raises(DataError, match="unsafe_path"):
            shipped(name)


def test_missing_extra_names_the_command():
    with pytest.raises(ImportError) as caught:
        require("medkit_has_no_such_module.sub", extra="ray")
    assert isinstance(caught.value, MissingExtra) and 'pip install "medkit[ray]"' in str(caught.value)
    assert require("os.path", extra="ray") is os.path


@pytest.mark.parametrize("make", [lambda path: os.mkfifo(path), lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("other"), lambda path: path.mkdir()],
                         ids=["pipe", "endless", "link", "folder"])
def test_a_list_is_read_and_written_only_if_it_is_an_ordinary_file(tmp_path, make):
    make(tmp_path / "m.jsonl")
    for act, reason in ((Manifest(tmp_path / "m.jsonl").rows, "not_readable"), (lambda: Manifest(tmp_path / "m.jsonl").append({}), "not_writable")):
        with pytest.raises(DataError, match=reason):
            act()
    assert not (tmp_path / "other").exists()


def test_numbers_that_json_lacks_make_no_row(tmp_path):
    (tmp_path / "m").write_text('{"a": NaN}\n{"a": 1e999}\n{"a": ' + "9" * 5000 + '}\n{"a": ' + "[" * 100_000 + "\n{}\n")
    with pytest.warns(UserWarning, match="4 torn"):
        assert Manifest(tmp_path / "m").rows() == [{}]


def test_a_thousand_nested_folders_are_walked(tmp_path):
    with nested(tmp_path, "x"):
        found = list(walk(tmp_path))
    assert found == ["d/" * 1200 + "x"]


@pytest.mark.parametrize("odd", [None, 5, b"x", [], "x" * 5000, "a/" * 3000 + "b", "a\0b"], ids=lambda odd: repr(odd)[:9])
def test_what_is_no_path_is_one_error(tmp_path, odd):
    for act in (sha256, lambda path: list(walk(path)), lambda path: Manifest(path).append({}), lambda path: inside(tmp_path, path), lambda path: atomic_write(path).__enter__()):
        with pytest.raises(DataError):
            act(odd)
