"""Trajectory matching: move synthetic images until a student trained on them arrives where an expert did.

MTT (Cazenavette et al., *Dataset Distillation by Matching Training Trajectories*, CVPR 2022): from the
weights θ*_s of an expert after s epochs of real data, a student takes T steps on synthetic batches, and

    L = ‖θ_T - θ*_{s+M}‖² / ‖θ_0 - θ*_{s+M}‖²,    θ_0 = θ*_s.

FTD (Du et al., CVPR 2023) follows flatter experts and keeps an average of the pixels; DATM (Guo et al., ICLR
2024) widens the range of s and learns labels; AST (Shen et al. 2023) lets the student have momentum, matches
epochs between and perturbs the start. The gradient is exact, with the graph of one step in memory: see
`dsdistill.compute.unroll`. TESLA's (Cui et al., ICML 2023) approximation is an option.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn

from dsdistill import seeding
from dsdistill.compute.chunks import equal_chunk
from dsdistill.compute.config import OptimiserConfig
from dsdistill.compute.custom_gradient import attach_gradients
from dsdistill.compute.unroll import UnrolledStudent
from dsdistill.config.validation import forbid_extra
from dsdistill.engines.base import Engine
from dsdistill.engines.sources import Sources
from dsdistill.errors import UserError
from dsdistill.networks.base import Network
from dsdistill.supply.base import NetworkRequest
from dsdistill.supply.cost import Cost, Sizes
from dsdistill.supply.trajectories import Trajectories, TrajectoriesConfig
from dsdistill.synthetic.set import SyntheticSet

_STEP_COPIES = 8
"""Of a step's images: drawn, augmented by a grid as large as two, and gradients, in parts and joined."""

_ADJOINT_WEIGHTS = 6
"""Vectors of weights besides the path and its derivatives: the expert's, λ, κ, both updated, a gradient."""


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class StartConfig:
    """The epoch s of an expert that a student starts from: uniform in ``least`` … ``most`` - 1."""

    least: Annotated[int, Ge(0)] = 0
    """The first epoch to start from."""
    most: Annotated[int, Ge(1)] = 20
    """Excluded ("max_start_epoch")."""
    widen_from: Annotated[int, Ge(0)] = 0
    """What ``most`` is at first (DATM's current_max_start_epoch); used where ``widen_until`` is not 0."""
    widen_until: Annotated[int, Ge(0)] = 0
    """Iterations in which it grows from there, by equal steps; 0 begins with the whole range."""

    def __post_init__(self) -> None:
        bounds = {"most": self.most} | ({"widen_from": self.widen_from} if self.widen_until else {})
        lowest = min(bounds, key=bounds.__getitem__)
        if not self.least < bounds[lowest]:
            raise UserError(
                f"no epoch to start from: engine.start.least = {self.least} has to lie below "
                f"engine.start.{lowest} = {bounds[lowest]}"
            )

    def below(self, iteration: int) -> int:
        """Return the bound of an iteration, excluded."""
        if not self.widen_until:
            return self.most
        grown = (self.most - self.widen_from) * iteration // self.widen_until
        return min(self.most, self.widen_from + max(0, grown))


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """How a student steps, and how its learning rate is learned: by SGD, as published."""

    lr: Annotated[float, Gt(0)] = 0.01
    """β at first ("lr_teacher")."""
    learning: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(lr=1e-5))
    """How β is stepped; lr = 0 keeps it ("lr_lr")."""
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Differentiated through (AST: 0.9)."""

    def __post_init__(self) -> None:
        _plain(self.learning, "engine.student.learning")


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class LabelsConfig:
    """Learned labels (DATM): logits that begin as the experts' own, softened by softmax in the loss."""

    learned: bool = False
    """Learn them; otherwise labels are hard."""
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(lr=10.0, momentum=0.9))
    """A table that gives some of its keys has the others from OptimiserConfig: a momentum of 0.5."""

    def __post_init__(self) -> None:
        _plain(self.optimiser, "engine.labels.optimiser")


def _plain(optimiser: OptimiserConfig, name: str) -> None:
    """Refuse what only pixels have."""
    for key in ("updates", "clamp_every", "clamp", "schedule", "final", "ema", "patience"):
        if getattr(optimiser, key) != getattr(OptimiserConfig(), key):
            raise UserError(
                f"{name}.{key} means something for pixels only: leave it out, or set optimiser.{key}"
            )


