"""Checks before a long run that its result can be written where it is to go."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from dsdistill.errors import UserError

_LONGEST_NAME = 255  # bytes, on nearly every file system
_LONGEST_REASON = 300


def check_folder(path: str | Path) -> None:
    """Check that a new file or folder can be created at ``path``, by a temporary file in its folder.

    Raises:
        UserError: the name is too long; the parent is missing, is not a folder or cannot be written to.
    """
    name, folder = Path(path).name, Path(path).absolute().parent
    if len(os.fsencode(name)) > _longest_name(folder):
        raise UserError(f"the file name {name[:40]!r}… is too long for the file system; choose a shorter one")
    try:
        mode = folder.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"the folder {folder} does not exist; make it first: mkdir -p {folder}") from None
    except OSError as error:
        raise UserError(f"cannot write in {folder}: {reason(error)}; choose another place") from error
    if not stat.S_ISDIR(mode):
        raise UserError(f"{folder} is a file, so nothing can be written inside it; choose another place")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"cannot write in {folder}: {reason(error)}; choose another place") from error


def _longest_name(folder: Path) -> int:
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # the first on Windows
        return _LONGEST_NAME


def check_target(path: str | Path) -> None:
    """Check that a file can be written at ``path``, where at most a writable regular file may be replaced.

    A link is followed, so it remains a link and its target is replaced.

    Raises:
        UserError: as `check_folder`; or there is a folder, a device or a pipe, a write-protected file, or a
            link that leads to itself.
    """
    target = Path(os.path.realpath(path))
    try:
        status = os.stat(path)  # not of the target: that of a pipe behind /dev/stdout has no path
    except FileNotFoundError:
        check_folder(target)
        return
    except OSError as error:  # a link to itself, a parent that is a file, a name that is too long
        if os.path.islink(path):
            raise UserError(f"cannot write {path}: {reason(error)}; choose another name") from error
        check_folder(target)
        raise UserError(f"cannot write {path}: {reason(error)}; choose another place") from error
    if problem := not_regular(status.st_mode):
        raise UserError(f"cannot write {path}: {problem}; choose another name")
    if not (status.st_mode & 0o222 and os.access(target, os.W_OK)):  # root may write all, but should not
        own = not hasattr(os, "geteuid") or status.st_uid in (os.geteuid(), 0)
        hint = f", or allow it: chmod u+w {path}" if own else ""
        raise UserError(f"{path} is write-protected; choose another name{hint}")
    check_folder(target)


def check_replaceable(path: str | Path, suffix: str) -> None:
    """Check that writing to ``path`` replaces at most an earlier file of the same kind.

    Raises:
        UserError: ``path`` is a folder, or a file with another suffix, such as a distilled set; or as
            `check_target`.
    """
    path = Path(path)
    if os.path.isdir(path) or (os.path.exists(path) and path.suffix.lower() != suffix):
        raise UserError(f"{path} exists and is no {suffix} file; choose another name")
    check_target(path)


def check_new_folder(path: str | Path) -> None:
    """Check that a folder can be created at ``path``, where at most an empty one lies.

    Raises:
        UserError: there is a file, a link that leads nowhere or a folder that is not empty; or as
            `check_folder`.
    """
    target = Path(path).absolute()
    check_folder(target)
    if os.path.lexists(target) and not (target.is_dir() and next(target.iterdir(), None) is None):
        raise UserError(f"{path} exists and is not an empty folder; choose another name")


def not_regular(mode: int) -> str:
    """Say what a file of this ``st_mode`` is if it is no regular file; empty if it is one."""
    if stat.S_ISREG(mode):
        return ""
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return f"it is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a regular file"


def reason(error: BaseException) -> str:
    """Return in one line why an operation failed, in the words of the system if it has any."""
    message = error.strerror if isinstance(error, OSError) else None
    if isinstance(error, KeyError) and error.args:  # its str() adds quotes
        message = str(error.args[0])
    line = (message or str(error) or type(error).__name__).splitlines()[0]
    return line if len(line) <= _LONGEST_REASON else f"{line[:_LONGEST_REASON]}…"
