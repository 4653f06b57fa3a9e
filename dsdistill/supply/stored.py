"""Networks trained beforehand, from a file of experts: what drawn ones and trajectories share."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import torch
from annotated_types import Ge
from torch import Tensor

from dsdistill.config.validation import forbid_extra
from dsdistill.errors import UserError
from dsdistill.networks import Network
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.supply.base import NetworkConfig, NetworkRequest
from dsdistill.synthetic.trained import TrainedNetworks

_CHUNK = 256


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class StoredConfig(NetworkConfig):
    """Networks from a file that ``dsdistill experts`` wrote."""

    takes_experts: ClassVar[bool] = True
    recipe: ClassVar[str] = "mtt"

    path: str = ""
    """The file of experts."""
    digest: str = ""
    """Which networks they are; written down when a run begins, so that it never goes on with others."""

    @property
    def needs_experts(self) -> bool:
        """Whether no file is named yet."""
        return not self.path

    @property
    def count(self) -> int:
        """How many to use; 0 for all."""
        return int(getattr(self, self.noun))

    def resolved(self) -> Self:
        """Write down which networks these are, and how many "all" are.

        More may be added to the file before a run is resumed or replayed, or others put in its place.

        Raises:
            UserError: the file holds no experts, or others than those written down.
        """
        if not self.path:
            return self
        file = ExpertFile.open(self.path)
        if self.digest not in ("", file.digest):
            raise UserError(
                f"{self.path} holds other {self.noun} (digest {file.digest}) than those this run was "
                f"started with ({self.digest}): put those back, or start anew, with "
                "--set engine.supply.digest= where a config is replayed"
            )
        options: dict[str, Any] = {self.noun: self.count or file.count, "digest": file.digest}
        return dataclasses.replace(self, **options)


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class DrawnConfig(StoredConfig):
    """Stored networks, of which one is drawn now and then."""

    networks: Annotated[int, Ge(0)] = 0
    """How many networks of the file to use; 0 takes all."""
    perturbation: Annotated[float, Ge(0)] = 0.0
    """Length of random noise on each filter of a network that is drawn, relative to the filter's; 0 adds none
    (Acc-DD)."""


class StoredNetworks(TrainedNetworks):
    """The networks of a file of experts, verified to be trained for a task. They also teach: see `logits`.

    Attributes:
        file: the experts.
        count: networks in use.
        noun: what they are called.
    """

    def __init__(self, request: NetworkRequest, config: StoredConfig) -> None:
        """Open the file.

        Args:
            request: the task and the network they must have been trained for.
            config: which file, and how many of its networks.

        Raises:
            UserError: no file is named, it holds no experts or fewer than are to be used, or they were
                trained for another task or network.
        """
        if not config.path:
            raise UserError(
                f"this method matches with trained {config.noun}, and none are named: pass --experts auto to "
                "have them trained, or --experts FILE"
            )
        self.template = request.frozen()
        self.file = ExpertFile.open(config.path)
        if config.count > self.file.count:
            raise UserError(
                f"{config.path} holds {self.file.count} {config.noun}, not {config.count}: set "
                f"engine.supply.{config.noun}=0 for all of them, or train more with dsdistill experts"
            )
        self.count = config.count or self.file.count
        self.noun = config.noun
        self.file.check(request.task, request.name, request.fingerprint)

    def require(self, epochs: Iterable[int], remedy: str) -> None:
        """Refuse a file that lacks epochs a run may need.

        Args:
            epochs: all of them.
            remedy: what to change, to complete the sentence.

        Raises:
            UserError: naming the first that is missing.
        """
        file = self.file
        missing = next((epoch for epoch in epochs if epoch not in file.epochs), None)
        if missing is not None:
            raise UserError(
                f"{file.path} does not hold epoch {missing} of its {self.noun} (it holds {len(file.epochs)} "
                f"epochs, the last being {file.epochs[-1]}): {remedy}"
            )

    def logits(self, network: int, images: Tensor) -> Tensor:
        """Classify images [n, C, H, W] in network space by a trained network -> float32 [n, K], CPU."""
        return classify(self.template, self.file.state(network, self.file.epochs[-1]), images)


def classify(network: Network, state: Mapping[str, Tensor], images: Tensor) -> Tensor:
    """Classify images [n, C, H, W] in network space by such a network in another state -> float32 [n, K].

    Statistics of batch normalisation are those of the state. The result is on the CPU.
    """
    classifier = copy.deepcopy(network).eval()
    classifier.load_state_dict(dict(state))
    return logits_of(classifier, images)


@torch.no_grad()
def logits_of(network: Network, images: Tensor) -> Tensor:
    """Classify images [n, C, H, W] in network space by a network as it is -> float32 [n, K], on the CPU."""
    like = next(network.parameters())
    parts = [network(part.to(like.device, like.dtype)) for part in images.split(_CHUNK)]
    return torch.cat([part.float().cpu() for part in parts])
