"""The estimate of memory, against sizes counted by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from dsdistill.config.ipc import Ipc
from dsdistill.data import catalog
from dsdistill.data.preprocess import Standardise
from dsdistill.data.real import Task
from dsdistill.distillation import assembly
from dsdistill.distillation import config as configs
from dsdistill.distillation.memory import Estimate, estimate, maps
from dsdistill.engines.base import Engine
from dsdistill.networks import build_network
from dsdistill.runtime.device import resolve_device
from dsdistill.seeding import forked
from dsdistill.supply.cost import Cost, Sizes
from dsdistill.synthetic.set import SyntheticSet
from tests.conftest import THREADS


def test_maps_of_a_convnet_counted_by_hand() -> None:
    with forked(0, "test"):
        network = build_network("convnet2-w8", 1, 8, 10)
    kept, largest = maps(network, torch.ones(1, 1, 8, 8))
    blocks = (3 * 8 * 64 + 8 * 16) + (3 * 8 * 16 + 8 * 4)  # convolution, norm, ReLU; then the pooled map
    assert kept - blocks in (0, 32)  # and the flat one where flattening is a module
    assert largest == 8 * 64


def of(*overrides: str, half: bool = False, ipc: Ipc = 2) -> Estimate:
    told = configs.resolve({"data": {"name": "digits"}, "ipc": ipc, "network": "convnet2-w8"}, overrides)
    where = resolve_device("cpu")
    task, real = catalog.load(told.data, "train")
    return estimate(assembly.assemble(told, task, real, where, print), real, half)


def test_an_estimate_follows_what_it_depends_on() -> None:
    base = of()
    assert base.total == sum(dataclasses.astuple(base))
    assert base.synthetic == 3 * 20 * 64 * 4
    assert base.real >= 1347 * 64
    assert of(ipc=4).graph == 2 * base.graph
    assert of("compute.class_chunk=5").graph == base.graph // 2
    assert of(half=True).graph == base.graph // 2
    uneven = (1, 5, *(2,) * 8)
    assert of(ipc=uneven).synthetic == 3 * 22 * 64 * 4
    assert of(ipc=uneven).graph == base.graph * 22 // 20
    assert of("compute.class_chunk=5", ipc=uneven).graph == base.graph * 13 // 20  # at most
    assert of("compute.chunk=10").frozen * 10 == of("compute.chunk=100").frozen


def network_bytes(name: str = "convnet2-w8") -> int:
    with forked(0, "test"):
        network = build_network(name, 1, 8, 10)
    return 4 * sum(parameter.numel() for parameter in network.parameters())


def test_networks_that_are_held_count() -> None:
    one = network_bytes()
    assert of().networks == one
    queue = ("method=idm", *(f"engine.supply.{told}" for told in ("size=7", "start=3", "push_every=30")))
    # Those let in at the start and every 30 iterations, with momentum; one in training, and its gradient.
    assert of(*queue, "iterations=60").networks == (5 * 2 + 2) * one
    assert of(*queue, "iterations=61").networks == (6 * 2 + 2) * one
    assert of(*queue, "iterations=9000").networks == (7 * 2 + 2) * one
    assert of(*queue, "iterations=9000", "engine.supply.momentum=0").networks == (7 + 2) * one


@pytest.mark.slow
def test_a_pool_counts_both_ends_of_its_networks(tmp_path: Path) -> None:
    pool = tmp_path / "pool.h5"
    dsdistill.train_experts(
        pool,
        dataset="digits",
        recipe="ncfm",
        network="convnet2-w8",
        count=2,
        epochs=1,
        device="cpu",
        overrides=["compute.compile=false", THREADS],
    )
    told = ("method=ncfm", f"engine.supply.path={pool}")
    assert of(*told).networks == (2 * 2 + 1) * network_bytes()
    assert of(*told, "engine.supply.networks=1").networks == (2 + 1) * network_bytes()


@pytest.mark.parametrize(("ipc", "classes", "held"), [(10, 10, 10), (40, 10, 2), (200, 10, 1), (1, 100, 100)])
def test_graphs_of_many_images_are_not_held_at_once(ipc: int, classes: int, held: int) -> None:
    """Of 28 pixels a CPU holds at most 128 images, and the same number of classes each time."""
    preprocess = Standardise.of((0.5,), (0.5,))
    task = Task("toy", tuple(map(str, range(classes))), 1, 28, preprocess, mirror=True)
    synthetic = SyntheticSet(torch.zeros(classes * ipc, 1, 28, 28), (ipc,) * classes, "network", preprocess)
    assert assembly._classes_at_once(synthetic, task, torch.device("cpu")) == held


def engine_of(method: str, *overrides: str) -> Engine[Any]:
    return configs.resolve({"data": {"name": "fashion-mnist"}, "ipc": 6, "method": method}, overrides).engine


def test_mirror_images_count_wherever_they_are_seen() -> None:
    """DM matches all twice; DSA draws 3 of a class and trains on 16 at a time; MTT sees 20 either way."""
    one, two = (
        Sizes(
            counts=torch.full((10,), 50),
            decoded=torch.full((10,), 6),
            copies=copies,
            classes=5,
            chunk=100,
            value_bytes=2,
        )
        for copies in (1, 2)
    )

    def costs(engine: Engine[Any]) -> list[Cost]:
        return [engine.cost(sizes) for sizes in (one, two)]

    dm = costs(engine_of("dm", "engine.batch_real=8"))
    assert [cost.passes for cost in dm] == [80 + 3 * 60, 80 + 3 * 120]
    assert [cost.graph for cost in dm] == [30 * 2, 60 * 2]

    options = ("batch_real=8", "batch_synthetic=3", "supply.epochs=2", "supply.batch_size=16")
    dsa = costs(engine_of("dsa", *(f"engine.{each}" for each in options)))
    assert [cost.passes for cost in dsa] == [3 * (80 + 2 * 60) + 8 * 30, 3 * (80 + 2 * 120) + 8 * 60]
    assert [cost.graph for cost in dsa] == [max(2 * 3 * 4, 8 * 2, 16 * 2), max(2 * 6 * 4, 8 * 2, 32 * 2)]

    all_at_once = costs(engine_of("dsa", "engine.batch_real=8", "engine.supply.epochs=9"))  # batches of 256
    assert [cost.graph for cost in all_at_once] == [60 * 2, 120 * 2]

    mtt = costs(
        engine_of("mtt", "engine.steps=5", "engine.batch_synthetic=20", "engine.supply.path=experts.h5")
    )
    assert [cost.passes for cost in mtt] == [5 * 20 * 11] * 2
    assert [cost.graph for cost in mtt] == [2 * 4 * 20] * 2
