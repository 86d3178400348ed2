"""The denoisers: what goes in and comes out, exact sizes, gradients everywhere, no side of the stack preferred, odd input refused."""

import pytest
import torch
from torch import nn

from medkit.errors import MedkitError, ModelError
from medkit.imaging import Window, add_noise, apply_window, simulate_abdomen
from medkit.models import ConvAutoencoder, RowLSTMAutoencoder, SliceConvLSTM, UNet, count_macs, count_parameters
from medkit.models.slice_conv_lstm import ConvLSTM

torch.set_num_threads(1)
SMALL = {  # name -> make(in_channels, out_channels)
    "conv": lambda i=1, o=1: ConvAutoencoder(i, o, width=6, depth=2),
    "row": lambda i=1, o=1: RowLSTMAutoencoder(i, o, columns=24, hidden=6, code=5),
    "slice": lambda i=1, o=1: SliceConvLSTM(i, o, hidden=3, width=4, depth=1),
}
each = pytest.mark.parametrize("make", SMALL.values(), ids=SMALL)


def awake(network):
    "The network with a last layer that is not zero."
    for part in network.modules():
        if getattr(part, "weight", None) is not None and not part.weight.any():
            nn.init.normal_(part.weight, std=0.2)
    return network


@each
@pytest.mark.parametrize("channels", [(1, 1), (3, 1), (5, 1), (2, 2), (6, 2)])
def test_the_middle_slice_comes_out_untouched_by_an_untrained_network(make, channels):
    pictures = torch.rand(3, channels[0], 16, 24)
    start = (channels[0] - channels[1]) // 2
    for network in (make(*channels), make(*channels).eval()):
        assert torch.equal(network(pictures), pictures[:, start : start + channels[1]])


@each
def test_settings_rebuild_the_network(make):
    first = awake(make(5)).eval()
    second = type(first)(**first.settings).eval()
    second.load_state_dict(first.state_dict())
    pictures = torch.rand(2, 5, 8, 24)
    assert torch.equal(first(pictures), second(pictures))


def test_exact_sizes():
    "By hand from the layers; multiplications are counted at 128 x 128."
    pair = lambda a, b: 9 * a * b + 9 * b * b + 4 * b
    lstm = lambda into, hidden: 2 * 4 * hidden * (into + hidden + 2)
    unet = pair(8, 16) + pair(16, 32) + pair(32, 64) + pair(48, 16) + pair(96, 32) + 17 * 4
    waist = pair(4, 32) + pair(32, 64) + pair(64, 32) + pair(32, 32) + 33 * 4
    assert count_parameters(ConvAutoencoder()) == waist == 112_516
    assert count_parameters(RowLSTMAutoencoder()) == 2 * (lstm(128, 128) + 257 * 128) == 594_176
    assert count_parameters(SliceConvLSTM()) == 9 * 4 * 16 + 16 + 9 * 4 * 16 + unet == 120_532
    memory = 64 * 64 * 9 * 16 * (5 * 4 + 4 * 4)  # five looks, two recalls from each side
    assert count_macs(SliceConvLSTM(), (1, 5, 128, 128)) - count_macs(UNet(8, 4, 16, 2), (1, 8, 64, 64)) == memory


@each
def test_every_weight_and_every_slice_gets_a_gradient(make):
    network, pictures = awake(make(5)), torch.rand(2, 5, 8, 24, requires_grad=True)
    network(pictures).square().sum().backward()
    assert all(weights.grad is not None and weights.grad.any() for weights in network.parameters())
    assert (pictures.grad.abs().amax((0, 2, 3)) > 0).all()


@pytest.mark.parametrize("slices", [3, 5, 7])
def test_a_stack_upside_down_gives_the_same_answer(slices):
    network, stack = awake(SMALL["slice"](slices)).eval(), torch.rand(2, slices, 8, 8)
    torch.testing.assert_close(network(stack.flip(1)), network(stack))


def test_near_and_far_neighbours_are_told_apart():
    "The memory sees an order; only the sides are alike."
    cell, looks = ConvLSTM(2, 3), torch.randn(3, 1, 12, 6, 6)
    assert not torch.allclose(cell(list(looks)), cell(list(looks[[1, 0, 2]])), atol=1e-3)


