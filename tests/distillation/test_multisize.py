"""One set of several sizes: what is matched, chosen and frozen, against naive versions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from dsdistill.compute.config import OptimiserConfig
from dsdistill.config.sizes import check_sizes, decided_sizes, of_attribute
from dsdistill.distillation.loop import Distiller
from dsdistill.distillation.multisize import SubsetChoice
from dsdistill.engines import DistributionEngine
from dsdistill.errors import UserError
from dsdistill.supply import TrainedConfig
from dsdistill.synthetic.multi_formation import MultiFormation
from tests.helpers import engines, gradients
from tests.reference.dm import distribution_matching_loss
from tests.reference.gradient import gradient_matching_loss

TWO = MultiFormation(factor=2)


def with_sizes(distiller: Distiller, sizes: tuple[int, ...], period: int, **optimiser: Any) -> Distiller:
    distiller.synthetic.sizes = sizes
    config = OptimiserConfig(**{"lr": 0.1, "momentum": 0.5, **optimiser})
    engine, chunk = distiller.engine, distiller.classes_at_once
    return Distiller(engine, distiller.synthetic, distiller.sources, config, 9, chunk, period)


def distribution(
    sizes: tuple[int, ...] = (1, 2, 4), period: int = 2, chunk: int = 0, **told: Any
) -> Distiller:
    task, real = engines.toy(size=8)
    engine = DistributionEngine(batch_real=5, calibration=told.pop("calibration", 0.0))
    made = engines.loop(task, real, "convnet2-w4", engine=engine, ipc=sizes[-1], class_chunk=chunk)
    return with_sizes(made, sizes, period, **told)


def gradient(sizes: tuple[int, ...] = (1, 3), **told: Any) -> Distiller:
    supply = TrainedConfig(on="real", samples=4, batch_size=4, updates_per_network=3)
    made = gradients.loop(
        "convnet2-w4", size=8, ipc=sizes[-1], space="unit", multi_formation=TWO, supply=supply, batch_real=4
    )
    return with_sizes(made, sizes, 2, **told)


def decoded_first(distiller: Distiller, images: Tensor, count: int) -> list[Tensor]:
    """Return the training images of the first so many images of each class."""
    synthetic = distiller.synthetic
    parts = [part[:count] for part in images.split(synthetic.counts)]
    if synthetic.multi_formation.is_identity:
        return parts
    preprocess = distiller.sources.task.preprocess.to(engines.CPU, torch.float64)
    return [preprocess(engines.naive_decode(part, 2)) for part in parts]


def naive(distiller: Distiller, counts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the sum of the losses of the first so many images of each class, and its gradient."""
    real, augment = engines.drawn(distiller)
    images = distiller.synthetic.images.detach().clone().requires_grad_()
    loss = images.new_zeros(())
    for count in counts:
        fake = decoded_first(distiller, images, count)
        network = distiller.sources.supply.network
        if isinstance(distiller.engine, DistributionEngine):
            loss = loss + distribution_matching_loss(network.embed, real, fake, augment)
        else:
            network.requires_grad_(True)
            engine: Any = distiller.engine
            loss = loss + gradient_matching_loss(network, real, fake, augment, engine.metric, engine.matched)
            network.requires_grad_(False)
    return loss.detach(), torch.autograd.grad(loss, images)[0]


@pytest.mark.parametrize("loop", [distribution, gradient])
def test_the_loss_is_that_of_all_images_and_of_the_first(loop: Any) -> None:
    distiller = loop(momentum=0.0)
    whole = distiller.synthetic.counts[0]
    distiller.sources.iteration = 0
    expected, slope = naive(distiller, (whole, 1))
    before = distiller.synthetic.images.detach().clone()
    report = distiller.step()
    assert distiller.subset.current == 1  # at first the smallest
    assert {name.removesuffix("_first") for name in report.terms} == {next(iter(report.terms))}
    torch.testing.assert_close(sum(report.terms.values()), expected, rtol=1e-9, atol=0)
    moved = distiller.synthetic.images.detach() - before
    torch.testing.assert_close(moved, -0.1 * slope, rtol=1e-6, atol=1e-12)


def test_the_first_images_become_a_better_set_than_they_were() -> None:
    """Seen by networks that nothing was matched in; where all images alone are matched they hardly do."""
    several, one = distribution(sizes=(1, 4), lr=1.0), distribution(sizes=(4,), lr=1.0)

    def distance(distiller: Distiller) -> float:
        total = 0.0
        for distiller.sources.iteration in range(1000, 1006):
            total += distiller._distance(1)
        return total

    before = distance(one)
    for _ in range(20):
        several.step()
        one.step()
    assert distance(several) < 0.9 * min(before, distance(one))


