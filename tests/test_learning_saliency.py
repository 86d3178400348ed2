"Heat must lie where the evidence is: networks whose evidence is known by construction."

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from medkit.errors import ModelError
from medkit.imaging import Window
from medkit.learning.loaders import read_cases
from medkit.learning.saliency import coarsest_layer, explain, sanity
from medkit.imaging.volume import Mask, Volume, axial_affine

torch.set_num_threads(1)
SQUARE = (slice(20, 28), slice(36, 44))


@pytest.fixture(scope="module")
def slices():
    "Grey slices with one bright square, as classes and as outlines."
    rng = np.random.default_rng(0)
    voxels = rng.normal(0, 5, (4, 64, 64)).astype(np.float32)
    voxels[:, *SQUARE] += 150
    labels = np.zeros(voxels.shape, np.uint8)
    labels[:, *SQUARE] = 1
    affine = axial_affine((1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    volume = Volume(voxels, affine, (1.0, 1.0, 1.0), patient_key="one")
    mask = Mask(labels, {0: "background", 1: "square"}, affine, (1.0, 1.0, 1.0), "one")
    window = Window(0, 400)
    return (read_cases([(volume, 1)], window=window, classes=("no", "square")),
            read_cases([(volume, mask)], window=window, classes={"square": ["square"]}))


class Bright(nn.Module):
    "Says `square` where the slice is brighter than three quarters."

    def __init__(self, outline: bool):
        super().__init__()
        self.look, self.outline = nn.Conv2d(1, 1, 3, padding=1), outline
        with torch.no_grad():
            self.look.weight.fill_(1 / 9)
            self.look.bias.fill_(-0.75)

    def forward(self, pictures):
        seen = torch.relu(self.look(pictures))
        scores = 40 * seen if self.outline else seen.sum((2, 3))
        other = torch.full_like(scores, 1.0)
        return torch.cat([other, scores], 1)


@pytest.mark.parametrize("outline", [False, True])
@pytest.mark.parametrize("method", ["grad_cam", "occlusion"])
def test_heat_lies_on_the_evidence(slices, outline, method):
    data = slices[outline]
    answer = explain(Bright(outline), data, 2, method=method, size=6, layer="look")
    region = np.zeros((64, 64), bool)
    region[SQUARE] = True
    near = np.zeros((64, 64), bool)
    near[15:33, 31:49] = True
    inside, even = answer.share_inside(near)
    assert inside > 0.95 and even < 0.1
    assert region[np.unravel_index(answer.heat.argmax(), (64, 64))]
    assert answer.probability > 0.5 and (answer.patient, answer.position, answer.target) == ("one", 2, "square")


def test_occlusion_is_a_drop_in_probability(slices):
    data, network = slices[0], Bright(False)
    answer = explain(network, data, 0, method="occlusion", size=16)
    covered = data.pictures[:1].clone()
    covered[:, :, 16:32, 32:48] = covered.mean()
    with torch.inference_mode():
        fall = (network(data.pictures[:1]).softmax(1) - network(covered).softmax(1))[0, 1]
    assert 0.25 * fall <= answer.heat.max() <= min(fall + 0.02, answer.probability)  # a pixel has the mean of its patches


def test_the_picture_names_patient_slice_and_contour(slices):
    answer = replace(explain(Bright(False), slices[0], 2, layer="look"), patient="nih_pancreas_ct/PANCREAS_0000")
    assert answer.slice_index == 2 and "slice 2" in repr(answer)
    ax = answer.show()
    assert "slice 2" in ax.get_title() and "…/PANCREAS_0000" in ax.get_title()
    assert [one.get_text() for one in ax.get_legend().get_texts()] == ["half of the most heat"]
    assert ax.get_legend().get_title().get_text().startswith("grad-cam")
    empty = replace(answer, heat=np.zeros((64, 64))).show()
    assert not empty.get_legend().get_texts()
    plt.close("all")


def test_the_slice_is_counted_within_its_patient():
    rng, spacing = np.random.default_rng(1), (1.0, 1.0, 1.0)
    volumes = [Volume(rng.normal(150, 40, (4, 64, 64)).astype(np.float32), axial_affine(spacing), spacing, patient_key=key)
               for key in ("one", "two")]
    data = read_cases([(volume, 1) for volume in volumes], window=Window(0, 400), classes=("no", "square"))
    answer = explain(Bright(False), data, 5, layer="look")
    assert (answer.patient, answer.position, answer.slice_index) == ("two", 5, 1)


def test_explaining_changes_nothing(slices):
    network = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3, stride=2),
                            nn.AdaptiveAvgPool2d(1), nn.Flatten()).train()
    before = {name: values.clone() for name, values in network.state_dict().items()}
    one, two = (explain(network, slices[0], 1) for _ in range(2))
    assert np.array_equal(one.heat, two.heat) and network.training and not network[0]._forward_hooks
    assert all(torch.equal(before[name], values) for name, values in network.state_dict().items())
    assert all(values.grad is None for values in network.parameters())
    assert coarsest_layer(network.eval(), slices[0].pictures[:1]) == "3"  # the pooled 1 x 1 keeps no picture


def test_sanity_tells_a_learnt_network_from_an_edge_detector(slices):
    class Fixed(nn.Module):  # its heat does not rest on any weight
        def __init__(self):
            super().__init__()
            self.keep, self.own = nn.Identity(), nn.Linear(2, 2)

        def forward(self, pictures):
            seen = self.keep(torch.relu(pictures - 0.6))
            return torch.cat([seen.sum((2, 3)) * 0, seen.sum((2, 3))], 1)

    assert sanity(Fixed(), slices[0], 0, layer="keep") == pytest.approx(1)
    assert not sanity(Bright(False), slices[0], 0, method="occlusion", size=6) > 0.9


def test_odd_questions(slices):
    network = Bright(False)
    for options in ({"target": "liver"}, {"method": 3}, {"size": 65}, {"size": "big"}, {"layer": "nowhere"}):
        with pytest.raises(ModelError):
            explain(network, slices[0], 0, **options)
    for position in (-1, 4, None, "0", 0.0):
        with pytest.raises(ModelError, match="bad_option"):
            explain(network, slices[0], position)
