"""Training runs that are killed at any moment, and go on to the same numbers; other runs and damaged files are refused."""

import functools
import json
import multiprocessing
import os
import signal
import time
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.optimizer import OptimWrapper

from medkit.errors import ModelError
from medkit.imaging import simulate_abdomen
from medkit.learning import checkpoints
from medkit.learning.checkpoints import Checkpoints, describe_run, read_checkpoint
from medkit.learning.learner import segmentation_learner, train
from medkit.learning.loaders import slice_loaders
from medkit.learning.split import Split

torch.set_num_threads(1)
ORGANS = {"organ": ["liver", "spleen"]}
EPOCHS = 5
FORK = multiprocessing.get_context("fork") if hasattr(os, "fork") else None


@functools.lru_cache
def phantom(number):
    return simulate_abdomen(number, shape=(4, 32, 32))


def make_learner(seed=0, batch_size=4, width=2, cases=6, **options):
    pairs = [phantom(number) for number in range(cases)]
    split = Split([volume.patient_key for volume, _ in pairs], range(cases - 2), range(cases - 2, cases), [])
    dls = slice_loaders(pairs, split, window="pancreas", classes=ORGANS, batch_size=batch_size, seed=seed, device="cpu")
    learn = segmentation_learner(dls, width=width, depth=1, **options)
    learn.remove_cbs([one for one in learn.cbs if one.name == "progress"])
    learn.logger = lambda row: None
    return learn


def weights_of(learn):
    return torch.cat([values.flatten().float() for values in learn.model.state_dict().values()])


@pytest.fixture(scope="module")
def undisturbed():
    learn = make_learner()
    return train(learn, EPOCHS, patience=4), weights_of(learn), learn