@each
def test_slices_of_a_batch_do_not_mix(make):
    network, batch = awake(make(3)).eval(), torch.rand(4, 3, 8, 24)
    torch.testing.assert_close(network(batch)[2:3], network(batch[2:3]))


def test_the_gates_are_those_of_the_paper():
    "The same answer as a plain ConvLSTM with a hyperbolic tangent, once its weights for the new content are halved."
    torch.manual_seed(0)
    cell, pictures = ConvLSTM(2, 3), torch.rand(4, 1, 2, 6, 6)
    hidden = memory = torch.zeros(1, 3, 6, 6)
    for picture in pictures:
        enter, keep, show, new = (cell.look(picture) + cell.recall(hidden)).chunk(4, 1)
        memory = keep.sigmoid() * memory + enter.sigmoid() * (new / 2).tanh()
        hidden = show.sigmoid() * memory.tanh()
    torch.testing.assert_close(cell([cell.look(picture) for picture in pictures]), hidden)


@each
@pytest.mark.parametrize("odd", [
    None, "x", torch.rand(24, 24), torch.rand(1, 2, 24, 24), torch.zeros(1, 3, 24, 24, dtype=torch.int16), torch.rand(1, 3, 0, 0),
    torch.rand(1, 3, 24, 25),
])
def test_odd_input_is_a_medkit_error(make, odd):
    with pytest.raises(MedkitError):
        make(3)(odd)


@pytest.mark.parametrize("kind", [ConvAutoencoder, RowLSTMAutoencoder, SliceConvLSTM])
@pytest.mark.parametrize("settings", [
    {"in_channels": 2}, {"in_channels": 0}, {"in_channels": 4, "out_channels": 2}, {"in_channels": 3, "out_channels": 2},
    {"in_channels": 3.0}, {"in_channels": True}, {"out_channels": None},
])
def test_impossible_stacks(kind, settings):
    with pytest.raises(ModelError, match="bad_option"):
        kind(**settings)


@pytest.mark.parametrize(("kind", "name"), [
    (ConvAutoencoder, "width"), (ConvAutoencoder, "depth"), (RowLSTMAutoencoder, "columns"), (RowLSTMAutoencoder, "hidden"),
    (RowLSTMAutoencoder, "code"), (SliceConvLSTM, "hidden"), (SliceConvLSTM, "width"), (SliceConvLSTM, "depth"), (SliceConvLSTM, "fold"),
])
@pytest.mark.parametrize("value", [0, -1, 1.5, "8", None, 10**6])
def test_impossible_settings(kind, name, value):
    with pytest.raises(ModelError, match="bad_option"):
        kind(**{name: value})


def test_a_small_training_beats_the_noise_by_three_decibels():
    "On a patient it was not trained on."
    def pair(seed):
        clean, _ = simulate_abdomen(seed, preset="bench-1", noise_hu=0)
        grey = [torch.from_numpy(apply_window(scan.voxels, Window(40, 400)))
                for scan in (add_noise(clean, 47, correlation_mm=4.5, seed=seed), clean)]
        return grey[0].unfold(0, 3, 1).movedim(-1, 1), grey[1][1:-1, None]  # stacks of three; (slice, 1, row, column)

    noisy, clean = (torch.cat(part) for part in zip(*map(pair, range(6))))
    torch.manual_seed(0)
    network = SliceConvLSTM(3).to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters())
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.01, total_steps=150)
    for _ in range(150):
        rows, (top, left) = torch.randperm(len(noisy))[:4], torch.randint(65, (2,)).tolist()
        part = (slice(None), slice(top, top + 64), slice(left, left + 64))
        (network(noisy[rows][:, *part]) - clean[rows][:, *part]).square().mean().backward()
        optimiser.step(), optimiser.zero_grad(), cycle.step()
    noisy, clean = pair(200)
    with torch.inference_mode():
        after = (network.eval()(noisy) - clean).square().mean()
    gain = 10 * torch.log10((noisy[:, 1:2] - clean).square().mean() / after)
    assert gain > 3
