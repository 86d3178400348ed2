"""Frozen records to measure on: semi-synthetic beds, noise, machines, and the real recordings under MEDKIT_DATA.

They share no code with `simulate_bcg`, so that medkit is not examined by its own idea of a heartbeat.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy.signal import butter, iirpeak, lfilter, sosfiltfilt

from medkit.signals import Recording, read_recording, simulate_rr

NIGHTS = ("02_20231103_RR.csv", "03_20231105_RR.csv")  # li2024_rr_reference
HUMS = ("fan", "frame", "breathing harmonics", "mains")
NOISES = {"white": 0.0, "coloured": 1.0, "brown": 2.0}  # power falls as 1 / frequency ** slope
PACED_S = (2, 4, 6, 8, 10, 12, 16, 20)


@dataclass(frozen=True)
class Bed:
    recording: Recording
    beat_times_s: np.ndarray
    person: str


def data() -> Path | None:
    "The folder of real signals, if MEDKIT_DATA names one."
    folder = Path(os.environ.get("MEDKIT_DATA", "")) / "signals"
    return folder if os.environ.get("MEDKIT_DATA") and folder.is_dir() else None


# ---- semi-synthetic beds: real overnight intervals, drawn shapes, coloured noise, movement ----


@cache
def nights() -> tuple[np.ndarray, ...]:
    if data() is None:
        return tuple(simulate_rr(30_000, heart_rate_bpm=rate, arrhythmia=0.05, seed=rate) for rate in (52, 68))
    files = [data() / "li2024_rr_reference" / name for name in NIGHTS]
    return tuple(np.genfromtxt(file, delimiter=",", skip_header=1, usecols=2) for file in files)


def band(values: np.ndarray, low_hz: float, high_hz: float, rate_hz: float) -> np.ndarray:
    return sosfiltfilt(butter(3, (low_hz, min(high_hz, 0.45 * rate_hz)), "bandpass", fs=rate_hz, output="sos"), values)


def coloured(size: int, rate_hz: float, slope: float, rng: np.random.Generator, knee_hz: float = 0.3) -> np.ndarray:
    frequency = np.maximum(np.fft.rfftfreq(size, 1 / rate_hz), knee_hz)
    return np.fft.irfft(np.fft.rfft(rng.normal(size=size)) * frequency ** (-slope / 2), size)


def draw_shape(kind: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    "Times from the highest point (s) and heights: seven bells, a ringing mattress, or a random burst with an echo."
    times_s = np.arange(-0.3, 0.8, 0.001)
    if kind == 0:
        delay = np.array([-0.13, -0.065, 0, 0.085, 0.165, 0.245, 0.33]) * rng.uniform(0.8, 1.2) + rng.normal(0, 0.008, 7)
        height = np.array([0.25, -0.6, 1, -0.7, 0.38, -0.25, 0.15]) * rng.uniform(0.4, 1.6, 7)
        height[2] = 1
        width = np.array([0.03, 0.024, 0.026, 0.03, 0.032, 0.035, 0.04]) * rng.uniform(0.8, 1.4, 7)
        shape = np.exp(-0.5 * ((times_s[:, None] - delay) / width) ** 2) @ height
    elif kind == 1:
        frequency_hz, decay_s, rise_s = rng.uniform(3, 8), rng.uniform(0.06, 0.18), rng.uniform(0.03, 0.08)
        late_s = np.clip(times_s + 0.1, 0, None)
        ringing = np.cos(2 * np.pi * frequency_hz * times_s + rng.uniform(0, 2 * np.pi))
        shape = (1 - np.exp(-late_s / rise_s)) * np.exp(-late_s / decay_s) * ringing * (late_s > 0)
    else:
        burst = band(rng.normal(size=len(times_s)), 1.5, rng.uniform(6, 11), 1000)
        first = np.exp(-0.5 * ((times_s - 0.05) / rng.uniform(0.08, 0.14)) ** 2)
        shape = burst * (first + rng.uniform(0, 0.5) * np.exp(-0.5 * ((times_s - 0.4) / 0.1) ** 2))
    shape = (shape - shape.mean()) / (shape - shape.mean()).max()
    return times_s - times_s[shape.argmax()], shape


def bed(seed: int, snr_db: float, rate_hz: float = 100.0, duration_s: float = 600.0, movements_per_hour: float = 18.0) -> Bed:
    "One person in one bed; heart against noise power between 1 and 12 Hz is `snr_db`."
    rng, night = np.random.default_rng(seed), nights()[seed % 2]
    intervals = np.array([9.0])
    while not ((intervals > 0.3) & (intervals < 2)).all():
        first = rng.integers(0, len(night) - int(2.2 * duration_s))
        intervals = night[first: first + int(2.2 * duration_s)]
    beats_s = np.cumsum(intervals) - intervals[0] + rng.uniform(0, 1)
    beats_s = beats_s[beats_s < duration_s]
    times_s = np.arange(int(duration_s * rate_hz)) / rate_hz
    knots_s = np.arange(0, duration_s + 40, 20)
    swing = 1 + 0.1 * np.interp(times_s, knots_s, rng.normal(size=len(knots_s)))
    phase = 2 * np.pi * np.cumsum(rng.uniform(0.17, 0.33) * swing) / rate_hz
    starts_s = np.sort(rng.uniform(10, duration_s - 20, rng.poisson(movements_per_hour * duration_s / 3600)))
    stops_s = starts_s + rng.uniform(1.5, 9, len(starts_s))
    heart = lay_beats(beats_s, np.searchsorted(stops_s, beats_s), np.interp(beats_s, times_s, np.sin(phase)), times_s, rate_hz, rng)
    power = np.var(band(heart, 1, 12, rate_hz))
    noise = coloured(len(times_s), rate_hz, rng.uniform(0, 2), rng)
    noise *= np.sqrt(power / np.var(band(noise, 1, 12, rate_hz))) * 10 ** (-snr_db / 20)
    breath = np.sin(phase) + 0.2 * np.sin(2 * phase + 1) + 0.07 * np.sin(3 * phase)
    force = heart + noise + rng.uniform(2, 10) * np.sqrt(power) * breath
    for start_s, stop_s in zip(starts_s, stops_s):
        first, stop = int(start_s * rate_hz), int(stop_s * rate_hz)
        loud = sosfiltfilt(butter(2, min(rng.uniform(2, 8), 0.4 * rate_hz), fs=rate_hz, output="sos"), rng.normal(size=stop - first))
        force[first:stop] += loud / loud.std() * np.hanning(stop - first) ** 0.3 * np.sqrt(power) * rng.uniform(8, 60)
    return Bed(Recording(force * rng.uniform(0.1, 1000), rate_hz), beats_s, str(seed))


def lay_beats(beats_s, posture, breath, times_s, rate_hz, rng) -> np.ndarray:
    "One shape a person; height and pace change with posture, breath and beat."
    shape_s, shape = draw_shape(int(rng.integers(0, 3)), rng)
    heights = rng.uniform(0.6, 1.5, posture.max(initial=0) + 1)[posture] * (1 + 0.25 * breath + 0.1 * rng.normal(size=len(beats_s)))
    paces, heart = 1 + 0.04 * breath + 0.02 * rng.normal(size=len(beats_s)), np.zeros(len(times_s))
    for beat_s, height, pace in zip(beats_s, heights, paces):
        near = np.arange(max(int(np.ceil((beat_s - 0.45) * rate_hz)), 0), min(int((beat_s + 0.85) * rate_hz), len(times_s)))
        heart[near] += height * np.interp((near / rate_hz - beat_s) / pace, shape_s, shape, left=0, right=0)
    return heart


# ---- nobody in bed ----


def noise(kind: str, seed: int, rate_hz: float, duration_s: float = 180.0) -> Recording:
    return Recording(coloured(int(duration_s * rate_hz), rate_hz, NOISES[kind], np.random.default_rng(seed), knee_hz=0.05), rate_hz)


def hum(kind: str, seed: int, rate_hz: float, duration_s: float = 180.0) -> np.ndarray:
    "One kind of structured interference with standard deviation 1."
    rng, times_s = np.random.default_rng(seed), np.arange(int(duration_s * rate_hz)) / rate_hz
    wander = np.interp(times_s, np.arange(duration_s + 3), rng.normal(size=int(duration_s) + 3))
    if kind == "fan":  # 1.2 turns a second, one to five harmonics
        phase = 2 * np.pi * np.cumsum(1.2 * (1 + rng.normal(0, 0.05)) * (1 + 0.005 * wander)) / rate_hz
        falls = rng.uniform(0.3, 1.5)
        values = sum(np.cos(n * phase + rng.uniform(0, 6.3)) / n**falls for n in range(1, rng.integers(2, 7)))
    elif kind == "frame":  # resonance of quality 8, driven by noise
        top, bottom = iirpeak(rng.uniform(3, 9), 8, fs=rate_hz)
        values = lfilter(top, bottom, rng.normal(size=len(times_s)))
    elif kind == "breathing harmonics":
        phase = 2 * np.pi * np.cumsum(rng.uniform(0.15, 0.35) * (1 + 0.05 * wander)) / rate_hz
        falls = rng.uniform(0.8, 1.6)
        values = sum(np.cos(n * phase + rng.uniform(0, 6.3)) / n**falls for n in range(1, 13))
    else:
        mains_hz = rng.choice([50, 60])
        values = np.sin(2 * np.pi * 1.0003 * mains_hz * times_s) + 0.3 * np.sin(2 * np.pi * 2 * mains_hz * times_s)
    return values / values.std()


def machine(kind: str, seed: int, rate_hz: float, duration_s: float = 180.0) -> Recording:
    "An empty bed shaken by one kind of interference, with a little coloured noise."
    rng, values = np.random.default_rng(1000 + seed), hum(kind, seed, rate_hz, duration_s)
    floor = coloured(len(values), rate_hz, rng.uniform(0, 2), rng)
    return Recording(values + rng.choice([0.02, 0.1, 0.3]) * floor / floor.std(), rate_hz)


# ---- real recordings ----


def under_mattress(folder: Path) -> Iterator[Bed]:
    "The records with consensus beats."
    for beats in sorted((folder / "underbed_226hz").glob("*/silver_beats.csv")):
        yield Bed(read_bed(beats.parent), np.loadtxt(beats, skiprows=1), beats.parent.name.split("_")[0])


def read_bed(folder: Path) -> Recording:
    return read_recording(folder / f"{folder.name.split('_')[1]}.csv", sampling_rate_hz=226)


def shaken(person: Bed, kind: str, level_db: float, seed: int) -> Bed:
    "A real bed with interference of a strength relative to its heart band."
    values, rate_hz = person.recording.samples[0], person.recording.sampling_rate_hz
    strength = 10 ** (level_db / 20) * np.median(np.abs(band(values - values.mean(), 1.2, 12, rate_hz))) / 0.6745
    extra = hum(kind, seed, rate_hz, len(values) / rate_hz + 1)[: len(values)]
    return Bed(Recording(values + strength * extra, rate_hz), person.beat_times_s, person.person)
