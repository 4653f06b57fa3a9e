"""Neural characteristic function discrepancy: the Fourier transforms of two feature distributions, compared.

NCFM (Wang et al., CVPR 2025, *Dataset Distillation with Neural Characteristic Function: A Minmax
Perspective*). The characteristic function of samples f_i at a frequency t is φ(t) = mean_i exp(i t·f_i); two
distributions are equal where their φ agree at all frequencies.

    phases = features @ frequencies.T     one product per chunk, never kept
    φ      = mean cos(phases) + i mean sin(phases)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Characteristic = tuple[Tensor, Tensor]
"""Real and imaginary parts of characteristic functions, each [classes, F]."""

FLOOR = 1e-12
"""Least value of a phase term, as in the published code."""


def normalised(features: Tensor) -> Tensor:
    """Scale every row of [B, D] to length 1; a row of zeros stays."""
    return F.normalize(features, dim=-1, eps=1e-12)


def characteristic(
    features: Tensor, frequencies: Tensor, owner: Tensor | None = None, classes: int = 1, chunk: int = 512
) -> Characteristic:
    """Compute the empirical characteristic function of each class.

    Differentiable once, in features and in frequencies. Memory is a few matrices of [chunk, F], forward and
    backward: phases are computed anew for the gradient, and only references to the arguments are kept.

    Args:
        features: [B, D], any float dtype; computed in float32 or wider.
        frequencies: [F, D] for all classes, or [classes, F, D]: each class its own.
        owner: int64 [B] in [0, classes), the class of each feature, on the same device; in class order where
            each class has its own frequencies. None: in class order, as many of each class.
        classes: how many there are.
        chunk: features at a time.

    Returns:
        Real and imaginary part, each [classes, F] in [-1, 1]; zero for a class without features.
    """
    if owner is None:
        owner = torch.arange(classes, device=features.device).repeat_interleave(len(features) // classes)
    dtype = reduce(torch.promote_types, (features.dtype, frequencies.dtype, torch.float32))
    sets = frequencies if frequencies.ndim == 3 else frequencies[None]
    return _Characteristic.apply(features.to(dtype), sets.to(dtype), owner, classes, chunk)


def terms(real: Characteristic, synthetic: Characteristic) -> tuple[Tensor, Tensor]:
    """Split the difference of characteristic functions into amplitude and phase.

    The amplitude term (|φ| - |φ'|)² compares how scattered features are, the phase term
    2 (|φ||φ'| - Re φ Re φ' - Im φ Im φ') = 2 |φ||φ'| (1 - cos Δ) where they lie. Their sum is |φ - φ'|²; the
    phase is computed as what the amplitude leaves of it, because the difference of products as it stands
    loses all digits in float32 long before the two functions are equal.

    Args:
        real, synthetic: from `characteristic`, of the same frequencies.

    Returns:
        Amplitude and phase terms, each [classes, F] and at least 0, the phase at least ``FLOOR``.
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
        real, synthetic: from `characteristic`, of the same frequencies, each [classes, F].
        alpha: weight of the amplitude term, at least 0.
        beta: weight of the phase term, at least 0.

    Returns:
        [classes]. The slope at equality is 0, not infinite. The published code multiplies by 300.
    """
    if alpha == beta:
        difference = torch.complex(real[0] - synthetic[0], real[1] - synthetic[1])
        return math.sqrt(alpha) * difference.abs().mean(-1)
    amplitude, phase = terms(real, synthetic)
    total = alpha * amplitude + beta * phase
    return total.clamp_min(torch.finfo(total.dtype).tiny).sqrt().mean(-1)  # tiny: β may be 0


class _Characteristic(torch.autograd.Function):
    """Features [B, D], frequencies [1 or classes, F, D] and owner [B] to two [classes, F]."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, sets: Tensor, owner: Tensor, classes: int, chunk: int
    ) -> Characteristic:
        counts = owner.bincount(minlength=classes).clamp_min(1).to(features.dtype)[:, None]
        real, imaginary = (features.new_zeros(classes, sets.shape[1]) for _ in range(2))
        for rows, index in _pieces(owner, len(sets), chunk):
            phases = features[rows] @ sets[index].T
            real.index_add_(0, owner[rows], phases.cos())
            imaginary.index_add_(0, owner[rows], phases.sin_())
        ctx.save_for_backward(features, sets, owner, counts)
        ctx.chunk = chunk
        return real.div_(counts), imaginary.div_(counts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        features, sets, owner, counts = ctx.saved_tensors
        real, imaginary = (gradient / counts for gradient in upstream)
        to_features = torch.empty_like(features) if ctx.needs_input_grad[0] else None
        to_sets = torch.zeros_like(sets) if ctx.needs_input_grad[1] else None
        for rows, index in _pieces(owner, len(sets), ctx.chunk):
            phases = features[rows] @ sets[index].T
            slope = phases.cos().mul_(imaginary[owner[rows]])
            slope.addcmul_(phases.sin_(), real[owner[rows]], value=-1)
            if to_features is not None:
                to_features[rows] = slope @ sets[index]
            if to_sets is not None:
                to_sets[index].addmm_(slope.T, features[rows])
        return to_features, to_sets, None, None, None


def _pieces(owner: Tensor, sets: int, chunk: int) -> Iterator[tuple[slice, int]]:
    """Yield rows, at most ``chunk`` at a time, with the one set of frequencies that they are met with."""
    sizes = [len(owner)] if sets == 1 else owner.bincount(minlength=sets).tolist()
    first = 0
    for index, size in enumerate(sizes):
        for start in range(first, first + size, chunk):
            yield slice(start, min(start + chunk, first + size)), index
        first += size
