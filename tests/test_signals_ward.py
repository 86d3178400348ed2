"A ward: one table and one row for every recording, whatever the files hold, whoever is killed; on this machine and on Ray."

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import psutil
import pytest
from jobs import Stop, stop_at

from medkit.errors import MedkitError
from medkit.files import Manifest
from medkit.signals import measure_vitals, measure_ward, read_recording, simulate_bcg
from medkit.signals.ward import FACTS, WardReport, vitals_csv
from medkit.verify import verify

NIGHTS = 10


@pytest.fixture(scope="module")
def nights() -> np.ndarray:
    recording, _ = simulate_bcg(90 * NIGHTS, 50, snr_db=10, seed=5, bed_exits_per_hour=0)
    return recording.samples[0].reshape(NIGHTS, -1).astype(np.float32)


@pytest.fixture(scope="module")
def source(nights, tmp_path_factory) -> Path:
    "Ten nights in two folders, a cut one, a copy and a note."
    folder = tmp_path_factory.mktemp("ward")
    for number, samples in enumerate(nights):
        (folder / f"floor {number % 2}").mkdir(exist_ok=True)
        np.savez_compressed(folder / f"floor {number % 2}" / f"Jane Doe {number}.npz", bed=samples, fs=50)
    whole = (folder / "floor 0" / "Jane Doe 0.npz").read_bytes()
    (folder / "cut.npz").write_bytes(whole[:-500])
    (folder / "floor 1" / "copy.npz").write_bytes(whole)
    (folder / "note.txt").write_text("call back on Monday")
    return folder


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory) -> WardReport:
    "The run that nobody disturbs."
    return measure_ward(source, tmp_path_factory.mktemp("whole") / "out", workers=1)


def result(target: Path) -> tuple:
    "What a job leaves, without times: for comparing two runs."
    assert verify(target).findings == ()
    lines = [{name: value for name, value in row.items() if name not in ("seconds", "peak_mb")} for row in Manifest(target / "manifest.jsonl").rows()]
    assert {path.name for path in target.iterdir() if path.suffix != ".csv"} == {"manifest.jsonl", "manifest.sha256", "sources.private.jsonl"}
    return lines, {path.name: path.read_bytes() for path in target.glob("*.csv")}


def test_every_input_has_its_row_and_every_night_its_table(source, whole, nights):
    assert whole.counts == {"ok": NIGHTS, "ok_warn": 0, "skipped": 2, "failed": 1} and len(whole.files) == NIGHTS + 3
    rows = {row["source"]: row for row in whole.files}
    assert {name: row["reason"] for name, row in rows.items() if row["reason"]} == {
        "cut.npz": "truncated", "floor 1/copy.npz": "duplicate", "note.txt": "empty"}
    for number in (0, 7):
        name = f"floor {number % 2}/Jane Doe {number}.npz"
        alone = measure_vitals(read_recording(source / name))
        assert (whole.target / rows[name]["outputs"][0]).read_bytes() == vitals_csv(alone)
        assert rows[name]["windows"] == len(alone.rows) and rows[name]["duration_s"] == 90
        np.testing.assert_allclose(whole.night(name).heart_rate_bpm, alone.to_frame().heart_rate_bpm, atol=1e-4)
    assert whole.windows == 7 * NIGHTS and 0 < whole.answered <= whole.windows
    assert f"{NIGHTS} measured, 2 skipped, 1 failed" in repr(whole) and list(whole.to_frame()) == list(FACTS)
    json.dumps(whole.as_dict(), allow_nan=False)


def test_no_name_reaches_what_is_shared(whole):
    for path in whole.target.iterdir():
        assert not [word for word in ("Jane", "Doe", "floor", "copy") if word in path.name]
        if path.name != "sources.private.jsonl":
            assert not [word for word in (b"Jane", b"Doe", b"floor", b"copy.npz") if word in path.read_bytes()]


