"""A committee of teachers, and what it answers to a batch of images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dsdistill.errors import UserError
from dsdistill.runtime.device import Precision, autocast
from dsdistill.teachers.teacher import Teacher

Mean = Literal["logits", "probabilities"]
Mode = Literal["eval", "train"]
Unseen = Literal["test", "validation"]
"""Images that teachers were not trained on: test images, or training images that they held out."""

_CHUNK = 512
"""Images that a GPU computes at once."""
_CACHED_PIXELS = 1 << 14
"""Of the images that a CPU computes at once: features of more would not stay in its caches."""
_FEWEST = 4


@dataclass(frozen=True, eq=False)
class Committee:
    """Teachers whose answers are averaged; one alone answers for itself.

    Attributes:
        teachers: at least one, all for the same classes, on one device.
        weights: of each in the mean; they add up to 1.
        mean: of what; a mean of probabilities is returned as its logarithm.
        mode: "eval" normalises by the statistics of the training, "train" by those of the images at hand
            (CV-DD's batch-specific soft labels; SRe2L's code on CIFAR-100). In neither do the teachers
            change.
        precision: of the computation.
        parts: of the images at hand, each normalised on its own in mode "train".

    Raises:
        UserError: there is no teacher, or the weights are not as many, negative or 0 in all.
    """

    teachers: Sequence[Teacher]
    weights: Sequence[float] = ()
    mean: Mean = "logits"
    mode: Mode = "eval"
    precision: Precision = "fp32"
    parts: int = 1

    def __post_init__(self) -> None:
        if not self.teachers:
            raise UserError("a committee needs at least one teacher")
        weights = list(self.weights) or [1.0] * len(self.teachers)
        if len(weights) != len(self.teachers) or min(weights) < 0 or not sum(weights) > 0:
            raise UserError(
                f"{len(self.teachers)} teachers need as many weights, from 0 and not all 0, not {weights}"
            )
        object.__setattr__(self, "weights", tuple(each / sum(weights) for each in weights))

    @property
    def name(self) -> str:
        """The teachers, for people."""
        return "; ".join(teacher.name for teacher in self.teachers)

    @property
    def architectures(self) -> str:
        """The names of their networks, each once."""
        return ", ".join(dict.fromkeys(teacher.architecture or teacher.name for teacher in self.teachers))

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that identify the answers: weights of the networks, of the mean, and the
        mode."""
        identity = [[each.digest for each in self.teachers], list(self.weights), self.mean, self.mode]
        identity += [self.parts] if self.parts > 1 else []  # digests without it are in files
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]

    def accuracies(self, images: Unseen) -> list[float]:
        """Return the accuracy of each teacher on images, a fraction; empty unless all are known."""
        known = [getattr(teacher, f"{images}_accuracy") for teacher in self.teachers]
        return [] if None in known else known

    @property
    def device(self) -> torch.device:
        """Where the teachers are."""
        return next(self.teachers[0].network.parameters()).device

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Answer to images.

        Args:
            images: float [B, C, H, W] in network space, on the device. In mode "train" they are one batch; in
                mode "eval" they are computed in chunks, which changes nothing.

        Returns:
            float32 [B, K], on the device.
        """
        chunks = images.chunk(self.parts) if self.mode == "train" else images.split(_chunk(images))
        return torch.cat([self._answer(chunk) for chunk in chunks])

    def _answer(self, images: Tensor) -> Tensor:
        total = None
        for teacher, weight in zip(self.teachers, self.weights, strict=True):
            with _normalising(teacher.network, self.mode), autocast(images.device, self.precision):
                answer = teacher.network(images).float()
            if self.mean == "probabilities":
                answer = answer.softmax(1)
            if len(self.teachers) == 1:
                total = answer
            else:
                total = weight * answer if total is None else total + weight * answer
        assert total is not None
        return (
            total.log().clamp(min=torch.finfo(torch.float32).min) if self.mean == "probabilities" else total
        )


def _chunk(images: Tensor) -> int:
    """Return how many images like these are computed at once."""
    if images.device.type != "cpu":
        return _CHUNK
    return max(_FEWEST, min(_CHUNK, _CACHED_PIXELS // images.shape[-2:].numel()))


@contextmanager
def _normalising(network: nn.Module, mode: Mode) -> Iterator[None]:
    """Have batch normalisation use the statistics of the batch in mode "train", without remembering them."""
    layers = (
        [module for module in network.modules() if isinstance(module, _BatchNorm)] if mode == "train" else []
    )
    before = [(each.running_mean, each.running_var) for each in layers]
    for each in layers:
        each.running_mean = each.running_var = None
    try:
        yield
    finally:
        for each, (mean, variance) in zip(layers, before, strict=True):
            each.running_mean, each.running_var = mean, variance
