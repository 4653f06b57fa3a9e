"""A cache of what is computed of real images alone, for each of finitely many draws of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Hashable, MutableMapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from dsdistill.runtime.device import wait
from dsdistill.runtime.pace import typical
from dsdistill.seeding import generator
from dsdistill.supply.base import DrawnNetwork

T = TypeVar("T")

VALUE_BYTES = 4
"""Of what is kept: float32."""


class RealCache:
    """Keeps what iterations compare synthetic images with, such as class means of real features.

    A draw is one of finitely many networks and one of ``draws`` numbers, from which the real images, their
    augmentation and whatever else real features meet are drawn. An iteration takes one of the draws at
    random, by its seed. What it needs of it is computed if no iteration before it needed it, and kept. So
    nothing is computed that is never used; and a resumed run, whether it finds what is kept or begins with an
    empty cache, goes on as if it had never stopped.

    Attributes:
        networks: how many there are.
        draws: for each of them.
        seconds: that went into the cache.
        in_memory: whether what is kept takes memory.
    """

    def __init__(
        self,
        seed: int,
        networks: int,
        draws: int,
        values: int,
        device: torch.device,
        store: MutableMapping[Hashable, Any] | None = None,
    ) -> None:
        """Begin with what is kept.

        Args:
            seed: of the run.
            networks: how many the supply has.
            draws: for each of them.
            values: that are kept of a draw.
            device: where they are computed.
            store: what is kept, on a disk; None for memory, which is empty.
        """
        self.in_memory = store is None
        self.networks, self.draws = networks, draws
        self.seconds = 0.0
        self._seed, self._values, self._device = seed, values, device
        self._kept: MutableMapping[Hashable, Any] = {} if store is None else store
        self._block: _Block | None = None if store is not None else _Block(self.size * values, device)
        self._numbers: set[int] = set()  # of the draws that are here
        self._seconds: dict[int, float] = {}  # of each draw

    @property
    def size(self) -> int:
        """How many draws there are of all networks."""
        return self.networks * self.draws

    @property
    def bytes(self) -> int:
        """What the cache takes when it holds every draw."""
        return self.size * self._values * VALUE_BYTES

    def number(self, iteration: int, network: DrawnNetwork) -> int:
        """Return which draw an iteration takes, of `size`.

        Args:
            iteration: whose draw follows from it and the seed.
            network: that of the iteration.
        """
        assert network.number is not None
        stream = generator(self._seed, "real-draws", iteration)
        return network.number * self.draws + int(torch.randint(self.draws, (), generator=stream))

    def once(self, number: int, what: Hashable, compute: Callable[[], T]) -> T:
        """Return something that is computed of a draw, at its first use.

        Args:
            number: of the draw.
            what: tells it from all else that is computed of it.
            compute: it; a tensor without a graph, or a tuple of several.
        """
        key = number, what
        self._numbers.add(number)
        with contextlib.suppress(KeyError):
            return cast("T", self._kept[key])
        wait(self._device)
        since = time.monotonic()
        value = compute()
        self._kept[key] = value = self._compact(value)
        wait(self._device)
        taken = time.monotonic() - since
        self.seconds += taken
        self._seconds[number] = self._seconds.get(number, 0.0) + taken
        return value

    def forget(self) -> None:
        """Empty the cache; how long a draw takes is still known."""
        self._kept.clear()
        if self._block is not None:
            self._block.taken = 0
        self._numbers.clear()

    def _compact(self, value: T) -> T:
        """Return a value that is to be kept, in the block of all that memory keeps."""
        if self._block is None:
            return value
        if isinstance(value, Tensor):
            return cast("T", self._block.copy(value))
        if isinstance(value, tuple):
            return cast("T", tuple(map(self._block.copy, value)))
        return value

    def seconds_to_come(self, iterations: int) -> float:
        """Estimate the seconds that so many further iterations will put into the cache."""
        missing = self.size - len(self._numbers)
        first_needed = missing * (1 - (1 - 1 / self.size) ** iterations)
        return first_needed * self._seconds_of_draw()

    def _seconds_of_draw(self) -> float:
        """Return what a draw takes, going by those after the first, which may have compiled something."""
        seconds = list(self._seconds.values())
        return typical(seconds[1:] or seconds) if seconds else 0.0

    def __repr__(self) -> str:
        return f"<RealCache of {self.networks} networks x {self.draws} draws>"


class _Block:
    """Memory for many small tensors, allocated at once.

    Each for itself would lie among the large ones that it was computed from, and keep the allocator from
    using their place again: megabytes for every kilobyte that is kept. Memory that nothing was copied to is
    not resident.

    Attributes:
        taken: values that were copied.
    """

    def __init__(self, values: int, device: torch.device) -> None:
        self.taken = 0
        self._values = torch.empty(values, device=device)

    def copy(self, value: Tensor) -> Tensor:
        """Return a copy in this memory; elsewhere, if there is no room or it is not float32."""
        end = self.taken + value.numel()
        if value.dtype != self._values.dtype or end > len(self._values):
            return value.clone()
        # Of .data, because views of one tensor count its changes together: a copy would spoil every graph
        # that an earlier one is part of.
        place = self._values.data[self.taken : end].view(value.shape)
        self.taken = end
        return place.copy_(value)
