"""Snapshots of trained networks: drawn by the seed, over networks and epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.errors import UserError
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.supply.base import NetworkRequest
from dsdistill.supply.snapshots import Snapshots, SnapshotsConfig
from tests.helpers.supply import NETWORK

NO_BATCHES: Any = None
"""These networks are trained beforehand."""


def snapshots(pool: Path | str, seed: int = 0, **options: Any) -> Snapshots:
    task, real = catalog.load(DataConfig(name="digits"), "train")
    request = NetworkRequest(NETWORK, task, torch.device("cpu"), seed, real.fingerprint)
    return SnapshotsConfig(path=str(pool), **options).build(request)


def test_every_draw_is_a_stored_state_and_all_come(pool: Path) -> None:
    supply, file = snapshots(pool), ExpertFile.open(pool)
    stored = {(network, epoch): file.flat(network, epoch) for network in (0, 1) for epoch in file.epochs}
    drawn = []
    for iteration in range(24):
        network = supply.draw(iteration, NO_BATCHES)
        load_trained = network.load_trained
        weights = file.metadata.layout.pack(supply.network.state_dict())[0]
        (state,) = (key for key, value in stored.items() if torch.equal(value, weights))
        drawn.append(state)
        assert network.number == list(stored).index(state)
        assert load_trained is not None
        load_trained()
        trained = file.metadata.layout.pack(supply.network.state_dict())[0]
        assert torch.equal(trained, stored[state[0], file.epochs[-1]])
    assert set(drawn) == set(stored)
    assert SnapshotsConfig(path=str(pool)).distinct_networks() == len(stored)
    assert SnapshotsConfig(path=str(pool), networks=1).distinct_networks() == len(file.epochs)
    assert not any(parameter.requires_grad for parameter in supply.network.parameters())


def test_a_perturbed_snapshot_is_the_same_one_with_noise(pool: Path) -> None:
    plain, moved = snapshots(pool), snapshots(pool, perturbation=0.25)
    for supply in (plain, moved):
        supply.draw(3, NO_BATCHES)
    before, after = (supply.network.state_dict()["classifier.weight"] for supply in (plain, moved))
    torch.testing.assert_close((after - before).norm(dim=1), 0.25 * before.norm(dim=1))


def test_draws_follow_from_seed_and_iteration(pool: Path) -> None:
    def weights(supply: Snapshots, iteration: int) -> torch.Tensor:
        supply.draw(iteration, NO_BATCHES)
        return torch.cat([parameter.detach().flatten() for parameter in supply.network.parameters()])

    def later(supply: Snapshots, iteration: int) -> torch.Tensor:
        entered = supply.draw(iteration, NO_BATCHES).later
        assert entered is not None
        with entered():
            return torch.cat([parameter.detach().flatten() for parameter in supply.network.parameters()])

    one, again, other = snapshots(pool), snapshots(pool), snapshots(pool, seed=1)
    assert torch.equal(weights(one, 5), weights(again, 5))
    assert torch.equal(later(one, 6), later(again, 6))
    assert any(not torch.equal(later(one, turn), weights(one, turn)) for turn in range(8))
    assert any(not torch.equal(weights(one, turn), weights(other, turn)) for turn in range(8))


def test_a_snapshot_needs_a_file(pool: Path) -> None:
    with pytest.raises(UserError, match="none are named: pass --experts auto"):
        snapshots("")
    with pytest.raises(UserError, match="holds 2 networks, not 3"):
        snapshots(pool, networks=3)
