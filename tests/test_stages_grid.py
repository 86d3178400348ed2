"""Grids over people and folds: nothing is lost, nobody is named, one thing changes at a time, and the test set is opened by count."""

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkit import stages
from medkit.errors import ModelError, StageError
from medkit.learning.report import ByPatient, Metric, Scores

PEOPLE = tuple(f"Anna Example {number:02}" for number in range(12))
FOLDS = tuple(PEOPLE[start::3] for start in range(3))
SPLIT = stages.split_hash(folds=PEOPLE)
SPACES, MODELS = ["time", "frequency", "beats"], ["logistic", "forest", "boosting"]
HOSTILE = "<script>alert('x')</script>"


def scored(settings, level=0.6, people=None, name="dice", better=True):
    "A pretended score of the people of the fold, harder from person to person."
    names = FOLDS[settings["fold"]] if people is None else people
    values = {person: level - 0.01 * int(person[-2:]) for person in names}
    return ByPatient(name, values, dict.fromkeys(values, 0.3), "naive", better)


def by_words(settings):
    "A pretended training: the words of the settings are worth something, and each run has its luck."
    words = [value for value in settings.values() if isinstance(value, str)]
    luck = np.random.default_rng([settings["seed"], *map(ord, "".join(words))]).normal(0, 0.01)
    return scored(settings, 0.5 + 0.05 * (SPACES + MODELS).index(words[0]) + 0.05 * MODELS.index(words[-1]) + luck)


def rule(settings):
    return scored(settings, 0.4)


@pytest.fixture
def grid():
    return stages.Grid("g", {"space": SPACES, "model": MODELS}, (0, 1, 2), SPLIT, FOLDS)


@pytest.fixture
def store(tmp_path):
    return stages.Store(tmp_path / "project.sqlite")


def bytes_of(store):
    "Everything on the disk that belongs to the store, the write-ahead log too."
    return b"".join(path.read_bytes() for path in Path(store.path).parent.glob(f"{Path(store.path).name}*"))


