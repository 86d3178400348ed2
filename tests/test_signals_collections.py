"The public collections, in small files written in their layouts, with every trap that is known of them."

from datetime import UTC, datetime

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medkit.errors import MedkitError, SignalError
from medkit.signals import (
    find_lost_bytes, list_li2024, read_kansas, read_li2024, read_li2024_rr, read_paced_breathing, read_pathology2025, read_rhythm2025,
)

START_MS = 1_699_139_700_000  # 2023-11-04 23:15:00 UTC, 2023-11-05 07:15:00 in China


def write_li(folder, person="01", date="20231105", values=None, first="", rows=None, rr=True):
    "One night in the layout of figshare 26013157."
    values = np.round(500 + 40 * np.sin(np.arange(14000) / 20)).astype(int) if values is None else values
    bcg = folder / "data" / person / "BCG"
    bcg.mkdir(parents=True, exist_ok=True)
    text = [first or f"{values[0]},{START_MS},140", *(str(v) for v in values[1:])] if rows is None else rows
    (bcg / f"{person}_{date}_BCG.csv").write_text("BCG,Timestamp,fs\n" + "\n".join(text) + "\n")
    if rr:
        reference = folder / "data" / person / "Reference" / "RR"
        reference.mkdir(parents=True, exist_ok=True)
        beats = 5.3 + 0.8 * np.arange(110)
        stamps = pd.Timestamp("2023-11-05 07:15:00") + pd.to_timedelta(np.floor(beats), unit="s")
        lines = [f"{t.year}/{t.month}/{t.day} {t.hour}:{t:%M:%S},75,0.8" for t in stamps]
        (reference / f"{person}_{date}_RR.csv").write_text("Timestamp,Heart Rate,RR Interval in seconds\n" + "\n".join(lines))
    return values


def reason(call):
    with pytest.raises(MedkitError) as caught:
        call()
    return caught.value.reason


def test_utc_of_the_bed_and_local_time_of_the_monitor_meet(tmp_path):
    write_li(tmp_path)
    night = next(read_li2024(tmp_path))
    assert night.recording.start == datetime(2023, 11, 4, 23, 15, tzinfo=UTC)
    assert night.recording.sampling_rate_hz == 140
    assert np.abs(night.reference.ends_s - (5.3 + 0.8 * np.arange(110))).max() < 0.5  # not eight hours off
    assert (night.person, night.night) == ("li2024/01", "li2024/01/20231105")


def test_first_row_carries_the_clock_and_is_a_sample_too(tmp_path):
    values = write_li(tmp_path)
    night = next(read_li2024(tmp_path))
    assert np.array_equal(night.recording.samples[0], values)


@given(st.data())
def test_lost_bytes_are_found_and_put_back_and_nothing_else_is_touched(data):
    base = data.draw(st.integers(300, 3000))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    swing = data.draw(st.integers(5, 40))
    values = np.round(base + swing * np.sin(np.arange(3000) / 25) + rng.normal(0, 2, 3000))
    damaged = values.copy()
    for first in np.cumsum(rng.integers(120, 300, 8)):
        damaged[first: first + rng.integers(1, 40)] %= 256
    lost = find_lost_bytes(damaged)
    assert np.array_equal(lost.restored(damaged)[~lost.undecided], values[~lost.undecided])
    assert lost.undecided.mean() < 0.02


def test_lost_bytes_are_flagged_by_default_and_repaired_only_when_asked(tmp_path):
    values = np.round(700 + 40 * np.sin(np.arange(14000) / 20)).astype(int)
    damaged = values.copy()
    damaged[[5000, 9000, 9001, 9002]] %= 256
    write_li(tmp_path, values=damaged)
    stored, repaired = next(read_li2024(tmp_path)), next(read_li2024(tmp_path, repair=True))
    assert np.array_equal(stored.recording.samples[0], damaged) and "4 samples lost" in stored.notes[0]
    assert np.array_equal(repaired.recording.samples[0], values) and "put back" in repaired.notes[0]
    assert len(stored.spans["lost byte"]) == len(repaired.spans["repaired byte"]) == 2
    assert any("lost their upper byte" in note for note in stored.recording.notes)  # travels with the samples too


