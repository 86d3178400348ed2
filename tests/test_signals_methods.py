"""The published beat finders: a stated level on clean simulations, nothing from nothing, and the transform's definition."""

import importlib.util
import sys

import numpy as np
import pytest
import pywt
from hypothesis import given
from hypothesis import strategies as st

from medkit.errors import MedkitError, SignalError
from medkit.signals import Recording, clean, match_beats, simulate_bcg
from medkit.signals.methods import METHODS, _fuse, _likeness, bruser2013, modwt, modwt_smooth, sadek2021, shin2008

ORTHOGONAL = ("haar", "db4", "sym8", "coif2")


def simulated(seed: int, snr_db: float = 10.0, **options):
    recording, truth = simulate_bcg(180, 125, snr_db=snr_db, seed=seed, movements_per_hour=0, bed_exits_per_hour=0, **options)
    return clean(recording), truth.beat_times_s


def rate_error_bpm(times_s, beats_s) -> float:
    return abs(60 / np.median(np.diff(times_s)) - 60 / np.median(np.diff(beats_s)))


@pytest.mark.parametrize("seed", range(2, 7))
@pytest.mark.parametrize(("method", "f1", "jitter_s"), [(bruser2013, 0.93, 0.015), (shin2008, 0.96, 0.015)])
def test_beats_on_a_clean_simulation(method, f1, jitter_s, seed):
    cleaned, beats_s = simulated(seed)
    times_s, confidence = method(cleaned)
    match = match_beats(times_s, beats_s, tolerance_s=0.05, delay_s="fit")
    assert match.f1 >= f1 and match.jitter_s <= jitter_s, match
    assert rate_error_bpm(times_s, beats_s) < 1.5
    assert confidence.mean() > 0.4


@pytest.mark.parametrize("seed", range(1, 6))
def test_sadek_reads_a_fast_heart_and_not_a_slow_one(seed):
    fast, fast_s = simulated(seed, rr=np.full(280, 0.70))
    slow, slow_s = simulated(seed, rr=np.full(180, 1.15))
    assert rate_error_bpm(sadek2021(fast)[0], fast_s) < 6
    assert rate_error_bpm(sadek2021(slow)[0], slow_s) > 8  # the stated limit: two tops a beat


@pytest.mark.parametrize("name", METHODS)
def test_times_ascend_and_confidence_is_a_share(name):
    for snr_db in (10, -10):
        recording, _ = simulate_bcg(240, 100, snr_db=snr_db, seed=9, movements_per_hour=60, bed_exits_per_hour=10)
        cleaned = clean(recording)
        times_s, confidence = METHODS[name](cleaned)
        assert times_s.shape == confidence.shape and times_s.ndim == 1
        assert (np.diff(times_s) > 0.2).all() and (times_s >= 0).all() and (times_s <= cleaned.duration_s).all()
        assert ((confidence >= 0) & (confidence <= 1)).all()


@pytest.mark.parametrize("name", METHODS)
def test_no_beat_where_the_signal_is_not_usable(name):
    recording, _ = simulate_bcg(120, 100, snr_db=10, seed=3, movements_per_hour=0, bed_exits_per_hour=0)
    samples = recording.samples[0].copy()
    samples[4000:6000] = np.nan
    cleaned = clean(Recording(samples, 100))
    times_s, _ = METHODS[name](cleaned)
    assert len(times_s) > 50
    assert not ((times_s > 40.1) & (times_s < 59.9)).any()


@pytest.mark.parametrize("name", METHODS)
def test_no_beat_during_movement(name):
    recording, _ = simulate_bcg(600, 100, snr_db=10, seed=5, movements_per_hour=120, bed_exits_per_hour=0)
    cleaned = clean(recording)
    times_s, _ = METHODS[name](cleaned)
    places = np.round(times_s * cleaned.sampling_rate_hz).astype(int).clip(0, len(cleaned.heart) - 1)
    assert cleaned.movement.mean() > 0.05 and cleaned.movement[places].mean() < 0.01  # a rounded edge sample at most


@pytest.mark.parametrize("name", METHODS)
def test_the_unit_and_the_sign_of_zero_do_not_matter(name):
    recording, _ = simulate_bcg(60, 100, snr_db=5, seed=3, movements_per_hour=0, bed_exits_per_hour=0)
    times_s, confidence = METHODS[name](clean(recording))
    for scale in (1e-6, 2.0**40):
        again_s, again = METHODS[name](clean(Recording(scale * recording.samples + 3 * scale, 100)))
        assert len(again_s) == len(times_s)
        np.testing.assert_allclose(again_s, times_s, atol=1e-3)
        np.testing.assert_allclose(again, confidence, atol=1e-2)


