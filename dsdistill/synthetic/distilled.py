"""A distilled set in memory: `DistilledSet` as it is stored, `DistilledDataset` as students train on it."""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dsdistill.config.ipc import mean_ipc
from dsdistill.config.unlabelled import classes_words, is_labelled
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

Index = int | slice | Sequence[int] | Tensor
"""Of items of a data set: a number, also negative, or several; a mask is a Tensor of booleans."""


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
        return _words(self.images, self.attributes, self.compensator_count)

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


def _words(images: Tensor, attributes: Mapping[str, Scalar], added: int = 0) -> str:
    """Say what a set holds, and of what it was made; ``added`` is its number of compensators."""
    shape = "x".join(map(str, images.shape[1:]))
    more = f" and {added} compensators" if added else ""
    origins = [str(attributes[name]) for name in ("method", "dataset") if name in attributes]
    return ", ".join([*map(plain, origins), f"{len(images)} images{more} of {shape}"])


def extra_labels(distilled: DistilledSet | DistilledDataset) -> dict[str, str]:
    """Say which labels a set has beside hard ones, by the name of the attribute that holds them."""
    words = {}
    if distilled.soft_labels is not None:
        words["soft_labels"] = "soft labels"
    if distilled.sample_weights is not None:
        words["sample_weights"] = "weights of images"
    if distilled.targets is not None:
        words["targets"] = f"targets of {distilled.targets.shape[1]} numbers"
    if (views := distilled.views) is not None:
        amount = "a share of the batches" if views.pool else f"{views.epoch_count} epochs"
        mixing = "unmixed" if views.mixing == "none" else views.mixing
        words["views"] = f"{len(views.rows)} views ({amount}, {mixing}, {views.answers.encoding})"
    return words


def left_out(distilled: DistilledSet | DistilledDataset, written: Sequence[str] = ()) -> list[str]:
    """Return a sentence on the labels that an export does not write, if there are any.

    Args:
        written: names of attributes that it writes.
    """
    names = [words for name, words in extra_labels(distilled).items() if name not in written]
    return [f"the {' and '.join(names)} are left out; the .h5 holds them"] if names else []


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


LabelKind = Literal["hard", "soft", "targets"]


def _check_kind(distilled: DistilledSet, labels: LabelKind) -> None:
    """Raise a UserError unless a set has labels of a kind."""
    if labels not in get_args(LabelKind):
        raise UserError(f"unknown kind of labels {labels!r}; known: {', '.join(get_args(LabelKind))}")
    if labels == "soft" and distilled.soft_labels is None:
        raise UserError('the set has no soft labels; load it with labels="hard"')
    if labels == "targets" and distilled.targets is None:
        raise UserError('the set has no targets; load it with labels="hard"')


