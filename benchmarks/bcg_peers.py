"""What other ways of finding heartbeats give on the same bed recordings: packages, published methods and plain guesses.

Run as a script it scores them all on the recordings with consensus beats under MEDKIT_DATA.
"""

import importlib
import os
import sys
import time
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy import fft

from medkit.signals import Recording, band_pass, clean, match_beats, read_recording, reference_rate, score_heart_rate
from medkit.signals.methods import METHODS

BAND_HZ = (1.0, 12.0)  # what the packages are given, as they expect no breathing
WINDOW_S, HOP_S = 30.0, 10.0
PACKAGES = {"NeuroKit2": "neurokit2", "HeartPy": "heartpy"}  # the first word of a peer's name -> its module


def heart_band(recording: Recording) -> np.ndarray:
    "The first channel, gaps bridged, from 1 to 12 Hz."
    values, known = recording.samples[0], np.isfinite(recording.samples[0])
    values = np.interp(np.arange(len(values)), np.flatnonzero(known), values[known])
    return band_pass(values - np.median(values), BAND_HZ, recording.sampling_rate_hz)


def heartpy_module():
    """HeartPy, which in 1.2.7 still imports `pkg_resources`, gone from setuptools 82.

    Only its example data need that; a stand-in lets the detector run. None is left behind.
    """
    try:
        return importlib.import_module("heartpy")
    except ModuleNotFoundError as error:
        if error.name != "pkg_resources":
            raise
    stand_in = types.ModuleType("pkg_resources")
    stand_in.resource_filename = lambda package, path: path
    sys.modules["pkg_resources"] = stand_in
    try:
        return importlib.import_module("heartpy")
    finally:
        del sys.modules["pkg_resources"]


def neurokit(recording: Recording) -> np.ndarray:
    "Its own detector of R peaks, given the heart band as if it were an electrocardiogram."
    import neurokit2

    found = neurokit2.ecg_findpeaks(heart_band(recording), sampling_rate=recording.sampling_rate_hz, method="neurokit")
    return np.asarray(found["ECG_R_Peaks"], float) / recording.sampling_rate_hz


def heartpy(recording: Recording) -> np.ndarray:
    "Its default process; the beats that it rejects itself are left out."
    module = heartpy_module()
    try:
        working, _ = module.process(module.scale_data(heart_band(recording)), recording.sampling_rate_hz)
    except module.exceptions.BadSignalWarning:  # its way of finding nothing
        return np.empty(0)
    accepted = np.asarray(working["binary_peaklist"], dtype=bool)
    return np.asarray(working["peaklist"], float)[accepted] / recording.sampling_rate_hz


def published(name: str, recording: Recording) -> np.ndarray:
    return METHODS[name](clean(recording))[0]


def autocorrelation(recording: Recording, start_s: np.ndarray, window_s: float) -> np.ndarray:
    "60 / the lag of the highest top from 0.4 to 1.5 s, the median over pieces of 10 s."
    values, rate_hz = heart_band(recording), recording.sampling_rate_hz
    lags, rates = np.arange(int(0.4 * rate_hz), int(1.5 * rate_hz) + 1), []
    for start in start_s:
        edges = (start + np.arange(0, window_s - 9.9, 10.0)) * rate_hz
        pieces = [values[int(edge) : int(edge + 10 * rate_hz)] for edge in edges]
        found = [60 * rate_hz / best_lag(piece, lags) for piece in pieces if len(piece) > lags[-1] and piece.any()]
        rates.append(np.median(found) if found else np.nan)
    return np.array(rates)


def best_lag(piece: np.ndarray, lags: np.ndarray) -> int:
    size = fft.next_fast_len(2 * len(piece))
    alike = fft.irfft(np.abs(fft.rfft(piece - piece.mean(), size)) ** 2, size)[lags] / (len(piece) - lags)
    return int(lags[alike.argmax()])


BEAT_PEERS: dict[str, Callable[[Recording], np.ndarray]] = {  # beat times in s
    'NeuroKit2 ecg "neurokit" on 1-12 Hz': neurokit,
    "HeartPy process on 1-12 Hz": heartpy,
    **{name: partial(published, name) for name in METHODS},
}
RATE_PEERS: dict[str, Callable[[Recording, np.ndarray, float], np.ndarray]] = {  # beats per minute, one a window
    "autocorrelation 10 s": autocorrelation,
}


def rates_of(beats_s: np.ndarray, start_s: np.ndarray, window_s: float = WINDOW_S) -> np.ndarray:
    """60 / the median interval in each window: one missed or extra beat does not spoil it, which favours the peers.

    NaN where the intervals fill less than half of the window.
    """
    rates = []
    for start in start_s:
        intervals = np.diff(beats_s[(beats_s >= start) & (beats_s < start + window_s)])
        rates.append(60 / np.median(intervals) if intervals.sum() > window_s / 2 else np.nan)
    return np.array(rates)


def why_missing(name: str) -> str:
    "Why a peer cannot run here, in words; empty if it can."
    words = name.split()
    module = PACKAGES.get(words[0]) if words else None
    if module is None:
        return ""
    try:
        heartpy_module() if module == "heartpy" else importlib.import_module(module)
    except ModuleNotFoundError as error:
        return "not installed" if error.name == module else f"installed, but it needs {error.name}"
    except ImportError as error:
        return f"installed, but does not start: {error}"
    return ""