ODD = {
    "constant": np.full(3000, 5.0),
    "zeros": np.zeros(3000),
    "one step": np.r_[np.zeros(1500), np.ones(1500)],
    "ramp": np.arange(3000.0),
    "impulse": np.eye(1, 3000, 1500)[0],
    "square": np.sign(np.sin(np.arange(3000) / 20) + 0.01),
    "mostly missing": np.where(np.arange(3000) % 10, np.nan, np.arange(3000) % 7),
    "tiny": 1e-300 * np.sin(np.arange(3000) / 16),
    "huge": 1e300 * np.sin(np.arange(3000) / 16),
    "ten seconds": np.sin(np.arange(1001) / 16) + np.sin(np.arange(1001) / 3),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("name", METHODS)
def test_odd_signals_end_well(name, what):
    for rate_hz in (25, 100, 251):
        if len(ODD[what]) / rate_hz < 10:
            continue
        times_s, confidence = METHODS[name](clean(Recording(ODD[what], rate_hz)))
        assert np.isfinite(times_s).all() and np.isfinite(confidence).all()
        if what in ("constant", "zeros", "ramp"):
            assert len(times_s) == 0


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("given", [None, np.zeros(100), "file.csv", Recording(np.zeros(3000), 100)])
def test_anything_but_cleaned_is_refused_by_name(name, given):
    with pytest.raises(SignalError) as error:
        METHODS[name](given)
    assert error.value.reason == "bad_option"


def test_white_noise_gets_few_answers_from_the_one_method_with_a_quality():
    cleaned = clean(Recording(np.random.default_rng(0).normal(size=30_000), 100))
    beats_a_minute = {name: 60 * len(method(cleaned)[0]) / cleaned.duration_s for name, method in METHODS.items()}
    assert beats_a_minute["bruser2013"] < 30 < beats_a_minute["sadek2021"]


@given(st.integers(0, 2**32), st.integers(64, 300), st.integers(1, 4), st.sampled_from([*ORTHOGONAL, "bior3.9"]))
def test_modwt_is_its_definition(seed, size, levels, wavelet):
    values, t = np.random.default_rng(seed).normal(size=size), np.arange(size)
    filters, smooth, rows = pywt.Wavelet(wavelet), values, []
    for level in range(levels):
        reads = [smooth[(t - 2**level * tap) % size] / np.sqrt(2) for tap in range(filters.rec_len)]
        rows.append(sum(tap * read for tap, read in zip(filters.rec_hi, reads)))
        smooth = sum(tap * read for tap, read in zip(filters.rec_lo, reads))
    np.testing.assert_allclose(modwt(values, wavelet, levels), [*rows, smooth], atol=1e-9)


@given(st.integers(0, 2**32), st.integers(64, 300), st.integers(1, 4), st.sampled_from(ORTHOGONAL), st.integers(0, 63))
def test_modwt_keeps_energy_and_moves_with_the_signal(seed, size, levels, wavelet, shift):
    values = np.random.default_rng(seed).normal(size=size)
    rows = modwt(values, wavelet, levels)
    np.testing.assert_allclose((rows**2).sum(), (values**2).sum(), rtol=1e-6)
    np.testing.assert_allclose(modwt(np.roll(values, shift), wavelet, levels), np.roll(rows, shift, axis=1), atol=1e-9)


@given(st.integers(0, 2**32), st.integers(1, 4), st.sampled_from(ORTHOGONAL))
def test_the_smooth_agrees_with_pywavelets_own_analysis(seed, levels, wavelet):
    values = np.random.default_rng(seed).normal(size=256)
    theirs = pywt.mra(values, wavelet, level=levels, transform="swt")[0]
    np.testing.assert_allclose(modwt_smooth(values, wavelet, levels), theirs, atol=1e-6)


@pytest.mark.parametrize(("wavelet", "levels", "size", "reason"), [
    ("nothing", 2, 100, "bad_option"), (None, 2, 100, "bad_option"), ("morl", 2, 100, "bad_option"), ("sym8", 0, 100, "bad_option"),
    ("sym8", True, 100, "bad_option"), ("sym8", 2.5, 100, "bad_option"), ("sym8", 99, 100, "bad_option"),
    ("sym8", 8, 100, "too_short"), ("sym8", 1, 10, "too_short"), ("haar", 1, 0, "too_short"),
])
def test_modwt_names_what_is_wrong(wavelet, levels, size, reason):
    for transform in (modwt, modwt_smooth):
        with pytest.raises(MedkitError) as error:
            transform(np.zeros(size), wavelet, levels)
        assert error.value.reason == reason


@pytest.mark.parametrize(("values", "reason"), [
    (None, "bad_shape"), ("text", "not_numeric"), ([[1, 2]], "bad_shape"), (np.full(99, np.nan), "not_finite"), (3.0, "bad_shape"),
    ([1, [2]], "not_numeric"), ([10**400] * 99, "not_numeric"), ({}, "not_numeric"),
])
def test_modwt_names_what_is_wrong_with_the_samples(values, reason):
    for transform in (modwt, modwt_smooth):
        with pytest.raises(MedkitError) as error:
            transform(values, "haar", 2)
        assert error.value.reason == reason


@given(st.integers(0, 2**32))
def test_clie_sums_are_its_formulas(seed):
    rng = np.random.default_rng(seed)
    signal, lags, centres = rng.normal(size=200), np.arange(10, 41, 5), np.sort(rng.integers(40, 158, 5))
    likeness = _likeness(signal, lags, centres)
    for row, centre in enumerate(centres):
        for column, lag in enumerate(lags):
            late, early = signal[centre : centre + lag + 1], signal[centre - lag : centre + 1]
            by_hand = [(late * early).mean(), 1 / (np.abs(late - early).mean() + 1e-6), (late + early).max()]
            np.testing.assert_allclose(likeness[:, row, column], by_hand, rtol=1e-9, atol=1e-9)
    product, best, share = _fuse(likeness, 1)
    np.testing.assert_allclose(product.sum(axis=1), 1)
    assert (share >= product.max(axis=1) - 1e-9).all() and (best == product.argmax(axis=1)).all()


@pytest.fixture(scope="module")
def peers():
    path = __file__.replace("tests/test_signals_methods.py", "benchmarks/bcg_peers.py")
    spec = importlib.util.spec_from_file_location("bcg_peers", path)
    sys.modules["bcg_peers"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["bcg_peers"]


@pytest.fixture(scope="module")
def case(peers):
    recording, truth = simulate_bcg(90, 100, snr_db=10, seed=4, movements_per_hour=0, bed_exits_per_hour=0)
    return peers.Case("sim", recording, truth.beat_times_s)


def test_a_peer_that_is_missing_or_fails_has_a_row_that_says_so(peers, case, monkeypatch):
    monkeypatch.setattr(peers, "PACKAGES", {"NeuroKit2": "no_such_module"})
    name = next(iter(peers.BEAT_PEERS))
    assert peers.measure_peer(name, [case]).note == "not installed"
    monkeypatch.setitem(peers.BEAT_PEERS, "broken", lambda recording: 1 / 0)
    assert peers.measure_peer("broken", [case]).note.startswith("failed: ZeroDivisionError")
    monkeypatch.setitem(peers.BEAT_PEERS, "silent", lambda recording: np.empty(0))
    assert peers.measure_peer("silent", [case]).note == "no window answered"
    for words in ("not installed", "failed: ZeroDivisionError", "no window answered"):
        assert words in peers.table([peers.measure_peer(name, [case]) for name in (name, "broken", "silent")])


def test_the_peers_that_are_ours_to_run_do(peers, case):
    rows = {row.name: row for row in peers.measure_peers([case])}
    assert set(METHODS) | set(peers.RATE_PEERS) | set(peers.GUESSES) | set(peers.BEAT_PEERS) == set(rows)
    assert rows["shin2008"].mae_bpm < 1 and rows["shin2008"].f1 > 0.95 and rows["shin2008"].coverage == 1
    assert rows["bruser2013"].mae_bpm < 1
    assert rows["autocorrelation 10 s"].mae_bpm < 2
    assert all(rows[name].mae_bpm < 2 for name in peers.GUESSES)  # one record: both know its rate


@pytest.mark.parametrize("name", ["bruser2013", "shin2008"])
def test_consensus_records(real_data, peers, name, record_property):
    row = peers.measure_peer(name, peers.consensus_cases(real_data))
    record_property(f"{name} on the consensus records", f"{row.mae_bpm:.2f} bpm at coverage {row.coverage:.0%}, F1 {row.f1:.3f}")
    assert row.mae_bpm < {"bruser2013": 1.5, "shin2008": 6.0}[name] and row.f1 > 0.8
