"""Neural characteristic function discrepancy: compares the Fourier transforms of two feature distributions.

NCFM (Wang et al., CVPR 2025, *Dataset Distillation with Neural Characteristic Function: A Minmax
Perspective*). The characteristic function of samples f_i at a frequency t is φ(t) = mean_i exp(i t·f_i); two
distributions are equal where their φ agree at all frequencies.

    phases = features @ frequencies.T     one product per chunk, not stored
    φ      = mean cos(phases) + i mean sin(phases)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from dsdistill.objectives.precision import working_dtype

if TYPE_CHECKING:
    from jaxtyping import Float

CharacteristicFunction = tuple["Float[Tensor, ' F']", "Float[Tensor, ' F']"]
"""Real and imaginary part of a characteristic function, each [F]."""

CHUNK = 512
"""Features whose phases are computed at a time."""

FLOOR = 1e-12
"""Least value of a phase term, as in the published code."""


def normalise(features: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
    """Scale every vector of [..., D] to length 1; a vector of zeros stays zero.

    >>> normalise(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    return F.normalize(features, dim=-1, eps=1e-12)


def characteristic(
    features: Float[Tensor, "B D"], frequencies: Float[Tensor, "F D"], chunk: int = CHUNK
) -> CharacteristicFunction:
    """Compute the empirical characteristic function of samples.

    Differentiable once, in features and in frequencies. Memory is a few matrices of [chunk, F], forward and
    backward: the gradient recomputes the phases, and only references to the arguments are stored.

    Args:
        features: [B, D], any float dtype; computed in float32 or wider.
        frequencies: [F, D].
        chunk: features at a time.

    Returns:
        Real and imaginary part, each [F] in [-1, 1].

    >>> characteristic(torch.zeros(4, 2), torch.ones(3, 2))
    (tensor([1., 1., 1.]), tensor([0., 0., 0.]))
    """
    dtype = working_dtype(features.dtype, frequencies.dtype)
    return _Characteristic.apply(features.to(dtype), frequencies.to(dtype), chunk)


def terms(
    real: CharacteristicFunction, synthetic: CharacteristicFunction
) -> tuple[Float[Tensor, " F"], Float[Tensor, " F"]]:
    """Split the difference of characteristic functions into amplitude and phase.

    The amplitude term (|φ| - |φ'|)² compares how scattered the features are. The phase term
    2 (|φ||φ'| - Re φ Re φ' - Im φ Im φ') = 2 |φ||φ'| (1 - cos Δ) compares where they are. Their sum is
    |φ - φ'|². The phase is computed as |φ - φ'|² minus the amplitude: its own formula is a difference of
    products, which loses all digits in float32 long before the two functions are equal.

    Args:
        real, synthetic: from `characteristic`, of the same frequencies.

    Returns:
        Amplitude and phase terms, each [F] and at least 0, the phase at least ``FLOOR``.

    >>> one, half = (tuple(torch.tensor([[value], [0.0]])) for value in (1.0, 0.5))
    >>> terms(one, half)
    (tensor([0.2500]), tensor([1.0000e-12]))
    """
    phi_real, phi_synthetic = torch.complex(*real), torch.complex(*synthetic)  # abs has gradient 0 at 0
    amplitude = (phi_real.abs() - phi_synthetic.abs()).square()
    total = (real[0] - synthetic[0]).square() + (real[1] - synthetic[1]).square()
    return amplitude, (total - amplitude).clamp_min(FLOOR)


def discrepancy(
    real: CharacteristicFunction, synthetic: CharacteristicFunction, alpha: float = 0.5, beta: float = 0.5
) -> Float[Tensor, ""]:
    """Average √(α amplitude + β phase) over frequencies: the distance of two characteristic functions.

    If α = β, this is √α |φ - φ'| and computed as such, without ``FLOOR``. The value is then at most
    √(β·1e-12) lower per frequency, and its gradient does not vanish below the floor. Only phase terms below
    1e-12 are affected.

    Args:
        real, synthetic: from `characteristic`, of the same frequencies.
        alpha: weight of the amplitude term, at least 0.
        beta: weight of the phase term, at least 0.

    Returns:
        Scalar. Its gradient at equality is 0, not infinite. The published code multiplies by 300.

    >>> one, half = (tuple(torch.tensor([[value], [0.0]])) for value in (1.0, 0.5))
    >>> discrepancy(one, half, alpha=1.0, beta=1.0)
    tensor(0.5000)
    """
    if alpha == beta:
        difference = torch.complex(real[0] - synthetic[0], real[1] - synthetic[1])
        return math.sqrt(alpha) * difference.abs().mean()
    amplitude, phase = terms(real, synthetic)
    total = alpha * amplitude + beta * phase
    return total.clamp_min(torch.finfo(total.dtype).tiny).sqrt().mean()  # tiny: β may be 0


class _Characteristic(torch.autograd.Function):
    """Features [B, D] and frequencies [F, D] to real and imaginary parts [F]."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, frequencies: Tensor, chunk: int) -> CharacteristicFunction:
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
    def backward(ctx: Any, *outputs_grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        features, frequencies = ctx.saved_tensors
        real, imaginary = (grad / len(features) for grad in outputs_grad)
        features_grad = torch.empty_like(features) if ctx.needs_input_grad[0] else None
        frequencies_grad = torch.zeros_like(frequencies) if ctx.needs_input_grad[1] else None
        for start in range(0, len(features), ctx.chunk):
            rows = slice(start, start + ctx.chunk)
            phases = features[rows] @ frequencies.T
            phases_grad = phases.cos().mul_(imaginary)
            phases_grad.addcmul_(phases.sin_(), real, value=-1)
            if features_grad is not None:
                features_grad[rows] = phases_grad @ frequencies
            if frequencies_grad is not None:
                frequencies_grad.addmm_(phases_grad.T, features[rows])
        return features_grad, frequencies_grad, None
