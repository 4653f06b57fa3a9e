"""What the processes that share a run tell one another without waiting: sums, words, and of an end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dsdistill.errors import UserError

if TYPE_CHECKING:
    from torch.distributed import Store

_STOPPED = "stopped"
_PIECE = 1 << 20
"""Bytes of a word that a store takes at once."""


class RankLost(UserError):
    """Another process of the run has ended, or cannot be reached."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(
            "another process of this run has ended, and the run with it: --resume goes on from what is "
            "saved, with any number of processes; torchrun --max-restarts=N does so by itself"
        )
        self.cause = cause


@contextmanager
def lost() -> Iterator[None]:
    """Turn a failure of a collective into a sentence."""
    try:
        yield
    except RuntimeError as error:
        raise RankLost(error) from error


class Board:
    """Where the ranks that share a piece of work leave word for one another; nobody waits for anybody.

    This one is of a single process.
    """

    def __init__(self) -> None:
        self._sums: dict[str, int] = {}
        self._words: dict[str, bytes] = {}

    def add(self, name: str, amount: int) -> int:
        """Add to a number, and return what all ranks have added to it so far.

        Raises:
            RankLost: the rank that keeps the board has ended.
        """
        self._sums[name] = self._sums.get(name, 0) + amount
        return self._sums[name]

    def post(self, name: str, word: bytes) -> None:
        """Leave something for the others, once; raises as `add`."""
        self._words[name] = word

    def read(self, name: str) -> bytes | None:
        """Return what a rank has left under a name, or None; raises as `add`."""
        return self._words.get(name)

    @property
    def is_stopped(self) -> bool:
        """Whether a rank has left `stops_others` by an exception; raises as `add`."""
        return self.read(_STOPPED) is not None

    @contextmanager
    def stops_others(self) -> Iterator[None]:
        """Have the others know if what is inside ends by an exception, so that they end soon."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(RankLost):
                self.post(_STOPPED, b"")
            raise


class Tally:
    """How much of a piece of work all ranks have done."""

    def __init__(self, board: Board, name: str = "done") -> None:
        """Begin at nothing.

        Args:
            board: of the ranks.
            name: of the work.
        """
        self._board, self._name, self._own = board, name, 0

    def total(self, own: int) -> int:
        """Return how much is done, of which this rank has done ``own`` by now.

        Raises:
            RankLost: the rank that keeps the board has ended.
        """
        before, self._own = self._own, own
        return self._board.add(self._name, own - before)


class SharedBoard(Board):
    """A board that a store of torch.distributed keeps."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, name: str, amount: int) -> int:
        with lost():
            return self._store.add(f"sum {name}", amount)

    def post(self, name: str, word: bytes) -> None:
        pieces = [word[place : place + _PIECE] for place in range(0, len(word), _PIECE)]
        with lost():
            for number, piece in enumerate(pieces):
                self._store.set(f"{name} {number}", piece)  # type: ignore[arg-type]
            self._store.set(name, str(len(pieces)))

    def read(self, name: str) -> bytes | None:
        with lost():
            if not self._store.check([name]):
                return None
            pieces = range(int(self._store.get(name)))
            return b"".join(self._store.get(f"{name} {number}") for number in pieces)
