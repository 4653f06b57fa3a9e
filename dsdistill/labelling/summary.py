"""What a labelling leaves, for its caller and for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dsdistill.labelling.config import Kind
from dsdistill.storage.set_description import describe
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.views import Views
from dsdistill.text import byte_size

_AT_ONCE = 1 << 16  # views


@dataclass(frozen=True)
class StopPoint:
    """How well a set does with the labels of a teacher after some epochs.

    Attributes:
        epoch: of the teacher's training.
        accuracy, std: of students on held-out training images, in percent.
        teacher: its own accuracy on test images, a fraction; None where its file does not state it.
        validation: its own accuracy on the training images that it held out; None where it held out none.
    """

    epoch: int
    accuracy: float
    std: float
    teacher: float | None = None
    validation: float | None = None

    @property
    def sentence(self) -> str:
        """The point, for people."""
        students = f"teacher's epoch {self.epoch}: students {self.accuracy:.1f} ± {self.std:.1f} %"
        own = {"test": self.teacher, "held out": self.validation}
        known = [f"{100 * each:.1f} % ({images})" for images, each in own.items() if each is not None]
        return students + (f"; the teacher itself {', '.join(known)}" if known else "")


@dataclass(frozen=True)
class LabelSummary:
    """How a labelling went.

    >>> summary = dsdistill.label("set.h5", "labelled.h5", teachers="pool.h5")
    >>> summary.kind, summary.images, summary.views, summary.path.name
    ('static', 10, 0, 'labelled.h5')

    Attributes:
        path: the file that was written.
        kind: "static" labels of the images, or "views" of them.
        teacher: who answered.
        images: training images of the set, decoded ones of a multi-formation.
        views: how many are stored.
        agreement: share of the images, or of the views, whose largest logit is that of the hard label (of
            mixed views: of either label); None of two distances.
        image_bytes: of the stored images in the file, compressed.
        label_bytes: of all labels in the file, compressed; views are a part of them.
        curve: what was tried where the teacher's epoch was chosen, ascending by epoch.
    """

    path: Path
    kind: Kind
    teacher: str
    images: int
    views: int
    agreement: float | None
    image_bytes: int
    label_bytes: int
    curve: tuple[StopPoint, ...] = ()

    @classmethod
    def of(cls, path: Path, kind: Kind, distilled: DistilledSet) -> LabelSummary:
        """Return the summary of a labelled file.

        Args:
            distilled: what the file holds.

        Raises:
            UserError: the file cannot be read.
        """
        content = describe(path)
        return cls(
            path=path,
            kind=kind,
            teacher=str(content.attributes.get("teacher", "")),
            images=distilled.decoded_count,
            views=0 if distilled.views is None else len(distilled.views.rows),
            agreement=agreement(distilled),
            image_bytes=content.image_bytes,
            label_bytes=content.label_bytes,
        )

    def rows(self) -> list[tuple[str, str]]:
        """Return names and meanings, as displays show them."""
        what = f"logits of {self.images} images" if self.kind == "static" else f"{self.views:,} views"
        rows = [("stop", point.sentence) for point in self.curve]
        rows += [("file", str(self.path)), ("labels", f"{what}, by {self.teacher}")]
        if self.agreement is not None:
            rows.append(("agreement", f"{100 * self.agreement:.1f} % with the hard labels"))
        sizes = {"images": self.image_bytes, "labels": self.label_bytes}
        for name, count in sizes.items():
            each = byte_size(count / self.images)
            rows.append((f"bytes of {name}", f"{byte_size(count)}, {each} for each training image"))
        return rows


def agreement(distilled: DistilledSet) -> float | None:
    """Return the share of answers whose largest logit is that of the hard label; None where there is none.

    Args:
        distilled: with views or soft labels.
    """
    views, labels = distilled.views, _labels(distilled)
    if views is None:
        assert distilled.soft_labels is not None
        stored = len(distilled.soft_labels) != len(labels)
        return _share(distilled.soft_labels.argmax(1) == (distilled.labels if stored else labels))
    if views.answers.encoding == "distances":
        return None
    before = views.starts[:-1].repeat_interleave(views.starts.diff())  # the views of earlier batches
    partners = views.rows[views.partners + before]
    right = [
        torch.logical_or(answers == labels[rows], answers == labels[others])
        for rows, others, answers in zip(
            views.rows.long().split(_AT_ONCE), partners.long().split(_AT_ONCE), _largest(views), strict=True
        )
    ]
    return _share(torch.cat(right))


def _largest(views: Views) -> Iterator[Tensor]:
    """Yield the class with the largest logit of each view, some views at a time."""
    for first in range(0, len(views.answers), _AT_ONCE):
        yield views.answers[first : first + _AT_ONCE].argmax(1)


def _share(right: Tensor) -> float:
    return float(right.double().mean())


def _labels(distilled: DistilledSet) -> Tensor:
    """Return the hard labels of the training images, int64 [M]."""
    return distilled.labels[distilled.origins()]