def test_real_records_have_no_lost_bytes_and_damage_is_undone(real_data, record_property):
    total = fixed = changed = 0
    for path in sorted((real_data / "signals" / "underbed_226hz").glob("*/1*.csv")):
        values = np.loadtxt(path)
        assert not find_lost_bytes(values).mask.any(), path.name
        rng = np.random.default_rng(0)
        hit = rng.choice(len(values), 50, replace=False)
        hit = hit[values[hit] > 255]
        damaged = values.copy()
        damaged[hit] %= 256
        whole = find_lost_bytes(damaged).restored(damaged)
        total, fixed = total + len(hit), fixed + (whole[hit] == values[hit]).sum()
        changed += ((whole != values) & (damaged == values)).sum()
    record_property("lost upper bytes put back on real records", f"{fixed} of {total}, {changed} good samples changed")
    assert fixed > 0.94 * total and changed == 0


def test_shadow_files_and_missing_references(tmp_path):
    write_li(tmp_path, "07", rr=False)
    write_li(tmp_path, "21", rr=False)
    (tmp_path / "data" / "07" / "BCG" / "._07_20231105_BCG.csv").write_text("shadow")
    (tmp_path / "data" / "08").mkdir()
    first, second = read_li2024(tmp_path)
    assert first.reference is None and "the file is missing" in first.notes[-1]
    assert second.reference is None and "21 to 30" in second.notes[-1]


def test_reference_without_recording_is_listed(tmp_path):
    write_li(tmp_path, "01")
    write_li(tmp_path, "02")
    (tmp_path / "data" / "02" / "BCG" / "02_20231105_BCG.csv").unlink()
    assert [(files.person, files.bcg is None) for files in list_li2024(tmp_path)] == [("li2024/01", False), ("li2024/02", True)]
    assert [night.person for night in read_li2024(tmp_path)] == ["li2024/01"]


@pytest.mark.parametrize("rows, expected", [
    (["500,1699139700000,"], "sampling_rate_missing"),
    (["500,1699139700,140", "501"], "bad_record"),  # seconds instead of milliseconds
    (["500,,140", "501"], "bad_record"),
    (["500,1699139700000,0", "501"], "bad_sampling_rate"),
    (["500,1699139700000,140", "abc"], "not_numeric"),
    (["500,1699139700000,140", "1,2,3,4"], "not_readable"),
    ([""], "empty"),
])
def test_broken_bed_files(tmp_path, rows, expected):
    write_li(tmp_path, rows=rows, rr=False)
    assert reason(lambda: next(read_li2024(tmp_path))) == expected


def test_missing_samples_and_a_second_clock_are_noted(tmp_path):
    write_li(tmp_path, rows=[f"500,{START_MS},140", "", "502", f"503,{START_MS + 60_000},"] + ["500"] * 200, rr=False)
    night = next(read_li2024(tmp_path))
    assert "60.0 s" in night.notes[0]


def test_files_in_the_wrong_place(tmp_path):
    write_li(tmp_path, "01")
    (tmp_path / "data" / "01" / "BCG" / "05_20231105_BCG.csv").write_text("BCG,Timestamp,fs\n")
    assert reason(lambda: list_li2024(tmp_path)) == "bad_record"
    assert reason(lambda: read_li2024(tmp_path / "nowhere")) == "not_found"
    (tmp_path / "empty").mkdir()
    assert reason(lambda: read_li2024(tmp_path / "empty")) == "not_found"


def test_reference_far_from_the_recording_is_said(tmp_path):
    write_li(tmp_path, first=f"500,{START_MS - 8 * 3_600_000},140")  # somebody wrote local time into the bed file
    night = next(read_li2024(tmp_path))
    assert any("covers 0%" in note for note in night.notes)


def rr_file(path, rows):
    path.write_text("Timestamp,Heart Rate,RR Interval in seconds\n" + "\n".join(rows) + "\n")
    return path


