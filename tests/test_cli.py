"""The command line on bad input: one clear message, the right exit code, nothing half-written."""

import json
import subprocess
import sys

import numpy as np
import pytest
from pydicom.data import get_testdata_file
from test_cli_imaging import typed

import medkit
from medkit.errors import REASONS


def medkit_command(*words: str, cwd=None) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "medkit", *words], cwd=cwd, capture_output=True, text=True, timeout=120)


def test_ctrl_c_while_the_packages_load(tmp_path):
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    done = medkit_command("doctor", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


def refused(done: subprocess.CompletedProcess, reason: str) -> None:
    "Exit code 2, the reason and a remedy in a few lines, no traceback, nothing on the output stream."
    assert done.returncode == 2, done.stdout + done.stderr
    for part in (f"[{reason}]", "found:", "expected:", "what to do:"):
        assert part in done.stderr, f"{part} is missing in\n{done.stderr}"
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) <= 6, done.stderr
    assert done.stdout == ""


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    whole = open(get_testdata_file("CT_small.dcm", download=False), "rb").read()
    (folder / "whole.dcm").write_bytes(whole)
    (folder / "cut.dcm").write_bytes(whole[:-9000])
    (folder / "words.dcm").write_text("<html>Please log in</html>")
    return folder


def test_one_bad_file_never_stops_the_batch(scans, tmp_path):
    done = medkit_command("convert", str(scans), str(tmp_path / "out"), "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 1, done.stderr
    assert answer["counts"]["ok"] == 1 and sum(answer["counts"].values()) == 3 == len(answer["files"])
    reasons = {row["reason"] for row in answer["files"] if row["status"] != "ok"}
    assert reasons == {"truncated", "not_dicom"} and reasons <= REASONS.keys()
    assert len(list((tmp_path / "out").rglob("*.png"))) == 1


@pytest.mark.parametrize("name, reason", [("cut.dcm", "truncated"), ("words.dcm", "not_dicom")])
def test_nothing_converted_is_exit_code_two(scans, tmp_path, name, reason):
    done = medkit_command("convert", str(scans / name), str(tmp_path / "out"))
    assert done.returncode == 2 and reason in done.stderr and "what to do:" in done.stderr
    done = medkit_command("convert", str(scans / name), str(tmp_path / "out2"), "--json")
    assert done.returncode == 2 and json.loads(done.stdout)["counts"]["ok"] == 0


def test_help_shows_every_command_with_an_example():
    done = medkit_command("--help")
    assert done.returncode == 0
    for command in ("doctor", "tour", "convert", "verify", "headers", "deid", "audit", "key", "vitals", "ward", "data"):
        assert command in done.stdout
        assert "Example:" in medkit_command(command, "--help").stdout


def test_help_imports_no_heavy_package():
    code = "import sys, medkit.cli; print(sorted({'torch', 'fastai', 'matplotlib', 'pandas', 'scipy'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("world, forbidden", [
    ("", {"torch", "fastai", "numpy", "matplotlib"}), ("imaging", {"torch", "fastai"}), ("signals", {"torch", "fastai"}),
    ("stages", {"torch", "fastai"}),
])
def test_worlds_load_only_what_they_need(world, forbidden):
    every_name = "for name in m.__all__: getattr(m, name)" if world else ""
    code = f"import sys, medkit{'.' + world if world else ''} as m\n{every_name}\nprint(sorted({forbidden!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_missing_source_and_unknown_window(scans, tmp_path):
    refused(medkit_command("convert", str(tmp_path / "none"), str(tmp_path / "out")), "not_found")
    refused(medkit_command("convert", str(scans), str(tmp_path / "out"), "--window", "pancreatic"), "unknown_window")
    assert not (tmp_path / "out").exists()


def test_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    refused(medkit_command("convert", str(tmp_path / "empty"), str(tmp_path / "out")), "empty")
    assert not (tmp_path / "out").exists()


def test_target_that_cannot_be_written(scans, tmp_path):
    (tmp_path / "file").write_text("in the way")
    refused(medkit_command("convert", str(scans), str(tmp_path / "file" / "out")), "not_writable")
    refused(medkit_command("tour", "--target", str(tmp_path / "file" / "out")), "not_writable")
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.fixture
def night(tmp_path):
    path = tmp_path / "night.csv"
    recording, _ = medkit.signals.simulate_bcg(60, sampling_rate_hz=100, snr_db=10, seed=1)
    np.savetxt(path, recording.samples.T, fmt="%.3f", header="bcg", comments="")
    return path


