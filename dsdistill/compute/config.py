"""The options of the optimiser of the pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from dsdistill.config.validation import forbid_extra
from dsdistill.errors import UserError

Decay = Annotated[float, Ge(0), Lt(1)]


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """The optimiser of the pixels."""

    kind: Literal["sgd", "adamw", "lamb"] = "sgd"
    """The algorithm; lamb is AdamW with one trust ratio for the tensor of all images (FRePo)."""
    lr: Annotated[float, Ge(0)] = 1.0
    """Learning rate of the pixels; the published ones belong to losses summed over features and classes."""
    momentum: Annotated[float, Ge(0)] = 0.5
    """Of sgd."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Of adamw and lamb: decay of the averages of the gradient and of its square."""
    eps: Annotated[float, Gt(0)] = 1e-8
    """Of adamw and lamb."""
    weight_decay: Annotated[float, Ge(0)] = 0.0
    """Of adamw and lamb: decoupled. Of sgd: added to the gradient."""
    updates: Literal["joint", "per-class"] = "joint"
    """One step for all classes, or one for each, in which the others' gradients are zero (IDC, IDM, NCFM)."""
    clamp_every: Annotated[int, Ge(0)] = 0
    """Clamp pixels to [0, 1] every so many iterations; 0 never does."""
    clamp: Literal["before", "after"] = "before"
    """Whether that comes before the step of an iteration, or after it (SRe2L)."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """cosine: the learning rate is multiplied by ½(1 + cos(πt/R)) in iteration t of R, counted from 0;
    linear: by 1 - t/R. Where seconds end a run, t/R is their share that is spent."""
    final: Annotated[float, Ge(0), Le(1)] = 0.0
    """The share of the learning rate that a schedule ends at: what it multiplies by goes from 1 to it."""
    ema: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Decay of an average of the pixels, as iterations leave them, that is stored in their place (FTD); 0
    keeps none."""
    patience: Annotated[int, Ge(0)] = 0
    """Iterations without a lower loss after which the learning rate is halved; 0 never does."""

    def rate(self, iteration: int, iterations: int) -> float:
        """Return the learning rate in an iteration counted from 0, of so many."""
        if self.schedule == "constant":
            return self.lr
        progress = min(1.0, iteration / iterations)
        share = (1 + math.cos(math.pi * progress)) / 2 if self.schedule == "cosine" else 1 - progress
        return self.lr * (self.final + (1 - self.final) * share)

    def __post_init__(self) -> None:
        if self.patience and self.schedule != "constant":
            raise UserError(
                "the learning rate of the pixels follows a schedule or the loss, not both: set "
                "optimiser.patience=0 or optimiser.schedule=constant"
            )
        if self.kind == "lamb" and self.updates == "per-class":
            raise UserError(
                "lamb steps all images by one trust ratio, so per-class updates are not possible: set "
                "optimiser.updates=joint, or optimiser.kind=adamw"
            )
