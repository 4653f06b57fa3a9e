"""Codes that are moved so that networks see the features of the original images.

For images x₀, and the quantiser Q with its scales and offsets as they are,

    min over x of  E_f ‖ f(Q(x)) - f(x₀) ‖²

by Adam, over random networks f; rounding has the gradient of the identity (arXiv 2603.13346, whose code is
not public). Networks, Adam and its rate are ours. So is the order: refining before patches are given their
scales widens the ranges of the patches, and features come no nearer. So is the choice of the last step: of
the codes on the way, the first ones among them, those with the least loss in some more networks.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dsdistill.networks import Network
from dsdistill.seeding import generator
from dsdistill.synthetic.coded import CodedPixels, from_patches, to_patches

RATE = 0.05
"""Of Adam in the first step, in levels of a code; it falls to 0 along half a cosine."""
CHECKS = 8
"""Times that codes on the way are compared with the best so far, equally spaced."""
NETWORKS = 4
"""In which they are compared; no step is taken in them."""
_IMAGES = 256
"""Of a step, drawn at random where there are more."""


def refined(
    coded: CodedPixels,
    images: Tensor,
    network: Callable[[int], Network],
    preprocess: Callable[[Tensor], Tensor],
    steps: int,
    seed: int = 0,
    tick: Callable[[int], None] = lambda done: None,
    fits: Callable[[CodedPixels], bool] = lambda coded: True,
) -> CodedPixels:
    """Return the same images with codes that keep more of their features; ``coded`` where none are found.

    Args:
        coded: the images, coded.
        images: as they were, float32 [N, C, H, W] in unit pixel space, on the device of the networks.
        network: returns the network of a step, frozen; steps below 0 are those in which codes are compared.
        preprocess: from unit pixel space to what networks see.
        steps: of Adam.
        seed: of the choice of images.
        tick: called with the number of steps that are done.
        fits: whether codes may be taken: others compress more or less.
    """
    scales, offsets = (each.to(images.device) for each in coded.quantisers())
    divisors = torch.where(scales > 0, scales, 1.0)  # a patch of one value stays what it is
    levels = ((to_patches(images, coded.patch) - offsets) / divisors).requires_grad_()
    optimiser = torch.optim.Adam([levels], lr=RATE)
    networks = [network(-1 - number) for number in range(NETWORKS)]
    checked = _Checked(images, coded, networks, preprocess, fits)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = RATE * (1 + math.cos(math.pi * step / steps)) / 2
        rows = torch.randperm(len(images), generator=generator(seed, "refine", step))[:_IMAGES]
        rows = rows.to(images.device)
        features = network(step).embed
        with torch.no_grad():
            target = features(preprocess(images[rows]))
        patches = rounded(levels[rows], coded.bits) * scales[rows] + offsets[rows]
        coded_features = features(preprocess(from_patches(patches, coded.shape, coded.patch)))
        optimiser.zero_grad()
        (coded_features - target).square().sum(1).mean().backward()
        optimiser.step()
        with torch.no_grad():  # further out, a level would take many steps to come back
            levels.clamp_(-0.5, 2**coded.bits - 0.5)
        if (step + 1) * CHECKS // steps > step * CHECKS // steps:
            checked.add(rounded(levels.detach(), coded.bits).to(torch.uint8).cpu())
        tick(step + 1)
    return checked.best


class _Checked:
    """Codes on the way.

    Attributes:
        best: those with the least loss so far, of those that fit.
    """

    def __init__(
        self,
        images: Tensor,
        coded: CodedPixels,
        networks: Sequence[Network],
        preprocess: Callable[[Tensor], Tensor],
        fits: Callable[[CodedPixels], bool],
    ) -> None:
        self._fits = fits
        self._images, self._networks, self._preprocess = images, networks, preprocess
        self.best = coded
        self._least = self._loss(coded)

    def add(self, codes: Tensor) -> None:
        """Compare other codes, uint8 [N, P, n], with the best so far."""
        other = dataclasses.replace(self.best, codes=codes)
        if (loss := self._loss(other)) < self._least and self._fits(other):
            self.best, self._least = other, loss

    @torch.no_grad()
    def _loss(self, coded: CodedPixels) -> float:
        """Return the squared distance of features, summed over images and networks."""
        total = 0.0
        for own, decoded in zip(self._images.split(_IMAGES), coded.decode().split(_IMAGES), strict=True):
            pair = [self._preprocess(each.to(own.device)) for each in (own, decoded)]
            for network in self._networks:
                target, features = (network.embed(each) for each in pair)
                total += float((features - target).square().sum())
        return total


def rounded(levels: Tensor, bits: int) -> Tensor:
    """Round levels to codes; the gradient is as without it."""
    with torch.no_grad():
        error = levels.round().clamp_(0, 2**bits - 1) - levels
    return levels + error
