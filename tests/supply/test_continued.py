"""Stored networks whose training goes on: where they start, and when another is drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dsdistill.errors import UserError
from dsdistill.seeding import generator
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.supply.continued import ContinuedConfig
from dsdistill.supply.perturbation import perturb
from tests.helpers.engines import toy
from tests.helpers.gradients import loop
from tests.helpers.trajectories import LAST, NETWORK, written

PERIOD = 2


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("stored") / "experts.h5", *toy(1, 8))


def weights(parameters: object) -> Tensor:
    return torch.cat([each.detach().flatten() for each in parameters])  # type: ignore[attr-defined]


@pytest.mark.parametrize("perturbation", [0.0, 0.2])
def test_a_network_starts_as_a_stored_one_ended_and_is_trained_until_another_is_drawn(
    stored: Path, perturbation: float
) -> None:
    told = ContinuedConfig(
        path=str(stored),
        perturbation=perturbation,
        on="real",
        samples=8,
        batch_size=4,
        updates_per_network=PERIOD,
    )
    distiller, file = loop(NETWORK, size=8, supply=told), ExpertFile.open(stored)
    network, found = distiller.sources.supply.network, []
    for iteration in range(3 * PERIOD):
        distiller.sources.iteration = iteration
        distiller.sources.drawn()
        found.append(weights(network.parameters()))
        distiller.sources.advance(distiller.synthetic)
    for number in range(3):
        stream = generator(0, "continued", number)
        network.load_state_dict(file.state(int(torch.randint(3, (), generator=stream)), LAST))
        perturb(network, perturbation, 0, number)
        first = weights(network.parameters())
        assert torch.equal(found[PERIOD * number], first)
        assert not torch.equal(found[PERIOD * number + 1], first)


def test_both_networks_that_are_held_count(stored: Path) -> None:
    supply = loop(NETWORK, size=8, supply=ContinuedConfig(path=str(stored), momentum=0.0)).sources.supply
    numbers = sum(each.numel() for each in supply.network.parameters())
    assert supply.network_bytes(10) == 8 * numbers + 4 * numbers  # one in float64 here, and the stored ones'


def test_it_needs_a_file(stored: Path) -> None:
    with pytest.raises(UserError, match="none are named: pass --experts auto"):
        loop(NETWORK, size=8, supply=ContinuedConfig())
    with pytest.raises(UserError, match="holds 3 networks, not 4"):
        loop(NETWORK, size=8, supply=ContinuedConfig(path=str(stored), networks=4))
