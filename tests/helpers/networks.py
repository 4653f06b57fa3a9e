"""What the tests of networks share."""

from __future__ import annotations

import torch
from torch import Tensor

from dsdistill import networks, seeding


def build(name: str, channels: int = 3, size: int = 32, num_classes: int = 10) -> networks.Network:
    with seeding.forked(0, "networks"):
        return networks.build_network(name, channels, size, num_classes)


def images(channels: int, size: int, count: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, channels, size, size, generator=seeding.generator(0, "images"), dtype=dtype)


def check_contract(network: networks.Network, x: Tensor) -> None:
    network.eval()  # no dropout, and one batch statistic for all the passes below
    with torch.no_grad():
        embedding = network.embed(x)
        logits = network(x)
        maps, traced = network.trace(x)
    assert embedding.shape == (len(x), network.feature_dim)
    assert torch.equal(logits, network.classifier(embedding))
    assert torch.equal(traced, embedding)
    assert maps
    assert all(a.ndim == 4 and len(a) == len(x) for a in maps)
    assert not any(getattr(module, "inplace", False) for module in network.modules())