def test_clock_times_and_names_of_channels_stay_out(nights, tmp_path):
    (tmp_path / "in").mkdir()
    lines = [f"2021-03-04 23:{at // 3000:02}:{at % 3000 / 50:06.3f},{sample:.3f}" for at, sample in enumerate(nights[0])]
    (tmp_path / "in" / "a.csv").write_text("time,bed of Doe\n" + "\n".join(lines[:1000] + lines[1500:]))
    (tmp_path / "in" / "b.csv").write_text("time,bed of Doe\n" + "\n".join(line.split(",")[0] + ",3" for line in lines))
    report = measure_ward(tmp_path / "in", tmp_path / "out", workers=1)
    shared = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir() if path.name != "sources.private.jsonl")
    assert b"Doe" not in shared and b"2021" not in shared and b"23:0" not in shared
    assert any("one value" in note for row in report.files for note in row.get("notes") or ())


def test_nothing_is_done_twice_and_other_options_are_not_taken_for_done(source, whole, tmp_path):
    with pytest.raises(Stop):
        measure_ward(source, tmp_path / "out", workers=1, on_progress=stop_at(5))
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.csv")}
    again = measure_ward(source, tmp_path / "out", workers=1)
    assert again.resumed >= 5 and all((tmp_path / "out" / name).stat().st_mtime_ns == when for name, when in kept.items())
    assert result(tmp_path / "out") == result(whole.target)
    other = measure_ward(source, tmp_path / "out", workers=1, window_s=45, resume=False)
    assert other.resumed == 0 and other.windows == 5 * NIGHTS


def test_a_killed_worker_loses_nothing(source, whole, tmp_path):
    shots = []

    def kill(done, total, row):
        for child in psutil.Process().children():
            if done in (3, 8) and "medkit.isolate" in " ".join(child.cmdline()):
                child.kill()
                shots.append(child.pid)

    report = measure_ward(source, tmp_path / "out", workers=1, on_progress=kill)
    assert len(shots) == 2 and report.counts == whole.counts
    assert result(tmp_path / "out") == result(whole.target)


RUN = "import sys; from medkit.signals import measure_ward; measure_ward(sys.argv[1], sys.argv[2], workers=2)"