def child(folder, point, target, ready=None):
    "Train, and die by signal 9 when `point` is reached for the `target`-th time."
    count, write, real = 0, checkpoints.write_checkpoint, checkpoints.atomic_write

    def die(where):
        nonlocal count
        count += where == point
        if where == point and count == target:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(*arguments):
        die("before writing")
        path = write(*arguments)
        die("after writing")
        return path

    @contextmanager
    def halves(path):
        with real(path) as file:
            class Half:
                def write(self, block):
                    file.write(block[:len(block) // 2])
                    file.flush()
                    die("half of " + path.suffix)
                    file.write(block[len(block) // 2:])
            yield Half()
        die("after " + path.suffix)

    checkpoints.write_checkpoint, checkpoints.atomic_write = watched, halves
    learn = make_learner()
    step = learn._step
    learn._step = lambda: (die("step"), step())
    if ready is not None:
        ready.set()
    train(learn, EPOCHS, patience=4, folder=folder)


def run_child(tmp_path, point, target):
    process = FORK.Process(target=child, args=(tmp_path / "run", point, target))
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL, "the child died where it should"


def resumed_equals(tmp_path, undisturbed, least=0):
    learn = make_learner()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = train(learn, EPOCHS, patience=4, folder=tmp_path / "run")
    assert done.resumed >= least
    np.testing.assert_allclose(np.array(done.rows, float), np.array(undisturbed[0].rows, float), atol=1e-5)
    torch.testing.assert_close(weights_of(learn), undisturbed[1], atol=1e-5, rtol=0)
    assert done.kept == undisturbed[0].kept
    return done


needs_fork = pytest.mark.skipif(FORK is None, reason="no fork on this system")


@needs_fork
@pytest.mark.parametrize("point, target, least", [
    ("step", 1, 0), ("step", 10, 2), ("before writing", 2, 1), ("half of .safetensors", 3, 2), ("after .safetensors", 3, 2),
    ("half of .json", 3, 2), ("after .json", 3, 3), ("after writing", 5, 5),
])
def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path, undisturbed, point, target, least):
    run_child(tmp_path, point, target)
    done = resumed_equals(tmp_path, undisturbed, least)
    assert done.resumed == least
    assert len(list((tmp_path / "run").iterdir())) == 4, "two checkpoints stay, and nothing half written"


@needs_fork
@pytest.mark.parametrize("delay_s", [0.02, 0.1, 0.3])
def test_a_run_killed_by_the_clock_goes_on(tmp_path, undisturbed, delay_s):
    ready = FORK.Event()
    process = FORK.Process(target=child, args=(tmp_path / "run", "never", 0, ready))
    process.start()
    assert ready.wait(300)
    time.sleep(delay_s)
    process.kill()
    process.join(60)
    resumed_equals(tmp_path, undisturbed)


@needs_fork
def test_a_run_killed_twice_goes_on(tmp_path, undisturbed):
    for target in (6, 5):
        run_child(tmp_path, "step", target)
    resumed_equals(tmp_path, undisturbed, 2)


def cut(learn, epoch):
    class Cut(Callback):
        order = 62

        def before_epoch(self):
            if self.epoch == epoch:
                raise KeyboardInterrupt
    learn.add_cb(Cut())
    return learn


def stopped_run(folder, **settings):
    learn = cut(make_learner(), 3)
    with pytest.raises(KeyboardInterrupt):
        train(learn, EPOCHS, folder=folder, **settings)


@pytest.mark.parametrize("what, options, settings", [
    ("network", {"width": 3}, {}), ("train data", {"cases": 7}, {}), ("train data", {"batch_size": 8}, {}),
    ("lr", {}, {"lr": 0.02}), ("seed", {}, {"seed": 1}), ("patience", {}, {"patience": 2}), ("optimiser", {"wd": 0.1}, {}),
    ("epochs", {}, {"epochs": 6}),
])
def test_another_run_is_refused_by_name(tmp_path, what, options, settings):
    stopped_run(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    epochs = settings.pop("epochs", EPOCHS)
    with pytest.raises(ModelError, match=f"what differs: {what}") as caught:
        train(make_learner(**options), epochs, folder=tmp_path, **settings)
    assert caught.value.reason == "already_exists" and tmp_path.name in str(caught.value)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    settings["epochs"] = epochs


def test_changed_labels_or_values_are_other_data(tmp_path):
    learn = make_learner()
    first = describe_run(learn)
    for pieces in (learn.dls.train.dataset.volumes, learn.dls.train.dataset.answers):
        pieces[1][2, 3, 4] += 1
        assert describe_run(learn)["train data"] != first["train data"]
        pieces[1][2, 3, 4] -= 1
    assert describe_run(learn) == first == describe_run(make_learner())


def flip(file, position):
    content = bytearray(file.read_bytes())
    content[position] ^= 4
    file.write_bytes(content)


@pytest.mark.parametrize("damage", ["bit of tensors", "bit of card", "cut tensors", "cut card", "no tensors"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, undisturbed, damage):
    stopped_run(tmp_path / "run", patience=4)
    file = tmp_path / "run" / ("epoch-0003.json" if "card" in damage else "epoch-0003.safetensors")
    if "bit" in damage:
        flip(file, file.stat().st_size // 2)
    elif "cut" in damage:
        file.write_bytes(file.read_bytes()[:-20])
    else:
        file.unlink()
    with pytest.warns(UserWarning, match="damaged checkpoint was passed over .epoch-0003"):
        assert read_checkpoint(tmp_path / "run")[0]["epoch"] == 2
    done = resumed_equals(tmp_path, undisturbed)
    assert done.resumed == 2


def test_when_no_checkpoint_is_whole_the_run_is_refused(tmp_path):
    stopped_run(tmp_path)
    for file in tmp_path.glob("*.safetensors"):
        flip(file, 1000)
    with pytest.raises(ModelError, match="bad_model_file"):
        train(make_learner(), EPOCHS, folder=tmp_path)
    assert train(make_learner(), EPOCHS, folder=tmp_path, resume=False).resumed == 0


def test_every_flipped_bit_is_noticed(tmp_path):
    stopped_run(tmp_path)
    (tmp_path / "epoch-0002.json").unlink()
    for file in (tmp_path / "epoch-0003.json", tmp_path / "epoch-0003.safetensors"):
        content = file.read_bytes()
        for position in np.linspace(0, len(content) - 1, 12).astype(int):
            flip(file, position)
            with pytest.raises(ModelError, match="bad_model_file"):
                read_checkpoint(tmp_path)
            file.write_bytes(content)
    assert read_checkpoint(tmp_path)[0]["epoch"] == 3


def test_no_pickle_in_the_folder(tmp_path):
    stopped_run(tmp_path)
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".safetensors"}
    card = json.loads((tmp_path / "epoch-0003.json").read_text())
    assert card["epoch"] == 3 and len(card["rows"]) == 3


def test_an_early_stop_survives_the_kill(tmp_path):
    def run(folder, learn):
        return train(learn, 8, 0.3, patience=1, folder=folder), weights_of(learn)
    whole, weights = run(None, make_learner())
    assert len(whole.rows) < 8, "the rate is too high: it stops"
    learn = cut(make_learner(), whole.kept + 1)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, learn)
    again, same = run(tmp_path, make_learner())
    assert again.rows == whole.rows and again.kept == whole.kept
    torch.testing.assert_close(same, weights, atol=1e-5, rtol=0)
    with pytest.warns(UserWarning, match="nothing was trained"):
        finished, same = run(tmp_path, make_learner())
    assert finished.rows == whole.rows
    torch.testing.assert_close(same, weights, atol=0, rtol=0)


def test_torch_optimisers_resume_too(tmp_path):
    def make():
        return make_learner(opt_func=adam)

    def adam(params, lr):
        return OptimWrapper(params, torch.optim.AdamW, lr=lr)
    whole = make()
    rows = train(whole, EPOCHS).rows
    with pytest.raises(KeyboardInterrupt):
        train(cut(make(), 2), EPOCHS, folder=tmp_path)
    again = make()
    assert train(again, EPOCHS, folder=tmp_path).rows == rows
    torch.testing.assert_close(weights_of(again), weights_of(whole), atol=1e-6, rtol=0)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises((ModelError, OSError)):
        train(make_learner(), 1, folder=tmp_path / "file")


def test_the_callback_alone_serves_fit_one_cycle(tmp_path):
    learn = make_learner()
    learn.fit_one_cycle(2, 0.01, cbs=Checkpoints(tmp_path, describe_run(learn, epochs=2)))
    assert read_checkpoint(tmp_path)[0]["epoch"] == 2
