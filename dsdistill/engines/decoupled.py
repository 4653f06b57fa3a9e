"""Decoupled distillation: recover images from what a trained network knows, without any bi-level loop.

SRe2L (Yin et al., *Squeeze, Recover and Relabel*, NeurIPS 2023) squeezes a data set into a network, and
recovers images X with labels y from it:

    L(X) = CE(f(A(X)), y) + α Σ_layers m_l (‖μ_l(A(X)) - μ̂_l‖₂ + ‖v_l(A(X)) - v̂_l‖₂)

where μ̂ and v̂ are the running statistics of batch normalisation, m is 10 for the first layer and 1 for all
others, and A is one view for the whole batch. A batch has one image of each class, and image number i of all
classes has nothing to do with image number j. So all batches take their steps side by side, several in one
pass: each has statistics and a view of its own, and gradients are those of separate runs.

INFER (Zhang et al., ICLR 2025) keeps real images, and learns what is added to those of all classes: for each
teacher another compensator, whose batches that teacher alone sees (`dsdistill.synthetic.compensation`).

CDA (Yin & Shen 2023) lets the crop begin with the whole image; CV-DD (Cui et al. 2025) has every batch
recovered from two teachers of a committee; FADRM (Cui et al. 2025) moves images back to real ones now and
then; NRR-DD (Tran et al. 2025) leaves pixels as they are where the teacher sees the class; WMDD (Liu et al.
2025) takes the statistics μ̂ and v̂ of each class. Options say which.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from dsdistill.augment.batch_view import BatchViewConfig
from dsdistill.augment.dsa import Parameters
from dsdistill.compute.chunks import equal_chunk, images_per_bytes
from dsdistill.compute.class_activation import ClassActivation
from dsdistill.compute.recovery import RecoveryNetwork, Statistics
from dsdistill.config.validation import forbid_extra
from dsdistill.engines.base import IMAGE_COPIES, Engine
from dsdistill.engines.class_statistics import measure_classes, statistics_of
from dsdistill.engines.committee import CommitteeConfig, own_teacher
from dsdistill.engines.masks import MaskConfig
from dsdistill.engines.recovered_pixels import recovered_pixels
from dsdistill.engines.sources import Sources
from dsdistill.engines.targets import CrossEntropy, RecoveryBatch, TargetConfig
from dsdistill.errors import UserError
from dsdistill.networks.base import Network
from dsdistill.networks.names import factory_of
from dsdistill.objectives.precision import working_dtype
from dsdistill.seeding import generator
from dsdistill.supply.base import NetworkRequest
from dsdistill.supply.cost import Cost, Sizes
from dsdistill.supply.teachers import Teachers, TeachersConfig
from dsdistill.synthetic.multi_formation import MultiFormation
from dsdistill.synthetic.set import SyntheticSet

_PASS_BYTES = {"cpu": 1 << 25, "cuda": 1 << 32}
"""Of the largest map of a ConvNet in a pass: a CPU is fastest where maps stay in its caches."""


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class AlignmentConfig:
    """How statistics of batch normalisation are aligned."""

    weight: Annotated[float, Ge(0)] = 0.01
    """α; 0 leaves it out."""
    first: Annotated[float, Ge(0)] = 10.0
    """m of the first layer; that of all others is 1."""
    statistics: Literal["network", "class"] = "network"
    """Whose they are to be: the running ones of the network, or those of all real images of a batch's class
    (WMDD, LPLD), for batches of one class."""


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class RefreshConfig:
    """Moving images back towards those they start from (FADRM)."""

    every: Annotated[int, Ge(0)] = 0
    """After so many iterations, but not after the last; 0 never does. Adam's averages stay, where FADRM's
    code begins with new ones."""
    share: Annotated[float, Gt(0), Le(1)] = 0.5
    """How much of the start an image has afterwards."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Images that a network's statistics are taken over, and that share a view.

    Attributes:
        number: of the batch; its draws depend on it.
        index: of its images in their classes, 0 for all images of a class.
        rows: int64 [B], positions in the decoded set.
    """

    number: int
    index: int
    rows: Tensor


@dataclass(frozen=True, kw_only=True)
class DecoupledEngine(Engine[Teachers]):
    """Recover images from trained networks."""

    compensates: ClassVar[bool] = True

    kind: Literal["decoupled"] = "decoupled"
    supply: TeachersConfig = field(default_factory=TeachersConfig)
    target: TargetConfig = field(default_factory=CrossEntropy)
    """What images are to be for a teacher."""
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    view: BatchViewConfig = field(default_factory=BatchViewConfig)
    """What a teacher sees of a batch."""
    batches: Literal["across-classes", "per-class"] = "across-classes"
    """Whether a batch has one image of each class, or all images of one class."""
    batch_classes: Annotated[int, Ge(1)] = 100
    """Classes of a batch, at most, in ascending order."""
    committee: CommitteeConfig = field(default_factory=CommitteeConfig)
    refresh: RefreshConfig = field(default_factory=RefreshConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    pass_images: Annotated[int, Ge(0)] = 0
    """Images that go through a network at once, in whole batches; 0 leaves it to the device. It changes
    nothing but time and memory."""

    def __post_init__(self) -> None:
        if self.alignment.statistics == "class" and self.batches != "per-class":
            raise UserError(
                "engine.alignment.statistics=class are those of one class, and these batches hold several: "
                "set engine.batches=per-class too"
            )

    @property
    def anchored(self) -> bool:
        """Whether the target compares with real images."""
        return self.target.anchored

    def check_network(self, name: str, network: Network, channels: int, size: int) -> None:
        """Check that a network has what images are recovered from.

        Raises:
            UserError: it has no batch normalisation to align, no class activation maps to mask by, or not the
                block that the target compares.
        """
        if self.alignment.weight and not network.has_batch_norm:
            raise _unalignable(name, name)
        self.target.check_network(name, network, channels, size)
        if self.mask.of != "none":
            ClassActivation(network, name, channels, size)

    def check_options(self, learn: str, flip: bool, formation: MultiFormation) -> None:
        """Check what a run has besides the engine.

        Raises:
            UserError: mirror images are to be matched, images that are masked are decoded into several, or an
                option has no meaning for compensators.
        """
        if flip:
            raise UserError(
                "mirror images are no part of what is recovered here: set synthetic.flip=false; "
                "engine.view.flip=true mirrors what teachers see"
            )
        if learn == "compensators":
            self._check_compensated()
        self.mask.check(formation)

    def check_count(self, networks: int) -> None:
        """Check that a committee has a prior for each teacher, or none.

        Raises:
            UserError: it does not.
        """
        priors = len(self.committee.priors)
        if priors and priors != networks:
            raise UserError(
                f"engine.committee.priors has {priors} numbers for {networks} teachers: give one for each, "
                "in their order, or set engine.committee.priors=[]"
            )

    def build_networks(self, request: NetworkRequest) -> Teachers:
        """Load the teachers.

        Raises:
            UserError: they do not fit, or a committee's priors do not.
        """
        teachers = self.supply.build(request)
        if self.committee.priors and teachers.architectures != request.architectures:
            raise UserError(
                f"engine.committee.priors are of the networks {request.name} in their order, and the "
                f"teachers are {', '.join(teachers.architectures)}: name their files in that order, or set "
                "engine.committee.priors=[]"
            )
        self.check_count(teachers.count)
        return teachers

    def prepare(self, synthetic: SyntheticSet, sources: Sources[Teachers]) -> None:
        """Register constants.

        Raises:
            UserError: a teacher has no batch normalisation to align, or no class activation maps to mask
                by; or as `check_options`.
        """
        learn = "images" if synthetic.compensators is None else "compensators"
        self.check_options(learn, synthetic.flip, synthetic.multi_formation)
        for member, network in zip(sources.supply.members, sources.supply.recovering, strict=True):
            if self.alignment.weight and not network.layers:
                raise _unalignable(member.name, member.architecture)
        if self.refresh.every:
            synthetic.constants["start"] = synthetic.get_parameter(synthetic.pixels).clone()
        self.mask.register(synthetic, sources.supply)
        if self.alignment.weight and self.alignment.statistics == "class":
            measure_classes(synthetic.constants, sources)
        self.target.prepare(synthetic, sources)

    def _check_compensated(self) -> None:
        """Refuse options that have no meaning where compensators are learned.

        Raises:
            UserError: naming the option to change.
        """
        for option, fits, remedy in (
            ("batches", self.batches == "across-classes", "across-classes"),
            ("refresh.every", not self.refresh.every, 0),
            ("committee.size", not self.committee.size, 0),
            ("committee.priors", not self.committee.priors, []),
            ("mask.of", self.mask.of == "none", "none"),
            ("target.kind", not self.anchored, "cross-entropy"),
        ):
            if not fits:
                raise UserError(
                    "compensators are shared by all classes, and each has a teacher of its own: set "
                    f"engine.{option}={remedy}"
                )

    def separable(self, network: Network) -> bool:
        """No: batches go across classes, and passes hold whole batches anyway."""
        return False

    def divisible(self, network: Network) -> bool:
        """Yes: processes share the batches."""
        return True

    @property
    def less_memory(self) -> str:
        """Say what needs less: all images, and what the optimiser keeps of them, are in memory at once."""
        return "a smaller --ipc, --size or engine.pass_images needs less"

    def parts(self, synthetic: SyntheticSet) -> int:
        """Return the number of batches; 1 where some of them have no teacher, so that they are not alike."""
        return 1 if synthetic.compensators is not None else len(self.all_batches(synthetic))

    def loss(self, synthetic: SyntheticSet, sources: Sources[Teachers]) -> dict[str, Tensor]:
        """Return the target's term and ``alignment``, summed over batches; the first has the gradient."""
        pixels = recovered_pixels(synthetic, sources.classes)
        like = synthetic.images
        values = torch.zeros(2, dtype=working_dtype(like.dtype), device=like.device)
        owners = synthetic.owners()
        augment = self._augmentation(owners, sources)
        for number, batches, weights in self._passes(synthetic, sources):
            rows = torch.cat([batch.rows for batch in batches])
            part = pixels.take(rows)
            see = partial(self._seen, sources=sources, batches=batches, augment=partial(augment, rows))
            network, groups = sources.supply.recovering[number], len(batches)
            labels = owners[rows].to(like.device, non_blocking=True)
            statistics = self._statistics(synthetic, number, network, labels[:: len(rows) // groups])
            output = network(see(part), groups, statistics, maps=self.target.maps)
            there = rows.to(like.device, non_blocking=True)
            batch = RecoveryBatch(network, number, output, there, labels, groups, see, synthetic.constants)
            target, aligned = self.target.loss(batch), self._aligned(output.alignment, groups)
            weights = weights.to(target, non_blocking=True)
            total = (weights * (target + self.alignment.weight * aligned)).sum()
            pixels.add(total, part, rows)
            sums = torch.stack([(weights * each).sum() for each in (target, aligned)])
            values += sums.detach()
        value, aligned = values.unbind()
        terms = {self.target.term: pixels.attached(value)}
        return terms | ({"alignment": self.alignment.weight * aligned} if self.alignment.weight else {})

    def revise(self, synthetic: SyntheticSet, sources: Sources[Teachers]) -> None:
        """Move images back towards their start, if it is time; the last step of all is not undone."""
        every, step = self.refresh.every, sources.iteration + 1
        if every and step % every == 0 and step < sources.iterations:
            synthetic.get_parameter(synthetic.pixels).detach().lerp_(
                synthetic.constants["start"], self.refresh.share
            )

    def all_batches(self, synthetic: SyntheticSet) -> list[Batch]:
        """Return every batch of the set."""
        counts = list(synthetic.decoded_counts)
        if self.batches == "per-class":
            return [
                Batch(label, 0, rows) for label, rows in enumerate(torch.arange(sum(counts)).split(counts))
            ]
        index_of = torch.cat([torch.arange(count) for count in counts])  # of each image in its class
        of_index = index_of.argsort(stable=True).split(torch.bincount(index_of).tolist())
        parts = [
            (index, part) for index, rows in enumerate(of_index) for part in rows.split(self.batch_classes)
        ]
        return [Batch(number, index, rows) for number, (index, rows) in enumerate(parts)]

    def _passes(
        self, synthetic: SyntheticSet, sources: Sources[Teachers]
    ) -> Iterator[tuple[int, list[Batch], Tensor]]:
        """Yield the number of a teacher, batches of one size to pass through it, and their weights [G].

        They are those of this process, where several share the run.
        """
        at_once = self._pass_images(sources.batches.device.type, sources.task.size)
        shares: dict[tuple[int, int], list[tuple[Batch, float]]] = {}
        every = [
            (batch, self.teachers_of(batch, synthetic, sources)) for batch in self.all_batches(synthetic)
        ]
        taught = [(batch, teachers) for batch, teachers in every if teachers]
        for batch, teachers in taught[sources.ranks.part(len(taught))]:
            for teacher, weight in teachers:
                shares.setdefault((teacher, len(batch.rows)), []).append((batch, weight))
        for (teacher, size), pairs in shares.items():
            chunk = equal_chunk(len(pairs), max(1, at_once // size))
            for start in range(0, len(pairs), chunk):
                some = pairs[start : start + chunk]
                yield teacher, [batch for batch, _ in some], torch.tensor([weight for _, weight in some])

    def teachers_of(
        self, batch: Batch, synthetic: SyntheticSet, sources: Sources[Teachers]
    ) -> list[tuple[int, float]]:
        """Return the teachers of a batch and their weights; none of one that no teacher moves."""
        if synthetic.compensators is not None:
            return own_teacher(batch.index, synthetic.counts[0])
        turn, turns = batch.index, max(synthetic.decoded_counts)
        if self.batches == "per-class" and turns > 1:
            turn, turns = batch.number, len(synthetic.counts)
        return self.committee.members(sources.supply.count, turn, turns, sources.seed)

    def _pass_images(self, device: str, size: int) -> int:
        """Return how many images of ``size`` pixels a side are to go through a network at once."""
        return self.pass_images or images_per_bytes(_PASS_BYTES[device], size)

    def _augmentation(self, owners: Tensor, sources: Sources[Teachers]) -> Callable[[Tensor, Tensor], Tensor]:
        """Return this iteration's augmentation of images at some rows: one draw for each class.

        Args:
            owners: int64 [M] on the CPU, the class of each decoded image.
        """
        if not sources.augmentation.operators:
            return lambda rows, images: images
        parameters: Parameters = sources.siamese()
        return lambda rows, images: sources.augmentation(images, parameters[owners[rows]])

    def _seen(
        self,
        images: Tensor,
        sources: Sources[Teachers],
        batches: Sequence[Batch],
        augment: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Return images of some batches as a teacher sees them in this iteration."""
        seed, iteration = sources.seed, sources.iteration
        streams = [generator(seed, "view", iteration, batch.number) for batch in batches]
        task = sources.task
        views = self.view.draw(task.size, task.mirror, iteration, sources.iterations, streams)
        images = augment(images)
        return views(images) if views else images

    def _statistics(
        self, synthetic: SyntheticSet, teacher: int, network: RecoveryNetwork, labels: Tensor
    ) -> Statistics | None:
        """Return what batches of some classes are aligned with; None for the network's own."""
        if not self.alignment.weight or self.alignment.statistics == "network":
            return None
        return statistics_of(synthetic.constants, teacher, network.layers, labels)

    def _aligned(self, alignment: Tensor, groups: int) -> Tensor:
        """Return the alignment of each batch, [G]."""
        if not len(alignment):
            return alignment.new_zeros(groups)
        return self.alignment.first * alignment[0] + alignment[1:].sum(0)

    def cost(self, sizes: Sizes) -> Cost:
        """Count a pass of each image through each teacher of its batch; one with compensators has one."""
        teachers = 1 if sizes.compensators else self.committee.size or self.supply.teacher_count()
        of_classes = self.batches == "per-class"
        batch = int(sizes.decoded.max()) if of_classes else min(len(sizes.decoded), self.batch_classes)
        batches = max(1, self._pass_images(sizes.device, sizes.size) // batch)
        at_once = min(sizes.total, batches * batch)
        return Cost(
            passes=3 * sizes.total * teachers,
            pixels=at_once,
            images=IMAGE_COPIES * (sizes.compensators + at_once if sizes.compensators else sizes.total),
        )


def _unalignable(name: str, architecture: str) -> UserError:
    return UserError(
        f"{name} has no batch normalisation, whose statistics this method aligns: pass a network that has "
        f"some, such as {_with_batch_norm(architecture)}, or set engine.alignment.weight=0"
    )


def _with_batch_norm(architecture: str) -> str:
    """Return the name of a network that has batch normalisation, if possible of the same architecture."""
    with contextlib.suppress(UserError):
        factory_of(name := f"{architecture}-batch")
        return name
    return "resnet18-batch"
