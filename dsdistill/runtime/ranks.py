"""The processes that share one run: ``torchrun --nproc-per-node 4 -m dsdistill distill …``.

Each process is a rank of ``torch.distributed``. All ranks go through the same program with the same draws,
each computes its part of what the others compute the rest of, and what is learned is the same in all of them.
The first rank alone writes files and speaks. One process without torchrun is a group of one: every function
here then returns what it was given.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from safetensors.torch import load, save
from torch import Tensor, distributed

from dsdistill.errors import UserError
from dsdistill.runtime import launch, provenance
from dsdistill.runtime.board import Board, SharedBoard, lost

if TYPE_CHECKING:
    from torch.distributed import Store

T = TypeVar("T")

_PATIENCE = timedelta(days=20)
"""How long a rank waits for another, which may train a network. One that has ended is noticed at once."""

_ARRIVAL = timedelta(hours=1)
"""How long a rank waits for another to start."""

_SEEN_WITHIN = 60.0
"""Seconds in which a network's disk shows a file that another machine has written."""

_SPOKEN = "spoken"


class Ranks:
    """A group of processes. All of them call its methods in the same order, but for `part` and `deal`.

    Attributes:
        index: of this process, from 0.
        count: of all processes.
    """

    def __init__(self, index: int = 0, count: int = 1, store: Store | None = None) -> None:
        """Describe the group.

        Args:
            index, count: as the attributes.
            store: where the ranks agree who speaks; None leaves it to the first.
        """
        self.index, self.count = index, count
        self._store = store

    def __repr__(self) -> str:
        return f"<rank {self.index} of {self.count}>"

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.index == 0

    def part(self, count: int) -> slice:
        """Return which of ``count`` items are this rank's: as many as others have, or one more or less.

        Where there are fewer items than ranks, the first has one: it shows the progress.

        >>> [Ranks(index, 4).part(6) for index in range(4)]
        [slice(0, 2, None), slice(2, 3, None), slice(3, 5, None), slice(5, 6, None)]
        """
        first, end = (-(-index * count // self.count) for index in (self.index, self.index + 1))
        return slice(first, end)

    def deal(self, costs: Sequence[float]) -> list[int]:
        """Return of each item the rank that has it: the dearest first, each to whoever has least to do.

        >>> Ranks(0, 2).deal([1, 1, 1, 4])
        [1, 1, 1, 0]
        """
        loads, owners = [0.0] * self.count, [0] * len(costs)
        for item in sorted(range(len(costs)), key=lambda each: -costs[each]):
            owners[item] = loads.index(min(loads))
            loads[owners[item]] += costs[item]
        return owners

    def speaks(self) -> bool:
        """Whether this process is the one that prints an error: the first to ask."""
        if self.count == 1 or self._store is None:
            return self.is_first
        with contextlib.suppress(RuntimeError):
            return self._store.add(_SPOKEN, 1) == 1
        return True  # nobody is left to ask

    def sum_(self, *tensors: Tensor) -> None:
        """Add up tensors over all ranks, in place.

        Raises:
            RankLost: a rank has ended.
        """
        for tensor in tensors if self.count > 1 else ():
            with lost():
                distributed.all_reduce(tensor)

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Return of each flag whether it is set in any rank; nothing waits for a GPU.

        Raises:
            RankLost: a rank has ended.
        """
        if self.count == 1:
            return flags
        tensor = torch.tensor(flags, dtype=torch.uint8)
        with lost():
            distributed.all_reduce(tensor, op=distributed.ReduceOp.MAX)
        return tuple(map(bool, tensor.tolist()))

    def texts(self, text: str) -> list[str]:
        """Return what each rank passes, in their order.

        Raises:
            RankLost: a rank has ended.
        """
        return [data.decode() for data in self._gathered(text.encode())]

    def of_first(self, text: str) -> str:
        """Return what the first rank passes.

        Raises:
            RankLost: a rank has ended.
        """
        return self.texts(text)[0]

    def union(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the named tensors of all ranks, on the CPU; of two with one name that of the lower rank.

        Raises:
            RankLost: a rank has ended.
        """
        if self.count == 1:
            return dict(tensors)
        ordered = {"memory_format": torch.contiguous_format}  # and each by itself: no memory may be shared
        here = save({name: tensor.detach().cpu().clone(**ordered) for name, tensor in tensors.items()})
        merged: dict[str, Tensor] = {}
        for data in reversed(self._gathered(here)):
            merged |= load(data)
        return merged

    def board(self) -> Board:
        """Return a new board of these ranks."""
        if self.count == 1:
            return Board()
        store = self._store or distributed.distributed_c10d._get_default_store()
        return SharedBoard(distributed.PrefixStore(f"board-{next(_boards)}", store))

    def wait(self) -> None:
        """Wait until every rank is here.

        Raises:
            RankLost: a rank has ended.
        """
        self.any(False)

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """Have the first rank do what is inside, and then the others, which find what it has put in a cache.

        Raises:
            RankLost: a rank has ended.
        """
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def check_same(self, facts: Mapping[str, str]) -> None:
        """Check that all ranks are about the same, by the same code.

        Args:
            facts: what else has to be equal, by what a sentence calls it.

        Raises:
            UserError: naming the first fact that differs; the same in every rank.
            RankLost: a rank has ended.
        """
        if self.count == 1:
            return
        own = {"code": provenance.code_digest(), **facts}
        first, *others = (json.loads(text) for text in self.texts(json.dumps(own)))
        for index, other in enumerate(others, 1):
            for name in own:
                if other.get(name) != first[name]:
                    raise UserError(
                        f"process {index} has other {name} than process 0: start all of them with the same "
                        "command, on the same files"
                    )

    def check_shared(self, path: Path) -> None:
        """Wait until every rank is here, and check that all see a file or folder that the first has written.

        Raises:
            UserError: one does not; the same in every rank.
            RankLost: a rank has ended.
        """
        self.wait()
        until = time.monotonic() + _SEEN_WITHIN
        while (hidden := self.count > 1 and not path.exists()) and time.monotonic() < until:
            time.sleep(0.1)
        (hidden,) = self.any(hidden)
        if hidden:
            raise UserError(
                f"not every process of this run sees {path}: write to a folder that their machines share"
            )

    def _gathered(self, data: bytes) -> list[bytes]:
        """Return what each rank passes, in their order."""
        if self.count == 1:
            return [data]
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.count)]
        with lost():
            distributed.all_gather(sizes, torch.tensor([len(data)]))
            longest = max(1, *(int(size) for size in sizes))
            padded = torch.zeros(longest, dtype=torch.uint8)
            padded[: len(data)] = torch.frombuffer(bytearray(data or b"\0"), dtype=torch.uint8)[: len(data)]
            parts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.count)]
            distributed.all_gather(parts, padded)
        return [bytes(part[: int(size)].numpy()) for part, size in zip(parts, sizes, strict=True)]


