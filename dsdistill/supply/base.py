"""The contract of every source of networks: one module that is given other weights, in place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from dsdistill.compute.embedder import Embedder
from dsdistill.config.validation import forbid_extra
from dsdistill.data.real import RealDataset, Task
from dsdistill.networks import Network, build_network
from dsdistill.plugs import names_in, without_folder
from dsdistill.runtime.device import Precision
from dsdistill.runtime.notice import Notify, silent
from dsdistill.seeding import forked
from dsdistill.supply.batches import TrainingBatches
from dsdistill.supply.cost import Sizes
from dsdistill.synthetic.trained import TrainedNetworks


@dataclass(frozen=True)
class NetworkRequest:
    """Which networks a run needs.

    Attributes:
        name: of the architecture, such as ``convnet3``; of a committee's, with commas between them.
        task: what is distilled.
        device: where the networks are computed.
        seed: of the run.
        fingerprint: of the training images; networks trained on other images are refused.
        outputs: numbers that the classifier gives; 0 for one for each class.
        real: the training images, for whoever takes features alone of networks that were trained on them.
    """

    name: str
    task: Task
    device: torch.device
    seed: int
    fingerprint: str
    outputs: int = 0
    real: RealDataset | None = None

    @property
    def architectures(self) -> list[str]:
        """The names of all architectures, as files of trained networks have them: without folders."""
        return list(map(without_folder, names_in(self.name)))

    def build(self) -> Network:
        """Build the network on the CPU; its weights come from torch's global generator."""
        outputs = self.outputs or self.task.num_classes
        return build_network(self.name, self.task.channels, self.task.size, outputs)

    def frozen(self) -> Network:
        """Build the network on the device: frozen, in evaluation mode, with weights nobody reads."""
        with forked(0, "networks"):
            return self.build().to(self.device).requires_grad_(False).eval()


@dataclass(frozen=True)
class PassOptions:
    """How passes through a network are computed.

    Attributes:
        channels, size: of the images.
        precision: of convolutions and of the maps between them.
        compile: whether to use ``torch.compile``.
        notify: receives a sentence if something cannot be done as requested.
    """

    channels: int
    size: int
    precision: Precision = "fp32"
    compile: bool = False
    notify: Notify = silent


class NetworkSource(ABC):
    """Where an engine's networks come from.

    Attributes:
        network: one module that lives on the device. Its weights are replaced in place, so that whatever was
            compiled around it serves all networks.
        teachers: trained networks that choose and label images; None where there are none.
        target_network: its features are the targets that images are learned with; None where there are none.
        targets_are: what these features are, in a few words.
    """

    network: Network
    teachers: TrainedNetworks | None = None
    target_network: Embedder | None = None
    targets_are: str = ""

    def ready(self, passes: PassOptions) -> None:  # noqa: B027 - most have nothing of their own to compile
        """Prepare passes of the source's own; called once, before the first iteration."""

    def begin(self, batches: TrainingBatches) -> Iterator[tuple[int, int]]:
        """Train, a little at a time, what has to be trained before the first iteration.

        What is not done when the iterator is left is done by the next call, or by the first draw.

        Yields:
            steps that are done, and all there are.
        """
        return iter(())

    def leave_untrained(self) -> None:  # noqa: B027
        """Have the first iteration take networks as `begin` has left them, for a trial."""

    def network_bytes(self, iterations: int) -> int:
        """Return the most bytes of networks on the device in a run of so many iterations."""
        return bytes_of(self.network.state_dict())

    def advance(self, iteration: int, batches: TrainingBatches) -> None:  # noqa: B027 - most train nothing
        """Train networks between two iterations; called after the pixels were stepped."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a resumed run needs beyond the seed, such as partly trained networks."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:  # noqa: B027 - most have no state
        """Continue from a state returned by `state_dict`."""


@dataclass(frozen=True)
class DrawnNetwork:
    """What a supply knows of the network it has drawn.

    Attributes:
        accuracy_weight: factor of an engine's classification term: the accuracy in percent where the supply
            counts it (IDM), else 1.
        load_trained: gives the module the fully trained weights of this network (NCFM); None where a network
            has one stage only.
        later: gives the module, while it is entered, the weights of this network at that epoch or a later one
            (TGDD); None where the supply has none.
        number: which one it is of `NetworkConfig.distinct_networks`, from 0; None where there is no end of
            them.
    """

    accuracy_weight: Tensor | float = 1.0
    load_trained: Callable[[], None] | None = None
    later: Callable[[], AbstractContextManager[None]] | None = None
    number: int | None = None


class Supply(NetworkSource):
    """A source that draws a network for every iteration."""

    @abstractmethod
    def draw(self, iteration: int, batches: TrainingBatches) -> DrawnNetwork:
        """Give ``network`` the weights of an iteration.

        Args:
            iteration: counted from 0; the draw is a function of it and the seed.
            batches: real images, for networks that are trained before they are matched with.
        """

    def require_later(self) -> None:
        """Check that networks of later epochs are there, of a supply whose options have ``has_later``.

        Raises:
            UserError: they are not; saying what to change.
        """


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class NetworkConfig(ABC):
    """Options of a source of networks."""

    takes_experts: ClassVar[bool] = False
    """Whether it reads a file of trained networks."""
    several: ClassVar[bool] = False
    """Whether they may be of several architectures, which the run names with commas between them."""
    noun: ClassVar[str] = "networks"
    """What they are called, and the option that says how many to use; 0 takes all."""
    has_later: ClassVar[bool] = False
    """Whether a network that is drawn comes with one of a later epoch of its training."""
    recipe: ClassVar[str] = ""
    """The recipe of experts that trains them, where the recipe of a method names no other."""

    @property
    def needs_experts(self) -> bool:
        """Whether a file of trained networks is still to be named."""
        return False

    @property
    def count(self) -> int:
        """How many stored networks to use; 0 for all of a file."""
        return 0

    def expert_networks(self, network: str) -> str:
        """Return the names, with commas between them, of the networks in a file of experts for a run.

        Args:
            network: that the run names.

        Returns:
            empty where the recipe that trains them says it.
        """
        return network

    @property
    def iterations_per_network(self) -> int:
        """Iterations that are matched with one network before another is drawn."""
        return 1

    @property
    def batch_statistics(self) -> bool:
        """Whether batch normalisation reads the batch at hand while images are matched."""
        return False

    def distinct_networks(self) -> int:
        """Return how many networks all iterations are given one of; 0 where there is no end of them.

        Raises:
            UserError: the file that says it cannot be read.
        """
        return 0

    @abstractmethod
    def build(self, request: NetworkRequest) -> NetworkSource:
        """Return the source of networks."""

    def resolved(self) -> Self:
        """Return the options with whatever a resumed run must not find changed written down."""
        return self

    def training_images(self, sizes: Sizes) -> int:
        """Return how many images networks are trained on in an iteration."""
        return 0

    def training_graph(self, sizes: Sizes) -> int:
        """Return how many images' maps are held while networks are trained."""
        return 0


def load_weights(network: Network, state: Mapping[str, Tensor]) -> None:
    """Give a network a state that may be on the CPU; the host does not wait for the device."""
    device = next(network.parameters()).device
    network.load_state_dict({name: value.to(device, non_blocking=True) for name, value in state.items()})


def bytes_of(state: Mapping[str, Tensor]) -> int:
    """Add up the bytes of named tensors."""
    return sum(value.nbytes for value in state.values())


def normalise_by_batch(network: Network, mode: bool) -> None:
    """Let batch normalisation read the statistics of the batch at hand, or those it keeps."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.train(mode)
