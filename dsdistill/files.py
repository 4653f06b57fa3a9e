"""Write files and folders atomically: a reader sees the old content or the new, never a part of it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dsdistill.errors import UserError


def replace(path: str | Path, data: bytes | memoryview) -> None:
    """Write ``data`` at ``path``, durably and atomically: temporary file in the same folder, fsync, rename.

    A link is followed, so it remains a link.

    Raises:
        UserError: the file cannot be written (no such folder, no permission, disk full).
    """
    target = Path(os.path.realpath(path))
    part = temporary_neighbour(target)
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
        sync_folder(target.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason(error)}") from error
    finally:
        part.unlink(missing_ok=True)


def temporary_neighbour(path: Path) -> Path:
    """Return a temporary path in the folder of ``path``, so that a file there can be renamed to ``path``."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def check_folder(path: str | Path) -> None:
    """Check that a new file or folder can be created at ``path``, by a temporary file in its folder.

    Raises:
        UserError: the parent is missing, is not a folder or cannot be written to.
    """
    folder = Path(path).absolute().parent
    if not folder.exists():
        raise UserError(f"the folder {folder} does not exist; make it first: mkdir -p {folder}")
    if not folder.is_dir():
        raise UserError(f"{folder} is a file, so nothing can be written inside it; choose another place")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"cannot write in {folder}: {reason(error)}; choose another place") from error


def check_replaceable(path: str | Path, suffix: str) -> None:
    """Check that writing to ``path`` replaces at most an earlier file of the same kind.

    Raises:
        UserError: ``path`` is a folder, or a file with another suffix, such as a distilled set.
    """
    path = Path(path)
    if path.is_dir() or (path.exists() and path.suffix.lower() != suffix):
        raise UserError(f"{path} exists and is no {suffix} file; choose another name")


def reason(error: BaseException) -> str:
    """Return in one line why an operation failed, in the words of the system if it has any."""
    message = error.strerror if isinstance(error, OSError) else None
    if isinstance(error, KeyError) and error.args:  # its str() adds quotes
        message = str(error.args[0])
    return (message or str(error) or type(error).__name__).splitlines()[0]


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Lock ``folder`` against other processes that use this function (advisory; POSIX only).

    For read-change-replace, in which two writers at once would lose a change. The lock is on the folder,
    because a lock on the file would stay with the old file when it is replaced.
    """
    if os.name != "posix":
        yield
        return
    import fcntl

    with contextlib.ExitStack() as stack:
        # A missing folder is reported by the caller's own reading; some file systems cannot lock.
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def sync_folder(folder: Path) -> None:
    """Make a rename durable by writing the folder's entry to the disk."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that is renamed to ``path`` when the block ends, or removed if it fails.

    For files that are too large to write at once. The folder is created if it is missing.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    part = temporary_neighbour(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise UserError(
            f"cannot write the cache file {path}: {reason(error)}; free space there or set DSDISTILL_CACHE"
        ) from error
    finally:
        if part.parent.is_dir():
            part.unlink(missing_ok=True)


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Create a folder atomically: yield a temporary one, which is renamed to ``folder`` at the end.

    Raises:
        UserError: ``folder`` is a file, is not empty or cannot be written.
    """
    target = Path(folder).absolute()
    check_folder(target)
    if target.exists() and not (target.is_dir() and next(target.iterdir(), None) is None):
        raise UserError(f"{folder} exists and is not an empty folder; choose another name")
    part = temporary_neighbour(target)
    try:
        part.mkdir()
        yield part
        with contextlib.suppress(FileNotFoundError):
            target.rmdir()
        os.rename(part, target)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {reason(error)}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
