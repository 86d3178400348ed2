"""R peaks: drawn, simulated and real electrocardiograms, polarity, scale, shift, gaps, noise and bad input."""

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import butter, sosfiltfilt

from medkit.errors import MedkitError, MissingExtra, SignalError
from medkit.signals import Recording, find_r_peaks, hrv, match_beats, simulate_rr

QUICK = settings(max_examples=15, deadline=None, derandomize=True)
WAVES = ((-0.17, 0.025, 0.12), (-0.03, 0.009, -0.12), (0, 0.010, 1.0), (0.03, 0.010, -0.22), (0.26, 0.05, 0.3))  # s, s, mV


def draw(rr_s, rate_hz, noise_mv=0.02, seed=0, t_wave=1.0):
    "An electrocardiogram in mV, with its R waves on samples, and their places."
    places = np.round(np.cumsum(np.r_[0.5, rr_s]) * rate_hz).astype(int)
    t = np.arange(places[-1] + int(0.6 * rate_hz)) / rate_hz
    values = np.random.default_rng(seed).normal(0, noise_mv, len(t)) + 0.2 * np.sin(2 * np.pi * 0.2 * t)
    for delay, width, height in WAVES:
        height = height * (t_wave if delay == 0.26 else 1)
        for place in places:
            near = slice(max(place - int(0.5 * rate_hz), 0), place + int(0.6 * rate_hz))
            values[near] += height * np.exp(-((t[near] - place / rate_hz - delay) ** 2) / (2 * width**2))
    return values, places


def f1(found, places, rate_hz, tolerance_s=0.05):
    return match_beats(found.times_s, places / rate_hz, tolerance_s=tolerance_s).f1


@pytest.mark.parametrize("rate_hz", [100, 128, 250, 360, 1000])
@pytest.mark.parametrize("bpm", [45, 75, 120])
def test_drawn_people(rate_hz, bpm):
    values, places = draw(simulate_rr(60, heart_rate_bpm=bpm, seed=bpm), rate_hz, noise_mv=0.05)
    found = find_r_peaks(Recording(values, rate_hz))
    assert f1(found, places, rate_hz) >= 0.99 and not found.withheld
    nearest = np.abs(found.places[:, None] - places).min(axis=1)
    assert np.median(nearest) <= 1 and nearest.max() <= max(2, 0.02 * rate_hz)


