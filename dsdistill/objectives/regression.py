"""Kernel ridge regression in closed form, as the last layer of a network that is solved and not trained.

Of features Φ [n, D] and targets Y [n, d] it gives the weights W [D, d] that minimise
‖Φ W - Y‖² + λ ‖W‖²; what they say of other features is Φ' W. FRePo (Zhou et al., *Dataset Distillation using
Neural Feature Regression*, NeurIPS 2022) and KRR-ST (Lee et al., *Self-Supervised Dataset Distillation for
Transfer Learning*, ICLR 2024) differentiate W to images and targets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from dsdistill.errors import UserError
from dsdistill.objectives.precision import working_dtype

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

Form = Literal["auto", "dual", "primal"]

_BLOCK_VALUES = 1 << 20
"""Values of an operand that are converted to another precision at once."""

_JITTER = 1e-7
"""What is added to the diagonal first where float32 is too coarse, relative to its mean."""


def ridge(
    features: Float[Tensor, "n D"], strength: float, *, mean: bool, detached: bool
) -> Float[Tensor, ""]:
    """Return λ, a share of the trace of the kernel Φ Φᵀ, which is the sum of the squares of Φ.

    >>> ridge(torch.ones(2, 3), 0.5, mean=True, detached=True)
    tensor(1.5000)

    Args:
        strength: the share.
        mean: whether the trace is divided by n, as in FRePo; KRR-ST takes the trace.
        detached: whether λ counts as a constant in gradients, as in KRR-ST.
    """
    known = features.detach() if detached else features
    return strength * known.square().sum() / (len(features) if mean else 1)


def ridge_weights(
    features: Float[Tensor, "n D"],
    targets: Float[Tensor, "n d"],
    penalty: Float[Tensor, ""],
    *,
    dtype: torch.dtype = torch.float64,
    form: Form = "auto",
) -> Float[Tensor, "D d"]:
    """Return the weights W of the regression, with a graph to features, targets and λ.

    The dual form is Φᵀ (Φ Φᵀ + λ I)⁻¹ Y, the primal one (Φᵀ Φ + λ I)⁻¹ Φᵀ Y. They are equal; "auto" takes
    the smaller system. Features stay in their own precision: blocks of them are converted as they are
    multiplied.

    >>> features = torch.eye(2)
    >>> ridge_weights(features, torch.tensor([[2.0], [4.0]]), torch.tensor(1.0))
    tensor([[1.],
            [2.]])

    Args:
        penalty: λ, positive.
        dtype: of products and solution, at least that of the features: in float32 a diagonal is raised until
            the system can be solved.

    Returns:
        in the dtype of the features.

    Raises:
        UserError: the system cannot be solved; saying what to change.
    """
    dtype = working_dtype(features.dtype, dtype)
    wide = features.shape[1] >= len(features) if form == "auto" else form == "dual"
    answers = targets.to(dtype)
    if wide:
        weights = product(features, solve(product(features.T, features.T, dtype), answers, penalty), dtype)
    else:
        right = product(features, answers, dtype)
        weights = solve(product(features, features, dtype), right, penalty)
    return weights.to(features.dtype)


def solve(
    gram: Float[Tensor, "k k"], right: Float[Tensor, "k d"], penalty: Float[Tensor, ""]
) -> Float[Tensor, "k d"]:
    """Return (G + λ I)⁻¹ R by Cholesky's decomposition, with a graph to all three.

    Rounding may leave a system that is not positive definite. Its diagonal is raised then, from a
    ten-millionth of its mean on, tenfold each time.

    >>> solve(torch.eye(2), torch.tensor([[2.0], [4.0]]), torch.tensor(1.0))
    tensor([[1.],
            [2.]])

    Raises:
        UserError: no decomposition was found.
    """
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    system = gram + penalty.to(gram.dtype) * identity
    size = float(system.detach().diagonal().mean()) or 1.0  # 0: all features are, as of a network that died
    for jitter in (0.0, *(_JITTER * size * 10**power for power in range(5))):
        factor, failed = torch.linalg.cholesky_ex(system + jitter * identity if jitter else system)
        if not failed.any():
            return torch.cholesky_solve(right, factor)
    raise UserError(
        "the kernel regression has no solution: the features are not finite, or the ridge is too small for "
        "their precision; raise engine.ridge.strength, or set engine.solver=fp64"
    )


class _Product(Function):
    """Aᵀ B over rows, in blocks of them that are converted one at a time."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(left, right)
        ctx.dtype = dtype
        total = torch.zeros(left.shape[1], right.shape[1], dtype=dtype, device=left.device)
        for some in _blocks(left, right):
            total.addmm_(left[some].to(dtype).T, right[some].to(dtype))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs_grad: Tensor) -> tuple[Tensor | None, ...]:
        left, right = ctx.saved_tensors
        (grad,) = outputs_grad
        needs_left, needs_right, _ = ctx.needs_input_grad
        to_left = torch.empty_like(left) if needs_left else None
        to_right = torch.empty_like(right) if needs_right else None
        for some in _blocks(left, right):
            if to_left is not None:
                to_left[some] = (right[some].to(ctx.dtype) @ grad.T).to(left.dtype)
            if to_right is not None:
                to_right[some] = (left[some].to(ctx.dtype) @ grad).to(right.dtype)
        return to_left, to_right, None


def _blocks(left: Tensor, right: Tensor) -> list[slice]:
    rows = max(1, _BLOCK_VALUES // max(left.shape[1], right.shape[1]))
    return [slice(start, start + rows) for start in range(0, len(left), rows)]


def product(
    left: Float[Tensor, "n k"], right: Float[Tensor, "n j"], dtype: torch.dtype
) -> Float[Tensor, "k j"]:
    """Return Aᵀ B in a precision of its own, with a graph to both, without converted copies of them.

    >>> product(torch.ones(3, 1), torch.tensor([[1.0], [2.0], [4.0]]), torch.float64)
    tensor([[7.]], dtype=torch.float64)
    """
    if left.dtype == right.dtype == dtype:
        return left.T @ right
    return _Product.apply(left, right, dtype)


def centred_one_hot(labels: Int64[Tensor, " n"], classes: int, dtype: torch.dtype) -> Float[Tensor, "n K"]:
    """Return one-hot labels less 1 / K, so that each row sums to 0.

    >>> centred_one_hot(torch.tensor([1]), 2, torch.float32)
    tensor([[-0.5000,  0.5000]])
    """
    return torch.nn.functional.one_hot(labels, classes).to(dtype) - 1 / classes


def separation(labels: Float[Tensor, "n K"]) -> Float[Tensor, ""]:
    """Return the mean of -min(y₁ - y₂, 1 / K) over learned labels, y₁ and y₂ their two largest entries.

    FRePo adds it so that these are at least 1 / K apart.

    >>> separation(torch.tensor([[0.9, -0.9], [0.1, 0.0]]))
    tensor(-0.3000)
    """
    largest = labels.topk(2, dim=1).values
    return -(largest[:, 0] - largest[:, 1]).clamp(max=1 / labels.shape[1]).mean()
