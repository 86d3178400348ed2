"Malformed files of a fixed and of a new seed: nothing crashes, hangs, grows, vanishes, escapes or is silently wrong."

import random
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import dicom_mutants  # noqa: E402


def check(seed: int, own: bool, record_property) -> None:
    found = dicom_mutants.measure(seed, own)
    record_property(
        f"malformed files, {'own generator, ' if own else ''}seed {seed}",
        f"{found['files']} files, peak {found['peak_mb']} MB",
    )
    bad = {name: found[name] for name in dicom_mutants.BARS if found[name]}
    assert not bad and not found["faults"], (seed, bad, found["faults"], found["strays"], found["stderr"])


@pytest.mark.skipif(not dicom_mutants.generator(), reason="the generator of malformed files is not here (MEDKIT_FUZZ)")
@pytest.mark.parametrize("seed", [7, pytest.param(None, marks=pytest.mark.slow)], ids=["fixed", "new"])
def test_malformed_files(seed, record_property):
    check(random.SystemRandom().randrange(10**6) if seed is None else seed, False, record_property)


@pytest.mark.parametrize("seed", [1, None], ids=["fixed", "new"])
def test_malformed_files_of_our_own(seed, record_property):
    check(random.SystemRandom().randrange(10**6) if seed is None else seed, True, record_property)


BASE = np.arange(64).reshape(8, 8)


@pytest.mark.parametrize(
    ("expect", "status", "reason", "picture", "fault"),
    [
        ("error", "ok", None, BASE, "silently wrong"),
        ("error", "ok_warn", None, BASE, None),
        ("error", "failed", "truncated", None, None),
        ("same", "ok", None, BASE, None),
        ("same", "ok", None, BASE + 1, "silently wrong"),
        ("same", "failed", "bad_header", None, "valid file refused"),
        ("same_or_error", "failed", "bad_header", None, None),
        ("same_or_error", "ok_warn", None, BASE + 1, "another picture"),
        ("invert", "ok", None, 255 - BASE, None),
        ("invert", "ok", None, BASE, "silently wrong"),
        ("nocrash", "ok", None, BASE, None),
        ("nocrash", "failed", None, None, "no picture and no reason"),
    ],
)
def test_the_judge_of_one_file(expect, status, reason, picture, fault):
    assert dicom_mutants.judge_row(expect, {"status": status, "reason": reason, "notes": []}, picture, BASE) == fault


def test_the_own_corpus_follows_its_seed(tmp_path):
    made = [dicom_mutants.make_own(tmp_path / name, seed) for name, seed in (("a", 5), ("b", 5), ("c", 6))]
    assert made[0] == made[1] != made[2]
    assert all(
        (tmp_path / "a" / row["file"]).read_bytes() == (tmp_path / "b" / row["file"]).read_bytes() for row in made[0]
    )
