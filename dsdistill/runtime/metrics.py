"""The log of a run, ``metrics.jsonl``: an object per line. It is only a log: what is damaged is left out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from dsdistill import files
from dsdistill.errors import UserError

_LONGEST = 1 << 16  # bytes of a line


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries that are whole, a line in memory at a time; nothing where there is no log.

    Each has a whole number ``iteration``.
    """
    with contextlib.suppress(OSError), files.open_regular(path) as log:
        while line := log.readline(_LONGEST):
            if entry := _parse(line):
                yield entry


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None  # a line cut short by a kill, or damaged
    whole = isinstance(entry, dict) and type(entry.get("iteration")) is int
    return entry if whole else None


def trim(path: Path, iteration: int) -> None:
    """Delete the entries after an iteration, and all that are damaged.

    Raises:
        UserError: the log cannot be written.
    """
    with files.replacing(path) as kept:
        for entry in read(path):
            if entry["iteration"] <= iteration:
                kept.write(_line(entry))


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


class MetricsLog:
    """A log that is open for new entries. Each is written at once, so that closing cannot fail."""

    def __init__(self, path: Path) -> None:
        """Open it at its end.

        Raises:
            UserError: it cannot be written.
        """
        self._path = path
        files.check_target(path)
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise self._failure(error) from error

    def add(self, entry: dict[str, Any]) -> None:
        """Write an entry.

        Raises:
            UserError: the disk is full or has failed.
        """
        line = _line(entry)
        try:
            while line:  # a disk that gets full takes a part of it first
                line = line[self._file.write(line) :]
        except OSError as error:
            raise self._failure(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._file.close()

    def _failure(self, error: OSError) -> UserError:
        return UserError(f"cannot write {self._path}: {files.reason(error)}")


class NoLog(MetricsLog):
    """The log of a process that writes none."""

    def __init__(self) -> None:
        """Open nothing."""

    def add(self, entry: dict[str, Any]) -> None:
        """Write nothing."""

    def __exit__(self, *_: object) -> None:
        """Close nothing."""
