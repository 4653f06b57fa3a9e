"""Ranks of one test: threads that take turns, so that nothing but a collective lets another one go on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from dsdistill.runtime.board import Board
from dsdistill.runtime.ranks import Ranks

T = TypeVar("T")


class _Meeting:
    """Where ranks meet, and take along what all of them have brought."""

    def __init__(self, count: int) -> None:
        self.turn = threading.Condition()
        self.count, self.lost = count, False
        self.rounds: list[dict[int, Any]] = []
        self.boards: dict[int, Board] = {}

    def exchange(self, index: int, number: int, value: Any) -> list[Any]:
        """Return what every rank brings to a round, in their order."""
        while len(self.rounds) <= number:
            self.rounds.append({})
        here = self.rounds[number]
        here[index] = value
        self.turn.notify_all()
        while len(here) < self.count:
            if self.lost or not self.turn.wait(timeout=60):
                raise RuntimeError("a rank has ended")
        return [here[each] for each in range(self.count)]


class ThreadRanks(Ranks):
    """A rank that is a thread."""

    def __init__(self, index: int, meeting: _Meeting) -> None:
        super().__init__(index, meeting.count)
        self._meeting, self._round, self._boards = meeting, 0, 0

    def _exchange(self, value: Any) -> list[Any]:
        self._round += 1
        return self._meeting.exchange(self.index, self._round - 1, value)

    def sum_(self, *tensors: Tensor) -> None:
        for tensor in tensors:
            tensor.copy_(torch.stack(self._exchange(tensor.clone())).sum(0))

    def any(self, *flags: bool) -> tuple[bool, ...]:
        return tuple(map(any, zip(*self._exchange(flags), strict=True)))

    def board(self) -> Board:
        self._boards += 1
        return self._meeting.boards.setdefault(self._boards, Board())

    def _gathered(self, data: bytes) -> list[bytes]:
        return self._exchange(data)


def side_by_side(count: int, run: Callable[[Ranks], T]) -> list[T]:
    """Run a function as every rank of a group, and return the results in their order.

    Raises:
        Exception: the first that a rank raised.
    """
    meeting = _Meeting(count)
    results: dict[int, T] = {}
    failures: list[BaseException] = []

    def enter(index: int) -> None:
        with meeting.turn:
            try:
                results[index] = run(ThreadRanks(index, meeting))
            except BaseException as failure:
                failures.append(failure)
                meeting.lost = True
                meeting.turn.notify_all()

    threads = [threading.Thread(target=enter, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [results[index] for index in range(count)]