def test_vitals_of_a_good_file(night, tmp_path):
    done = medkit_command("vitals", str(night), "--sampling-rate-hz", "100", "--out", str(tmp_path / "v.csv"), "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == len((tmp_path / "v.csv").read_text().splitlines()) - 1


def test_vitals_asks_for_the_sampling_rate(night):
    refused(medkit_command("vitals", str(night)), "sampling_rate_missing")
    refused(medkit_command("vitals", str(night), "--sampling-rate-hz", "-5"), "bad_sampling_rate")


def test_vitals_names_the_columns_it_has(night):
    done = medkit_command("vitals", str(night), "--sampling-rate-hz", "100", "--column", "heart")
    refused(done, "bad_column")
    assert "bcg" in done.stderr


def test_vitals_of_a_table_with_words(night, tmp_path):
    lines = night.read_text().splitlines()
    lines[300] = "unplugged"
    (tmp_path / "words.csv").write_text("\n".join(lines))
    refused(medkit_command("vitals", str(tmp_path / "words.csv"), "--sampling-rate-hz", "100"), "not_numeric")


def test_vitals_with_a_gap_withholds_it(night, tmp_path):
    lines = night.read_text().splitlines()
    lines[2001:4001] = ["nan"] * 2000
    (tmp_path / "gap.csv").write_text("\n".join(lines))
    done = medkit_command("vitals", str(tmp_path / "gap.csv"), "--sampling-rate-hz", "100", "--json")
    rows = json.loads(done.stdout)
    assert done.returncode == 0
    inside = [row for row in rows if row["start_s"] == 20]
    assert inside and all(row["heart_rate_bpm"] is None and row["reason"] for row in inside)


def test_target_of_a_table_that_cannot_be_written(night, tmp_path):
    (tmp_path / "file").write_text("in the way")
    refused(medkit_command("vitals", str(night), "--sampling-rate-hz", "100", "--out", str(tmp_path / "file" / "v.csv")), "not_writable")


def test_vitals_refuses_before_it_works(night, tmp_path):
    rate = ("--sampling-rate-hz", "100")
    refused(typed("vitals", str(night), *rate, "--out", str(night), cwd=tmp_path), "bad_option")
    refused(typed("vitals", str(night), *rate, "--policy", "lax", cwd=tmp_path), "bad_option")
    refused(typed("vitals", str(night), *rate, "--out", str(tmp_path / "v.xlsx"), cwd=tmp_path), "bad_option")
    assert not (tmp_path / "v.xlsx").exists() and "JSON list" in " ".join(typed("vitals", "--help", cwd=tmp_path).stdout.split())
    refused(typed("vitals", str(night), *rate, "--channel", "x,,y", cwd=tmp_path), "bad_option")
    refused(typed("vitals", str(tmp_path / "absent.csv"), *rate, "--out", str(night), cwd=tmp_path), "not_found")
    folder = typed("vitals", str(tmp_path), *rate, cwd=tmp_path)
    refused(folder, "bad_option")
    assert "medkit ward FOLDER TARGET" in folder.stderr and night.read_text().startswith("bcg")


def test_vitals_of_several_channels(night, tmp_path):
    one = np.loadtxt(night, skiprows=1)
    np.savez(tmp_path / "bed.npz", samples=np.stack([one, one, one]), channels=["x", "y", "z"], fs=100)
    asked = typed("vitals", str(tmp_path / "bed.npz"), cwd=tmp_path)
    refused(asked, "bad_column")
    assert "x, y, z" in asked.stderr and "--channel" in asked.stderr
    done = typed("vitals", str(tmp_path / "bed.npz"), "--channel", "x,2", "--hop-s", "15", "--policy", "strict", "--out", str(tmp_path / "v.csv"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "windows answered" in done.stdout and "why withheld" in done.stdout and "v.csv" in done.stdout
    assert [line.split(",")[0] for line in (tmp_path / "v.csv").read_text().splitlines()] == ["start_s", "0.0", "15.0", "30.0"]


def test_a_ward_with_a_bad_file_is_finished_with_exit_code_one(night, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "night.csv").write_bytes(night.read_bytes())
    (tmp_path / "in" / "words.csv").write_text(night.read_text().replace("\n", "\nunplugged\n", 50))
    words = ("ward", str(tmp_path / "in"), str(tmp_path / "out"), "--sampling-rate-hz", "100", "--workers", "1")
    done = typed(*words, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    for part in ("2 inputs, 1 table in", "failed: words.csv (not_numeric)", "4 windows with a heart rate", "Not for clinical use"):
        assert part in done.stdout, done.stdout
    again = json.loads(typed(*words, "--json", cwd=tmp_path).stdout)
    assert again["resumed"] == 1 and again["windows"] == 4 and len(again["files"]) == 2
    tables = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.csv")}
    refused(typed("ward", str(tmp_path / "in"), str(tmp_path / "out"), "--workers", "1", cwd=tmp_path), "already_exists")  # no rate
    assert tables and tables == {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.csv")}
    refused(typed("ward", str(tmp_path / "none"), str(tmp_path / "v"), cwd=tmp_path), "not_found")
    refused(typed("ward", str(tmp_path / "in"), str(tmp_path / "v"), "--policy", "lax", cwd=tmp_path), "bad_option")
    nothing = typed("ward", str(tmp_path / "in"), str(tmp_path / "v"), "--workers", "1", cwd=tmp_path)
    assert nothing.returncode == 2 and "[sampling_rate_missing]" in nothing.stderr


def test_errors_as_json(tmp_path):
    done = medkit_command("vitals", str(tmp_path / "none.csv"), "--sampling-rate-hz", "100", "--json")
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert error["reason"] == "not_found" and error["hint"]
