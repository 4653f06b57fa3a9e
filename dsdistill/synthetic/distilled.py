"""A distilled set in memory, as it is stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dsdistill.config.unlabelled import classes_words
from dsdistill.data.preprocess import Preprocess
from dsdistill.errors import UserError, quoted
from dsdistill.runtime.device import check_memory
from dsdistill.synthetic import compensation, decoding
from dsdistill.synthetic.coded import CodedPixels
from dsdistill.synthetic.multi_formation import IDENTITY, MultiFormation, decode
from dsdistill.synthetic.picture import as_html
from dsdistill.synthetic.views import Views, digest_of
from dsdistill.text import plain

Scalar = str | int | float


@dataclass(frozen=True, eq=False)
class DistilledSet:
    """A distilled set in memory, checked on construction.

    >>> data = dsdistill.load("set.h5", space="unit")
    >>> mirrored = dsdistill.DistilledSet(data.images.flip(-1), data.labels, data.classes, data.preprocess)
    >>> mirrored.counts
    [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]

    Attributes:
        images: float32 [N,C,H,W] in unit pixel space (0 black, 1 white; may exceed), finite; as stored.
        labels: int64 [N] in [0, K), class-major (never decreasing).
        classes: K names in label order.
        preprocess: from unit pixel space to network space, for the student.
        soft_labels: float32 logits, or None: [N,K] of the stored images, shared by the images decoded from
            each, or [M,K] of the M decoded training images.
        sample_weights: float32 [N], not negative: the weight of each stored image in a student's loss; or
            None.
        views: of the M decoded training images, with a teacher's answers; or None.
        multi_formation: how the stored images of a class become training images.
        compensators: float32 [m·k,C,H,W] in unit pixel space, finite, any sign: images that are added to the
            k images of each class, and the sums clamped, so that a class has k(m + 1) training images (INFER;
            see `dsdistill.synthetic.compensation`); or None.
        targets: float32 [N,d], finite: what a network is to answer to each stored image, such as the features
            of a teacher; the attribute ``targets`` says what they are; or None.
        coded: the images in a few bits, of which ``images`` are decoded; or None.
        attributes: how the set was made: method, config, dataset, fingerprint, seed, iterations, seconds,
            peak_memory_bytes, machine, packages, learned_lr, …; text, integers and floats.

    Raises:
        UserError: on construction, if a field does not fit this description.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    preprocess: Preprocess
    soft_labels: Tensor | None = None
    multi_formation: MultiFormation = IDENTITY
    attributes: Mapping[str, Scalar] = field(default_factory=dict)
    sample_weights: Tensor | None = None
    views: Views | None = None
    compensators: Tensor | None = None
    coded: CodedPixels | None = None
    targets: Tensor | None = None

    def __post_init__(self) -> None:
        images, labels, soft, count = self.images, self.labels, self.soft_labels, len(self.classes)
        if images.dim() != 4 or images.numel() == 0 or images.dtype != torch.float32:
            raise UserError(f"images must be float32 [N,C,H,W] and not empty, got {_signature(images)}")
        if not images.isfinite().all():
            raise UserError("images hold values that are not finite (NaN or infinity)")
        if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
            raise UserError(f"labels must be int64 [{len(images)}], one an image, got {_signature(labels)}")
        if count == 0 or labels.min() < 0 or labels.max() >= count:
            raise UserError(f"labels must lie in [0, {count}), there being {count} classes")
        if (labels.diff() < 0).any():
            raise UserError("images must be sorted by label (class-major)")
        self.multi_formation.check(min(images.shape[2:]))
        if self.coded is not None and not torch.equal(self.coded.decode(), images.cpu()):
            raise UserError("the coded pixels are those of other images; leave them out, or encode anew")
        self._check_compensators()
        _check_cost(self.attributes)
        _check_weights(self.sample_weights, len(images))
        _check_targets(self.targets, len(images))
        self._check_views()
        if soft is None:
            return
        sizes = list(dict.fromkeys([len(images), self.decoded_count]))
        if soft.dtype != torch.float32 or soft.shape not in [(size, count) for size in sizes]:
            expected = " or ".join(f"[{size},{count}]" for size in sizes)
            raise UserError(f"soft labels must be float32 {expected}, got {_signature(soft)}")
        if not soft.isfinite().all():
            raise UserError("soft labels hold values that are not finite (NaN or infinity)")

    def _check_compensators(self) -> None:
        """Raise a UserError where compensators do not fit the images."""
        compensators, shape = self.compensators, list(self.images.shape[1:])
        if compensators is None:
            return
        if (
            compensators.dtype != torch.float32
            or list(compensators.shape[1:]) != shape
            or not len(compensators)
        ):
            raise UserError(f"compensators must be float32 {['n', *shape]}, got {_signature(compensators)}")
        if not compensators.isfinite().all():
            raise UserError("compensators hold values that are not finite (NaN or infinity)")
        counts = set(self.counts)
        if len(counts) > 1 or len(compensators) % min(counts):
            raise UserError(
                "compensators are a multiple of the images that every class has, which all have as many: "
                f"there are {len(compensators)}, and {' or '.join(map(str, sorted(counts)))} images of a "
                "class"
            )
        if not self.multi_formation.is_identity:
            raise UserError("a set has compensators or a multi-formation, not both")

    def _check_views(self) -> None:
        """Raise a UserError where views are not those of the set's training images."""
        if self.views is None:
            return
        count, size, classes = self.decoded_count, self.images.shape[-1], len(self.classes)
        views = self.views
        if (views.images, views.size, views.answers.num_classes) != (count, size, classes):
            raise UserError(
                f"the views are of {views.images} images of {views.size}×{views.size} in "
                f"{views.answers.num_classes} classes, and the set has {count} of {size}×{size} in {classes}"
            )
        if views.digest not in ("", self.digest):
            raise UserError(
                f"the views are of the images of another set ({views.digest[:8]}… in place of "
                f"{self.digest[:8]}…), which no teacher has seen; label the set anew, or leave out its views"
            )

    @property
    def digest(self) -> str:
        """64 hexadecimal digits that identify the training images as a student sees them, and their hard
        labels; stored `Views` tell by it whose they are."""
        form = self.multi_formation
        how = "" if form.is_identity else f"{form.factor} {form.mode} {form.bound}"
        if self.compensators is not None:
            how = compensation.digest(self.compensators)
        return digest_of(self.images, self.labels, self.preprocess, how)

    def __repr__(self) -> str:
        return f"<DistilledSet: {self._words()}, {classes_words(self.classes)}>"

    def _words(self) -> str:
        return content_words(self.images, self.attributes, self.compensator_count)

    @property
    def counts(self) -> list[int]:
        """Number of stored images of every class that has any, in label order; compensators are of none."""
        return self.labels.unique_consecutive(return_counts=True)[1].tolist()

    @property
    def stored_count(self) -> int:
        """Number of stored images, compensators among them."""
        return len(self.images) + self.compensator_count

    @property
    def compensator_count(self) -> int:
        """Number of compensators, 0 for none."""
        return 0 if self.compensators is None else len(self.compensators)

    @property
    def is_plain(self) -> bool:
        """Whether every stored image is one training image."""
        return self.multi_formation.is_identity and self.compensators is None

    @property
    def decoded_counts(self) -> list[int]:
        """Number of training images of every class that has any, in label order."""
        return decoding.decoded_counts(self.counts, self.multi_formation, self.compensator_count)

    @property
    def decoded_count(self) -> int:
        """Number of training images that the stored images decode into."""
        return sum(self.decoded_counts)

    def origins(self) -> Tensor:
        """Return the stored image that each training image comes from, int64 [M]."""
        return decoding.origins(self.counts, self.multi_formation, self.compensator_count)

    def decode(self) -> tuple[Tensor, Tensor]:
        """Decode the stored images.

        Returns:
            training images float32 [M,C,H,W] in unit pixel space, class-major, and the stored image that each
            comes from, int64 [M].

        Raises:
            UserError: they do not fit into the memory that is free.
        """
        needed = 4 * self.decoded_count * self.images[0].numel()
        check_memory("the decoded images take", needed, "load the set with decode=False")
        images = [self._decoded(part) for part in self.images.split(self.counts)]
        return torch.cat(images), self.origins()

    def _decoded(self, images: Tensor) -> Tensor:
        """Return the training images of a class from its stored ones."""
        if self.compensators is None:
            return decode(images, self.multi_formation)
        training_images = compensation.compensated(images, self.compensators)
        training_images[len(images) :].clamp_(0, 1)
        return training_images

    def _repr_html_(self) -> str:
        """Return a picture of the stored images, a column per class, as notebooks show it."""
        return as_html(self.images, self.labels, self.classes, self._words())


