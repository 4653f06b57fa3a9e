"""Distances between two gradients of one network: how differently two batches would train it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, assert_never

import torch
from torch import Tensor, nn

from dsdistill.errors import UserError

Metric = Literal["cosine", "squared", "l1", "l1_mean", "cosine_whole"]
"""How two gradients are compared, see `distance`."""

Matched = Literal["weights", "convolutions", "all"]
"""Whose gradients: tensors of two or more dimensions (DC), of four (IDC), or every parameter."""

EPSILON = 1e-6
"""Added to the product of two norms, as in the published code; not a lower bound for it."""


def matched_parameters(network: nn.Module, which: Matched, metric: Metric) -> list[str]:
    """Name the parameters whose gradients the distance reads, in the network's order.

    "weights" are convolutions, linear layers and the [C, H, W] weights of layer normalisation. Biases and
    other vectors are never named for "cosine", which gives them no distance.

    Raises:
        UserError: if the network has no such parameter.
    """
    least = 2 if which == "weights" or metric == "cosine" else 0
    names = [
        name
        for name, parameter in network.named_parameters()
        if (parameter.ndim == 4 if which == "convolutions" else parameter.ndim >= least)
    ]
    if not names:
        kind = type(network).__name__
        if which == "convolutions":
            raise UserError(f"{kind} has no convolutions to match gradients of; match its weights instead")
        raise UserError(f"{kind} has no weights to match gradients of; choose another network")
    return names


def distance(metric: Metric, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """Measure how far one gradient is from another, summed over tensors; differentiable in ``ours``.

    A row is an output channel: convolutions are read as [out, in·k·k], layer normalisation as [C, H·W].

    - "cosine": Σ over rows of 1 - ⟨a, b⟩ / (‖a‖‖b‖ + ε); vectors (biases, norms) count nothing. DC (Zhao et
      al. 2021, *Dataset Condensation with Gradient Matching*, "Gradient matching loss"), DSA.
    - "squared": Σ (a - b)² over all entries. IDC (Kim et al. 2022), whose code and DC's call it "mse".
    - "l1": Σ |a - b| over all entries. IDC.
    - "l1_mean": Σ over rows of the mean of |a - b|; every entry of a vector is a row. IDC.
    - "cosine_whole": one cosine of all tensors as a single row, vectors too. DC's code calls it "cos".

    Nothing is averaged but the rows of "l1_mean": the published pixel learning rates belong to sums.

    Args:
        ours, theirs: gradients of the same parameters in the same order, of one float dtype and device.

    Returns:
        Scalar. Gradients of zero give finite values and slopes: the slope of a norm at 0 is taken as 0.
    """
    if metric == "cosine_whole":
        return _cosine(_one_row(ours), _one_row(theirs))
    zero = ours[0].new_zeros(())
    return sum((_between(metric, a, b) for a, b in zip(ours, theirs, strict=True)), start=zero)


def distance_and_grad(
    metric: Metric, ours: Sequence[Tensor], theirs: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Return `distance` and its derivative with respect to each of ``ours``, both without a graph."""
    moving = [tensor.detach().requires_grad_() for tensor in ours]
    with torch.enable_grad():
        value = distance(metric, moving, [tensor.detach() for tensor in theirs])
    return value.detach(), list(torch.autograd.grad(value, moving))


def _between(metric: Literal["cosine", "squared", "l1", "l1_mean"], a: Tensor, b: Tensor) -> Tensor:
    """The distance of one tensor."""
    match metric:
        case "cosine":
            return _cosine(_rows(a), _rows(b))
        case "squared":
            return (a - b).square().sum()
        case "l1":
            return (a - b).abs().sum()
        case "l1_mean":
            return (a - b).abs().sum() / math.prod(a.shape[1:])
        case _:
            assert_never(metric)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Rows [R, D] to the sum of their R distances."""
    norms = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    return (1 - (a * b).sum(1) / (norms + EPSILON)).sum()


def _rows(tensor: Tensor) -> Tensor:
    """[out, …] to [out, D]; a vector has no rows."""
    return tensor.flatten(1) if tensor.ndim > 1 else tensor.reshape(-1, 1)[:0]


def _one_row(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])[None]
