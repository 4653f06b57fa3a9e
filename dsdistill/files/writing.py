"""Write files and folders atomically: a reader sees the old content or the new, never a part of it.

The new content goes to a temporary file in the same folder, hidden and with the suffix ``.part``. It is
written to the disk, read back, and renamed. A kill leaves the temporary file; `sweep` deletes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dsdistill.errors import UserError
from dsdistill.files import locks
from dsdistill.files.checks import check_folder, check_new_folder, check_target, reason
from dsdistill.files.locks import is_at, try_lock

_BLOCK = 1 << 20
_PART = ".part"


def replace(path: str | Path, data: bytes | memoryview, *more: bytes | memoryview) -> None:
    """Write ``data`` at ``path``, and ``more`` after it, durably, verified and atomically.

    A link is followed, so it remains a link. A replaced file passes on its permissions and its owner.

    Raises:
        UserError: the file cannot be written (no such folder, no permission, disk full, write-protected, a
            device).
    """

    with replacing(path, lambda written: _compare(written, data, *more)) as file:
        for part in (data, *more):
            file.write(part)


def write_new(path: str | Path, data: bytes | memoryview) -> None:
    """Write a file of a `new_folder`, durably and verified; the folder appears when all its files are there.

    Raises:
        UserError: the file cannot be written, or there is one.
    """
    try:
        with open(path, "xb") as file:
            file.write(data)
            _settle(file, Path(path), lambda written: _compare(written, data))
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason(error)}") from error


def make_folder(path: str | Path, parents: bool = False) -> None:
    """Make a folder, unless it is there.

    Args:
        parents: make those above it too.

    Raises:
        UserError: as `check_folder`; or there is a file.
    """
    if parents and not (above := Path(path).absolute().parent).is_dir():
        make_folder(above, parents=True)
    try:
        os.mkdir(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise UserError(f"{path} is a file, not a folder; choose another name") from None
    except OSError as error:
        check_folder(path)
        raise UserError(f"cannot write {path}: {reason(error)}") from error


def remove(path: str | Path) -> None:
    """Delete a file, or a folder with all that is in it, unless it is gone.

    Raises:
        UserError: it cannot be deleted.
    """
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UserError(f"cannot delete {path}: {reason(error)}") from error


def mismatch() -> OSError:
    """Return the error of a file that does not read back as it was written."""
    return OSError(errno.EIO, "it reads back otherwise than it was written; the disk may be failing")


def _compare(written: BinaryIO, *data: bytes | memoryview) -> None:
    """Check that a file holds these bytes, one part after the other, from here to its end."""
    for part in filter(len, data):  # an empty one cannot be cast
        rest = memoryview(part).cast("B")
        while len(rest):
            block = written.read(min(_BLOCK, len(rest)))
            if not block or block != bytes(rest[: len(block)]):
                raise mismatch()
            rest = rest[len(block) :]
    if written.read(1):
        raise mismatch()


def _settle(file: BinaryIO, path: Path, verify: Callable[[BinaryIO], None] | None) -> None:
    """Bring a file to the disk, and read it from there."""
    file.flush()
    os.fsync(file.fileno())
    if verify:
        _forget(file)
        with open(path, "rb") as written:
            verify(written)


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
        with _created(part, target) as file:
            yield file
            _settle(file, part, verify)
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
    sweep(target)
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


@contextmanager
def set_aside(path: str | Path) -> Iterator[None]:
    """Move a file or a folder out of the way of a new one.

    It is deleted when the block ends, and comes back if the block fails.

    Raises:
        UserError: it cannot be moved.
    """
    target = Path(path).absolute()
    aside = _neighbour(target)
    try:
        os.rename(target, aside)
    except OSError as error:
        raise UserError(f"cannot replace {path}: {reason(error)}") from error
    try:
        yield
    except BaseException:
        os.rename(aside, target)
        raise
    _remove(aside)


@contextmanager
def hold_outputs(
    paths: Sequence[Path], work: str, dry: bool = False, wait: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Keep other processes from the outputs of a run, and clear them of what a kill has left.

    Args:
        paths: the files and folders that it writes.
        work: what runs, as for `hold`.
        dry: nothing is written, so that nothing has to be kept.
        wait: as for `hold`.

    Raises:
        UserError: another process writes one of them.
    """
    if dry:
        yield
        return
    with contextlib.ExitStack() as stack:
        for path in paths:
            stack.enter_context(locks.hold(path, work, wait=wait))
        for path in paths:
            sweep(path)
        yield


