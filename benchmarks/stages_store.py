"""A store must name the record that was tampered with, and lose nothing it acknowledged: `python benchmarks/stages_store.py`."""

import json
import multiprocessing
import os
import random
import signal
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from medkit.stages import Record, Store
from medkit.stages.store import _checksum, _Row
from timing import print_rows

RECORDS, WRITERS, KILLED, SEED = 40, 8, 4, 7
FIELDS = ("kind", "key", "created", "body", "checksum", "author", "previous")


# by hand, past medkit: what is done to the rows, and which fault must be named

def changed(rows: list[_Row], rng: random.Random) -> tuple[list[_Row], tuple[int, str]]:
    "One field of one record."
    place, field = rng.randrange(len(rows)), rng.choice(FIELDS)
    rows[place] = rows[place]._replace(**{field: getattr(rows[place], field) + " "})
    return rows, (place + 1, "changed")


def forged(rows: list[_Row], rng: random.Random) -> tuple[list[_Row], tuple[int, str]]:
    "One record together with its own checksum."
    place = rng.randrange(len(rows) - 1)
    row = rows[place]._replace(body='{"dice": 0.99}')
    rows[place] = row._replace(checksum=_checksum(row))
    return rows, (place + 1, "changed")


def deleted(rows: list[_Row], rng: random.Random) -> tuple[list[_Row], tuple[int, str]]:
    place = rng.randrange(len(rows) - 1)
    del rows[place]
    return rows, (place + 1, "missing")


def closed_up(rows: list[_Row], rng: random.Random) -> tuple[list[_Row], tuple[int, str]]:
    "One record deleted, and the later ones numbered anew."
    rows, fault = deleted(rows, rng)
    return [row._replace(id=number) for number, row in enumerate(rows, 1)], fault


def swapped(rows: list[_Row], rng: random.Random) -> tuple[list[_Row], tuple[int, str]]:
    a, b = sorted(rng.sample(range(len(rows)), 2))
    rows[a], rows[b] = rows[b]._replace(id=a + 1), rows[a]._replace(id=b + 1)
    return rows, (a + 1, "moved")


def cut(rows: list[_Row], rng: random.Random) -> tuple[list[_Row], tuple[int, str]]:
    "The end, with SQLite's own count put back."
    place = rng.randrange(1, len(rows))
    return rows[:place], (place + 1, "cut off")


def rewritten(rows: list[_Row], rng: random.Random) -> tuple[list[_Row], tuple[int, str]]:
    "One record and everything after it, each with a checksum that fits: only the head tells."
    rows, _ = forged(rows, rng)
    for place in range(1, len(rows)):
        row = rows[place]._replace(previous=rows[place - 1].checksum)
        rows[place] = row._replace(checksum=_checksum(row))
    return rows, (len(rows), "changed")


TAMPERING = {
    "a record changed": changed, "changed with its checksum": forged, "a record deleted": deleted,
    "deleted and the rest renumbered": closed_up, "two records swapped": swapped, "the end cut off, head known": cut,
    "the rest rewritten, head known": rewritten,
}


def replace_rows(path: Path, rows: list[_Row]) -> None:
    "Put `rows` into a store, past its triggers, and leave every trigger in place."
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        guards = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in guards:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("DELETE FROM records")
        connection.execute("DELETE FROM sqlite_sequence")
        connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        for _, sql in guards:
            connection.execute(sql)
        connection.execute("COMMIT")


def named(folder: Path, tamper: Callable, trials: int) -> int:
    "How often the check names the record that was tampered with, of `trials`."
    source, hits, rng = Store(folder / f"{tamper.__name__}.sqlite", author="Ada"), 0, random.Random(SEED)
    with source.kept_open():
        for number in range(RECORDS):
            source.append("note", f"idea {number % 7}", {"n": number, "dice": number / RECORDS})
    with closing(sqlite3.connect(source.path)) as connection:
        whole = [_Row(*row) for row in connection.execute("SELECT * FROM records ORDER BY id")]
    head = source.head
    for _ in range(trials):
        rows, fault = tamper(list(whole), rng)
        replace_rows(source.path, rows)
        hits += fault in [(found.id, found.what) for found in source.check(head=head)]
    replace_rows(source.path, whole)
    assert source.check(head=head) == (), "a whole store is accused"
    return hits


# writers that are killed

def write_records(path: Path, writer: int, said: Path, end: Path) -> None:
    "Append until there is a file `end`; say each number once `append` has returned."
    store, out, number = Store(path, author=f"writer {writer}"), os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 0
    with store.kept_open():
        while not end.exists():
            store.append("row", str(writer), {"n": number})
            os.write(out, b"%d\n" % number)
            number += 1


