"""Ten worked ideas: does the assay say what a careful team says, and how fast? `python benchmarks/stages_ideas.py`."""

import statistics
import tempfile
import time
from pathlib import Path

from medkit import stages
from timing import print_rows


def judge_ms(cards: tuple[stages.Card, ...], folder: Path, number: int) -> tuple[float, stages.Judgement, int]:
    "Wall time of ten assays with their decisions in a new store, what was judged, and the records that the store then verifies."
    store = stages.Store(folder / f"{number}.sqlite")
    start = time.perf_counter()
    judgement = stages.judge(cards, store, by="benchmark")
    return 1000 * (time.perf_counter() - start), judgement, store.verify()


def rows(quick: bool) -> list[tuple]:
    cards = stages.worked_ideas()
    with tempfile.TemporaryDirectory() as temporary:
        runs = [judge_ms(cards, Path(temporary), number) for number in range(3 if quick else 11)]
    judgement, stored = runs[0][1:]
    median, worst = statistics.median(ms for ms, *_ in runs), max(ms for ms, *_ in runs)
    agreed = sum(row.agrees is True for row in judgement.rows)
    criteria = [len(row.assay.checks) for row in judgement.rows]
    passed_unknown = sum(check.margin is None and check.met is None and check.verdict == "pass"
                         for row in judgement.rows for check in row.assay.checks)
    return [
        ("worked ideas judged as their answers say", f"{agreed} of {len(cards)}", "10 of 10", agreed == len(cards) == 10),
        ("assay of ten ideas, decisions stored (wall time)", f"{median:.0f} ms, worst of {len(runs)}: {worst:.0f} ms", "<= 100 ms",
         median <= 100),
        ("decisions that the store verifies", f"{stored}", "10", stored == 10),
        ("criteria an idea", f"{min(criteria)} to {max(criteria)}", ">= 11", min(criteria) >= 11),
        ("unknown counted as a pass", f"{passed_unknown}", "0", passed_unknown == 0),
    ]


def main() -> None:
    print_rows(rows(quick=False))


if __name__ == "__main__":
    main()
