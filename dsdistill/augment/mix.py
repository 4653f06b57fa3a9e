"""CutMix (Yun et al. 2019, arXiv 1905.04899) and mixup (Zhang et al. 2018, arXiv 1710.09412).

Boxes, shares and partners are drawn once, then applied to a batch.

    mix = CutMix(probability=0.5).draw(len(images), size, generator)
    loss = F.cross_entropy(network(mix.images(images)), mix.targets(F.one_hot(labels, classes).float()))

Cross-entropy is linear in its targets, so this loss is ρ·CE(y) + (1 - ρ)·CE(y of the partner).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dsdistill.augment.operators import to_device_of
from dsdistill.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float, Float64, Int64, Shaped


@dataclass(frozen=True, kw_only=True, eq=False)
class Mix:
    """For each of n images, what is replaced by another image and which one that is; on the CPU.

    Attributes:
        size: height and width of the images.
        partner: int64 [n], the image whose pixels fill the box, or are blended in.
        rows, columns: int64 [n, 2], first and one past the last of the box; an empty box changes nothing.
        weight: float64 [n], mixup's λ, the share that an image keeps of every pixel; None for a box.
    """

    size: int
    partner: Int64[Tensor, " n"]
    rows: Int64[Tensor, "n 2"]
    columns: Int64[Tensor, "n 2"]
    weight: Float64[Tensor, " n"] | None = None

    def __len__(self) -> int:
        return len(self.partner)

    @staticmethod
    def none(count: int, size: int) -> Mix:
        """Return the mix of a batch that stays as it is."""
        empty = torch.zeros(count, 2, dtype=torch.int64)
        return Mix(size=size, partner=torch.arange(count), rows=empty, columns=empty)

    @property
    def own_share(self) -> Float64[Tensor, " n"]:
        """The share ρ that each image keeps of itself, float64 [n]: λ, or 1 - box area / H·W."""
        if self.weight is not None:
            return self.weight
        height, width = (edges[:, 1] - edges[:, 0] for edges in (self.rows, self.columns))
        return 1 - (height * width).double() / self.size**2

    @staticmethod
    def cat(parts: Sequence[Mix]) -> Mix:
        """Join the mixes of several batches that are concatenated; images swap within their own batch.

        Raises:
            UserError: if there are no parts or the sizes differ.
        """
        if len(sizes := {part.size for part in parts}) != 1:
            raise UserError(f"joining mixes needs images of one size, got {sorted(sizes)}")
        weights = [part.weight for part in parts if part.weight is not None]
        if 0 < len(weights) < len(parts):
            raise UserError("mixes with boxes and mixes that blend cannot be joined")
        partners, before = [], 0
        for part in parts:
            partners.append(part.partner + before)
            before += len(part)
        return Mix(
            size=parts[0].size,
            partner=torch.cat(partners),
            rows=torch.cat([part.rows for part in parts]),
            columns=torch.cat([part.columns for part in parts]),
            weight=torch.cat(weights) if weights else None,
        )

    def images(self, images: Shaped[Tensor, "n C H W"]) -> Shaped[Tensor, "n C H W"]:
        """Fill the boxes, or blend; differentiable. If nothing is mixed, ``images`` itself is returned.

        Args:
            images: [n, C, H, W] of any dtype (float to be blended), on any device; not changed.

        Raises:
            UserError: if the images are not those the mix was drawn for.
        """
        if len(self) != len(images) or images.shape[-2:] != (self.size, self.size):
            raise UserError(
                f"a mix of {len(self)} images of {self.size}×{self.size} does not fit a batch "
                f"of shape {list(images.shape)}; draw it for its length and size"
            )
        if not self._mixes():
            return images
        if self.weight is not None:
            own = to_device_of(images, self.weight.to(images.dtype))[:, None, None, None]
            return own * images + (1 - own) * images[to_device_of(images, self.partner)]
        inside = self._within(self.rows)[:, :, None] & self._within(self.columns)[:, None, :]
        partners = images[to_device_of(images, self.partner)]
        return torch.where(to_device_of(images, inside[:, None]), partners, images)

    def targets(self, probabilities: Float[Tensor, "n K"]) -> Float[Tensor, "n K"]:
        """Mix targets like the images: ρ·p + (1 - ρ)·p of the partner.

        Args:
            probabilities: float [n, K]; one-hot rows for hard labels. Not changed.

        Returns:
            probabilities of the same shape and dtype, mixed or not, so that a compiled training step gets one
            kind of targets.
        """
        if not self._mixes():
            return probabilities
        own = to_device_of(probabilities, self.own_share[:, None].to(probabilities.dtype))
        return own * probabilities + (1 - own) * probabilities[to_device_of(probabilities, self.partner)]

    def _mixes(self) -> bool:
        """Whether any box has pixels."""
        return bool((self.own_share < 1).any())

    def _within(self, edges: Tensor) -> Tensor:
        """Boolean [n, size]: which positions lie in the box."""
        position = torch.arange(self.size)
        return (position >= edges[:, :1]) & (position < edges[:, 1:])


@dataclass(frozen=True, kw_only=True)
class CutMix:
    """With a probability per batch, replace one box of every image by that of another image of the batch.

    λ ~ Beta(β, β). The box has the side ⌊H·√(1 - λ)⌋ and a centre uniform over the pixels. As in the released
    code of CutMix and IDC it reaches ⌊side / 2⌋ to both sides of the centre (an odd side loses one pixel) and
    is clipped to the image. Partners are a uniform permutation, fixed points included.

    >>> mix = CutMix(probability=1.0).draw(4, 8, torch.Generator().manual_seed(0))
    >>> mix.images(torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 8, 8)).shape
    torch.Size([4, 1, 8, 8])
    >>> mix.targets(torch.eye(4)).sum(1)
    tensor([1., 1., 1., 1.])

    Raises:
        UserError: for a probability outside [0, 1], or a β that is not positive and finite.
    """

    probability: float = 0.5
    beta: float = 1.0

    def __post_init__(self) -> None:
        _check("CutMix", self.probability, self.beta)

    def draw(self, count: int, size: int, generator: torch.Generator) -> Mix:
        """Draw the boxes and partners of one batch of ``count`` images of ``size`` × ``size``.

        Args:
            generator: on the CPU.
        """
        chance, row, column = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        if chance >= self.probability:
            return Mix.none(count, size)
        half = int(size * math.sqrt(1 - draw_lambda(self.beta, generator))) // 2
        edges = [
            torch.tensor([[centre - half, centre + half]]).clamp(0, size).expand(count, 2)
            for centre in (int(row * size), int(column * size))
        ]
        partner = torch.randperm(count, generator=generator)
        return Mix(size=size, partner=partner, rows=edges[0], columns=edges[1])


@dataclass(frozen=True, kw_only=True)
class Mixup:
    """With a probability per batch, blend every image with another one of the batch: λ·x + (1 - λ)·x of the
    partner.

    One λ ~ Beta(β, β) for the batch, as in the released code of SRe2L. Partners are a uniform permutation.

    >>> mix = Mixup(beta=0.8).draw(4, 8, torch.Generator().manual_seed(0))
    >>> mix.images(torch.ones(4, 1, 8, 8)).unique().tolist(), mix.weight.unique().numel()
    ([1.0], 1)

    Raises:
        UserError: for a probability outside [0, 1], or a β that is not positive and finite.
    """

    probability: float = 1.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        _check("mixup", self.probability, self.beta)

    def draw(self, count: int, size: int, generator: torch.Generator) -> Mix:
        """Draw λ and the partners of one batch of ``count`` images of ``size`` × ``size``.

        Args:
            generator: on the CPU.
        """
        mix = Mix.none(count, size)
        share, partner = 1.0, mix.partner
        if torch.rand((), generator=generator, dtype=torch.float64).item() < self.probability:
            share = draw_lambda(self.beta, generator)
            partner = torch.randperm(count, generator=generator)
        weight = torch.full((count,), share, dtype=torch.float64)
        return dataclasses.replace(mix, partner=partner, weight=weight)


def draw_lambda(beta: float, generator: torch.Generator) -> float:
    """Draw λ ~ Beta(β, β): the share of one of two equally distributed gamma variables in their sum."""
    if beta == 1:
        return torch.rand((), generator=generator, dtype=torch.float64).item()
    one, other = torch._standard_gamma(
        torch.full((2,), beta, dtype=torch.float64), generator=generator
    ).tolist()
    return one / (one + other)


def _check(name: str, probability: float, beta: float) -> None:
    if not 0 <= probability <= 1:
        raise UserError(f"the probability of {name} must lie between 0 and 1, got {probability}")
    if not 0 < beta < math.inf:
        raise UserError(f"the beta of {name} must be positive and finite, got {beta}")