def test_classes_may_be_taken_in_turns() -> None:
    together, apart = distribution(), distribution(chunk=1)
    for _ in range(5):
        one, other = together.step(), apart.step()
        torch.testing.assert_close(one.terms, other.terms, rtol=1e-9, atol=0)
    torch.testing.assert_close(together.synthetic.images, apart.synthetic.images, rtol=1e-9, atol=1e-12)
    assert together.subset.current == apart.subset.current


def test_a_prefix_is_decoded_as_a_set_of_its_own() -> None:
    synthetic = gradient(sizes=(1, 2, 3)).synthetic
    classes = torch.tensor([0, 2])
    with synthetic.first(2):
        images, counts = synthetic.matched(classes)
        assert counts == synthetic.decoded_of(classes) == [8, 8]
        assert synthetic.decoded_counts == (8, 8, 8)
        few, counts = synthetic.matched(classes, [torch.tensor([7, 0]), None])
        assert counts == [2, 8]
        torch.testing.assert_close(few, torch.cat([images[[7, 0]], images[8:]]))
    whole = synthetic.of(classes).split(12)
    rows = torch.arange(12) % 3 < 2  # tile by tile
    torch.testing.assert_close(images, torch.cat([part[rows] for part in whole]))
    assert synthetic.decoded_counts == (12, 12, 12)
    assert synthetic.least_matched == 4


# Which size is chosen ---------------------------------------------------------------------------------------


def replay(table: list[list[float]], sizes: list[int]) -> Iterator[tuple[int, int]]:
    """Yield size and frozen images after each choice, as the authors' code has it."""
    finished: set[int] = set()
    current = 0
    for turn, row in enumerate(table):
        finished |= {current} - {0}
        if turn == 0:
            current = sizes[0]
        else:
            changes = {size: abs(row[i] - table[turn - 1][i]) for i, size in enumerate(sizes)}
            current = max(sizes, key=lambda size: changes[size])
        yield current, max([size for size in finished if size < current], default=0)


def test_choices_are_those_of_a_naive_replay() -> None:
    sizes, stream = [1, 2, 5], torch.Generator().manual_seed(1)
    table = torch.rand(12, 3, generator=stream).tolist()
    choice, found = SubsetChoice((*sizes, 10), 7), []
    for row in table:
        choice.choose(lambda size, row=row: row[sizes.index(size)])
        found.append((choice.current, choice.frozen))
    assert found == list(replay(table, sizes))
    assert {size for size, _ in found} == set(sizes)
    assert {frozen for _, frozen in found} == {0, 1, 2}


def test_a_size_is_chosen_first_and_at_the_end_of_each_period() -> None:
    choice = SubsetChoice((1, 2), 4)
    assert [iteration for iteration in range(13) if choice.is_due(iteration)] == [0, 3, 7, 11]
    assert not SubsetChoice((3,), 4).is_due(0)
    assert not SubsetChoice((), 4).is_due(0)
    assert (SubsetChoice((), 4).current, SubsetChoice((), 4).frozen) == (0, 0)


def test_distances_are_those_of_mean_features() -> None:
    distiller = distribution(chunk=2)
    sources = distiller.sources
    real, augment = engines.drawn(distiller)
    network = sources.supply.network
    for size in (1, 2):
        expected = 0.0
        fake = decoded_first(distiller, distiller.synthetic.images.detach(), size)
        with torch.no_grad():
            for one, other, transform in zip(real, fake, augment, strict=True):
                means = [network.embed(transform(each)).mean(0) for each in (one, other)]
                expected += float((means[0] - means[1]).square().sum())
        assert distiller._distance(size) == pytest.approx(expected, rel=1e-9)


