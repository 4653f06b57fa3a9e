"""Neural characteristic function discrepancy: the Fourier transforms of two feature distributions, compared.

NCFM (Wang et al., CVPR 2025, *Dataset Distillation with Neural Characteristic Function: A Minmax
Perspective*). The characteristic function of samples f_i at a frequency t is φ(t) = mean_i exp(i t·f_i); two
distributions are equal where their φ agree at all frequencies.

    phases = features @ frequencies.T     one product per chunk, never kept
    φ      = mean cos(phases) + i mean sin(phases)
"""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Characteristic = tuple[Tensor, Tensor]
"""Real and imaginary part of a characteristic function, each [F]."""

FLOOR = 1e-12
"""Least value of a phase term, as in the published code."""


def normalised(features: Tensor) -> Tensor:
    """Scale every row of [B, D] to length 1; a row of zeros stays."""
    return F.normalize(features, dim=-1, eps=1e-12)


def characteristic(features: Tensor, frequencies: Tensor, chunk: int = 512) -> Characteristic:
    """Compute the empirical characteristic function of samples.

    Differentiable once, in features and in frequencies. Memory is a few matrices of [chunk, F], forward and
    backward: phases are computed anew for the gradient, and only references to the arguments are kept.

    Args:
        features: [B, D], any float dtype; computed in float32 or wider.
        frequencies: [F, D].
        chunk: features at a time.

    Returns:
        Real and imaginary part, each [F] in [-1, 1].
    """
    dtype = reduce(torch.promote_types, (features.dtype, frequencies.dtype, torch.float32))
    return _Characteristic.apply(features.to(dtype), frequencies.to(dtype), chunk)


def terms(real: Characteristic, synthetic: Characteristic) -> tuple[Tensor, Tensor]:
    """Split the difference of characteristic functions into amplitude and phase.

    The amplitude term (|φ| - |φ'|)² compares how scattered features are, the phase term
    2 (|φ||φ'| - Re φ Re φ' - Im φ Im φ') = 2 |φ||φ'| (1 - cos Δ) where they lie. Their sum is |φ - φ'|²; the
    phase is computed as what the amplitude leaves of it, because the difference of products as it stands
    loses all digits in float32 long before the two functions are equal.

    Args:
        real, synthetic: from `characteristic`, of the same frequencies.

    Returns:
        Amplitude and phase terms, each [F] and at least 0, the phase at least ``FLOOR``.
    """
    ours, theirs = torch.complex(*synthetic), torch.complex(*real)  # whose abs has the slope 0 at 0
    amplitude = (theirs.abs() - ours.abs()).square()
    whole = (real[0] - synthetic[0]).square() + (real[1] - synthetic[1]).square()
    return amplitude, (whole - amplitude).clamp_min(FLOOR)


def discrepancy(
    real: Characteristic, synthetic: Characteristic, alpha: float = 0.5, beta: float = 0.5
) -> Tensor:
    """Average √(α amplitude + β phase) over frequencies: how far apart characteristic functions are.

    Where α = β that is √α |φ - φ'| and computed so, without ``FLOOR``: at most √(β·1e-12) less per frequency,
    and with a slope towards equality where the floor has none. Only phase terms below 1e-12 see a
    difference, and those are as good as equal.

    Args:
        real, synthetic: from `characteristic`, of the same frequencies.
        alpha: weight of the amplitude term, at least 0.
        beta: weight of the phase term, at least 0.

    Returns:
        Scalar. The slope at equality is 0, not infinite. The published code multiplies by 300.
    """
    if alpha == beta:
        difference = torch.complex(real[0] - synthetic[0], real[1] - synthetic[1])
        return math.sqrt(alpha) * difference.abs().mean()
    amplitude, phase = terms(real, synthetic)
    total = alpha * amplitude + beta * phase
    return total.clamp_min(torch.finfo(total.dtype).tiny).sqrt().mean()  # tiny: β may be 0


class _Characteristic(torch.autograd.Function):
    """Features [B, D] and frequencies [F, D] to two [F]."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, frequencies: Tensor, chunk: int) -> Characteristic:
        real, imaginary = (features.new_zeros(len(frequencies)) for _ in range(2))
        for part in features.split(chunk):
            phases = part @ frequencies.T
            real += phases.cos().sum(0)
            imaginary += phases.sin_().sum(0)
        ctx.save_for_backward(features, frequencies)
        ctx.chunk = chunk
        return real.div_(len(features)), imaginary.div_(len(features))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        features, frequencies = ctx.saved_tensors
        real, imaginary = (gradient / len(features) for gradient in upstream)
        to_features = torch.empty_like(features) if ctx.needs_input_grad[0] else None
        to_frequencies = torch.zeros_like(frequencies) if ctx.needs_input_grad[1] else None
        for start in range(0, len(features), ctx.chunk):
            rows = slice(start, start + ctx.chunk)
            phases = features[rows] @ frequencies.T
            slope = phases.cos().mul_(imaginary)
            slope.addcmul_(phases.sin_(), real, value=-1)
            if to_features is not None:
                to_features[rows] = slope @ frequencies
            if to_frequencies is not None:
                to_frequencies.addmm_(slope.T, features[rows])
        return to_features, to_frequencies, None
