"""Hands autograd gradients that were computed without a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
