"""HDF5 in a file that is open already. HDF5 never learns of its errors: they are raised when it has closed.

Where a write fails, HDF5 may close its file as if nothing had happened, or crash. So a `Stream` keeps the
first error, drops all that is written afterwards, and reads zeros from there on.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Literal

import h5py

from dsdistill.storage.hdf5 import LAYOUT


class Stream:
    """A file as h5py's driver for file objects takes it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: BaseException | None = None

    @property
    def failed(self) -> bool:
        """Whether an operation failed, so that nothing is written any more."""
        return self._error is not None

    def check(self) -> None:
        """Raise the first error of the file, if there was one."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Raise the first error of the file, if there was one, and forget it."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._try(0, self._file.seek, offset, whence)

    def tell(self) -> int:
        return self._try(0, self._file.tell)

    def read(self, size: int) -> bytes:
        data = self._try(b"", self._file.read, size)
        return data if self._error is None else bytes(size)

    def readinto(self, buffer: Any) -> int:
        count: int = self._try(0, self._file.readinto, buffer)  # type: ignore[attr-defined]
        if self._error is None:
            return count
        view = memoryview(buffer).cast("B")
        view[:] = bytes(len(view))
        return len(view)

    def write(self, data: Any) -> int:
        return self._try(len(data), self._file.write, data)

    def truncate(self, size: int) -> int:
        return self._try(size, self._file.truncate, size)

    def flush(self) -> None:
        self._try(None, self._file.flush)

    def _try(self, otherwise: Any, operation: Any, *arguments: Any) -> Any:
        """Return what an operation does, unless one failed."""
        if self._error is None:
            try:
                return operation(*arguments)
            except BaseException as error:  # Ctrl-C too must not pass through HDF5
                # Its frames lead to where h5py opened the file, and with them HDF5 would hold the file until
                # Python has ended, and crash then.
                self._error = error.with_traceback(None)
        return otherwise


@contextmanager
def hdf5_in(file: BinaryIO, mode: Literal["r", "w"]) -> Iterator[tuple[h5py.File, Stream]]:
    """Open HDF5 in a file.

    Yields:
        it, and the stream below it, whose `check` tells early that the block need not go on.

    Raises:
        OSError: the file failed; this is known for certain only when the block has ended.
    """
    stream = Stream(file)
    try:
        with h5py.File(stream, mode, libver=LAYOUT) as hdf5:
            yield hdf5, stream
    except BaseException:
        if not stream.failed:
            raise
    stream.finish()  # not above, where it would be chained to an error of HDF5's
