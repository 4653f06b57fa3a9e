"""Hands autograd gradients that were computed without a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

if TYPE_CHECKING:
    from jaxtyping import Float


class _AttachedGradients(Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, count: int, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors[count:])
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs_grad: Tensor) -> tuple[Tensor | None, ...]:
        grads = ctx.saved_tensors
        return None, None, *(outputs_grad[0] * grad for grad in grads), *(None for _ in grads)


def attach_gradients(
    value: Float[Tensor, ""], *pairs: tuple[Float[Tensor, "*_"], Float[Tensor, "*_"]]
) -> Float[Tensor, ""]:
    """Return a scalar ``value`` whose gradient to each x of the pairs (x, grad) is that grad.

    Each grad has the shape of its x. It is a constant, so differentiating twice raises a RuntimeError.

    >>> x = torch.ones(2, requires_grad=True)
    >>> attach_gradients(torch.tensor(5.0), (x, torch.tensor([1.0, -1.0]))).backward()
    >>> x.grad
    tensor([ 1., -1.])
    """
    return _AttachedGradients.apply(value, len(pairs), *(x for x, _ in pairs), *(grad for _, grad in pairs))


def settled(value: Float[Tensor, ""], parameters: Sequence[Tensor]) -> Float[Tensor, ""]:
    """Differentiate a scalar now, so that whatever it was computed by may change before the way back.

    >>> x, weights = torch.ones(2, requires_grad=True), torch.tensor([3.0, -1.0])
    >>> value = settled((weights * x).sum(), [x])
    >>> weights.zero_()
    tensor([0., 0.])
    >>> value.backward()
    >>> x.grad
    tensor([ 3., -1.])

    Args:
        value: with a graph to some of the parameters.
        parameters: that it is to be differentiated to.

    Returns:
        the same value, with the same gradient to them as a constant.
    """
    grads = torch.autograd.grad(value, list(parameters), allow_unused=True)
    pairs = [(each, grad) for each, grad in zip(parameters, grads, strict=True) if grad is not None]
    return attach_gradients(value.detach(), *pairs)
