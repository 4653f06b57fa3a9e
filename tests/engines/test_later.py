"""Matching at one epoch of a network, and classifying at a later one (TGDD), against plain float64 loops."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.distillation.loop import Distiller
from dsdistill.engines import DistributionEngine
from dsdistill.errors import UserError
from dsdistill.networks import build_network
from dsdistill.networks.base import Network
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.supply import FreshConfig, SnapshotsConfig
from dsdistill.supply.cost import Sizes
from tests.helpers.engines import drawn, iterations, loop, loss_and_gradient, toy
from tests.helpers.trajectories import NETWORK, written
from tests.reference.dm import distribution_matching_loss

ALPHA = 0.7
EPOCHS = (0, 1, 2, 5, 6)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("stored") / "experts.h5", *toy(), epochs=EPOCHS)


def tgdd(
    stored: Path,
    class_chunk: int = 0,
    ipc: tuple[int, ...] = (1, 3, 2),
    region: int = 3,
    **told: Any,
) -> Distiller:
    supply = SnapshotsConfig(path=str(stored), region=region)
    engine = DistributionEngine(batch_real=6, supply=supply, classification=ALPHA, classifier="later", **told)
    return loop(*toy(), NETWORK, engine=engine, ipc=ipc, class_chunk=class_chunk)


@functools.cache
def flat(stored: Path) -> dict[tuple[int, int], Tensor]:
    """Return the parameters of every expert at every epoch."""
    file = ExpertFile.open(stored)
    return {key: file.flat(*key) for key in itertools.product(range(3), EPOCHS)}


def stages(distiller: Distiller, stored: Path) -> Iterator[tuple[int, int]]:
    """Yield expert and epoch of what this iteration matches with, and of what it classifies by."""
    network = distiller.sources.supply.network

    def at() -> tuple[int, int]:
        weights = torch.cat([each.detach().flatten() for each in network.parameters()]).float()
        (found,) = (key for key, value in flat(stored).items() if torch.equal(value, weights))
        return found

    later = distiller.sources.drawn().later
    assert later is not None
    matched = at()
    with later():
        classified = at()
    assert at() == matched
    yield matched
    yield classified


def built(stored: Path, expert: int, epoch: int) -> Network:
    network = build_network(NETWORK, 1, 12, 3).double()
    network.load_state_dict(ExpertFile.open(stored).state(expert, epoch))
    return network


def naive(distiller: Distiller, stored: Path, most: int = 0) -> tuple[Tensor, Tensor]:
    """Compute loss and pixel gradient by two networks, class by class, of so many images of each."""
    first, second = (built(stored, *stage) for stage in stages(distiller, stored))
    real, augment = drawn(distiller)
    images = distiller.synthetic.images.detach().clone().requires_grad_()
    parts = list(images.split(distiller.synthetic.counts))
    for label, part in enumerate(parts):
        rows = distiller.sources.synthetic_positions(label, len(part), most)
        parts[label] = part if rows is None else part[rows]
    loss = distribution_matching_loss(first.embed, real, parts, augment)
    for label, (part, siamese) in enumerate(zip(parts, augment, strict=True)):
        loss = loss + ALPHA * F.cross_entropy(second(siamese(part)), torch.full((len(part),), label))
    return loss.detach(), torch.autograd.grad(loss, images)[0]


@pytest.mark.parametrize("most", [0, 2])  # the same part of a class is matched and classified
@pytest.mark.parametrize("iteration", range(6))
def test_loss_and_pixel_gradient_equal_a_naive_loop_over_classes(
    stored: Path, iteration: int, most: int
) -> None:
    distiller = tgdd(stored, batch_synthetic=most)
    distiller.sources.iteration = iteration
    expected, gradient = naive(distiller, stored, most)
    loss, found = loss_and_gradient(distiller)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(found, gradient, rtol=1e-9, atol=1e-12)


def test_taking_classes_in_turns_changes_nothing(stored: Path) -> None:
    whole, turns = (tgdd(stored, chunk) for chunk in (0, 1))
    for one, other in zip(iterations(whole), iterations(turns), strict=True):
        assert one.terms.keys() == {"mean", "classification"}
        torch.testing.assert_close(one.terms, other.terms, rtol=1e-10, atol=0)
    torch.testing.assert_close(whole.synthetic.images, turns.synthetic.images, rtol=1e-10, atol=1e-12)


def test_the_network_that_classifies_is_the_same_one_not_earlier_and_within_the_region(stored: Path) -> None:
    distiller = tgdd(stored, region=3)
    seen = set()
    for iteration in range(100):
        distiller.sources.iteration = iteration
        (expert, matched), (again, classified) = stages(distiller, stored)
        assert expert == again
        seen.add((matched, classified))
    assert seen == {(a, b) for a, b in itertools.product(EPOCHS, EPOCHS) if a <= b < a + 3}


def test_only_snapshots_have_later_networks() -> None:
    with pytest.raises(
        UserError, match=r"'fresh' has no networks of later .* engine\.supply\.kind=snapshots"
    ):
        DistributionEngine(supply=FreshConfig(), classification=1.0, classifier="later")
    with pytest.raises(UserError, match=r"whose weight is 0: set engine\.classification"):
        DistributionEngine(supply=FreshConfig(), classifier="later")


@pytest.mark.parametrize(
    ("epochs", "region", "message"),
    [
        ((4,), 7, r"= 7 epochs after another: train networks with --set keep=all"),
        ((0, 5, 9), 4, r"= 4 epochs after another: set engine.supply.region=5, or train networks with"),
    ],
)
def test_a_file_without_later_epochs_is_refused(
    tmp_path: Path, epochs: tuple[int, ...], region: int, message: str
) -> None:
    file = written(tmp_path / "experts.h5", *toy(), epochs=epochs)
    with pytest.raises(UserError, match=message) as caught:
        tgdd(file, region=region)
    assert "\n" not in str(caught.value)
    tgdd(file, region=1)  # the network that is matched with


def test_the_cost_counts_the_pass_of_the_later_network(stored: Path) -> None:
    with_later, without = tgdd(stored).engine, DistributionEngine(batch_real=6)
    sizes = Sizes(counts=torch.tensor([9, 5, 7]), decoded=torch.tensor([1, 3, 2]))
    assert with_later.cost(sizes).passes - without.cost(sizes).passes == 3 * 6
    few = tgdd(stored, batch_synthetic=2).engine
    assert with_later.cost(sizes).passes - few.cost(sizes).passes == 2 * 3 * 1
