"""Killed at random moments, on a full disk, on a disk for reading only: what is left, and what the next run makes of it."""

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from dicom_scale import small_files
from processes import ENV, kill_group, marked

VARIABLE = ("seconds", "peak_mb")  # what may differ between two manifests of one job

CONVERT = """
import json, sys
from medkit import imaging
report = imaging.convert(sys.argv[1], sys.argv[2], workers=int(sys.argv[3]))
print(json.dumps({"resumed": report.resumed, "counts": report.counts}))
"""


@dataclass
class Kills:
    "What many kills did."

    kills: int = 0  # jobs that were still running when they were killed
    corrupt: int = 0  # pictures under a final name that the uninterrupted run does not have, byte for byte
    lost: int = 0  # pictures or rows missing after resuming
    redone: int = 0  # inputs that had a row at the kill and were done again
    in_flight: int = 0  # the most pictures on disk without a row, at any kill
    left_over: int = 0  # half-written files that stayed after resuming
    orphans: int = 0  # processes still alive 3 s after the kill
    different: int = 0  # manifests that differ from the uninterrupted one
    at: list[int] = field(default_factory=list)  # rows done at each kill
    refused: list[str] = field(default_factory=list)  # runs that could not resume

    @property
    def clean(self) -> bool:
        return not any(
            (self.corrupt, self.lost, self.redone, self.left_over, self.orphans, self.different, self.refused)
        )


def start(source: Path, target: Path, workers: int, mark: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CONVERT, str(source), str(target), str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **ENV, "MEDKIT_BENCH": mark},
        start_new_session=True,
    )


def whole_lines(manifest: Path) -> list[dict]:
    "Rows of a manifest that may end in a torn line; the last row of an id counts."
    rows = {}
    for line in manifest.read_bytes().split(b"\n")[:-1] if manifest.is_file() else ():
        with suppress(ValueError):
            row = json.loads(line)
            rows[row["id"]] = row
    return list(rows.values())


def books(target: Path) -> dict[str, dict]:
    "The manifest by id, without what may differ between runs."
    return {
        row["id"]: {name: value for name, value in row.items() if name not in VARIABLE}
        for row in whole_lines(target / "manifest.jsonl")
    }


def pictures(target: Path) -> dict[str, bytes]:
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*.png")}


def extra_files(target: Path) -> list[str]:
    "Whatever is neither a picture nor one of the two lists."
    allowed = ("manifest.jsonl", "manifest.sha256", "sources.private.jsonl")
    return [
        path.name for path in target.rglob("*") if path.is_file() and path.suffix != ".png" and path.name not in allowed
    ]


def kill_many(folder: Path, files: int = 2000, kills: int = 10, seed: int | None = None, workers: int = 2) -> Kills:
    "Kill a job at random moments, each time a new one, resume it, and compare with a run that nobody disturbed."
    source, choose, result = small_files(folder / "in", files), random.Random(seed), Kills()
    begun = time.perf_counter()
    whole = start(source, folder / "whole", workers, "whole")
    waits = (until_rows(whole, folder / "whole"), time.perf_counter() - begun)[1]
    assert whole.wait() == 0, whole.stderr.read()[-800:]
    lasts = time.perf_counter() - begun - waits
    truth, rows = pictures(folder / "whole"), books(folder / "whole")
    while result.kills < kills:
        early = choose.random() < 0.1  # one in ten while the job still starts
        after_s = choose.uniform(0, waits if early else lasts)
        kill_once(source, folder / "killed", workers, early, after_s, truth, rows, result)
        shutil.rmtree(folder / "killed", ignore_errors=True)
    return result


def until_rows(process: subprocess.Popen, target: Path) -> None:
    "Wait for the first row of the manifest, or for the end of the process."
    while process.poll() is None and not (
        (target / "manifest.jsonl").is_file() and (target / "manifest.jsonl").stat().st_size
    ):
        time.sleep(0.002)


def kill_once(
    source: Path, target: Path, workers: int, early: bool, after_s: float, truth: dict, rows: dict, result: Kills
) -> None:
    "Start a job, kill its process group some time after its first row (or after its start), resume it, count."
    mark = uuid.uuid4().hex
    process = start(source, target, workers, mark)
    if not early:
        until_rows(process, target)
    time.sleep(after_s)
    if process.poll() is not None:
        return
    kill_group(process.pid)
    process.communicate()
    result.kills += 1
    result.orphans += survivors(mark)
    done = [row for row in whole_lines(target / "manifest.jsonl") if row["status"] in ("ok", "ok_warn")]
    found = pictures(target)
    result.at.append(len(done))
    result.in_flight = max(result.in_flight, len(found) - sum(len(row["outputs"]) for row in done))
    result.corrupt += sum(truth.get(name) != data for name, data in found.items())
    resumed = start(source, target, workers, mark)
    said, errors = resumed.communicate(timeout=600)
    if resumed.returncode:
        result.refused.append(errors.strip()[-300:])
        return
    after = pictures(target)
    result.redone += max(0, len(done) - json.loads(said.splitlines()[-1])["resumed"])
    result.lost += len(truth.keys() - after.keys()) + len(rows.keys() - books(target).keys())
    result.corrupt += sum(truth.get(name) != data for name, data in after.items())
    result.left_over += len(extra_files(target))
    result.different += books(target) != rows


