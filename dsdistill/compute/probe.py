"""A linear probe: the best linear classifier of features that stay as they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int64

DECAY = 1e-3
"""The weight of half the squared weights, of standardised features, in the loss of a probe."""
_STEPS = 100
_FLAT = 1e-6  # of a feature's deviation; what varies less is left out


def joined(parts: Iterable[Float[Tensor, "n D"]], count: int) -> Float[Tensor, "N D"]:
    """Join the features of so many images, which come in parts, none of which is kept.

    >>> joined((torch.full((2, 1), float(number)) for number in range(2)), count=4).T
    tensor([[0., 0., 1., 1.]])

    Raises:
        ValueError: they are not so many.
    """
    whole: Tensor | None = None
    done = 0
    for part in parts:
        whole = part.new_empty(count, part.shape[1]) if whole is None else whole
        done += len(part)
        if done <= count:
            whole[done - len(part) : done] = part
    if whole is None or done != count:
        raise ValueError(f"the features of {done} images came where those of {count} were announced")
    return whole


def linear_probe(
    features: Float[Tensor, "N D"],
    labels: Int64[Tensor, " N"],
    classes: int,
    decay: float = DECAY,
    overwrite: bool = False,
) -> tuple[Float[Tensor, "K D"], Float[Tensor, " K"]]:
    """Fit a linear classifier: the minimum of the mean cross-entropy and of ``decay`` / 2 · ‖weights‖².

    The minimum is one and the same wherever one starts, so that nothing is drawn. It is found by L-BFGS from
    zero on, of features that are standardised, and rewritten for the features as they are.

    Args:
        features: without a graph.
        labels: in [0, K).
        classes: K.
        decay: positive.
        overwrite: whether the features may be standardised where they are, which spares a copy of them.

    Returns:
        weight and bias, as of a `torch.nn.Linear`, in the dtype of the features.

    >>> x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    >>> weight, bias = linear_probe(x, torch.tensor([0, 0, 1, 1]), 2)
    >>> (x @ weight.T + bias).argmax(1)
    tensor([0, 0, 1, 1])
    """
    mean, deviation = features.mean(0), features.std(0, unbiased=False)
    scale = torch.where(deviation > _FLAT, 1 / deviation.clamp(min=_FLAT), 0.0)
    inputs = (features if overwrite else features.clone()).sub_(mean).mul_(scale)
    weight = inputs.new_zeros(classes, inputs.shape[1], requires_grad=True)
    bias = inputs.new_zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(inputs @ weight.T + bias, labels) + decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
    raw_weight = weight.detach() * scale
    return raw_weight, bias.detach() - raw_weight @ mean
