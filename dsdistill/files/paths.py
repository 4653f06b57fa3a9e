"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

from dsdistill.errors import UserError


def expanded(path: str | Path) -> Path:
    """Return a path with ``~`` and ``~name`` replaced by a home folder, as a shell does outside of quotes.

    Raises:
        UserError: there is no such user, or the home folder is not known.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"the home folder in {os.fspath(path)} is not known; write the path from / on"
        ) from error


def cache_folder() -> Path:
    """Return the folder of what is kept for later runs: ``$DSDISTILL_CACHE``, else ``~/.cache/dsdistill``."""
    return expanded(os.environ.get("DSDISTILL_CACHE") or "~/.cache/dsdistill")


def lies_inside(name: str) -> bool:
    """Whether a name that a file lists is a path down from that file's folder, on every system.

    >>> lies_inside("0/000.png"), lies_inside("../000.png"), lies_inside("C:\\\\000.png")
    (True, False, False)
    """
    windows = PureWindowsPath(name)  # which understands both kinds of slashes
    return not (PurePosixPath(name).is_absolute() or windows.anchor or ".." in windows.parts)
