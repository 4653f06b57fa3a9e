"""The gradient penalty, against images taken one by one and against finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dsdistill.objectives.smoothness import gradient_penalty
from dsdistill.seeding import generator
from tests.helpers.networks import build, images


def naive(network: nn.Module, batch: Tensor) -> float:
    """Image by image, logit by logit, position by position."""
    terms = []
    for image in batch:
        pixels = image[None].clone().requires_grad_()
        slope = torch.zeros_like(image)
        for logit in network(pixels)[0]:
            slope += torch.autograd.grad(logit, pixels, retain_graph=True)[0][0]
        for row in range(image.shape[1]):
            for column in range(image.shape[2]):
                length = sum(float(slope[channel, row, column]) ** 2 for channel in range(len(image))) ** 0.5
                terms.append((length - 1) ** 2)
    return sum(terms) / len(terms)


@pytest.mark.parametrize("channels", [1, 3])
def test_against_images_one_by_one(channels: int) -> None:
    network = build("convnet2-w6", channels, 8, 5).double()
    batch = images(channels, 8, 3, torch.float64)
    assert float(gradient_penalty(network, batch).detach()) == pytest.approx(naive(network, batch), rel=1e-12)
    assert not batch.requires_grad


def test_its_slope_against_finite_differences() -> None:
    network = build("convnet2-w6-swish", 3, 8, 5).double()
    batch = images(3, 8, 2, torch.float64)
    weights = list(network.parameters())
    slopes = torch.autograd.grad(gradient_penalty(network, batch), weights, allow_unused=True)
    for which, (weight, slope) in enumerate(zip(weights, slopes, strict=True)):
        if slope is None:  # the bias of the classifier, which no input gradient depends on
            assert weight is network.classifier.bias
            continue
        direction = torch.randn(weight.shape, generator=generator(0, "way", which), dtype=torch.float64)
        ends = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weight += step * direction
            ends.append(float(gradient_penalty(network, batch).detach()))
            with torch.no_grad():
                weight -= step * direction
        expected = (ends[0] - ends[1]) / 2e-5
        assert float((slope * direction).sum()) == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_of_a_linear_network_by_hand() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(8, 3, bias=False)).double()
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].weight[:, 0] = 1.0  # channel 0 of the first pixel: 3 logits
        network[1].weight[0, 4] = 4.0  # channel 1 of it: ‖(3, 4)‖ = 5
    batch = images(2, 2, 7, torch.float64)
    assert float(gradient_penalty(network, batch).detach()) == pytest.approx((16 + 1 + 1 + 1) / 4)


def test_its_slope_is_finite_where_the_input_gradient_is_zero() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(8, 3)).double()
    nn.init.zeros_(network[1].weight)
    value = gradient_penalty(network, images(2, 2, 7, torch.float64))
    value.backward()
    assert float(value.detach()) == 1
    assert not network[1].weight.grad.any()
