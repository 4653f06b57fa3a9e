"""The cache of data that take long to prepare: decoded pictures and whitening matrices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dsdistill.errors import UserError
from dsdistill.files import expanded, reason, replacing


def cache_folder() -> Path:
    """Return ``$DSDISTILL_CACHE``, else ``~/.cache/dsdistill``."""
    return expanded(os.environ.get("DSDISTILL_CACHE") or "~/.cache/dsdistill")


@contextmanager
def caching(path: Path) -> Iterator[BinaryIO]:
    """Open a file of the cache for writing, as `replacing` does; its folder is made if it is missing.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            yield file
    except (OSError, UserError) as error:
        raise UserError(f"{_sentence(path, error)}; free space there or set DSDISTILL_CACHE") from error


def _sentence(path: Path, error: Exception) -> str:
    if isinstance(error, UserError):
        return f"the cache: {error}"
    return f"cannot write the cache file {path}: {reason(error)}"
