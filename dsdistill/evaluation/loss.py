"""The loss of a student over a batch: against hard labels, a teacher's answers, or both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.config.labels import LabelConfig
from dsdistill.objectives.labels import distance_error, divergence, gift, squared_error
from dsdistill.objectives.precision import at_least_float32

Targets: TypeAlias = Mapping[str, Tensor]
"""What a batch of B images is compared with, by name. What is there decides which terms the loss has.

hard            int64 [B], or probabilities [B, K] where hard labels are mixed
probabilities   [B, K], a teacher's at the temperature
logits          float32 [B, K], a teacher's
distances       float32 [B, 2], a teacher's (NRR-DD)
labels          int64 [B], of the images before they are mixed; partners: of those that they are mixed with
weights         float32 [B], of each image in the loss
"""


@dataclass(frozen=True)
class StudentLoss:
    """The mean over a batch of the loss that a protocol's ``labels`` describe.

    Attributes:
        config: see `LabelConfig`.
    """

    config: LabelConfig = LabelConfig()  # noqa: RUF009 (frozen)

    def __call__(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return a scalar, in float32 or wider.

        Args:
            logits: of the student, [B, K].
            targets: hard labels, or a teacher's answers, or both.
        """
        logits = at_least_float32(logits)
        config, weights = self.config, targets.get("weights")
        if "distances" in targets:
            hard = _cross_entropy(logits, targets["hard"], weights, config.smoothing)
            errors = distance_error(logits, targets["labels"], targets["partners"], targets["distances"])
            return hard + config.hard_weight * _mean(errors, weights)
        if "logits" not in targets and "probabilities" not in targets:
            return _cross_entropy(logits, targets["hard"], weights, config.smoothing)
        loss = self._soft(logits, targets, weights)
        if config.hard_weight:
            hard = _cross_entropy(logits, targets["hard"], weights, config.smoothing)
            loss = (1 - config.hard_weight) * loss + config.hard_weight * hard
        return loss

    def _soft(self, logits: Tensor, targets: Targets, weights: Tensor | None) -> Tensor:
        """Return the loss against a teacher's answers."""
        config, temperature = self.config, self.config.temperature
        if config.loss == "mse":
            return _mean(squared_error(logits, targets["logits"]), weights)
        if config.loss == "sse":
            classes = logits.shape[1]
            return _mean(classes / 2 * squared_error(logits, targets["logits"]), weights)
        if config.loss == "gift":
            return _mean(gift(logits, targets["logits"], targets["labels"]), weights)
        if "probabilities" in targets:
            teacher = targets["probabilities"]
        else:
            teacher = (at_least_float32(targets["logits"]) / temperature).softmax(1)
        if config.loss == "ce":
            return _cross_entropy(logits, teacher, weights, 0.0)
        factor = temperature**2 if config.temperature_squared else 1.0
        return factor * _mean(divergence(logits, teacher, temperature), weights)


def _cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    if weights is None:
        return F.cross_entropy(logits, targets, label_smoothing=smoothing)
    return _mean(F.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing), weights)


def _mean(losses: Tensor, weights: Tensor | None) -> Tensor:
    return losses.mean() if weights is None else (weights * losses).mean()


def temperature_softmax(logits: Tensor, temperature: float) -> Tensor:
    """Return softmax(z / T) over classes, [N, K]."""
    return logits.softmax(-1) if temperature == 1 else torch.softmax(logits / temperature, -1)
