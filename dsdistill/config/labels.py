"""Options of the labels that students learn from: where they come from, and the loss that compares with them.

Each source belongs to one regime: see `dsdistill.config.regimes`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from dsdistill.config.validation import forbid_extra
from dsdistill.errors import UserError

Source = Literal["file", "hard", "static", "views", "teacher"]
Loss = Literal["ce", "kl", "mse", "sse", "gift", "dbr"]
Part = Literal["soft", "hard"]

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """The labels of a protocol."""

    source: Source = "file"
    """hard: the class of each image. static: the logits that the set's file stores for each image. views: the
    stored logits of augmented views, which are replayed. teacher: a network that labels every batch. file:
    static where the set has such logits, else hard."""
    loss: Loss = "ce"
    """Against soft labels. ce: cross-entropy with the teacher's probabilities at the temperature. kl:
    divergence, both sides at the temperature. mse: squared error of logits, its mean over classes; sse: half
    its sum (FRePo). gift: GIFT's cosine. dbr: NRR-DD's two distances."""
    temperature: Positive = 1.0
    """T, by which logits are divided before the softmax: the teacher's for ce, both for kl."""
    temperature_squared: bool = False
    """Multiply kl by T²; most released code does not."""
    hard_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """α: with ce, kl, mse and sse the loss is (1 - α)·soft + α·hard, α ≤ 1. With dbr it is hard +
    α·distances."""
    smoothing: Fraction = 0.0
    """Label smoothing of hard labels: this share is spread over all classes."""
    mixed: Literal["probabilities", "logits"] = "probabilities"
    """What is interpolated where stored labels of two images are mixed like the images."""
    teacher_mode: Literal["eval", "train"] = "eval"
    """train: the teacher normalises by the statistics of the batch that it labels."""
    phases: tuple[tuple[Part, Fraction], ...] = (("soft", 1.0),)
    """Parts of the epochs in order, with the share of each: HALD trains on soft, then hard, then soft
    labels."""
    views: Annotated[int, Field(ge=1)] | None = None
    """Views of each image that are used at most; all that are stored if it is left out."""

    def __post_init__(self) -> None:
        if abs(sum(share for _, share in self.phases) - 1) > 1e-6:
            raise UserError(f"the shares of labels.phases add up to 1, not to {_total(self.phases):g}")
        if self.loss != "dbr" and self.hard_weight > 1:
            raise UserError(f"labels.hard_weight is a share of the loss, at most 1, not {self.hard_weight:g}")
        if self.loss == "dbr" and self.source != "views":
            raise UserError(
                'labels.loss = "dbr" compares distances that views store: set labels.source = "views"'
            )

    def of(self, source: Source) -> LabelConfig:
        """Return the same labels from another source; NRR-DD's distances are of views alone."""
        if self.loss == "dbr" and source != "views":
            return dataclasses.replace(self, source=source, loss="ce", hard_weight=0.0)
        return dataclasses.replace(self, source=source)

    def part(self, epoch: int, epochs: int) -> Part:
        """Return which labels an epoch, counted from 0 of ``epochs``, trains on."""
        end = 0.0
        for part, share in self.phases:
            end += share
            if epoch < round(epochs * end, 9):
                return part
        return self.phases[-1][0]


def _total(phases: tuple[tuple[Part, float], ...]) -> float:
    return sum(share for _, share in phases)
