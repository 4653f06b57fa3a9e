"""Distances between two gradients of one network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, assert_never

import torch
from torch import Tensor, nn

from dsdistill.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float

Metric = Literal["cosine", "squared", "l1", "l1_mean", "cosine_whole"]
"""How two gradients are compared, see `distance`."""

Matched = Literal["weights", "convolutions", "all"]
"""Parameters whose gradients are compared: those of two or more dimensions (DC), of four (IDC), or all."""

EPSILON = 1e-6
"""Added to the product of two norms, as in the published code; not a lower bound for it."""


def matched_parameters(network: nn.Module, which: Matched, metric: Metric) -> list[str]:
    """Return the names of the parameters whose gradients are compared, in the network's order.

    "weights" are convolutions, linear layers and the [C, H, W] weights of layer normalisation. Biases and
    other vectors are left out for "cosine", which ignores them.

    Raises:
        UserError: if the network has no such parameter.

    >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 2))
    >>> matched_parameters(network, "weights", "l1"), matched_parameters(network, "convolutions", "squared")
    (['0.weight', '2.weight'], ['0.weight'])
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


def distance(
    metric: Metric, synthetic: Sequence[Float[Tensor, "*_"]], real: Sequence[Float[Tensor, "*_"]]
) -> Float[Tensor, ""]:
    """Measure how far one gradient is from another, summed over tensors; differentiable in ``synthetic``.

    A row is an output channel: convolutions are read as [out, in·k·k], layer normalisation as [C, H·W].

    - "cosine": Σ over rows of 1 - ⟨a, b⟩ / (‖a‖‖b‖ + ε); vectors (biases, norms) count zero. DC (Zhao et
      al. 2021, *Dataset Condensation with Gradient Matching*, "Gradient matching loss"), DSA.
    - "squared": Σ (a - b)² over all entries. IDC (Kim et al. 2022), whose code and DC's call it "mse".
    - "l1": Σ |a - b| over all entries. IDC.
    - "l1_mean": Σ over rows of the mean of |a - b|; every entry of a vector is a row. IDC.
    - "cosine_whole": one cosine of all tensors as a single row, vectors too. DC's code calls it "cos".

    Only "l1_mean" averages, over its rows: the published pixel learning rates belong to sums.

    Args:
        synthetic, real: gradients of the same parameters in the same order, of one float dtype and device.

    Returns:
        Scalar. Gradients of zero give finite values and derivatives: that of a norm at 0 is taken as 0.

    >>> distance("squared", [torch.zeros(2, 2)], [torch.ones(2, 2)])
    tensor(4.)
    """
    if metric == "cosine_whole":
        return _cosine(_one_row(synthetic), _one_row(real))
    zero = synthetic[0].new_zeros(())
    return sum((_tensor_distance(metric, a, b) for a, b in zip(synthetic, real, strict=True)), start=zero)


def distance_and_grad(
    metric: Metric, synthetic: Sequence[Float[Tensor, "*_"]], real: Sequence[Float[Tensor, "*_"]]
) -> tuple[Float[Tensor, ""], list[Tensor]]:
    """Return `distance` and its derivative with respect to each of ``synthetic``, both without a graph.

    >>> distance_and_grad("squared", [torch.zeros(2)], [torch.ones(2)])
    (tensor(2.), [tensor([-2., -2.])])
    """
    leaves = [tensor.detach().requires_grad_() for tensor in synthetic]
    with torch.enable_grad():
        value = distance(metric, leaves, [tensor.detach() for tensor in real])
    return value.detach(), list(torch.autograd.grad(value, leaves))


def _tensor_distance(metric: Literal["cosine", "squared", "l1", "l1_mean"], a: Tensor, b: Tensor) -> Tensor:
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
