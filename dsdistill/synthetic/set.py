"""SyntheticSet: everything that a distillation learns, in one module."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from dsdistill.data.preprocess import Preprocess, Standardise
from dsdistill.synthetic import decoding
from dsdistill.synthetic.adversary import FrequencySampler
from dsdistill.synthetic.compensation import compensated
from dsdistill.synthetic.multi_formation import IDENTITY, MultiFormation, decode_classes

Space = Literal["network", "unit"]


ANCHORS = "anchors"
"""The name, among the constants, of the real images [M, C, H, W] that the decoded images start from, one for
each, in their order and in network space."""


class Constants(nn.Module):
    """Named tensors that follow a module to its device; no part of its state, as they are made anew."""

    def __setitem__(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value.detach(), persistent=False)

    def __getitem__(self, name: str) -> Tensor:
        return self.get_buffer(name)


class SyntheticSet(nn.Module):
    """The learnable images, class-major, with their fixed labels.

    Attributes:
        images: parameter [N, C, H, W] in ``space``, as they are stored.
        adversary: a network that maximises the loss which the images minimise, or None.
        student_lr: parameter, scalar: the learning rate of a student on these images; or None.
        label_logits: parameter [N, K]: the logits of learned labels, or None if labels are fixed.
        targets: parameter [N, d]: what a network is to answer to each stored image; or None.
        targets_are: what these numbers are, for the set's attribute ``targets``; empty without any.
        residual: parameter like ``images``, which is what is learned and added to them; or None if the images
            themselves are.
        compensators: parameter [k·m, C, H, W] in ``space``, which are what is learned: images that are added
            to those of all classes, see `dsdistill.synthetic.compensation`; or None.
        average: buffer like ``images``: the exponential moving average of what is stored, or None.
        update_mask: buffer [N, 1, H, W]: the share of every step of the pixels that is taken; or None.
        sample_weights: buffer [N]: the weight of each stored image in a student's loss; or None.
        constants: tensors that an engine needs in every iteration, by names of its own.
        labels: buffer int64 [N], of the stored images: zeros, then ones, …
        counts: stored images of each of the K classes, N in all.
        space: where ``images`` live: "network" (standardised or whitened, as DC, DSA and DM optimise) or
            "unit" (0 black, 1 white, preprocessed on the way into a network).
        multi_formation: how stored images become training images; they are decoded in unit space.
        flip: whether mirror images are matched too (FYI).
        sizes: images of a class that do without the others, ascending; empty if only all of them are to.
    """

    images: nn.Parameter
    labels: Tensor
    adversary: FrequencySampler | None
    student_lr: nn.Parameter | None
    label_logits: nn.Parameter | None
    targets: nn.Parameter | None
    residual: nn.Parameter | None
    compensators: nn.Parameter | None
    average: Tensor | None
    update_mask: Tensor | None
    sample_weights: Tensor | None

    def __init__(
        self,
        images: Tensor,
        counts: Sequence[int],
        space: Space,
        preprocess: Preprocess,
        multi_formation: MultiFormation = IDENTITY,
    ) -> None:
        super().__init__()
        self.counts = tuple(counts)
        self.space = space
        self.preprocess = preprocess
        self.multi_formation = multi_formation
        self.flip = False
        self.sizes: tuple[int, ...] = ()
        self._shown = 0
        self._preprocess_copy: tuple[torch.device, torch.dtype, Preprocess] | None = None
        self.images = nn.Parameter(images)
        self.adversary = None
        self.student_lr = None
        self.label_logits = None
        self.targets = None
        self.targets_are = ""
        self.residual = None
        self.compensators = None
        self.constants = Constants()
        self.register_buffer("average", None)
        self.register_buffer("update_mask", None, persistent=False)
        self.register_buffer("sample_weights", None, persistent=False)
        self.register_buffer("labels", _classes_of(self.counts))

    def learn_residual(self) -> None:
        """Keep the images as they are, and learn what is added to them, from 0 on."""
        self.images.requires_grad_(False)
        self.residual = nn.Parameter(torch.zeros_like(self.images))

    def learn_targets(self, values: Tensor, what: str) -> None:
        """Learn what a network is to answer to each stored image, as real numbers.

        Args:
            values: [N, d], where they start; they are copied, to the device and dtype of the images.
            what: these numbers are, in a few words: "features of resnet18, barlow-twins".

        Raises:
            ValueError: they are not one row of numbers for each stored image.
        """
        if values.dim() != 2 or len(values) != len(self.images) or not values.shape[1]:
            raise ValueError(
                f"targets are [{len(self.images)}, d], one row an image, not {list(values.shape)}"
            )
        self.targets = nn.Parameter(values.detach().to(self.images, copy=True))
        self.targets_are = what

    def learn_compensators(self, teachers: int) -> None:
        """Keep the images as they are, and learn what is added to those of all classes, from 0 on.

        Args:
            teachers: compensators of each image of a class; all classes have as many images.

        Raises:
            ValueError: some have more, or preprocessing or multi-formation do not allow it.
        """
        plain = self.multi_formation.is_identity and self.preprocess.kind == Standardise.kind
        if len(set(self.counts)) != 1 or not plain:
            raise ValueError("compensators are of plain, standardised images, equally many of each class")
        self.images.requires_grad_(False)
        shape = (self.counts[0] * teachers, *self.images.shape[1:])
        self.compensators = nn.Parameter(self.images.new_zeros(shape))

    @property
    def pixels(self) -> str:
        """The name of the parameter that the optimiser of the pixels steps."""
        if self.compensators is not None:
            return "compensators"
        return "images" if self.residual is None else "residual"

    @property
    def stored(self) -> Tensor:
        """The images to store [N, C, H, W] in ``space``, with a graph to what is learned."""
        return self.images if self.residual is None else self.images + self.residual

    @contextlib.contextmanager
    def first(self, count: int) -> Iterator[None]:
        """Have matching see only the first ``count`` stored images of each class, 0 for all, for a while."""
        before, self._shown = self._shown, count
        try:
            yield
        finally:
            self._shown = before

    @property
    def _shown_counts(self) -> tuple[int, ...]:
        """Stored images of each class that matching sees."""
        return tuple(min(count, self._shown) for count in self.counts) if self._shown else self.counts

    @property
    def decoded_counts(self) -> tuple[int, ...]:
        """Training images that the stored images of each class decode into."""
        counts = self._shown_counts
        return tuple(decoding.decoded_counts(counts, self.multi_formation, self.compensator_count))

    @property
    def compensator_count(self) -> int:
        """Number of compensators, 0 for none."""
        return 0 if self.compensators is None else len(self.compensators)

    @property
    def matched_counts(self) -> tuple[int, ...]:
        """Images of each class that a step may see: those decoded and, with ``flip``, their mirror images."""
        return tuple(count * self.copies for count in self.decoded_counts)

    @property
    def least_matched(self) -> int:
        """The fewest images of a class in any matching step."""
        with self.first(self.sizes[0] if self.sizes else 0):
            return min(self.matched_counts)

    def decoded_of(self, classes: Tensor) -> list[int]:
        """Return how many training images `of` gives of each of some classes, int64 [k]."""
        counts = self.decoded_counts
        return [counts[label] for label in classes.tolist()]

    @property
    def copies(self) -> int:
        """Copies of each image in a matching step: 2 with mirror images, else 1."""
        return 2 if self.flip else 1

    def batch(self, images: Tensor) -> Tensor:
        """Add mirror images to a batch if ``flip`` is set.

        FYI (Son et al., *FYI: Flip Your Images for Dataset Distillation*, ECCV 2024) has every synthetic
        batch [x; flip(x)], before it is augmented; gradients flow through both halves.

        Args:
            images: [..., n, C, H, W].

        Returns:
            ``images``, or [..., 2n, C, H, W].
        """
        return torch.cat([images, images.flip(-1)], -4) if self.flip else images

    def origins(self) -> Tensor:
        """Return the stored image that each decoded image comes from, in the order of `of`; int64, CPU."""
        return decoding.origins(self.counts, self.multi_formation, self.compensator_count)

    def owners(self) -> Tensor:
        """Return the class of each decoded image, in the order of `of`; int64, CPU."""
        return _classes_of(self.counts)[self.origins()]

    def answers(self) -> Tensor:
        """Return what a network is to answer to each image of `of` all classes, [M, d].

        It has a graph to the targets or, where there are none, to the logits of learned labels.

        Raises:
            ValueError: neither is learned.
        """
        learned = self.label_logits if self.targets is None else self.targets
        if learned is None:
            raise ValueError("this set has neither targets nor learned labels")
        return learned[self.origins().to(learned.device, non_blocking=True)]

    def of(self, classes: Tensor) -> Tensor:
        """Return the training images of some classes in network space, class by class.

        Args:
            classes: int64 [k], distinct label values in ascending order.

        Returns:
            [decoded, C, H, W], of which `decoded_of` tells how many are of each class.
        """
        stored = self.stored
        counts = self._shown_counts
        if len(classes) < len(counts) or self._shown:
            labels, rows = classes.tolist(), torch.arange(len(stored)).split(self.counts)
            chosen = [rows[label][: counts[label]] for label in labels]
            stored = stored[torch.cat(chosen).to(stored.device, non_blocking=True)]
            counts = tuple(counts[label] for label in labels)
        if self.compensators is not None:
            naturals = stored.unflatten(0, (len(counts), -1))
            stored = compensated(naturals, self.compensators).flatten(0, 1)
        if self.space == "network" and self.multi_formation.is_identity:
            return stored
        preprocess = self._local_preprocess()
        if self.space == "network":
            stored = preprocess.inverse(stored)
        return preprocess(decode_classes(stored, counts, self.multi_formation))

    def compensated(self, rows: Tensor) -> Tensor:
        """Return training images that have a compensator, in network space.

        Args:
            rows: int64 [B] on the CPU, positions in `of` all classes.

        Returns:
            [B, C, H, W], with a graph to the compensators, and not clamped.
        """
        assert self.compensators is not None
        device, naturals, decoded = self.images.device, self.counts[0], self.decoded_counts[0]
        within = rows % decoded
        added, origins = within - naturals, rows // decoded * naturals + within % naturals
        origins, added = (each.to(device, non_blocking=True) for each in (origins, added))
        images = self.images[origins] + self.compensators[added]
        return images if self.space == "network" else self._local_preprocess()(images)

    def matched(self, classes: Tensor, chosen: Sequence[Tensor | None] = ()) -> tuple[Tensor, list[int]]:
        """Return what a matching step sees of some classes: `of`, each class with its mirror images.

        Args:
            classes: as for `of`.
            chosen: for each of them int64 positions of its images in `of`, on the CPU, or None for all of
                them; empty for all images of all classes.

        Returns:
            [B, C, H, W], class by class, and how many are of each class.
        """
        images, counts = self.of(classes), self.decoded_of(classes)
        if any(rows is not None for rows in chosen):
            all_rows = torch.arange(len(images)).split(counts)
            parts = [
                rows if within is None else rows[within]
                for rows, within in zip(all_rows, chosen, strict=True)
            ]
            images = images[torch.cat(parts).to(images.device, non_blocking=True)]
            counts = [len(part) for part in parts]
        if not self.flip:
            return images, counts
        if len(set(counts)) == 1:
            images = self.batch(images.unflatten(0, (len(counts), -1))).flatten(0, 1)
        else:
            images = torch.cat([self.batch(part) for part in images.split(counts)])
        return images, [count * self.copies for count in counts]

    def start_average(self) -> None:
        """Start the moving average at the current images."""
        self.average = self.stored.detach().clone()

    def update_average(self, decay: float) -> None:
        """Move the average towards the images: decay · average + (1 - decay) · images."""
        assert self.average is not None
        self.average.lerp_(self.stored.detach(), 1 - decay)

    def unit_images(self) -> Tensor:
        """Return the images to store, in unit space [N, C, H, W], detached; they may exceed [0, 1].

        These are the averaged images if there is an average, else the images.
        """
        images = self.stored.detach() if self.average is None else self.average
        return images if self.space == "unit" else self._local_preprocess().inverse(images)

    def unit_compensators(self) -> Tensor | None:
        """Return the compensators in unit space [k·m, C, H, W], detached, or None."""
        if self.compensators is None or self.space == "unit":
            return None if self.compensators is None else self.compensators.detach()
        inverse, compensators = self._local_preprocess().inverse, self.compensators.detach()
        return inverse(compensators) - inverse(torch.zeros_like(compensators[:1]))

    @torch.no_grad()
    def clamp_(self) -> None:
        """Clamp the learned images, in place, to the pixels that are 0 black and 1 white.

        Raises:
            ValueError: the set is learned in a network space where pixels have no bounds, or by differences.
        """
        if not self.has_bounds:
            raise ValueError(f"pixels in {self.space} space are not clamped to [0, 1]")
        if self.space == "unit":
            self.images.clamp_(0, 1)
            return
        preprocess, black = self._local_preprocess(), torch.zeros_like(self.images[:1])
        self.images.clamp_(preprocess(black), preprocess(black + 1))

    @property
    def has_bounds(self) -> bool:
        """Whether learned pixels have bounds: whitening mixes pixels, what is added to images has none."""
        standardised = self.space == "unit" or self.preprocess.kind == Standardise.kind
        return standardised and self.pixels == "images"

    def _local_preprocess(self) -> Preprocess:
        """Return the preprocessing on the images' device and in their dtype.

        The copy is cached, because inverting a ZCA matrix is slow.
        """
        device, dtype = self.images.device, self.images.dtype
        if self._preprocess_copy is None or self._preprocess_copy[:2] != (device, dtype):
            self._preprocess_copy = (device, dtype, self.preprocess.to(device, dtype))
        return self._preprocess_copy[2]


def _classes_of(counts: Sequence[int]) -> Tensor:
    """Return the label of each image, int64, where classes have so many."""
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
