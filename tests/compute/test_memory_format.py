"""The order of weights in memory: only where it is faster, and without a change of values."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from dsdistill.compute.memory_format import in_fast_order
from dsdistill.networks import add_network, build_network

CPU = torch.device("cpu")


def _innermost(network: nn.Module) -> bool:
    weights = [each for each in network.parameters() if each.dim() == 4 and each.shape[1] > 1]
    return all(each.is_contiguous(memory_format=torch.channels_last) for each in weights)


@pytest.mark.parametrize(
    ("name", "innermost"),
    [
        ("convnet2-w8-batch", True),
        ("resnet10-batch-w16", True),
        ("resnet10-batch-w8", False),  # torch cannot differentiate it so
        ("convnet2-w8", False),
    ],
)
def test_channels_lie_innermost_with_batch_normalisation_alone(name: str, innermost: bool) -> None:
    network = in_fast_order(build_network(name, 3, 8, 4), CPU)

    assert _innermost(network) == innermost


def test_gradients_are_those_of_the_plain_order() -> None:
    plain = build_network("resnet10-batch-w16", 3, 8, 4).double()
    fast = in_fast_order(copy.deepcopy(plain), CPU)
    images = torch.randn(5, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    for network in (plain, fast):
        network(images).square().sum().backward()

    for ours, theirs in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-9)


class Own(nn.Module):
    def __init__(self, channels: int, size: int, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


def test_networks_of_users_stay_as_they_are() -> None:
    network = in_fast_order(build_network(add_network(Own), 3, 8, 4), CPU)

    assert not _innermost(network)
