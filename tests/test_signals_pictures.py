"""Pictures of windows: known answers, a fixed size, masks, invariance, and agreement with SciPy and PyWavelets."""

import time
import warnings

import numpy as np
import pytest
import pywt
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from medkit.errors import SignalError
from medkit.signals import (
    Recording, Windows, clean, extract_features, find_beats, join_windows, make_windows, picture, raw_windows, read_recording, simulate_bcg,
)

KINDS = ["spectrogram", "scalogram", "recurrence", "beats"]
QUICK = settings(max_examples=20, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def night():
    recording, truth = simulate_bcg(300, 125, snr_db=12, seed=14, movements_per_hour=60, bed_exits_per_hour=0)
    return find_beats(clean(recording)), make_windows(recording, person="anna", night="1"), truth


def tone(hertz, rate_hz=100.0, seconds=60):
    times_s = np.arange(int(seconds * rate_hz)) / rate_hz
    values = np.sin(2 * np.pi * hertz * times_s) + 0.02 * np.random.default_rng(0).normal(size=len(times_s))
    return Recording(values, rate_hz)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(64, 64), (8, 100), (33, 17)])
def test_shape_type_range_and_mask(night, kind, size):
    beats, windows, _ = night
    made = picture(beats, windows, kind, size=size)
    assert made.values.shape == made.mask.shape == (len(windows), *size)
    assert made.values.dtype == np.float32 and made.mask.dtype == bool
    assert np.isfinite(made.values).all() and made.values.min() >= 0 and made.values.max() <= 1
    assert (made.values[made.mask] == 0).all() and made.mask.mean() < 0.9 and (made.mask.any() or size[0] == 8)
    assert len(made.rows) == size[0] and len(made.columns) == size[1]
    assert (np.diff(made.rows) > 0).all() and (np.diff(made.columns) > 0).all()
    assert all("(" in label or label == "beat" for label in made.axes[:2])


@pytest.mark.parametrize("kind", ["spectrogram", "scalogram"])
@pytest.mark.parametrize("hertz", [2.5, 4.0, 7.0, 10.0])
@pytest.mark.parametrize("rate_hz", [50.0, 226.3])
def test_a_tone_is_a_line_at_its_frequency(kind, hertz, rate_hz):
    recording = tone(hertz, rate_hz)
    made = picture(recording, Windows([10], 30, "p", "n"), kind)
    step = np.gradient(made.rows)[np.abs(made.rows - hertz).argmin()]
    assert np.abs(made.rows[made.values[0].argmax(axis=0)] - hertz).max() <= 1.01 * step


@pytest.mark.parametrize("kind", ["spectrogram", "scalogram"])
def test_a_change_of_tone_is_seen_when_it_happens(kind):
    first, second = tone(3.0), tone(8.0)
    values = np.r_[first.samples[0, :2700], second.samples[0, 2700:]]
    made = picture(Recording(values, 100), Windows([15], 30, "p", "n"), kind)
    low, high = (made.values[0, np.abs(made.rows - hertz).argmin()] for hertz in (3, 8))
    turn_s = made.columns[(high > low).argmax()]
    assert abs(turn_s - 12) < 0.6


def test_the_spectrogram_is_scipys():
    if not hasattr(signal, "ShortTimeFFT"):
        pytest.skip("needs scipy 1.12")
    cleaned = clean(Recording(np.random.default_rng(3).normal(size=5000), 50))
    made = picture(cleaned, Windows([20], 30, "p", "n"), size=(28, 30))  # 1.5 to 15 Hz in steps of 0.5, columns at half seconds
    transform = signal.ShortTimeFFT(signal.get_window("hann", 100), hop=1, fs=50)
    power = transform.spectrogram(cleaned.values, detr="linear")
    index = np.round((20.5 + np.arange(30)) * 50).astype(int)
    theirs = 10 * np.log10(power[3:31, index - transform.p_min])
    ours = 40 * made.values[0].astype(float) - 40
    inner = (made.values[0] > 0.05) & (made.values[0] < 0.95)
    difference = (ours - theirs)[inner]
    assert inner.sum() > 400 and np.ptp(difference) < 0.01


