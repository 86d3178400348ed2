"""The networks: they fit a tiny batch, refuse what does not fit, and hold nothing exotic."""

import pytest
import torch
from torch import nn

from medkit.errors import MedkitError, ModelError
from medkit.models import SmallClassifier, UNet, count_parameters

torch.set_num_threads(1)
PLAIN = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Linear, nn.MaxPool2d, nn.Upsample, nn.Sequential, nn.ModuleList)


def fit(network, pictures, targets, steps):
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(steps):
        loss = nn.functional.cross_entropy(network(pictures), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return float(loss)


def test_unet_overfits_a_tiny_batch():
    torch.manual_seed(0)
    pictures, targets = torch.rand(2, 1, 16, 16), torch.zeros(2, 16, 16, dtype=torch.long)
    targets[:, 4:9, 6:12] = 1
    pictures[:, :, 4:9, 6:12] += 0.5
    assert fit(UNet(width=4, depth=2), pictures, targets, 80) < 0.05


def test_classifier_overfits_a_tiny_batch():
    torch.manual_seed(0)
    assert fit(SmallClassifier(width=8), torch.rand(8, 1, 16, 16), torch.tensor([0, 1] * 4), 60) < 0.05


@pytest.mark.parametrize("network", [UNet(width=4), SmallClassifier(width=4)])
def test_networks_quantise_well(network):
    "Only operations that ONNX Runtime runs in eight bits."
    assert all(isinstance(part, (*PLAIN, type(network))) for part in network.modules())


@pytest.mark.parametrize("kind", [UNet, SmallClassifier])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_sides_must_divide(kind, depth):
    network = kind(width=2, depth=depth).eval()
    side = 3 * 2**depth
    assert torch.isfinite(network(torch.rand(1, 1, side, 2 * side))).all()
    with pytest.raises(ModelError) as caught:
        network(torch.rand(1, 1, side + 1, side))
    assert caught.value.reason == "bad_shape" and str(2**depth) in caught.value.message


@pytest.mark.parametrize("kind", [UNet, SmallClassifier])
@pytest.mark.parametrize("odd", [
    torch.rand(64, 64), torch.rand(1, 2, 64, 64), torch.zeros(1, 1, 64, 64, dtype=torch.int16), None, "x",
    torch.rand(1, 1, 0, 0), torch.rand(0, 1, 4, 4),
])
def test_odd_input_is_a_medkit_error(kind, odd):
    with pytest.raises(MedkitError):
        kind(width=2)(odd)


@pytest.mark.parametrize("kind", [UNet, SmallClassifier])
@pytest.mark.parametrize("settings", [{"classes": 1}, {"width": 0}, {"depth": 0}, {"in_channels": 0}])
def test_impossible_settings(kind, settings):
    with pytest.raises(ModelError, match="bad_option"):
        kind(**settings)


def test_settings_rebuild_the_network():
    first = UNet(2, 3, 4, 2)
    second = UNet(**first.settings)
    second.load_state_dict(first.state_dict())
    assert count_parameters(first) == count_parameters(second)


def test_slices_of_a_batch_do_not_mix():
    "In evaluation mode, what a slice gets does not depend on its neighbours in the batch."
    torch.manual_seed(0)
    for network in (UNet(width=4).eval(), SmallClassifier(width=4).eval()):
        batch = torch.rand(4, 1, 32, 32)
        torch.testing.assert_close(network(batch)[2:3], network(batch[2:3]))
