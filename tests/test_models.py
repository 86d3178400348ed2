"""The networks: they fit a tiny batch, refuse what does not fit, and hold nothing exotic."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from fitting import fit
from safetensors.torch import save_file
from torch import nn

from medkit.errors import DataError, MedkitError, MissingExtra, ModelError
from medkit.learning import export_onnx
from medkit.models import (
    DoubleUNet, NamedClassifier, NamedUNet, SmallClassifier, UNet, count_macs, count_parameters, load_vgg19, named, trained_weights,
)

torch.set_num_threads(1)
PLAIN = (
    nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Linear, nn.MaxPool2d, nn.Upsample, nn.Sequential, nn.ModuleList, nn.Identity,
    nn.PixelShuffle, nn.PixelUnshuffle,
)


def test_unet_overfits_a_tiny_batch():
    torch.manual_seed(0)
    pictures, targets = torch.rand(2, 1, 16, 16), torch.zeros(2, 16, 16, dtype=torch.long)
    targets[:, 4:9, 6:12] = 1
    pictures[:, :, 4:9, 6:12] += 0.5
    assert fit(UNet(width=4, depth=2), pictures, targets, 80) < 0.05


def test_classifier_overfits_a_tiny_batch():
    torch.manual_seed(0)
    assert fit(SmallClassifier(width=8), torch.rand(8, 1, 16, 16), torch.tensor([0, 1] * 4), 60) < 0.05


@pytest.mark.parametrize("network", [UNet(width=4), UNet(width=4, fold=2), SmallClassifier(width=4)])
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


SMALL = [
    lambda: UNet(2, 3, 4, 2), lambda: UNet(2, 3, 4, 2, fold=2), lambda: SmallClassifier(2, 3, 4, 2),
    lambda: DoubleUNet(2, 3, width=1 / 16),
]


@pytest.mark.parametrize("make", SMALL)
def test_settings_rebuild_the_network(make):
    torch.manual_seed(0)
    first = make().eval()
    second = type(first)(**first.settings).eval()
    pictures = torch.rand(2, 2, 32, 32)
    assert not torch.equal(first(pictures), second(pictures))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(pictures), second(pictures))


@pytest.mark.parametrize("make", SMALL)
def test_slices_of_a_batch_do_not_mix(make):
    "In evaluation mode, what a slice gets does not depend on its neighbours in the batch, and stays the same."
    torch.manual_seed(0)
    network, batch = make().eval(), torch.rand(4, 2, 32, 32)
    torch.testing.assert_close(network(batch)[2:3], network(batch[2:3]))
    assert torch.equal(network(batch), network(batch))


@pytest.mark.parametrize("make", SMALL)
def test_the_gradient_reaches_every_parameter(make):
    torch.manual_seed(0)
    network = make().train()
    scores = network(torch.rand(4, 2, 32, 32))
    (scores[-1] if isinstance(scores, tuple) else scores).square().mean().backward()
    assert all(values.grad is not None for values in network.parameters())
    silent = [name for name, values in network.named_parameters() if not values.grad.any()]
    assert not [name for name in silent if "weigh" not in name]  # a squeeze-excite may pass none for one batch


@pytest.mark.parametrize("make", SMALL)
def test_every_network_leaves_as_onnx(make, tmp_path):
    "export_onnx compares the file with the network."
    torch.manual_seed(0)
    assert export_onnx(make(), torch.rand(2, 2, 32, 32), tmp_path / "network.onnx").stat().st_size > 1000


def test_macs_by_hand():
    class Memory(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.LSTM(8, 16, batch_first=True, bidirectional=True)

        def forward(self, rows):
            return self.cell(rows)[0]

    assert count_macs(nn.Conv2d(3, 5, 3, padding=1), (2, 3, 8, 10)) == 2 * 9 * 3 * 5 * 80
    assert count_macs(Memory(), (2, 10, 8)) == 2 * 2 * 10 * 4 * 16 * (8 + 16)
    network = UNet(width=4)
    network.eval()
    running = network.down[0][1].running_mean.clone()
    assert count_macs(network, (1, 1, 64, 64)) * 4 == count_macs(network, (1, 1, 128, 128))
    assert not network.training and torch.equal(network.down[0][1].running_mean, running)
    with pytest.raises(ModelError, match="bad_shape"):
        count_macs(network, (1, 1, 63, 64))


def test_a_folded_unet_overfits_a_tiny_batch():
    torch.manual_seed(0)
    pictures, targets = torch.rand(2, 1, 16, 16), torch.zeros(2, 16, 16, dtype=torch.long)
    targets[:, 4:9, 5:12] = 1  # the edges do not lie between the squares
    pictures[:, :, 4:9, 5:12] += 0.5
    assert fit(UNet(width=8, depth=2, fold=2), pictures, targets, 80) < 0.05


# ---- Double U-Net


def test_double_unet_has_the_size_of_the_paper():
    network = DoubleUNet()
    assert count_parameters(network) == 29_288_886
    assert count_parameters(network.first.encoder) == 20_024_384  # torchvision's vgg19().features
    assert count_macs(network, (1, 3, 256, 256)) == 53_687_205_632
    one_channel = count_parameters(DoubleUNet(in_channels=1))
    assert 29_288_886 - one_channel == 2 * 9 * (64 + 32)  # only the first layers of both encoders read the picture
    assert count_parameters(DoubleUNet(classes=4)) - 29_288_886 == 2 * 2 * (32 + 1)  # only the heads know the classes


@pytest.mark.parametrize("width, parameters", [(1 / 16, 115_806), (0.125, 459_738), (0.25, 1_833_678), (0.5, 7_325_826)])
def test_width_scales_both_halves(width, parameters):
    network = DoubleUNet(1, 2, width)
    assert count_parameters(network) == parameters
    assert network.first.encoder.stages[4][0].out_channels == 512 * width
    assert network.second.encoder.blocks[3][1].weigh[2].out_features == 256 * width


def test_double_unet_answers_twice_in_training_and_once_after():
    torch.manual_seed(0)
    network, pictures = DoubleUNet(1, 3, 1 / 16), torch.rand(2, 1, 32, 48)
    first, final = network.train()(pictures)
    assert first.shape == final.shape == (2, 3, 32, 48)
    assert not first[:, 0].any() and not final[:, 0].any()  # background is the fixed score
    assert network.eval()(pictures).shape == (2, 3, 32, 48)


def test_the_second_half_sees_the_picture_times_the_first_output():
    torch.manual_seed(0)
    network, seen = DoubleUNet(1, 2, 1 / 16).eval(), []
    network.second.encoder.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    pictures = torch.rand(1, 1, 32, 32)
    network(pictures)
    score, _ = network.first(pictures)
    torch.testing.assert_close(seen[0], pictures * score[:, 1:].sigmoid())  # two classes: the paper's sigmoid
    with torch.no_grad():
        network.first.head.weight.zero_()
        network.first.head.bias.fill_(-100)  # all is background: nothing is left to see
    network(pictures)
    assert seen[1].abs().max() < 1e-6


def test_the_second_decoder_reads_both_encoders():
    torch.manual_seed(0)
    network, pictures = DoubleUNet(1, 2, 1 / 16).eval(), torch.rand(1, 1, 32, 32)
    shapes = []
    for block in network.second.decoder.blocks:
        block.register_forward_hook(lambda _, inputs, __: shapes.append(inputs[0].shape[1]))
    network(pictures)
    assert [16 * channels for channels in shapes] == [832, 640, 320, 160]  # the authors' numbers at full width


@pytest.mark.parametrize("odd", [
    torch.rand(2, 1, 40, 32), torch.rand(2, 3, 32, 32), torch.rand(32, 32), torch.zeros(2, 1, 32, 32, dtype=torch.uint8), None,
    torch.rand(2, 1, 0, 0), torch.rand(1, 1, 32, 32),
])
def test_odd_input_of_double_unet(odd):
    with pytest.raises(ModelError, match="bad_shape"):
        DoubleUNet(1, 2, 1 / 32).train()(odd)


@pytest.mark.parametrize("settings", [
    {"classes": 1}, {"width": 0}, {"width": -1.0}, {"width": 5}, {"width": float("nan")}, {"width": "1"}, {"width": True},
    {"in_channels": 0}, {"in_channels": 1.0}, {"classes": None},
])
def test_impossible_settings_of_double_unet(settings):
    with pytest.raises(ModelError, match="bad_option"):
        DoubleUNet(**settings)


def random_vgg19() -> dict[str, torch.Tensor]:
    "A state dict in torchvision's layout."
    places = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
    channels = [3, 64, 64, 128, 128] + [256] * 4 + [512] * 8
    weights = {"classifier.6.bias": torch.zeros(1000)}
    for place, before, after in zip(places, channels, channels[1:]):
        weights[f"features.{place}.weight"] = torch.randn(after, before, 3, 3) * (2 / 9 / before) ** 0.5
        weights[f"features.{place}.bias"] = torch.randn(after) * 0.1
    return weights


def test_weights_of_vgg19_go_where_they_belong():
    torch.manual_seed(0)
    weights, network = random_vgg19(), DoubleUNet()
    load_vgg19(network, weights, normalised=True)
    ours = [part for part in network.first.encoder.modules() if isinstance(part, nn.Conv2d)]
    theirs = [(weights[key], weights[key.replace("weight", "bias")]) for key in weights if key.endswith("weight")]
    assert len(ours) == len(theirs) == 16
    assert all(torch.equal(part.weight, weight) and torch.equal(part.bias, bias) for part, (weight, bias) in zip(ours, theirs))


@pytest.mark.parametrize("spoil", [
    lambda weights: weights.pop("features.12.weight"),
    lambda weights: weights.update({"features.35.bias": weights.pop("features.34.bias")}),
    lambda weights: weights.update({"features.0.weight": torch.zeros(64, 1, 3, 3)}),
    lambda weights: weights.update({"features.5.weight": weights["features.7.weight"]}),
    lambda weights: weights.update({"features.2.bias": "bias"}),
])
def test_other_weights_are_refused_and_change_nothing(spoil):
    weights, network = random_vgg19(), DoubleUNet(1)
    spoil(weights)
    before = {key: values.clone() for key, values in network.state_dict().items()}
    with pytest.raises(ModelError, match="bad_model_file"):
        load_vgg19(network, weights)
    assert all(torch.equal(values, before[key]) for key, values in network.state_dict().items())


def test_weights_fit_the_full_width_only():
    for network in (DoubleUNet(1, 2, 0.5), UNet(), None):
        with pytest.raises(ModelError, match="full width"):
            load_vgg19(network, {})
    with pytest.raises(ModelError, match="bad_model_file"):
        load_vgg19(DoubleUNet(), None)


def test_the_encoder_is_torchvisions_vgg19():
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    theirs, pictures = models.vgg19(weights=None).features.eval(), torch.rand(1, 3, 64, 64)
    network = load_vgg19(DoubleUNet().eval(), {f"features.{key}": values for key, values in theirs.state_dict().items()}, normalised=True)
    with torch.inference_mode():
        for seen, last in zip(network.first.encoder(pictures), (4, 9, 18, 27, 36)):
            torch.testing.assert_close(seen, theirs[:last](pictures))


def test_a_grey_picture_sees_the_same_vgg19_in_any_number_of_channels():
    torch.manual_seed(0)
    weights, grey = random_vgg19(), torch.rand(1, 1, 32, 32)
    seen = []
    for channels in (1, 3, 5):
        network = load_vgg19(DoubleUNet(channels).eval(), weights)
        with torch.inference_mode():
            seen.append(network.first.encoder(grey.expand(-1, channels, -1, -1))[-1])
    torch.testing.assert_close(seen[0], seen[1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(seen[0], seen[2], rtol=1e-3, atol=1e-4)


# ---- networks by name


class Hub(BaseHTTPRequestHandler):
    "A hub with one file; `lie` spoils what it sends, `asked` lists the paths."
    content, lie, asked = b"", "", []

    def do_GET(self):
        self.asked.append(self.path)
        digest = hashlib.sha256(self.content).hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(self.content)}\n".encode()
        body = pointer if "/raw/" in self.path else self.content
        if self.lie == "page":
            body = b"<html><title>Log in</title>"
        elif self.lie == "bits" and "/resolve/" in self.path:
            body = body[:-1] + bytes([body[-1] ^ 1])
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        "Be quiet."


@pytest.fixture
def hub(tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    save_file(timm.create_model("resnet10t").state_dict(), tmp_path / "original.safetensors")
    Hub.content, Hub.lie, Hub.asked = (tmp_path / "original.safetensors").read_bytes(), "", []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("MEDKIT_DATA", "MEDKIT_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MEDKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield Hub
    server.shutdown()
    server.server_close()


def test_trained_weights_are_fetched_once_and_verified(hub, tmp_path, monkeypatch):
    network = named("resnet10t", 1, 2, pretrained=True)
    weights = trained_weights("resnet10t")
    first = "conv1.0.weight"
    torch.testing.assert_close(network.body.state_dict()[first], weights[first].sum(1, keepdim=True))
    torch.testing.assert_close(network.body.state_dict()["layer4.0.conv1.weight"], weights["layer4.0.conv1.weight"])
    assert len(hub.asked) == 2 and all("timm/resnet10t.c3_in1k" in path for path in hub.asked)
    monkeypatch.setenv("MEDKIT_OFFLINE", "1")
    assert torch.equal(trained_weights("resnet10t")[first], weights[first])  # now without the net
    file = tmp_path / "cache/models/resnet10t/model.safetensors"
    assert file.with_name("model.safetensors.sha256").read_text().split() == [hashlib.sha256(hub.content).hexdigest(), file.name]
    file.write_bytes(hub.content[:-1] + bytes([hub.content[-1] ^ 1]))
    with pytest.raises(DataError, match="checksum_mismatch"):
        named("resnet10t", pretrained=True)


def test_a_hub_that_sends_other_bytes_is_not_believed(hub, tmp_path):
    hub.lie = "bits"
    with pytest.raises(DataError, match="checksum_mismatch"):
        trained_weights("resnet10t")
    hub.lie = "page"
    with pytest.raises(DataError, match="states no SHA-256"):
        trained_weights("resnet10t")
    assert not list(tmp_path.rglob("model.safetensors"))


def test_offline_says_where_to_put_the_file(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDKIT_DATA", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(DataError) as caught:
        named("resnet10t", pretrained=True)
    assert caught.value.reason == "offline" and str(tmp_path / "models" / "resnet10t") in caught.value.hint
    place = tmp_path / "models" / "resnet10t"
    place.mkdir(parents=True)
    (place / "model.safetensors").write_bytes(hub.content)
    assert named("resnet10t", pretrained=True).settings["name"] == "timm/resnet10t"


@pytest.mark.parametrize("name, task", [
    ("timm/resnet10t", "classification"), ("timm/resnet10t", "segmentation"), ("timm/convnext_atto", "segmentation"),
    ("torchvision/mobilenet_v3_small", "classification"), ("fastai/xresnet18", "classification"),
])
def test_named_networks_rebuild_and_leave_as_onnx(name, task, tmp_path):
    pytest.importorskip("timm" if name.startswith("timm") else "torchvision")
    torch.manual_seed(0)
    network = named(name, 2, 3, task=task).eval()
    pictures = torch.rand(2, 2, 64, 64)
    assert network(pictures).shape == ((2, 3) if task == "classification" else (2, 3, 64, 64))
    again = type(network)(**network.settings).eval()
    again.load_state_dict(network.state_dict())
    assert torch.equal(network(pictures), again(pictures))
    export_onnx(network, pictures, tmp_path / "network.onnx")


@pytest.mark.parametrize("call", [
    lambda: named("resnet81"), lambda: named(""), lambda: named(None), lambda: named("timm/"), lambda: named("../resnet18"),
    lambda: named("resnet18", task="denoising"), lambda: named("resnet18", 0), lambda: named("resnet18", 1, 1),
    lambda: named("torchvision/resnet18", pretrained=True), lambda: named("torchvision/resnet18", task="segmentation"),
    lambda: named("vit_tiny_patch16_224", task="segmentation"), lambda: NamedUNet(None), lambda: NamedClassifier(3),
    lambda: trained_weights("fastai/xresnet18"), lambda: trained_weights("resnet18.nobody"),
])
def test_odd_names_are_refused_in_words(call, monkeypatch):
    pytest.importorskip("timm")
    pytest.importorskip("torchvision")
    monkeypatch.setenv("MEDKIT_OFFLINE", "1")
    with pytest.raises(MedkitError):
        call()


def test_without_the_packages_the_extra_is_named(monkeypatch):
    for package in ("timm", "torchvision", "torchvision.models", "fastai.vision.models.xresnet"):
        monkeypatch.setitem(__import__("sys").modules, package, None)
    for name in ("timm/resnet18", "torchvision/resnet18", "resnet18"):
        with pytest.raises(MissingExtra, match="networks"):
            named(name)
