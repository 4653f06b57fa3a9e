"""Which parameters of a factory take what."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from dsdistill.errors import UserError
from dsdistill.networks.factories import make


class Given(nn.Linear):
    """A module that tells what it was made with."""

    def __init__(self, *values: Any) -> None:
        super().__init__(1, 1)
        self.values = values


def reversed_names(num_classes: int, im_size: int, channel: int) -> nn.Module:
    return Given(channel, im_size, num_classes)


def by_keyword(*, image_size: int, width: int = 8, in_channels: int = 3, n_classes: int) -> nn.Module:
    return Given(in_channels, image_size, n_classes)


def classes_only(num_classes: int = 1000, dropout: float = 0.5) -> nn.Module:
    return Given(num_classes)


def positional(a: int, b: int, c: int, depth: int = 3) -> nn.Module:
    return Given(a, b, c)


def strictly_positional(channels: int, size: int, classes: int, /) -> nn.Module:
    return Given(channels, size, classes)


def starred(*sizes: int) -> nn.Module:
    return Given(*sizes)


def pair(channel: int, num_classes: int, im_size: tuple[int, int] = (32, 32)) -> nn.Module:
    return Given(channel, im_size, num_classes)


def none(depth: int = 3, width: int = 64, act: str = "relu") -> nn.Module:
    return Given(depth)


@pytest.mark.parametrize(
    ("factory", "values"),
    [
        (reversed_names, (1, 8, 10)),
        (by_keyword, (1, 8, 10)),
        (classes_only, (10,)),
        (positional, (1, 8, 10)),
        (strictly_positional, (1, 8, 10)),
        (starred, (1, 8, 10)),
        (pair, (1, (8, 8), 10)),
        (none, (3,)),
        (partial(positional, depth=4), (1, 8, 10)),
    ],
)
def test_parameters_are_recognised(factory: Callable[..., nn.Module], values: tuple[Any, ...]) -> None:
    made = make("mine", factory, 1, 8, 10)
    assert isinstance(made, Given)
    assert made.values == values


def needy(channels: int, depth: int, num_classes: int) -> nn.Module:
    raise AssertionError


def failing(num_classes: int) -> nn.Module:
    raise ValueError("no such depth\nmore")


def wrong(num_classes: int) -> Any:
    return torch.zeros(num_classes)


def lazy(num_classes: int) -> nn.Module:
    return nn.LazyLinear(num_classes)


def empty(num_classes: int) -> nn.Module:
    return nn.Flatten()


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (
            needy,
            "network mine needs depth, which nobody gives: it is made with channels, size and num_classes",
        ),
        (failing, r"network mine cannot be made with \(num_classes=10\): ValueError: no such depth$"),
        (wrong, "network mine makes a Tensor, not a torch.nn.Module"),
        (lazy, "network mine has lazy layers"),
        (empty, "network mine has no parameters to train"),
    ],
)
def test_factories_that_are_refused(factory: Callable[..., nn.Module], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make("mine", factory, 1, 8, 10)
