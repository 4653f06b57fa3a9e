"""Codings within a budget: what fits, and what changes pixels least."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dsdistill.config.storage import CodingConfig, bytes_of_budget
from dsdistill.encoding.search import bytes_of, coded
from dsdistill.errors import UserError
from dsdistill.pipeline.encode import resolve
from dsdistill.synthetic.coded import Coder


def images(count: int = 20) -> Tensor:
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def error(found: Tensor) -> float:
    return float((found - images()).square().mean())


def test_the_largest_number_of_scales_that_fits() -> None:
    room = 2500
    found = coded(images(), CodingConfig(bits=3), room)
    assert bytes_of(found) <= room
    more = Coder(images(), patch=4).code(3, 2 * found.coding.groups)
    assert bytes_of(more) > room


def test_bits_are_those_of_the_least_error() -> None:
    room = 3200
    best = coded(images(), CodingConfig(), room)
    assert bytes_of(best) <= room
    for bits in range(1, 9):
        try:
            other = coded(images(), CodingConfig(bits=bits), room)
        except UserError:
            continue
        assert error(best.decode()) <= error(other.decode()) + 1e-12
    assert error(coded(images(), CodingConfig(), 2 * room).decode()) < error(best.decode())


def test_without_a_budget_bits_are_eight_or_those_that_are_asked_for() -> None:
    assert (coded(images(), CodingConfig()).bits, coded(images(), CodingConfig()).patch) == (8, 0)
    two = coded(images(), CodingConfig(bits=2))
    assert (two.bits, two.patch, two.coding.groups) == (2, 4, 64)


def test_nothing_fits() -> None:
    with pytest.raises(
        UserError, match=r"leaves 100 bytes .* which take [\d,]+ at least \(1 bit in patches of 4×4"
    ):
        coded(images(), CodingConfig(), 100)


@pytest.mark.parametrize("options", [{"bits": 0}, {"bits": 9}, {"patch": -1}, {"refine": -1}])
def test_options_out_of_range(options: dict[str, int]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        resolve(**options)


@pytest.mark.parametrize(("budget", "size"), [("0.5 ipc", 5 * 64), ("0.25 images", 16), ("1B", 1)])
def test_budgets_below_one_float32_image_may_hold_coded_ones(budget: str, size: int) -> None:
    assert bytes_of_budget(CodingConfig(budget=budget).budget, 64, 10) == size


@pytest.mark.parametrize("budget", ["0B", "ten bytes", "-5B", "3 apples", "inf"])
def test_budgets_that_are_none(budget: str) -> None:
    with pytest.raises(UserError, match="budget"):
        CodingConfig(budget=budget)
