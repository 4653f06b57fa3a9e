"""The cache folder, and files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dsdistill.errors import UserError
from dsdistill.files import beside, reason


def cache_folder() -> Path:
    """Return ``$DSDISTILL_CACHE``, else ``~/.cache/dsdistill``."""
    return Path(os.environ.get("DSDISTILL_CACHE") or "~/.cache/dsdistill").expanduser()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a neighbour of ``path`` that takes its place when the block ends, and vanishes if it fails.

    For what is too large to write at once; the folder is made if need be.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    part = beside(path)
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
