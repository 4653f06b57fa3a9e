"""Networks as images are recovered from them: which layers are aligned."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dsdistill.compute.recovery import RecoveryNetwork
from dsdistill.networks.base import Network


class Own(Network):
    """A network whose first parameter is no filter, and whose batch normalisation is of three kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(7))
        self.maps = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU())
        self.blind = nn.BatchNorm2d(5, track_running_stats=False)
        self.vectors = nn.BatchNorm1d(5)
        self.classifier = nn.Linear(5, 2)
        self.feature_dim = 5

    def trace(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        maps = self.blind(self.maps(x))
        return [maps], self.vectors(maps.mean((2, 3)))

    def embed(self, x: Tensor) -> Tensor:
        return self.trace(x)[1]


@pytest.mark.parametrize("groups", [1, 2])
def test_maps_with_running_statistics_are_aligned_and_all_else_is_as_it_was(groups: int) -> None:
    torch.manual_seed(0)
    network = Own().eval().requires_grad_(False)
    ours = RecoveryNetwork(network, 3, 6)
    assert ours.layers == 1
    images = torch.randn(4, 3, 6, 6)
    said = ours(images, groups)
    torch.testing.assert_close(said.logits, network(images))
    parts = network.maps[0](images).unflatten(0, (groups, -1))
    variance, mean = torch.var_mean(parts, (1, 3, 4), correction=0)
    expected = (variance - 1).norm(dim=1) + mean.norm(dim=1)
    torch.testing.assert_close(said.alignment, expected[None])