@dataclass(frozen=True, kw_only=True)
class TrajectoryEngine(Engine[Trajectories]):
    """Match where students and experts arrive."""

    class_by_class: ClassVar[bool] = False

    kind: Literal["trajectory"] = "trajectory"
    supply: TrajectoriesConfig = field(default_factory=TrajectoriesConfig)
    steps: Annotated[int, Ge(1)] = 20
    """T, the student's ("syn_steps")."""
    expert_epochs: Annotated[int, Ge(1)] = 2
    """M, the expert epochs to match."""
    start: StartConfig = field(default_factory=StartConfig)
    batch_synthetic: Annotated[int, Ge(0)] = 0
    """Images of a student's step, from shuffled passes over the set; 0 takes all ("batch_syn")."""
    student: StudentConfig = field(default_factory=StudentConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    gradient: Literal["exact", "truncated", "halved"] = "exact"
    """exact (MTT's); truncated (TESLA's formula); or halved, which is truncated and to the pixels half of
    the formula, as TESLA's released code computes it, for which its learning rates were found."""
    last: Annotated[int, Ge(0)] = 0
    """Go back over so many of the last steps only (AST's ignore_graph: 8); 0 goes over all."""
    skip_above: Annotated[float, Ge(0)] = 0.0
    """A loss above it changes nothing (DATM's threshold); 0 takes every loss."""
    between: Literal["none", "equal", "rising"] = "none"
    """Match the expert's M - 1 epochs between too, at steps m·⌊T / M⌋ (AST): weighed 1 each ("agg"), or m / M
    ("adaptive")."""
    balance: bool = False
    """Weigh the student's loss by where it starts (AST): less in early epochs, more in late ones."""
    perturbation: Annotated[float, Ge(0)] = 0.0
    """Size of random noise on the convolutions a student starts from, relative to each (AST: 1)."""

    @property
    def epochs_read(self) -> int:
        """The last start, and the epochs that are followed from there."""
        return self.start.most - 1 + self.expert_epochs

    def within(self, epochs: int) -> dict[str, Any]:
        """Start no later than so many epochs allow."""
        most = max(1, epochs + 1 - self.expert_epochs)
        if most >= self.start.most:
            return {}
        start = {"least": min(self.start.least, most - 1), "most": most}
        if self.start.widen_from >= most:  # the whole range at once
            start |= {"widen_from": 0, "widen_until": 0}
        return {"start": start}

    def separable(self, network: Network) -> bool:
        """Return False: a student sees all classes."""
        return False

    def divisible(self, network: Network) -> bool:
        """Whether processes may share the images of each step of a student."""
        return not network.couples_samples

    @property
    def auxiliary_optimisers(self) -> Mapping[str, OptimiserConfig]:
        """Return the optimisers of the student's learning rate and of the labels."""
        return {"student_lr": self.student.learning, "label_logits": self.labels.optimiser}

    def build_networks(self, request: NetworkRequest) -> Trajectories:
        """Open the experts.

        Raises:
            UserError: no file is named, it does not fit, or it lacks epochs a student may need.
        """
        trajectories = self.supply.build(request)
        least, most, ahead = self.start.least, self.start.most, self.expert_epochs
        epochs = itertools.chain(range(least, most), range(least + ahead, most + ahead))
        if self.between != "none":
            epochs = itertools.chain(range(least, most + ahead))
            if self.steps < ahead:
                raise UserError(
                    f"{self.steps} steps cannot meet the epochs between {ahead}: set engine.steps to as many "
                    "at least, or engine.between=none"
                )
        trajectories.require(
            epochs,
            f"a start below engine.start.most = {most} is followed for engine.expert_epochs = {ahead}: lower "
            f"one of them, or train experts for {most + ahead - 1} epochs, all kept",
        )
        return trajectories

    def prepare(self, synthetic: SyntheticSet, sources: Sources[Trajectories]) -> None:
        """Register the student's learning rate and, where they are learned, the labels.

        Raises:
            UserError: a step would take more images than there are.
        """
        count = sum(synthetic.decoded_counts)
        if self.batch_synthetic > count:
            raise UserError(
                f"engine.batch_synthetic = {self.batch_synthetic} is more than the {count} images of the "
                "set; set it to 0 for all of them, or choose a larger --ipc"
            )
        if self.last > self.steps:
            raise UserError(f"engine.last = {self.last} is more than engine.steps = {self.steps}; lower it")
        synthetic.student_lr = nn.Parameter(torch.tensor(self.student.lr).to(synthetic.images))
        if self.labels.learned:
            synthetic.label_logits = nn.Parameter(
                _averaged_logits(synthetic, sources.supply).to(synthetic.images)
            )

    def discards(self, terms: Mapping[str, Tensor]) -> bool:
        """Whether the loss is above the threshold."""
        return bool(self.skip_above) and float(terms["trajectory"].detach()) > self.skip_above

    def loss(self, synthetic: SyntheticSet, sources: Sources[Trajectories]) -> dict[str, Tensor]:
        """Return the term ``trajectory``; without a graph where it would be discarded.

        Raises:
            UserError: the learned learning rate is no longer positive.
        """
        trajectories, lr = sources.supply, synthetic.student_lr
        assert lr is not None
        if not lr.item() > 0:
            raise UserError(
                f"the student's learning rate, which is learned, has become {lr.item():.3g} at iteration "
                f"{sources.iteration}: start anew with a lower engine.student.learning.lr or, "
                "where losses begin far above 1, engine.start.most, and --overwrite"
            )
        images = synthetic.of(sources.classes)
        expert = trajectories.expert(sources.seed, sources.iteration)
        epoch = self._epoch(sources)
        start = self._perturbed(trajectories.weights(expert, epoch, images), sources)
        targets = _targets(synthetic)
        student = self._student(synthetic, images.detach(), targets.detach(), self._weight(epoch), sources)
        path = student.unroll(start, lr, self.student.momentum)
        loss, cotangents = torch.zeros_like(lr).detach(), {}
        for step, (weight, further) in self._goals().items():
            goal = trajectories.weights(expert, epoch + further, images)
            weight_of = weight / (start - goal).square().sum()
            gap = path[step] - goal
            loss = loss + weight_of * gap.square().sum()
            cotangents[step] = 2 * weight_of * gap
        (discarded,) = sources.ranks.any(self.discards({"trajectory": loss}))  # which rounding may divide
        if discarded:
            return {"trajectory": loss}  # which is more where all processes add it up
        grads = student.adjoint(
            path, cotangents, lr, self.student.momentum, truncated=self.gradient != "exact", last=self.last
        )
        to_images = 0.5 * grads.images if self.gradient == "halved" else grads.images
        pairs = [(images, to_images), (lr, grads.lr)]
        if grads.labels is not None:
            pairs.append((targets, grads.labels))
        if not sources.ranks.is_first:  # the gradients are parts, and the value is whole
            loss = torch.zeros_like(loss)
        return {"trajectory": attach_gradients(loss, *pairs)}

    def _student(
        self,
        synthetic: SyntheticSet,
        images: Tensor,
        targets: Tensor,
        weight: float,
        sources: Sources[Trajectories],
    ) -> UnrolledStudent:
        """Return an iteration's student: its batches, and one operator for each with scalars per image."""
        augmentation, side = sources.augmentation, sources.task.size
        size = self._step_images(len(images), synthetic.copies)
        rows = [
            each.to(images.device, non_blocking=True) for each in self._batches(len(images), size, sources)
        ]

        def augment(step: int, batch: Tensor) -> Tensor:
            stream = seeding.generator(sources.seed, "student-augment", sources.iteration, step)
            batch = synthetic.batch(batch)
            return augmentation(batch, augmentation.draw(len(batch), side, stream, shared_operator=True))

        return UnrolledStudent(
            sources.learner, sources.supply.layout, images, targets, rows, augment, weight, sources.ranks
        )

    def _step_images(self, images: int, copies: int) -> int:
        """Return how many images a step takes: half of a batch where it sees mirror images too (FYI)."""
        return max(1, min(self.batch_synthetic or images, images) // copies)

    def _epoch(self, sources: Sources[Trajectories]) -> int:
        """Draw s."""
        stream = seeding.generator(sources.seed, "starts", sources.iteration)
        return int(torch.randint(self.start.least, self.start.below(sources.iteration), (), generator=stream))

    def _goals(self) -> dict[int, tuple[float, int]]:
        """Return, by the step at which an epoch of the expert is matched, its weight and how far on it is."""
        goals = {self.steps: (1.0, self.expert_epochs)}
        if self.between != "none":
            for m in range(1, self.expert_epochs):
                weight = m / self.expert_epochs if self.between == "rising" else 1.0
                goals[m * (self.steps // self.expert_epochs)] = (weight, m)
        return goals

    def _weight(self, epoch: int) -> float:
        """Return what a student's loss is multiplied by, log₅ of how far from the middle it starts (AST)."""
        if not self.balance:
            return 1.0
        middle = self.start.most // 2
        factor = math.log(abs(epoch - middle) + 8, 5)
        return factor if epoch >= middle else 1 / factor

    def _batches(self, count: int, size: int, sources: Sources[Trajectories]) -> list[Tensor]:
        """Return the rows of every step: shuffled passes over the set, an incomplete batch the first."""
        passes, remaining, batches = 0, list[Tensor](), list[Tensor]()
        while len(batches) < self.steps:
            if not remaining:
                stream = seeding.generator(sources.seed, "student-batches", sources.iteration, passes)
                remaining, passes = list(torch.randperm(count, generator=stream).split(size)), passes + 1
            batches.append(remaining.pop())
        return batches

    def _perturbed(self, weights: Tensor, sources: Sources[Trajectories]) -> Tensor:
        """Return w + ε · d / ‖d‖ ⊙ w with d ~ N(0, 1) for every convolution's w, else the weights (AST)."""
        if not self.perturbation:
            return weights
        weights = weights.clone()
        for index, value in enumerate(sources.supply.layout.views(weights).values()):
            if value.dim() == 4:
                stream = seeding.generator(sources.seed, "perturbation", sources.iteration, index)
                noise = torch.randn(value.shape, generator=stream).to(value, non_blocking=True)
                value += self.perturbation * noise / noise.norm() * value
        return weights

    def cost(self, sizes: Sizes) -> Cost:
        """Count a student's images once forth and back, and once by a dual pass and back.

        The weights are θ_0 … θ_T, the expert's, and what the way back adds up: λ, κ, the loss's derivatives,
        and a step's gradient, of which autograd adds up one for every tensor of the vector.
        """
        images = sizes.copies * self._step_images(sizes.total, sizes.copies)
        chunk = equal_chunk(images, sizes.chunk)
        weights = self.steps + 1 + _ADJOINT_WEIGHTS + len(self._goals())
        return Cost(
            passes=self.steps * images * (3 + 8),
            training=chunk,
            dual=chunk,
            images=_STEP_COPIES * images,
            dual_to_weights=self.gradient == "exact",
            weights=weights,
        )


def _targets(synthetic: SyntheticSet) -> Tensor:
    """Return class indices or logits of every decoded image, in the order of the set."""
    labels = synthetic.labels if synthetic.label_logits is None else synthetic.label_logits
    return labels[synthetic.origins().to(labels.device, non_blocking=True)]


def _averaged_logits(synthetic: SyntheticSet, trajectories: Trajectories) -> Tensor:
    """Average, for each stored image, the last logits of the experts that classify it correctly [N, K].

    Where no expert does, all of them count: DATM's code would divide by 0. All images that a stored image is
    decoded into count.
    """
    classes, rows = torch.arange(len(synthetic.counts)), synthetic.origins()
    with torch.no_grad():
        images = synthetic.of(classes)
    labels = synthetic.labels.cpu()[rows]
    # The last column counts the logits that were added to a row.
    of_correct, of_all = (torch.zeros(len(synthetic.labels), len(classes) + 1) for _ in range(2))
    for expert in range(trajectories.count):
        logits = trajectories.logits(expert, images)
        with_count = torch.cat([logits, torch.ones(len(logits), 1)], 1)
        of_all.index_add_(0, rows, with_count)
        of_correct.index_add_(0, rows, with_count * (logits.argmax(1) == labels)[:, None])
    sums = torch.where(of_correct[:, -1:] > 0, of_correct, of_all)
    return sums[:, :-1] / sums[:, -1:]