ALONE = Ranks()
"""One process."""


class LonePart(Ranks):
    """One of several processes, the others of which are not there: its part of a step can be timed.

    >>> LonePart(2, 6).part(12)
    slice(0, 4, None)
    """

    def __init__(self, own: int, of: int) -> None:
        """Describe it.

        Args:
            own, of: parts of a step that it takes, and all of them, more than one.
        """
        super().__init__(index=0, count=2)
        self._own, self._of = own, of

    def part(self, count: int) -> slice:
        """Return which of ``count`` items it takes: the first ones, one at least."""
        return slice(0, max(1, -(-self._own * count // self._of)))

    def sum_(self, *tensors: Tensor) -> None:
        """Add up nothing."""

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Return the flags of this process."""
        return flags

    def _gathered(self, data: bytes) -> list[bytes]:
        return [data]


def current() -> Ranks:
    """Return the processes of this run; those of torchrun are joined at the first call.

    Raises:
        UserError: they cannot be joined.
    """
    if distributed.is_available() and distributed.is_initialized():
        return _joined() or _of_script()
    return _join() if launch.is_several() else ALONE


def _of_script() -> Ranks:
    """Return the processes that the user's own script has joined.

    Raises:
        UserError: they have no way to exchange what is on the CPU.
    """
    if distributed.get_world_size() > 1 and "cpu:" not in distributed.get_backend_config():
        raise UserError(
            "torch.distributed was begun with GPUs alone, and processes agree on the CPU: begin it with "
            'init_process_group("cpu:gloo,cuda:nccl")'
        )
    return Ranks(distributed.get_rank(), distributed.get_world_size())


_groups: list[Ranks] = []
_failures: list[UserError] = []
"""Why the processes cannot be joined: it is not tried again, which might take an hour."""
_boards = itertools.count()
"""Numbers, which are equal in all ranks because all ask for boards in the same order."""


def _joined() -> Ranks | None:
    return _groups[0] if _groups else None


@functools.cache
def _join() -> Ranks:
    """Join the processes that torchrun started.

    Raises:
        UserError: torch cannot, or the others cannot be reached.
    """
    if _failures:
        raise _failures[0]
    if not distributed.is_available():
        raise UserError("this build of torch has no torch.distributed: leave torchrun out")
    backend = "gloo"
    if torch.cuda.is_available():
        if not distributed.is_nccl_available():
            raise UserError(
                "this build of torch has no NCCL, by which GPUs work together: leave torchrun out, or hide "
                "the GPUs with CUDA_VISIBLE_DEVICES= "
            )
        torch.cuda.set_device(launch.local_index() % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    try:
        rendezvous = distributed.rendezvous("env://", timeout=_ARRIVAL)
        store, index, count = next(rendezvous)
        store = distributed.PrefixStore(f"dsdistill-{launch.attempt()}", store)
        distributed.init_process_group(backend, store=store, rank=index, world_size=count, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        _failures.append(UserError(f"the processes of this run cannot reach one another: {error}"))
        raise _failures[0] from error
    atexit.register(_leave)
    _groups.append(Ranks(index, count, store))
    return _groups[0]


def _leave() -> None:
    """Leave the group, so that its threads end before the process does."""
    with contextlib.suppress(Exception):
        distributed.destroy_process_group()
