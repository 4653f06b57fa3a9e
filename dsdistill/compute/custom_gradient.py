"""Gradients that were found by other means than a graph, handed to autograd as if there had been one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Given(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, count: int, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors[count:])
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        slopes = ctx.saved_tensors
        return None, None, *(upstream[0] * slope for slope in slopes), *(None for _ in slopes)


def attach_gradients(value: Tensor, *pairs: tuple[Tensor, Tensor]) -> Tensor:
    """Return a scalar ``value`` whose gradient to each x of pairs (x, slope) is that slope; once only.

    Differentiating it twice raises: slopes, of the shapes of their x, are numbers and not functions of x.
    """
    return _Given.apply(value, len(pairs), *(x for x, _ in pairs), *(slope for _, slope in pairs))
