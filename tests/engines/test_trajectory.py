"""The trajectory engine against unrolled steps in float64, and where its students start."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dsdistill.compute.unroll import UnrolledStudent
from dsdistill.distillation.loop import Distiller
from dsdistill.engines.trajectory import StartConfig, StudentConfig
from dsdistill.errors import UserError
from dsdistill.seeding import generator
from dsdistill.supply.trajectories import Trajectories, TrajectoriesConfig
from tests.helpers.marks import slow_but_first
from tests.helpers.trajectories import (
    CASES,
    FAST,
    HEAVY,
    NETWORK,
    SOFT,
    buffers,
    check,
    found,
    loop,
    naive,
)


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return buffers(tmp_path_factory.mktemp("experts"))


# Loss and gradients -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("iteration", slow_but_first(range(4)))
def test_loss_and_gradients_equal_unrolled_steps(experts: Path, case: str, iteration: int) -> None:
    distiller = loop(experts, **CASES[case])
    distiller.sources.iteration = iteration
    if distiller.synthetic.label_logits is not None:  # images of one class get labels that tell them apart
        logits = distiller.synthetic.label_logits.data
        logits += torch.randn(logits.shape, generator=generator(0, "labels"))
    check(found(distiller), naive(distiller))


@pytest.mark.parametrize("student", [FAST, HEAVY], ids=["plain", "momentum"])
def test_truncated_and_halved(experts: Path, student: StudentConfig) -> None:
    told: dict[str, Any] = {"student": student, "labels": SOFT, "batch_synthetic": 4}
    exact, truncated, halved = (
        found(loop(experts, gradient=kind, **told)) for kind in ("exact", "truncated", "halved")
    )
    check(truncated, naive(loop(experts, **told), truncated=True))
    assert not torch.allclose(truncated[1][0], exact[1][0], rtol=1e-3)
    assert exact[0] == truncated[0] == halved[0]
    torch.testing.assert_close(halved[1][0], truncated[1][0] / 2)
    assert all(torch.equal(*each) for each in zip(halved[1][1:], truncated[1][1:], strict=True))


# Where a student starts -------------------------------------------------------------------------------------

Walks = list[tuple[UnrolledStudent, list[Tensor]]]
Asked = list[tuple[int, int]]


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> Walks:
    """Return every student that has walked, with its path."""
    seen, walk = Walks(), UnrolledStudent.unroll

    def spy(student: UnrolledStudent, *told: Any) -> list[Tensor]:
        seen.append((student, walk(student, *told)))
        return seen[-1][1]

    monkeypatch.setattr(UnrolledStudent, "unroll", spy)
    return seen


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Return every expert and epoch whose weights were read."""
    seen, read = Asked(), Trajectories.weights

    def spy(supply: Trajectories, expert: int, epoch: int, like: Tensor) -> Tensor:
        seen.append((expert, epoch))
        return read(supply, expert, epoch, like)

    monkeypatch.setattr(Trajectories, "weights", spy)
    return seen


def starts(asked: Asked, distiller: Distiller, iterations: int) -> Asked:
    """Return the expert and the epoch that each iteration starts from."""
    asked.clear()
    for iteration in range(iterations):
        distiller.sources.iteration = iteration
        distiller.engine.loss(distiller.synthetic, distiller.sources)
    pairs = list(zip(asked[::2], asked[1::2], strict=True))
    assert all(goal == (expert, epoch + 2) for (expert, epoch), goal in pairs)
    return asked[::2]


@pytest.mark.slow
def test_students_start_all_over_the_range(experts: Path, asked: Asked) -> None:
    distiller = loop(experts, steps=1, start=StartConfig(least=1, most=5))
    counts = Counter(epoch for _, epoch in starts(asked, distiller, 80))
    assert set(counts) == {1, 2, 3, 4}
    assert min(counts.values()) > 10


