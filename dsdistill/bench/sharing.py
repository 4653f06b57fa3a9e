"""Who works in the folder of a suite: one process alone, or several, on one machine or on many.

Alone, a process locks the folder. Sharing it, each takes part by a claim of its own, and claims every cell
and every training of experts before it begins them (`dsdistill.files.claims`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from dsdistill import files
from dsdistill.bench.cells import Cell
from dsdistill.bench.expert_set import ExpertSet
from dsdistill.errors import UserError

_RENEWAL = 30.0
"""Seconds between two renewals of claims."""

_PATIENCE = 20.0
"""Seconds that taking part waits for another process which does so at the same moment."""

_PART = "taking part: "
"""Before the names of those who take part, among the claims of cells."""

locks: list[int] = []
"""Open locks, which commands inherit: one that outlives us keeps its folder locked."""


class Claimed:
    """What one process of several has claimed; one that is alone has everything."""

    def __init__(self, claims: files.Claims | None) -> None:
        self._claims = claims
        self._renewed = time.monotonic()

    @property
    def alone(self) -> bool:
        """Whether no other process may work here."""
        return self._claims is None

    def take(self, name: str) -> bool:
        """Claim a cell or experts; False if another process has them."""
        return self._claims is None or self._claims.take(name)

    def free(self, name: str) -> None:
        """Give up a cell or experts."""
        if self._claims:
            self._claims.free(name)

    def lost(self) -> list[str]:
        """Renew the claims when it is time; return what others have taken over meanwhile."""
        if self._claims is None or time.monotonic() - self._renewed < _RENEWAL:
            return []
        self._renewed = time.monotonic()
        return self._claims.renew()


@contextlib.contextmanager
def working(folder: Path, cells: Sequence[Cell], shared: bool) -> Iterator[Claimed]:
    """Work in the folder of a suite, alone or beside others.

    Args:
        folder: it exists.
        cells: of the whole suite as it is now, by which those who share know one another.
        shared: whether others may work here.

    Raises:
        UserError: another process works here alone; or others share the folder, and this one does not mean
            to share it, or has another suite.
    """
    claims = files.Claims(folder / ".claims")
    if not shared:
        with _alone(folder):
            for name, owner, _ in claims.others():
                raise UserError(
                    f"{owner} works in {folder} ({name.removeprefix(_PART)}): pass --shared to work beside "
                    "it, or choose another folder with -o"
                )
            yield Claimed(None)
        return
    with _entering(folder):
        digest = _digest(cells)
        for name, owner, note in claims.others():
            if name.startswith(_PART) and note != digest:
                raise UserError(
                    f"{owner} works in {folder} on a suite of other cells or settings: give all machines the "
                    "same suite, or choose another folder with -o"
                )
        claims.take(f"{_PART}{socket.gethostname()} {os.getpid()}", digest)
    try:
        yield Claimed(claims)
    finally:
        claims.free_all()


@contextlib.contextmanager
def _entering(folder: Path) -> Iterator[None]:
    """Lock a folder for a moment, as others do who enter it at the same time.

    Raises:
        UserError: another process works here alone.
    """
    since = time.monotonic()
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(files.hold(folder, "another suite", inside=True))
                break
            except UserError:
                if time.monotonic() - since > _PATIENCE:
                    raise
                time.sleep(0.1)
        yield


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep two suites from working in one folder.

    Raises:
        UserError: another one does, or a command that it left running.
    """
    with files.hold(folder, "another suite", inside=True) as lock:
        if lock >= 0:
            locks.append(lock)
        try:
            yield
        finally:
            if lock in locks:
                locks.remove(lock)


def _digest(cells: Sequence[Cell]) -> str:
    """Return a digest of all settings of a suite's cells and of the experts they need."""
    jobs: list[Cell | ExpertSet] = [*cells, *(each for cell in cells for each in cell.needs)]
    settings = {job.name: job.settings() for job in jobs}
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def part_of(cells: Sequence[Cell], shard: str) -> list[Cell]:
    """Return the part of a suite's cells that a shard names: "2/4" is every fourth one, from the second on.

    Raises:
        UserError: it is no shard.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise UserError(f"--shard takes a part such as 2/4, the second of four, not {shard!r}")
    if count > len(cells):
        raise UserError(
            f"{len(cells)} cells are too few for {count} parts: pass --shard I/N with a smaller N"
        )
    return list(cells[number - 1 :: count])
