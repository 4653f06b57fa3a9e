"""A queue of networks in training on real data, which IDM matches with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from dsdistill import seeding
from dsdistill.compute.learner import Learner
from dsdistill.compute.sgd import momentum_of, sgd
from dsdistill.config.validation import forbid_extra
from dsdistill.data.real import Task
from dsdistill.supply.base import Batch, bytes_of, normalise_by_batch
from dsdistill.supply.fresh import Fresh


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class QueueConfig:
    """A queue of networks in training on real data, one of which is matched with (IDM)."""

    kind: Literal["queue"] = "queue"
    size: Annotated[int, Ge(1)] = 100
    """Networks held; the oldest makes room for a new one."""
    start: Annotated[int, Ge(0)] = 3
    """Networks held before the first iteration."""
    push_every: Annotated[int, Ge(1)] = 30
    """Iterations between new networks."""
    networks: Annotated[int, Ge(1)] = 2
    """Networks trained after each iteration."""
    steps: Annotated[int, Ge(0)] = 10
    """Steps each of them takes then."""
    lr: Annotated[float, Ge(0)] = 0.01
    momentum: Annotated[float, Ge(0)] = 0.9
    weight_decay: Annotated[float, Ge(0)] = 5e-4
    batch_size: Annotated[int, Ge(1)] = 256
    forget_every: Annotated[int, Ge(1)] = 100
    """Iterations between resets of all accuracies, as the released code does whenever it evaluates."""

    @property
    def trained(self) -> int:
        """Real images that networks are trained on in an iteration."""
        return self.networks * self.steps * self.batch_size

    def build(self, name: str, task: Task, device: torch.device) -> Queue:
        """Return the supply."""
        return Queue(name, task, device, self)


@dataclass
class _Member:
    """One network of a queue: its state, its momentum, and how it did on the batches it was trained on."""

    state: dict[str, Tensor]
    momentum: dict[str, Tensor]
    right: Tensor
    seen: int = 0


class Queue(Fresh):
    """Partly trained networks, of which a random one is matched with and a few others trained (IDM).

    The accuracy of a network is counted over its own training batches, before each step; it knows nothing of
    any test set.
    """

    def __init__(self, name: str, task: Task, device: torch.device, told: QueueConfig) -> None:
        super().__init__(name, task, device)
        normalise_by_batch(self.network, False)
        self.told = told
        self._device = device
        self._members: list[_Member] = []
        self._pushed = 0
        self._picked = 0

    @property
    def trust(self) -> Tensor:
        """The picked network's accuracy in percent since the last reset; 0 if it has seen nothing since."""
        member = self._members[self._picked]
        return 100 * member.right / max(1, member.seen)

    def network_bytes(self, iterations: int) -> int:
        """Count all that will have been let in and have room, with momentum, and one in training."""
        state = super().network_bytes(iterations)
        parameters = bytes_of(dict(self.network.named_parameters()))
        momentum = parameters if self.told.momentum else 0
        pushed = self.told.start + -(-iterations // self.told.push_every)
        return min(self.told.size, pushed) * (state + momentum) + state + parameters

    def draw(self, seed: int, iteration: int) -> bool:
        """Let a new network in where one is due, and give ``network`` the weights of a random one."""
        if iteration == 0:
            for _ in range(self.told.start):
                self._push(seed)
        if iteration % self.told.push_every == 0:
            self._push(seed)
        if iteration % self.told.forget_every == 0:
            for member in self._members:
                member.right, member.seen = torch.zeros_like(member.right), 0
        stream = seeding.generator(seed, "queue", iteration)
        self._picked = int(torch.randint(len(self._members), (), generator=stream))
        self.network.load_state_dict(self._members[self._picked].state)
        return True

    def train(
        self, learner: Learner, seed: int, iteration: int, batches: Callable[[int], Iterable[Batch]]
    ) -> None:
        """Train a few random networks; ``batches`` gives the n-th of them its own."""
        stream = seeding.generator(seed, "queue-training", iteration)
        chosen = torch.randperm(len(self._members), generator=stream)[: self.told.networks].tolist()
        self.network.requires_grad_(True)
        normalise_by_batch(self.network, True)
        for turn, position in enumerate(chosen):
            member = self._members[position]
            self.network.load_state_dict(member.state)
            optimiser = sgd(self.network, self.told, member.momentum)
            for images, targets in batches(turn):
                loss, right = learner.loss_and_correct(images, targets)
                loss.backward()
                optimiser.step()
                optimiser.zero_grad()
                member.right, member.seen = member.right + right, member.seen + len(images)
            member.state = {name: value.clone() for name, value in self.network.state_dict().items()}
            member.momentum = momentum_of(self.network, optimiser)
        self.network.requires_grad_(False)
        normalise_by_batch(self.network, False)

    def state_dict(self) -> dict[str, Tensor]:
        """Return every network with its momentum and its accuracy."""
        state = {"pushed": torch.tensor(self._pushed)}
        for position, member in enumerate(self._members):
            key = f"member.{position}."
            state |= {f"{key}state.{name}": value for name, value in member.state.items()}
            state |= {f"{key}momentum.{name}": value for name, value in member.momentum.items()}
            state |= {f"{key}right": member.right, f"{key}seen": torch.tensor(member.seen)}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a state returned by `state_dict`."""
        self._pushed = int(state["pushed"])
        self._members = []
        while (key := f"member.{len(self._members)}.") + "right" in state:
            held = {name.removeprefix(key): value for name, value in state.items() if name.startswith(key)}
            parts: dict[str, dict[str, Tensor]] = {"state": {}, "momentum": {}}
            for name, value in held.items():
                part, _, rest = name.partition(".")
                if rest:
                    parts[part][rest] = value.to(self._device, copy=True)
            right = held["right"].to(self._device, copy=True)
            self._members.append(_Member(parts["state"], parts["momentum"], right, int(held["seen"])))

    def _push(self, seed: int) -> None:
        """Let the next network in, and the oldest out where the queue is full."""
        if len(self._members) >= self.told.size:
            self._members.pop(0)
        super().draw(seed, self._pushed)
        state = {name: value.clone() for name, value in self.network.state_dict().items()}
        self._members.append(_Member(state, {}, torch.zeros((), dtype=torch.int64, device=self._device)))
        self._pushed += 1