def survivors(mark: str) -> int:
    "Processes of a killed job that are still there after 3 s; they are ended."
    end = time.time() + 3
    while (alive := marked(mark)) and time.time() < end:
        time.sleep(0.02)
    for pid in alive:
        with suppress(ProcessLookupError):
            os.kill(pid, 9)
    return len(alive)


@contextmanager
def small_disk(place: Path, size: str = "1m") -> Iterator[Path]:
    "A disk of a given size in memory; needs root. Always unmounted."
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)], check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)


def can_mount(place: Path) -> str | None:
    "Why no disk can be mounted here, or None."
    if not hasattr(os, "geteuid") or os.geteuid():
        return "only root can mount a small disk"
    try:
        with small_disk(place):
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no disk can be mounted: {error}"


def command(source: Path, target: Path) -> subprocess.CompletedProcess:
    "`medkit convert`, as a user types it."
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "medkit", "convert", str(source), str(target)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **ENV, "COLUMNS": "200"},
        errors="replace",
    )


def partial(target: Path) -> list[str]:
    "Pictures that cannot be decoded to the last byte, and files of no known kind."
    from PIL import Image

    torn = []
    for path in target.rglob("*.png"):
        try:
            with Image.open(path) as picture:
                picture.load()
            if not path.read_bytes().endswith(b"IEND\xaeB`\x82"):
                torn.append(path.name)
        except OSError:
            torn.append(path.name)
    return torn + extra_files(target)


LOG = "superseded.private.jsonl"  # what a stopped job has placed, for the run that goes on; a finished job has none


def judge_stop(done: subprocess.CompletedProcess, target: Path, before: dict | None = None) -> list[str]:
    "What is wrong with the way a job gave up."
    faults = []
    if done.returncode != 2:
        faults.append(f"exit code {done.returncode}")
    if "Traceback" in done.stderr or "[not_writable]" not in done.stderr:
        faults.append("no clear line: " + done.stderr.strip()[-200:])
    if left := [name for name in partial(target) if name != LOG]:
        faults.append(f"left behind: {left[:3]}")
    if before is not None and pictures(target) != before:
        faults.append("pictures changed")
    rows = whole_lines(target / "manifest.jsonl")
    if missing := [name for row in rows for name in row["outputs"] if not (target / name).is_file()]:
        faults.append(f"rows without pictures: {missing[:3]}")
    return faults


def full_disk(folder: Path, files: int = 600) -> list[str]:
    "A disk of 1 MB for more than that; then room is made, and the same command goes on."
    source = small_files(folder / "in", files)
    with small_disk(folder / "disk") as disk:
        faults = judge_stop(command(source, disk / "out"), disk / "out")
        done = len(whole_lines(disk / "out" / "manifest.jsonl"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        again = command(source, disk / "out")
        if again.returncode or len(pictures(disk / "out")) != files:
            faults.append(f"does not go on: exit code {again.returncode}, {len(pictures(disk / 'out'))} pictures")
        if left := partial(disk / "out"):
            faults.append(f"left behind after going on: {left[:3]}")
    return faults + ([] if done < files else ["the disk was not full"])


def read_only_target(folder: Path, files: int = 40) -> list[str]:
    "A target on a disk mounted for reading, new and with half of a job in it."
    source = small_files(folder / "in", files)
    with small_disk(folder / "disk", "16m") as disk:
        command(source / "0000", disk / "out")
        before = pictures(disk / "out")
        (source / "0000" / "999999.dcm").write_bytes(next((source / "0000").iterdir()).read_bytes())
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        return judge_stop(command(source / "0000", disk / "out"), disk / "out", before) + judge_stop(
            command(source, disk / "new"), disk / "new"
        )


def read_only_manifest(folder: Path, files: int = 40) -> list[str]:
    "A manifest that even root cannot write: a bind mount for reading over the file."
    source = small_files(folder / "in", files)
    command(source, folder / "out")
    before, manifest = pictures(folder / "out"), folder / "out" / "manifest.jsonl"
    (source / "0000" / "999999.dcm").write_bytes((source / "0000" / "000000.dcm").read_bytes())
    subprocess.run(["mount", "--bind", str(manifest), str(manifest)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(manifest)], check=True)
        return judge_stop(command(source, folder / "out"), folder / "out", before)
    finally:
        subprocess.run(["umount", "-l", str(manifest)], check=False)


def summary(kills: Kills) -> str:
    points = f"{min(kills.at)}-{max(kills.at)}, median {statistics.median(kills.at):.0f} rows" if kills.at else "none"
    return (
        f"{kills.kills} kills (at {points}): {kills.corrupt} corrupt, {kills.lost} lost, {kills.redone} redone, "
        f"{kills.left_over} left over, {kills.orphans} orphans, {kills.different} manifests differ, "
        f"<= {kills.in_flight} in flight"
    )
