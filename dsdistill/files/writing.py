"""Write files and folders atomically: a reader sees the old content or the new, never a part of it.

The new content goes to a temporary file in the same folder, hidden and with the suffix ``.part``. It is
written to the disk, read back, and renamed. A kill leaves the temporary file; `sweep` deletes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dsdistill.errors import UserError
from dsdistill.files.checks import check_new_folder, check_target, reason
from dsdistill.files.locks import try_lock

_BLOCK = 1 << 20
_PART = ".part"


def replace(path: str | Path, data: bytes | memoryview) -> None:
    """Write ``data`` at ``path``, durably, verified and atomically.

    A link is followed, so it remains a link. A replaced file passes on its permissions and its owner.

    Raises:
        UserError: the file cannot be written (no such folder, no permission, disk full, write-protected, a
            device).
    """

    def verify(written: BinaryIO) -> None:
        rest = memoryview(data).cast("B")
        while block := written.read(_BLOCK):
            if block != rest[: len(block)]:
                raise OSError(errno.EIO, _CHANGED)
            rest = rest[len(block) :]
        if len(rest):
            raise OSError(errno.EIO, _CHANGED)

    with replacing(path, verify) as file:
        file.write(data)


_CHANGED = "it reads back otherwise than it was written; the disk may be failing"


@contextmanager
def replacing(path: str | Path, verify: Callable[[BinaryIO], None] | None = None) -> Iterator[BinaryIO]:
    """Open a temporary file that is renamed to ``path`` when the block ends, or removed if it fails.

    For files that are too large to write at once. The file can also be read and sought.

    Args:
        verify: reads the finished file before it is renamed, from the disk where the system allows it; it
            raises OSError or UserError if that is not what was written.

    Raises:
        UserError: as `replace`; errors of the block that are no OSError are passed on.
    """
    target = Path(os.path.realpath(path))
    check_target(path)
    part = _neighbour(target)
    try:
        with _created(part) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if verify:
                _forget(file)
                with open(part, "rb") as written:
                    verify(written)
            _pass_on(target, file)
            os.replace(part, target)
            _sync_folder(target.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason(error)}") from error
    finally:
        _remove(part)


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Create a folder atomically: yield a temporary one, which is renamed to ``folder`` at the end.

    Raises:
        UserError: ``folder`` is a file, is not empty or cannot be written.
    """
    target = Path(folder).absolute()
    check_new_folder(folder)
    part = _neighbour(target)
    try:
        part.mkdir()
        with _locked(part):
            yield part
            for file in part.rglob("*"):
                _sync(file)
            with contextlib.suppress(FileNotFoundError):
                target.rmdir()
            os.rename(part, target)
            _sync_folder(target.parent)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {reason(error)}") from error
    finally:
        _remove(part)


def sweep(path: str | Path) -> int:
    """Delete what killed processes left of one output, or of all outputs in a folder.

    Temporary files that a living process writes are kept.

    Args:
        path: of the output; of a folder, what lies directly in it is swept as well.

    Returns:
        bytes freed.
    """
    target = Path(os.path.realpath(path))
    found = list(_leftovers(target.parent, _stem(target)))
    if target.is_dir():
        found += _leftovers(target, "")
    freed = 0
    for part in found:
        with contextlib.suppress(OSError):
            size = part.stat().st_size
            if _is_abandoned(part):
                _remove(part)
                freed += size
    return freed


def _leftovers(folder: Path, stem: str) -> Iterator[Path]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            fits = (
                name.startswith(f".{stem}") and len(name) == len(f".{stem}.01234567{_PART}") if stem else True
            )
            if fits and is_temporary(name) and not entry.is_symlink():
                yield folder / name


def is_temporary(name: str) -> bool:
    """Whether a file name is one of this module's temporary ones.

    >>> is_temporary(".set.h5.0a1b2c3d.part"), is_temporary("set.h5")
    (True, False)
    """
    token = name.removesuffix(_PART)[-8:]
    return name.startswith(".") and name.endswith(_PART) and set(token) <= set("0123456789abcdef")


def _stem(target: Path) -> str:
    """Return what the names of a file's temporary neighbours begin with: its name, cut if it is long."""
    return os.fsencode(target.name)[:200].decode(errors="ignore")


def _neighbour(target: Path) -> Path:
    return target.with_name(f".{_stem(target)}.{secrets.token_hex(4)}{_PART}")


@contextmanager
def _created(part: Path) -> Iterator[BinaryIO]:
    """Create a file for writing and reading. It is locked, so that `sweep` knows that it is alive."""
    with open(part, "x+b") as file:
        with contextlib.suppress(OSError):
            try_lock(file.fileno())
        yield file


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    if os.name == "nt":  # pragma: no cover - folders cannot be opened there
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            try_lock(handle)
        yield
    finally:
        os.close(handle)


def _is_abandoned(part: Path) -> bool:
    if os.name == "nt":  # pragma: no cover - deleting an open file fails there
        return True
    handle = os.open(part, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return try_lock(handle)
    finally:
        os.close(handle)


def _pass_on(target: Path, file: BinaryIO) -> None:
    """Give a new file the permissions and the owner of the one that it replaces."""
    if os.name == "nt":  # pragma: no cover
        return
    try:
        old = target.stat()
    except FileNotFoundError:
        return
    with contextlib.suppress(PermissionError):  # only root may give a file away
        os.fchown(file.fileno(), old.st_uid, old.st_gid)
    os.fchmod(file.fileno(), old.st_mode & 0o7777)


def _forget(file: BinaryIO) -> None:
    """Ask the system to drop a file's pages from memory, so that it is read from the disk."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable by writing the folder's entry to the disk."""
    if os.name == "posix":
        _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(part: Path) -> None:
    """Delete a temporary file or folder; none is there after a rename."""
    with contextlib.suppress(OSError):
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)
