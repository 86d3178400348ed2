"""A ward of simulated nights, on this machine and on Ray, killed at random and resumed: is every result what it would have been?

    python benchmarks/bcg_ward.py                    # 1,000 nights of 10 minutes
    python benchmarks/bcg_ward.py --nights 60        # a quick look
    python benchmarks/bcg_ward.py --full             # 1,000 nights of 8 hours
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from processes import ENV, family, marked
from timing import row

from medkit.files import Manifest
from medkit.signals import simulate_bcg
from medkit.verify import verify

RATE_HZ = 50
VARIABLE = ("seconds", "peak_mb")  # what may differ between two manifests of one job
SNR_DB = (15, 10, 5, 0)

MEASURE = """
import json, os, sys
from medkit import signals
report = signals.measure_ward(sys.argv[1], sys.argv[2], workers=int(sys.argv[3]), engine=sys.argv[4])
print(json.dumps({"resumed": report.resumed, "counts": report.counts, "windows": report.windows, "answered": report.answered}))
"""


@dataclass
class Ward:
    "What one job did, kills included."

    counts: dict
    wall_s: float
    cpu_s: float
    resumed: int = 0
    worker_kills: int = 0
    parent_kills: int = 0
    orphans: int = 0  # workers still alive 10 s after their parent was killed


def simulate_ward(folder: Path, nights: int, minutes: float, people: int = 16) -> None:
    "Nights as NPZ files of 16-bit integers; parts of a few long recordings, each turned, scaled and with noise of its own."
    folder.mkdir(parents=True)
    long = [
        simulate_bcg(60 * minutes * 1.5, RATE_HZ, snr_db=SNR_DB[person % 4], seed=person)[0].samples[0]
        for person in range(min(people, nights))
    ]
    length = int(60 * minutes * RATE_HZ)
    for night in range(nights):
        rng = np.random.default_rng(night)
        begin = rng.integers(len(long[0]) - length)
        part = long[night % len(long)][begin : begin + length]
        part = rng.choice([-1, 1]) * rng.uniform(0.5, 2) * (part + 0.05 * part.std() * rng.normal(size=length))
        counts = np.round(part / np.abs(part).max() * 32000).astype(np.int16)
        np.savez_compressed(folder / f"night {night:04d}.npz", bed=counts, fs=RATE_HZ)


def start(source: Path, target: Path, workers: int, engine: str, mark: str) -> subprocess.Popen:
    words = [sys.executable, "-W", "ignore", "-c", MEASURE, str(source), str(target), str(workers), engine]
    env = {**os.environ, **ENV, "MEDKIT_BENCH": mark}
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, start_new_session=True
    )


def spent_s(pids: list[int], seen: dict[int, float]) -> None:
    "Note the processor seconds of processes, so that those of the ones that are killed count too."
    for pid in pids:
        with suppress(OSError, IndexError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            seen[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rows_done(target: Path) -> int:
    path = target / "manifest.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def workers_of(mark: str) -> list[int]:
    "The processes that measure: started by medkit, on this machine or within an actor of Ray."
    found = []
    for pid in marked(mark):
        with suppress(OSError):
            if b"medkit.isolate" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def watch(process: subprocess.Popen, target: Path, mark: str, plan: dict[int, str], ward: Ward, seen: dict) -> bool:
    "Wait for the end of a job, and kill what the plan says at so many rows; whether the job itself was killed."
    while process.poll() is None:
        spent_s(sorted({*family(process.pid), *marked(mark)}), seen)
        due = [goal for goal in plan if rows_done(target) >= goal]
        for goal in due:
            what, victims = plan.pop(goal), workers_of(mark)
            if what == "parent":
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
                ward.parent_kills += 1
                return True
            if victims:
                with suppress(ProcessLookupError):
                    os.kill(random.choice(victims), signal.SIGKILL)
                ward.worker_kills += 1
        time.sleep(0.1)
    return False


def sweep(mark: str, patience_s: float = 10) -> int:
    "Workers of a killed job that are still there after a while; they are ended, and so is a cluster that Ray left behind."
    end = time.time() + patience_s
    while marked(mark) and time.time() < end:
        time.sleep(0.1)
    orphans = len(workers_of(mark))
    for pid in marked(mark):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return orphans


def measure(source: Path, target: Path, workers: int, engine: str, plan: dict[int, str]) -> Ward:
    "Run a job, kill by plan, run it again until it ends."
    ward, begun, seen, mark = Ward({}, 0, 0), time.perf_counter(), {}, f"ward-{os.getpid()}-{target.name}"
    while True:
        process = start(source, target, workers, engine, mark)
        killed = watch(process, target, mark, plan, ward, seen)
        ward.orphans += sweep(mark) if killed else 0
        said, errors = process.communicate()
        if killed:
            continue
        if process.returncode:
            raise SystemExit(f"the job ended with {process.returncode}: {errors[-800:]}")
        answer = json.loads(said.splitlines()[-1])
        ward.counts, ward.resumed = answer["counts"], answer["resumed"]
        ward.wall_s, ward.cpu_s = time.perf_counter() - begun, sum(seen.values())
        return ward


def books(target: Path) -> list[dict]:
    rows = Manifest(target / "manifest.jsonl").rows()
    return [{name: value for name, value in one.items() if name not in VARIABLE} for one in rows]


def tables(target: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in target.glob("*.csv")}


def plan_kills(nights: int, kills: int, seed: int) -> dict[int, str]:
    "At how many rows what is killed: workers and parents in turn."
    goals = sorted(random.Random(seed).sample(range(1, max(nights - 4, kills + 1)), kills))
    return {goal: ("worker", "parent")[number % 2] for number, goal in enumerate(goals)}


def report(name: str, ward: Ward, nights: int, hours: float, target: Path, truth: Path | None) -> None:
    kills = f"{ward.worker_kills} workers and {ward.parent_kills} parents killed, {ward.orphans} orphans" if truth else "undisturbed"
    row(f"{name}: nights per minute", f"{60 * nights / ward.wall_s:.0f}", f"{ward.wall_s:.0f} s, {kills}")
    row(f"{name}: processor time", f"{ward.cpu_s / hours:.2f} s/h", f"per hour of signal; {hours:.1f} h, start-up included")
    rows = books(target)
    row(f"{name}: rows", f"{len(rows)} of {nights}", f"{ward.counts}; {len(verify(target).findings)} faults found by verify")
    if truth:
        same = sum(data == tables(target).get(one) for one, data in tables(truth).items())
        row(f"{name}: tables equal, byte for byte", f"{same} of {nights}", f"the last run took over {ward.resumed} of them")
        row(f"{name}: manifest equal, times left out", "yes" if rows == books(truth) else "NO")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nights", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=10, help="length of a night")
    parser.add_argument("--full", action="store_true", help="nights of 8 hours")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=6, help="for each engine")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engines", default="local,ray")
    options = parser.parse_args()
    nights, minutes = options.nights, 480 if options.full else options.minutes
    with tempfile.TemporaryDirectory(prefix="ward-") as place:
        folder = Path(place)
        simulate_ward(folder / "in", nights, minutes)
        size_mb = sum(path.stat().st_size for path in (folder / "in").iterdir()) / 1e6
        row("ward", f"{nights} nights", f"{minutes:g} minutes each at {RATE_HZ} Hz, {size_mb:.0f} MB, {options.workers} workers")
        hours = nights * minutes / 60
        whole = measure(folder / "in", folder / "whole", options.workers, "local", {})
        report("local, nobody disturbs", whole, nights, hours, folder / "whole", None)
        for engine in options.engines.split(","):
            plan, target = plan_kills(nights, options.kills, options.seed), folder / engine
            ward = measure(folder / "in", target, options.workers, engine, plan)
            report(f"{engine}, killed", ward, nights, hours, target, folder / "whole")
            shutil.rmtree(target)


if __name__ == "__main__":
    main()