def sweep(path: str | Path, unused: float = 0.0) -> int:
    """Delete what killed processes left of one output, or of all outputs in a folder.

    Temporary files that a living process writes are kept, and so are its locks.

    Args:
        path: of the output; of a folder, what lies directly in it is swept as well.
        unused: seconds for which a temporary file must not have changed. In a folder that machines share, on
            a file system that locks for each of them apart, the file of a living process seems abandoned.

    Returns:
        bytes freed.
    """
    target = Path(os.path.realpath(path))
    parts = list(_leftovers(target.parent, _stem(target)))
    if target.is_dir():
        parts += _leftovers(target, "")
    freed = 0
    for part in parts:
        with contextlib.suppress(OSError):
            status = part.stat()
            if time.time() - status.st_mtime >= unused and _is_abandoned(part):
                _remove(part)
                freed += status.st_size
    locks.clear(path)
    return freed


def _leftovers(folder: Path, stem: str) -> Iterator[Path]:
    """Yield the temporary files in a folder: of the output with this stem, or of all where it is empty."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _TEMPORARY.fullmatch(entry.name)
            if match and stem in ("", match["stem"]) and not entry.is_symlink():
                yield folder / entry.name


_TEMPORARY = re.compile(r"\.(?P<stem>.+)\.[0-9a-f]{8}\.part", re.DOTALL)


def is_temporary(name: str) -> bool:
    """Whether a file name is one of this module's temporary ones.

    >>> is_temporary(".set.h5.0a1b2c3d.part"), is_temporary("set.h5")
    (True, False)
    """
    return _TEMPORARY.fullmatch(name) is not None


def is_empty(folder: str | Path) -> bool:
    """Whether a folder holds nothing but temporary files, which a killed process left.

    Raises:
        UserError: it is no folder, or cannot be read.
    """
    try:
        return all(map(is_temporary, os.listdir(folder)))
    except OSError as error:
        raise UserError(f"cannot read {folder}: {reason(error)}") from error


def _stem(target: Path) -> str:
    """Return what the names of a file's temporary neighbours begin with: its name, cut if it is long."""
    return os.fsencode(target.name)[:200].decode(errors="ignore")


def _neighbour(target: Path) -> Path:
    return target.with_name(f".{_stem(target)}.{secrets.token_hex(4)}{_PART}")


@contextmanager
def _created(part: Path, target: Path) -> Iterator[BinaryIO]:
    """Create a file for writing and reading, which nobody can read who cannot read its target.

    It is locked, so that `sweep` knows that it is alive.
    """
    try:
        mode = target.stat().st_mode & 0o777 | 0o600
    except OSError:
        mode = 0o666
    while True:
        with open(part, "x+b", opener=lambda path, flags: os.open(path, flags, mode)) as file:
            with contextlib.suppress(OSError):
                try_lock(file.fileno())
            if not is_at(file.fileno(), part):  # another process swept it before it was locked
                continue
            yield file
            return


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
    # Over NFS only a file that is open for writing can be locked; a folder cannot be.
    handle = os.open(part, (os.O_RDONLY if part.is_dir() else os.O_RDWR) | os.O_NONBLOCK)
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
    mode, handle = old.st_mode & 0o7777, file.fileno()
    try:
        _unless_unknown(os.fchown, handle, old.st_uid, old.st_gid)
    except PermissionError:  # only root may give a file away
        mode &= 0o1777
        try:
            _unless_unknown(os.fchown, handle, -1, old.st_gid)
        except PermissionError:  # what one group may do is nothing to another
            mode &= 0o1707
    _unless_unknown(os.fchmod, handle, mode)


def _unless_unknown(change: Callable[..., None], *arguments: int) -> None:
    """Change an owner or permissions where the file system has any."""
    try:
        change(*arguments)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOSYS):
            raise


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
