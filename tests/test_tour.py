"""The tour as a person gets it: one command in an empty folder, an executed notebook, one page, honest figures."""

import json
import os
import re
import subprocess
import sys

import nbformat
import pytest
from shown import Elements, harmless

pytestmark = [pytest.mark.tour, pytest.mark.xdist_group("tour")]  # one run serves all


@pytest.fixture(scope="module")
def tour(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("tour")
    env = {**os.environ, "MEDKIT_CACHE": str(folder / "cache"), "MEDKIT_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "medkit", "tour", "--target", str(folder / "out"), "--json"],
        cwd=folder, env=env, capture_output=True, text=True, timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {**json.loads(done.stdout), "folder": folder / "out"}


def interval(row: dict) -> tuple[float, float]:
    low, high = map(float, re.findall(r"-?\d+\.\d+", row["interval"]))
    return low, high


def naive(row: dict) -> float:
    return float(re.findall(r"-?\d+\.\d+", row["naive"])[-1])


def test_every_cell_ran_without_an_error(tour, record_property):
    notebook = nbformat.read(tour["notebook"], as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 10 and all(cell.execution_count for cell in code)
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    record_property("tour", f"{tour['seconds']} s, {len(code)} code cells")


def test_every_result_says_what_it_was_measured_on(tour):
    parts = {row["part"] for row in tour["rows"]}
    assert parts >= {"conversion", "segmentation", "classification", "heartbeats", "idea", "8-bit variant", "gate"}
    assert all(row["data"].startswith(("real", "simulated")) for row in tour["rows"])
    if os.environ.get("MEDKIT_DATA"):
        assert any(row["data"].startswith("real") for row in tour["rows"] if row["part"] == "heartbeats")


@pytest.mark.parametrize("part", ["segmentation", "classification"])
def test_models_beat_their_naive_guess_on_unseen_patients(tour, part):
    rows = [row for row in tour["rows"] if row["part"] == part]
    assert rows
    for row in rows:
        patients = int(re.search(r"(\d+) unseen patients", row["data"]).group(1))
        low, high = interval(row)
        assert patients >= 30 and low <= float(row["value"]) <= high
        assert low > naive(row), f"{row} does not exclude the naive guess"


def test_the_page_stands_alone_and_can_be_read_aloud(tour):
    text = (tour["folder"] / "report.html").read_text()
    found = Elements(text).found
    loads = [of.get("src") or of.get("href") or "" for tag, of in found if tag in ("img", "link", "iframe", "source")]
    pictures = [of.get("alt") or "" for tag, of in found if tag == "img"]
    headings = [int(tag[1]) for tag, _ in found if re.fullmatch(r"h[1-6]", tag)]
    assert harmless(text) and all(load.startswith("data:") for load in loads)
    assert "url(" not in text.split("</style>")[0] and "@import" not in text
    assert len(pictures) >= 6 and all(len(alt) > 10 for alt in pictures)
    assert headings[0] == 1 and headings.count(1) == 1
    assert "Not for clinical use" in text and '<html lang="en">' in text
    assert len(text) < 4_000_000


def test_the_page_names_no_machine(tour):
    text = (tour["folder"] / "report.html").read_text()
    assert not re.search(r"(/root/|/home/|/work/|/tmp/)", re.sub(r'src="data:[^"]*"', "", text))