def constant_guess(references: list[np.ndarray]) -> list[np.ndarray]:
    "For each record's windows: the best single number for all of them, which no method may know."
    best = float(np.nanmedian(np.concatenate(references)))
    return [np.full(len(reference), best) for reference in references]


def own_mean_guess(references: list[np.ndarray]) -> list[np.ndarray]:
    "For each record's windows: that record's mean reference rate, which no method may know either."
    return [np.full(len(reference), np.nanmean(reference)) for reference in references]


GUESSES = {"guess: one constant": constant_guess, "guess: each record's own mean (oracle)": own_mean_guess}


@dataclass
class Case:
    "One recording with the beats that are held to be true."

    person: str
    recording: Recording
    beats_s: np.ndarray

    @property
    def start_s(self) -> np.ndarray:
        return np.arange(0, self.recording.duration_s - WINDOW_S + 0.1, HOP_S)

    @property
    def reference_bpm(self) -> np.ndarray:
        return reference_rate(self.beats_s, self.start_s, WINDOW_S)


@dataclass
class PeerRow:
    "One peer's figures; `note` says why there are none."

    name: str
    mae_bpm: float = np.nan
    within_5_bpm: float = np.nan
    coverage: float = np.nan
    f1: float = np.nan
    cpu_s_per_hour: float = np.nan
    note: str = ""


def measure_peer(name: str, cases: list[Case], tolerance_s: float = 0.15) -> PeerRow:
    "One row: rates against the reference, F1 of the beats after the best delay, and processor time."
    if note := why_missing(name):
        return PeerRow(name, note=note)
    rates, f1, spent = [], [], 0.0
    try:
        for case in cases:
            before = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the packages warn of a signal that they do not expect
                if name in RATE_PEERS:
                    rates.append(RATE_PEERS[name](case.recording, case.start_s, WINDOW_S))
                else:
                    found = BEAT_PEERS[name](case.recording)
                    rates.append(rates_of(found, case.start_s))
            spent += time.process_time() - before
            if name not in RATE_PEERS:
                f1.append(match_beats(found, case.beats_s, tolerance_s=tolerance_s, delay_s="fit").f1)
    except Exception as error:  # another's program may fail in any way; the table says how
        return PeerRow(name, note=f"failed: {type(error).__name__}: {error}"[:90])
    row = score(name, rates, cases)
    row.f1 = float(np.mean(f1)) if f1 else np.nan
    row.cpu_s_per_hour = 3600 * spent / sum(case.recording.duration_s for case in cases)
    return row


def score(name: str, rates: list[np.ndarray], cases: list[Case]) -> PeerRow:
    "The row of `rates`, a vector for each case."
    people = np.concatenate([[case.person] * len(case.start_s) for case in cases])
    measured, reference = np.concatenate(rates), np.concatenate([case.reference_bpm for case in cases])
    if not (np.isfinite(measured) & np.isfinite(reference)).any():
        return PeerRow(name, coverage=0.0, note="no window answered")
    result = score_heart_rate(measured, reference, people)
    return PeerRow(name, result.mae_bpm, result.within_5_bpm, result.coverage)


def measure_peers(cases: list[Case], tolerance_s: float = 0.15) -> list[PeerRow]:
    "All rows, the guesses last."
    rows = [measure_peer(name, cases, tolerance_s) for name in [*BEAT_PEERS, *RATE_PEERS]]
    references = [case.reference_bpm for case in cases]
    return [*rows, *(score(name, guess(references), cases) for name, guess in GUESSES.items())]


def table(rows: list[PeerRow]) -> str:
    "The rows as text."
    head = f"{'method':<42} {'MAE bpm':>8} {'<= 5 bpm':>9} {'coverage':>9} {'beat F1':>8} {'s per h':>8}"
    lines = [head]
    for row in rows:
        cells = [f"{row.mae_bpm:8.2f}", f"{row.within_5_bpm:9.0%}", f"{row.coverage:9.0%}", f"{row.f1:8.3f}"]
        cells.append(f"{row.cpu_s_per_hour:8.2f}")
        shown = [" " * (len(cell) - 1) + "-" if "nan" in cell else cell for cell in cells]
        lines.append(f"{row.name:<42} {' '.join(shown)}  {row.note}".rstrip())
    return "\n".join(lines)


def consensus_cases(folder: Path) -> list[Case]:
    "The under-mattress recordings on which two trackers agree; a person is the part of the name before the underscore."
    cases = []
    for beats in sorted((folder / "signals/underbed_226hz").glob("*/silver_beats.csv")):
        name, number = beats.parent.name.split("_")
        recording = read_recording(beats.parent / f"{number}.csv", sampling_rate_hz=226)
        cases.append(Case(name, recording, np.loadtxt(beats, skiprows=1)))
    return cases


if __name__ == "__main__":
    if not os.environ.get("MEDKIT_DATA"):
        sys.exit("set MEDKIT_DATA to the folder of real recordings")
    real = consensus_cases(Path(os.environ["MEDKIT_DATA"]))
    print(f"{len(real)} recordings of {len({case.person for case in real})} people, {WINDOW_S:g} s windows every {HOP_S:g} s")
    print(table(measure_peers(real)))
