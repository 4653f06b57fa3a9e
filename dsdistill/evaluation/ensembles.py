"""One student or many behind one face, so that the training loop need not know which.

Students that train on equal numbers of images take the same steps. Stacked, each step of all of them is one
set of kernels over [student, …] tensors: close to free where a small network leaves a GPU idle, slower than
one by one on a CPU, whose grouped convolutions are poor.
"""

from __future__ import annotations

import copy
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.modules.dropout import _DropoutNd

from dsdistill.networks import Network
from dsdistill.networks.external import External
from dsdistill.runtime import compiler
from dsdistill.runtime.device import Precision
from dsdistill.runtime.notice import Notify

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Execution:
    """Where and how students are computed; none of it changes what is computed, up to rounding."""

    device: torch.device = CPU
    precision: Precision = "fp32"
    compile: bool = False
    notify: Notify = lambda message: None

    def prepared(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Compile a function where that is asked for."""
        return (
            compiler.compile_or_eager(_own(function), self.device, self.notify) if self.compile else function
        )


def _own(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Copy a closure along with its code: the compiler keeps few variants of one code object (8 by default).

    Every architecture and batch shape is a variant.
    """
    assert isinstance(function, types.FunctionType)
    code = function.__code__.replace()
    return types.FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )


class Ensemble(ABC):
    """Students of one architecture that train side by side.

    Attributes:
        count: how many.
        classes: K, the logits of one student for one image.
        parameters: every tensor to optimise.
        loss: images [count·B, C, H, W], student-major, and their targets (int64 [count·B], or probabilities
            [count·B, K]) to the sum over students of the mean cross-entropy; differentiable.
        logits: images [B, C, H, W] to [count, B, K].
    """

    count: int
    classes: int
    parameters: list[Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]
    logits: Callable[[Tensor], Tensor]

    @abstractmethod
    def load(self, networks: Sequence[Network]) -> None:
        """Take over the weights of ``count`` networks, in place, so that compiled code stays valid."""

    @abstractmethod
    def train(self, mode: bool) -> None:
        """Switch between training and testing."""


class Single(Ensemble):
    """One network; it is trained itself, not a copy."""

    def __init__(self, network: Network, execution: Execution) -> None:
        self.count = 1
        self.classes = _outputs(network)
        self.parameters = list(network.parameters())
        self._network = network

        def loss(images: Tensor, targets: Tensor) -> Tensor:
            return F.cross_entropy(_at_least_float32(network(images)), targets)

        def logits(images: Tensor) -> Tensor:
            return network(images).unsqueeze(0)

        self.loss, self.logits = execution.prepared(loss), execution.prepared(logits)

    def load(self, networks: Sequence[Network]) -> None:
        self._network.load_state_dict(networks[0].state_dict())

    def train(self, mode: bool) -> None:
        self._network.train(mode)


class Stacked(Ensemble):
    """Copies of several networks, their weights stacked along a first axis."""

    def __init__(self, networks: Sequence[Network], execution: Execution) -> None:
        self.count = count = len(networks)
        self.classes = _outputs(networks[0])
        template = copy.deepcopy(networks[0]).to("meta")
        weights, _ = stack_module_state(list(networks))
        self.parameters = list(weights.values())
        self._weights = weights

        def one(student: dict[str, Tensor], images: Tensor) -> Tensor:
            return functional_call(template, student, (images,))

        def one_loss(student: dict[str, Tensor], images: Tensor, targets: Tensor) -> Tensor:
            return F.cross_entropy(_at_least_float32(one(student, images)), targets)

        def loss(images: Tensor, targets: Tensor) -> Tensor:
            batches = images.unflatten(0, (count, -1)), targets.unflatten(0, (count, -1))
            return vmap(one_loss)(weights, *batches).sum()

        def logits(images: Tensor) -> Tensor:
            return vmap(one, in_dims=(0, None))(weights, images)

        self.loss, self.logits = execution.prepared(loss), execution.prepared(logits)

    @torch.no_grad()
    def load(self, networks: Sequence[Network]) -> None:
        states = [network.state_dict() for network in networks]
        for name, weight in self._weights.items():
            weight.copy_(torch.stack([state[name] for state in states]))

    def train(self, mode: bool) -> None:
        """Do nothing: what can be stacked computes the same in both modes."""


def stackable(network: Network) -> bool:
    """Whether students are independent functions of their parameters: no running statistics, no dropout.

    Of the networks of other libraries that is not known.
    """
    if isinstance(network, External):
        return False
    dropout = any(isinstance(module, _DropoutNd) and module.p > 0 for module in network.modules())
    return not dropout and next(network.buffers(), None) is None


class Ensembles:
    """The ensembles of one architecture by size, made once and refilled: nothing is compiled twice."""

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self._made: dict[int, Ensemble] = {}

    def filled(self, networks: Sequence[Network]) -> Ensemble:
        """Return a ensemble with the weights of these networks."""
        size = len(networks)
        networks = [network.to(self.execution.device) for network in networks]
        if size in self._made:
            self._made[size].load(networks)
        else:
            single = size == 1
            self._made[size] = (
                Single(networks[0], self.execution) if single else Stacked(networks, self.execution)
            )
        return self._made[size]


def _outputs(network: Network) -> int:
    """Count the logits; on the meta device, where nothing is computed or drawn."""
    classifier = copy.deepcopy(network.classifier).to("meta").eval()
    weight = next(classifier.parameters())
    return classifier(weight.new_empty(1, network.feature_dim)).shape[-1]


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
