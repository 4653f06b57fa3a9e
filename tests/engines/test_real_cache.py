"""The cache of the real side: what is kept is what would be computed, in float64."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.distillation.loop import Distiller
from dsdistill.engines import AttentionEngine, DistributionEngine, Engine
from dsdistill.engines.discrepancies import Characteristic, Kernels
from dsdistill.engines.real_cache import RealCache
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.supply.base import DrawnNetwork
from dsdistill.supply.snapshots import SnapshotsConfig
from tests.helpers.engines import CPU, loop, loss_and_gradient
from tests.helpers.supply import NETWORK

T = TypeVar("T")

NETWORKS, DRAWS = 4, 2
"""The pool has two networks at two epochs."""


class Watched(RealCache):
    """Knows whether it is computing something."""

    computing = False

    def once(self, number: int, what: Hashable, compute: Callable[[], T]) -> T:
        self.computing = True
        result = super().once(number, what, compute)
        self.computing = False
        return result


class Forgetful(RealCache):
    """Draws as a cache does, and keeps nothing."""

    def once(self, number: int, what: Hashable, compute: Callable[[], T]) -> T:
        return compute()


def cache(kind: type[RealCache] = RealCache, seed: int = 0) -> RealCache:
    return kind(seed, NETWORKS, DRAWS, 1, CPU)


ENGINES: dict[str, Callable[[Any], Engine[Any]]] = {
    "mean": lambda told: DistributionEngine(**told),
    "characteristic": lambda told: DistributionEngine(discrepancy=Characteristic(frequencies=9), **told),
    "learned": lambda told: DistributionEngine(
        discrepancy=Characteristic(frequencies=9, sampler="learned"), **told
    ),
    "kernel": lambda told: DistributionEngine(discrepancy=Kernels(), **told),
    "attention": lambda told: AttentionEngine(**told),
}


def matching(pool: Path, engine: str, kept: RealCache | None = None, class_chunk: int = 0) -> Distiller:
    task, real = catalog.load(DataConfig(name="digits"), "train")
    told = {"supply": SnapshotsConfig(path=str(pool)), "batch_real": 6}
    distiller = loop(task, real, NETWORK, engine=ENGINES[engine](told), class_chunk=class_chunk)
    distiller.engine.prepare(distiller.synthetic, distiller.sources)
    distiller.synthetic.double()
    distiller.sources.cache = kept
    return distiller


@pytest.mark.parametrize("engine", ENGINES)
def test_a_kept_real_side_gives_the_loss_that_a_computed_one_gives(pool: Path, engine: str) -> None:
    kept, computed = matching(pool, engine, cache()), matching(pool, engine, cache(Forgetful))
    numbers: Counter[int] = Counter()
    for iteration in range(14):
        losses = []
        for distiller in (kept, computed):
            distiller.sources.iteration = iteration
            losses.append(loss_and_gradient(distiller))
        numbers[kept.sources.draw_number] += 1
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=1e-14)
        assert losses[0][1].abs().max() > 0
    assert max(numbers.values()) > 1


@pytest.mark.parametrize("engine", ["mean", "characteristic"])
def test_a_draw_is_that_of_a_live_run_with_its_number_and_network(pool: Path, engine: str) -> None:
    """Real images, augmentation and frequencies are those that a live iteration of this number draws."""
    kept, live = matching(pool, engine, cache()), matching(pool, engine)
    draw = live.sources.supply.draw
    for iteration in range(8):
        kept.sources.iteration = iteration
        live.sources.iteration = kept.sources.draw_number
        live.sources._drawn = None
        live.sources.supply.draw = lambda _, batches, at=iteration: draw(at, batches)
        torch.testing.assert_close(loss_and_gradient(kept), loss_and_gradient(live), rtol=1e-12, atol=1e-14)


def test_draws_come_from_the_finite_set_and_cover_it(pool: Path) -> None:
    sources, file = matching(pool, "mean", cache()).sources, ExpertFile.open(pool)
    stored = [file.flat(network, epoch) for network in (0, 1) for epoch in file.epochs]
    numbers = set()
    for sources.iteration in range(60):
        numbers.add(number := sources.draw_number)
        weights = file.metadata.layout.pack(sources.supply.network.state_dict())[0]
        assert torch.equal(weights.float(), stored[number // DRAWS])
    assert numbers == set(range(NETWORKS * DRAWS))
    network = DrawnNetwork(number=3)
    draws = [[cache(seed=seed).number(turn, network) for turn in range(20)] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert set(draws[0]) == {3 * DRAWS, 3 * DRAWS + 1}


@pytest.mark.parametrize("engine", ENGINES)
def test_real_images_are_embedded_once_for_each_draw(pool: Path, engine: str) -> None:
    distiller = matching(pool, engine, kept := Watched(0, NETWORKS, DRAWS, 1, CPU), class_chunk=4)
    embedded = 0
    frozen = distiller.sources.embedder.frozen

    def counted(images: torch.Tensor) -> torch.Tensor:
        nonlocal embedded
        embedded += len(images)
        assert kept.computing  # whose seconds are told from those of other iterations
        return frozen(images)

    distiller.sources.embedder.frozen = counted  # type: ignore[method-assign]
    numbers = set()
    for _ in range(14):
        numbers.add((distiller.step(), distiller.sources.draw_number)[1])
        assert embedded == 60 * len(numbers)
    assert len(numbers) < 14
    assert distiller.classes_at_once == 4
    assert kept.seconds > 0
    kept.forget()
    distiller.step()
    assert embedded == 60 * (len(numbers) + 1)


def test_steps_report_the_seconds_that_went_into_the_cache(pool: Path) -> None:
    distiller = matching(pool, "mean", kept := cache())
    reports = [distiller.step() for _ in range(14)]
    assert sum(report.caching for report in reports) == pytest.approx(kept.seconds)
    assert 0 < sum(report.caching > 0 for report in reports) <= kept.size
    assert matching(pool, "mean").step().caching == 0


def test_an_update_after_the_first_draws_anew(pool: Path) -> None:
    kept, live = (matching(pool, "mean", each).sources for each in (cache(), None))
    for sources in (kept, live):
        sources.iteration, sources.update = 11, 1
    assert kept.draw_number == 11
    assert torch.equal(kept.siamese().shift, live.siamese().shift)
    assert [kept.once("what", lambda value=value: value) for value in (1, 2)] == [1, 2]


def test_seconds_to_come_are_those_of_draws_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, now = cache(), 0.0
    monkeypatch.setattr("dsdistill.engines.real_cache.time.monotonic", lambda: now)

    def compute(seconds: float) -> Callable[[], None]:
        def passes() -> None:
            nonlocal now
            now += seconds

        return passes

    assert ours.seconds_to_come(1000) == 0  # nothing is known yet
    ours.once(0, "means", compute(60.0))  # compiles
    ours.once(1, "means", compute(2.0))
    ours.once(1, "features", compute(1.0))
    ours.once(1, "means", compute(100.0))  # is there
    assert ours.seconds == 63
    assert ours.seconds_to_come(0) == 0
    assert ours.seconds_to_come(1) == pytest.approx(6 / 8 * 3)
    assert ours.seconds_to_come(10**6) == pytest.approx(6 * 3)
    ours.forget()
    assert ours.seconds_to_come(10**6) == pytest.approx(8 * 3)


def test_what_memory_keeps_lies_in_one_block() -> None:
    """Small tensors among large ones would keep the allocator from using the place of these again."""
    held = RealCache(0, NETWORKS, DRAWS, 3, CPU)
    one = held.once(0, "one", lambda: torch.tensor([1.0, 2.0]))
    pair = held.once(1, "pair", lambda: (torch.ones(2, 2), torch.zeros(1)))
    assert one.tolist() == [1.0, 2.0]
    assert [part.tolist() for part in pair] == [[[1.0, 1.0], [1.0, 1.0]], [0.0]]
    assert len({part.untyped_storage().data_ptr() for part in (one, *pair)}) == 1
    assert held.once(0, "one", lambda: torch.zeros(2)) is one
    double = held.once(2, "double", lambda: torch.ones(2, dtype=torch.float64))
    assert double.dtype == torch.float64
    many = held.once(3, "many", lambda: torch.arange(100.0))  # more than was said
    assert many.sum() == 4950
    held.forget()
    assert held.once(4, "new", lambda: torch.tensor([5.0])).data_ptr() == one.data_ptr()


def test_a_value_may_be_part_of_a_graph_while_others_are_kept() -> None:
    held = RealCache(0, NETWORKS, DRAWS, 3, CPU)
    learned = torch.ones(2, requires_grad=True)
    loss = (learned * held.once(0, "first", lambda: torch.tensor([1.0, 2.0]))).square().sum()
    held.once(1, "second", lambda: torch.tensor([9.0]))
    loss.backward()
    assert learned.grad is not None
    assert learned.grad.tolist() == [2.0, 8.0]
