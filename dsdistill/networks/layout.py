"""A network's state as flat vectors, one of all parameters and one of all buffers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

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
        """Read the JSON of `text`."""
        parts = json.loads(text)
        return cls(
            *(
                tuple((name, tuple(shape), dtype) for name, shape, dtype in parts[key])
                for key in ("parameters", "buffers")
            )
        )

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


def _entries(tensors: Mapping[str, Tensor]) -> tuple[Entry, ...]:
    return tuple(
        (name, tuple(value.shape), str(value.dtype).removeprefix("torch.")) for name, value in tensors.items()
    )


def _pack(state: Mapping[str, Tensor], entries: Iterable[Entry]) -> Tensor:
    parts = [state[name].detach().flatten().float() for name, _, _ in entries]
    return torch.cat(parts).cpu() if parts else torch.empty(0)
