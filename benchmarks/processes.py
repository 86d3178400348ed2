"""Watching whole families of processes through /proc: memory, kills, and whether anybody else used the machine."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20
TICKS = os.sysconf("SC_CLK_TCK")
ENV = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1"
)


def family(pid: int) -> list[int]:
    "A process and all that descend from it."
    found = [pid]
    for member in found:
        with suppress(OSError):
            for thread in os.listdir(f"/proc/{member}/task"):
                found += map(int, Path(f"/proc/{member}/task/{thread}/children").read_text().split())
    return found


def resident_mb(pids: list[int]) -> float:
    total = 0.0
    for pid in pids:
        with suppress(OSError, IndexError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_MB
    return total


def marked(mark: str) -> list[int]:
    "Processes that inherited the environment variable MEDKIT_BENCH=`mark`, whoever their parent is now."
    found = []
    for entry in os.listdir("/proc"):
        with suppress(OSError):
            if entry.isdigit() and f"MEDKIT_BENCH={mark}\0".encode() in Path(f"/proc/{entry}/environ").read_bytes():
                found.append(int(entry))
    return found


def busy_s() -> float:
    "Processor seconds that the whole machine has spent since it started, idle and waiting left out."
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / TICKS


@dataclass
class Usage:
    "What one run cost."

    cpu_s: float  # user and system, of the process and all it waited for
    wall_s: float
    others: float  # cores that somebody else kept busy meanwhile
    returncode: int
    output: str
    errors: str
    peak_mb: float  # of the whole family, sampled
    samples: list[tuple[float, float]] = field(default_factory=list)  # (time, MB)


class Watch(threading.Thread):
    "Samples the memory of a family until it is told to stop."

    def __init__(self, pid: int, every_s: float = 0.05):
        super().__init__(daemon=True)
        self.pid, self.every_s, self.samples, self.done = pid, every_s, [], threading.Event()

    def run(self):
        while not self.done.wait(self.every_s):
            self.samples.append((time.time(), resident_mb(family(self.pid))))


def run_python(
    code: str, *arguments: object, timeout: float = 600, env: dict | None = None, every_s: float = 0.2
) -> Usage:
    "Run a piece of Python in a process group of its own and say what it cost."
    before, start, busy = os.times(), time.perf_counter(), busy_s()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.PIPE,
        env={**os.environ, **ENV, **(env or {})},
        start_new_session=True,
        errors="replace",
    )
    watch = Watch(process.pid, every_s)
    watch.start()
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        kill_group(process.pid)
        output, errors = process.communicate()
        errors += f"\nstopped after {timeout} s"
    watch.done.set()
    wall, after = time.perf_counter() - start, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    own = cpu + after.user + after.system - before.user - before.system
    return Usage(
        cpu,
        wall,
        max(0.0, (busy_s() - busy - own) / wall),
        process.returncode,
        output,
        errors,
        max((size for _, size in watch.samples), default=0.0),
        watch.samples,
    )


def kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
