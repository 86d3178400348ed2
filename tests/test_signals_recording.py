"""Reading recordings: formats, rates, and what bad files get."""

import ast
import io
import os
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import medkit.signals
from medkit.errors import MedkitError, SignalError
from medkit.signals import (Recording, clean, find_beats, mask_to_spans, measure_vitals, read_recording, simulate_bcg, spans_to_mask,
                            thin_trace)
from medkit.signals.simulate import simulate_rr

QUICK = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(folder, content, name="bed.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def reason(path, **options):
    with pytest.raises(SignalError) as caught:
        read_recording(path, **options)
    assert caught.value.hint
    return caught.value.reason


@QUICK
@given(values=st.lists(st.floats(-1e9, 1e9) | st.just(float("nan")), min_size=3, max_size=60), mark=st.sampled_from([",", ";", "\t"]),
       header=st.booleans(), ending=st.sampled_from(["\n", "\r\n"]))
def test_a_written_table_reads_back(tmp_path, values, mark, header, ending):
    if np.isnan(values).all():
        return
    lines = [f"a{mark}b"] * header + [f"{v!r}{mark}{-v!r}" for v in values]
    back = read_recording(written(tmp_path, ending.join(lines) + ending), sampling_rate_hz=50)
    assert np.array_equal(back.samples[0], values, equal_nan=True) and back.samples.shape == (2, len(values))


@QUICK
@given(content=st.binary(max_size=300), name=st.sampled_from(["a.csv", "a.npz", "a.mat", "a"]))
def test_any_bytes_are_read_or_refused_in_words(tmp_path, content, name):
    try:
        read_recording(written(tmp_path, content, name), sampling_rate_hz=50)
    except MedkitError:
        pass  # refused in words is what is asked for


@QUICK
@given(text=st.text(alphabet="0123456789.,;\t \n#aeINF-+\"'=:_", max_size=200))
def test_any_text_is_read_or_refused_in_words(tmp_path, text):
    try:
        read_recording(written(tmp_path, text), sampling_rate_hz=50)
    except MedkitError:
        pass


@QUICK
@given(cut=st.integers(0, 600), kind=st.sampled_from(["npz", "mat"]))
def test_cut_and_flipped_archives(tmp_path, cut, kind):
    buffer = io.BytesIO()
    if kind == "npz":
        np.savez_compressed(buffer, bcg=np.arange(50.0), fs=25)
    else:
        scipy.io.savemat(buffer, {"bcg": np.arange(50.0), "Fs": 25}, do_compression=True)
    data = bytearray(buffer.getvalue())
    for changed in (data[:cut], data[: cut % len(data)] + bytes([data[cut % len(data)] ^ 0x55]) + data[cut % len(data) + 1:]):
        try:
            read_recording(written(tmp_path, bytes(changed), f"bed.{kind}"))
        except MedkitError:
            pass


def test_numbers_that_are_not(tmp_path):
    with pytest.raises(SignalError, match=r"'off' in row 4") as caught:
        read_recording(written(tmp_path, "bed\n1\n2\noff\n3\n"), sampling_rate_hz=10)
    assert caught.value.reason == "not_numeric"
    assert read_recording(written(tmp_path, "bed,word\n1,x\n2,y\n3,z\n"), sampling_rate_hz=10, column="bed").channels == ("bed",)
    assert reason(written(tmp_path, "bed,word\n1,x\n2,y\n"), sampling_rate_hz=10) == "not_numeric"


def test_the_rate_is_asked_for_and_never_guessed(tmp_path):
    path = written(tmp_path, "bed\n1\n2\n3\n")
    assert reason(path) == "sampling_rate_missing"
    for bad in (0, -1, float("nan"), float("inf"), "fast", [1]):
        assert reason(path, sampling_rate_hz=bad) == "bad_sampling_rate"
    stated = written(tmp_path, "# Sampling Rate (Hz):= 100\n1\n2\n3\n")
    assert read_recording(stated).sampling_rate_hz == 100
    assert reason(stated, sampling_rate_hz=200) == "bad_sampling_rate"
    counter = written(tmp_path, "\n".join(f"{n},{n % 7}" for n in range(50)))
    assert reason(counter) == "sampling_rate_missing"


def test_time_columns(tmp_path):
    even = "time,bed\n" + "\n".join(f"{n / 128:.4f},{n % 5}" for n in range(500))
    assert read_recording(written(tmp_path, even)).sampling_rate_hz == pytest.approx(128, rel=1e-4)
    back = "time,bed\n0,1\n1,2\n0.5,3\n2,3\n"
    assert reason(written(tmp_path, back)) == "bad_sampling_rate"
    holed = "time,bed\n" + "\n".join(f"{n / 100 + (5 if n > 200 else 0):.2f},{n % 5}" for n in range(500))
    recording = read_recording(written(tmp_path, holed))
    assert recording.sampling_rate_hz == pytest.approx(100, rel=0.02) and 450 < np.isnan(recording.samples).sum() < 520
    assert "uneven" in recording.notes[0]


def test_columns_files_and_sizes(tmp_path, monkeypatch):
    path = written(tmp_path, "a,b\n1,2\n3,4\n")
    for bad in ("c", 2, -1, 1.5, True):
        assert reason(path, sampling_rate_hz=9, column=bad) == "bad_column"
    assert reason(tmp_path / "none.csv") == "not_found"
    assert reason(tmp_path) == "not_readable"
    assert reason(written(tmp_path, "")) == "empty"
    assert reason(written(tmp_path, "bed\n5\n"), sampling_rate_hz=9) == "too_short"
    assert reason(written(tmp_path, "bed\n\nnan\nnan\n"), sampling_rate_hz=9) == "all_missing"
    assert reason(written(tmp_path, b"\x89HDF\r\n\x1a\n")) == "truncated"
    np.savez(tmp_path / "big.npz", bcg=np.zeros(10_000), fs=5)
    monkeypatch.setattr("medkit.signals.recording._SIZE_CAP", 4000)
    assert reason(tmp_path / "big.npz") == "too_large"


def test_a_pickle_in_an_archive_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    np.savez(tmp_path / "bomb.npz", bcg=np.array([Bomb()], dtype=object))
    assert reason(tmp_path / "bomb.npz") == "unsupported_format" and not (tmp_path / "ran").exists()


def test_a_recording_cannot_be_edited_and_owns_its_samples():
    values = np.arange(5.0)
    recording = Recording(values, 10)
    values[0] = 99
    assert recording.samples[0, 0] == 0
    with pytest.raises(ValueError):
        recording.samples[0, 0] = 1


@QUICK
@given(mask=st.lists(st.booleans(), max_size=80), rate=st.floats(1, 500))
def test_masks_and_spans_are_two_forms_of_one_thing(mask, rate):
    assert spans_to_mask(mask_to_spans(np.array(mask, dtype=bool), rate), len(mask), rate).tolist() == mask


@QUICK
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=500), points=st.integers(2, 100))
def test_thinning_keeps_the_extremes_of_what_it_covers(values, points):
    _, thin = thin_trace(np.arange(len(values)), np.array(values), points)
    covered = values if len(thin) == len(values) else values[: len(values) // -(-len(values) // max(points // 2, 1)) * -(-len(values) // max(points // 2, 1))]
    assert max(thin) == max(covered) and min(thin) == min(covered)


def test_real_files(real_data):
    signals = real_data / "signals"
    chair = read_recording(signals / "chair_bcg_ecg_rwth/ay_rec_proc_Aydin-Left-1.mat")
    assert chair.sampling_rate_hz == 1000 and {"bcg", "ecg"} <= set(chair.channels)
    assert read_recording(signals / "biosppy/acc.txt").channels == ("acc_x", "acc_y", "acc_z")
    paced = read_recording(signals / "chest_acc_paced_breathing/pos1_6s.txt", column=3)
    assert 195 < paced.sampling_rate_hz < 206 and "uneven" in paced.notes[0]
    muse = signals / "imu_scg_bcg_muse/2_Mattress_supine.txt"
    assert reason(muse, column="AccX") == "sampling_rate_missing"
    assert read_recording(muse, sampling_rate_hz=100, column="AccX").channels == ("AccX",)
    assert reason(signals / "li2024_rr_reference/02_20231103_RR.csv", sampling_rate_hz=1) in ("not_numeric", "bad_sampling_rate")


@pytest.mark.parametrize("header", ["", "bed\n", "# Units:= mV\nbed force\n\n"])
def test_a_blank_line_between_samples_is_a_missing_sample(tmp_path, header):
    values = [f"{np.sin(n):.4f}" for n in range(3000)]
    holed = values[:1000] + [""] * 400 + values[1400:]
    for ending in ("\n", "\r\n", "\r\r\n"):
        text = "\n\n" + header + "\n".join(holed) + "\n\n \n"
        back = read_recording(written(tmp_path, text.replace("\n", ending)), sampling_rate_hz=100)
        assert back.duration_s == 30 and np.flatnonzero(np.isnan(back.samples[0])).tolist() == list(range(1000, 1400))
        assert back.samples[0, 1400] == float(values[1400]) and back.notes == ("400 blank lines read as missing samples",)


def test_blank_lines_in_wider_tables(tmp_path):
    back = read_recording(written(tmp_path, "a,b\n\n1,2\n\n3,4\n\n"), sampling_rate_hz=10)
    assert np.array_equal(back.samples, [[1, np.nan, 3], [2, np.nan, 4]], equal_nan=True)
    stamped = "time,bed\n" + "\n\n".join(f"{n / 100:.2f},{n % 5}" for n in range(500))
    clocked = read_recording(written(tmp_path, stamped))
    assert clocked.sampling_rate_hz == pytest.approx(100, rel=1e-3) and not np.isnan(clocked.samples).any() and not clocked.notes


@pytest.mark.parametrize("before", ["1\n2\n", "bed\n1\n", "bed\n\n1\n", "1,2\n3,4\n", "# c\n1\n"])
@pytest.mark.parametrize("after", ["", "\n3\n4", "\n3,4\n5,6\n"])
def test_words_in_a_row_are_named_with_their_row(tmp_path, before, after):
    row = before.count("\n") + 1
    with pytest.raises(SignalError, match=f"'cable out' in row {row}") as caught:
        read_recording(written(tmp_path, before + "cable out" + after), sampling_rate_hz=10)
    assert caught.value.reason == "not_numeric" and caught.value.expected


def test_encodings_and_decimal_commas(tmp_path):
    text = "bed\n1.5\n2.5\n"
    assert read_recording(written(tmp_path, b"\xef\xbb\xbf" + text.encode()), sampling_rate_hz=9).channels == ("bed",)
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        marked = "\ufeff" * (encoding != "utf-16") + text
        assert read_recording(written(tmp_path, marked.encode(encoding)), sampling_rate_hz=9).samples.tolist() == [[1.5, 2.5]]
    for encoding in ("utf-16-le", "utf-16-be", "utf-32"):  # without a mark, or in a form that nobody saves
        assert reason(written(tmp_path, text.encode(encoding)), sampling_rate_hz=9) == "unsupported_format"
    for decimal in ("0,5\n0,05\n", "0,5\n-0,25\n", "bed\n1,5\n\n1,01\n", "1,5\n2\n", "1,500\t2\n3\t4\n"):
        assert reason(written(tmp_path, decimal), sampling_rate_hz=9) == "not_numeric"
    assert read_recording(written(tmp_path, "1,5\n2,50\n0,0\n"), sampling_rate_hz=9).samples.shape == (2, 3)
    for clear in ("1,5\t2\n2,25\t3\n", "1,5;2\n2,25;3\n", '"1,5","2"\n"2,25","3"\n', '"1,5"\t"2"\n"2,25"\t"3"\n'):
        assert read_recording(written(tmp_path, clear), sampling_rate_hz=9).samples.tolist() == [[1.5, 2.25], [2, 3]]
    for endless in ("1\ninf\n", "1\n-Infinity\n2\n", "1\n1e999\n"):
        assert reason(written(tmp_path, endless), sampling_rate_hz=9) == "not_numeric"


NO_NUMBERS = (float("nan"), float("inf"), -1, "x", None, 1j, [30], 1e15)


def _refused_calls(tmp_path):
    "Calls that must be refused, each with a name."
    recording, _ = simulate_bcg(20, 50, snr_db=10, seed=1)
    plain = written(tmp_path, "1\n2\n3\n", "plain.csv")
    two = Recording(np.zeros((2, 500)), 50)
    np.savez(tmp_path / "clock.npz", time=np.arange(9.0), fs=1)
    np.savez(tmp_path / "infinite.npz", bcg=[1.0, np.inf], fs=1)
    for name, content in {"cut.npz": b"PK\x03\x04", "hdf.mat": b"\x89HDF\r\n\x1a\n", "picture": b"\x89PNG\x00", "nothing": b"",
                          "names.csv": b"bed\n", "gaps.csv": b"bed\nnan\nnan\n", "one.csv": b"5\n", "rate.csv": b"# fs = 1.2.3\n1\n2\n",
                          "zero.csv": b"# fs = 0\n1\n2\n", "clash.csv": b"# fs = 10\n1\n2\n", "wide.csv": b"1,2\n3\n4,5\n",
                          "torn.csv": b"1,2\n3,4\n5", "twice.csv": b"a,a\n1,2\n", "comma.csv": b"0,5\n0,05\n", "off.csv": b"1\noff\n",
                          "back.csv": b"time,a\n1,1\n0,1\n2,1\n", "hole.csv": b"time,a\n0,1\n1e-2,2\n2e-2,3\n1e9,4\n"}.items():
        yield name, lambda path=written(tmp_path, content, name): read_recording(path, sampling_rate_hz=None if "csv" not in name else 50)
    for path in (tmp_path, tmp_path / "none.csv", None, 3, "a\0b", "a" * 5000, tmp_path / "clock.npz", tmp_path / "infinite.npz", plain):
        yield f"path {str(path)[:20]}", lambda path=path: read_recording(path)
    for column in (1, -1, "b", "²", True, [0]):
        yield f"column {column}", lambda column=column: read_recording(plain, sampling_rate_hz=5, column=column)
    for rate in (0, True, 1e9, *NO_NUMBERS[:3], "fast", [1]):
        yield f"rate {rate}", lambda rate=rate: read_recording(plain, sampling_rate_hz=rate)
        yield f"made {rate}", lambda rate=rate: Recording([1, 2], rate)
        yield f"simulated {rate}", lambda rate=rate: simulate_bcg(20, rate, snr_db=10, seed=1)
    yield "two channels", lambda: clean(two)
    yield "slow", lambda: clean(Recording(np.zeros(500), 10))
    yield "short", lambda: clean(Recording(np.zeros(50), 50))
    yield "gaps only", lambda: clean(Recording(np.full(900, np.nan), 50))
    yield "huge", lambda: simulate_bcg(1e6, 1e5, snr_db=10, seed=1)
    yield "few intervals", lambda: simulate_bcg(60, 50, snr_db=10, seed=1, rr=[1, 1])
    for value in NO_NUMBERS:
        for name in ("snr_db", "seed", "movements_per_hour", "bed_exits_per_hour", "rr", "duration_s"):
            if (name, value) not in (("rr", None), ("snr_db", -1)):
                options = {"duration_s": 20, "sampling_rate_hz": 50, "snr_db": 10, "seed": 1, name: value if value != 1e15 else 1e30}
                yield f"{name} {value}", lambda options=options: simulate_bcg(**options)
        for name in ("window_s", "hop_s", "policy"):
            yield f"{name} {value}", lambda option={name: value}: measure_vitals(recording, **option)
        yield f"method {value}", lambda value=value: find_beats(clean(recording), value)
        yield f"part {value}", lambda value=value: recording.part(value, value)
        yield f"interval rate {value}", lambda value=value: simulate_rr(20, heart_rate_bpm=value, seed=1)
        for act in (clean, find_beats, measure_vitals):
            yield f"{act.__name__} {value}", lambda act=act, value=value: act(value)


def test_every_refusal_says_what_was_found_and_what_was_expected(tmp_path):
    for name, call in _refused_calls(tmp_path):
        started = time.perf_counter()
        with pytest.raises(MedkitError) as caught:
            call()
            raise AssertionError(f"nothing was refused: {name}")
        assert caught.value.found and caught.value.expected and caught.value.hint, name
        assert str(tmp_path) not in str(caught.value), name
        assert time.perf_counter() - started < 2, name


@pytest.mark.parametrize("module", sorted(Path(medkit.signals.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_no_refusal_in_the_source_is_silent(module):
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("SignalError", "DataError"):
            assert {"found", "expected"} <= {word.arg for word in node.keywords}, f"{module.name}:{node.lineno}"


@pytest.mark.parametrize("line, rate", [("fs = 1 kHz", 1000), ("fs: 250", 250), ("Sampling Rate (kHz):= .5", 500), ("sfreq=+1e2Hz", 100)])
def test_a_rate_in_a_comment_is_read_with_its_unit(tmp_path, line, rate):
    assert read_recording(written(tmp_path, f"# {line}\n1\n2\n3\n")).sampling_rate_hz == rate


@pytest.mark.parametrize("value", ["1,000", "100,5", "-100", "1.2.3", "...", "1e999", "100 200", "1 MHz", "0.01 s", "1e-9", "1_0", "\u00b2"])
def test_a_rate_in_a_comment_that_is_not_one_number_is_refused(tmp_path, value):
    for key in ("fs", "sampling rate", "Sample_Rate"):
        assert reason(written(tmp_path, f"# {key}: {value}\n1\n2\n3\n")) == "bad_sampling_rate"


def test_two_comments_with_two_rates_are_refused(tmp_path):
    assert reason(written(tmp_path, "# fs = 100\n# sampling rate: 200\n1\n2\n3\n")) == "bad_sampling_rate"
    assert reason(written(tmp_path, "# Sampling Rate (Hz) = 1 kHz\n1\n2\n3\n")) == "bad_sampling_rate"


def test_a_pipe_or_a_device_is_refused_without_being_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", "/dev/zero", tmp_path):
        assert reason(path, sampling_rate_hz=50) == "not_readable"
    (tmp_path / "link.csv").symlink_to(written(tmp_path, "1\n2\n3\n"))
    assert read_recording(tmp_path / "link.csv", sampling_rate_hz=50).samples.shape == (1, 3)


@pytest.mark.parametrize("rate", [1e-9, 0.099, 10**400, 10**5000, 1e6 + 1], ids=lambda rate: str(rate < 1) + str(type(rate).__name__))
def test_rates_out_of_range_are_refused_wherever_they_come_from(tmp_path, rate):
    assert reason(written(tmp_path, "1\n2\n3\n"), sampling_rate_hz=rate) == "bad_sampling_rate"
    with pytest.raises(SignalError) as caught:
        Recording([1, 2], rate)
    assert caught.value.reason == "bad_sampling_rate"


@pytest.mark.parametrize("step_s", [1e-300, 1e-7, 11, 1e6, 1e300])
def test_time_stamps_give_no_rate_out_of_range(tmp_path, step_s):
    table = "time,bed\n" + "\n".join(f"{n * step_s!r},{n % 5}" for n in range(50))
    assert reason(written(tmp_path, table)) == "bad_sampling_rate"


def test_a_very_wide_table_is_refused_at_once(tmp_path):
    for mark in (",", ";", "\t", " "):
        path = written(tmp_path, "\n".join([mark.join(["1"] * 100_000)] * 2))
        started = time.perf_counter()
        assert reason(path, sampling_rate_hz=50) == "too_large" and time.perf_counter() - started < 3
    assert read_recording(written(tmp_path, "\n".join([",".join(["1"] * 64)] * 2)), sampling_rate_hz=50).samples.shape == (64, 2)
    assert reason(written(tmp_path, "\n".join([",".join(["1"] * 4096)] * 2)), sampling_rate_hz=50) == "bad_shape"


@pytest.mark.parametrize("method, why", [(zipfile.ZIP_STORED, None), (zipfile.ZIP_DEFLATED, None), (zipfile.ZIP_BZIP2, "unsupported_format"),
                                         (zipfile.ZIP_LZMA, "unsupported_format")])
def test_an_archive_is_unpacked_only_if_numpy_could_have_written_it(tmp_path, method, why):
    buffer = io.BytesIO()
    np.save(buffer, np.arange(50.0))
    with zipfile.ZipFile(tmp_path / "bed.npz", "w", method) as archive:
        archive.writestr("bcg.npy", buffer.getvalue())
    if why:
        assert reason(tmp_path / "bed.npz", sampling_rate_hz=50) == why
    else:
        assert read_recording(tmp_path / "bed.npz", sampling_rate_hz=50).samples.shape == (1, 50)


@pytest.mark.parametrize("column", ["9" * 5000, "\u00b2", "\u0663", 10**5000, "-1", "1.0", b"a", ["a"], np.array(["a", "b"])], ids=range(9))
def test_columns_that_only_look_like_numbers_are_refused(tmp_path, column):
    path = written(tmp_path, "a,b\n1,2\n3,4\n")
    assert reason(path, sampling_rate_hz=9, column=column) == "bad_column"
    with pytest.raises(SignalError) as caught:
        read_recording(path, sampling_rate_hz=9).select(column)
    assert caught.value.reason == "bad_column"


def test_a_file_that_contradicts_the_call_is_refused_whatever_its_key(tmp_path):
    for key in ("fs", "sampling_rate_hz", "sfreq"):
        np.savez(tmp_path / "x.npz", bed=np.arange(100.0), **{key: 50})
        with pytest.raises(SignalError) as caught:
            read_recording(tmp_path / "x.npz", sampling_rate_hz=100)
        assert caught.value.reason == "bad_sampling_rate"
        assert read_recording(tmp_path / "x.npz", sampling_rate_hz=50).sampling_rate_hz == 50


@pytest.mark.parametrize("turned", [np.zeros((18000, 1)), pd.DataFrame({"x": np.zeros(18000), "y": np.zeros(18000)}), np.zeros((66, 65))],
                         ids=["column", "frame", "square"])
def test_samples_turned_on_their_side_are_refused(turned):
    with pytest.raises(SignalError, match=r"samples\.T") as caught:
        Recording(turned, 100)
    assert caught.value.reason == "bad_shape" and str(turned.shape) in caught.value.found
    assert Recording(turned.T, 100).samples.shape == turned.shape[::-1]
    assert Recording(np.zeros((64, 3)), 100).samples.shape == (64, 3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("odd", [np.ones(9, dtype=complex), [1j, 2], pd.Series(np.ones(9) * 1j)], ids=["array", "list", "series"])
def test_complex_samples_are_refused(tmp_path, odd):
    with pytest.raises(SignalError) as caught:
        Recording(odd, 100)
    assert caught.value.reason == "not_numeric"
    np.savez(tmp_path / "z.npz", z=np.asarray(odd), fs=10)
    assert reason(tmp_path / "z.npz") == "not_numeric"


@pytest.mark.parametrize("step", [10, 8, 2])
@pytest.mark.parametrize("name", ["time", "t", "Timestamp"])
def test_whole_steps_without_a_unit_are_not_taken_for_seconds(tmp_path, name, step):
    def table(name, step=step):
        return written(tmp_path, f"{name},bed\n" + "\n".join(f"{n * step},{n % 7}" for n in range(100)))

    with pytest.raises(SignalError, match="(?s)milliseconds.*time_ms") as caught:
        read_recording(table(name))
    assert caught.value.reason == "bad_sampling_rate" and caught.value.found == f"steps of {step}"
    assert read_recording(table(name), sampling_rate_hz=1 / step).sampling_rate_hz == 1 / step
    assert read_recording(table("time_ms")).sampling_rate_hz == pytest.approx(1000 / step)
    assert read_recording(table("time_s")).sampling_rate_hz == pytest.approx(1 / step)
    assert read_recording(table(name, 1)).sampling_rate_hz == read_recording(table(name, 0.01)).sampling_rate_hz / 100 == pytest.approx(1)
    assert reason(table(name), sampling_rate_hz=100) == "bad_sampling_rate"
    np.savez(tmp_path / "t.npz", **{name: np.arange(50) * step, "bed": np.ones(50)})
    assert reason(tmp_path / "t.npz") == "bad_sampling_rate"


@pytest.mark.parametrize("content, words", [
    ("bed\n0,0184\n0,0191\n", "with a point"), ('"0,0184"\n"0,0191"\n', "with a point"), ("0,0184\n0,0191\n", "with a point"),
    ("Zeit,bed\n2026-03-01T22:00:00.00,1\n2026-03-01T22:00:00.01,2\n", "name the column time"),
    ("when,bed\n01.03.2026 22:00:00.00,1\n01.03.2026 22:00:00.01,2\n", "2024-03-31T01:59:59.99"),
    ("date;bed\n01.03.2026 22:00:00.00;1\n01.03.2026 22:00:00.01;2\n", "2024-03-31T01:59:59.99"),
    ("time,bed\n03/01/2026 22:00,1\n03/01/2026 22:00,2\n", "2024-03-31T01:59:59.99"),
], ids=["named", "quoted", "bare", "Zeit", "when", "date", "slashes"])
def test_the_remedy_fits_the_cell(tmp_path, content, words):
    with pytest.raises(SignalError) as caught:
        read_recording(written(tmp_path, content), sampling_rate_hz=100)
    assert caught.value.reason == "not_numeric" and words in caught.value.hint


def test_stamps_too_coarse_for_a_rate_are_named(tmp_path):
    rows = "\n".join(f"2026-03-01T22:00:{n // 20:02d},{n % 7}" for n in range(200))
    with pytest.raises(SignalError, match="too coarse") as caught:
        read_recording(written(tmp_path, "time,bed\n" + rows))
    assert caught.value.reason == "sampling_rate_missing"
    assert read_recording(written(tmp_path, "time,bed\n" + rows), sampling_rate_hz=20).sampling_rate_hz == 20


def test_a_bare_array_is_told_how_to_keep_its_rate(tmp_path):
    np.save(tmp_path / "bed.npy", np.ones(50))
    with pytest.raises(SignalError) as caught:
        read_recording(tmp_path / "bed.npy", sampling_rate_hz=100)
    assert caught.value.reason == "unsupported_format" and "numpy.savez(path, bed=x, fs=rate)" in caught.value.hint


def test_what_is_masked_is_missing():
    masked = np.ma.masked_array(np.arange(10), mask=[True] + [False] * 9)
    assert np.isnan(Recording(masked, 100).samples[0, 0]) and Recording(masked, 100).samples[0, 1] == 1
