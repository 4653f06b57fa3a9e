"""Lists of many picture files, kept so that a later run need not look at each of them.

A list is taken as it was kept if none of its folders has changed, nor any file of a sample: to add, remove,
move or replace a file changes its folder. Bytes that are written into a picture without replacing it do not,
so lists of fewer files than `MANY` are never kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dsdistill.data.cache import mapped_content, store
from dsdistill.data.pictures import suffixes
from dsdistill.errors import UserError
from dsdistill.files import cache_folder, reason
from dsdistill.runtime.notice import Progress, silent

MANY = 50_000
"""Files from which on a list is kept."""
_SAMPLE = 1000
_SETTLED_NS = 2 * 10**9
"""A folder that changed so lately is not relied on: it may change again in the same tick of a clock."""
_REPORTED = 1000  # files after which progress is reported
_VERSION = 1

State = tuple[int, int, int, int]
"""What changes with every change of a folder: times, device and inode."""


class IndexedPaths(Sequence[Path]):
    """The paths of files, and the state in which each was found."""

    def __init__(self, lines: memoryview, ends: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Take what was found.

        Args:
            lines: of all files: path, a zero byte, and the state of the file.
            ends: int64, where each line ends.
            rows: int64 [n], the numbers of the lines that are listed.
        """
        self._lines, self._ends, self._rows = lines, ends, rows

    @classmethod
    def of(cls, lines: memoryview, ends: NDArray[np.int64]) -> IndexedPaths:
        """List all files."""
        return cls(lines, ends, np.arange(len(ends)))

    @classmethod
    def of_bytes(cls, content: memoryview, count: int) -> IndexedPaths:
        """List all of so many files, from what `to_bytes` returned."""
        ends = np.frombuffer(content, np.int64, count)
        return cls.of(content[ends.nbytes :], ends)

    def to_bytes(self) -> bytes:
        """Return what `of_bytes` takes, of all files."""
        return self._ends.tobytes() + self._lines

    def part(self, positions: Tensor) -> IndexedPaths:
        """List some of the files: those at some positions, int64 [n]."""
        return IndexedPaths(self._lines, self._ends, self._rows[positions.numpy()])

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> list[Path]: ...
    def __getitem__(self, index: int | slice) -> Path | list[Path]:
        if isinstance(index, slice):
            return [self._path(row) for row in self._rows[index].tolist()]
        return self._path(int(self._rows[index]))

    def lines(self) -> Iterator[memoryview]:
        """Yield the line of each file; of all files, several at once."""
        if len(self._rows) == len(self._ends):
            yield self._lines
        else:
            yield from map(self.line, range(len(self._rows)))

    def line(self, position: int) -> memoryview:
        """Return the line of one file."""
        return self._line(int(self._rows[position]))

    def _line(self, row: int) -> memoryview:
        return self._lines[int(self._ends[row - 1]) if row else 0 : int(self._ends[row])]

    def _path(self, row: int) -> Path:
        path, _, _ = bytes(self._line(row)).rpartition(b"\0")
        return Path(os.fsdecode(path))


def line_of(path: str | Path, here: str) -> bytes:
    """Return the path of a file and its state: size, times and inode.

    A program can set the time of the last change of the content, but neither the inode nor the time of the
    last change of any kind.

    Args:
        path: of the file.
        here: the folder that it is relative to.

    Raises:
        UserError: there is no such file.
    """
    try:
        stat = os.stat(path)
    except OSError as error:
        raise UserError(f"cannot read {path} ({reason(error)}); mend or delete it") from error
    state = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
    return os.fsencode(os.path.join(here, path)) + f"\0{state}\n".encode()


def indexed(paths: Sequence[Path], what: str = "", progress: Progress = silent) -> IndexedPaths:
    """Look at each of many files.

    Args:
        paths: of the files.
        what: the name of the work.
        progress: hears of it.

    Raises:
        UserError: a file is gone.
    """
    here, lines = os.getcwd(), list[bytes]()
    for number, path in enumerate(paths):
        if number % _REPORTED == 0:
            progress(what, number, len(paths))
        lines.append(line_of(path, here))
    progress(what, len(paths), len(paths))
    ends = np.cumsum([len(line) for line in lines], dtype=np.int64)
    return IndexedPaths.of(memoryview(b"".join(lines)), ends)


@dataclass(frozen=True, eq=False)
class Contents:
    """What a folder of class folders holds.

    Attributes:
        paths: of the pictures, class by class.
        counts: pictures of each class.
        passed_over: what else is there, in words.
    """

    classes: tuple[str, ...]
    paths: Sequence[Path]
    counts: tuple[int, ...]
    passed_over: str


def recalled(folder: Path, classes: Sequence[str] | None) -> Contents | None:
    """Return what was kept of a folder; None if nothing was, or something has changed.

    Args:
        folder: of class folders.
        classes: the folders that are listed; None for all.
    """
    try:
        content = mapped_content(_file(folder, classes))
    except OSError:
        return None
    if content is None:
        return None
    head_bytes = int.from_bytes(content[:8], "little")
    head = json.loads(bytes(content[8 : 8 + head_bytes]))
    paths = IndexedPaths.of_bytes(content[8 + head_bytes :], sum(head["counts"]))
    if not _is_as_it_was(head["folders"], paths):
        return None
    return Contents(tuple(head["classes"]), paths, tuple(head["counts"]), head["passed_over"])


def keep(
    folder: Path, classes: Sequence[str] | None, contents: Contents, states: dict[str, State], since: int
) -> None:
    """Keep what a folder holds, unless it may have changed since it was looked at.

    Args:
        folder, classes: as `recalled` takes them.
        contents: its paths are indexed.
        states: of all folders that were looked into, by path.
        since: when that began, in nanoseconds.
    """
    assert isinstance(contents.paths, IndexedPaths)
    if any(since - max(times) < _SETTLED_NS for *times, _, _ in states.values()):
        return
    head = {
        "classes": contents.classes,
        "counts": contents.counts,
        "passed_over": contents.passed_over,
        "folders": states,
    }
    written = json.dumps(head).encode()
    written += b" " * (-len(written) % 8)  # so that the numbers behind it are aligned
    index_bytes = len(written).to_bytes(8, "little") + written + contents.paths.to_bytes()
    try:
        store(_file(folder, classes), index_bytes)
    except UserError:  # a cache that cannot be written is said where the pixels go
        return


def state_of(folder: str | Path) -> State:
    """Return the state of a folder.

    Raises:
        OSError: it cannot be looked at.
    """
    stat = os.stat(folder)
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_dev, stat.st_ino


def now() -> int:
    """Return the time in nanoseconds, as files have it."""
    return time.time_ns()


def _is_as_it_was(folders: dict[str, Iterable[int]], paths: IndexedPaths) -> bool:
    """Whether no folder has changed, and no file of a sample."""
    step = max(1, len(paths) // _SAMPLE)
    try:
        return all(tuple(state) == state_of(folder) for folder, state in folders.items()) and all(
            line_of(paths[place], "") == paths.line(place) for place in range(0, len(paths), step)
        )
    except (OSError, UserError):
        return False


def _file(folder: Path, classes: Sequence[str] | None) -> Path:
    class_names = None if classes is None else list(classes)
    name = json.dumps([_VERSION, sorted(suffixes()), os.path.abspath(folder), class_names])
    key = hashlib.sha256(name.encode()).hexdigest()
    return cache_folder() / "pictures" / f"{key[:32]}.index"