class DistilledDataset(Dataset[tuple[Tensor, "int | Tensor"]]):
    """A distilled set as a torch data set, all in memory: no open file, safe in DataLoader workers.

    >>> dataset = dsdistill.load("set.h5")
    >>> image, label = dataset[3]
    >>> len(dataset), image.shape, label
    (10, torch.Size([1, 8, 8]), 3)

    It holds training images. Those of a multi-formation or of compensators are decoded from the stored images
    in unit pixel space, before any preprocessing. Each has the label of the stored image that it comes from,
    and soft labels of its own or of that image. With ``decode=False`` the data set holds the stored images,
    compensators aside.

    An item is (image float32 [C,H,W], label int), or (image, logits float32 [K]) with ``labels="soft"``, or
    (image, target float32 [d]) with ``labels="targets"`` and of a set without labels that has targets. Of a
    slice, a list of numbers or a mask it is (images [n,C,H,W], labels int64 [n] or logits [n,K] or targets
    [n,d]), as torch's ``TensorDataset`` has it.

    Attributes:
        images: float32 [N,C,H,W]; ``space="network"``: preprocessed, as a student is trained on;
            ``space="unit"``: pixels, 0 black and 1 white (may exceed).
        labels: int64 [N], class-major. soft_labels: float32 [N,K] logits, or None.
        targets: float32 [N,d], what a network is to answer to each image, or None.
        classes: K names in label order.
        sample_weights: float32 [N], the weight of each image in a student's loss, or None.
        views: stored views of the decoded images with a teacher's answers, or None; None if not decoded.
        stored: number of stored images of each class, int64 [K], whether they are decoded here or not;
            compensators, which are of no class, are shared out.
        multi_formation: how stored images become training images.
        compensators: what is added to stored images of every class, in unit pixel space; or None.
        is_plain: whether they do without decoding.
        preprocess: for real images too, before a student trained on this set classifies them.
        lr: the learning rate that was learned with the set, or None.
        attributes: how the set was made.

    Raises:
        UserError: the space or kind of label is unknown; the set has none of that kind; or its soft labels
            belong to the decoded images and ``decode`` is false.
    """

    def __init__(
        self,
        distilled: DistilledSet,
        space: Literal["network", "unit"] = "network",
        labels: LabelKind = "hard",
        decode: bool = True,
    ) -> None:
        if space not in ("network", "unit"):
            raise UserError(f"unknown space {space!r}; known: network, unit")
        _check_kind(distilled, labels)
        images, self.labels, self.soft_labels = distilled.images, distilled.labels, distilled.soft_labels
        self.sample_weights, self.targets = distilled.sample_weights, distilled.targets
        self.views = distilled.views if decode else None
        if decode and not distilled.is_plain:
            images, origins = distilled.decode()
            self.labels = self.labels[origins]
            if self.sample_weights is not None:
                self.sample_weights = self.sample_weights[origins]
            if self.targets is not None:
                self.targets = self.targets[origins]
            if self.soft_labels is not None and len(self.soft_labels) != len(origins):
                self.soft_labels = self.soft_labels[origins]
        elif self.soft_labels is not None and len(self.soft_labels) != len(images):
            if labels == "soft":
                raise UserError("the soft labels are those of decoded images; load the set with decode=True")
            self.soft_labels = None
        self.images = distilled.preprocess(images) if space == "network" else images
        self._space = space
        self.classes = distilled.classes
        self.stored = torch.bincount(distilled.labels, minlength=len(distilled.classes))
        self.stored += compensation.shared_out(distilled.compensator_count, len(distilled.classes))
        self.multi_formation, self.compensators = distilled.multi_formation, distilled.compensators
        self.is_plain = distilled.is_plain
        self.preprocess = distilled.preprocess
        self.attributes = dict(distilled.attributes)
        lr = self.attributes.get("learned_lr")
        self.lr = None if lr is None else float(lr)
        if labels == "hard" and self.targets is not None and not is_labelled(self.classes):
            labels = "targets"
        self._kind = "targets" if labels == "targets" else f"{labels} labels"
        self._answers = {"hard": self.labels, "soft": self.soft_labels, "targets": self.targets}[labels]

    def __repr__(self) -> str:
        words = f"{_words(self.images, self.attributes)}, {classes_words(self.classes)}"
        return f"<DistilledDataset: {words}, in {self._space} space, {self._kind}>"

    @property
    def made_for(self) -> str:
        """The network that the set is made for, or that was matched; empty if none is known."""
        return str(self.attributes.get("student") or self.attributes.get("network", ""))

    @property
    def ipc(self) -> int:
        """Stored images of a class, by which protocols have settings; the mean, rounded, if they differ.

        With compensators it is rounded up: the IPC that such a set needs.
        """
        if self.compensators is not None:
            return int(self.stored.max())
        return mean_ipc(self.stored.tolist())

    def __len__(self) -> int:
        return len(self.images)

    def _repr_html_(self) -> str:
        """Return a picture of the images in unit pixel space, a column per class, as notebooks show it."""
        images = self.images if self._space == "unit" else self.preprocess.inverse(self.images)
        return as_html(images, self.labels, self.classes, _words(self.images, self.attributes))

    def __getitem__(self, index: Index) -> tuple[Tensor, int | Tensor]:
        """Return one image and its label, logits or target; or several.

        Raises:
            TypeError: the index is no number, slice, list of numbers or mask. IndexError: it is out of range.
        """
        at = _positions(index, len(self))
        assert self._answers is not None
        answer = self._answers[at]
        return self.images[at], int(answer) if answer.ndim == 0 else answer


def _positions(index: Index, count: int) -> int | slice | Tensor:
    """Return an index as torch takes it: torch knows no steps backwards, and takes pairs for dimensions."""
    if isinstance(index, slice):
        numbers = range(*index.indices(count))
        return index if numbers.step > 0 else torch.tensor(numbers, dtype=torch.long)
    if getattr(index, "ndim", 0) == 0 and hasattr(index, "__index__") and not isinstance(index, bool):
        number = operator.index(index)  # of NumPy and torch, too
        _check_inside([number], count)
        return number
    several = _several(index)
    if several.dtype != torch.bool:
        _check_inside(several.tolist(), count)
    elif len(several) != count:
        raise IndexError(f"the mask has {len(several)} values, and the set {count} images")
    return several


def _several(index: Any) -> Tensor:
    """Return a list of numbers as int64 [n], or a mask as bool [n].

    Raises:
        TypeError: it is neither.
    """
    several = torch.empty(0, 0)
    if not isinstance(index, bool | str | tuple):
        with contextlib.suppress(TypeError, ValueError, RuntimeError):
            several = torch.as_tensor(index)
    if several.shape == (0,):
        return several.long()  # torch takes an empty list for floats
    if several.ndim != 1 or several.is_floating_point() or several.is_complex():
        raise TypeError(
            f"a distilled data set takes a number, a slice, a list or a mask, not {plain(repr(index), 60)}"
        )
    return several if several.dtype == torch.bool else several.long()


def _check_inside(numbers: Sequence[int], count: int) -> None:
    outside = [number for number in numbers if not -count <= number < count]
    if outside:
        raise IndexError(f"there is no image {outside[0]}: the set holds {count}")
