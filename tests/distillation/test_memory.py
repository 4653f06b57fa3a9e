"""The estimate of memory, against sizes counted by hand and the tensors of iterations."""

from __future__ import annotations

import copy
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
from dsdistill.distillation.loop import Distiller
from dsdistill.distillation.memory import Estimate, Line, Passes, estimate
from dsdistill.engines import DistributionEngine
from dsdistill.engines.base import Engine
from dsdistill.networks import build_network
from dsdistill.runtime import compiler
from dsdistill.runtime.allocations import peak_of
from dsdistill.runtime.device import resolve_device
from dsdistill.seeding import forked
from dsdistill.supply.cost import Cost, Sizes
from dsdistill.synthetic.set import SyntheticSet
from tests.conftest import THREADS
from tests.helpers.engines import toy
from tests.helpers.trajectories import written


def test_what_a_convnet_keeps_is_counted_by_hand() -> None:
    """Of a block: the convolution's map, its moments by channel, ReLU's map and the pooled one."""
    passes = Passes(run())
    kept, peak = passes.pixels()
    blocks = (2 * 8 * 64 + 2 * 8 + 8 * 16) + (2 * 8 * 16 + 2 * 8 + 8 * 4)
    assert kept.each == 4 * blocks
    assert passes.frozen().each == 4 * (2 * 8 * 64 + 2 * 8)  # a convolution's map, and the normalised one
    assert peak.each > kept.each
    assert passes.training().each > kept.each
    assert passes.dual(False).each > 2 * kept.each
    assert passes.feature_dim() == 8 * 4


