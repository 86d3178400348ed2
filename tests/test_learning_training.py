"""Loaders, learners, saved models and compressed ones, on simulated patients and on hostile input."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from medkit.errors import MedkitError, ModelError
from medkit.imaging import Volume, simulate_abdomen
from medkit.learning.compress import agreement, benchmark, export_onnx, open_model, quantize, quantized_share, run_model
from medkit.learning.hardest import top_losses
from medkit.learning.learner import classification_learner, denoising_learner, segmentation_learner, train
from medkit.learning.loaders import read_cases, slice_loaders
from medkit.learning.losses import DeepSupervision, DiceCrossEntropy, dice_loss
from medkit.learning.saving import load_learner, save_learner
from medkit.learning.scoring import evaluate, patient_scores, predict
from medkit.learning.split import Split, patient_split
from medkit.models import SmallClassifier, UNet

torch.set_num_threads(1)
PANCREAS = {"pancreas": ["pancreas", "tumour"]}
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def cases():
    return [simulate_abdomen(seed, tumour=seed % 2 == 0, shape=(8, 32, 32), tumour_diameter_mm=50 if seed % 2 == 0 else None)
            for seed in range(10)]


@pytest.fixture(scope="module")
def split(cases):
    return patient_split([volume.patient_key for volume, _ in cases], valid=0.2, test=0.4, seed=1, labels=[s % 2 for s in range(10)])


@pytest.fixture(scope="module")
def dls(cases, split):
    return slice_loaders(cases, split, window="pancreas", classes=PANCREAS, batch_size=8)


@pytest.fixture(scope="module")
def yes_no(cases, split):
    shown = [(volume, (mask.labels == 10).any((1, 2))) for volume, mask in cases]
    return slice_loaders(shown, split, window="pancreas", classes=("no", "yes"), batch_size=8)


@pytest.fixture
def learn(dls):
    torch.manual_seed(0)
    return quiet(segmentation_learner(dls, width=4, depth=2))


def quiet(learn):
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
    learn.logger = lambda *_: None
    return learn


def test_learning_loads_no_torchvision():
    code = ("import sys, medkit.learning as l; [getattr(l, n) for n in l.__all__]; "
            "print([m for m in sys.modules if m.split('.')[0] == 'torchvision'], 'torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True, timeout=240)
    assert done.stdout.strip() == "[] True"


def test_no_pickle_anywhere():
    "The library neither imports pickle nor calls torch's loaders, which unpickle."
    for file in (*(ROOT / "medkit" / "learning").glob("*.py"), *(ROOT / "medkit" / "models").glob("*.py")):
        assert not re.search(r"import pickle|torch\.(load|save)\(|\.export\(\w*fname|load_learner\(.*cpu", file.read_text()), file.name


def test_loaders_refuse_a_shared_patient(cases):
    twice = [*cases, cases[0]]
    keys = tuple(volume.patient_key for volume, _ in twice)
    with pytest.raises(ModelError, match="patient_overlap"):
        slice_loaders(twice, Split(keys, np.arange(5), np.arange(5, 9), np.array([10])), window="pancreas", classes=PANCREAS)


def test_loaders_keep_every_slice_and_its_patient(cases, split, dls):
    for part, loader in zip(("train", "valid", "test"), dls.loaders):
        assert sorted(set(loader.dataset.patients)) == split.patients_of(part)
        assert len(loader.dataset) == 8 * len(getattr(split, part))
    volume, mask = cases[split.test[0]]
    np.testing.assert_array_equal(dls.test.dataset.targets[:8].numpy() == 1, np.isin(mask.labels, (9, 10)))


def test_shuffle_follows_the_seed(cases, split):
    def order(seed):
        loaders = slice_loaders(cases, split, window="pancreas", classes=PANCREAS, batch_size=8, seed=seed)
        return torch.cat([torch.as_tensor(pictures) for pictures, _ in loaders.train])
    assert torch.equal(order(0), order(0)) and not torch.equal(order(0), order(1))


@pytest.mark.parametrize("odd", [[], [1], [(1, 2)], [("a", "b", "c")], None])
def test_odd_cases(odd):
    with pytest.raises((MedkitError, TypeError)):
        read_cases(odd, window="pancreas", classes=PANCREAS)


def test_a_volume_with_nan_is_refused(cases):
    volume, mask = cases[0]
    voxels = volume.voxels.astype(np.float32)
    voxels[0, 0, 0] = np.nan
    with pytest.raises(ModelError, match="not_finite"):
        read_cases([(Volume(voxels, volume.affine, volume.spacing_mm, patient_key="a"), mask)], window="pancreas", classes=PANCREAS)


def test_segmentation_learns_and_is_reproducible(cases, dls):
    def run():
        torch.manual_seed(0)
        learn = quiet(segmentation_learner(slice_loaders(
            cases, patient_split([v.patient_key for v, _ in cases], valid=0.2, test=0.2, seed=1), window="pancreas",
            classes=PANCREAS, batch_size=8), width=4, depth=2))
        before = learn.validate()[0]
        learn.fit_one_cycle(3, 0.01)
        return before, learn.validate()[0]
    first = run()
    assert first[1] < first[0] and run() == first


def test_fastai_tools_work(learn, yes_no):
    import matplotlib.pyplot as plt

    suggestion = learn.lr_find(show_plot=False, num_it=20)
    assert 0 < suggestion.valley < 10
    learn.dls.show_batch(max_n=2)
    learn.show_results(max_n=2)
    assert {ax.get_title() for ax in plt.gcf().axes} == {"target", "prediction"}
    finder = quiet(classification_learner(yes_no))
    finder.show_results(max_n=2)
    assert "prediction:" in plt.gcf().axes[0].get_title()
    plt.close("all")
    predictions, targets = learn.get_preds(dl=learn.dls.test)
    assert predictions.shape == (32, 2, 32, 32) and targets.shape == (32, 32, 32)
    torch.testing.assert_close(torch.as_tensor(predictions), predict(learn, learn.dls.test), atol=1e-5, rtol=1e-4)


def test_progress_bars_are_fastai_s(dls, capsys):
    segmentation_learner(dls, width=2, depth=1).fit_one_cycle(1, 0.01)
    assert "train_loss" in capsys.readouterr().out and "dice pancreas" in segmentation_learner(dls).recorder.learn.metrics[0].name


def test_training_on_nothing_is_an_error(dls, cases, split):
    learn = quiet(segmentation_learner(dls, width=2, depth=1))
    learn.dls.train.bs, learn.dls.train.drop_last, before = 1000, True, learn.dls.train.bs
    try:
        with pytest.raises(ModelError) as caught:
            learn.fit(1)
    finally:
        learn.dls.train.bs = before
    assert caught.value.reason == "empty"


def test_evaluation_refuses_training_patients_and_empties(learn, dls):
    with pytest.raises(ModelError, match="patient_overlap"):
        evaluate(learn, dls.train)
    for odd in (None, [], "x", 3):
        with pytest.raises(MedkitError):
            evaluate(learn, odd)


def test_perfect_and_empty_outlines_score_one_and_zero(learn, dls):
    answers = iter(dls.test.dataset.answers)
    scores = evaluate(learn, dls.test, naive=lambda grey: next(answers).numpy())
    assert scores["dice pancreas"].naive == 1 and scores["iou pancreas"].naive == 1
    assert scores["dice pancreas"].patients == 4


def test_patient_scores_join_slices(yes_no):
    finder = classification_learner(yes_no)
    names, truth, top = patient_scores(finder, yes_no.test, "max")
    probabilities = predict(finder, yes_no.test)[:, 1].numpy().reshape(4, 8)
    np.testing.assert_allclose(top, probabilities.max(1))
    np.testing.assert_allclose(patient_scores(finder, yes_no.test, "mean")[2], probabilities.mean(1), rtol=1e-6)
    assert truth.tolist() == [int(name[-1]) % 2 == 0 for name in names]
    scores = evaluate(finder, yes_no.test)
    assert scores["accuracy"].naive == 0.5 and scores["auroc"].naive == 0.5


def test_a_perfect_classifier_on_few_patients_is_not_certain(yes_no):
    finder = classification_learner(yes_no)

    class Oracle(torch.nn.Module):
        "Knows the answer by the picture."
        def __init__(self):
            super().__init__()
            self.anchor = torch.nn.Parameter(torch.zeros(1))

        def forward(self, pictures):
            data = yes_no.test.dataset
            match = (pictures[:, None] == data.pictures[None]).flatten(2).all(2).float().argmax(1)
            return torch.nn.functional.one_hot(data.targets[match].long(), 2) * 20.0

    finder.model = Oracle()
    scores = evaluate(finder, yes_no.test, pool="max")
    assert scores["auroc"].value == scores["accuracy"].value == 1
    assert scores["accuracy"].low < 0.5 and scores["auroc"].low < 0.5 and not scores.beats_naive("accuracy")


def test_saved_models_come_back_equal(learn, dls, yes_no, tmp_path):
    finder = quiet(classification_learner(yes_no))
    for one, loaders in ((learn, dls), (finder, yes_no)):
        one.fit(1)
        again = load_learner(save_learner(one, tmp_path / loaders.train.dataset.task))
        assert torch.equal(predict(one, loaders.test), predict(again, loaders.test))
        assert again.dls.train.dataset.window == loaders.train.dataset.window
        assert type(again.loss_func) is type(one.loss_func)
    files = {file.suffix for file in tmp_path.rglob("*") if file.is_file()}
    assert files == {".safetensors", ".json"}


def test_a_loaded_model_goes_on_training(learn, dls, tmp_path):
    again = quiet(load_learner(save_learner(learn, tmp_path), dls=dls))
    again.fit(1)
    with pytest.raises(ModelError, match="empty"):
        quiet(load_learner(tmp_path)).fit(1)


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_every_changed_byte_is_noticed(learn, tmp_path, name):
    save_learner(learn, tmp_path)
    file = tmp_path / name
    content = file.read_bytes()
    for position in np.linspace(0, len(content) - 1, 25).astype(int):
        changed = bytearray(content)
        changed[position] ^= 0x01
        if name == "model.json" and json_equal(bytes(changed), content):
            continue  # white space
        file.write_bytes(bytes(changed))
        with pytest.raises(ModelError) as caught:
            load_learner(tmp_path)
        assert caught.value.reason == "bad_model_file"


def json_equal(first: bytes, second: bytes) -> bool:
    try:
        return json.loads(first) == json.loads(second)
    except ValueError:
        return False


def test_a_pickle_is_never_opened(learn, tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    save_learner(learn, tmp_path)
    for name in ("weights.safetensors", "model.json"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(ModelError, match="bad_model_file"):
            load_learner(tmp_path)
        (tmp_path / name).write_bytes(content)
    assert not (tmp_path / "owned").exists()


def test_unknown_network_is_refused_even_with_a_valid_seal(learn, tmp_path):
    from medkit.files import seal

    save_learner(learn, tmp_path)
    card = json.loads((tmp_path / "model.json").read_text())
    for change in ({"architecture": "os.system"}, {"settings": {"width": "x"}}, {"settings": {"width": 10**6}}, {"classes": 3}):
        forged = {**card, **change}
        (tmp_path / "model.json").write_text(json.dumps({**forged, "seal": seal(forged)}))
        with pytest.raises(MedkitError):
            load_learner(tmp_path)


@pytest.mark.parametrize("network", [UNet(width=4, depth=2), SmallClassifier(width=4)])
def test_onnx_agrees_and_int8_is_int8(network, tmp_path):
    torch.manual_seed(0)
    for _ in range(3):
        network(torch.rand(16, 1, 32, 32))
    pictures = torch.rand(5, 1, 32, 32)
    path = export_onnx(network, pictures[:1], tmp_path / "model.onnx")
    with torch.inference_mode():
        expected = network.eval()(pictures).numpy()
    np.testing.assert_allclose(run_model(open_model(path), pictures.numpy()), expected, atol=1e-4)
    small = quantize(path, [torch.rand(8, 1, 32, 32) for _ in range(4)], tmp_path / "int8.onnx")
    assert quantized_share(path) == 0 and quantized_share(small) == 1
    graph = onnx.load(small).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    zero_points = {kinds[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"}
    assert zero_points == {onnx.TensorProto.UINT8}, "activations are unsigned"
    scales = [tensor for tensor in graph.initializer if tensor.name.endswith("_scale") and list(tensor.dims) and tensor.dims[0] > 1]
    assert scales, "weights have one scale a channel"
    assert agreement(network, path, pictures) == 1 and agreement(network, small, pictures) >= 0.6
    assert benchmark(small, pictures[:1], runs=5).size_kb == pytest.approx(small.stat().st_size / 1000)


def test_a_layer_left_in_32_bits_is_an_error(tmp_path, monkeypatch):
    from medkit.learning import compress

    path = export_onnx(SmallClassifier(width=2), torch.rand(1, 1, 16, 16), tmp_path / "model.onnx")
    monkeypatch.setattr(compress, "_quantize_file", lambda source, calibration, target: target.write_bytes(source.read_bytes()))
    with pytest.raises(ModelError, match="export_failed"):
        quantize(path, [torch.rand(1, 1, 16, 16)], tmp_path / "int8.onnx")
    assert not (tmp_path / "int8.onnx").exists()


def test_odd_model_files(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"\x00" * 50)
    for call in (lambda: open_model(tmp_path / "x.onnx"), lambda: quantize(tmp_path / "none.onnx", [], tmp_path / "y.onnx"),
                 lambda: quantized_share(tmp_path / "x.onnx"), lambda: load_learner(tmp_path), lambda: load_learner(tmp_path / "x.onnx"),
                 lambda: export_onnx(UNet(width=2), torch.rand(1, 1, 30, 30), tmp_path / "z.onnx")):
        with pytest.raises(MedkitError):
            call()


# losses

def random_scores(batch=3, classes=3, side=16, seed=0):
    chance = torch.Generator().manual_seed(seed)
    scores = torch.randn(batch, classes, side, side, generator=chance)
    return scores, torch.randint(0, classes, (batch, side, side), generator=chance)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_dice_loss_is_monai_s(classes):
    "MONAI with `batch=True`, no background and a smoothing of one is the same definition."
    from monai.losses import DiceLoss

    scores, targets = random_scores(classes=classes)
    theirs = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, batch=True, smooth_nr=1, smooth_dr=1)
    assert dice_loss(scores.softmax(1), targets) == pytest.approx(float(theirs(scores, targets[:, None])), abs=1e-6)
    one_by_one = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, smooth_nr=1, smooth_dr=1, reduction="none")
    expected = one_by_one(scores, targets[:, None]).flatten(1).mean(1)
    torch.testing.assert_close(dice_loss(scores.softmax(1), targets, each=True), expected)


def test_dice_and_cross_entropy_is_monai_s_sum():
    from monai.losses import DiceCELoss

    scores, targets = random_scores()
    for weights in (None, torch.tensor([1.0, 2.0, 5.0])):
        theirs = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True, smooth_nr=1, smooth_dr=1, weight=weights)
        ours = torch.nn.functional.cross_entropy(scores, targets, weights)
        if weights is None:
            ours = ours + dice_loss(scores.softmax(1), targets)
            assert DiceCrossEntropy()(scores, targets) == pytest.approx(float(ours), abs=1e-6)
            assert float(theirs(scores, targets[:, None])) == pytest.approx(float(ours), abs=1e-6)
        assert DiceCrossEntropy(0.0, weights)(scores, targets) == pytest.approx(float(torch.nn.functional.cross_entropy(scores, targets, weights)))


def test_class_weights_share_out_the_dice_part():
    scores, targets = random_scores()
    alone = [float(dice_loss(scores.softmax(1), targets, torch.tensor(w))) for w in ([0.0, 1, 0], [0.0, 0, 1], [9.0, 1, 3])]
    assert alone[2] == pytest.approx((alone[0] + 3 * alone[1]) / 4, abs=1e-6)


def test_a_batch_without_the_class_has_a_loss_and_a_gradient():
    scores = torch.zeros(2, 3, 8, 8, requires_grad=True)
    loss = DiceCrossEntropy()(scores, torch.zeros(2, 8, 8, dtype=torch.long))
    loss.backward()
    assert torch.isfinite(loss) and scores.grad[:, 1:].min() > 0, "drawing what is not there is pushed down"
    nothing = torch.stack([torch.full((2, 8, 8), 50.0), torch.zeros(2, 8, 8), torch.zeros(2, 8, 8)], 1)
    assert DiceCrossEntropy()(nothing, torch.zeros(2, 8, 8, dtype=torch.long)) == pytest.approx(0, abs=1e-6)


def test_losses_of_single_pictures_average_to_cross_entropy():
    scores, targets = random_scores()
    loss = DeepSupervision(DiceCrossEntropy(0.0))
    whole = float(loss(scores, targets))
    loss.reduction = "none"
    assert loss(scores, targets).shape == (3,) and float(loss(scores, targets).mean()) == pytest.approx(whole, abs=1e-6)
    assert float(loss((scores, scores), targets).mean()) == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize("odd", [(1, -1), (1,), (1, 0), [[1, 2]]])
def test_odd_class_weights(odd):
    with pytest.raises(ModelError, match="bad_option"):
        DiceCrossEntropy(class_weights=odd)


# learners

VIEWS = {"one window": {"window": "pancreas"}, "three windows": {"window": ("pancreas", "liver", "bone")},
         "stack of five": {"window": "pancreas", "stack": 5}, "stack and windows": {"window": ("pancreas", "bone"), "stack": 3}}


class Middle(torch.nn.Module):
    "A denoiser of one layer; answers with as many channels as there are windows."

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.settings = {"in_channels": in_channels, "out_channels": out_channels}
        self.layer = torch.nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, pictures):
        return self.layer(pictures)


@pytest.fixture(scope="module")
def pairs(cases):
    clean = [(volume, Volume(volume.voxels, volume.affine, volume.spacing_mm, patient_key=volume.patient_key)) for volume, _ in cases]
    shown = [(volume, (mask.labels == 10).any((1, 2))) for volume, mask in cases]
    return {"segmentation": (cases, PANCREAS), "classification": (shown, ("no", "yes")), "denoising": (clean, None)}


def learner_for(task, loaders, **options):
    if task == "denoising":
        view = loaders.train.dataset.view
        return quiet(denoising_learner(loaders, Middle(view.channels, len(view.windows)), **options))
    make = segmentation_learner if task == "segmentation" else classification_learner
    return quiet(make(loaders, width=2, depth=1, **options))


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("task", ["segmentation", "classification", "denoising"])
def test_every_learner_takes_every_view(pairs, split, task, view):
    import matplotlib.pyplot as plt

    given, classes = pairs[task]
    loaders = slice_loaders(given, split, classes=classes, batch_size=8, device="cpu", **VIEWS[view])
    learn = learner_for(task, loaders)
    done = train(learn, 1)
    assert learn.model.settings["in_channels"] == loaders.train.dataset.view.channels
    assert len(done.rows) == 1 and np.isfinite(done.rows[0][:2]).all()
    assert done.names[2] == {"segmentation": "dice pancreas", "classification": "accuracy", "denoising": "psnr dB"}[task]
    learn.show_results(max_n=2)
    plt.close("all")
    table = top_losses(learn, loaders.test)
    assert len(table) == len(loaders.test.dataset) and table.loss.is_monotonic_decreasing


def test_learners_overfit_one_batch(cases, yes_no):
    few = cases[:2], patient_split([volume.patient_key for volume, _ in cases[:2]], valid=0.5, test=0, seed=0)
    loaders = slice_loaders(*few, window="pancreas", classes={"liver": "liver"}, batch_size=8, device="cpu")
    learn = quiet(segmentation_learner(loaders, width=8, depth=2, fold=1))
    train(learn, 60, 0.02)
    drawn = predict(learn, loaders.train).argmax(1) == 1
    truth = loaders.train.dataset.targets == 1
    assert 2 * (drawn & truth).sum() / (drawn.sum() + truth.sum()) > 0.95


def test_first_weights_follow_the_seed_and_leave_chance_alone(dls):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, same, other = (segmentation_learner(dls, width=2, depth=1, seed=seed).model.head.weight for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before) and torch.equal(first, same) and not torch.equal(first, other)


def test_training_follows_the_seed(dls):
    def run(seed):
        return train(quiet(segmentation_learner(dls, width=2, depth=1)), 1, seed=seed).rows
    assert run(0) == run(0) != run(1)


class TwoAnswers(torch.nn.Module):
    "Two decoders on one layer, in the manner of the Double U-Net."

    def __init__(self):
        super().__init__()
        self.settings = {"in_channels": 1, "classes": 2}
        self.body, self.first, self.second = (torch.nn.Conv2d(*ends, 3, padding=1) for ends in ((1, 4), (4, 2), (4, 2)))

    def forward(self, pictures):
        seen = self.body(pictures).relu()
        return (self.first(seen), self.second(seen)) if self.training else self.second(seen)


def test_both_decoders_of_a_network_with_two_outputs_learn(dls):
    learn = quiet(segmentation_learner(dls, TwoAnswers(), wd=0.0))
    before = {name: values.clone() for name, values in learn.model.state_dict().items()}
    learn.recorder.train_metrics = True
    learn.fit_one_cycle(1, 0.01)
    moved = {name for name, values in learn.model.state_dict().items() if not torch.equal(values, before[name])}
    assert moved == set(before)
    learn.recorder.train_metrics = False
    assert predict(learn, dls.test).shape == (32, 2, 32, 32)


def test_double_unet_trains_both_decoders(cases, split):
    loaders = slice_loaders(cases, split, window=("pancreas", "liver", "bone"), classes=PANCREAS, batch_size=8, device="cpu")
    learn = quiet(segmentation_learner(loaders, "DoubleUNet", width=1 / 16, wd=0.0))
    before = {name: values.clone() for name, values in learn.model.named_parameters()}
    train(learn, 1)
    still = [name for name, values in learn.model.named_parameters() if torch.equal(values, before[name])]
    assert not still


@pytest.mark.parametrize("wrong", [
    lambda dls: segmentation_learner(dls, UNet(3, 2)), lambda dls: segmentation_learner(dls, UNet(1, 5)),
    lambda dls: segmentation_learner(dls, "SmallClassifier"), lambda dls: segmentation_learner(dls, breadth=3),
    lambda dls: segmentation_learner(dls, UNet(1, 2), width=3), lambda dls: denoising_learner(dls),
    lambda dls: segmentation_learner(dls, mixed=True), lambda dls: train(segmentation_learner(dls), 1.5),
    lambda dls: train(segmentation_learner(dls, width=2), 1, patience=0),
    lambda dls: train(segmentation_learner(dls, width=2), 1, patience=1, monitor="dice"),
])
def test_odd_settings_are_refused_in_words(dls, wrong):
    with pytest.raises(ModelError) as caught:
        wrong(dls)
    assert caught.value.reason in ("bad_option", "bad_shape", "unknown_architecture")


def test_early_stop_puts_the_best_weights_back(dls):
    learn = quiet(segmentation_learner(dls, width=2, depth=1))
    done = train(learn, 12, 1.0, patience=2)
    best = min(range(len(done.rows)), key=lambda epoch: done.rows[epoch][1])
    assert done.kept == best and len(done.rows) in (best + 3, 12)
    with learn.no_logging():
        assert learn.validate()[0] == pytest.approx(done.rows[best][1], rel=1e-5)
    assert f"weights of epoch {best}" in repr(done)


def test_a_loss_that_is_no_number_names_the_batch(cases, split):
    loaders = slice_loaders(cases, split, window="pancreas", classes=PANCREAS, batch_size=8, device="cpu")
    learn = quiet(segmentation_learner(loaders, width=2, depth=1))
    volumes = list(loaders.train.dataset.volumes)
    poisoned = volumes[1].float()
    poisoned[3, 4, 5] = float("nan")
    volumes[1] = poisoned
    loaders.train.dataset.volumes = tuple(volumes)
    patient = loaders.train.dataset.cases[1].patient
    with pytest.raises(ModelError) as caught:
        train(learn, 1)
    words = str(caught.value)
    assert caught.value.reason == "not_finite" and f": {patient} slice 3\n" in words
    assert "epoch 0, batch " in words and "pictures that are not numbers" in words and "learning rate" in words


def test_a_wild_learning_rate_names_its_batch(dls):
    with pytest.raises(ModelError) as caught:
        train(quiet(segmentation_learner(dls, width=2, depth=1)), 2, 1e30)
    words = str(caught.value)
    assert caught.value.reason == "not_finite" and "learning rate" in words and "pictures from 0 to 1" in words and "sim-0000" in words


def test_fastai_s_interpretation_works(learn, dls):
    from fastai.interpret import Interpretation

    with learn.no_bar():
        losses, positions, *_ = Interpretation.from_learner(learn, dl=dls.test).top_losses(3)
    table = top_losses(learn, dls.test)
    np.testing.assert_allclose(losses.numpy(), table.loss[:3], rtol=1e-4)
    assert positions.tolist() == table.position[:3].tolist()


def test_top_losses_by_patient_add_up(learn, dls):
    patients = top_losses(learn, dls.test, by="patient")
    assert len(patients) == 4 and patients.share.sum() == pytest.approx(1) and patients.loss.is_monotonic_decreasing
    with pytest.raises(ModelError, match="empty"):
        top_losses(learn, [])


# the benchmark for a graphics card, its functions at a small size on the processor

@pytest.fixture(scope="module")
def bench_gpu():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import bench_gpu
        yield bench_gpu
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def test_the_card_benchmark_says_so_without_a_card(bench_gpu, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench_gpu.main() is None
    assert capsys.readouterr().out.count("\n") == 1


def test_the_card_benchmark_s_steps_train(bench_gpu):
    plain, ours, apart = bench_gpu.speeds("cpu", side=32, batch=2, width=1 / 16, compiled=False, warm_up=1, steps=1, repeats=1)
    assert plain > 0 and ours > 0 and apart < 0.05
    pictures, targets = bench_gpu.batch_of(2, 32, "cpu")
    torch.manual_seed(0)
    network = bench_gpu.DoubleUNet(in_channels=3, classes=2, width=1 / 16)
    step = bench_gpu.make_step(network, pictures, targets, fast=True, compiled=False)
    losses = [float(step()) for _ in range(8)]
    assert losses[-1] < losses[0]


def test_the_card_benchmark_counts_the_seconds_to_a_dice(bench_gpu):
    few = dict(train=range(2), valid=range(100, 101), test=range(200, 201))
    assert bench_gpu.seconds_to_dice("cpu", dice=-1.0, epochs=1, width=1 / 16, **few) > 0
    assert bench_gpu.seconds_to_dice("cpu", dice=1.1, epochs=1, width=1 / 16, **few) is None


def test_the_rows_of_a_benchmark_count_bars_alone(bench_gpu, capsys):
    from timing import print_rows

    rows = [("quick", "1 s", "<= 2 s", np.True_), ("shown", "3", "", None), ("slow", "9 s", "<= 2 s", False)]
    assert print_rows(rows) == [True, False]
    assert [line.split()[-2:] for line in capsys.readouterr().out.splitlines()] == [["s", "met"], ["shown", "3"], ["NOT", "MET"]]


# networks that a newcomer gives

SLIPS = {
    "small letters": (lambda: "unet", "did you mean 'UNet'?"), "a class": (lambda: UNet, "make one: UNet(in_channels=1, classes=2)"),
    "channels": (lambda: torch.nn.Conv2d(3, 2, 1), "for pictures (1, 1, 32, 32): RuntimeError"),
    "classes": (lambda: torch.nn.Conv2d(1, 4, 1), "(1, 4, 32, 32)\nexpected: scores (1, 2, 32, 32)"),
    "size": (lambda: torch.nn.Conv2d(1, 2, 3), "(1, 2, 30, 30)"), "no picture": (lambda: torch.nn.Flatten(), "(1, 1024)"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_network_that_does_not_fit_is_refused_before_training(dls, slip):
    make, words = SLIPS[slip]
    with pytest.raises(ModelError) as caught:
        segmentation_learner(dls, make())
    assert words in str(caught.value)


def test_a_plain_network_is_tried_and_left_as_it_was(yes_no):
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(1).eval(), torch.nn.Flatten(), torch.nn.Dropout(), torch.nn.LazyLinear(2))
    network[-1].initialize_parameters(torch.zeros(1, 1024))
    before, chance = {name: values.clone() for name, values in network.state_dict().items()}, torch.get_rng_state()
    learn = classification_learner(yes_no, network)
    assert all(torch.equal(values, before[name]) for name, values in learn.model.state_dict().items())
    assert [part.training for part in learn.model] == [False, True, True, True] and torch.equal(torch.get_rng_state(), chance)


def test_a_denoiser_of_stacks_names_the_stack(cases, split):
    from medkit.models import SliceConvLSTM

    pairs = [(volume, volume) for volume, _ in cases]
    with pytest.raises(ModelError, match="stack=5 in slice_loaders"):
        denoising_learner(slice_loaders(pairs, split, window="pancreas", classes=None), SliceConvLSTM())


def test_broken_weights_ask_for_a_new_learner(dls):
    learn = quiet(segmentation_learner(dls, width=2, depth=1))
    for rate in (1e30, 1e-3):
        with pytest.raises(ModelError, match="not_finite") as caught:
            train(learn, 2, rate)
        assert "make a new learner with a lower learning rate" in caught.value.hint
    assert len(train(quiet(segmentation_learner(dls, width=2, depth=1)), 1, 1e-3).rows) == 1
