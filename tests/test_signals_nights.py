"""Simulated labelled nights: reproducible, by person, labels that fit the truth, no single giveaway, odd options refused."""

import numpy as np
import pytest

from medkit.errors import SignalError
from medkit.signals import RHYTHMS, STAGES, activity_counts, make_windows, simulate_night, simulate_rhythm, sleep_wake

NIGHTS = [simulate_night(seed, sampling_rate_hz=25) for seed in range(60, 72)]


def test_lengths_fit_the_windows():
    for night in NIGHTS[:2]:
        windows = make_windows(night.bed, person=night.person, night="1")
        assert len(windows) == len(night.labels) == len(night.stages) == 960
        assert night.bed.duration_s == night.wrist.duration_s == 8 * 3600
        assert np.array_equal(windows.start_s, night.epoch_s * np.arange(960))
    odd = simulate_night(1, hours=0.7, sampling_rate_hz=31.7)
    assert len(odd.labels) == 84 == len(make_windows(odd.bed, person="a", night="1"))


def test_the_same_arguments_give_the_same_night_and_every_seed_another():
    first, again, other = (simulate_night(seed, hours=1) for seed in (5, 5, 6))
    for name in ("bed", "wrist"):
        assert np.array_equal(getattr(first, name).samples, getattr(again, name).samples)
        assert not np.array_equal(getattr(first, name).samples, getattr(other, name).samples)
    assert np.array_equal(first.labels, again.labels) and first.person == again.person != other.person


def test_a_longer_night_is_no_trap():
    "Noise level and rate change the bed, not the labels."
    labels = [simulate_night(5, hours=2, **options).labels for options in ({}, {"snr_db": 0}, {"sampling_rate_hz": 100})]
    assert all(np.array_equal(one, labels[0]) for one in labels)


def test_nights_are_as_the_sources_say():
    slept = np.array([night.shares["sleep"] for night in NIGHTS])
    assert 0.76 < slept.mean() < 0.90 and slept.min() > 0.5 and slept.max() < 1
    hours = sum(np.bincount(night.stages, minlength=4) for night in NIGHTS) / 120
    moves = np.zeros(4)
    for night in NIGHTS:
        epochs = (night.truth.movement_spans_s[:, 0] // 30).astype(int)
        moves += np.bincount(night.stages[epochs], minlength=4)
    wake, light, deep, rem = moves / hours
    assert wake > 2 * rem > 2 * light > 2 * deep > 0
    turns = np.mean([(len(night.truth.posture_starts_s) - 1) / 8 for night in NIGHTS])
    assert 0.8 < turns < 5
    assert len(STAGES) == 4 and NIGHTS[0].names == ("wake", "sleep")


def test_hearts_of_awake_and_asleep_overlap():
    "Within a person the heart is a few percent faster awake; between people it differs more."
    shift, resting = [], []
    for night in NIGHTS:
        beats = night.truth.beat_times_s
        rate, label = 60 / np.diff(beats), night.labels[(beats[1:] // 30).astype(int).clip(0, 959)]
        shift.append(np.median(rate[label == 0]) / np.median(rate[label == 1]))
        resting.append(np.median(rate[label == 1]))
    assert 1.02 < np.mean(shift) < 1.16 and np.std(resting) / np.mean(resting) > 0.06


def test_the_watch_misses_quiet_wake():
    "As in Marino 2013, sleep is found better than wake once the scale suits the watch."
    shares = []
    for night in NIGHTS:
        asleep = np.repeat(sleep_wake(activity_counts(night.wrist), scale=0.4).asleep, 2)
        shares.append([(asleep[night.labels == one] == one).mean() for one in (0, 1)])
    wake, sleep = np.mean(shares, axis=0)
    assert 0.25 < wake < 0.7 < sleep and 0.6 < (wake + sleep) / 2 < 0.76


@pytest.mark.parametrize("options", [
    {"hours": 0.1}, {"hours": 25}, {"hours": None}, {"hours": float("nan")}, {"sampling_rate_hz": 10}, {"sampling_rate_hz": "50"},
    {"snr_db": 1e9}, {"seed": -1}, {"seed": 1.5}, {"seed": True}, {"seed": "a"},
])
def test_odd_options_are_refused(options):
    with pytest.raises(SignalError, match="bad_option"):
        simulate_night(**{"seed": 1} | options)


@pytest.mark.parametrize("options", [
    {"kind": "flutter"}, {"kind": None}, {"minutes": 0}, {"minutes": "5"}, {"seed": -1}, {"movements_per_hour": -1}, {"snr_db": None},
])
def test_odd_rhythms_are_refused(options):
    with pytest.raises(SignalError, match="bad_option"):
        simulate_rhythm(**{"seed": 1} | options)


@pytest.mark.parametrize("seed", range(8))
def test_rhythm_labels_fit_the_beats(seed):
    for number, kind in enumerate(RHYTHMS):
        stretch = simulate_rhythm(seed, kind, sampling_rate_hz=25)
        assert set(stretch.labels) <= {0, number} and len(stretch.labels) == 20
        assert kind == "sinus" or (stretch.labels == number).any()
        beats = stretch.truth.beat_times_s
        interval = np.diff(beats)
        assert (np.diff(beats) > 0.18).all() and interval.max() < 3
        ratio = interval[1:] / interval[:-1]
        if kind == "sinus":
            assert ratio.max() < 1.3
        if kind == "ectopy":  # the pause after an early beat is at least 1.25 / 0.75 times as long as the interval before it
            assert set(beats[1:-1][ratio > 1.45] // 30) == set(np.flatnonzero(stretch.labels))


def test_fibrillation_is_irregular_where_labelled_and_nowhere_else():
    calm, rough = [], []
    for seed in range(10):
        stretch = simulate_rhythm(seed, "af", sampling_rate_hz=25, movements_per_hour=0)
        edges = np.flatnonzero(np.diff(stretch.labels)) + 1  # half minutes beside a change are mixed
        clear = np.setdiff1d(np.arange(20), np.concatenate([edges, edges - 1]))
        beats = stretch.truth.beat_times_s
        for epoch in clear:
            scatter = np.abs(np.diff(np.diff(beats[beats // 30 == epoch]))).mean()
            (rough if stretch.labels[epoch] else calm).append(scatter)
    assert np.median(rough) > 3 * np.median(calm)
