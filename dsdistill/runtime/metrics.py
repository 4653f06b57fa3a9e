"""The log of a run, ``metrics.jsonl``: an object per line. It is only a log: what is damaged is left out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

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
    """A log that is open for writing. Entries are on the way to the disk after `flush`."""

    def __init__(self, path: Path) -> None:
        """Open it at its end.

        Raises:
            UserError: it cannot be written.
        """
        self._path = path
        files.check_target(path)
        with self._telling():
            self._file: BinaryIO = open(path, "ab")  # noqa: SIM115 - until `__exit__`

    def write(self, entry: dict[str, Any]) -> None:
        """Add an entry; raises as `flush`."""
        with self._telling():
            self._file.write(_line(entry))

    def flush(self) -> None:
        """Hand all entries to the system.

        Raises:
            UserError: the log cannot be written: the disk is full, say.
        """
        with self._telling():
            self._file.flush()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._telling() if error is None else contextlib.suppress(OSError):
            self._file.close()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write {self._path}: {files.reason(error)}; make room, then --resume goes on"
            ) from error
