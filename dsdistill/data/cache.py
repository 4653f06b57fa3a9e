"""The cache of what takes long to prepare: decoded pictures and headers, whitening matrices, small networks.

Each file ends in a digest of its content, which is compared whenever the file is read: what a disk or a
program has changed is made anew. A file of gigabytes is compared once a month if nothing has touched it.
Files that were not used for half a year are deleted when others are written.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dsdistill.errors import UserError
from dsdistill.files import open_regular, read, reason, replace, replacing, sweep
from dsdistill.runtime.notice import Notify

_DIGEST = hashlib.sha256().digest_size
_UNUSED = 180 * 24 * 3600
"""Seconds after which a file that nothing has read is deleted."""
_TRUSTED = 30 * 24 * 3600
"""Seconds after which a file is verified anew that nothing has touched."""
_ABANDONED = 24 * 3600
"""Seconds after which a temporary file that nobody has changed is deleted; a cache may be shared."""
_OURS = re.compile(r"[0-9a-f]{32}(-[13]x\d+)?\.(json|npy|zca|safetensors|verified|index)")
"""The names of the cache's files, those of earlier versions included."""


@contextmanager
def caching(path: Path, verify: Callable[[BinaryIO], None]) -> Iterator[BinaryIO]:
    """Open a file of the cache for writing, as `replacing` does; its folder is made if it is missing.

    Raises:
        UserError: the disk is full or the folder cannot be written; those of the block are passed on.
    """
    inside: UserError | None = None
    try:
        _prepare(path)
        with replacing(path, verify) as file:
            try:
                yield file
            except UserError as error:
                inside = error
                raise
    except UserError as error:
        if error is inside:
            raise
        raise _cannot_write(error) from error


def store(path: Path, data: bytes) -> None:
    """Write a file of the cache, with the digest of its content.

    Raises:
        UserError: as `caching`.
    """
    try:
        _prepare(path)
        replace(path, data + hashlib.sha256(data).digest())
    except UserError as error:
        raise _cannot_write(error) from error


def _cannot_write(error: UserError) -> UserError:
    return UserError(f"the cache: {error}; free space there or set DSDISTILL_CACHE")


def recall(path: Path, notify: Notify) -> bytes | None:
    """Read what `store` wrote; None if there is nothing, or what is there is damaged.

    Args:
        notify: receives a sentence about a file that is damaged.
    """
    try:
        content = read(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        notify(damaged(path, reason(error)))
        return None
    if not _is_whole(memoryview(content)):
        notify(damaged(path))
        return None
    used(path)
    return content[:-_DIGEST]


def mapped_content(path: Path) -> memoryview | None:
    """Return what `store` wrote, which is not read into memory; None if it is damaged.

    Raises:
        OSError: there is no such file, or it cannot be read.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size < _DIGEST:
            return None
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    if not _is_whole(content):
        return None
    used(path)
    return content[:-_DIGEST]


def _is_whole(content: memoryview) -> bool:
    """Whether the digest at the end is that of what comes before it."""
    return hashlib.sha256(content[:-_DIGEST]).digest() == content[-_DIGEST:]


def damaged(path: Path, why: str = "its content does not match its digest") -> str:
    """Say that a file of the cache cannot be used."""
    return f"the cache file {path} is damaged ({why}): it is made anew"


def used(path: Path) -> None:
    """Note that a file of the cache is of use."""
    with contextlib.suppress(OSError):  # of another user, or on a read-only disk
        os.utime(path)


def is_verified(path: Path) -> bool:
    """Whether a file was verified within a month, and nothing has touched it since."""
    try:
        stat = os.stat(path)
        return 0 <= time.time() - stat.st_mtime < _TRUSTED and read(_note_of(path)) == _state(stat)
    except OSError:
        return False


def note_verified(path: Path) -> None:
    """Note that a file, which is `used`, has the content that its digest says."""
    with contextlib.suppress(OSError, UserError):  # it is verified anew the next time
        replace(_note_of(path), _state(os.stat(path)))


def _note_of(path: Path) -> Path:
    return path.with_suffix(".verified")


def _state(stat: os.stat_result) -> bytes:
    """Return what changes with every change of a file: a program can set its time, but not all of these."""
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}".encode()


def _prepare(path: Path) -> None:
    """Make a file's folder, or tidy it: delete what killed processes left and what is long unused."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write the cache file {path}: {reason(error)}") from error
    sweep(path.parent, unused=_ABANDONED)
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if _OURS.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > _UNUSED:
                os.unlink(entry.path)
