"""Searches: the space, trials that fail or are pruned, kills at any moment, two engines, and real learners."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import medkit.learning
from medkit.errors import MedkitError
from medkit.imaging.phantom import simulate_abdomen
from medkit.imaging.window import Window
from medkit.learning import (Choice, Integers, LogUniform, Pruned, ReportEpoch, SearchResult, Uniform, learner_trial, patient_split,
                             read_search, search, segmentation_learner, slice_loaders)
from medkit.learning.search import _Job, _ray_running

SPACE = {"x": Uniform(-2, 2), "kind": Choice(["smooth", "steep"])}
EPOCHS = 9


def bowl(params, report):
    "Best at 0.3; a trial that is better is better from its first epoch on."
    for epoch in range(EPOCHS):
        report(epoch, (1 - 0.5 ** (epoch + 1)) * (3 - (params["x"] - 0.3) ** 2))


def rough(params, report):
    "Fails above 1, gives NaN below -1.5, dies once in trial `die` if the environment says so."
    if params["x"] > 1:
        raise ValueError("too far to the right")
    for epoch in range(EPOCHS):
        time.sleep(float(os.environ.get("SLEEP", 0)))
        report(epoch, (1 - 0.5 ** (epoch + 1)) * (3 - (params["x"] - 0.3) ** 2) if params["x"] > -1.5 else float("nan"))


def facts(result):
    "Everything but the times."
    return [(one.number, one.params, one.state, one.value, one.reports, one.reason) for one in result.trials]


def run(train=rough, trials=24, **options):
    return search(train, SPACE, trials=trials, **{"direction": "max", "seed": 3, "progress": False, **options})


@pytest.fixture(scope="module")
def whole():
    return run()


def test_every_trial_is_accounted_for(whole):
    assert [one.number for one in whole.trials] == list(range(24)) and sum(whole.counts().values()) == 24
    assert all(whole.counts().values())
    for one in whole.trials:
        assert (one.value is None) == (one.state == "failed") and bool(one.reason) == (one.state != "complete")
        assert one.state != "pruned" or one.epochs < EPOCHS
        assert one.state != "complete" or (one.epochs, one.value) == (EPOCHS, one.reports[-1][1])
    failed = {one.reason for one in whole.trials if one.state == "failed"}
    assert failed == {"ValueError: too far to the right", "The trial gave no finite value. [not_finite]"}
    assert whole.best.value == max(one.value for one in whole.trials if one.state == "complete")


def test_a_seed_gives_the_same_search_and_another_seed_another(whole):
    assert facts(run()) == facts(whole)
    assert facts(run(seed=4)) != facts(whole)
    assert [one.params for one in run(sampler="random").trials][:10] == [one.params for one in whole.trials][:10]  # blind at first
    assert [one.params for one in run(sampler="random").trials] != [one.params for one in whole.trials]


def test_the_caller_keeps_optuna_as_it_was():
    import optuna

    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    run(trials=2)
    assert optuna.logging.get_verbosity() == optuna.logging.DEBUG
    optuna.logging.set_verbosity(optuna.logging.INFO)


def test_nothing_is_printed(capfd):
    run(trials=8, progress=True)
    assert capfd.readouterr() == ("", "")


def test_learned_trials_are_better_than_blind_ones():
    "Medians over seeds, nothing pruned."
    def best(sampler):
        return np.median([3 - run(bowl, trials=25, sampler=sampler, prune=False, seed=seed).best.value for seed in range(8)])

    assert best("tpe") < best("random")


def test_smaller_may_be_better():
    down = search(lambda params, report: [report(epoch, abs(params["x"])) for epoch in range(3)] and None, {"x": Uniform(-1, 1)}, trials=20,
                  direction="min", seed=0, progress=False)
    assert down.best.value == min(one.value for one in down.trials) < 0.2 and down.counts()["pruned"]


def test_first_settings_come_first_and_grace_and_prune_are_heeded():
    first = [{"x": -1.9, "kind": "steep"}, {"x": 0.5, "kind": "smooth"}]
    result = run(bowl, first=first, grace=4)
    assert [one.params for one in result.trials[:2]] == first
    assert {one.epochs for one in result.trials if one.state == "pruned"} == {4}
    assert run(bowl, prune=False).counts() == {"complete": 24, "pruned": 0, "failed": 0}


def test_a_search_in_which_everything_fails_ends_and_says_why():
    result = run(lambda params, report: {}["weights"], trials=3)
    assert result.counts()["failed"] == 3
    with pytest.raises(MedkitError, match="KeyError: 'weights'"):
        result.best
    assert "none complete" in result._repr_html_() and result.importance() == {}
    result.show()
    result.show_settings()


def test_ctrl_c_ends_the_search_and_the_trial_is_run_again(tmp_path, whole):
    def stop(params, report):
        if len(read_search(tmp_path).trials) == 5:
            raise KeyboardInterrupt
        rough(params, report)

    with pytest.raises(KeyboardInterrupt):
        run(stop, folder=tmp_path)
    assert len(read_search(tmp_path).trials) == 5 and read_search(tmp_path).planned == 6
    again = run(folder=tmp_path)
    assert again.resumed == 5 and facts(again) == facts(whole)


KILLED = """
import os, signal, sys
from medkit.learning import Choice, Uniform, search
from test_learning_search import SPACE, rough

