"""Networks of torchvision at both sizes: their weights, what they compute, and where they halve an image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from dsdistill import networks
from tests.helpers.networks import build, images

models = pytest.importorskip("torchvision.models")

MODELS = {
    "resnet50-batch": "resnet50",
    "mobilenetv2": "mobilenet_v2",
    "shufflenetv2": "shufflenet_v2_x0_5",
    "shufflenetv2-x1.5": "shufflenet_v2_x1_5",
    "efficientnet-b0": "efficientnet_b0",
    "densenet121": "densenet121",
}
PUBLISHED = {  # parameters of torchvision's, with 1000 classes
    "resnet50-batch": (25_557_032, 2048),
    "mobilenetv2": (3_504_872, 1280),
    "shufflenetv2": (1_366_792, 1024),
    "shufflenetv2-x1": (2_278_604, 1024),
    "shufflenetv2-x1.5": (3_503_624, 1024),
    "shufflenetv2-x2": (7_393_996, 2048),
    "efficientnet-b0": (5_288_548, 1280),
    "densenet121": (7_978_856, 1024),
}
SMALLER_STEM = {"resnet50-batch": 64 * 3 * (7**2 - 3**2), "densenet121": 64 * 3 * (7**2 - 3**2)}


def parameters(name: str, size: int) -> int:
    with torch.device("meta"):
        network = networks.build_network(name, 3, size, 1000)
    return sum(each.numel() for each in network.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    """Small images change the stem, fewer classes the last layer, one channel the stem."""
    count, features = PUBLISHED[name]
    small = count - SMALLER_STEM.get(name, 0)
    assert (parameters(name, 65), parameters(name, 64)) == (count, small)
    with torch.device("meta"):
        network = networks.build_network(name, 1, 32, 10)
    stem = next(each for each in network.modules() if type(each) is nn.Conv2d)
    found = sum(each.numel() for each in network.parameters())
    assert found == small - 990 * (features + 1) - 2 * 9 * stem.out_channels


def small_form(name: str, model: Any) -> None:
    """Turn a model of torchvision into its form for small images, as each paper's code does."""
    if name == "mobilenetv2":
        model.features[0][0].stride = model.features[2].conv[1][0].stride = (1, 1)
    elif name.startswith("shufflenetv2"):
        model.conv1[0].stride, model.maxpool = (1, 1), nn.Identity()
    elif name == "efficientnet-b0":
        model.features[0][0].stride = (1, 1)
    elif name == "densenet121":
        model.features.conv0 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        model.features.pool0 = nn.Identity()
    else:
        model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()


@pytest.mark.slow
@pytest.mark.parametrize("size", [32, 96])
@pytest.mark.parametrize("name", MODELS)
def test_the_network_agrees_with_torchvision(name: str, size: int) -> None:
    reference = models.get_model(MODELS[name], weights=None, num_classes=10)
    if size == 32:
        small_form(name, reference)
    network = build(name, 3, size)
    weights, own = list(reference.state_dict().values()), network.state_dict()
    network.load_state_dict(dict(zip(own, weights, strict=True)))
    x = images(3, size)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(x), reference.eval()(x))
        if name != "efficientnet-b0":  # whose stochastic depth draws
            for module in (*network.modules(), *reference.modules()):
                module.p = 0.0  # of dropout
            torch.testing.assert_close(network.train()(x), reference.train()(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("resnet50-batch-w4", {28: [28, 28, 14, 7, 4], 64: [64, 64, 32, 16, 8], 96: [48, 24, 12, 6, 3]}),
        ("mobilenetv2-x0.25", {28: [28, 14, 7, 4], 32: [32, 16, 8, 4], 96: [48, 24, 12, 6, 3]}),
        ("shufflenetv2-x0.25", {28: [28, 14, 7, 4], 64: [64, 32, 16, 8], 96: [48, 12, 6, 3]}),
        ("efficientnet-b0-x0.25", {28: [28, 14, 7, 4, 2], 64: [64, 32, 16, 8, 4], 96: [48, 24, 12, 6, 3]}),
        ("densenet121-x0.125", {28: [28, 28, 14, 7, 3], 32: [32, 32, 16, 8, 4], 96: [48, 24, 12, 6, 3]}),
    ],
)
def test_images_of_more_than_64_pixels_are_halved_more_often(
    name: str, sides: dict[int, list[int]], channels: int
) -> None:
    for size, expected in sides.items():
        network = build(name, channels, size).eval()
        with torch.no_grad():
            maps, embedding = network.trace(images(channels, size))
        assert [each.shape[-1] for each in maps] == expected
        assert embedding.shape == (2, network.feature_dim)


@pytest.mark.parametrize("name", ["mobilenetv2", "efficientnet-b0", "densenet121", "shufflenetv2"])
def test_a_factor_narrows_every_layer(name: str) -> None:
    counts = [parameters(f"{name}-x{factor}", 32) for factor in ("0.1", "0.25", "0.50", "1", "1.5")]
    assert counts == sorted(set(counts))
    assert parameters(name, 32) == counts[2 if name == "shufflenetv2" else 3]


@pytest.mark.parametrize("name", ["mobilenetv2-x0.25", "efficientnet-b0-x0.25", "densenet121-x0.125"])
def test_the_replaced_stem_is_drawn_as_torchvision_draws_it(name: str) -> None:
    """Its deviation is that of He et al., by inputs for DenseNet and by outputs for the others."""
    for channels in (1, 3):
        stem = next(each for each in build(name, channels).modules() if type(each) is nn.Conv2d)
        fan = 9 * (channels if name.startswith("densenet") else stem.out_channels)
        expected = (2 / fan) ** 0.5
        assert stem.weight.std().item() == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize("name", ["mobilenetv2-x0.25", "shufflenetv2-x0.25", "efficientnet-b0-x0.25"])
def test_gradients_of_gradients_reach_the_pixels(name: str) -> None:
    network = build(name, 3, 16, 3).eval()
    x = images(3, 16).requires_grad_()
    loss = nn.functional.cross_entropy(network(x), torch.tensor([0, 1]))
    (gradient,) = torch.autograd.grad(loss, [next(network.parameters())], create_graph=True)
    (pixels,) = torch.autograd.grad(gradient.square().sum(), x)
    assert pixels.isfinite().all()
    assert pixels.abs().max() > 0
