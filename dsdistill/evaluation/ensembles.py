"""One student or several behind one interface, so that the training loop is the same for both.

Students that train on equal numbers of images take equal steps. Stacked, a step of all of them is one set of
kernels over [student, …] tensors. That is nearly free where a small network leaves a GPU idle. On a CPU it is
slower than one student at a time, because grouped convolutions are slow there.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from dsdistill.compute.memory_format import in_fast_order
from dsdistill.compute.training_graph import has_dropout, why_not_captured
from dsdistill.evaluation.execution import Execution
from dsdistill.evaluation.loss import StudentLoss, Targets
from dsdistill.networks import Network
from dsdistill.networks.wrapped import Wrapped
from dsdistill.runtime.cuda_graphs import GraphedBackward
from dsdistill.runtime.device import autocast

_CROSS_ENTROPY = StudentLoss()


class Ensemble(ABC):
    """Students of one architecture that train side by side.

    Attributes:
        count: how many.
        classes: K, the logits of one student for one image.
        parameters: every tensor to optimise.
        loss: images [count·B, C, H, W], student-major, and their targets, [count·B, …] each, to the sum over
            students of the mean loss; differentiable.
        logits: images [B, C, H, W] to [count, B, K].
        buffers: every other tensor that training changes.
    """

    count: int
    classes: int
    parameters: list[Tensor]
    loss: Callable[[Tensor, Targets], Tensor]
    logits: Callable[[Tensor], Tensor]
    buffers: Sequence[Tensor] = ()

    def capture(self, execution: Execution) -> None:
        """Have `backward` replay CUDA graphs, as far as the execution allows."""
        self._graphs = GraphedBackward(
            partial(self._backward, execution=execution),
            self.parameters,
            self.buffers,
            execution.cuda_graphs,
            execution.notify,
        )

    _graphs: GraphedBackward | None = None

    def backward(self, images: Tensor, targets: Targets, execution: Execution, parts: int = 1) -> None:
        """Add the gradient of the loss to the ``grad`` of every parameter.

        Args:
            images, targets: those of `loss`.
            execution: device and precision.
            parts: of the batch, of which this is one; its loss is divided by their number.
        """
        batch = {"images": images, **targets}
        if self._graphs and parts == 1:
            self._graphs(batch)
        else:
            self._backward(batch, execution, parts)

    def _backward(self, batch: Mapping[str, Tensor], execution: Execution, parts: int = 1) -> Tensor:
        targets = {name: value for name, value in batch.items() if name != "images"}
        with autocast(execution.device, execution.precision):
            loss = self.loss(batch["images"], targets)
        (loss / parts if parts > 1 else loss).backward()
        return loss.detach()

    @abstractmethod
    def load(self, networks: Sequence[Network]) -> None:
        """Copy the weights of ``count`` networks in, in place, so that compiled code stays valid."""

    @abstractmethod
    def train(self, mode: bool) -> None:
        """Switch between training and testing."""


class SingleStudent(Ensemble):
    """One network, trained in place: not a copy."""

    def __init__(
        self, network: Network, execution: Execution, objective: StudentLoss = _CROSS_ENTROPY
    ) -> None:
        self.count = 1
        self.classes = _outputs(network)
        self.parameters, self.buffers = list(network.parameters()), list(network.buffers())
        self._network = network

        def loss(images: Tensor, targets: Targets) -> Tensor:
            return objective(network(images), targets)

        def logits(images: Tensor) -> Tensor:
            return network(images).unsqueeze(0)

        self.loss, self.logits = execution.prepare(loss), execution.prepare(logits)

    def load(self, networks: Sequence[Network]) -> None:
        self._network.load_state_dict(networks[0].state_dict())

    def train(self, mode: bool) -> None:
        self._network.train(mode)


class StackedStudents(Ensemble):
    """Copies of several networks, their weights stacked along a first axis."""

    def __init__(
        self, networks: Sequence[Network], execution: Execution, objective: StudentLoss = _CROSS_ENTROPY
    ) -> None:
        self.count = count = len(networks)
        self.classes = _outputs(networks[0])
        template = copy.deepcopy(networks[0]).to("meta")
        weights, _ = stack_module_state(list(networks))
        self.parameters = list(weights.values())
        self._weights = weights

        def one(student: dict[str, Tensor], images: Tensor) -> Tensor:
            return functional_call(template, student, (images,))

        def one_loss(student: dict[str, Tensor], images: Tensor, targets: Targets) -> Tensor:
            return objective(one(student, images), targets)

        def loss(images: Tensor, targets: Targets) -> Tensor:
            batches = {name: target.unflatten(0, (count, -1)) for name, target in targets.items()}
            return vmap(one_loss)(weights, images.unflatten(0, (count, -1)), batches).sum()

        def logits(images: Tensor) -> Tensor:
            return vmap(one, in_dims=(0, None))(weights, images)

        self.loss, self.logits = execution.prepare(loss), execution.prepare(logits)

    @torch.no_grad()
    def load(self, networks: Sequence[Network]) -> None:
        states = [network.state_dict() for network in networks]
        for name, weight in self._weights.items():
            weight.copy_(torch.stack([state[name] for state in states]))

    def train(self, mode: bool) -> None:
        """Do nothing: networks that can be stacked compute the same in both modes."""


def stackable(network: Network) -> bool:
    """Whether students are independent functions of their parameters: no running statistics, no dropout.

    It is not known of the networks of libraries and of users, which count as not stackable.
    """
    if isinstance(network, Wrapped):
        return False
    return not has_dropout(network) and next(network.buffers(), None) is None


class Ensembles:
    """The ensembles of one architecture by size, built once and refilled: nothing is compiled twice."""

    def __init__(self, execution: Execution, objective: StudentLoss = _CROSS_ENTROPY) -> None:
        self.execution, self.objective = execution, objective
        self._by_size: dict[int, Ensemble] = {}

    def fill(self, networks: Sequence[Network]) -> Ensemble:
        """Return the ensemble of this size, with the weights of these networks."""
        device = self.execution.device
        networks = [in_fast_order(network.to(device), device) for network in networks]
        size = len(networks)
        if size in self._by_size:
            self._by_size[size].load(networks)
        else:
            self._by_size[size] = self._ensemble(networks)
        return self._by_size[size]

    def _ensemble(self, networks: Sequence[Network]) -> Ensemble:
        """Return a new ensemble of these networks."""
        ensemble: Ensemble
        if len(networks) == 1:
            ensemble = SingleStudent(networks[0], self.execution, self.objective)
        else:
            ensemble = StackedStudents(networks, self.execution, self.objective)
        if self.execution.cuda_graphs is not False:
            if reason := why_not_captured(networks[0]):
                if self.execution.cuda_graphs is True:
                    self.execution.notify(f"running without CUDA graphs: {reason}")
            else:
                ensemble.capture(self.execution)
        return ensemble


def _outputs(network: Network) -> int:
    """Count the logits; on the meta device, where nothing is computed or drawn."""
    classifier = copy.deepcopy(network.classifier).to("meta").eval()
    like = next(network.parameters())
    embedding = torch.empty(1, network.feature_dim, dtype=like.dtype, device="meta")
    return classifier(embedding).shape[-1]
