"""Reading recordings: formats, rates, and what bad files get."""

import io

import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medkit.errors import MedkitError, SignalError
from medkit.signals import Recording, mask_to_spans, read_recording, spans_to_mask, thin_trace

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
    assert reason(written(tmp_path, b"\x89HDF\r\n\x1a\n")) == "unsupported_format"
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
