"""What a labelling leaves, for its caller and for the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from dsdistill.labelling.config import Kind
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledDataset, DistilledSet
from dsdistill.text import byte_size


@dataclass(frozen=True)
class StopPoint:
    """How well a set does with the labels of a teacher after some epochs.

    Attributes:
        epoch: of the teacher's training.
        accuracy, std: of students on held-out training images, in percent.
        teacher: its own accuracy on test images, a fraction; None where its file does not state it.
    """

    epoch: int
    accuracy: float
    std: float
    teacher: float | None = None

    @property
    def sentence(self) -> str:
        """The point, for people."""
        own = "" if self.teacher is None else f"; the teacher itself {100 * self.teacher:.1f} % (test)"
        return f"teacher's epoch {self.epoch}: students {self.accuracy:.1f} ± {self.std:.1f} %{own}"


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
    def of(cls, path: Path, kind: Kind) -> LabelSummary:
        """Return the summary of a labelled file.

        Raises:
            UserError: it cannot be read.
        """
        content, distilled = set_file.describe(path), set_file.read(path)
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
    views = distilled.views
    if views is None:
        data = DistilledDataset(distilled, "unit")
        assert data.soft_labels is not None
        return float((data.soft_labels.argmax(1) == data.labels).double().mean())
    if views.answers.encoding == "distances":
        return None
    origins = distilled.labels if distilled.multi_formation.is_identity else _decoded_labels(distilled)
    right = 0
    for number in range(len(views)):
        batch, part = views.batch(number), views.slice(number)
        labels = origins[batch.rows]
        answers = views.answers[part].argmax(1)
        right += int(torch.logical_or(answers == labels, answers == labels[batch.mix.partner]).sum())
    return right / len(views.rows)


def _decoded_labels(distilled: DistilledSet) -> torch.Tensor:
    return DistilledDataset(distilled, "unit").labels
