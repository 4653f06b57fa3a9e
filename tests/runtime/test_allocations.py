"""The bytes of tensors that a computation holds."""

from __future__ import annotations

import torch
from torch import Tensor

from dsdistill.runtime.allocations import Allocations, peak_of


def test_the_peak_is_of_what_is_alive_at_once() -> None:
    def two_then_one() -> Tensor:
        first = torch.ones(100)
        second = first + first
        del first
        return second * 2

    assert peak_of(two_then_one) == 2 * 400


def test_views_and_tensors_from_before_are_not_counted() -> None:
    given = torch.ones(100)

    def use() -> None:
        given[10:20].view(2, 5)
        given.mul_(2)
        (given + 1)[5:].reshape(5, 19)

    assert peak_of(use) == 400


def test_what_a_graph_keeps_is_alive_until_the_way_back() -> None:
    x = torch.ones(100, requires_grad=True)
    with Allocations() as allocations:
        total = (x.exp().exp().exp()).sum()
        kept = allocations.count()
        total.backward()
        after = allocations.count()
    assert kept == 3 * 400 + 4  # each exponential keeps its result
    assert after == 400 + 4  # the gradient, and the sum
    assert allocations.peak > kept
