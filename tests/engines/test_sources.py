"""What engines draw from: real batches and networks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dsdistill.augment.dsa import Augmentation
from dsdistill.compute.embedder import Embedder
from dsdistill.compute.learner import Learner
from dsdistill.data.batches import RealBatches
from dsdistill.data.preprocess import Standardise
from dsdistill.data.real import RealDataset, Task
from dsdistill.engines.sources import Sources
from dsdistill.networks.base import Network
from dsdistill.seeding import generator
from dsdistill.supply.base import NetworkRequest
from dsdistill.supply.fresh import Fresh

CPU = torch.device("cpu")
TASK = Task("toy", ("a", "b"), 1, 8, Standardise.of((0.4,), (0.2,)), mirror=True)


def sources(network: str) -> Sources:
    pixels = torch.randint(0, 256, (20, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    real = RealDataset("toy", "train", pixels, torch.arange(20) % 2, TASK.classes)
    supply = Fresh(NetworkRequest(network, TASK, CPU, 0, real.fingerprint))
    embedder, learner = Embedder(supply.network, 8, CPU, chunk=2), Learner(supply.network, 8, CPU)
    return Sources(RealBatches.of(TASK, real, 0, CPU), supply, embedder, learner, Augmentation())


@pytest.mark.parametrize(("network", "parts"), [("convnet2-w8", [6, 6, 4]), ("convnet2-w8-batch", [16])])
def test_parts_are_bounded_unless_batch_statistics_need_the_whole(
    monkeypatch: pytest.MonkeyPatch, network: str, parts: list[int]
) -> None:
    whole = sources(network)
    ((images, owners),) = whole.real(8, whole.siamese())
    monkeypatch.setattr(Sources, "part_bytes", 6 * 8 * 8 * 4)
    split = list(whole.real(8, whole.siamese()))
    assert [len(part) for part, _ in split] == parts
    torch.testing.assert_close(torch.cat([part for part, _ in split]), images)
    assert torch.equal(torch.cat([owner for _, owner in split]), owners)


def test_every_iteration_and_turn_has_an_augmentation_of_its_own() -> None:
    ours = sources("convnet2-w8")
    ours.seed, ours.classes = 3, torch.tensor([1])
    drawn = set()
    for ours.iteration, ours.update, stream in (
        (0, 0, generator(3, "augment", 0)),
        (1, 0, generator(3, "augment", 1)),
        (12, 0, generator(3, "augment", 12)),
        (1, 1, generator(3, "augment", 1, 1)),
        (1, 2, generator(3, "augment", 1, 2)),
    ):
        rows = ours.siamese()
        expected = ours.augmentation.draw(2, 8, stream, shared_operator=False)[ours.classes]
        assert rows.size == expected.size
        for name, column in vars(rows).items():
            assert name == "size" or torch.equal(column, getattr(expected, name))
        drawn.add(float(rows.brightness))
    assert len(drawn) == 5


class Noisy(Network):
    """Batch norm, then a dropout that would make two passes differ."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.classifier = nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Linear(64, 2)
        self.feature_dim = 64

    def embed(self, x: Tensor) -> Tensor:
        return self.drop(self.norm(x)).flatten(1)

    def trace(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        return [], self.embed(x)


def test_frozen_networks_use_batch_statistics_and_no_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NetworkRequest, "build", lambda self: Noisy())
    supply = Fresh(NetworkRequest("noisy", TASK, CPU, 0, ""))
    supply.initialise(0)
    x = 3 + 2 * torch.randn(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    features = supply.network.embed(x)
    assert torch.equal(features, supply.network.embed(x))
    assert abs(float(features.mean())) < 1e-5
    assert abs(float(features.std()) - 1) < 1e-2
