"""The adversary of NCFM: a network that learns at which frequencies real and synthetic features differ most.

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

    The idea is the minmax of NCFM (Wang et al., CVPR 2025); the network is not theirs, which maps few rows
    of noise and repeats its output. Here every row has its own noise and stays distinct, so that F
    frequencies span min(F, D) dimensions. The last layer starts at zero: before the first step frequencies
    are exactly N(0, I), NCFM's distribution without an adversary. What a frequency reads of a feature f of
    unit length, t·f, stays within the reach r of z·f, whatever D is, so that the ascent cannot escape to
    frequencies so high that they see nothing but single samples.

    Weights are drawn from torch's global generator: build it inside ``seeding.forked``.

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

    What made ``x`` climbs the loss in the same backward pass in which everything else descends, so neither
    gradient needs to be cleared for the other.
    """
    return _Reversed.apply(x)