@pytest.mark.parametrize("group", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["everything", "parent only"])
def test_killed_at_random_and_resumed_equals_uninterrupted(source, whole, tmp_path, group):
    dice, manifest, kills = random.Random(3 + group), tmp_path / "out" / "manifest.jsonl", 0
    while kills < (1 if group else 3):
        goal = dice.randrange(1, 4) + (manifest.read_bytes().count(b"\n") if manifest.exists() else 0)
        with subprocess.Popen([sys.executable, "-c", RUN, source, tmp_path / "out"], start_new_session=True) as process:
            while process.poll() is None and not (manifest.exists() and manifest.read_bytes().count(b"\n") >= goal):
                time.sleep(0.003)
            assert process.poll() is None, "it ended before it was killed"
            (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
            kills += 1
        time.sleep(0.3)  # orphans end when they notice
    before = len({row["id"] for row in Manifest(manifest).rows()})
    report = measure_ward(source, tmp_path / "out", workers=1)
    assert report.resumed == before >= kills
    assert result(tmp_path / "out") == result(whole.target)


@pytest.fixture
def cluster():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.mark.slow
def test_ray_gives_the_same_bytes_with_a_worker_killed_and_goes_on(source, whole, tmp_path, cluster):
    shots = []

    def kill(done, total, row):
        family = psutil.Process().children(recursive=True)
        words = [" ".join(child.cmdline()) for child in family] if done in (2, 5) else ()
        found = [child for child, line in zip(family, words) if ("medkit.isolate" in line if done == 2 else line.startswith("ray::Worker"))]
        for child in found[:1]:
            child.kill()
            shots.append(done)
        if done == 9:
            raise Stop

    with pytest.raises(Stop):
        measure_ward(source, tmp_path / "out", workers=2, engine="ray", on_progress=kill)
    assert shots == [2, 5]
    report = measure_ward(source, tmp_path / "out", workers=2, engine="ray")
    assert report.resumed >= 9 and result(tmp_path / "out") == result(whole.target)


def test_several_channels_must_agree_and_files_without_them_fail(nights, tmp_path):
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in" / "two.npz", samples=np.stack([nights[1], nights[1]]), channels=["x", "y"], fs=50)
    np.savez(tmp_path / "in" / "one.npz", x=nights[2], fs=50)
    np.savez(tmp_path / "in" / "no rate.npz", x=nights[3])
    report = measure_ward(tmp_path / "in", tmp_path / "out", channel=("x", "y"), names="mirror", workers=1)
    rows = {row["source"]: row for row in report.files}
    assert rows["two.npz"]["status"] == "ok" and rows["two.npz"]["outputs"] == ["two.npz.csv"]
    assert (rows["one.npz"]["reason"], rows["no rate.npz"]["reason"]) == ("bad_column", "sampling_rate_missing")
    alone = measure_vitals(read_recording(tmp_path / "in" / "two.npz"), channel=["x", "y"])
    assert (tmp_path / "out" / "two.npz.csv").read_bytes() == vitals_csv(alone)
    told = measure_ward(tmp_path / "in", tmp_path / "out", channel="x", names="mirror", workers=1, sampling_rate_hz=50, resume=False)
    assert told.counts["ok"] == 3 and told.resumed == 0


@pytest.mark.parametrize("arguments", [
    {"policy": "lax"}, {"policy": None}, {"window_s": 0}, {"window_s": "30"}, {"hop_s": float("nan")}, {"names": "patient"}, {"workers": 0},
    {"engine": "cloud"}, {"sampling_rate_hz": -5}, {"sampling_rate_hz": "fast"}, {"column": 1.5}, {"column": True}, {"channel": ["x"]},
    {"channel": []}, {"channel": {"x": 1}}, {"channel": ["x", None]}, {"limits": 5}, {"window_s": np.zeros(2)},
], ids=str)
def test_wrong_options_do_nothing(source, tmp_path, arguments):
    with pytest.raises(MedkitError) as caught:
        measure_ward(source, tmp_path / "out", **arguments)
    assert caught.value.reason == ("bad_sampling_rate" if "sampling_rate_hz" in arguments else "bad_option")
    assert None not in (caught.value.found, caught.value.expected) and not (tmp_path / "out").exists()


def test_the_picture_of_a_large_ward(whole, tmp_path):
    rows = [{"id": str(n), "source": f"night {n}", "status": "ok", "reason": None, "outputs": [f"{n}.csv"], "windows": 7} for n in range(39)]
    rows.append({"id": "x", "source": "cut", "status": "failed", "reason": "truncated", "outputs": [], "windows": None})
    table = whole.night("floor 0/Jane Doe 0.npz")
    for number in range(39):
        table.assign(heart_rate_bpm=table.heart_rate_bpm.where(table.index != number % 7)).to_csv(tmp_path / f"{number}.csv", index=False)
    for name, columns in (("manifest.jsonl", ("id", "status", "reason", "outputs", "windows")), ("sources.private.jsonl", ("id", "source"))):
        (tmp_path / name).write_text("".join(json.dumps({column: row[column] for column in columns}) + "\n" for row in rows))
    ax = WardReport(tmp_path, {"ok": 39, "ok_warn": 0, "skipped": 0, "failed": 1}, {}).show()
    assert len(ax.images) == 39 and ax.get_ylabel() == "recording" and not ax.texts
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["withheld"]
    plt.close(ax.figure)
    (tmp_path / "3.csv").unlink()
    with pytest.raises(MedkitError, match="not_readable"):
        WardReport(tmp_path, {"ok": 40}, {}).show()
    plt.close("all")


@pytest.mark.parametrize("second", [{}, {"sampling_rate_hz": 49.0}, {"sampling_rate_hz": 50, "window_s": 45}], ids=str)
def test_a_forgotten_rate_costs_no_table(nights, tmp_path, second):
    (tmp_path / "in").mkdir()
    for number in range(2):
        np.savez(tmp_path / "in" / f"{number}.npz", bed=nights[number])
    measure_ward(tmp_path / "in", tmp_path / "out", workers=1, sampling_rate_hz=50)
    before = result(tmp_path / "out")
    with pytest.raises(MedkitError, match="resume=False") as caught:
        measure_ward(tmp_path / "in", tmp_path / "out", workers=1, **second)
    assert caught.value.reason == "already_exists" and result(tmp_path / "out") == before and len(before[1]) == 2
    assert measure_ward(tmp_path / "in", tmp_path / "out", workers=1, sampling_rate_hz=50.0).resumed == 2
