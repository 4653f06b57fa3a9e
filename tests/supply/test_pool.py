"""A pool of trained networks, and matching with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import dsdistill
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.engines import DistributionEngine
from dsdistill.engines.discrepancies import Characteristic
from dsdistill.errors import UserError
from dsdistill.networks import build_network
from dsdistill.seeding import generator
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.supply.base import NetworkRequest
from dsdistill.supply.pool import Pool, PoolConfig
from tests.conftest import THREADS
from tests.helpers import expert_files, trajectories
from tests.helpers.engines import loop, toy
from tests.helpers.supply import NETWORK

CPU = torch.device("cpu")
NO_BATCHES: Any = None
"""These networks are trained beforehand."""


def supply(pool: Path, **told: Any) -> Pool:
    task, real = catalog.load(DataConfig(name="digits"), "train")
    request = NetworkRequest(NETWORK, task, CPU, 0, real.fingerprint)
    return PoolConfig(path=str(pool), **told).build(request)


def test_weights_lie_between_the_first_and_the_last(pool: Path) -> None:
    ours, buffer = supply(pool), ExpertFile.open(pool)
    seen = set()
    for iteration in range(6):
        load_trained = ours.draw(iteration, NO_BATCHES).load_trained
        assert load_trained is not None
        stream = generator(0, "pool", iteration)
        expert, share = int(torch.randint(2, (), generator=stream)), float(torch.rand((), generator=stream))
        first, last = (buffer.state(expert, epoch) for epoch in (0, 1))
        expected = {name: share * first[name] + (1 - share) * value for name, value in last.items()}
        torch.testing.assert_close(dict(ours.network.state_dict()), expected)
        load_trained()
        torch.testing.assert_close(dict(ours.network.state_dict()), last)
        seen.add(expert)
    assert seen == {0, 1}
    assert not any(parameter.requires_grad for parameter in ours.network.parameters())


def test_statistics_are_those_of_the_trained_network_and_parameters_alone_lie_between(tmp_path: Path) -> None:
    file = ExpertFile.open(expert_files.written(tmp_path / "pool.h5"))
    request = NetworkRequest(expert_files.NETWORK, expert_files.TASK, CPU, 0, expert_files.FINGERPRINT)
    ours = PoolConfig(path=str(file.path)).build(request)
    for iteration in range(4):
        ours.draw(iteration, NO_BATCHES)
        stream = generator(0, "pool", iteration)
        expert, share = int(torch.randint(2, (), generator=stream)), float(torch.rand((), generator=stream))
        first, last = (file.state(expert, epoch) for epoch in (0, file.epochs[-1]))
        for name, value in ours.network.named_parameters():
            torch.testing.assert_close(value, share * first[name] + (1 - share) * last[name])
        for name, value in ours.network.named_buffers():
            assert torch.equal(value, last[name])


def test_a_perturbed_network_is_the_same_point_with_noise(pool: Path) -> None:
    plain, moved = supply(pool), supply(pool, perturbation=0.25)
    for ours in (plain, moved):
        ours.draw(3, NO_BATCHES)
    before, after = (ours.network.state_dict()["classifier.weight"] for ours in (plain, moved))
    torch.testing.assert_close((after - before).norm(dim=1), 0.25 * before.norm(dim=1))


@pytest.mark.parametrize(
    ("epochs", "message"),
    [
        ((1, 3), "does not hold epoch 0 of its networks .*keep=ends"),
        ((0,), "untrained networks alone.*keep=ends"),
    ],
)
def test_both_ends_are_needed(tmp_path: Path, epochs: tuple[int, ...], message: str) -> None:
    task, real = toy(1, 8)
    file = trajectories.written(tmp_path / "pool.h5", task, real, epochs=epochs)
    request = NetworkRequest(trajectories.NETWORK, task, CPU, 0, real.fingerprint)
    with pytest.raises(UserError, match=message) as caught:
        PoolConfig(path=str(file)).build(request)
    assert "\n" not in str(caught.value)


def test_fewer_networks_may_be_used_but_not_more(pool: Path) -> None:
    ours = supply(pool, networks=1)
    for iteration in range(4):
        load_trained = ours.draw(iteration, NO_BATCHES).load_trained
        assert load_trained is not None
        load_trained()
        torch.testing.assert_close(dict(ours.network.state_dict()), ExpertFile.open(pool).state(0, 1))
    with pytest.raises(UserError, match="holds 2 networks, not 3"):
        supply(pool, networks=3)


def test_points_are_so_many_and_all_come(pool: Path) -> None:
    assert PoolConfig(path=str(pool), points=5).distinct_networks() == 5
    assert PoolConfig(path=str(pool)).distinct_networks() == 0
    ours, endless = supply(pool, points=5), supply(pool)
    weights: dict[int | None, torch.Tensor] = {}
    for iteration in range(30):
        number = ours.draw(iteration, NO_BATCHES).number
        drawn = torch.cat([each.flatten() for each in ours.network.parameters()])
        assert torch.equal(weights.setdefault(number, drawn), drawn)
    assert set(weights) == set(range(5))
    assert len({float(each[0]) for each in weights.values()}) == 5
    assert endless.draw(0, NO_BATCHES).number is None


def test_calibration_is_by_the_trained_weights(pool: Path) -> None:
    """Whatever weights between the first and the last are matched with (NCFM's code)."""
    task, real = catalog.load(DataConfig(name="digits"), "train")
    points = Characteristic(frequencies=8)
    given = {"supply": PoolConfig(path=str(pool)), "discrepancy": points, "calibration": 2.0}
    ours = loop(task, real, NETWORK, ipc=1, engine=DistributionEngine(batch_real=4, **given))  # type: ignore[arg-type]
    engine, synthetic, sources = ours.engine, ours.synthetic, ours.sources
    engine.loss(synthetic, sources)  # matched with weights in between
    sources.update = 1
    (found,) = engine.loss(synthetic, sources).values()
    network = build_network(NETWORK, task.channels, task.size, task.num_classes).double()
    expert = int(torch.randint(2, (), generator=generator(0, "pool", 0)))
    network.load_state_dict(ExpertFile.open(pool).state(expert, 1))
    images = sources.augmentation(synthetic.images.detach(), sources.siamese())
    expected = 2 * F.cross_entropy(network(images), torch.arange(10), reduction="sum")
    torch.testing.assert_close(found.detach(), expected.detach())


def told(tmp_path: Path, pool: Path, name: str, **options: object) -> dsdistill.Summary:
    overrides = [f"engine.supply.path={pool}", THREADS, "engine.discrepancy.frequencies=64"]
    given = {"method": "ncfm", "network": NETWORK, "iterations": 4, "device": "cpu", "ipc": 1} | options
    return dsdistill.distill(tmp_path / f"{name}.h5", dataset="digits", overrides=overrides, **given)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ncfm", "ncfm-minmax"])
def test_ncfm_runs_and_repeats_itself(tmp_path: Path, pool: Path, method: str) -> None:
    images = []
    for name in ("a", "b"):
        summary = told(tmp_path, pool, name, method=method)
        assert summary.iterations == 4
        images.append(dsdistill.load(tmp_path / f"{name}.h5", space="unit").images)
    assert torch.equal(*images)


def test_networks_of_something_else_are_refused(tmp_path: Path, pool: Path) -> None:
    with pytest.raises(UserError, match="trained with network convnet2-w6, and this run has convnet2-w8"):
        told(tmp_path, pool, "a", network="convnet2-w8")
    assert not list(tmp_path.iterdir())