def test_the_ridge_of_the_scalogram_is_pywavelets():
    times_s = np.arange(0, 60, 0.02)
    chirp = np.sin(2 * np.pi * (2 * times_s + 0.05 * times_s**2))  # from 2 Hz at the start to 8 Hz at the end
    made = picture(Recording(chirp, 50), Windows([15], 30, "p", "n"), "scalogram", size=(96, 60))
    ours = made.rows[made.values[0].argmax(axis=0)]
    scales = pywt.central_frequency("cmor2.0-1.0") * 50 / made.rows
    theirs = np.abs(pywt.cwt(chirp, scales, "cmor2.0-1.0")[0])
    theirs = made.rows[theirs[:, np.round((15 + made.columns) * 50).astype(int)].argmax(axis=0)]
    assert np.abs(np.log(ours / theirs)).max() < 0.06
    assert np.abs(ours - (2 + 0.1 * (15 + made.columns))).max() < 0.3


def test_the_first_stripe_of_the_recurrence_plot_is_one_beat_away():
    for rate in (50, 75):
        recording, truth = simulate_bcg(90, 100, rr=np.full(200, 60 / rate), snr_db=15, seed=4, movements_per_hour=0, bed_exits_per_hour=0)
        made = picture(recording, Windows([30], 20, "p", "n"), "recurrence", size=(160, 160))
        shown = made.values[0]
        assert np.array_equal(shown, shown.T) and 0.08 < shown.mean() < 0.12
        along = np.array([np.diagonal(shown, lag).mean() for lag in range(3, 13)])
        assert abs((along.argmax() + 3) * 20 / 160 - 60 / rate) <= 20 / 160


def test_each_row_of_the_stack_is_one_beat(night):
    beats, windows, _ = night
    made = picture(beats, windows, "beats", size=(64, 91))
    heart = beats.cleaned
    for number, start_s in enumerate(windows.start_s):
        times_s = beats.times_s[(beats.times_s >= start_s) & (beats.times_s < start_s + 30)]
        rows = ~made.mask[number].any(axis=1)
        assert rows.sum() <= len(times_s) and rows[: rows.sum()].all()
        for row, t in zip(np.flatnonzero(rows), times_s) if rows.sum() == len(times_s) else ():
            wave = np.interp(t + made.columns, heart.times_s, heart.heart)
            shown = made.values[number, row].astype(float)
            inner = (shown > 0.02) & (shown < 0.98)
            assert np.corrcoef(shown[inner], wave[inner])[0, 1] > 0.98
    many = picture(beats, windows, "beats", size=(10, 64))
    full = ~many.mask.any(axis=2).all(axis=1)
    assert many.mask[0].sum() == 0 and full.any()