def test_every_name_is_loaded_without_torch_or_fastai():
    names = "Cell Comparison Estimate Grid HeatMap Opening Run Step Walk compare heat_map next_idea open_test rank_stability show_ranks walk"
    code = (f"import sys; from medkit import stages; [getattr(stages, n) for n in '{names}'.split()]; "
            "print([m for m in ('torch', 'fastai', 'torchvision', 'ipywidgets') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# one metric, patient by patient

NUMBERS = st.floats(-10, 10) | st.just(math.nan)


@settings(max_examples=100, deadline=None)
@given(st.lists(NUMBERS, min_size=4, max_size=12), st.integers(2, 4), st.randoms())
def test_pooling_does_not_depend_on_the_folds(values, count, random):
    known = {f"person-{number}": value for number, value in enumerate(values)}

    def pooled(names):
        folds = tuple(tuple(names[start::count]) for start in range(count))

        def train(settings):
            here = folds[settings["fold"]]
            return ByPatient("m", {name: known[name] for name in here}, dict.fromkeys(here, 0.0), "zero")

        run, = stages.Grid("g", {"a": [1]}, (0,), "s", folds).run(train)
        return run

    run = pooled(list(known))
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        assert run.scores is None and "too_few_patients" in run.error
        return
    assert run.scores["m"].value == pytest.approx(np.mean(finite)) and run.scores["m"].patients == len(finite)
    assert pooled(random.sample(list(known), len(known))).scores.metrics == run.scores.metrics
    assert len(run.people[0].values) == len(values) and not set(run.people[0].values) & set(known)


@pytest.mark.parametrize("change, reason", [
    ({"values": {"a": math.inf, "b": 1}}, "bad_record"), ({"values": {"a": 1}}, "bad_record"), ({"values": "ab"}, "bad_record"),
    ({"values": {1: 1, "1": 2}, "naive": {"1": 0}}, "bad_record"), ({"naive": {"a": math.nan, "b": 1}}, "not_finite"),
])
def test_what_is_no_value_of_a_patient_is_refused(change, reason):
    whole = ByPatient("m", {"a": 1, "b": 2}, {"a": 0, "b": 0}, "zero")
    with pytest.raises(ModelError) as caught:
        replace(whole, **change)
    assert caught.value.reason == reason


# what training gives back

def test_a_person_of_another_fold_is_a_leak_that_is_named_by_its_fold(grid, store):
    runs = grid.run(lambda settings: scored(settings, people=FOLDS[0]), store)
    assert all(run.scores is None and "fold 1" in run.error and "people of fold 0" in run.error for run in runs)
    assert "patient_overlap" in runs[0].error and not any(name in run.error for run in runs for name in PEOPLE)


@pytest.mark.parametrize("result, words", [
    (lambda settings: scored(settings, people=FOLDS[settings["fold"]][:-1]), "1 of 4 people missing"),
    (lambda settings: scored(settings, people=(*FOLDS[settings["fold"]], "Bert 99")), "people of no fold"),
    (lambda settings: Metric("dice", 0.5, 0.4, 0.6, 0.3, "naive", 4), "return ByPatient"),
    (lambda settings: [scored(settings), scored(settings)], "two metrics of one name"),
    (lambda settings: [scored(settings), 3], "return ByPatient"),
    (lambda settings: scored(settings, name=f"dice {settings['fold']}"), "different metrics"),
])
def test_folds_that_cannot_be_pooled_are_a_failed_run(grid, result, words):
    run = grid.run(result)[0]
    assert run.scores is None and words in run.error and "Bert" not in run.error


def test_several_metrics_are_pooled_side_by_side(grid):
    run = grid.run(lambda settings: {"a": scored(settings), "b": scored(settings, 3.0, name="hd95", better=False)})[0]
    assert [metric.name for metric in run.scores.metrics] == ["dice", "hd95"] and not run.scores["hd95"].higher_is_better


def test_no_name_of_a_person_is_in_the_store(grid, store):
    def careless(settings):
        if settings["space"] == "beats":
            raise KeyError(f"no recording of {FOLDS[settings['fold']][1]}")
        return by_words(settings)

    stages.walk(grid, careless, rule, "dice", store)
    grid.run(careless, store)
    best = stages.leaderboard(store, "dice").best
    stages.open_test(store, grid, best, lambda settings: ByPatient("dice", {"Carl Test": 0.5, "Dora Test": 0.6},
                                                                  {"Carl Test": 0.1, "Dora Test": 0.1}, "naive"))
    raw = bytes_of(store)
    assert b"no recording of" in raw and b"test result" in raw
    assert not [name for name in (*PEOPLE, "Anna", "Carl", "Dora") if name.encode() in raw]
    assert store.verify() > 0


def test_a_stored_run_comes_back_as_it_was_with_its_people(grid, store):
    blank = {**dict.fromkeys(PEOPLE, 0.5), PEOPLE[0]: math.nan}
    runs = grid.run(lambda settings: ByPatient("dice", {name: blank[name] for name in FOLDS[settings["fold"]]},
                                               dict.fromkeys(FOLDS[settings["fold"]], 0.3), "naive"), store)
    again = stages.read_runs(store, "g")
    assert repr([run.people for run in again]) == repr([run.people for run in runs]) and [run.scores for run in again] == [run.scores for run in runs]
    assert sum(math.isnan(value) for value in again[0].people[0].values.values()) == 1


def test_runs_of_an_older_medkit_are_read(store):
    metric = {"name": "dice", "value": 0.5, "low": 0.4, "high": 0.6, "naive": 0.3, "naive_name": "n", "patients": 9}
    body = {"grid": "old", "params": {"width": 8}, "seed": 0, "split_hash": "abc", "seconds": 1.0, "error": "",
            "scores": {"patients": 9, "notes": [], "metrics": [metric]}}
    store.append("run", "k", body)
    run, = stages.read_runs(store)
    assert (run.people, run.folds, run.scores["dice"].value) == ((), "", 0.5)
    store.append("run", "k2", {name: value for name, value in body.items() if name != "seed"})
    with pytest.raises(StageError, match="incomplete"):
        stages.read_runs(store)


# resuming

CHILD = """
import os, sys, time
sys.path.insert(0, {here!r})
from test_stages_grid import FOLDS, MODELS, SPACES, SPLIT, by_words
from medkit import stages

def train(settings):
    with open({log!r}, "a") as file:
        file.write(repr(sorted(settings.items())) + "\\n")
    time.sleep(0.02)
    return by_words(settings)

stages.Grid("g", dict(space=SPACES, model=MODELS), (0, 1, 2), SPLIT, FOLDS).run(train, stages.Store({path!r}))
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_killed_process_loses_only_the_training_that_was_under_way(grid, tmp_path):
    path, log = tmp_path / "killed.sqlite", tmp_path / "log.txt"
    code = CHILD.format(here=str(Path(__file__).parent), log=str(log), path=str(path))
    for least in (5, 30, 50):
        worker = subprocess.Popen([sys.executable, "-c", code])
        deadline = time.monotonic() + 60
        while (not log.exists() or log.read_text().count("\n") < least) and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    store, calls = stages.Store(path), []
    kept = len(store.records("run fold"))
    runs = grid.run(lambda settings: calls.append(settings) or by_words(settings), store)
    started = log.read_text().splitlines()
    assert len(started) >= 50 and kept >= len(started) - 3
    assert len(calls) == 9 * 3 * 3 - kept and all(run.scores is not None for run in runs)
    repeated = len(started) + len(calls) - 81
    assert repeated <= 3, "each of three kills may cost one training"
    assert repr(runs[0].scores) == repr(grid.run(by_words)[0].scores)
    store.verify()


def test_a_failed_fold_ends_its_run_and_only_it_is_tried_again(store):
    calls, broken = [], {(1, 1)}
    grid = stages.Grid("g", {"a": [1]}, (0, 1), SPLIT, FOLDS)

    def train(settings):
        calls.append((settings["seed"], settings["fold"]))
        if calls[-1] in broken:
            raise RuntimeError("disk full")
        return scored(settings)

    first = grid.run(train, store)
    assert calls == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)] and first[1].error.startswith("fold 1: RuntimeError: disk full (line ")
    assert (grid.estimate(store).left, grid.estimate(store).done) == (2, 4)
    calls.clear(), broken.clear()
    assert grid.run(train, store)[1].scores is not None and calls == [(1, 1), (1, 2)]
    assert grid.estimate(store).left == 0


def test_other_folds_are_other_runs(grid, store):
    other = replace(grid, folds=FOLDS[::-1])
    first = replace(grid, factors={"space": ["time"], "model": ["forest"]}).run(by_words, store)
    calls = []
    second = replace(other, factors={"space": ["time"], "model": ["forest"]}).run(
        lambda settings: calls.append(1) or scored(settings, people=FOLDS[::-1][settings["fold"]]), store)
    assert len(calls) == 9 and first[0].folds != second[0].folds
    with pytest.raises(StageError, match="different folds"):
        stages.leaderboard(store, "dice")


def test_impossible_cells_are_blanks_and_no_failures(grid):
    some = replace(grid, possible=lambda cell: cell["model"] != "boosting" or cell["space"] == "beats")
    board = stages.leaderboard(some.run(by_words), "dice")
    assert (len(some.cells()), len(board.runs), len(board.failed)) == (7, 21, 0)
    found = stages.heat_map(board, "space", "model", some)
    assert found.states[2] == ("impossible", "impossible", "scored") and "2 impossible" in repr(found)


@pytest.mark.parametrize("wrong", [
    {"folds": (("a", "b"), ("b",))}, {"folds": (("a",),)}, {"folds": ("ab", "cd")}, {"folds": ((), ("a",))}, {"folds": 3},
    {"factors": {"fold": [1]}}, {"factors": {"heuristic": [1]}}, {"factors": {"a": [1, 1]}}, {"factors": {}}, {"factors": [1]},
    {"seeds": (0, 0)}, {"factors": {"a": [math.nan]}}, {"factors": {"a": [{1}]}},
])
def test_grids_that_mean_nothing_are_refused(grid, wrong):
    with pytest.raises(StageError):
        replace(grid, **wrong)


def test_the_estimate_takes_what_similar_cells_took(store):
    slow = {"forest": 0.03, "logistic": 0.0, "boosting": 0.0}
    grid = stages.Grid("g", {"space": ["time"], "model": MODELS[:2]}, (0,), SPLIT, FOLDS)
    assert grid.estimate(store).seconds is None
    grid.run(lambda settings: time.sleep(slow[settings["model"]]) or by_words(settings), store)
    wide = replace(grid, factors={"space": ["time", "beats"], "model": MODELS[:2]})
    guess = wide.estimate(store)
    assert (guess.trainings, guess.done, guess.left, guess.timed) == (12, 6, 6, 6)
    assert 3 * 0.03 <= guess.seconds < 3 * 0.03 + 0.2


# where somebody looks

PROGRESS = """
import time
from medkit import stages
from medkit.learning.report import Metric
def train(settings):
    time.sleep(0.15)
    return Metric("m", 0.5, 0.4, 0.6, 0.3, "n", 9)
stages.Grid("my grid", {"a": [1, 2, 3, 4]}, (0,), "s").run(train)
"""


def test_a_log_file_sees_nothing():
    done = subprocess.run([sys.executable, "-c", PROGRESS], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.skipif(os.name != "posix", reason="a pseudo-terminal")
def test_a_terminal_sees_a_bar():
    ours, theirs = os.openpty()
    done = subprocess.run([sys.executable, "-c", PROGRESS], stdout=subprocess.PIPE, stderr=theirs, check=True, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    seen = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.stdout == b"" and "my grid" in seen and "/4" in seen and "left" in seen


def test_a_function_is_told(grid):
    said = []
    replace(grid, seeds=(0,), factors={"a": [1]}).run(scored, progress=lambda *words: said.append(words))
    assert said[0][:2] == (0, 3) and said[-1][:2] == (3, 3) and "fold 1" in " ".join(words[2] for words in said)


# one thing changed

def cell_of(board, **params):
    return next(cell for cell in board.cells if cell.params == params)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=12, max_size=12), st.floats(-5, 5), st.booleans())
def test_pairing_takes_away_what_persons_have_in_common(pairs, shift, better):
    values = {name: dict(zip("ab", pair)) for name, pair in zip(PEOPLE, pairs)}

    def train(offset):
        def one(settings):
            known = {name: values[name][settings["m"]] + offset * (1 + PEOPLE.index(name)) for name in FOLDS[settings["fold"]]}
            return ByPatient("x", known, dict.fromkeys(known, 0.0), "zero", better)
        return one

    grid = stages.Grid("g", {"m": ["a", "b"]}, (0,), SPLIT, FOLDS)
    plain, shifted = (stages.compare(*grid.run(train(offset)), "x") for offset in (0.0, shift))
    sign = 1 if better else -1
    assert plain.difference == pytest.approx(sign * np.mean([a - b for a, b in pairs]), abs=1e-9)
    assert shifted.difference == pytest.approx(plain.difference, abs=1e-9) and shifted.low == pytest.approx(plain.low, abs=1e-9)
    assert plain.low - 1e-9 <= plain.difference <= plain.high + 1e-9
    back = stages.compare(*grid.run(train(0.0))[::-1], "x")
    assert back.difference == pytest.approx(-plain.difference, abs=1e-9) and "no claim from 1" in back.verdict


def test_what_cannot_be_compared_is_refused_by_name(grid):
    board = stages.leaderboard(grid.run(by_words), "dice")
    a, one, two = (cell_of(board, space=space, model=model) for space, model in
                   (("time", "forest"), ("beats", "forest"), ("beats", "boosting")))
    assert stages.compare(one, a).changed == "space beats or time"
    with pytest.raises(StageError, match="2 differences: space, model"):
        stages.compare(a, two)
    with pytest.raises(StageError, match="0 differences"):
        stages.compare(a, a)

    def changed(**fields):
        return [replace(run, **fields) for run in one.runs]

    for other, words in ((changed(split_hash="x"), "different splits"), (changed(folds="x"), "different folds"),
                         (changed(people=()), "cannot be paired"), ([replace(run, seed=run.seed + 9) for run in one.runs], "cannot be paired"),
                         ([*one.runs, *two.runs], "not the seeds of one cell"), ([], "no run with scores")):
        with pytest.raises(StageError, match=words):
            stages.compare(a, other, "dice")
    fewer = replace(one.runs[0].people[0], values={"x": 1, "y": 1}, naive={"x": 0, "y": 0})
    with pytest.raises(StageError, match="different people"):
        stages.compare(a, changed(people=(fewer,)), "dice")


def test_an_interval_of_differences_holds_what_it_should():
    rng, held = np.random.default_rng(0), 0
    for _ in range(100):
        person, luck = rng.normal(0, 1, 12), rng.normal(0, 0.3, (2, 12))

        def train(settings):
            known = {name: person[PEOPLE.index(name)] + luck[settings["m"], PEOPLE.index(name)] for name in FOLDS[settings["fold"]]}
            return ByPatient("x", known, dict.fromkeys(known, 0.0), "zero")

        found = stages.compare(*stages.Grid("g", {"m": [0, 1]}, (0,), SPLIT, FOLDS).run(train), "x")
        held += found.low <= 0 <= found.high
    assert 85 <= held <= 99, held


# leaderboard

def test_a_row_is_a_cell_and_luck_does_not_lead():
    values = {("steady", 0): 0.70, ("steady", 1): 0.70, ("steady", 2): 0.70, ("lucky", 0): 0.9, ("lucky", 1): 0.5, ("lucky", 2): 0.5}

    def train(settings):
        value = values[settings["m"], settings["seed"]]
        return Metric("x", value, value - 0.1, value + 0.1, 0.3, "naive", 9)

    board = stages.leaderboard(stages.Grid("g", {"m": ["steady", "lucky"]}, (0, 1, 2), "s").run(train), "x")
    assert board.best.params == {"m": "steady"} and board.runs[0].params == {"m": "lucky"}
    assert [row["run"] for row in board.table()] == ["m steady", "m lucky", "naive guess: naive"]
    assert board.table()[1]["over seeds"] == "0.500 to 0.900"


def test_a_winner_needs_three_seeds_a_heuristic_and_a_clear_lead(grid, store):
    def claim(seeds, heuristic=None, train=by_words, **factors):
        part = replace(grid, seeds=seeds, factors=factors or {"space": ["time"], "model": MODELS})
        return stages.leaderboard([*part.run(train), *([part.run_heuristic(heuristic)] if heuristic else [])], "dice").claim

    assert claim((0, 1, 2), rule) == "model boosting, space time wins"
    assert "no heuristic was scored" in claim((0, 1, 2))
    assert "2 of at least 3 seeds" in claim((0, 1), rule)
    assert "not shown to beat heuristic: clever" in claim((0, 1, 2), type("r", (), {"__name__": "clever", "__call__": lambda _, s: scored(s, 0.9)})())
    assert "not shown to be worse" in claim((0, 1, 2), rule, lambda settings: scored(settings, 0.6))


def test_a_board_takes_runs_and_nothing_else(grid, store):
    board = stages.leaderboard(grid.run(by_words, store), "dice")
    opening = stages.open_test(store, grid, board.best, lambda settings: Metric("dice", 0.9, 0.8, 1.0, 0.3, "naive", 9))
    for other in (opening, opening.scores, board, None, {"a": 1}):
        with pytest.raises(StageError, match="ranks runs"):
            stages.leaderboard([*board.runs, other], "dice")


def test_ranks_are_stable_where_cells_are_far_apart_and_not_where_they_are_equal(grid):
    far = stages.rank_stability(stages.leaderboard(replace(grid, factors={"space": SPACES, "model": ["forest"]}).run(by_words), "dice"))
    assert far["first"].tolist() == [1, 0, 0] and (far["low"] == far["high"]).all()
    rng = np.random.default_rng(0)

    def noisy(settings):
        known = {name: rng.normal(0.5, 0.1) for name in FOLDS[settings["fold"]]}
        return ByPatient("dice", known, dict.fromkeys(known, 0.3), "naive")

    near = stages.rank_stability(stages.leaderboard(replace(grid, factors={"space": SPACES, "model": ["forest"]}).run(noisy), "dice"))
    assert near["first"].max() < 1 and near["first"].sum() == pytest.approx(1)


# the test set

def test_openings_are_counted_also_when_judging_crashes(grid, store):
    run = replace(grid, factors={"space": ["time"], "model": MODELS}).run(by_words, store)[0]

    def stops(error):
        def judge(settings):
            raise error
        return judge

    for number, error in enumerate((ValueError("x"), StageError("empty", "a", "b"), KeyboardInterrupt()), 1):
        with pytest.raises((StageError, KeyboardInterrupt)):
            stages.open_test(store, grid, run, stops(error))
        assert stages.leaderboard(store, "dice").openings == number
    assert stages.open_test(store, grid, run, lambda settings: Metric("dice", 0.9, 0.8, 1.0, 0.3, "naive", 9)).number == 4
    board = stages.leaderboard(store, "dice")
    assert "test set opened 4 times" in repr(board) and "test set opened 4 times" in board._repr_html_()
    assert "test set opened 4 times" in board.show().get_xlabel()
    found = stages.walk(replace(grid, seeds=(0,)), by_words, rule, "dice", store)
    assert "test set opened 4 times" in repr(found) and "test set opened 4 times" in found._repr_html_()
    assert not bytes_of(store).count(b"ValueError")


@pytest.mark.skipif(os.name != "posix", reason="os._exit in a child")
def test_an_opening_is_on_the_disk_before_the_judging_begins(grid, store):
    run = replace(grid, factors={"space": ["time"], "model": ["forest"]}).run(by_words, store)[0]
    child = os.fork()
    if not child:
        stages.open_test(store, grid, run, lambda settings: os._exit(7))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert len(store.records("test opening", SPLIT)) == 1 and not store.records("test result")


# the path

@settings(max_examples=25, deadline=None)
@given(st.integers(2, 5), st.integers(2, 5), st.integers(0, 4), st.integers(0, 99))
def test_a_walk_runs_every_space_every_model_and_its_looks(spaces, models, looks, seed):
    grid = stages.Grid("g", {"space": list(range(spaces)), "model": list(range(models))}, (0,), SPLIT, FOLDS)
    rng, calls = np.random.default_rng(seed), []
    worth = rng.random((spaces, models))

    def train(settings):
        calls.append((settings["space"], settings["model"], settings["fold"]))
        return scored(settings, worth[settings["space"], settings["model"]])

    found = stages.walk(grid, train, rule, "dice", spot_checks=looks, seed=seed)
    off = (spaces - 1) * (models - 1)
    assert found.taken == spaces + models - 1 + min(looks, off) and len(calls) == len(set(calls)) == 3 * found.taken
    best = int(worth[:, 0].argmax())
    assert found.winner.params == {"space": best, "model": int(worth[best].argmax())}
    assert all(cell.params["space"] != best and cell.params["model"] for cell in found.steps[3].cells)
    better = [cell for cell in found.steps[3].cells if worth[cell.params["space"], cell.params["model"]] > worth[best].max() + 1e-9]
    assert {cell.name for cell in found.contradictions} == {cell.name for cell in better}


@pytest.mark.parametrize("heuristic, words", [
    (None, "heuristic is missing"), (3, "heuristic is missing"), (lambda settings: 0.7, "could not be scored"),
    (lambda settings: scored(settings, people=FOLDS[0]), "people of fold 0"),
])
def test_no_walk_without_a_heuristic_on_the_same_people(grid, heuristic, words):
    calls = []
    with pytest.raises(StageError, match=words):
        stages.walk(grid, lambda settings: calls.append(1) or by_words(settings), heuristic, "dice")
    assert calls == []


def test_a_walk_goes_on_where_it_stopped_and_the_full_grid_reuses_it(grid, store):
    calls = []

    def train(settings):
        calls.append(settings)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return by_words(settings)

    with pytest.raises(KeyboardInterrupt):
        stages.walk(grid, train, rule, "dice", store)
    found = stages.walk(grid, train, rule, "dice", store)
    assert len(calls) == 7 * 9 + 1 and found.taken == 7
    grid.run(train, store)
    assert len(calls) == 81 + 1


def test_lower_is_better_all_the_way():
    grid = stages.Grid("g", {"space": SPACES, "model": MODELS}, (0, 1, 2), SPLIT, FOLDS)

    def train(settings):
        return replace(by_words(settings), higher_is_better=False)

    found = stages.walk(grid, train, lambda settings: replace(scored(settings, 0.9), higher_is_better=False), "dice")
    assert found.winner.params == {"space": "time", "model": "logistic"} and found.board.cells[0] == found.winner


# pictures

def test_the_same_grid_runs_over_images(store):
    torch = pytest.importorskip("torch")
    from medkit import imaging, learning

    torch.set_num_threads(1)
    cases = [(*imaging.simulate_abdomen(seed, shape=(4, 32, 32)), {}) for seed in range(8)]
    names = [volume.patient_key for volume, *_ in cases]
    splits = learning.patient_folds(names, 2, valid=0.25, seed=0)
    grid = stages.Grid("pictures", {"window": ["pancreas", "lung"], "network": ["UNet", "DoubleUNet"]}, (0,),
                       stages.split_hash(people=names), tuple(tuple(split.patients_of("test")) for split in splits))
    width = {"UNet": {"width": 4, "depth": 2}, "DoubleUNet": {"width": 1 / 16}}

    def train(settings):
        loaders = learning.slice_loaders(cases, splits[settings["fold"]], window=settings["window"], classes={"liver": ["liver"]}, seed=settings["seed"])
        learner = learning.segmentation_learner(loaders, settings["network"], seed=settings["seed"], **width[settings["network"]])
        with learner.no_bar(), learner.no_logging():
            learning.train(learner, 2, 1e-2)
        table = learning.patient_table(learner, loaders.test).set_index("patient")["dice liver"]
        return ByPatient("dice", dict(table), dict.fromkeys(table.index, 0.0), "nothing drawn")

    runs = grid.run(train, store)
    assert [run.error for run in runs] == [""] * 4 and {run.scores["dice"].patients for run in runs} == {8}
    found = stages.compare(runs[0], runs[2], "dice")
    assert found.changed == "window pancreas or lung" and found.people == 8
    assert not [name for name in names if name.encode() in bytes_of(store)]
    assert stages.heat_map(stages.leaderboard(runs, "dice"), "window", "network", grid).states == (("scored",) * 2,) * 2


# hostile words, and the next idea

def test_hostile_text_is_escaped_everywhere(store):
    grid = stages.Grid(HOSTILE, {HOSTILE: ["a", HOSTILE], "m": ["a", HOSTILE]}, (0, 1, 2), SPLIT, FOLDS)
    found = stages.walk(grid, lambda settings: scored(settings, name=HOSTILE), lambda settings: scored(settings, name=HOSTILE), HOSTILE, store,
                        heuristic_name=HOSTILE)
    cells = found.board.cells
    pair = stages.compare(cells[0], next(cell for cell in cells if sum(cell.params[name] != cells[0].params[name] for name in cell.params) == 1))
    opening = stages.open_test(store, found.board, found.board.best, lambda settings: Metric(HOSTILE, 1, 1, 1, 0, HOSTILE, 3))
    things = (found, pair, opening, grid.estimate(store), cells[0], *found.steps, stages.heat_map(found.board, HOSTILE, "m", grid))
    for thing in things:
        assert "<script>" not in thing._repr_html_(), type(thing)
        assert "\n" not in repr(thing)


def test_a_tag_of_failures_becomes_an_idea_with_its_evidence(store):
    bed = stages.signal_input("BCG", sampling_rate_hz=50, channels=1, bits=16, window_s=30, hop_s=30)
    idea = stages.Idea(name="sleep", question="Asleep?", users="nurse", input=bed, output="yes", metric="AUROC", needed=0.8, naive=0.5,
                       latency_s=60, subjects=40, patients=40, best_prior=0.9, labels="polysomnography", licence="MIT", papers=("a",))
    draft = stages.next_idea(idea, "irregular heart", 0.7, cases=10, elsewhere=0.2, store=store)
    assert (draft.subjects, draft.patients, draft.best_prior, draft.labels, draft.licence, draft.papers) == (None, None, None, "", "", ())
    assert (draft.input, draft.metric, draft.needed, draft.causal) == (bed, "AUROC", 0.8, None)
    record = store.latest("failure tag", draft.name)
    assert record.body["from"] == "sleep" and record.body["share"] == 0.7 and set(record.body["to find out"]) == {"subjects", "patients", "best_prior"}
    place = stages.Deployment(name="p", computes_at="device", sources=1)
    assert stages.assay(draft, place).verdict == "unknown"
    for tag, share, options in (("", 0.5, {}), ("a", -0.1, {}), ("a", 0.5, {"cases": 0}), ("a", math.nan, {}), ("a", 0.5, {"elsewhere": 0.5}),
                                ("a", True, {}), (None, 0.5, {})):
        with pytest.raises(StageError):
            stages.next_idea(idea, tag, share, **{"cases": 3, **options}, store=store)
    assert len(store.records("failure tag")) == 1
