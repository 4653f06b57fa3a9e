"""The decoupled engine: loss and gradient, batches, committees and options, against separate plain passes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
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
from dsdistill.engines.sources import Sources
from dsdistill.engines.targets import PairedFeatures
from dsdistill.errors import UserError
from dsdistill.networks import build_network
from dsdistill.seeding import forked, generator
from dsdistill.supply.base import PassOptions
from dsdistill.supply.cost import Sizes
from dsdistill.supply.teachers import Teachers, TeachersConfig
from dsdistill.synthetic.initial import initialise
from dsdistill.synthetic.set import ANCHORS, SyntheticSet
from dsdistill.teachers import Teacher
from tests.helpers.engines import CPU, toy
from tests.helpers.trajectories import written
from tests.reference.sre2l import recover, recovery_loss

RESNET = "resnet10-batch-w4"
VIEW = BatchViewConfig(crop=(0.3, 1.0), flip=True, shift=(-2, 3))
ADAM = OptimiserConfig(
    kind="adamw", lr=0.2, betas=(0.5, 0.9), schedule="cosine", clamp_every=1, clamp="after"
)
FREE = OptimiserConfig(kind="adamw", lr=0.2)


def teacher(seed: int, name: str = RESNET) -> Teacher:
    """Return an untrained network whose running statistics are those of some noise."""
    with forked(seed, "test"):
        network = build_network(name, 1, 12, 3).double()
        for _ in range(20):
            network(torch.randn(16, 1, 12, 12, dtype=torch.float64))
    return Teacher(network.eval().requires_grad_(False), f"{name} {seed}", f"{seed:016x}", architecture=name)


def distiller(
    *teachers: Teacher,
    ipc: int | Sequence[int] = 3,
    optimiser: OptimiserConfig = ADAM,
    iterations: int = 4,
    init: Any = "noise",
    **options: Any,
) -> Distiller:
    """Put a float64 loop of three classes together."""
    task, real = toy()
    engine = DecoupledEngine(**{"view": VIEW, **options})
    supply = Teachers(teachers or (teacher(1),))
    supply.ready(PassOptions(task.channels, task.size))
    synthetic = initialise(task, real, ipc, init, "network", seed=0).double()
    embedder, learner = Embedder(supply.network, task.size, CPU), Learner(supply.network, task.size, CPU)
    batches = RealBatches.of(task, real, 0, CPU, torch.float64)
    sources = Sources(batches, supply, embedder, learner, Augmentation(operators=()))
    engine.prepare(synthetic, sources)
    return Distiller(engine, synthetic, sources, optimiser, iterations)


def seen(ours: Distiller, images: Tensor, number: int, iteration: int) -> Tensor:
    """View a batch pixel by pixel: crop and enlarge, flip, roll."""
    assert isinstance(ours.engine, DecoupledEngine)
    view, size = ours.engine.view, images.shape[-1]
    stream = generator(0, "view", iteration, number)
    views = view.draw(size, True, iteration, ours.iterations, [stream])
    return images if views is None else views(images)


def naive(ours: Distiller, images: Tensor, weight: float = 0.01, iteration: int = 0) -> Tensor:
    """Add up the losses of separate batches of one teacher."""
    assert isinstance(ours.engine, DecoupledEngine)
    (member,) = ours.sources.supply.members
    labels, total = ours.synthetic.labels, images.new_zeros(())
    for batch in ours.engine.all_batches(ours.synthetic):
        part = seen(ours, images[batch.rows], batch.number, iteration)
        classification, alignment, _ = recovery_loss(member.network, part, labels[batch.rows], weight)
        total = total + classification + alignment
    return total


@pytest.mark.parametrize("ipc", [3, (2, 4, 1)], ids=str)
@pytest.mark.parametrize("pass_images", [0, 1, 6])
def test_loss_and_gradient_equal_those_of_separate_batches(ipc: Any, pass_images: int) -> None:
    ours = distiller(ipc=ipc, pass_images=pass_images)
    terms = ours.engine.loss(ours.synthetic, ours.sources)
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    images = ours.synthetic.images.detach().clone().requires_grad_()
    expected = naive(ours, images)
    expected.backward()
    torch.testing.assert_close(total.detach(), expected.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours.synthetic.images.grad, images.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("batches", ["across-classes", "per-class"])
def test_a_run_equals_separate_runs_of_the_released_loop(batches: Any) -> None:
    ours = distiller(batches=batches)
    start, (member,) = ours.synthetic.images.detach().clone(), ours.sources.supply.members
    preprocess = ours.sources.task.preprocess.to(CPU, torch.float64)
    black = torch.zeros(1, 1, 12, 12, dtype=torch.float64)
    bounds = preprocess(black), preprocess(black + 1)
    assert isinstance(ours.engine, DecoupledEngine)
    expected = start.clone()
    for batch in ours.engine.all_batches(ours.synthetic):
        expected[batch.rows] = recover(
            member.network,
            start[batch.rows],
            ours.synthetic.labels[batch.rows],
            iterations=4,
            lr=0.2,
            weight=0.01,
            view=lambda images, iteration, number=batch.number: seen(ours, images, number, iteration),  # type: ignore[misc]
            bounds=bounds,
        )
    for _ in range(4):
        ours.step()
    torch.testing.assert_close(ours.synthetic.images.detach(), expected, rtol=1e-9, atol=1e-9)
    assert not torch.equal(start, expected)


def test_batches_hold_one_image_of_each_class_or_all_of_one() -> None:
    ours = distiller(ipc=(1, 3, 2), batch_classes=2)
    assert isinstance(ours.engine, DecoupledEngine)
    rows = [batch.rows.tolist() for batch in ours.engine.all_batches(ours.synthetic)]
    assert rows == [[0, 1], [4], [2, 5], [3]]
    per_class = DecoupledEngine(batches="per-class").all_batches(ours.synthetic)
    assert [batch.rows.tolist() for batch in per_class] == [[0], [1, 2, 3], [4, 5]]


def test_every_teacher_of_a_batch_counts_by_its_prior() -> None:
    priors = (60.0, 50.0)
    ours = distiller(teacher(1), teacher(2, "convnet2-w6-batch"), committee=CommitteeConfig(priors=priors))
    images = ours.synthetic.images.detach().clone().requires_grad_()
    weights = torch.tensor(priors, dtype=torch.float64).div(5).softmax(0)
    labels, expected = ours.synthetic.labels, torch.zeros((), dtype=torch.float64)
    assert isinstance(ours.engine, DecoupledEngine)
    for batch in ours.engine.all_batches(ours.synthetic):
        part = seen(ours, images[batch.rows], batch.number, 0)
        for weight, member in zip(weights, ours.sources.supply.members, strict=True):
            losses = recovery_loss(member.network, part, labels[batch.rows], 0.01)
            expected = expected + weight * (losses[0] + losses[1])
    expected.backward()
    ours.engine.loss(ours.synthetic, ours.sources)["classification"].backward()
    torch.testing.assert_close(ours.synthetic.images.grad, images.grad, rtol=1e-9, atol=1e-9)


def test_pairs_of_a_committee_have_their_turns() -> None:
    pairs = CommitteeConfig(size=2, priors=(66.0, 60.0, 70.0))
    in_order = [[teacher for teacher, _ in pairs.members(3, index, 3, 0)] for index in range(3)]
    assert in_order == [[0, 1], [0, 2], [1, 2]]
    assert [teacher for teacher, _ in pairs.members(3, 0, 1, 0)] == [0, 2]  # of the highest priors
    random = {tuple(teacher for teacher, _ in pairs.members(3, index, 50, 0)) for index in range(50)}
    assert random == {(0, 1), (0, 2), (1, 2)}
    weights = [weight for _, weight in pairs.members(3, 1, 3, 0)]
    assert weights == pytest.approx([1 / (1 + math.exp(0.8)), 1 / (1 + math.exp(-0.8))])


def test_each_choice_of_teachers_has_its_turn_where_a_batch_is_a_class() -> None:
    pairs = CommitteeConfig(size=2, priors=(66.0, 60.0, 70.0))
    ours = distiller(
        *(teacher(seed) for seed in range(3)), committee=pairs, batches="per-class", ipc=(2,) * 3
    )
    assert isinstance(ours.engine, DecoupledEngine)
    batches = ours.engine.all_batches(ours.synthetic)
    used = [ours.engine.teachers_of(batch, ours.synthetic, ours.sources) for batch in batches]
    assert [[number for number, _ in each] for each in used] == [[0, 1], [0, 2], [1, 2]]


def test_the_last_step_is_not_undone() -> None:
    refresh = RefreshConfig(every=1, share=1.0)
    ours = distiller(optimiser=FREE, refresh=refresh)
    start = ours.synthetic.images.detach().clone()
    for _ in range(ours.iterations - 1):
        ours.step()
        assert torch.equal(ours.synthetic.images.detach(), start)
    ours.step()
    assert not torch.equal(ours.synthetic.images.detach(), start)


def test_images_are_drawn_back_to_their_start() -> None:
    refresh = RefreshConfig(every=2, share=0.25)
    free, drawn = distiller(optimiser=FREE), distiller(optimiser=FREE, refresh=refresh)
    start = free.synthetic.images.detach().clone()
    for ours in (free, drawn):
        ours.step()
    assert torch.equal(free.synthetic.images, drawn.synthetic.images)
    for ours in (free, drawn):
        ours.step()
    expected = torch.lerp(free.synthetic.images.detach(), start, 0.25)
    torch.testing.assert_close(drawn.synthetic.images.detach(), expected)


def test_a_mask_holds_back_steps_that_adam_would_take() -> None:
    whole = BatchViewConfig()
    ours, masked = distiller(optimiser=FREE, view=whole), distiller(optimiser=FREE, view=whole)
    masked.synthetic.update_mask = torch.zeros(9, 1, 12, 12, dtype=torch.float64)
    masked.synthetic.update_mask[:, :, 3:6] = 0.5
    start = ours.synthetic.images.detach().clone()
    for each in (ours, masked):
        each.step()
    free, held = (each.synthetic.images.detach() - start for each in (ours, masked))
    assert free.abs().min() > 0.1  # Adam moves every pixel by about its rate
    torch.testing.assert_close(held, free * masked.synthetic.update_mask)


@pytest.mark.parametrize("layer", [0, -1])
def test_paired_features_compare_with_anchors_seen_alike(layer: int) -> None:
    ours = distiller(
        init="real",
        target=PairedFeatures(layer=layer),
        alignment=AlignmentConfig(weight=0.0),
        batches="per-class",
    )
    anchors = torch.randn_like(ours.synthetic.images)
    ours.synthetic.constants[ANCHORS] = anchors
    images, (member,) = ours.synthetic.images.detach().clone().requires_grad_(), ours.sources.supply.members
    expected = torch.zeros((), dtype=torch.float64)
    assert isinstance(ours.engine, DecoupledEngine)
    for batch in ours.engine.all_batches(ours.synthetic):
        goal, found = (
            member.network.trace(seen(ours, each[batch.rows], batch.number, 0))[0][layer]
            for each in (anchors, images)
        )
        for pair in zip(goal, found, strict=True):
            expected = expected + (pair[0] - pair[1]).abs().mean()
    expected.backward()
    terms = ours.engine.loss(ours.synthetic, ours.sources)
    assert set(terms) == {"features"}
    terms["features"].backward()
    torch.testing.assert_close(terms["features"].detach(), expected.detach())
    torch.testing.assert_close(ours.synthetic.images.grad, images.grad, rtol=1e-9, atol=1e-9)


def test_a_teacher_without_statistics_is_refused_where_they_are_aligned() -> None:
    with pytest.raises(UserError, match="has no batch normalisation, whose statistics this method aligns"):
        distiller(teacher(1, "convnet2-w6"))
    distiller(teacher(1, "convnet2-w6"), alignment=AlignmentConfig(weight=0.0)).step()


@pytest.mark.parametrize(("layer", "fits"), [(2, True), (3, False), (-3, True), (-4, False)])
def test_a_block_that_a_teacher_lacks_is_refused(layer: int, fits: bool) -> None:
    ours = distiller(teacher(1, "convnet3-w4-batch"))
    prepare = partial(PairedFeatures(layer=layer).prepare, ours.synthetic, ours.sources)
    if fits:
        prepare()
        return
    with pytest.raises(UserError, match=f"no block {layer}: set engine.target.layer to 0 to 2") as refused:
        prepare()
    assert "\n" not in str(refused.value)


def test_mirror_images_beside_those_that_are_recovered_are_refused() -> None:
    ours = distiller()
    ours.synthetic.flip = True
    with pytest.raises(UserError, match=r"set synthetic.flip=false; engine.view.flip=true"):
        ours.engine.prepare(ours.synthetic, ours.sources)


def test_memory_is_for_the_whole_batches_of_a_pass() -> None:
    def pixels(size: int, device: str, **options: Any) -> int:
        decoded = torch.full((1000,), 10)
        sizes = Sizes(counts=decoded, decoded=decoded, classes=1000, size=size, device=device)
        return DecoupledEngine(**options).cost(sizes).pixels

    assert pixels(224, "cpu") == 100  # one batch of a hundred classes is more than a CPU takes at once
    assert pixels(224, "cuda") == 100  # of 4 GiB of maps, 161 images
    assert pixels(12, "cpu") == 200  # 256 images
    assert pixels(12, "cpu", pass_images=1050) == 1000
    assert pixels(12, "cpu", pass_images=10**6) == 10_000
    assert pixels(224, "cpu", batches="per-class") == 10


def test_a_pass_for_each_teacher_counts(tmp_path: Path) -> None:
    few = torch.full((10,), 2)
    file = written(tmp_path / "teachers.h5", *toy(1, 8))  # three

    def passes(size: int = 0, path: str = str(file), networks: int = 0, compensators: int = 0) -> int:
        supply = TeachersConfig(path=path, networks=networks)
        engine = DecoupledEngine(supply=supply, committee=CommitteeConfig(size=size))
        return engine.cost(Sizes(counts=few, decoded=few, size=8, compensators=compensators)).passes

    assert passes() == 3 * 20 * 3
    assert passes(path=f"{file}#0,{file}#2") == 3 * 20 * 2
    assert passes(size=2) == passes(networks=2) == 3 * 20 * 2
    assert passes(path="") == passes(compensators=2) == 3 * 20


def test_classes_of_images_are_found_once_for_all_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = distiller(pass_images=1)
    asked: list[SyntheticSet] = []
    origins = SyntheticSet.origins

    def counted(synthetic: SyntheticSet) -> Tensor:
        asked.append(synthetic)
        return origins(synthetic)

    monkeypatch.setattr(SyntheticSet, "origins", counted)  # of a thousand classes it takes as long as a pass
    ours.step()
    assert len(asked) == 1


def test_a_refresh_brings_residuals_back_to_zero() -> None:
    ours = distiller(optimiser=FREE, refresh=RefreshConfig(every=1, share=1.0))
    ours.synthetic.learn_residual()
    ours.engine.prepare(ours.synthetic, ours.sources)
    start = ours.synthetic.unit_images()
    refreshed = Distiller(ours.engine, ours.synthetic, ours.sources, FREE, ours.iterations)
    refreshed.step()
    assert torch.equal(ours.synthetic.unit_images(), start)


def test_an_average_of_clamped_pixels_is_within_their_bounds() -> None:
    ours = distiller(optimiser=dataclasses.replace(ADAM, lr=5.0, ema=0.5))
    average = ours.synthetic.unit_images().double()
    for _ in range(ours.iterations):
        ours.step()
        preprocess = ours.synthetic.preprocess.to(CPU, torch.float64)
        pixels = preprocess.inverse(ours.synthetic.images.detach())
        average = 0.5 * average + 0.5 * pixels
        assert 0 <= pixels.min() < pixels.max() <= 1
    torch.testing.assert_close(ours.synthetic.unit_images(), average)


def test_the_learning_rate_follows_half_a_cosine() -> None:
    rates = [ADAM.rate(iteration, 4) for iteration in range(4)]
    assert rates == pytest.approx([0.2, 0.1 * (1 + math.sqrt(0.5)), 0.1, 0.1 * (1 - math.sqrt(0.5))])