@pytest.mark.parametrize("kind", KINDS)
@QUICK
@given(scale=st.floats(1e-3, 1e3), offset=st.floats(-100, 100))
def test_scale_and_offset_do_not_show(kind, scale, offset):
    recording, _ = simulate_bcg(60, 100, snr_db=8, seed=21, movements_per_hour=60)
    windows = Windows([0, 30], 30, "p", "n")  # made by hand: fits any recording
    one, other = picture(recording, windows, kind), picture(Recording(scale * (recording.samples + offset), 100), windows, kind)
    assert np.array_equal(one.mask, other.mask) and np.abs(one.values - other.values).max() < (0.07 if kind == "recurrence" else 1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_call_gives_the_same_picture_and_other_windows_do_not_matter(night, kind):
    beats, windows, _ = night
    whole, again = picture(beats, windows, kind), picture(beats, windows, kind)
    assert np.array_equal(whole.values, again.values)
    part = picture(beats, windows[[4, 2]], kind)
    assert np.array_equal(part.values, whole.values[[4, 2]]) and np.array_equal(part.mask, whole.mask[[4, 2]])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_missing_is_masked(night, kind):
    beats, windows, _ = night
    windows = Windows(windows.start_s, windows.window_s, "p", "n")  # made by hand: fits any recording
    samples = beats.cleaned.recording.samples.copy()
    samples[0, 40 * 125: 50 * 125] = np.nan
    made = picture(Recording(samples, 125), windows, kind)
    if kind == "beats":
        assert (~made.mask[1].any(axis=1)).sum() < (~picture(beats, windows, kind).mask[1].any(axis=1)).sum()
        return
    gone = (made.columns > 10.5) & (made.columns < 19.5)
    assert made.mask[1][:, gone].all()
    reach = {"spectrogram": 1.3, "scalogram": 1.4, "recurrence": 0.9}[kind]
    kept = (made.columns < 10 - reach) | (made.columns > 20 + reach)
    rows = kept if kind == "recurrence" else slice(None)
    assert not made.mask[1][rows][:, kept].any()
    samples[:] = np.nan
    samples[0, :1250] = np.random.default_rng(0).normal(size=1250)
    assert picture(Recording(samples, 125), windows, kind).mask[3].all()


def test_rows_that_the_sensor_does_not_hold_are_masked():
    made = picture(tone(5.0, 26.0), Windows([10], 30, "p", "n"))
    assert made.mask[0][made.rows > 0.45 * 26].all() and not made.mask[0][made.rows < 11].any()


def test_no_warning_on_odd_signals():
    rng = np.random.default_rng(0)
    odd = [np.zeros(9000), np.r_[np.zeros(4500), np.ones(4500)], np.arange(9000.0), 1e150 * rng.normal(size=9000), 1e-300 * rng.normal(size=9000),
           np.where(np.arange(9000) == 77, 1.0, np.nan)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for values in odd:
            for kind in KINDS:
                made = picture(Recording(values, 100), Windows([0, 30], 30, "p", "n"), kind)
                assert np.isfinite(made.values).all()
    assert picture(Recording(odd[0], 100), Windows([0], 30, "p", "n")).mask.all()


def test_raw_windows_are_the_samples_with_their_gaps():
    samples = np.arange(6000.0).reshape(2, 3000)
    samples[1, 1500:1600] = np.nan
    recording = Recording(samples, 100, ("x", "y"), ("g", "g"))
    windows = make_windows(recording, person="p", night="n", window_s=10)
    raw = raw_windows(recording, windows)
    assert raw.values.shape == (3, 2, 1000) and np.array_equal(raw.values[2, 0], samples[0, 2000:])
    assert np.array_equal(raw.mask, np.isnan(raw.values)) and raw.mask[1, 1].sum() == 100 == raw.mask.sum()
    assert raw_windows(recording, windows, channel="y").channels == ("y",)


def test_spaces_of_several_people_are_joined_in_step(night):
    beats, windows, _ = night
    other = simulate_bcg(95, 125, snr_db=8, seed=31)[0]
    theirs = make_windows(other, person="ben", night="1")
    one = find_beats(clean(other))
    for make in (lambda r, w: raw_windows(r, w), lambda r, w: extract_features(r, w), *(lambda r, w, kind=kind: picture(r, w, kind) for kind in KINDS)):
        parts = [make(beats, windows), make(one, theirs)]
        both = join_windows(parts)
        assert both.windows.person == ("anna",) * 10 + ("ben",) * 3
        assert np.array_equal(both.values[10:], parts[1].values, equal_nan=True)
        if hasattr(both, "mask"):
            assert np.array_equal(both.mask[10:], parts[1].mask)
    with pytest.raises(SignalError) as caught:
        join_windows([picture(beats, windows), picture(beats, make_windows(beats.cleaned, person="ben", night="1"))])
    assert caught.value.reason == "patient_overlap"


def test_one_picture_of_a_whole_recording_has_no_person(night):
    beats, _, _ = night
    made = picture(beats.cleaned, kind="scalogram", size=(16, 128))
    assert made.values.shape == (1, 16, 128) and made.windows.person == ("",) and made.columns[-1] < 300


def test_an_hour_of_pictures_is_quick(record_property):
    beats = find_beats(clean(simulate_bcg(3600, 125, snr_db=5, seed=3)[0]))
    windows = make_windows(beats.cleaned, person="p", night="n")
    for kind in KINDS:
        started = time.process_time()
        picture(beats, windows, kind)
        seconds = time.process_time() - started
        record_property(f"{kind} pictures of an hour, s of CPU", f"{seconds:.2f}")
        assert seconds < 6


def test_real_records_have_pictures(real_data):
    bed = read_recording(real_data / "signals/underbed_226hz/Subject38_1526160074/1526160074.csv", sampling_rate_hz=226)
    windows = make_windows(bed, person="38", night="1526160074")
    beats = find_beats(clean(bed, 0))
    for kind in KINDS:
        made = picture(beats, windows, kind)
        assert made.mask.mean() < 0.7 and made.values[~made.mask].std() > 0.05