def test_a_compiled_dual_pass_keeps_no_map_of_the_first_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second block's maps are a quarter of the first's, and the pooled ones and their tangents stay."""
    monkeypatch.setattr(compiler, "why_unavailable", lambda _: None)
    compiled, eager = run("compute.compile=true"), run()
    assert 3 * Passes(compiled).dual(True).each < Passes(eager).dual(True).each
    assert estimate(compiled, compiled.sources.data).allocator > estimate(eager, eager.sources.data).allocator


def test_a_line_goes_through_two_points() -> None:
    line = Line.through(two=10, four=14)
    assert [line.at(images) for images in (0, 2, 4, 100)] == [0, 10, 14, 206]


def test_an_estimate_leaves_the_network_as_it_was() -> None:
    distiller = run("engine.supply.kind=fresh", network="convnet2-w8-batch")
    before = copy.deepcopy(distiller.sources.supply.network.state_dict())
    estimate(distiller, distiller.sources.data)
    for name, value in distiller.sources.supply.network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert distiller.synthetic.images.grad is None
    assert all(parameter.grad is None for parameter in distiller.sources.supply.network.parameters())


def run(*overrides: str, ipc: Ipc = 2, network: str = "convnet2-w8") -> Distiller:
    plain = ("compute.compile=false", "compute.precision=fp32", *overrides)
    told = configs.resolve({"data": {"name": "digits"}, "ipc": ipc, "network": network}, plain)
    task, real = catalog.load(told.data, "train")
    return assembly.assemble(told, task, real, resolve_device("cpu"), print)


def of(*overrides: str, ipc: Ipc = 2) -> Estimate:
    distiller = run(*overrides, ipc=ipc)
    return estimate(distiller, distiller.sources.data)


def test_an_estimate_follows_what_it_depends_on() -> None:
    base = of()
    assert base.total == sum(dataclasses.astuple(base))
    assert base.synthetic == 3 * 20 * 64 * 4  # pixels, gradient and momentum
    assert of("optimiser.momentum=0").synthetic == 2 * 20 * 64 * 4
    for kind in ("adamw", "lamb"):  # with two averages of the gradient
        assert of(f"optimiser.kind={kind}").synthetic == 4 * 20 * 64 * 4
    assert base.real == 1347 * 64
    assert base.allocator > 0
    assert base.tensors == base.total - base.allocator
    many = [of(ipc=ipc).graph for ipc in (25, 50)]
    assert many[1] == pytest.approx(2 * many[0], rel=0.05)
    assert of("compute.class_chunk=5", ipc=50).graph == pytest.approx(many[0], rel=0.05)
    uneven = (5, *(50,) * 9)
    assert of(ipc=uneven).synthetic == 3 * 455 * 64 * 4
    assert of(ipc=uneven).graph == pytest.approx(many[1] * 455 / 500, rel=0.05)
    assert of("compute.class_chunk=5", ipc=uneven).graph == pytest.approx(many[0], rel=0.05)  # at most
    assert of("compute.precision=bf16", ipc=50).graph < 0.9 * many[1]
    assert of("compute.chunk=10").frozen < of("compute.chunk=1000").frozen


# Against the tensors of an iteration ------------------------------------------------------------------------


COUNTED = [
    ("dm", 1, ()),
    ("dm", 10, ()),
    ("mmd", 10, ("engine.batch_real=120",)),
    ("datadam", 3, ()),
    ("datadam-paper", 10, ()),
    ("fyi-dsa", 10, ("engine.supply.updates_per_network=4", "engine.supply.epochs=1")),
    ("idc", 3, ("engine.supply.samples=64",)),
    ("dm", 3, ("engine.real_batches.kind=kmeans", "engine.batch_real=40")),
    ("dream", 3, ("engine.supply.samples=64", "engine.batch_real=40", "engine.real_batches.candidates=100")),
    ("idm", 3, ("engine.supply.steps=1",)),
    ("ncfm", 3, ("experts", "engine.discrepancy.frequencies=2048")),
    ("ncfm-minmax", 1, ("experts", "engine.discrepancy.frequencies=2048")),
    ("frepo", 1, ("network=wideconvnet2-w16-inputbatch", "engine.batch_real=200", "engine.supply.size=2")),
    ("frepo", 20, ("network=wideconvnet2-w16-inputbatch", "engine.batch_real=400", "engine.supply.size=2")),
    ("frepo-flip", 40, ("network=wideconvnet2-w16-batch", "synthetic.flip=force", "engine.batch_real=64")),
    ("krr-st", 20, ("network=wideconvnet2-w16-batch", "experts", "engine.supply.size=2")),
    ("mtt", 10, ("experts", "engine.steps=4", "engine.start.most=2")),
    ("tesla", 1, ("experts", "engine.steps=8", "engine.start.most=2")),
    ("ast", 10, ("experts", "engine.steps=4", "engine.start.most=2", "engine.expert_epochs=2")),
]


@pytest.mark.parametrize(("method", "ipc", "overrides"), COUNTED, ids=lambda each: str(each)[:16])
def test_an_estimate_is_right_within_a_fifth(
    method: str, ipc: int, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    """Count the tensors that an iteration makes, and those that are there before it."""
    task, real = toy(channels=3, size=16, counts=(120,) * 4)
    told = ["compute.compile=false", "compute.precision=fp32", "compute.chunk=32"]
    for override in overrides:
        experts = f"engine.supply.path={tmp_path / 'experts.h5'}"
        told.append(experts if override == "experts" else override)
    written(tmp_path / "experts.h5", task, real, "convnet2-w16")
    options = {"method": method, "ipc": ipc, "network": "convnet2-w16", "iterations": 2}
    plan = configs.resolve({**options, "data": {"name": "digits"}}, told)
    plan = dataclasses.replace(plan, init="real")
    distiller = assembly.assemble(plan, task, real, resolve_device("cpu"), print)
    expected = estimate(distiller, real)
    before = sum(each.nbytes for each in distiller.synthetic.parameters())
    before += distiller.sources.supply.network_bytes(0)
    first = peak_of(distiller.step)  # it makes what the optimisers remember
    found = before + max(first, distiller.optimiser_bytes() + peak_of(distiller.step))
    assert 0.8 * found < expected.tensors - expected.real < 1.2 * found


def test_features_that_are_clustered_count() -> None:
    """Six copies of 140 rows of 32 features are more than any pass of an image."""
    told = ("method=idc-i", "engine.batch_real=4", "engine.supply.samples=0", "compute.chunk=1")
    clustered = (*told, "engine.real_batches.kind=kmeans")
    pixels = 140 * 64 * 4
    expected = pixels + 6 * 140 * 8 * 4 * 4
    assert of(*told, ipc=1).graph < expected / 2
    assert of(*clustered, ipc=1).graph == pytest.approx(expected, rel=0.1)
    fewer = of(*clustered, "engine.real_batches.candidates=70", ipc=1).graph
    assert fewer == pytest.approx(expected / 2, rel=0.1)


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


@pytest.mark.parametrize(
    ("ipc", "classes", "drawn", "held"),
    [(10, 10, 0, 10), (40, 10, 0, 2), (200, 10, 0, 1), (1, 100, 0, 100), (200, 10, 12, 10), (40, 10, 60, 2)],
)
def test_graphs_of_many_images_are_not_held_at_once(ipc: int, classes: int, drawn: int, held: int) -> None:
    """Of 28 pixels a CPU holds at most 128 images, and the same number of classes each time."""
    preprocess = Standardise.of((0.5,), (0.5,))
    task = Task("toy", tuple(map(str, range(classes))), 1, 28, preprocess, mirror=True)
    synthetic = SyntheticSet(torch.zeros(classes * ipc, 1, 28, 28), (ipc,) * classes, "network", preprocess)
    engine = DistributionEngine(batch_synthetic=drawn)
    assert assembly._classes_at_once(engine, synthetic, task, torch.device("cpu")) == held


def engine_of(method: str, *overrides: str) -> Engine[Any]:
    return configs.resolve({"data": {"name": "fashion-mnist"}, "ipc": 6, "method": method}, overrides).engine


def test_mirror_images_count_wherever_they_are_seen() -> None:
    """DM matches all twice, or 4 it draws; DSA draws 3 and trains on 16 at a time; MTT sees 20 either way."""
    one, two = (
        Sizes(counts=torch.full((10,), 50), decoded=torch.full((10,), 6), copies=copies, classes=5, chunk=100)
        for copies in (1, 2)
    )

    def costs(engine: Engine[Any]) -> list[Cost]:
        return [engine.cost(sizes) for sizes in (one, two)]

    dm = costs(engine_of("dm", "engine.batch_real=8"))
    assert [cost.passes for cost in dm] == [80 + 3 * 60, 80 + 3 * 120]
    assert [cost.pixels for cost in dm] == [30, 60]

    few = costs(engine_of("dm", "engine.batch_real=8", "engine.batch_synthetic=4"))
    assert [cost.passes for cost in few] == [80 + 3 * 40, 80 + 3 * 80]
    assert [cost.pixels for cost in few] == [20, 40]

    options = ("batch_real=8", "batch_synthetic=3", "supply.epochs=2", "supply.batch_size=16")
    dsa = costs(engine_of("dsa", *(f"engine.{each}" for each in options)))
    assert [cost.passes for cost in dsa] == [3 * (80 + 2 * 60) + 8 * 30, 3 * (80 + 2 * 120) + 8 * 60]
    assert [cost.dual for cost in dsa] == [3, 6]
    assert [cost.training for cost in dsa] == [16, 32]

    all_at_once = costs(engine_of("dsa", "engine.batch_real=8", "engine.supply.epochs=9"))  # batches of 256
    assert [cost.training for cost in all_at_once] == [60, 120]

    mtt = costs(
        engine_of("mtt", "engine.steps=5", "engine.batch_synthetic=20", "engine.supply.path=experts.h5")
    )
    assert [cost.passes for cost in mtt] == [5 * 20 * 11] * 2
    assert [(cost.training, cost.dual) for cost in mtt] == [(20, 20)] * 2
