"""The adversary of NCFM: a network that learns the frequencies at which real and synthetic features differ.

frequencies = reversed_gradient(sampler.draw(noise))
loss(images, frequencies).backward()   # descent for the images, ascent for the sampler
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FrequencySampler(nn.Module):
    """Map standard normal noise to frequencies: t = z + r / √D · tanh(MLP(z)), in D dimensions, as features.

    The minmax is that of NCFM (Wang et al., CVPR 2025). The network differs from theirs, which maps few rows
    of noise and repeats its output. Here every row has noise of its own, so F frequencies span min(F, D)
    dimensions. The last layer starts at zero, so the frequencies of the first step are exactly N(0, I),
    NCFM's distribution without an adversary. For a feature f of unit length, t·f differs from z·f by at most
    the reach r, for every D. The ascent therefore cannot reach frequencies so high that they only tell
    single samples apart.

    Weights are drawn from torch's global generator: construct the module inside ``seeding.forked``.

    Attributes:
        dim: D, the length of a feature and of a frequency.
        reach: r, the largest length of t - z.
    """

    def __init__(self, dim: int, hidden: int = 256, reach: float = 2.0) -> None:
        super().__init__()
        self.dim = dim
        self.reach = reach
        self.inner = nn.Linear(dim, hidden)
        self.outer = nn.Linear(hidden, dim)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def draw(self, noise: Tensor) -> Tensor:
        """Turn standard normal noise [F, dim] into frequencies [F, dim], differentiable in the weights."""
        direction = self.outer(F.leaky_relu(self.inner(noise), 0.2)).tanh()
        return noise + self.reach / math.sqrt(self.dim) * direction


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        return -upstream[0]


def reversed_gradient(x: Tensor) -> Tensor:
    """Return ``x``; its gradient is negated (gradient reversal, Ganin & Lempitsky, ICML 2015).

    The parameters behind ``x`` ascend the loss in the same backward pass in which all others descend, so no
    gradient has to be cleared in between.
    """
    return _Reversed.apply(x)
