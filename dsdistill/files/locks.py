"""Locks between processes: who writes an output, and whose turn it is to change a file.

A lock is a hidden file, which its owner locks through the system and deletes at the end. The system's lock
ends with its process, so what a kill leaves behind is a file that stops nobody. Where a file system cannot
lock, nothing is locked; over a network a lock holds as far as the file system there keeps it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dsdistill.errors import UserError
from dsdistill.files.checks import check_folder, reason
from dsdistill.files.reading import open_regular

WAIT = 60.0
"""Seconds that a change of a file waits for another one, at most."""
_NOTICE_AFTER = 1.0
_POLL = 0.02
_LONG_POLL = 0.2
_BYTE = 1 << 30  # where Windows locks one byte: beyond the text, which others read


@contextmanager
def hold(
    path: str | Path, work: str, inside: bool = False, wait: Callable[[str], None] | None = None
) -> Iterator[int]:
    """Keep other processes from the same work on a file or folder, for as long as the block runs.

    Args:
        path: what is written; the lock is a hidden file beside it.
        work: what runs, for the sentence that refuses a second one, such as "a distillation".
        inside: keep the lock in the folder ``path``, which exists, because none may be written beside it.
        wait: wait for another process instead of refusing, however long; it receives a sentence on that.

    Yields:
        the open lock, negative where the file system has none; a child process that inherits it keeps it
        until it ends.

    Raises:
        UserError: another process does; the sentence names it and its machine.
    """
    lock = Path(path) / ".running" if inside else _lock_file(path, "running")
    handle = _acquire(lock)
    if handle is None and wait:
        wait(f"waiting for {work} of {path} that is running already ({_owner(lock)})")
        while (handle := _acquire(lock)) is None:
            time.sleep(_LONG_POLL)
    if handle is None:
        raise UserError(
            f"{work} of {path} is running already ({_owner(lock)}); "
            "wait for it, stop it, or choose another output"
        )
    try:
        yield handle
    finally:
        _release(lock, handle)


@contextmanager
def exclusive(path: str | Path, notify: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Keep others from changing a file while it is read, changed and replaced.

    The lock is no file's own, because a lock on a file would stay with the old one when it is replaced.

    Args:
        path: the file.
        notify: receives a sentence if another process has to be waited for.

    Raises:
        UserError: another process does not end its change.
    """
    lock = _lock_file(path, "changing")
    since, is_announced = time.monotonic(), False
    while (handle := _acquire(lock)) is None:
        waited = time.monotonic() - since
        if waited > WAIT:
            raise UserError(
                f"{path} is being changed by another process ({_owner(lock)}); try again when it has ended"
            )
        if waited > _NOTICE_AFTER and not is_announced:
            notify(f"waiting for {_owner(lock)}, which changes {path}")
            is_announced = True
        time.sleep(_POLL)
    try:
        yield
    finally:
        _release(lock, handle)


def _lock_file(path: str | Path, purpose: str) -> Path:
    """Return the path of a lock: named after its file, or after a digest where that name is too long."""
    target = Path(os.path.realpath(path))
    name = f".{target.name}.{purpose}"
    if len(os.fsencode(name)) > 200:
        name = f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:32]}.{purpose}"
    return target.with_name(name)


def clear(path: str | Path) -> None:
    """Delete the locks of a file or folder that a kill has left; those that a process has stay."""
    for purpose in ("running", "changing"):
        lock = _lock_file(path, purpose)
        with contextlib.suppress(UserError):
            if os.path.lexists(lock) and (handle := _acquire(lock)) is not None:
                _release(lock, handle)


_NONE = -1
"""In place of a handle, where the file system cannot lock."""


def _acquire(lock: Path) -> int | None:
    """Take a lock and write who has it; None if another process has it.

    Raises:
        UserError: the lock's file cannot be made.
    """
    while True:
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        except OSError as error:
            if error.errno in (errno.ENOTSUP, errno.ENOLCK):
                return _NONE
            check_folder(lock)
            raise UserError(f"cannot write {lock}: {reason(error)}; remove it") from error
        try:
            locked = try_lock(handle)
        except OSError:
            os.close(handle)
            lock.unlink(missing_ok=True)
            return _NONE
        if not locked:
            os.close(handle)
            return None
        if is_at(handle, lock):
            with contextlib.suppress(OSError):  # a full disk costs the name of the owner, not the run
                os.ftruncate(handle, 0)
                os.lseek(handle, 0, os.SEEK_SET)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
            return handle
        os.close(handle)  # its owner deleted it meanwhile: it locks nothing


def try_lock(handle: int) -> bool:
    """Lock an open file against other processes; False if one of them has locked it.

    Raises:
        OSError: the file system cannot lock.
    """
    if os.name == "nt":  # pragma: no cover
        import msvcrt

        os.lseek(handle, _BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except PermissionError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_at(handle: int, path: Path) -> bool:
    """Whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def _owner(lock: Path) -> str:
    """Say who has a lock: the process that is written in it, or one that it started and left."""
    try:
        with open_regular(lock) as file:
            text = file.read(200).decode(errors="replace")
    except OSError:
        text = ""
    match = re.fullmatch(r"process (\d+) on (.+)", text)
    if match is None:
        return "another process"
    ended = match[2] == socket.gethostname() and not _lives(int(match[1]))
    return f"a command that {text} left running" if ended else text


def _lives(process: int) -> bool:
    if os.name == "nt":  # pragma: no cover - a signal of 0 would end it there
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _release(lock: Path, handle: int) -> None:
    """Delete a lock's file and close it; children that inherited it have ended by then."""
    if handle == _NONE:
        return
    if os.name == "nt":  # pragma: no cover - an open file cannot be deleted there
        os.close(handle)
        handle = _NONE
    with contextlib.suppress(OSError):
        lock.unlink()
    if handle != _NONE:
        with contextlib.suppress(OSError):  # a disk that fails here takes nothing back
            os.close(handle)
