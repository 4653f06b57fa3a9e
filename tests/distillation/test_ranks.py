"""A loop that several processes share ends with the set, and in the state, of one process alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dsdistill.compute.config import OptimiserConfig
from dsdistill.distillation.loop import Distiller, IterationReport
from dsdistill.engines import AttentionEngine, DistributionEngine, Engine, KernelEngine
from dsdistill.engines.clusters import RealBatchesConfig
from dsdistill.engines.discrepancies import Characteristic
from dsdistill.engines.trajectory import LabelsConfig
from dsdistill.errors import UserError
from dsdistill.runtime.ranks import ALONE, Ranks
from dsdistill.supply import QueueConfig
from tests.engines.test_decoupled import distiller as decoupled
from tests.helpers import engines, gradients, regression, trajectories
from tests.helpers.ranks import side_by_side

ADAM = OptimiserConfig(kind="adamw", lr=0.05)
ITERATIONS = 3

Make = Callable[[Path], Distiller]


def matching(engine: Engine[Any], network: str = "convnet2-w6", ipc: tuple[int, ...] = (2, 1, 3)) -> Make:
    def make(_: Path) -> Distiller:
        made = engines.loop(*engines.toy(size=8), network, engine=engine, ipc=ipc)
        engine.prepare(made.synthetic, made.sources)
        made.synthetic.double()
        return made

    return make


def trajectory(**options: Any) -> Make:
    return lambda folder: trajectories.loop(trajectories.buffers(folder), **options)


NCFM = DistributionEngine(
    batch_real=6,
    discrepancy=Characteristic(frequencies=12, sampler="learned", sampler_lr=0.1),
    calibration=0.5,
)
QUEUE = DistributionEngine(batch_real=4, supply=QueueConfig(size=2, batch_size=4), classification=0.5)
CLUSTERS = DistributionEngine(batch_real=4, real_batches=RealBatchesConfig(kind="kmeans", every=2))
LABELS = LabelsConfig(learned=True, optimiser=OptimiserConfig(lr=0.1, momentum=0.9))

BY_CLASS: dict[str, Make] = {
    "means": matching(DistributionEngine(batch_real=6)),
    "characteristic functions, adversary and calibration": matching(NCFM),
    "a random part of each class": matching(DistributionEngine(batch_real=6, batch_synthetic=1)),
    "networks of a queue": matching(QUEUE),
    "real images by clusters": matching(CLUSTERS),
    "attention": matching(AttentionEngine(batch_real=4)),
    "gradients, a chunk for each class": lambda _: gradients.loop("convnet2-w6", size=8, class_chunk=1),
}
WHOLE: dict[str, Make] = {
    "trajectory": trajectory(),
    "trajectory with labels, momentum and batches": trajectory(
        labels=LABELS, batch_synthetic=3, student=trajectories.StudentConfig(lr=0.1, momentum=0.5)
    ),
    "trajectory over its last steps, fewer images than processes": trajectory(
        last=2,
        batch_synthetic=2,
        student=trajectories.StudentConfig(lr=0.1, momentum=0.5),
        gradient="truncated",
    ),
    "kernel": lambda _: regression.loop(),
    "decoupled": lambda _: decoupled(ipc=(3, 2, 3), pass_images=4),
    "decoupled, one batch": lambda _: decoupled(ipc=1),
}


def begun(make: Make, folder: Path, ranks: Ranks = ALONE, size_period: int = 0) -> Distiller:
    """Make a loop of one of the processes; all loops of this file step alike."""
    made = make(folder)
    made.sources.ranks = ranks
    if size_period:
        made.synthetic.sizes = (1, 2)
    return Distiller(
        made.engine, made.synthetic, made.sources, ADAM, ITERATIONS, made.classes_at_once, size_period
    )


def ran(loop: Distiller) -> tuple[list[IterationReport], dict[str, Tensor]]:
    return list(engines.iterations(loop)), loop.state_dict()


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(
            ours[name], value, rtol=1e-9, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize(
    ("name", "count"), [*((name, 2) for name in BY_CLASS), *((name, 3) for name in WHOLE)]
)
def test_the_set_and_the_state_are_those_of_one_process(name: str, count: int, tmp_path: Path) -> None:
    make = (BY_CLASS | WHOLE)[name]
    reports, alone = ran(begun(make, tmp_path))
    together = side_by_side(count, lambda ranks: ran(begun(make, tmp_path, ranks)))
    for theirs, state in together:
        assert_same(state, alone)
        for mine, report in zip(theirs, reports, strict=True):
            assert_same(mine.terms, report.terms)
    start = begun(make, tmp_path).state_dict()
    pixels = next(key for key in ("synthetic.images", "synthetic.residual") if key in start)
    assert not torch.equal(start[pixels], alone[pixels])  # something was learned


@pytest.mark.parametrize("name", ["means", "gradients, a chunk for each class"])
def test_images_of_the_classes_are_bit_for_bit_those_of_one_process(name: str, tmp_path: Path) -> None:
    _, alone = ran(begun(BY_CLASS[name], tmp_path))
    for _, state in side_by_side(3, lambda ranks: ran(begun(BY_CLASS[name], tmp_path, ranks))):
        assert torch.equal(state["synthetic.images"], alone["synthetic.images"])


@pytest.mark.parametrize(
    "name", ["real images by clusters", "networks of a queue", "trajectory", "decoupled"]
)
def test_a_run_goes_on_with_another_number_of_processes(name: str, tmp_path: Path) -> None:
    make = (BY_CLASS | WHOLE)[name]
    _, whole = ran(begun(make, tmp_path))

    def first(ranks: Ranks) -> dict[str, Tensor]:
        loop = begun(make, tmp_path, ranks)
        loop.step()
        return loop.state_dict()

    def rest(ranks: Ranks) -> dict[str, Tensor]:
        loop = begun(make, tmp_path, ranks)
        loop.load_state_dict(state)
        return ran(loop)[1]

    state = side_by_side(2, first)[0]
    for ended in (rest(ALONE), *side_by_side(3, rest)):
        assert_same(ended, whole)


def test_all_choose_the_same_subset_of_a_set_of_several_sizes(tmp_path: Path) -> None:
    make = matching(DistributionEngine(batch_real=6), ipc=(2, 2, 2))
    _, alone = ran(begun(make, tmp_path, size_period=1))
    for _, state in side_by_side(2, lambda ranks: ran(begun(make, tmp_path, ranks, size_period=1))):
        assert_same(state, alone)


def test_each_holds_the_graphs_of_its_classes_alone(tmp_path: Path) -> None:
    loops = side_by_side(2, lambda ranks: begun(BY_CLASS["means"], tmp_path, ranks))
    assert [loop.classes_at_once for loop in loops] == [2, 1]


def test_a_discarded_iteration_moves_no_process(tmp_path: Path) -> None:
    make = trajectory(skip_above=1e-9)
    start = begun(make, tmp_path).state_dict()
    for reports, state in side_by_side(2, lambda ranks: ran(begun(make, tmp_path, ranks))):
        assert all(report.discarded for report in reports)
        assert torch.equal(state["synthetic.images"], start["synthetic.images"])


@pytest.mark.parametrize(
    ("make", "count", "words"),
    [
        (BY_CLASS["means"], 4, "4 processes cannot share 3 classes"),
        (matching(DistributionEngine(batch_real=4), "convnet2-w6-batch"), 2, "batch normalisation"),
    ],
    ids=["more than classes", "batch normalisation"],
)
def test_a_loss_that_cannot_be_divided_is_refused(make: Make, count: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        side_by_side(count, lambda ranks: begun(make, tmp_path, ranks))


def test_a_kernel_is_learned_from_every_real_image_once(tmp_path: Path) -> None:
    def seen(ranks: Ranks) -> Tensor:
        loop = begun(lambda _: regression.loop(), tmp_path, ranks)
        assert isinstance(loop.engine, KernelEngine)
        return torch.cat([images for images, _ in loop.sources.of_all_classes(12)])

    torch.testing.assert_close(torch.cat(side_by_side(3, seen)), seen(ALONE))
