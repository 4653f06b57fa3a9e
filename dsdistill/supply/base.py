"""Where an engine's networks come from."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from dsdistill.config.validation import forbid_extra
from dsdistill.data.real import RealDataset, Task
from dsdistill.networks.base import Network

Batch = tuple[Tensor, Tensor]
"""Images [B, C, H, W] in network space; labels int64 [B] or probabilities [B, K]."""


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class NetworkTraining:
    """How a network is trained between the steps of the pixels that are matched with it.

    The engine's augmentation is applied with parameters of its own for every image, without cutout where
    CutMix is on.
    """

    on: Literal["synthetic", "real"] = "synthetic"
    """What it sees: the images being distilled (DC, DSA), or the real ones (IDC)."""
    updates_per_network: Annotated[int, Ge(1)] = 1
    """Steps of the pixels before a new network is drawn ("outer loop" in DC, "inner loop" in IDC, where
    optimiser.clamp_every is the same number)."""
    epochs: Annotated[int, Ge(0)] = 1
    """Passes over the synthetic set after each step of the pixels ("inner loop" in DC)."""
    samples: Annotated[int, Ge(0)] = 0
    """Real images seen after each step of the pixels, rounded up to whole batches ("n_data" in IDC)."""
    warm_up: Annotated[int, Ge(0)] = 0
    """Epochs of real data a new network sees before it is matched with ("early" in IDC)."""
    lr: Annotated[float, Ge(0)] = 0.01
    momentum: Annotated[float, Ge(0)] = 0.0
    weight_decay: Annotated[float, Ge(0)] = 0.0
    batch_size: Annotated[int, Ge(1)] = 256
    cutmix: Annotated[float, Ge(0), Le(1)] = 0.0
    """Probability that a batch is mixed."""
    batch_norm: Literal["refreshed", "batch"] = "refreshed"
    """Batch normalisation while matching: statistics refreshed by 16 real images a class and then fixed (DC,
    DSA), or those of the batch at hand, one class's (IDC)."""

    def images(self, synthetic: int) -> int:
        """Return how many images it is trained on per step of the pixels; the set has ``synthetic``."""
        return self.epochs * synthetic if self.on == "synthetic" else self.samples


class Supply(ABC):
    """A source of networks.

    ``network`` is one module that lives on the device and is given other weights at every draw, in place, so
    that whatever was compiled or captured around it serves them all.

    Attributes:
        network: the module.
        training: how it is trained between steps of the pixels; None where it is not.
    """

    network: Network
    training: NetworkTraining | None = None

    @property
    def trust(self) -> Tensor | float:
        """What an engine's classification term is multiplied by: 1, or the network's accuracy in percent."""
        return 1.0

    def network_bytes(self, iterations: int) -> int:
        """Return the most bytes of networks on the device in a run of so many iterations, for estimates."""
        return bytes_of(self.network.state_dict())

    @abstractmethod
    def draw(self, seed: int, iteration: int) -> bool:
        """Give ``network`` the weights of an iteration; return whether they are fresh."""

    def verify(self, name: str, task: Task, real: RealDataset) -> None:  # noqa: B027 - most have nothing to verify
        """Refuse what was trained beforehand for something else.

        Args:
            name: of the network asked for.
            task, real: what is distilled.

        Raises:
            UserError: naming both.
        """

    def settle(self) -> None:  # noqa: B027 - most supplies have one stage of a network only
        """Give ``network`` the fully trained weights of the network that was drawn."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a resumed run needs beyond the seed, such as partly trained networks."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:  # noqa: B027 - most supplies have no state
        """Continue from a state returned by `state_dict`."""


@torch.no_grad()
def classified(network: Network, state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Classify images [n, C, H, W] in network space by such a network in another state -> float32 [n, K].

    Statistics of batch normalisation are those of the state. The result is on the CPU.
    """
    like = next(network.parameters())
    judge = copy.deepcopy(network).eval()
    judge.load_state_dict(dict(state))
    return torch.cat([judge(part.to(like.device, like.dtype)).float().cpu() for part in images.split(_CHUNK)])


_CHUNK = 256


def bytes_of(state: Mapping[str, Tensor]) -> int:
    """Add up the bytes of named tensors."""
    return sum(value.nbytes for value in state.values())


def normalise_by_batch(network: Network, mode: bool) -> None:
    """Let batch normalisation read the statistics of the batch at hand, or those it keeps."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.train(mode)