@pytest.mark.parametrize("bpm", [31, 40, 180, 215])
def test_slow_and_fast_hearts(bpm):
    values, places = draw(np.full(bpm // 2, 60 / bpm), 250, t_wave=0.6 if bpm > 100 else 1)
    assert f1(find_r_peaks(Recording(values, 250)), places, 250) >= 0.97


@given(st.floats(1e-4, 1e6), st.floats(-1e3, 1e3), st.booleans(), st.integers(0, 1000))
@QUICK
def test_gain_offset_and_polarity_change_nothing(gain, offset, swapped, seed):
    values, _ = draw(simulate_rr(30, heart_rate_bpm=70, seed=seed), 200, seed=seed)
    plain = find_r_peaks(Recording(values, 200))
    other = find_r_peaks(Recording((-1 if swapped else 1) * gain * (values + offset), 200))
    np.testing.assert_array_equal(plain.places, other.places)
    assert other.polarity == (-1 if swapped else 1) * plain.polarity


@given(st.integers(0, 400), st.integers(0, 1000))
@QUICK
def test_starting_later_moves_the_peaks_by_as_much(shift, seed):
    values, _ = draw(simulate_rr(40, heart_rate_bpm=70, seed=seed), 200, seed=seed)
    whole, part = find_r_peaks(Recording(values, 200)).places, find_r_peaks(Recording(values[shift:], 200)).places + shift
    inner = [p[(p > shift + 600) & (p < len(values) - 600)] for p in (whole, part)]
    np.testing.assert_array_equal(*inner)


def test_high_t_waves_are_no_beats():
    values, places = draw(simulate_rr(60, heart_rate_bpm=55, seed=2), 360, t_wave=3.0)
    found = find_r_peaks(Recording(values, 360))
    assert len(found.places) == len(places) and f1(found, places, 360) == 1


def test_a_peaked_t_wave_is_no_beat():
    from medkit.signals.ecg import _heartbeats

    t = np.arange(6000) / 200
    steep = sum(np.exp(-((t - beat) ** 2) / 0.002) + 0.4 * np.exp(-((t - beat - 0.3) ** 2) / 0.002) for beat in np.arange(0.5, 29, 0.9))
    np.testing.assert_array_equal(np.round(_heartbeats(steep, 200) / 200, 2), np.round(np.arange(0.5, 29, 0.9), 2))


def test_extra_beats_are_kept():
    rr_s = simulate_rr(60, heart_rate_bpm=70, seed=3)
    rr_s[[10, 30, 50]] *= 0.6
    rr_s[[11, 31, 51]] *= 1.4
    values, places = draw(rr_s, 250)
    assert f1(find_r_peaks(Recording(values, 250)), places, 250) == 1


@given(st.integers(2, 40), st.floats(0.3, 12), st.integers(0, 100))
@QUICK
def test_a_gap_is_withheld_and_spanned_by_no_interval(start_s, length_s, seed):
    values, places = draw(simulate_rr(60, heart_rate_bpm=70, seed=seed), 200, seed=seed)
    values[start_s * 200: int((start_s + length_s) * 200)] = np.nan
    found = find_r_peaks(Recording(values, 200))
    assert any(reason == "missing samples" and start <= start_s + 0.1 for start, _, reason in found.withheld)
    assert not ((found.times_s > start_s - 0.2) & (found.times_s < start_s + length_s + 0.15)).any()
    assert len(found.intervals_s) == 0 or found.intervals_s.max() < 1.6
    inside = ((places[:, None] / 200 >= found.spans[:, 0]) & (places[:, None] / 200 < found.spans[:, 1])).any(axis=1)
    assert abs(len(found.places) - inside.sum()) <= 1


def noises(rate_hz=250.0, seconds=60):
    rng = np.random.default_rng(0)
    white, t = rng.normal(size=int(rate_hz * seconds)), np.arange(int(rate_hz * seconds)) / rate_hz
    hz = np.fft.rfftfreq(len(white), 1 / rate_hz)
    hz[0] = hz[1]
    muscle = sosfiltfilt(butter(2, [20, 100], "bandpass", fs=rate_hz, output="sos"), white) * np.abs(np.sin(t))
    yield from {"white": white, "pink": np.fft.irfft(np.fft.rfft(white) / hz**0.5, len(white)), "brown": np.cumsum(white), "muscle": muscle,
                "flat": np.zeros_like(t), "constant": 7 + np.zeros_like(t), "ramp": t}.items()
    yield from ((f"sine {f} Hz", np.sin(2 * np.pi * f * t) + 0.02 * white) for f in (0.2, 1.2, 2, 3, 7, 10, 50))


@pytest.mark.parametrize("name", [name for name, _ in noises()])
def test_noise_gives_no_beats_but_a_reason(name):
    found = find_r_peaks(Recording(dict(noises())[name], 250))
    assert len(found.times_s) <= 5 and sum(stop - start for start, stop, _ in found.withheld) >= 54


def test_a_slipped_electrode_costs_little():
    values, places = draw(simulate_rr(120, heart_rate_bpm=70, seed=1), 250, noise_mv=0.01)
    values[15000:] *= 0.2
    found = find_r_peaks(Recording(values, 250))
    inside = places[((places[:, None] / 250 >= found.spans[:, 0]) & (places[:, None] / 250 < found.spans[:, 1])).any(axis=1)]
    assert len(inside) > 0.85 * len(places) and f1(found, inside, 250) >= 0.98


def test_into_hrv():
    rr_s = simulate_rr(120, heart_rate_bpm=70, seed=1)
    values, places = draw(rr_s, 500)
    assert hrv(find_r_peaks(Recording(values, 500)))["rmssd_ms"] == pytest.approx(hrv(np.diff(places) / 500)["rmssd_ms"], rel=0.05)


def chair(real_data, name):
    table = scipy.io.loadmat(real_data / "signals/chair_bcg_ecg_rwth" / name)
    return table["ecg"].ravel(), table["peaks_r"].ravel().astype(int) - 1, float(table["Fs"].item())


def test_annotated_chair_record(real_data, record_property):
    values, places, rate_hz = chair(real_data, "ay_rec_proc_Aydin-Left-1.mat")
    found = find_r_peaks(Recording(values, rate_hz))
    record_property("R peaks, chair record, F1 at 50 ms", f"{f1(found, places, rate_hz):.3f} of {len(places)} beats")
    assert f1(found, places, rate_hz, 0.01) >= 0.99 and 60 / np.median(found.intervals_s) == pytest.approx(85, abs=2)


def test_the_chair_record_whose_ecg_is_noise_is_withheld(real_data):
    values, _, rate_hz = chair(real_data, "ay__rec_proc_resp.mat")
    assert len(find_r_peaks(Recording(values, rate_hz)).times_s) == 0


@pytest.mark.parametrize("file", ["uic_hr_dataset.csv", "uic_hr_dataset_lead2.csv"])
def test_sixty_five_beats_of_mhealth(real_data, file):
    values = np.loadtxt(real_data / "signals/wrist_acc_ecg_mhealth" / file, delimiter=",", ndmin=2)[:, 0]
    found = find_r_peaks(Recording(values, 50))
    assert len(found.times_s) == 65 and 60 / np.median(found.intervals_s) == pytest.approx(66.7, abs=0.1)


def test_fifteen_beats_of_biosppy(real_data):
    found = find_r_peaks(Recording(np.loadtxt(real_data / "signals/biosppy/ecg.txt"), 1000))
    assert len(found.times_s) == 15 and found.quality.min() > 0.9


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rate_hz", [125, 500])
@pytest.mark.parametrize("bpm", [60, 90, 130, 180])
def test_beside_neurokit_on_its_own_simulation(rate_hz, bpm):
    nk = pytest.importorskip("neurokit2", reason='NeuroKit2 is the extra "ecg"')
    values = nk.ecg_simulate(duration=30, sampling_rate=rate_hz, heart_rate=bpm, method="ecgsyn", noise=0.05, random_state=1)
    own, theirs = (find_r_peaks(Recording(values, rate_hz), method=method) for method in ("pantompkins1985", "neurokit"))
    inner = [found.times_s[(found.times_s > 1) & (found.times_s < 29)] for found in (own, theirs)]
    assert match_beats(inner[0], inner[1], tolerance_s=0.05).f1 >= (0.99 if bpm < 180 else 0.95)


def test_neurokit_absent_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "neurokit2", None)
    with pytest.raises(MissingExtra) as caught:
        find_r_peaks(Recording(draw(np.full(20, 0.8), 250)[0], 250), method="neurokit")
    assert "medkit[ecg]" in str(caught.value)


def test_the_plain_method_does_not_load_neurokit():
    code = ("import sys, numpy as np; from medkit.signals import Recording, find_r_peaks; find_r_peaks(Recording(np.zeros(1000), 100));"
            "assert 'neurokit2' not in sys.modules")
    __import__("subprocess").run([__import__("sys").executable, "-c", code], check=True, timeout=120)


BAD = {
    "no recording": (lambda: find_r_peaks(np.zeros(1000)), "bad_option"), "none": (lambda: find_r_peaks(None), "bad_option"),
    "low rate": (lambda: find_r_peaks(Recording(np.zeros(1000), 25)), "bad_sampling_rate"), "short": (lambda: find_r_peaks(Recording(np.zeros(100), 100)), "too_short"),
    "missing": (lambda: find_r_peaks(Recording(np.full(1000, np.nan), 100)), "all_missing"),
    "two": (lambda: find_r_peaks(Recording(np.zeros((2, 1000)), 100)), "bad_column"),
    "name": (lambda: find_r_peaks(Recording(np.zeros(1000), 100), channel="x"), "bad_column"),
    "method": (lambda: find_r_peaks(Recording(np.zeros(1000), 100), method="x"), "bad_option"),
    "method kind": (lambda: find_r_peaks(Recording(np.zeros(1000), 100), method=["x"]), "bad_option"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_words(case):
    call, reason = BAD[case]
    with pytest.raises(SignalError) as caught:
        call()
    assert caught.value.reason == reason and caught.value.found and caught.value.expected


@given(st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(float("nan"))), min_size=150, max_size=400), st.floats(50, 120))
@QUICK
def test_any_samples_give_peaks_or_a_medkit_error(samples, rate_hz):
    try:
        found = find_r_peaks(Recording(samples, rate_hz))
    except MedkitError:
        return
    assert ((found.places >= 0) & (found.places < len(samples))).all() and np.isfinite(found.times_s).all() and repr(found)
