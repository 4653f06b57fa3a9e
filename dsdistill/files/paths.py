"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path

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