# What is frozen ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"updates": "per-class"},
        {"kind": "adamw", "weight_decay": 0.1},
        {"updates": "per-class", "kind": "adamw"},
    ],
    ids=str,
)
def test_frozen_images_do_not_move(rule: dict[str, Any]) -> None:
    """Neither by a gradient nor by the momentum that they have, and others do."""
    distiller = distribution(sizes=(1, 2, 4), period=2, **rule)
    distances = iter([[0.0, 0.0], [1.0, 9.0], [1.0, 0.0]])

    def choose(_: Any, original: Any = SubsetChoice.choose) -> None:
        row = next(distances)
        original(distiller.subset, lambda size: row[distiller.subset.sizes.index(size)])

    distiller.subset.choose = choose  # type: ignore[method-assign]
    images = distiller.synthetic.images
    moves = []
    for _ in range(4):
        before = images.detach().clone()
        distiller.step()
        moves.append((images.detach() - before).abs().amax((1, 2, 3)).view(3, 4) > 0)
    assert moves[0].all()  # size 1, from the first iteration on
    for moved in moves[1:3]:  # size 2
        assert not moved[:, 0].any()
        assert moved[:, 1:].all()
    assert (distiller.subset.current, distiller.subset.frozen) == (2, 1)


def test_frozen_images_move_again_where_the_smaller_size_is_chosen() -> None:
    choice = SubsetChoice((1, 2, 4), 2)
    for row in ([0.0, 0.0], [1.0, 9.0], [7.0, 9.0]):
        choice.choose(lambda size, row=row: row[size - 1])
    assert (choice.current, choice.frozen) == (1, 0)


@pytest.mark.parametrize("loop", [distribution, gradient])
def test_resumed_is_bit_identical(loop: Any) -> None:
    whole, stopped, resumed = (loop() for _ in range(3))
    for _ in range(7):
        whole.step()
    for _ in range(4):
        stopped.step()
    resumed.load_state_dict({name: value.clone() for name, value in stopped.state_dict().items()})
    assert resumed.subset.state_dict().keys() == {"position", "finished", "distances"}
    for _ in range(3):
        resumed.step()
    assert torch.equal(resumed.synthetic.images, whole.synthetic.images)
    assert resumed.subset.current == whole.subset.current
    without = loop()
    state = {**stopped.state_dict(), "subset.position": torch.tensor(-1)}
    without.load_state_dict({name: value.clone() for name, value in state.items()})
    without.subset._distances = []
    for _ in range(3):
        without.step()
    assert not torch.equal(without.synthetic.images, whole.synthetic.images)


def test_choices_do_not_depend_on_the_update_before_them() -> None:
    """A second update of an iteration has its own augmentation, and a resumed loop has made none yet."""
    whole, resumed = (distribution(period=1, calibration=0.1) for _ in range(2))
    for _ in range(2):
        whole.step()
    resumed.load_state_dict({name: value.clone() for name, value in whole.state_dict().items()})
    for distiller in (whole, resumed):
        assert {"calibration", "calibration_first"} < distiller.step().terms.keys()
    assert resumed.subset._distances == whole.subset._distances


def test_a_set_of_one_size_is_learned_as_any_other() -> None:
    plain, single = distribution(sizes=(2,)), distribution(sizes=(2,))
    plain.synthetic.sizes = ()
    for _ in range(3):
        assert plain.step().terms.keys() == single.step().terms.keys()
    assert torch.equal(plain.synthetic.images, single.synthetic.images)
    assert plain.state_dict().keys() == single.state_dict().keys()


# The option -------------------------------------------------------------------------------------------------


def test_sizes_that_are_decided() -> None:
    assert decided_sizes("auto", 1) == (1,)
    assert decided_sizes("auto", 10) == (1, 2, 5, 10)
    assert decided_sizes("auto", 12) == (1, 2, 5, 10, 12)
    assert decided_sizes("auto", 100) == (1, 2, 5, 10, 20, 50, 100)
    assert decided_sizes("auto", (7, 7)) == (1, 2, 5, 7)
    assert decided_sizes((3, 7), 7) == (3, 7)
    assert of_attribute("1,5") == (1, 5)
    assert of_attribute(3) == (3,)


def test_sizes_that_are_refused() -> None:
    for fine in ((), "auto", (10,), (1, 2, 10)):
        check_sizes(fine, 10)
    check_sizes((), (1, 2))
    check_sizes((1, 3), {"cat": 3, "dog": 3})
    for sizes, ipc, said in (
        ((2, 1, 10), 10, "do not ascend"),
        ((-1, 10), 10, "at least 1 image"),
        ((1, 2, 5), 10, "end with 5, and the IPC is 10"),
        ((1, 2), (2, 3), "all have one IPC"),
        ("auto", {"cat": 1, "dog": 2}, "all have one IPC"),
    ):
        with pytest.raises(UserError, match=said):
            check_sizes(sizes, ipc)
