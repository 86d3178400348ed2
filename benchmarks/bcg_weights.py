"""Fit again the weights of medkit.signals.evidence, on seeds that bench_bcg.py does not use; prints what to paste."""

import os

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np  # noqa: E402
from scipy.optimize import minimize  # noqa: E402

import bcg_records as records  # noqa: E402
from medkit.signals import clean, reference_rate, simulate_bcg, track_rhythm  # noqa: E402
from medkit.signals.chain import trace_chain  # noqa: E402
from medkit.signals.evidence import weigh_evidence  # noqa: E402

RATES_HZ = (100, 125, 226, 50)


def windows(recording, beats_s=None):
    "Signs and error of each window; the error is infinite where nobody is."
    cleaned = clean(recording)
    rhythm = track_rhythm(cleaned)
    starts_s = np.arange(0, cleaned.duration_s - 29, 10.0)
    evidence = weigh_evidence(cleaned, rhythm, trace_chain(cleaned, rhythm), starts_s, 30)
    error = np.full(len(starts_s), np.inf) if beats_s is None else np.abs(evidence.rate_bpm - reference_rate(beats_s, starts_s))
    known = np.isfinite(evidence.rate_bpm) & ~np.isnan(error)
    return evidence.signs[known], error[known]


def training():
    for seed in range(400, 428):
        for snr_db in (10, 5, 2, 0, -2, -5, -8):
            person = records.bed(seed, snr_db, RATES_HZ[seed % 4], 300)
            yield windows(person.recording, person.beat_times_s)
    for seed in range(500, 516):
        for snr_db in (10, 5, 0, -3, -6):
            steady = {"rr": np.full(700, 60 / np.random.default_rng(seed).uniform(45, 120))} if seed % 4 == 0 else {}
            recording, truth = simulate_bcg(240, 125, snr_db=snr_db, seed=seed, **steady)
            yield windows(recording, truth.beat_times_s)
    for seed in range(100, 130):
        for kind in records.NOISES:
            yield windows(records.noise(kind, seed, RATES_HZ[seed % 4]))
        for kind in ("frame", "mains"):  # fans and breathing are left to the strict policy
            yield windows(records.machine(kind, seed, RATES_HZ[seed % 4]))


signs, error = map(np.concatenate, zip(*training()))
rhythm, _, spread, mismatch = signs.T[:4]
parts = np.stack([np.sqrt(np.maximum(rhythm, 0)), np.log(spread + 0.01), mismatch], axis=1)
clear = (error < 3) | (error > 5)
good, parts = (error < 3)[clear].astype(float), parts[clear]
mean, scale = parts.mean(axis=0), parts.std(axis=0)


def loss(weights):
    "Logistic loss with a little shrinking."
    z = (parts - mean) / scale @ weights[:-1] + weights[-1]
    return np.mean(np.logaddexp(0, z) - good * z) + 1e-3 * (weights[:-1] ** 2).sum()


found = minimize(loss, np.zeros(4), bounds=[(0, None), (None, 0), (None, 0), (None, None)]).x
weights = found[:-1] / scale
print(f"{len(good)} windows, {good.mean():.2f} of them good")
print("_WEIGHTS =", np.round(weights, 2).tolist(), " _BIAS =", round(float(found[-1] - weights @ mean), 2))
