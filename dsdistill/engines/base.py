"""What an engine is: a frozen dataclass of hyper-parameters with a pure loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from dsdistill.compute.config import OptimiserConfig
from dsdistill.config.validation import forbid_extra
from dsdistill.data.batches import RealBatches
from dsdistill.data.real import RealDataset
from dsdistill.engines.clusters import Clusters
from dsdistill.engines.sources import Sources
from dsdistill.networks.base import Network
from dsdistill.supply.base import NetworkConfig, NetworkRequest, NetworkSource
from dsdistill.supply.cost import Cost, Sizes
from dsdistill.synthetic.multi_formation import MultiFormation
from dsdistill.synthetic.set import SyntheticSet

S = TypeVar("S", bound=NetworkSource)

IMAGE_COPIES = 3
"""Copies of synthetic images that are alive in a pass: decoded, mirrored, augmented."""


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class Engine(ABC, Generic[S]):
    """A matching objective and the hyper-parameters it reads; most derive from `MatchingEngine`.

    >>> issubclass(dsdistill.MatchingEngine, dsdistill.Engine)
    True

    An engine keeps no state and knows no device, file, rank or clock: what it learns lives in the
    `SyntheticSet`, what it draws comes from `Sources` or its seed, and the loop does the stepping.

    Attributes:
        supply: where networks come from.
    """

    class_by_class: ClassVar[bool] = True
    """Whether passes hold the images of some classes, so that their sizes are those of classes."""
    compensates: ClassVar[bool] = False
    """Whether it can learn compensators; its supply then has a ``count`` of teachers."""
    matches_prefixes: ClassVar[bool] = False
    """Whether its loss may be that of the first images of each class alone; it has a ``feature_distance``."""

    supply: NetworkConfig

    @property
    def epochs_read(self) -> int:
        """Epochs that experts must have been trained for; 0 where any number will do."""
        return 0

    def within(self, epochs: int) -> dict[str, Any]:
        """Return nested options of the engine with which experts of so many epochs will do.

        It is empty where they do already.
        """
        return {}

    @property
    def needs_labels(self) -> bool:
        """Whether it reads the classes of real images; otherwise data without labels will do."""
        return True

    @property
    def anchored(self) -> bool:
        """Whether decoded images are compared with the real ones they start from, the constant `ANCHORS`."""
        return False

    @property
    def updates_per_iteration(self) -> int:
        """Steps of the pixels in an iteration; ``sources.update`` says which of them a loss is for."""
        return 1

    @property
    def auxiliary_optimisers(self) -> Mapping[str, OptimiserConfig]:
        """Optimiser options of each auxiliary parameter, by its name on `SyntheticSet`."""
        return {}

    @property
    def stepped_with_pixels(self) -> frozenset[str]:
        """Auxiliary parameters, by name on `SyntheticSet`, that the optimiser of the pixels steps too."""
        return frozenset()

    def check_options(self, learn: str, flip: bool, formation: MultiFormation) -> None:
        """Check what a run has besides the engine, before experts are trained for it.

        Args:
            learn: what is learned of the set: "images", "residual" or "compensators".
            flip: whether mirror images are matched beside the images.
            formation: how many training images a stored one is decoded into.

        Raises:
            UserError: the engine's options do not fit it.
        """

    def check_count(self, networks: int) -> None:
        """Check how many networks a run is to have, before experts are trained for it.

        Raises:
            UserError: the engine's options are for another number.
        """

    def check_network(self, name: str, network: Network, channels: int, size: int) -> None:
        """Check a network before experts of it are trained; `prepare` and `build_networks` check the experts.

        Args:
            name: of the network.
            network: untrained, in eval mode.
            channels, size: of its images.

        Raises:
            UserError: the engine could not use it, however it is trained.
        """

    def check_data(self, real: RealDataset) -> None:
        """Check the training images before anything is computed.

        Raises:
            UserError: the engine's options do not fit them.
        """

    def clusters(self, batches: RealBatches) -> Clusters | None:
        """Return what chooses the real images of an iteration; None where they are random."""
        return None

    @abstractmethod
    def build_networks(self, request: NetworkRequest) -> S:
        """Build what ``supply`` describes.

        Raises:
            UserError: the engine cannot match in such a network, or its experts do not fit.
        """

    def prepare(self, synthetic: SyntheticSet, sources: Sources[S]) -> None:
        """Register the auxiliary parameters and constants; called once, before the first step.

        Args:
            synthetic: where they are registered, on the device.
            sources: networks, real images and the seed, for what depends on them.

        Raises:
            UserError: the combination could not be computed; saying what to change.
        """

    def separable(self, network: Network) -> bool:
        """Whether the loss is a sum over classes, so that they may be taken in turns to save memory."""
        return not network.couples_samples

    def divisible(self, network: Network) -> bool:
        """Whether several processes may share the loss.

        One that is no sum over classes is divided by the engine then: `loss` returns the part of
        ``sources.ranks``, and the parts of all processes add up.
        """
        return self.separable(network)

    def images_at_once(self, decoded: int) -> int:
        """Return how many of a class's decoded images have a graph at once, at most.

        Args:
            decoded: images that the class has.
        """
        return decoded

    @property
    def less_memory(self) -> str:
        """Say which options need less memory."""
        return "--set compute.class_chunk=1 --set compute.chunk=8 needs less"

    def parts(self, synthetic: SyntheticSet) -> int:
        """Return into how many parts of about equal work a loss falls that is no sum over classes, or 1."""
        return 1

    def features(self, network: Network) -> Callable[[Tensor], Tensor]:
        """Return what is matched of one network: images [B, C, H, W] to [B, D], row by row."""
        return network.embed

    @abstractmethod
    def loss(self, synthetic: SyntheticSet, sources: Sources[S]) -> dict[str, Tensor]:
        """Return the weighted terms whose sum is minimised, for the classes ``sources.classes``.

        Every value is a scalar with a graph to whatever ``synthetic`` learns. Where an iteration is short,
        nothing is read to the host.
        """

    def revise(self, synthetic: SyntheticSet, sources: Sources[S]) -> None:
        """Change what is learned after the step of an iteration, in place and without a graph."""

    def discards(self, terms: Mapping[str, Tensor]) -> bool:
        """Whether this iteration changes nothing, going by the terms of a loss of all classes.

        Only an engine that is never separable may discard: where classes are taken in turns, by chunks or by
        the optimiser, something has moved by then.
        """
        return False

    @abstractmethod
    def cost(self, sizes: Sizes) -> Cost:
        """Estimate what one iteration takes."""


def feature_cost(sizes: Sizes, supply: NetworkConfig, batch_real: int) -> Cost:
    """Estimate an iteration that compares features of real images and of synthetic ones, class by class.

    Real images, ``batch_real`` a class, count one pass; synthetic and training images, which are
    differentiated, three.
    """
    return Cost(
        passes=sizes.real(batch_real) + 3 * (int(sizes.matched.sum()) + supply.training_images(sizes)),
        pixels=sizes.held,
        images=IMAGE_COPIES * sizes.held,
        training=supply.training_graph(sizes),
        real_per_class=batch_real,
        real_at_once=sizes.classes * min(batch_real, int(sizes.counts.max())),
    )
