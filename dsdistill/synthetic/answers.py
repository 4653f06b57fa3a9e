"""A teacher's answers as a file stores them: logits in few bytes, or two distances in place of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from dsdistill.errors import UserError, unknown

Encoding = Literal["float32", "float16", "uint8", "top", "distances"]

_LEVELS = 255


@dataclass(frozen=True, eq=False)
class Answers:
    """What a teacher answered to V views, encoded.

    ========== ======================================================================================
    encoding   tensors
    ========== ======================================================================================
    float32    ``values`` float32 [V, K]: logits
    float16    ``values`` float16 [V, K]: logits
    uint8      ``values`` uint8 [V, K]; ``low`` and ``step`` float32 [V]: a logit is low + step·value
    top        ``values`` float16 [V, k]: the k largest logits, minus the logarithm of the sum of all
               exponentials, so that they are log-probabilities; ``classes`` int32 [V, k]: theirs;
               ``rest`` float16 [V]: the logarithm of the probability of all other classes together
    distances  ``values`` float16 [V, 2]: cross-entropies with the two labels of a mixed image
    ========== ======================================================================================

    Attributes:
        encoding: see above.
        num_classes: K.
        parts: the tensors by name.

    Raises:
        UserError: a tensor is missing, or its shape or dtype is another.
    """

    encoding: Encoding
    num_classes: int
    parts: Mapping[str, Tensor] = field(repr=False)

    def __post_init__(self) -> None:
        if self.encoding not in get_args(Encoding):
            raise unknown("encoding of labels", self.encoding, get_args(Encoding))
        expected = _expected(self.encoding)
        if set(self.parts) != set(expected):
            raise UserError(f"{self.encoding} labels hold {', '.join(expected)}, not {', '.join(self.parts)}")
        for name, (dtype, dims) in expected.items():
            part = self.parts[name]
            if part.dtype != dtype or part.dim() != dims or len(part) != len(self):
                raise UserError(f"{self.encoding} labels: {name} is {part.dtype} {list(part.shape)}")
        width = {"distances": 2, "top": self.parts["values"].shape[1]}.get(self.encoding, self.num_classes)
        if self.parts["values"].shape[1] != width or width > max(2, self.num_classes):
            raise UserError(f"{self.encoding} labels do not fit {self.num_classes} classes")
        if "classes" in self.parts and not _inside(self.parts["classes"], self.num_classes):
            raise UserError(f"labels name a class outside the {self.num_classes} there are")
        if not all(part.isfinite().all() for part in self.parts.values() if part.is_floating_point()):
            raise UserError("stored labels hold values that are not finite (NaN or infinity)")

    def __len__(self) -> int:
        return len(self.parts["values"])

    @staticmethod
    def cat(parts: Sequence[Answers]) -> Answers:
        """Join answers of one encoding to one view after another."""
        first = parts[0]
        joined = {name: torch.cat([part.parts[name] for part in parts]) for name in first.parts}
        return Answers(first.encoding, first.num_classes, joined)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors, before compression."""
        return sum(part.numel() * part.element_size() for part in self.parts.values())

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """Return the answers to some views, float32: logits [n, K], or distances [n, 2].

        Logits that were stored by their largest are log-probabilities; the other classes share the rest.
        """
        values = self.parts["values"][rows].float()
        if self.encoding == "uint8":
            low, step = (self.parts[name][rows][:, None] for name in ("low", "step"))
            return low + step * values
        if self.encoding == "top":
            others = max(1, self.num_classes - values.shape[1])
            rest = self.parts["rest"][rows].float()[:, None] - math.log(others)
            return rest.repeat(1, self.num_classes).scatter(1, self.parts["classes"][rows].long(), values)
        return values


def encode(logits: Tensor, encoding: Encoding, top: int | None = None) -> Answers:
    """Encode logits.

    >>> answers = encode(torch.tensor([[3.0, 0.0, -1.0]]), "top", top=1)
    >>> answers[:].softmax(1).sum().item()
    1.0

    Args:
        logits: float [V, K], finite.
        encoding: any but "distances".
        top: k, of the encoding "top".

    Raises:
        UserError: k is not between 1 and K, or float16 cannot hold a logit.
    """
    logits = logits.detach().float().cpu()
    classes = logits.shape[1]
    if encoding == "top":
        if top is None or not 1 <= top <= classes:
            raise UserError(
                f"the largest logits to keep are 1 to {classes}, the number of classes, not {top}"
            )
        logs = logits.log_softmax(1)
        values, labels = logs.topk(top, 1)
        rest = logs.scatter(1, labels, -math.inf).logsumexp(1).clamp(min=_LEAST)
        parts = {"values": values.clamp(min=_LEAST).half(), "classes": labels.int(), "rest": rest.half()}
        return Answers(encoding, classes, parts)
    if encoding == "uint8":
        low, high = logits.amin(1), logits.amax(1)
        step = (high - low) / _LEVELS
        levels = ((logits - low[:, None]) / step.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round()
        return Answers(
            encoding, classes, {"values": levels.clamp(0, _LEVELS).byte(), "low": low, "step": step}
        )
    if encoding == "float16":
        if logits.abs().amax() > torch.finfo(torch.float16).max:
            raise UserError("float16 cannot hold logits as large as these; store them as float32")
        return Answers(encoding, classes, {"values": logits.half()})
    return Answers(encoding, classes, {"values": logits})


def encode_distances(distances: Tensor, num_classes: int) -> Answers:
    """Store the two distances of every view, float [V, 2], as float16; see `Answers`."""
    largest = torch.finfo(torch.float16).max
    return Answers("distances", num_classes, {"values": distances.detach().cpu().clamp(max=largest).half()})


_LEAST = -60000.0  # a logarithm of a probability that float16 still holds


def _expected(encoding: Encoding) -> dict[str, tuple[torch.dtype, int]]:
    values = {"float32": torch.float32, "uint8": torch.uint8}.get(encoding, torch.float16)
    more = {
        "uint8": {"low": (torch.float32, 1), "step": (torch.float32, 1)},
        "top": {"classes": (torch.int32, 2), "rest": (torch.float16, 1)},
    }
    return {"values": (values, 2), **more.get(encoding, {})}


def _inside(classes: Tensor, count: int) -> bool:
    return bool(((classes >= 0) & (classes < count)).all())
