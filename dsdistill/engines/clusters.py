"""Real images near the centres of their class, in place of random ones.

DREAM (Liu et al., *DREAM: Efficient Dataset Distillation by Representative Matching*, ICCV 2023) clusters the
features that the network at hand gives the images of a class, and matches with those nearest to the centres
until it clusters again. DREAM+ (Liu et al., 2023) has fewer centres, and takes several images at each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from dsdistill.config.validation import forbid_extra
from dsdistill.data.batches import RealBatches
from dsdistill.data.real import RealDataset
from dsdistill.data.selection import k_means
from dsdistill.errors import UserError
from dsdistill.supply.base import NetworkConfig
from dsdistill.supply.cost import Cost, Sizes


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class RealBatchesConfig:
    """Which real images of a class an iteration compares with."""

    kind: Literal["random", "kmeans"] = "random"
    """random: others in every iteration. kmeans: those nearest to k-means centres of their features under the
    network at hand, the same ones until they are clustered again (DREAM). The options below are of kmeans."""
    every: Annotated[int, Ge(0)] = 0
    """Iterations between two clusterings; 0 clusters once for each network."""
    candidates: Annotated[int, Ge(0)] = 0
    """Images of a class that are clustered, others each time; 0 takes all."""
    sub_sample: Annotated[int, Ge(1)] = 1
    """Images taken at each centre; there are ``batch_real / sub_sample`` centres (DREAM+)."""

    def __post_init__(self) -> None:
        unused = {"every": self.every, "candidates": self.candidates, "sub_sample": self.sub_sample - 1}
        if self.kind == "random" and (names := [name for name, value in unused.items() if value]):
            raise UserError(
                f"engine.real_batches.{names[0]} is of clusters: set engine.real_batches.kind=kmeans, or "
                "leave it out"
            )

    def check(self, real: RealDataset, batch_real: int) -> None:
        """Check that every class can be clustered.

        Args:
            real: the training images.
            batch_real: of the engine.

        Raises:
            UserError: the batch is no multiple of the images at a centre, or there are more centres than
                images to cluster.
        """
        if self.kind == "random":
            return
        if batch_real % self.sub_sample:
            raise UserError(
                f"engine.real_batches.sub_sample={self.sub_sample} does not divide engine.batch_real="
                f"{batch_real}: choose a number that does, such as 1"
            )
        if 0 < self.candidates < batch_real:
            raise UserError(
                f"engine.real_batches.candidates={self.candidates} are fewer than engine.batch_real="
                f"{batch_real}: raise the former, or set it to 0 for all images of a class"
            )
        centres, smallest = batch_real // self.sub_sample, int(real.counts.argmin())
        if (count := int(real.counts[smallest])) < centres:
            raise UserError(
                f"class {real.classes[smallest]!r} has {count} training images, fewer than the {centres} "
                f"centres of its clusters: set engine.batch_real={count * self.sub_sample} or less, or "
                "engine.real_batches.kind=random"
            )

    def build(self, batches: RealBatches, supply: NetworkConfig) -> Clusters | None:
        """Return what chooses the images; None where they are random.

        Args:
            batches: of the run.
            supply: where the networks come from.
        """
        return None if self.kind == "random" else Clusters(self, self._period(supply), batches)

    def added_to(self, cost: Cost, sizes: Sizes, supply: NetworkConfig) -> Cost:
        """Return the cost of an iteration with its share of a clustering."""
        if self.kind == "random":
            return cost
        largest = int(sizes.counts.max())
        clustered = min(self.candidates or largest, largest)
        passes = -(-sizes.real(clustered) // self._period(supply))
        return dataclasses.replace(cost, passes=cost.passes + passes, clustered=clustered)

    def _period(self, supply: NetworkConfig) -> int:
        return self.every or supply.iterations_per_network


Embed = Callable[[Tensor], Tensor]
"""Embeds the real images at positions, int64 [n] -> [n, D]."""


class Clusters:
    """Chooses the real images of a class by clusters, and keeps them until the class is clustered again.

    What is chosen follows from the seed and the network as it is when a class is clustered. A resumed run has
    another network by then, so the choice is part of the state.
    """

    def __init__(self, config: RealBatchesConfig, period: int, batches: RealBatches) -> None:
        """Begin without a choice.

        Args:
            config: of kind "kmeans".
            period: iterations between two clusterings.
            batches: of the run.
        """
        self._config, self._period, self._batches = config, period, batches
        self._chosen: dict[tuple[int, int], tuple[int, Tensor]] = {}

    def positions(self, label: int, count: int, iteration: int, embed: Embed) -> Tensor:
        """Return the positions of ``count`` distinct images of a class, int64 [n]; a smaller class gives all.

        Args:
            embed: by the network of the iteration; called where the class is clustered.
        """
        start = iteration - iteration % self._period
        at, chosen = self._chosen.get((label, count), (-1, torch.empty(0, dtype=torch.int64)))
        if at != start:
            chosen = self._cluster(label, count, start, embed)
            self._chosen[label, count] = start, chosen
        return chosen

    def _cluster(self, label: int, count: int, iteration: int, embed: Embed) -> Tensor:
        """Choose images of a class by the network of the iteration."""
        limit, each = self._config.candidates, self._config.sub_sample
        members = self._batches.data.indices_of(label)
        if 0 < limit < len(members):
            members = self._batches.positions(label, limit, iteration, "candidates")
        # In float64: threads add up the images of a centre in any order, and runs must not differ by it.
        features = embed(members).double()
        return members[k_means(features, min(count // each, len(members)), nearest=each)]

    def state_dict(self, classes: Collection[int]) -> dict[str, Tensor]:
        """Return what was chosen for some classes: the iteration each was clustered at, and the positions."""
        return {
            f"{label}.{count}": torch.tensor([begun, *chosen.tolist()])
            for (label, count), (begun, chosen) in self._chosen.items()
            if label in classes
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state returned by `state_dict`."""
        self._chosen = {}
        for name, value in state.items():
            label, _, count = name.partition(".")
            begun, *chosen = value.tolist()
            self._chosen[int(label), int(count)] = begun, torch.tensor(chosen, dtype=torch.int64)
