"""CutMix (Yun et al. 2019, arXiv 1905.04899): draw boxes and partners once, then apply them to a batch.

    mix = CutMix(probability=0.5).draw(len(images), size, generator)
    loss = F.cross_entropy(network(mix.images(images)), mix.targets(F.one_hot(labels, classes).float()))

Cross-entropy is linear in its targets, so this loss is ρ·CE(y) + (1 - ρ)·CE(y of the partner).
"""

from __future__ import annotations

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
    """For each of n images, the box that is replaced and the image it comes from; on the CPU.

    Attributes:
        size: height and width of the images.
        partner: int64 [n], the image whose pixels fill the box.
        rows, columns: int64 [n, 2], first and one past the last of the box; an empty box changes nothing.
    """

    size: int
    partner: Int64[Tensor, " n"]
    rows: Int64[Tensor, "n 2"]
    columns: Int64[Tensor, "n 2"]

    def __len__(self) -> int:
        return len(self.partner)

    @property
    def own_share(self) -> Float64[Tensor, " n"]:
        """The share ρ of each image outside its box, float64 [n]: 1 - box area / H·W."""
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
        partners, before = [], 0
        for part in parts:
            partners.append(part.partner + before)
            before += len(part)
        return Mix(
            size=parts[0].size,
            partner=torch.cat(partners),
            rows=torch.cat([part.rows for part in parts]),
            columns=torch.cat([part.columns for part in parts]),
        )

    def images(self, images: Shaped[Tensor, "n C H W"]) -> Shaped[Tensor, "n C H W"]:
        """Fill the boxes; differentiable. If all are empty, ``images`` itself is returned.

        Args:
            images: [n, C, H, W] of any dtype, on any device; not changed.

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
        if not 0 <= self.probability <= 1:
            raise UserError(f"the probability of CutMix must lie between 0 and 1, got {self.probability}")
        if not 0 < self.beta < math.inf:
            raise UserError(f"the beta of CutMix must be positive and finite, got {self.beta}")

    def draw(self, count: int, size: int, generator: torch.Generator) -> Mix:
        """Draw the boxes and partners of one batch of ``count`` images of ``size`` × ``size``.

        Args:
            generator: on the CPU.
        """
        chance, row, column = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        if chance >= self.probability:
            empty = torch.zeros(count, 2, dtype=torch.int64)
            return Mix(size=size, partner=torch.arange(count), rows=empty, columns=empty)
        half = int(size * math.sqrt(1 - self.draw_lambda(generator))) // 2
        edges = [
            torch.tensor([[centre - half, centre + half]]).clamp(0, size).expand(count, 2)
            for centre in (int(row * size), int(column * size))
        ]
        partner = torch.randperm(count, generator=generator)
        return Mix(size=size, partner=partner, rows=edges[0], columns=edges[1])

    def draw_lambda(self, generator: torch.Generator) -> float:
        """Draw λ ~ Beta(β, β): the share of one of two equally distributed gamma variables in their sum."""
        if self.beta == 1:
            return torch.rand((), generator=generator, dtype=torch.float64).item()
        one, other = torch._standard_gamma(
            torch.full((2,), self.beta, dtype=torch.float64), generator=generator
        ).tolist()
        return one / (one + other)