def content_words(images: Tensor, attributes: Mapping[str, Scalar], added: int = 0) -> str:
    """Say what a set holds, and of what it was made; ``added`` is its number of compensators."""
    shape = "x".join(map(str, images.shape[1:]))
    more = f" and {added} compensators" if added else ""
    origins = [str(attributes[name]) for name in ("method", "dataset") if name in attributes]
    return ", ".join([*map(plain, origins), f"{len(images)} images{more} of {shape}"])


_COST = ("seconds", "iterations", "peak_memory_bytes")
"""The attributes with which programs calculate, if a set has them."""


def _check_cost(attributes: Mapping[str, Scalar]) -> None:
    for name in _COST:
        value = attributes.get(name, 0)
        if isinstance(value, str) or not 0 <= value < math.inf:
            raise UserError(f"attribute {name!r} must be a number from 0, got {quoted(value)}")
    if isinstance(rate := attributes.get("learned_lr", 0.0), str):
        raise UserError(f"attribute 'learned_lr' must be a number, got {quoted(rate)}")


def _check_weights(weights: Tensor | None, count: int) -> None:
    if weights is None:
        return
    if weights.dtype != torch.float32 or tuple(weights.shape) != (count,):
        raise UserError(f"sample weights must be float32 [{count}], one an image, got {_signature(weights)}")
    if not weights.isfinite().all() or (weights < 0).any() or not weights.sum() > 0:
        raise UserError("sample weights must be finite, from 0, and not all 0")


def _check_targets(targets: Tensor | None, count: int) -> None:
    if targets is None:
        return
    if targets.dtype != torch.float32 or targets.dim() != 2 or len(targets) != count or not targets.shape[1]:
        raise UserError(f"targets must be float32 [{count},d], a row an image, got {_signature(targets)}")
    if not targets.isfinite().all():
        raise UserError("targets hold values that are not finite (NaN or infinity)")


def _signature(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
