"""The networks for signals: what goes in and comes out, exact sizes, gradients everywhere, any length, odd input refused."""

import json

import pytest
import torch
from fitting import fit
from torch import nn

from medkit.errors import MedkitError, ModelError
from medkit.learning import export_onnx
from medkit.models import BeatNet, CNNLSTM, MultiHeadCNN, ResidualBlock, count_macs, count_parameters

torch.set_num_threads(1)
SMALL = {  # name -> make(in_channels, classes)
    "beat": lambda i=1, c=2: BeatNet(i, c, width=4, depth=3),
    "heads": lambda i=1, c=2: MultiHeadCNN(i, c, width=3, depth=3, kernels=(3, 9)),
    "lstm": lambda i=1, c=2: CNNLSTM(i, c, width=4, depth=3, hidden=8, layers=2),
}
each = pytest.mark.parametrize("make", SMALL.values(), ids=SMALL)


@each
@pytest.mark.parametrize("samples", [8, 9, 31, 100, 1001])
@pytest.mark.parametrize("channels, classes", [(1, 2), (3, 5)])
def test_any_length_and_any_channels(make, samples, channels, classes):
    scores = make(channels, classes).eval()(torch.rand(2, channels, samples))
    assert scores.shape == (2, classes) and torch.isfinite(scores).all()


@each
def test_a_tiny_batch_is_learnt_by_heart(make):
    torch.manual_seed(0)
    assert fit(make(), torch.randn(8, 1, 64), torch.tensor([0, 1] * 4), 100) < 0.05


@each
def test_settings_rebuild_the_network_also_after_json(make):
    torch.manual_seed(0)
    first = make(2, 3).eval()
    second = type(first)(**json.loads(json.dumps(first.settings))).eval()
    assert second.settings == first.settings
    signals = torch.rand(2, 2, 50)
    assert not torch.equal(first(signals), second(signals))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(signals), second(signals))


@each
def test_the_same_seed_gives_the_same_network_and_training(make):
    losses = []
    for _ in range(2):
        torch.manual_seed(3)
        losses.append(fit(make(), torch.randn(4, 1, 40), torch.tensor([0, 1, 0, 1]), 5))
    assert losses[0] == losses[1]


@each
def test_signals_of_a_batch_do_not_mix(make):
    torch.manual_seed(0)
    network, batch = make(2).eval(), torch.rand(4, 2, 77)
    torch.testing.assert_close(network(batch)[2:3], network(batch[2:3]))
    assert torch.equal(network(batch), network(batch))


@each
def test_every_weight_and_every_sample_gets_a_gradient(make):
    torch.manual_seed(0)
    network, signals = make(2).train(), torch.rand(4, 2, 64, requires_grad=True)
    network(signals).square().sum().backward()
    assert all(weights.grad is not None and weights.grad.any() for weights in network.parameters())
    assert (signals.grad.abs().amax((0, 1)) > 0).all()


@each
@pytest.mark.parametrize("samples", [50, 64])
def test_every_network_leaves_as_onnx(make, samples, tmp_path):
    "export_onnx compares the file with the network."
    torch.manual_seed(0)
    assert export_onnx(make(2, 3), torch.rand(2, 2, samples), tmp_path / "network.onnx").stat().st_size > 1000


@pytest.mark.parametrize("make", [SMALL["beat"], SMALL["heads"]])
def test_convolutional_networks_quantise_well(make):
    "Only operations that ONNX Runtime runs in eight bits."
    plain = (nn.Conv1d, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.Sequential, nn.ModuleList, ResidualBlock, BeatNet, MultiHeadCNN)
    assert all(isinstance(part, plain) for part in make().modules())


@each
@pytest.mark.parametrize("odd", [
    torch.rand(1, 1, 7), torch.rand(1, 2, 64), torch.rand(64), torch.rand(1, 64), torch.rand(1, 1, 8, 8), torch.rand(0, 1, 64),
    torch.rand(1, 1, 0), torch.zeros(1, 1, 64, dtype=torch.int16), None, "x", [[1.0]],
])
def test_odd_input_is_a_medkit_error(make, odd):
    for network in (make(), make().eval()):
        with pytest.raises(ModelError, match="bad_shape") as caught:
            network(odd)
        assert "8 samples" in caught.value.expected


@pytest.mark.parametrize("kind", [BeatNet, MultiHeadCNN, CNNLSTM])
@pytest.mark.parametrize("settings", [
    {"classes": 1}, {"width": 0}, {"depth": 0}, {"depth": 11}, {"in_channels": 0}, {"in_channels": 1.0}, {"classes": None},
    {"width": True}, {"width": 5000},
])
def test_impossible_settings(kind, settings):
    with pytest.raises(ModelError, match="bad_option"):
        kind(**settings)


@pytest.mark.parametrize("call", [
    lambda: MultiHeadCNN(kernels=(4,)), lambda: MultiHeadCNN(kernels=()), lambda: MultiHeadCNN(kernels=5), lambda: MultiHeadCNN(kernels="5"),
    lambda: MultiHeadCNN(kernels=(5.0,)), lambda: MultiHeadCNN(kernels=None), lambda: CNNLSTM(hidden=0), lambda: CNNLSTM(layers=-1),
])
def test_impossible_settings_of_their_own(call):
    with pytest.raises(MedkitError, match="bad_option"):
        call()


def test_exact_sizes():
    "The defaults, by hand from the layers in the notebooks; multiplications for 30 s at 50 Hz."
    sizes = {kind: (count_parameters(kind()), count_macs(kind(), (1, 1, 1500))) for kind in (BeatNet, MultiHeadCNN, CNNLSTM)}
    assert sizes == {BeatNet: (264_850, 35_762_240), MultiHeadCNN: (65_066, 10_686_800), CNNLSTM: (121_138, 8_913_248)}


def test_order_matters_to_the_memory_and_not_to_convolutions():
    torch.manual_seed(0)
    signals = torch.zeros(1, 1, 512)
    signals[0, 0, 100:140], signals[0, 0, 356:396] = 5 * torch.randn(40), 20 * torch.randn(40)
    swapped = signals.roll(256, 2)
    beat, lstm = (network.eval() for network in (BeatNet(width=4, depth=3), CNNLSTM(width=4, depth=3, hidden=8)))
    torch.testing.assert_close(beat(signals), beat(swapped), rtol=1e-3, atol=1e-4)
    steps, turned = (lstm.looks(one).transpose(1, 2) for one in (signals, swapped))
    torch.testing.assert_close(steps.mean(1), turned.mean(1))
    assert (lstm.memory(steps)[0][:, -1] - lstm.memory(turned)[0][:, -1]).abs().max() > 1e-6


def test_the_last_step_and_the_mean_of_all_decide():
    torch.manual_seed(0)
    lstm, signals = CNNLSTM(width=4, depth=3, hidden=8).eval(), torch.randn(2, 1, 200)
    told = lstm.memory(lstm.looks(signals).transpose(1, 2))[0]
    torch.testing.assert_close(lstm(signals), lstm.head(torch.cat([told[:, -1], told.mean(1)], dim=1)))