@pytest.mark.slow
def test_the_range_widens(experts: Path, asked: Asked) -> None:
    start = StartConfig(least=1, most=6, widen_from=2, widen_until=40)
    bounds = [start.below(iteration) for iteration in range(60)]
    assert bounds[:41:10] == [2, 3, 4, 5, 6]
    assert bounds == sorted(bounds)
    assert bounds[39:] == [5] + 20 * [6]
    epochs = [epoch for _, epoch in starts(asked, loop(experts, steps=1, start=start), 60)]
    assert all(1 <= epoch < bound for epoch, bound in zip(epochs, bounds, strict=True))
    assert set(epochs[40:]) == {1, 2, 3, 4, 5}
    assert StartConfig(most=7).below(0) == StartConfig(most=7).below(10**6) == 7
    assert StartConfig(most=3, widen_from=5, widen_until=9).below(0) == 3


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"least": 3, "most": 3}, r"start\.least = 3 has to lie below engine\.start\.most = 3"),
        ({"least": 2, "most": 9, "widen_from": 2, "widen_until": 5}, r"below engine\.start\.widen_from = 2"),
        ({"most": 9, "widen_until": 5}, r"below engine\.start\.widen_from = 0"),
    ],
)
def test_a_range_of_nothing_is_refused(told: dict[str, int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        StartConfig(**told)


@pytest.mark.slow
def test_every_expert_is_followed_once_a_round(experts: Path, asked: Asked) -> None:
    def rounds(seed: int) -> list[tuple[int, ...]]:
        followed = [expert for expert, _ in starts(asked, loop(experts, steps=1, seed=seed), 18)]
        return [tuple(followed[at : at + 3]) for at in range(0, 18, 3)]

    first = rounds(0)
    assert all(sorted(each) == [0, 1, 2] for each in first)
    assert len(set(first)) > 2
    assert rounds(1) != first


def test_fewer_experts_may_be_followed_but_not_more(experts: Path, asked: Asked) -> None:
    path = str(experts / f"{NETWORK}.h5")
    two = loop(experts, steps=1, supply=TrajectoriesConfig(path=path, experts=2))
    assert {expert for expert, _ in starts(asked, two, 12)} == {0, 1}
    with pytest.raises(UserError, match="holds 3 experts, not 4"):
        loop(experts, supply=TrajectoriesConfig(path=path, experts=4))


def test_only_convolutions_are_perturbed(experts: Path, walks: Walks, asked: Asked) -> None:
    distiller = loop(experts, perturbation=0.5)
    losses = []
    for iteration in range(3):
        distiller.sources.iteration = iteration
        losses.append(float(found(distiller)[0]))
    supply = distiller.sources.supply
    assert isinstance(supply, Trajectories)
    noises = []
    for (_, path), before, after, loss in zip(walks, asked[::2], asked[1::2], losses, strict=True):
        plain, goal = (supply.file.flat(*each).double() for each in (before, after))
        changed = supply.layout.views(path[0])
        for name, value in supply.layout.views(plain).items():
            if value.dim() == 4:
                noises.append((changed[name] - value) / value)
                torch.testing.assert_close(noises[-1].norm().item(), 0.5)
            else:
                assert torch.equal(changed[name], value)
        distance = (path[0] - goal).square().sum()
        torch.testing.assert_close(loss, ((path[-1] - goal).square().sum() / distance).item())
    assert len(noises) == 6
    assert len({float(noise.flatten()[0]) for noise in noises}) == 6


@pytest.mark.slow
def test_the_loss_is_balanced_by_where_a_student_starts(experts: Path, walks: Walks, asked: Asked) -> None:
    epochs = [epoch for _, epoch in starts(asked, loop(experts, steps=1, balance=True), 40)]
    factors = {epoch: student.weight for epoch, (student, _) in zip(epochs, walks, strict=True)}
    log5 = {distance: math.log(8 + distance) / math.log(5) for distance in range(3)}
    expected = {0: 1 / log5[2], 1: 1 / log5[1], 2: log5[0], 3: log5[1], 4: log5[2]}
    assert factors == pytest.approx(expected)
