"""INFER's compensators in the decoupled engine, against plain passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from dsdistill.augment.batch_view import BatchViewConfig
from dsdistill.augment.dsa import Augmentation
from dsdistill.compute.config import OptimiserConfig
from dsdistill.compute.embedder import Embedder
from dsdistill.compute.learner import Learner
from dsdistill.data.batches import RealBatches
from dsdistill.distillation.loop import Distiller
from dsdistill.engines import DecoupledEngine
from dsdistill.engines.committee import CommitteeConfig
from dsdistill.engines.decoupled import AlignmentConfig, RefreshConfig
from dsdistill.engines.masks import MaskConfig
from dsdistill.engines.sources import Sources
from dsdistill.engines.targets import PairedFeatures
from dsdistill.errors import UserError
from dsdistill.networks import build_network
from dsdistill.seeding import forked, generator
from dsdistill.supply.base import PassOptions
from dsdistill.supply.cost import Sizes
from dsdistill.supply.teachers import Teachers
from dsdistill.synthetic.initial import initialise
from dsdistill.teachers import Teacher
from tests.helpers.engines import CPU, toy
from tests.reference.sre2l import recovery_loss

NETWORKS = ("resnet10-batch-w4", "convnet2-w6-batch")
ADAM = OptimiserConfig(kind="adamw", lr=0.25, betas=(0.5, 0.9), schedule="cosine")
NATURALS = 3


def teacher(seed: int, name: str) -> Teacher:
    """Return an untrained network whose running statistics are those of some noise."""
    with forked(seed, "test"):
        network = build_network(name, 1, 12, 3).double()
        for _ in range(20):
            network(torch.randn(16, 1, 12, 12, dtype=torch.float64))
    return Teacher(network.eval().requires_grad_(False), f"{name} {seed}", f"{seed:016x}", architecture=name)


def distiller(space: Any = "network", seeds: Sequence[int] = (0, 1), **options: Any) -> Distiller:
    """Put a float64 loop together: three naturals of each of three classes, two teachers."""
    task, real = toy()
    alignment, view = AlignmentConfig(weight=1.0), BatchViewConfig(shift=(0, 4))
    engine = DecoupledEngine(**{"alignment": alignment, "view": view, **options})
    supply = Teachers([teacher(seed, name) for seed, name in zip(seeds, NETWORKS, strict=True)])
    supply.ready(PassOptions(task.channels, task.size))
    synthetic = initialise(task, real, NATURALS, "real", space, seed=0).double()
    synthetic.learn_compensators(supply.count)
    embedder, learner = Embedder(supply.network, task.size, CPU), Learner(supply.network, task.size, CPU)
    batches = RealBatches.of(task, real, 0, CPU, torch.float64)
    sources = Sources(batches, supply, embedder, learner, Augmentation(operators=()))
    engine.prepare(synthetic, sources)
    return Distiller(engine, synthetic, sources, ADAM, iterations=3)


def compensators(ours: Distiller) -> Tensor:
    assert ours.synthetic.compensators is not None
    return ours.synthetic.compensators


def shift(iteration: int, number: int) -> tuple[int, int]:
    """Return by how much a batch of classes is rolled, drawn as the engine draws it."""
    stream = generator(0, "view", iteration, number)
    torch.rand((), generator=stream)  # the flip, which there is not
    down, right = torch.randint(0, 5, (2,), generator=stream).tolist()
    return down, right


def naive(ours: Distiller, found: Tensor, iteration: int = 0) -> Tensor:
    """Add up the losses of one compensator after the other, each for all classes and one teacher."""
    members = ours.sources.supply.members
    naturals, total = ours.synthetic.images.unflatten(0, (3, NATURALS)), found.new_zeros(())
    preprocess = ours.sources.task.preprocess.to(CPU, torch.float64)
    for stage, member in enumerate(members, 1):
        for number in range(NATURALS):
            index = stage * NATURALS + number
            images = naturals[:, number] + found[index - NATURALS]
            if ours.synthetic.space == "unit":
                images = preprocess(images)
            seen = images.roll(shift(iteration, index), (2, 3))
            classification, alignment, _ = recovery_loss(member.network, seen, torch.arange(3), weight=1.0)
            total = total + classification + alignment
    return total


@pytest.mark.parametrize("space", ["network", "unit"])
@pytest.mark.parametrize("pass_images", [0, 3, 6])
def test_loss_and_gradient_equal_those_of_single_compensators(space: Any, pass_images: int) -> None:
    ours = distiller(space, pass_images=pass_images)
    compensators(ours).data.copy_(torch.randn(6, 1, 12, 12, generator=generator(0, "test")) / 5)
    total = torch.stack(list(ours.engine.loss(ours.synthetic, ours.sources).values())).sum()
    total.backward()
    found = compensators(ours).detach().clone().requires_grad_()
    expected = naive(ours, found)
    expected.backward()
    torch.testing.assert_close(total.detach(), expected.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(compensators(ours).grad, found.grad, rtol=1e-9, atol=1e-9)
    assert (compensators(ours).grad != 0).any((1, 2, 3)).all()


def test_a_run_equals_adam_on_single_compensators_and_clamps_none() -> None:
    ours = distiller()
    naturals = ours.synthetic.images.detach().clone()
    found = torch.zeros(6, 1, 12, 12, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([found], betas=(0.5, 0.9), eps=1e-8)
    for iteration in range(3):
        adam.param_groups[0]["lr"] = ADAM.rate(iteration, 3)
        adam.zero_grad()
        naive(ours, found, iteration).backward()
        adam.step()
        ours.step()
    torch.testing.assert_close(compensators(ours).detach(), found.detach(), rtol=1e-8, atol=1e-8)
    assert torch.equal(ours.synthetic.images, naturals)
    images = ours.synthetic.preprocess.to(CPU, torch.float64).inverse(
        ours.synthetic.of(torch.arange(3)).detach()
    )
    assert ((images < 0) | (images > 1)).any()


def test_a_teacher_moves_its_own_compensators_alone() -> None:
    both, one = distiller(), distiller(seeds=(0, 2))
    for each in (both, one):
        each.step()
    assert torch.equal(compensators(both)[:NATURALS], compensators(one)[:NATURALS])
    assert not torch.equal(compensators(both)[NATURALS:], compensators(one)[NATURALS:])


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"batches": "per-class"}, "engine.batches=across-classes"),
        ({"refresh": RefreshConfig(every=2)}, "engine.refresh.every=0"),
        ({"committee": CommitteeConfig(size=1)}, "engine.committee.size=0"),
        ({"committee": CommitteeConfig(priors=(1.0, 2.0))}, r"engine.committee.priors=\[\]"),
        ({"mask": MaskConfig(of="cam")}, "engine.mask.of=none"),
        ({"target": PairedFeatures()}, "engine.target.kind=cross-entropy"),
    ],
)
def test_options_without_meaning_are_refused(options: dict[str, Any], remedy: str) -> None:
    with pytest.raises(UserError, match=f"each has a teacher of its own: set {remedy}") as refused:
        distiller(**options)
    assert "\n" not in str(refused.value)


def test_memory_is_for_compensators_and_the_images_of_a_pass() -> None:
    sizes = {"counts": torch.full((10,), 100), "decoded": torch.full((10,), 35), "classes": 10}
    engine = DecoupledEngine(pass_images=20)
    alone, added = engine.cost(Sizes(**sizes)), engine.cost(Sizes(**sizes, compensators=28))  # type: ignore[arg-type]
    assert alone.images == 3 * 350
    assert added.images == 3 * (28 + 20)
    assert added.passes == alone.passes
