"""Read regular files only, and not more of them than memory can take.

A device may be endless, and opening a pipe waits for a writer. What is refused is an `OSError` whose message
says why, so that callers report it as they report a file that is missing or unreadable.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import BinaryIO

from dsdistill.files.checks import not_regular

LARGEST_TEXT = 1 << 26
"""Bytes of a config, a log or a report, at most: 67 MB."""
INFLATION = 1100
"""Bytes that a compressed one becomes, at most: deflate, also that of gzip and zip, reaches 1032."""


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading; links are followed.

    Raises:
        OSError: the file cannot be opened, or it is a folder, a device, a pipe or a socket.
    """
    flags = (
        os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    )
    handle = os.open(path, flags)  # not blocking: opening a pipe would wait for its writer
    try:
        if problem := not_regular(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, problem, str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read(path: str | Path, most: int | None = None) -> bytes:
    """Read a regular file.

    Args:
        most: bytes that it may have; None for any number.

    Raises:
        OSError: as `open_regular`; or the file is larger than that.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise OSError(
                errno.EFBIG, f"it has {size:,} bytes, and such a file has {most:,} at most", str(path)
            )
        return file.read()


def read_text(path: str | Path, most: int = LARGEST_TEXT) -> str:
    """Read a regular file of UTF-8 text.

    Raises:
        OSError: as `read`.
        UnicodeDecodeError: it is not UTF-8; a `ValueError`.
    """
    return read(path, most).decode("utf-8")