def test_zeros_and_impossible_intervals_are_kept_and_not_trusted(tmp_path):
    rr = read_li2024_rr(rr_file(tmp_path / "a.csv", ["2023/11/5 0:00:01,60,1.0", "2023/11/5 0:00:01,0,0", "2023/11/5 0:00:42,60,40.1",
                                                     "2023/11/5 0:00:43,60,1.0", "2023/11/5 0:00:43,60,"]))
    assert rr.trusted.tolist() == [True, False, False, True, False]
    assert rr.intervals_s[2] == 40.1 and "3 intervals" in rr.notes[1]
    assert np.isfinite(rr.beats_s).all()


def test_rows_out_of_order_are_put_in_order_and_said(tmp_path):
    rr = read_li2024_rr(rr_file(tmp_path / "a.csv", ["2023/11/5 0:00:02,60,1.0", "2023/11/5 0:00:01,60,0.9", "2023/11/5 0:00:03,60,1.1"]))
    assert rr.intervals_s.tolist() == [0.9, 1.0, 1.1] and any("backward" in note for note in rr.notes)


def test_broken_reference_files(tmp_path):
    assert reason(lambda: read_li2024_rr(rr_file(tmp_path / "a.csv", ["yesterday,60,1.0"]))) == "bad_record"
    assert reason(lambda: read_li2024_rr(rr_file(tmp_path / "a.csv", ["2023/11/5 0:00:01,60,one"]))) == "not_numeric"
    assert reason(lambda: read_li2024_rr(rr_file(tmp_path / "a.csv", []))) == "empty"
    (tmp_path / "b.csv").write_text("time,rr\n1,2\n")
    assert reason(lambda: read_li2024_rr(tmp_path / "b.csv")) == "bad_column"
    (tmp_path / "c.csv").write_bytes(b"\xff\xfe\x00PK")
    assert reason(lambda: read_li2024_rr(tmp_path / "c.csv")) in ("not_readable", "bad_column", "empty")
    assert reason(lambda: read_li2024_rr(tmp_path / "none.csv")) == "not_found"


