"""A population of networks in training on the synthetic set itself, which regression methods match in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from dsdistill.compute.memory_format import in_fast_order
from dsdistill.compute.optimiser import MOMENTS, make_optimiser, restore, state_of
from dsdistill.compute.recomputed import logits_of
from dsdistill.config.validation import forbid_extra
from dsdistill.objectives.precision import at_least_float32
from dsdistill.runtime import compiler
from dsdistill.runtime.device import autocast
from dsdistill.seeding import generator
from dsdistill.supply.base import (
    DrawnNetwork,
    NetworkConfig,
    NetworkRequest,
    PassOptions,
    bytes_of,
    normalise_by_batch,
)
from dsdistill.supply.batches import TrainingBatches
from dsdistill.supply.cost import Sizes
from dsdistill.supply.fresh import Fresh
from dsdistill.synthetic.set import SyntheticSet

_KEPT = 0.25
"""Of an image's maps, what lies between the parts of a network that are computed again."""


_TOGETHER = 20
"""Steps of a network that is trained before the first iteration, between two looks at signals."""


def _part(chunk: int) -> int:
    """Return the images of a part: half of a pass, as their maps are there beside what lies between parts."""
    return -(-chunk // 2)


RegressionLoss = Literal["sse", "mse"]
"""sse: half the squared error, summed over what a network answers. mse: its mean."""


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class RegressionTraining:
    """How a network of a population is trained: to answer to each synthetic image as the set says."""

    loss: RegressionLoss = "sse"
    """sse: half the squared error, summed over the answers to an image (FRePo); mse: its mean over them
    (KRR-ST)."""
    optimiser: Literal["adam", "sgd"] = "adam"
    """The algorithm; adam has torch's betas."""
    lr: Annotated[float, Ge(0)] = 3e-4
    """Learning rate, which stays."""
    momentum: Annotated[float, Ge(0)] = 0.0
    """Of sgd."""
    weight_decay: Annotated[float, Ge(0)] = 0.0
    """Added to the gradient."""
    batch_size: Annotated[int, Ge(0)] = 1000
    """Images of a step; random ones where the set has more, else all. 0 always takes all."""

    def images(self, sizes: Sizes) -> int:
        """Return the images of a step."""
        return min(self.batch_size or sizes.total, sizes.total)


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class InPopulationConfig(NetworkConfig):
    """Options of every population."""

    size: Annotated[int, Ge(1)] = 10
    """Networks."""
    max_age: Annotated[int, Ge(1)] = 101
    """Age at which a network makes room for a new one, in place of a step; its age is the steps it has taken
    and those that ``first_ages`` says."""
    first_ages: Literal["zero", "staggered", "random"] = "staggered"
    """Ages of the first networks: 0 … max_age in equal steps, so that they are not replaced all at once
    (FRePo); or random, from 1 on (KRR-ST)."""
    pretrain: bool = False
    """Train the first networks for as many steps as their age says (KRR-ST); else they begin untrained
    (FRePo)."""
    reset_age: bool = True
    """A new network has age 0. false reproduces an error in KRR-ST's released code: it keeps the age of the
    one before it, so that it is replaced whenever it is drawn, and never trained."""
    training: RegressionTraining = field(default_factory=RegressionTraining)

    def training_images(self, sizes: Sizes) -> int:
        """Count one step."""
        return self.training.images(sizes)

    def training_graph(self, sizes: Sizes) -> int:
        """Count its images; of those whose maps are made again, a part."""
        images = self.training.images(sizes)
        whole = min(images, _part(sizes.chunk)) if sizes.parted else images
        return whole + round(_KEPT * (images - whole))

    def ages(self, seed: int) -> list[int]:
        """Return the ages of the first networks."""
        if self.first_ages == "staggered":
            return [self.max_age * place // self.size for place in range(self.size)]
        if self.first_ages == "zero":
            return [0] * self.size
        stream = generator(seed, "population-ages")
        return torch.randint(1, self.max_age + 1, (self.size,), generator=stream).tolist()


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class PopulationConfig(InPopulationConfig):
    """Networks in training on the synthetic set, a random one of which an iteration has (FRePo).

    It takes a step after the iteration, or makes room for a new one.
    """

    kind: Literal["population"] = "population"

    def build(self, request: NetworkRequest) -> Population:
        """Return the supply."""
        return Population(request, self)


@dataclass
class Individual:
    """One network of a population.

    Attributes:
        number: of its initial weights, counted over the run.
        age: see `InPopulationConfig.max_age`.
        steps: that it has taken.
        state: weights, buffers and what its optimiser remembers, as `state_of` names them.
    """

    number: int
    age: int
    steps: int
    state: dict[str, Tensor]


class Population(Fresh):
    """Networks in training on the synthetic set (FRePo, KRR-ST).

    They are matched in with the running statistics of batch normalisation, and trained with those of the
    batch.

    Attributes:
        individuals: the networks; none before the first is drawn.
        position: which of them was drawn.
    """

    def __init__(self, request: NetworkRequest, config: InPopulationConfig) -> None:
        super().__init__(request)
        self.network = in_fast_order(self.network, request.device)
        normalise_by_batch(self.network, False)
        self.config = config
        self.individuals: list[Individual] = []
        self.position = 0
        self._next_number = 0
        self._pretrains = config.pretrain
        self._loss = self._plain_loss

    def ready(self, passes: PassOptions) -> None:
        """Have the loss of a step computed as the run's options say; it is compiled for few images."""
        device = self.request.device

        def loss(images: Tensor, answers: Tensor, chunk: int) -> Tensor:
            with autocast(device, passes.precision):
                return self._plain_loss(images, answers, chunk)

        few = compiler.compile_or_eager(loss, device, passes.notify) if passes.compile else loss
        self._loss = lambda images, answers, chunk: (few if len(images) <= chunk else loss)(
            images, answers, chunk
        )

    def _plain_loss(self, images: Tensor, answers: Tensor, chunk: int) -> Tensor:
        """Return the mean over images of the error of the network's answers.

        Args:
            chunk: images of a pass whose graph is kept.
        """
        error = (at_least_float32(logits_of(self.network, images, chunk)) - answers).square()
        return error.mean() if self.config.training.loss == "mse" else error.sum() / (2 * len(images))

    def leave_untrained(self) -> None:
        """Have the first iterations take networks as `begin` has left them, for a trial."""
        self._pretrains = False

    def network_bytes(self, iterations: int) -> int:
        """Count all networks with what their optimisers remember, and one in training."""
        parameters = bytes_of(dict(self.network.named_parameters()))
        training = self.config.training
        moments = 0 if training.optimiser == "sgd" and not training.momentum else MOMENTS[training.optimiser]
        each = super().network_bytes(iterations) + moments * parameters
        return (self.config.size + 1) * each + parameters

    def draw(self, iteration: int, batches: TrainingBatches) -> DrawnNetwork:
        """Give ``network`` the weights of a random individual; the first time, make all that are missing."""
        for _ in self.begin(batches):
            pass
        stream = generator(self.request.seed, "population", iteration)
        self.position = int(torch.randint(len(self.individuals), (), generator=stream))
        state = self.individuals[self.position].state
        self.network.load_state_dict({name: state[f"network.{name}"] for name in self.network.state_dict()})
        return DrawnNetwork()

    def advance(self, iteration: int, batches: TrainingBatches) -> None:
        """Have the individual that was drawn take a step, or replace it."""
        individual = self.individuals[self.position]
        if individual.age < self.config.max_age:
            self._train(individual, batches, steps=1)
            individual.age += 1
            return
        self.individuals[self.position] = self._new(0 if self.config.reset_age else individual.age)

    def begin(self, batches: TrainingBatches) -> Iterator[tuple[int, int]]:
        """Make the first individuals, and train them if they are to be."""
        ages = self.config.ages(self.request.seed)
        for age in ages[len(self.individuals) :]:
            self.individuals.append(self._new(age))
        goals = ages if self._pretrains else [0] * len(ages)
        total, done = sum(goals), 0
        for individual in self.individuals:
            goal = goals[individual.number] if individual.number < len(goals) else 0  # later ones have none
            while individual.steps < goal:
                self._train(individual, batches, steps=min(_TOGETHER, goal - individual.steps))
                yield done + individual.steps, total
            done += goal

    def _new(self, age: int) -> Individual:
        """Make an individual of new weights."""
        self.initialise(self._next_number)
        self._next_number += 1
        state = {f"network.{name}": value.clone() for name, value in self.network.state_dict().items()}
        return Individual(self._next_number - 1, age, 0, state)

    def _train(self, individual: Individual, batches: TrainingBatches, steps: int) -> None:
        """Take steps on the synthetic set as it is; dropout stays off."""
        assert batches.synthetic is not None  # as engines draw that learn targets
        optimiser = make_optimiser(self.network, self.config.training)
        restore(self.network, optimiser, individual.state)
        self.network.requires_grad_(True)
        normalise_by_batch(self.network, True)
        part = _part(batches.learner.chunk)
        for images, answers in self._batches(individual, batches.synthetic, steps):
            self._loss(images, answers, part).backward()
            optimiser.step()
            optimiser.zero_grad()
        self.network.requires_grad_(False)
        normalise_by_batch(self.network, False)
        individual.steps += steps
        individual.state = {name: value.clone() for name, value in state_of(self.network, optimiser).items()}

    @torch.no_grad()
    def _batches(
        self, individual: Individual, synthetic: SyntheticSet, steps: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the images of each step and what a network is to answer to them."""
        images = synthetic.of(torch.arange(len(synthetic.counts))).detach()
        answers, size = synthetic.answers().detach(), self.config.training.batch_size
        for step in range(individual.steps, individual.steps + steps):
            if not 0 < size < len(images):
                yield images, answers
                continue
            stream = generator(self.request.seed, "population-batches", individual.number, step)
            rows = torch.randperm(len(images), generator=stream)[:size].to(images.device, non_blocking=True)
            yield images[rows], answers[rows]

    def state_dict(self) -> dict[str, Tensor]:
        """Return every network with its age and what its optimiser remembers."""
        state = {"made": torch.tensor(self._next_number)}
        for place, each in enumerate(self.individuals):
            key = f"individual.{place}."
            state[f"{key}counts"] = torch.tensor([each.number, each.age, each.steps])
            state |= {key + name: value for name, value in each.state.items()}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a state returned by `state_dict`."""
        self._next_number = int(state["made"])
        self.individuals = []
        while (key := f"individual.{len(self.individuals)}.") + "counts" in state:
            number, age, steps = state[f"{key}counts"].tolist()
            values = {
                name.removeprefix(key): value.to(self.request.device, copy=True)
                for name, value in state.items()
                if name.startswith(key) and name != f"{key}counts"
            }
            self.individuals.append(Individual(number, age, steps, values))
