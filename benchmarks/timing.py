"""Medians of processor time, measured the same way by every benchmark."""

import argparse
import importlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping

REPEATS = 7


def median_cpu_s(work: Callable[[], object], repeats: int = REPEATS) -> float:
    "The median processor time of `work`, after one run that warms it up, in seconds."
    work()
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def median_process_s(*command: str, repeats: int = REPEATS) -> tuple[float, float]:  # (processor, wall), seconds
    "The median times of a whole process, after one run that warms the disk cache."
    figures = []
    for turn in range(repeats + 1):
        before, start = os.times(), time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        wall, after = time.perf_counter() - start, os.times()
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        if turn:
            figures.append((spent, wall))
    return tuple(statistics.median(column) for column in zip(*figures))


def row(what: str, value: str, note: str = "") -> None:
    print(f"{what:<44} {value:>14}  {note}", flush=True)


def print_rows(rows: Iterable[tuple[str, str, str, bool | None]]) -> list[bool]:  # for each bar whether it is met
    "Print what was measured, the figure, its bar, and whether the bar is met; None if it is no bar."
    reached = []
    for what, figure, bar, met in rows:
        print(f"{what:<60} {figure:<44} {bar:<34} {'' if met is None else 'met' if met else 'NOT MET'}", flush=True)
        reached += [] if met is None else [bool(met)]
    return reached


def run_parts(about: str, prefix: str, parts: Mapping[str, str], quick: str) -> None:  # part -> what it measures
    "The command line of a benchmark whose part P is `rows(quick)` in the module prefix_P; every part is timed."
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts), help="parts to run")
    parser.add_argument("--quick", action="store_true", help=quick)
    asked = parser.parse_args()
    met = []
    for part in asked.only:
        start = time.process_time()
        print(f"\n== {part}: {parts[part]}", flush=True)
        met += print_rows(importlib.import_module(f"{prefix}_{part}").rows(asked.quick))
        print(f"-- {time.process_time() - start:.0f} s of processor time")
    print(f"\n{sum(met)} of {len(met)} bars met")
