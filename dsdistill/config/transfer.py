"""Options of what follows pre-training: how students learn other data, and which labels of these they see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from dsdistill.config.validation import forbid_extra

TuningKind = Literal["fine-tune", "probe"]


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """The second half of a protocol whose students are pre-trained on targets, then taught other data."""

    tuning: TuningKind = "fine-tune"
    """fine-tune: all weights learn, and a new classifier. probe: features stay as they are, and a linear
    classifier of them is fitted to its optimum; nothing below is read then."""
    steps: Annotated[int, Field(ge=1)] = 10_000
    """Of SGD, on batches of random images; its rate follows half a cosine to 0."""
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.01
    """Learning rate of the first step."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of SGD."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5e-4
    """Added to the gradient, times the weights."""
    batch_size: Annotated[int, Field(ge=1)] = 256
    """Images of a step; all that have labels, where they are fewer."""
    augmentation: str = "crop_flip"
    """Operators joined by underscores, or "none"; each is applied to all images, its parameters per image."""
