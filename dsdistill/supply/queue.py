"""A queue of networks in training on real data, which IDM matches with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from dsdistill.compute.sgd import momentum_of, sgd
from dsdistill.config.validation import forbid_extra
from dsdistill.seeding import generator
from dsdistill.supply.base import DrawnNetwork, NetworkConfig, NetworkRequest, bytes_of, normalise_by_batch
from dsdistill.supply.batches import TrainingBatches
from dsdistill.supply.cost import Sizes
from dsdistill.supply.fresh import Fresh


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class QueueConfig(NetworkConfig):
    """A queue of networks in training on real data, one of which is matched with (IDM)."""

    kind: Literal["queue"] = "queue"
    size: Annotated[int, Ge(1)] = 100
    """Networks in the queue; the oldest makes room for a new one."""
    start: Annotated[int, Ge(0)] = 3
    """Networks in the queue before the first iteration."""
    push_every: Annotated[int, Ge(1)] = 30
    """Iterations between new networks."""
    networks: Annotated[int, Ge(1)] = 2
    """Networks trained after each iteration."""
    steps: Annotated[int, Ge(0)] = 10
    """Steps each of them takes then."""
    lr: Annotated[float, Ge(0)] = 0.01
    """Learning rate of the networks."""
    momentum: Annotated[float, Ge(0)] = 0.9
    """Of their training."""
    weight_decay: Annotated[float, Ge(0)] = 5e-4
    """Of their training."""
    batch_size: Annotated[int, Ge(1)] = 256
    """Images of one of their steps."""
    forget_every: Annotated[int, Ge(1)] = 100
    """Iterations between resets of all accuracies, as the released code does whenever it evaluates."""

    def build(self, request: NetworkRequest) -> Queue:
        """Return the supply."""
        return Queue(request, self)

    def training_images(self, sizes: Sizes) -> int:
        """Count the real images of all steps."""
        return self.networks * self.steps * self.batch_size

    def training_graph(self, sizes: Sizes) -> int:
        """Count a batch."""
        return self.batch_size


@dataclass
class Member:
    """One network of a queue.

    Attributes:
        state: its ``state_dict()``.
        momentum: by parameter name.
        correct: images of its training batches that it classified correctly since the last reset; int64
            scalar on the device.
        seen: images of those batches.
    """

    state: dict[str, Tensor]
    momentum: dict[str, Tensor]
    correct: Tensor
    seen: int = 0


class Queue(Fresh):
    """Partly trained networks, of which a random one is matched with and a few others are trained (IDM).

    The accuracy of a network is counted over its own training batches, before each step. No test set is read.

    Attributes:
        members: the networks, oldest first.
        position: which of them was drawn.
    """

    def __init__(self, request: NetworkRequest, config: QueueConfig) -> None:
        super().__init__(request)
        normalise_by_batch(self.network, False)
        self.config = config
        self.members: list[Member] = []
        self.position = 0
        self._pushed = 0

    @property
    def accuracy(self) -> Tensor:
        """The drawn network's accuracy in percent since the last reset; 0 where it has seen nothing since."""
        member = self.members[self.position]
        return 100 * member.correct / max(1, member.seen)

    def network_bytes(self, iterations: int) -> int:
        """Count all networks that will be in the queue at once, with momentum, and one in training."""
        state = super().network_bytes(iterations)
        parameters = bytes_of(dict(self.network.named_parameters()))
        momentum = parameters if self.config.momentum else 0
        pushed = self.config.start + -(-iterations // self.config.push_every)
        return min(self.config.size, pushed) * (state + momentum) + state + parameters

    def draw(self, iteration: int, batches: TrainingBatches) -> DrawnNetwork:
        """Let a new network in where one is due, and give ``network`` the weights of a random one."""
        if iteration == 0:
            for _ in range(self.config.start):
                self._push()
        if iteration % self.config.push_every == 0:
            self._push()
        if iteration % self.config.forget_every == 0:
            for member in self.members:
                member.correct, member.seen = torch.zeros_like(member.correct), 0
        stream = generator(self.request.seed, "queue", iteration)
        self.position = int(torch.randint(len(self.members), (), generator=stream))
        self.network.load_state_dict(self.members[self.position].state)
        return DrawnNetwork(accuracy_weight=self.accuracy)

    def advance(self, iteration: int, batches: TrainingBatches) -> None:
        """Train a few random networks."""
        config = self.config
        stream = generator(self.request.seed, "queue-training", iteration)
        positions = torch.randperm(len(self.members), generator=stream)[: config.networks].tolist()
        self.network.requires_grad_(True)
        normalise_by_batch(self.network, True)
        for turn, position in enumerate(positions):
            member = self.members[position]
            self.network.load_state_dict(member.state)
            optimiser = sgd(self.network, config, member.momentum)
            for images, targets in batches.random_real(iteration, turn, config.steps, config.batch_size):
                loss, correct = batches.learner.loss_and_correct(images, targets)
                loss.backward()
                optimiser.step()
                optimiser.zero_grad()
                member.correct, member.seen = member.correct + correct, member.seen + len(images)
            member.state = {name: value.clone() for name, value in self.network.state_dict().items()}
            member.momentum = momentum_of(self.network, optimiser)
        self.network.requires_grad_(False)
        normalise_by_batch(self.network, False)

    def state_dict(self) -> dict[str, Tensor]:
        """Return every network with its momentum and its accuracy."""
        state = {"pushed": torch.tensor(self._pushed)}
        for position, member in enumerate(self.members):
            key = f"member.{position}."
            state |= {f"{key}state.{name}": value for name, value in member.state.items()}
            state |= {f"{key}momentum.{name}": value for name, value in member.momentum.items()}
            state |= {f"{key}right": member.correct, f"{key}seen": torch.tensor(member.seen)}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a state returned by `state_dict`."""
        device = self.request.device
        self._pushed = int(state["pushed"])
        self.members = []
        while (key := f"member.{len(self.members)}.") + "right" in state:
            values = {name.removeprefix(key): value for name, value in state.items() if name.startswith(key)}
            parts: dict[str, dict[str, Tensor]] = {"state": {}, "momentum": {}}
            for name, value in values.items():
                part, _, rest = name.partition(".")
                if rest:
                    parts[part][rest] = value.to(device, copy=True)
            correct = values["right"].to(device, copy=True)
            self.members.append(Member(parts["state"], parts["momentum"], correct, int(values["seen"])))

    def _push(self) -> None:
        """Let the next network in, and the oldest out where the queue is full."""
        if len(self.members) >= self.config.size:
            self.members.pop(0)
        self.initialise(self._pushed)
        state = {name: value.clone() for name, value in self.network.state_dict().items()}
        none_correct = torch.zeros((), dtype=torch.int64, device=self.request.device)
        self.members.append(Member(state, {}, none_correct))
        self._pushed += 1
