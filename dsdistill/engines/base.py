"""What an engine is: a frozen dataclass of hyper-parameters with a pure loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dsdistill.compute.pixel_optimiser import OptimiserConfig
from dsdistill.config.validation import forbid_extra
from dsdistill.data.real import Task
from dsdistill.engines.sources import Sources
from dsdistill.networks.base import Network
from dsdistill.supply.base import Supply
from dsdistill.synthetic.set import SyntheticSet


@dataclass(frozen=True, eq=False)
class Sizes:
    """The images of an iteration, from which estimates are made."""

    counts: Tensor
    """int64 [K], real images of each class."""
    decoded: int
    """Synthetic images of a class, decoded."""
    copies: int = 1
    """2 where mirror images are matched beside them."""

    @property
    def total(self) -> int:
        """Synthetic images of all classes, decoded."""
        return self.decoded * len(self.counts)

    def real(self, wanted: int) -> int:
        """Return the real images of all classes, where so many of each are wanted."""
        return int(self.counts.clamp(max=wanted).sum())


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class Engine(ABC):
    """A matching objective and the hyper-parameters it reads.

    An engine keeps no state and knows no device, file, rank or clock: what it learns lives in the
    `SyntheticSet`, what it draws comes from `Sources` or its seed, and the loop does the stepping.
    """

    @property
    def updates_per_iteration(self) -> int:
        """Steps of the pixels in an iteration; ``sources.update`` says which of them a loss is for."""
        return 1

    @property
    def auxiliary_optimisers(self) -> Mapping[str, OptimiserConfig]:
        """How what is learned besides the images is stepped, by its name in the `SyntheticSet`."""
        return {}

    def prepare(  # noqa: B027 - most learn pixels alone
        self, synthetic: SyntheticSet, supply: Supply, seed: int
    ) -> None:
        """Register what is learned besides the images; called before the first step.

        Args:
            synthetic: where to.
            supply: what is matched with.
            seed: of the run, for what starts at random.

        Raises:
            UserError: the combination could not be computed; saying what to change.
        """

    def discards(self, terms: Mapping[str, Tensor]) -> bool:
        """Whether to leave everything as it is for once, going by the terms of a loss of all classes.

        Only an engine that is never separable may say so: where classes are taken in turns, by chunks or by
        the optimiser, something has moved by then.
        """
        return False

    @property
    def kept_weights(self) -> int:
        """Copies of a network's parameters that an iteration keeps besides its supply's, for estimates."""
        return 0

    @property
    def wanted(self) -> int:
        """Real images of a class that an iteration takes where there are so many; 0 where it takes none."""
        return 0

    def separable(self, network: Network) -> bool:
        """Whether the loss is a sum over classes, so that they may be taken in turns to save memory."""
        return not network.couples_samples

    def features(self, network: Network) -> Callable[[Tensor], Tensor]:
        """Return what is matched of one network: images [B, C, H, W] to [B, D], row by row."""
        return network.embed

    @abstractmethod
    def images(self, sizes: Sizes) -> int:
        """Return roughly how many images an iteration passes through a network, for estimates."""

    @abstractmethod
    def held(self, sizes: Sizes, classes: int, chunk: int, size: int) -> int:
        """Return the images whose maps are kept for a gradient at once, times bytes per value, for estimates.

        Args:
            sizes: of an iteration.
            classes: taken at once.
            chunk: images in one pass where only a gradient to the weights is asked for.
            size: bytes of a value in the run's precision.
        """

    @abstractmethod
    def together(self, counts: Tensor) -> int:
        """Return how many real images pass at once through a network that couples the samples of a batch."""

    @abstractmethod
    def networks(self, name: str, task: Task, device: torch.device) -> Supply:
        """Return the supply of networks this engine matches with."""

    @abstractmethod
    def loss(self, synthetic: SyntheticSet, sources: Sources) -> dict[str, Tensor]:
        """Return the weighted terms whose sum is minimised, for the classes ``sources.classes``.

        Every value is a scalar with a graph to whatever ``synthetic`` learns. Where an iteration is short,
        nothing is read to the host.
        """
