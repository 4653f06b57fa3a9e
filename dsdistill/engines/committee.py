"""Which teachers a batch is recovered from, and how much each of them says."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from dsdistill.config.validation import forbid_extra
from dsdistill.seeding import generator


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class CommitteeConfig:
    """Which teachers a batch is recovered from, where there are several (CV-DD)."""

    size: Annotated[int, Ge(0)] = 0
    """Teachers of each batch; 0 takes all. At one image per class they are those of the highest priors; where
    there are as many images of a class (classes, if a batch is one) as choices, each choice has its turn, in
    order; else they are random."""
    priors: tuple[float, ...] = ()
    """A score for each teacher, in percent; none are equal. CV-DD's are the accuracies of students on sets
    recovered from that teacher alone."""
    temperature: Annotated[float, Gt(0)] = 5.0
    """Weights are the softmax of the priors divided by it."""

    def members(self, teachers: int, index: int, images: int, seed: int) -> list[tuple[int, float]]:
        """Return the teachers of a batch and their weights.

        Args:
            teachers: how many there are.
            index: of the batch's images in their classes; of its class, if a batch is one.
            images: how many of these there are.
            seed: of the run.
        """
        priors = torch.tensor(self.priors or (0.0,) * teachers, dtype=torch.float64)
        chosen = self._chosen(priors, index, images, seed)
        weights = (priors[chosen] / self.temperature).softmax(0)
        return list(zip(chosen, weights.tolist(), strict=True))

    def _chosen(self, priors: Tensor, index: int, images: int, seed: int) -> list[int]:
        size = min(self.size or len(priors), len(priors))
        choices = list(itertools.combinations(range(len(priors)), size))
        if images == 1:
            return sorted(priors.argsort(descending=True, stable=True)[:size].tolist())
        if len(choices) != images:
            index = int(torch.randint(len(choices), (), generator=generator(seed, "committee", index)))
        return list(choices[index])


def own_teacher(index: int, naturals: int) -> list[tuple[int, float]]:
    """Return the teacher, and its weight, that image number ``index`` of a class has; naturals have none."""
    stage = index // naturals
    return [(stage - 1, 1.0)] if stage else []