def write_lines(path: Path, writer: int, said: Path, end: Path) -> None:
    "The same into buffered lines of JSON, with a pause, as a training log would be kept."
    out, number = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 0
    with open(path, "a") as file:
        while not end.exists():
            file.write(json.dumps({"writer": writer, "n": number}) + "\n")
            os.write(out, b"%d\n" % number)
            number += 1
            time.sleep(0.02)


def acknowledged(said: Path) -> set[tuple[int, int]]:
    "(writer, number) of every complete line."
    found = set()
    for path in said.iterdir():
        lines = path.read_text().splitlines(keepends=True)
        found |= {(int(path.stem), int(line)) for line in lines if line.endswith("\n")}
    return found


def kill_writers(folder: Path, work: Callable, seconds: float) -> set[tuple[int, int]]:
    "Eight processes at work on one file; four are killed at different moments, the others end by themselves. What they said."
    context, said, end, rng = multiprocessing.get_context("fork"), folder / "said", folder / "end", random.Random(SEED)
    said.mkdir()
    crew = [context.Process(target=work, args=(folder / "file", number, said / str(number), end)) for number in range(WRITERS)]
    for worker in crew:
        worker.start()
    deadline = time.monotonic() + 60
    while len({writer for writer, _ in acknowledged(said)}) < WRITERS and time.monotonic() < deadline:
        time.sleep(0.01)
    for worker in crew[:KILLED]:
        time.sleep(seconds / (KILLED + 1) * rng.uniform(0.5, 1.5))
        os.kill(worker.pid, signal.SIGKILL)
    time.sleep(seconds / (KILLED + 1))
    end.touch()
    for worker in crew:
        worker.join(60)
    assert [worker.exitcode for worker in crew] == [-signal.SIGKILL] * KILLED + [0] * (WRITERS - KILLED)
    return acknowledged(said)


def lost_records(folder: Path, seconds: float) -> tuple[int, int]:  # lost, acknowledged
    said = kill_writers(folder, write_records, seconds)
    store = Store(folder / "file")
    kept = {(int(record.key), record.body["n"]) for record in store.records("row")}
    assert store.verify() >= len(said & kept)
    return len(said - kept), len(said)


def lost_lines(folder: Path, seconds: float) -> tuple[int, int]:  # lost, acknowledged
    said, kept = kill_writers(folder, write_lines, seconds), set()
    for line in (folder / "file").read_text().splitlines():
        try:
            row = json.loads(line)
            kept.add((row["writer"], row["n"]))
        except (ValueError, TypeError, KeyError):  # torn: it does not count as kept
            continue
    return len(said - kept), len(said)


# speed

def median_ms(work: Callable[[], object], count: int) -> float:
    spent = []
    for _ in range(count):
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    return 1e3 * statistics.median(spent)


def append_ms(folder: Path, count: int) -> dict[str, float]:  # milliseconds a record
    "Into a store, into lines that are forced to the disk one by one, and into buffered lines."
    body = {"params": {"width": 8}, "seed": 0, "dice": 0.8}
    store = Store(folder / "speed.sqlite", author="Ada")
    with open(folder / "forced.jsonl", "w") as forced, open(folder / "buffered.jsonl", "w") as buffered:
        def force() -> None:
            forced.write(json.dumps(body) + "\n")
            forced.flush()
            os.fsync(forced.fileno())

        def keep() -> Record:
            return store.append("run", "a", body)

        figures = {"alone": median_ms(keep, count)}
        with store.kept_open():
            figures["kept"] = median_ms(keep, count)
        figures["forced"] = median_ms(force, count)
        figures["buffered"] = median_ms(lambda: buffered.write(json.dumps(body) + "\n"), count)
    return figures


def rows(quick: bool) -> list[tuple]:
    trials, seconds, count = (20, 1.5, 100) if quick else (100, 5.0, 500)
    table = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for what, tamper in TAMPERING.items():
            hits = named(folder, tamper, trials)
            table.append((f"{what}: detected and named", f"{hits} of {trials}", f"{trials} of {trials}", hits == trials))
        for name, lose in (("store", lost_records), ("lines", lost_lines)):
            (folder / name).mkdir()
            lost, said = lose(folder / name, seconds)
            words = f"{WRITERS} writers, {KILLED} killed: acknowledged lost"
            if name == "store":
                table.append((words, f"{lost} of {said:,}", "0", lost == 0))
            else:
                table.append((f"  the same, buffered lines of JSON", f"{lost} of {said:,}", "", None))
        speed = append_ms(folder, count)
    table.append(("one append to the store, on the disk (median wall time)", f"{speed['alone']:.2f} ms", "", None))
    table.append(("  within `kept_open()`", f"{speed['kept']:.2f} ms", "", None))
    table.append(("  a line of JSON, forced to the disk", f"{speed['forced']:.2f} ms", "", None))
    table.append(("  a buffered line of JSON, lost if the process is killed", f"{speed['buffered']:.4f} ms", "", None))
    return table


def main() -> None:
    print_rows(rows(quick=False))


if __name__ == "__main__":
    main()