@given(st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_coarse_stamps_and_dropped_beats_give_times_within_a_second(phase, seed):
    rng = np.random.default_rng(seed)
    lengths = np.round(rng.normal(0.95, 0.08, 400), 3)
    ends = phase + np.cumsum(lengths)
    kept = rng.random(400) > 0.05
    from medkit.signals.collections import _runs
    runs, found, error = _runs(np.floor(ends[kept]), lengths[kept])
    assert np.abs(found - ends[kept]).max() < 2.0 and np.median(np.abs(found - ends[kept])) < 0.6
    assert 1 <= len(np.unique(runs)) <= 45 and error <= 1.0


def test_real_references(real_data):
    first, second = (read_li2024_rr(path) for path in sorted((real_data / "signals" / "li2024_rr_reference").glob("*_RR.csv")))
    assert (len(first.intervals_s), len(second.intervals_s)) == (23745, 35600)
    assert first.start == datetime(2023, 11, 2, 15, 13, 17, tzinfo=UTC)
    assert first.trusted.mean() > 0.99 and second.trusted.mean() > 0.999
    assert len(np.unique(second.runs)) < 400 and second.error_s < 0.6
    assert (np.diff(second.beats_s) > 0.15).all()


def write_kansas(path, people=3, short=None, order="zab"):
    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")
        names = np.empty((20, 1), dtype=h5py.ref_dtype)
        for at in range(20):
            names[at, 0] = refs.create_dataset(f"n{at}", data=np.frombuffer("PPG".encode("utf-16le"), dtype=np.uint16)[:, None]).ref
            refs[f"n{at}"].attrs["MATLAB_class"] = np.bytes_("char")
        refs.create_dataset("names", data=names, dtype=h5py.ref_dtype)
        for number in range(people):
            cell = np.empty((20, 1), dtype=h5py.ref_dtype)
            for at in range(20):
                size = 10 if (number, at) == short else 2000
                signal = refs.create_dataset(f"{order[number]}{at}", data=np.full((1, size), 100.0 * number + at))
                signal.attrs["MATLAB_class"] = np.bytes_("double")
                cell[at, 0] = signal.ref
            refs.create_dataset(order[number], data=cell, dtype=h5py.ref_dtype)


def test_kansas_cells_are_found_in_the_order_they_were_written(tmp_path):
    write_kansas(tmp_path / "Bed_System_Database.mat", short=(1, 0))
    people = list(read_kansas(tmp_path))
    assert [night.person for night in people] == ["kansas/01", "kansas/02", "kansas/03"]
    assert [night.recording.select("ECG").samples[0, 0] for night in people] == [3, 103, 203]
    assert people[0].recording.select("LC_BCG3").samples[0, 0] == 15 and people[0].recording.sampling_rate_hz == 1000
    assert "PPG" not in people[1].recording.channels and any("PPG left out" in note for note in people[1].notes)
    assert next(read_kansas(tmp_path, 2, channels=("ECG", "Film0"))).recording.channels == ("ECG", "Film0")


def test_kansas_faults(tmp_path):
    assert reason(lambda: read_kansas(tmp_path)) == "not_found"
    file = tmp_path / "Bed_System_Database.mat"
    file.write_bytes(b"MATLAB 7.3 MAT-file" + bytes(600))
    assert reason(lambda: read_kansas(tmp_path)) == "unsupported_format"
    with h5py.File(file, "w") as empty:
        empty.create_dataset("#refs#", data=np.zeros(3))
    assert reason(lambda: read_kansas(tmp_path)) == "bad_record"
    write_kansas(file)
    assert reason(lambda: read_kansas(tmp_path, channels=("EKG",))) == "bad_column"
    assert reason(lambda: read_kansas(tmp_path, 9)) == "not_found"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    assert reason(lambda: list(read_kansas(tmp_path))) in ("unsupported_format", "truncated", "bad_record")


def write_rhythm(folder, gap_s=0.0, rate=125.0, start="23:59:50"):
    clock = pd.to_timedelta(start).total_seconds() + np.arange(5000) / rate + np.where(np.arange(5000) >= 2500, gap_s, 0)
    day = [f"{int(t // 3600) % 24}:{int(t // 60) % 60:02}:{t % 60:06.3f}" for t in clock]
    pd.DataFrame({"time": day, "value": np.arange(5000)}).to_csv(folder / "Sub03_bcg.csv", index=False)


def test_rhythm_set_passes_midnight_and_keeps_gaps(tmp_path):
    write_rhythm(tmp_path, gap_s=8.0)
    (tmp_path / "Sub03_heartbeat.csv").write_text("Time,RR Interval(ms),Beat Symbol\n0:00:05.000,900,N\n0:00:05.900,900,V\n0:00:07.000,1100,X\n")
    night = next(read_rhythm2025(tmp_path))
    assert night.recording.samples.shape[1] == pytest.approx(5000 + 1000, abs=2)
    assert np.isnan(night.recording.samples[0, 2501:3490]).all() and night.recording.samples[0, -1] == 4999
    assert night.reference.ends_s.round(2).tolist() == [15.0, 15.9, 17.0] and night.reference.trusted.tolist() == [True, True, False]
    assert night.recording.start is None and any("without a date" in note for note in night.notes)


def test_rhythm_set_at_another_rate_is_refused(tmp_path):
    write_rhythm(tmp_path, rate=250.0)
    assert reason(lambda: list(read_rhythm2025(tmp_path))) == "bad_sampling_rate"


def test_reference_before_midnight_and_bed_after(tmp_path):
    write_rhythm(tmp_path, start="0:00:01")
    (tmp_path / "Sub03_heartbeat.csv").write_text("Time,RR Interval(ms),Beat Symbol\n23:59:59.000,900,N\n0:00:02.000,900,N\n")
    assert next(read_rhythm2025(tmp_path)).reference.ends_s.round(2).tolist() == [-2.0, 1.0]


def test_views_of_one_person_share_the_person(tmp_path):
    for name in ("hdata14XJ", "hdata14EJ", "hdata102XJ"):
        (tmp_path / name).mkdir()
        pd.DataFrame({"bcg": np.zeros(2000), "ecg": np.ones(2000)}).to_csv(tmp_path / name / "signal.csv", index=False)
    nights = list(read_pathology2025(tmp_path))
    assert sorted(night.person for night in nights) == ["pathology2025/014", "pathology2025/014", "pathology2025/102"]
    assert len({night.night for night in nights}) == 3 and nights[0].reference is None


def test_real_paced_breathing(real_data):
    nights = list(read_paced_breathing(real_data / "signals" / "chest_acc_paced_breathing"))
    assert sorted(night.facts["breath_period_s"] for night in nights) == [2, 4, 6, 8, 10, 12, 16, 20]
    assert all(195 < night.recording.sampling_rate_hz < 206 for night in nights)
    assert {night.person for night in nights} == {"paced/unknown"} and len({night.night for night in nights}) == 8
    assert all(night.recording.channels == ("x", "y", "z", "abs") for night in nights)


def test_shadow_files_of_other_collections_are_no_data(tmp_path):
    rows = np.column_stack([np.arange(60) / 200, *np.ones((4, 60))])
    np.savetxt(tmp_path / "pos1_4s.txt", rows, delimiter=",")
    (tmp_path / "._pos1_4s.txt").write_bytes(b"\x00\x05\x16\x07")
    assert len(list(read_paced_breathing(tmp_path))) == 1


def test_stamps_that_step_back_over_midnight():
    from medkit.signals.collections import _day_seconds
    table = pd.DataFrame({"time": ["23:59:59.9", "0:00:00.1", "23:59:59.95", "0:00:00.2"]})
    assert _day_seconds(table, "time", "x").round(2).tolist() == [86399.9, 86400.1, 86399.95, 86400.2]


def test_paced_clock_running_backward_is_refused(tmp_path):
    rows = np.column_stack([np.r_[np.arange(30), 5, np.arange(31, 60)] / 200, *np.ones((4, 60))])
    np.savetxt(tmp_path / "pos1_4s.txt", rows, delimiter=",")
    assert reason(lambda: list(read_paced_breathing(tmp_path))) == "bad_record"


def test_people_keep_apart_over_collections(tmp_path):
    write_li(tmp_path, "01")
    write_kansas(tmp_path / "Bed_System_Database.mat", people=1)
    people = {night.person for reader in (read_li2024, read_kansas) for night in reader(tmp_path)}
    assert people == {"li2024/01", "kansas/01"}


@pytest.mark.parametrize("odd", [None, 3, "", "\0", [], object(), b"x", "/dev/null", float("nan")], ids=lambda odd: type(odd).__name__)
def test_odd_arguments_are_refused_by_name(odd, tmp_path):
    for reader in (read_li2024, read_kansas, read_rhythm2025, read_pathology2025, read_paced_breathing, read_li2024_rr, list_li2024):
        with pytest.raises(MedkitError):
            list(reader(odd) if odd != "" else reader(tmp_path / "nothing"))
    with pytest.raises(MedkitError):
        find_lost_bytes(odd if odd != 3 and not isinstance(odd, float) and odd is not None and odd != [] else np.zeros((2, 2)))


def test_a_kansas_signal_that_lies_elsewhere_or_is_huge_is_refused(tmp_path):
    "A hostile file: the cell leads to an array of a terabyte that no byte on disk backs."
    h5py = pytest.importorskip("h5py", reason="the extra formats")
    path = tmp_path / "Bed_System_Database.mat"
    with h5py.File(path, "w") as file:
        refs = file.create_group("#refs#")
        first = refs.create_dataset("a", data=np.zeros(50))
        huge = refs.create_dataset("b", shape=(1 << 37,), dtype="f8", chunks=(1 << 16,))
        cell = refs.create_dataset("c", shape=(20, 1), dtype=h5py.ref_dtype)
        cell[:, 0] = [first.ref] + [huge.ref] * 19
    with pytest.raises(SignalError) as caught:
        next(iter(read_kansas(tmp_path)))
    assert caught.value.reason == "too_large"
