"""A network's state as flat vectors, one of all parameters and one of all buffers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dsdistill.files import parse_json
from dsdistill.networks.base import Network

Entry = tuple[str, tuple[int, ...], str]
"""Name, shape and dtype of one flattened tensor."""


@dataclass(frozen=True)
class Layout:
    """The layout of a network's state in two flat vectors, parameters of length P and buffers of Q."""

    parameters: tuple[Entry, ...]
    buffers: tuple[Entry, ...]

    @classmethod
    def of(cls, network: Network) -> Layout:
        """Return the layout of a network."""
        parameters = dict(network.named_parameters())
        buffers = {name: value for name, value in network.state_dict().items() if name not in parameters}
        return cls(_entries(parameters), _entries(buffers))

    @classmethod
    def parse(cls, text: str) -> Layout:
        """Read the JSON of `text`.

        Raises:
            ValueError: it is anything else.
        """
        parts = parse_json(text)
        if not isinstance(parts, dict) or parts.keys() != {"parameters", "buffers"}:
            raise ValueError("a layout lists parameters and buffers")
        return cls(*(tuple(map(_entry, parts[key])) for key in ("parameters", "buffers")))

    def text(self) -> str:
        """Write as JSON."""
        return json.dumps({"parameters": self.parameters, "buffers": self.buffers})

    @property
    def sizes(self) -> tuple[int, int]:
        """P and Q."""
        parameters, buffers = (
            sum(math.prod(shape) for _, shape, _ in part) for part in (self.parameters, self.buffers)
        )
        return parameters, buffers

    def pack(self, state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Copy a ``state_dict()`` to float32 [P] and [Q] on the CPU; integers above 2²⁴ would be rounded."""
        return _pack(state, self.parameters), _pack(state, self.buffers)

    def views(self, weights: Tensor) -> dict[str, Tensor]:
        """Return the parameters in [P], of any float dtype and device, as views of it."""
        parts = weights.split([math.prod(shape) for _, shape, _ in self.parameters])
        return {name: part.view(shape) for (name, shape, _), part in zip(self.parameters, parts, strict=True)}

    def unpack(self, weights: Tensor, buffers: Tensor) -> dict[str, Tensor]:
        """Return the ``state_dict()`` of [P] and [Q], as views of them where the dtype allows."""
        state: dict[str, Tensor] = {}
        for flat, entries in ((weights, self.parameters), (buffers, self.buffers)):
            parts = flat.split([math.prod(shape) for _, shape, _ in entries])
            for (name, shape, dtype), part in zip(entries, parts, strict=True):
                state[name] = part.view(shape).to(getattr(torch, dtype))
        return state


_DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")


def _entry(value: Any) -> Entry:
    """Check one entry of a layout that was read.

    Raises:
        ValueError: it is not a name, a shape and a dtype.
    """
    match value:
        case [str(name), [*shape], str(dtype)] if dtype in _DTYPES:
            if all(type(side) is int and side >= 0 for side in shape):
                return name, tuple(shape), dtype
    raise ValueError("a layout holds names with shapes and dtypes")


def _entries(tensors: Mapping[str, Tensor]) -> tuple[Entry, ...]:
    return tuple(
        (name, tuple(value.shape), str(value.dtype).removeprefix("torch.")) for name, value in tensors.items()
    )


def _pack(state: Mapping[str, Tensor], entries: Iterable[Entry]) -> Tensor:
    parts = [state[name].detach().flatten().float() for name, _, _ in entries]
    return torch.cat(parts).cpu() if parts else torch.empty(0)
