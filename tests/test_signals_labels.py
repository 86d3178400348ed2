"The label audit: it accuses the wrong labels of the under-bed set, and none of the right ones."

import numpy as np
import pandas as pd
import pytest

from medkit.errors import SignalError
from medkit.signals import Recording, audit_labels, simulate_bcg, simulate_rr
from medkit.signals.collections import read_li2024_rr


@pytest.fixture(scope="module")
def underbed(real_data):
    return real_data / "signals" / "underbed_226hz"


@pytest.fixture(scope="module")
def recordings(underbed):
    return {path.parent.name: Recording(np.loadtxt(path), 226.0) for path in sorted(underbed.glob("*/1*.csv"))}


def test_rates_of_the_underbed_set_are_accused(underbed):
    rates = {path.parent.name: np.loadtxt(path, delimiter=",", ndmin=2)[:, 1] for path in sorted(underbed.glob("*/heartrates.csv"))}
    audit = audit_labels(rates=rates)
    assert {"same_course", "copied"} <= set(audit.faults), audit
    assert len(audit["same_course"].records) >= 30
    numbers = dict(audit["same_course"].evidence)
    assert numbers["median first value"] == pytest.approx(52, abs=0.5) and numbers["median last value"] == pytest.approx(60.7, abs=0.3)
    assert "same_course" in audit._repr_html_() and "34" in audit._repr_html_()


def test_peaks_of_the_underbed_set_are_accused(underbed, recordings):
    beats = {path.parent.name: np.loadtxt(path) - float(path.parent.name.split("_")[1]) for path in sorted(underbed.glob("*/jpeaks.csv"))}
    audit = audit_labels(beats=beats, recordings=recordings)
    assert {"fixed_count", "implausible"} <= set(audit.faults), audit
    assert dict(audit["fixed_count"].evidence)["beats in each"] == 60 and len(audit["fixed_count"].records) == 34


def test_silver_beats_pass_and_the_same_beats_moved_do_not(underbed, recordings):
    beats = {path.parent.name: pd.read_csv(path).iloc[:, 0].to_numpy() for path in sorted(underbed.glob("*/silver_beats.csv"))}
    assert len(beats) == 10
    assert audit_labels(beats=beats, recordings=recordings).ok
    names = sorted(beats)
    rng = np.random.default_rng(0)
    moved = {name: np.cumsum(rng.permutation(np.diff(beats[name]))) for name in names}
    assert audit_labels(beats=moved, recordings=recordings).faults == ("unrelated",)
    swapped = {name: beats[names[(at + 1) % len(names)]] for at, name in enumerate(names)}
    assert "unrelated" in audit_labels(beats=swapped, recordings=recordings).faults


def test_real_references_pass(real_data):
    nights = {path.stem: read_li2024_rr(path) for path in sorted((real_data / "signals" / "li2024_rr_reference").glob("*.csv"))}
    assert audit_labels(beats={name: night.beats_s for name, night in nights.items()}).ok
    assert audit_labels(rates={name: 60 / night.intervals_s for name, night in nights.items()}).ok
    hours = {f"{name} {hour}": night.beats_s[(night.beats_s > 3600 * hour) & (night.beats_s < 3600 * hour + 240)]
             for name, night in nights.items() for hour in range(8)}
    assert audit_labels(beats=hours).ok


@pytest.mark.parametrize("rhythm", ["sinus", "af", "ectopy"])
def test_simulated_truth_passes(rhythm):
    rr = {f"s{seed}": simulate_rr(240, heart_rate_bpm=50 + 3 * seed, seed=seed, rhythm=rhythm) for seed in range(8)}
    assert audit_labels(beats={name: np.cumsum(one) for name, one in rr.items()}).ok
    windows = {name: [60 / np.median(part) for part in np.array_split(one, 8)] for name, one in rr.items()}
    assert audit_labels(rates=windows).ok


def test_simulated_beats_belong_to_their_recordings():
    made = {f"s{seed}": simulate_bcg(240, 100, snr_db=5, seed=seed) for seed in range(5)}
    recordings = {name: recording for name, (recording, _) in made.items()}
    truth = {name: answer.beat_times_s for name, (_, answer) in made.items()}
    assert audit_labels(beats=truth, recordings=recordings).ok
    others = {name: truth[f"s{(int(name[1:]) + 1) % 5}"] for name in truth}
    assert "unrelated" in audit_labels(beats=others, recordings=recordings).faults


@pytest.mark.parametrize("fault, spoil", [
    ("constant", lambda n, one: np.full(40, 60.0) if n == 3 else one),
    ("copied", lambda n, one: np.arange(40) % 7 + 60.0 if n in (2, 5) else one),
    ("clipped", lambda n, one: np.minimum(one, 66)),
    ("implausible", lambda n, one: np.where(np.arange(40) % 8 == 0, 0, one) if n == 1 else one),
    ("jumpy", lambda n, one: one + 50 * (np.arange(40) % 10 == 0) if n == 1 else one),
    ("same_course", lambda n, one: 60 + 8 * np.sin(np.arange(40) / 6) + 0.1 * one),
])
def test_each_fault_of_rates_alone(fault, spoil):
    rng = np.random.default_rng(7)
    honest = {f"r{n}": 60 + 2 * n + np.cumsum(rng.normal(0, 1, 40)) for n in range(8)}
    assert audit_labels(rates=honest).ok
    audit = audit_labels(rates={name: spoil(int(name[1:]), one) for name, one in honest.items()})
    assert fault in audit.faults, audit
    assert audit[fault].evidence and FAULT_WORDS in repr(audit[fault])


FAULT_WORDS = " of 8 records"


def test_bad_input():
    for call, reason in ((lambda: audit_labels(), "bad_option"), (lambda: audit_labels(rates=[1]), "bad_option"),
                         (lambda: audit_labels(beats={"a": ["x"]}), "not_numeric"), (lambda: audit_labels(rates={"a": []}), "all_missing"),
                         (lambda: audit_labels(rates={"a": np.zeros((2, 3))}), "bad_shape")):
        with pytest.raises(SignalError) as caught:
            call()
        assert caught.value.reason == reason
    assert audit_labels(beats={"one": [3.0]}).ok