def train(params, report):
    def told(epoch, value):
        left.pop() if left else os.kill(os.getpid(), signal.SIGKILL)
        report(epoch, value)
    return rough(params, told)

left = int(sys.argv[2]) * [None]
search(train, SPACE, trials=24, direction="max", seed=3, progress=False, folder=sys.argv[1])
"""


@pytest.mark.parametrize("reports", [[45], pytest.param([0, 20, 3, 30], marks=pytest.mark.slow)], ids=len)
def test_a_killed_search_ends_like_one_that_was_not(tmp_path, whole, reports):
    for count in reports:
        killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path, str(count)], cwd=Path(__file__).parent, stderr=subprocess.PIPE)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-500:]
        before = read_search(tmp_path)
        assert before.planned == len(before.trials) + 1 < 24  # one was running
    again = run(folder=tmp_path)
    assert again.resumed == len(before.trials) > 4 and facts(again) == facts(whole)
    assert facts(read_search(tmp_path)) == facts(whole)


def test_restored_from_every_line_of_its_account(tmp_path, whole):
    run(folder=tmp_path / "whole")
    lines = (tmp_path / "whole" / "search.jsonl").read_bytes().splitlines(keepends=True)
    for number in range(1, len(lines), 7):
        cut = tmp_path / str(number)
        cut.mkdir()
        (cut / "search.jsonl").write_bytes(b"".join(lines[:number]) + lines[number][: len(lines[number]) // 2])
        with pytest.warns(UserWarning, match="torn"):
            assert facts(run(folder=cut)) == facts(whole)
        with pytest.warns(UserWarning, match="torn"):
            assert facts(read_search(cut)) == facts(whole)


def test_random_numbers_of_a_training_are_those_of_its_trial(tmp_path):
    def chance(params, report):
        import random

        import torch

        return random.random() + float(np.random.rand()) + float(torch.rand(()))

    one = run(chance, trials=6)
    run(chance, trials=3, folder=tmp_path)
    assert facts(run(chance, trials=6, folder=tmp_path)) == facts(one) and len({t.value for t in one.trials}) == 6


def test_an_account_of_another_search_is_not_touched(tmp_path):
    run(folder=tmp_path, trials=3)
    before = (tmp_path / "search.jsonl").read_bytes()
    for other in ({"seed": 9}, {"direction": "min"}, {"grace": 2}, {"prune": False}, {"sampler": "random"}, {"metric": "dice"},
                  {"first": [{"x": 0.0, "kind": "steep"}]}):
        with pytest.raises(MedkitError, match="another search") as caught:
            run(folder=tmp_path, trials=3, **other)
        assert next(iter(other)) in caught.value.found
    with pytest.raises(MedkitError, match="another search"):
        search(rough, {"x": Uniform(-2, 2.5), "kind": SPACE["kind"]}, trials=3, direction="max", seed=3, folder=tmp_path)
    assert (tmp_path / "search.jsonl").read_bytes() == before
    assert run(folder=tmp_path, trials=2, seed=9, resume=False).resumed == 0


def test_two_searches_do_not_share_a_folder(tmp_path):
    with pytest.raises(MedkitError, match="at work") as caught:
        def inner(params, report):
            run(bowl, folder=tmp_path)

        result = run(inner, trials=1, folder=tmp_path)
        raise MedkitError("busy", result.trials[0].reason, "x")
    assert caught.value.reason == "busy"


LINES = ['{"trial": 0, "params": {"x": 1}}', '{"trial": 0, "epoch": 0, "value": 1}', '{"trial": 9, "state": "complete"}', '{"search": 3}',
         '{"trial": null}', '{"trial": 1, "params": [1]}', '{"search": {"space": {"x": {"Choice": 3}}}, "version": 1}', '{"version": 2}',
         '{"search": {"space": {"x": {"os.system": {}}}}, "version": 1}', '{"trial": 0, "params": {"x": "y"}, "state": 5}', "5", "[]"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(LINES), max_size=5), st.booleans())
def test_odd_accounts_are_one_error(tmp_path_factory, lines, headed):
    folder = tmp_path_factory.mktemp("odd")
    run(folder=folder, trials=1)
    head = (folder / "search.jsonl").read_text().splitlines()[:1] if headed else []
    (folder / "search.jsonl").write_text("\n".join(head + lines) + "\n")
    for act in (lambda: read_search(folder), lambda: run(folder=folder, trials=2)):
        try:
            assert isinstance(act(), SearchResult)
        except MedkitError as error:
            assert error.reason in ("bad_manifest", "already_exists")


@pytest.mark.parametrize("arguments", [
    {"trials": 0}, {"trials": "many"}, {"direction": None}, {"engine": "cloud"}, {"workers": 2}, {"workers": 0, "engine": "ray"}, {"seed": -1},
    {"address": "auto"}, {"gpus": 1}, {"gpus": float("nan"), "engine": "ray"}, {"sampler": "grid"}, {"sampler": "tpe", "engine": "ray"},
    {"grace": 0}, {"prune": None}, {"resume": 1}, {"metric": None}, {"first": 5}, {"first": [{"x": 9, "kind": "smooth"}]}, {"folder": 5},
    {"train": "bowl"}, {"progress": "bar"}, {"seed": 1.5}, {"first": "abc"}, {"gpus": True, "engine": "ray"}, {"grace": 10**12},
], ids=str)
def test_wrong_options_do_nothing(tmp_path, arguments):
    called = []
    with pytest.raises(MedkitError) as caught:
        search(**{"train": lambda *_: called.append(1), "space": SPACE, "trials": 2, "direction": "max", "folder": tmp_path / "out", **arguments})
    assert caught.value.reason == "bad_option" and None not in (caught.value.found, caught.value.expected)
    assert not called and not (tmp_path / "out").exists()


@pytest.mark.parametrize("space", [
    None, {}, [], {"x": 1}, {"x": (0, 1)}, {1: Uniform(0, 1)}, {"": Uniform(0, 1)}, {"state": Uniform(0, 1)}, {"x": Uniform}, {"a\nb": Uniform(0, 1)},
], ids=str)
def test_what_is_no_space(space):
    with pytest.raises(MedkitError, match="no space to search") as caught:
        search(bowl, space, trials=1, direction="max")
    assert caught.value.reason == "bad_option"


@pytest.mark.parametrize("make", [
    lambda: Choice([]), lambda: Choice("ab"), lambda: Choice([1, 1]), lambda: Choice([[1]]), lambda: Choice([np.float32(1)]), lambda: Choice({1: 2}),
    lambda: Uniform(1, 1), lambda: Uniform(2, 1), lambda: Uniform(0, float("inf")), lambda: Uniform("0", 1), lambda: Uniform(None, 1),
    lambda: LogUniform(0, 1), lambda: LogUniform(-1, 1), lambda: Integers(0.5, 2), lambda: Integers(1, 1), lambda: Integers(0, 3, log=True),
    lambda: Integers(0, 10**40), lambda: Integers(0, 3, log="yes"), lambda: Uniform(0, 10**400),
])
def test_what_is_no_range(make):
    with pytest.raises(MedkitError) as caught:
        make()
    assert caught.value.reason == "bad_option"


@settings(max_examples=30, deadline=None)
@given(st.integers(-50, 50), st.integers(1, 60), st.floats(1e-6, 1e3), st.floats(1.5, 1e4), st.integers(0, 2**63))
def test_draws_lie_in_their_ranges(low, width, least, factor, seed):
    space = {"n": Integers(low, low + width), "rate": LogUniform(least, least * factor), "flag": Choice([True, None, "1", 1.5]), "u": Uniform(-least, least)}
    result = search(lambda params, report: 1.0, space, trials=3, direction="max", seed=seed, progress=False)
    for one in result.trials:
        assert all(space[name].holds(value) for name, value in one.params.items())
    assert result.counts()["complete"] == 3


def test_the_table_has_a_row_for_each_trial(whole):
    table = whole.to_frame()
    assert len(table) == 24 and list(table.columns) == ["trial", "state", "value", "x", "kind", "epochs_used", "seconds", "reason"]
    assert table.value.isna().sum() == whole.counts()["failed"]
    assert len(SearchResult("ray", SPACE, "dice", "max", 3, ()).to_frame()) == 0


def test_markup_in_reasons_is_escaped():
    def evil(params, report):
        raise ValueError("<script>alert(1)</script>\x1b[2J\n")

    page = run(evil, trials=1)._repr_html_()
    assert "<script>" not in page and "\x1b" not in page and "&lt;script&gt;" in page


def test_the_bar_is_told_of_every_trial():
    calls = []
    run(trials=5, progress=lambda *call: calls.append(call))
    assert [call[0] for call in calls] == list(range(6)) and {call[1] for call in calls} == {5} and calls[0][2] == {}
    assert all({"trial", "state", "value", "reason", "seconds"} <= call[2].keys() for call in calls[1:])


def test_the_bar_in_a_terminal_says_what_is_best():
    pty = pytest.importorskip("pty")
    code = "from test_learning_search import *; run(bowl, trials=6, progress=True)"
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], cwd=Path(__file__).parent, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"}) as process:
        os.close(theirs)
        seen = b""
        while chunk := _read(ours):
            seen += chunk
        assert process.wait() == 0
    assert b"best value 2." in seen and b"6/6" in seen, seen[-500:]


def _read(descriptor):
    try:
        return os.read(descriptor, 4096)
    except OSError:  # the other end was closed
        return b""


# learners

@pytest.fixture(scope="module")
def loaders():
    cases = [simulate_abdomen(seed, shape=(6, 32, 32), spacing_mm=(12.0, 12.0, 12.0)) for seed in range(10)]
    split = patient_split([volume.patient_key for volume, _ in cases], valid=0.3, test=0.0, seed=0)
    return slice_loaders(cases, split, window=Window(80, 160), classes={"liver": "liver"}, batch_size=8)


def test_a_segmentation_learner_is_tuned_in_five_lines(loaders, tmp_path, capfd):
    def make(params):
        return segmentation_learner(loaders, width=4, depth=2, lr=params["lr"])

    train = learner_trial(make, epochs=3, monitor="dice liver")
    options = dict(direction="max", first=[{"lr": 1e-7}], grace=1, trials=7, seed=1, progress=False)
    found = search(train, {"lr": LogUniform(1e-7, 1e-1)}, folder=tmp_path, **options)
    assert found.counts()["failed"] == 0 and found.counts()["complete"] >= 5, found.to_frame().reason.tolist()
    assert found.best.value > found.trials[0].value and found.best.epochs == 3
    assert facts(search(train, {"lr": LogUniform(1e-7, 1e-1)}, **options)) == facts(found)
    assert "epoch" not in capfd.readouterr().out  # no table of each trial


def test_a_pruned_learner_stops_and_a_wrong_column_is_named(loaders):
    def told(epoch, value):
        told.epochs.append(epoch)
        if epoch == 1:
            raise Pruned

    told.epochs = []
    learn = segmentation_learner(loaders, width=4, depth=2)
    with learn.no_bar(), learn.no_logging():
        medkit.learning.train(learn, 6)
        learn.fit(6, cbs=ReportEpoch(told, "dice liver"))
    assert told.epochs == [0, 1] and len(learn.recorder.values) == 2
    wrong = search(learner_trial(lambda params: segmentation_learner(loaders, width=4, depth=2), 1, monitor="dice spleen"),
                   {"x": Choice([1])}, trials=1, direction="max", progress=False)
    assert "no such column" in wrong.trials[0].reason
    wrong = search(learner_trial(lambda params: segmentation_learner(loaders, widht=4), 1), {"x": Choice([1])}, trials=1, direction="max", progress=False)
    assert "takes no such setting" in wrong.trials[0].reason


def test_search_stays_the_function_where_the_module_is_imported_first():
    code = "import medkit.learning.search; import medkit.learning; assert callable(medkit.learning.search)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# Ray

ray_alone = pytest.mark.xdist_group("ray")


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray")
    with _ray_running(_Job(rough, SPACE, 0, {}, 2, None, 0)) as (ray, _):
        yield ray


def mortal(params, report, *, folder):
    "As `rough`; the first two trials that get past epoch 1 lose their process there, once each."
    def told(epoch, value):
        report(epoch, value)
        for number in range(2):
            if epoch == 1:
                try:
                    (Path(folder) / f"killed {number}").touch(exist_ok=False)
                except FileExistsError:
                    continue
                os.kill(os.getpid(), signal.SIGKILL)

    return rough(params, told)


def doomed(params, report, *, folder):
    "The process of each trial right of 0 is lost, always."
    if params["x"] > 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return rough(params, report)


@ray_alone
def test_ray_accounts_for_every_trial_and_goes_on(cluster, tmp_path, capfd):
    calm, blind = run(trials=6, engine="ray", workers=2, folder=tmp_path), run(trials=6, sampler="random")
    assert [one.params for one in calm.trials] == [one.params for one in blind.trials]
    assert {one.reason for one in calm.trials if one.state == "failed"} == {one.reason for one in blind.trials if one.state == "failed"}
    more = run(trials=8, engine="ray", workers=2, folder=tmp_path)
    assert [one.number for one in more.trials] == list(range(8)) and more.resumed == 6 and facts(more)[:6] == facts(calm)
    assert facts(read_search(tmp_path)) == facts(more)
    counts = more.counts()  # which trials are pruned depends on which worker was first
    assert counts["failed"] and counts["complete"] and sum(counts.values()) == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["search.jsonl", "search.lock"]
    assert cluster.is_initialized()  # the caller's cluster stays
    assert cluster.util.get_node_ip_address() == "127.0.0.1"
    output = "".join(capfd.readouterr())
    assert len(output) < 500, output


@ray_alone
@pytest.mark.slow
def test_ray_with_two_workers_killed_finds_the_same(cluster, tmp_path):
    calm = run(trials=8, engine="ray", workers=2)
    killed = run(partial(mortal, folder=tmp_path), trials=8, engine="ray", workers=2)
    assert (tmp_path / "killed 0").exists() and (tmp_path / "killed 1").exists()
    assert [one.number for one in killed.trials] == list(range(8))
    assert (killed.best.number, killed.best.value, killed.best.reports) == (calm.best.number, calm.best.value, calm.best.reports)


@ray_alone
@pytest.mark.slow
def test_a_trial_that_always_loses_its_process_fails_and_the_others_go_on(cluster, tmp_path):
    result = run(partial(doomed, folder=tmp_path), trials=5, engine="ray", workers=2, first=[{"x": 0.5, "kind": "steep"}, {"x": -0.1, "kind": "steep"}])
    assert result.trials[0].state == "failed" and "crashed" in result.trials[0].reason
    assert len(result.trials) == 5 and result.best.params["x"] <= 0


@ray_alone
def test_what_ray_cannot_send_or_reach_is_one_error(cluster, tmp_path):
    lock = threading.Lock()
    with pytest.raises(MedkitError, match="cannot be sent") as caught:
        run(lambda params, report: lock.acquire(), trials=1, engine="ray")
    assert caught.value.reason == "bad_option"
    with pytest.raises(MedkitError, match="graphics cards"):
        run(trials=1, engine="ray", gpus=100)


RAY = """
import sys
from test_learning_search import run
run(trials=8, engine="ray", workers=2, folder=sys.argv[1])
"""


@ray_alone
@pytest.mark.slow
def test_a_ray_search_that_is_killed_as_a_whole_is_restored(cluster, tmp_path):
    calm = run(trials=8, engine="ray", workers=2)
    environment = {**os.environ, "SLEEP": "0.3", "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", RAY, tmp_path / "out"], env=environment, start_new_session=True)
    deadline, done = time.monotonic() + 120, 0
    while done < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
        done = len(read_search(tmp_path / "out").trials) if (tmp_path / "out" / "search.jsonl").exists() else 0
        assert process.poll() is None, "it ended before it was killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 2 <= len(read_search(tmp_path / "out").trials) < 8
    again = run(trials=8, engine="ray", workers=2, folder=tmp_path / "out")
    assert [one.number for one in again.trials] == list(range(8)) and again.resumed >= 2
    assert (again.best.number, again.best.value) == (calm.best.number, calm.best.value)


def test_the_extra_is_named_where_ray_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MedkitError, match=r'pip install "medkit\[ray\]"'):
        run(trials=1, engine="ray", folder=tmp_path)
    assert json.loads((tmp_path / "search.jsonl").read_text().splitlines()[0])["version"] == 1
