"""HDF5 in an open file: it holds the same, and no error of the file is lost or reaches HDF5."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import h5py
import numpy as np
import pytest

from dsdistill.storage.streams import hdf5_in

VALUES = np.arange(5000, dtype=np.float32)


class Faulty(io.BytesIO):
    """A file that fails at one operation, and works again after it."""

    def __init__(self, content: bytes = b"", at: int = 0, error: BaseException | None = None) -> None:
        super().__init__(content)
        self.at, self.error, self.count = at, error or OSError(28, "No space left on device"), 0

    def strike(self) -> None:
        self.count += 1
        if self.count == self.at:
            raise self.error

    def write(self, data: Any) -> int:
        self.strike()
        return super().write(data)

    def readinto(self, buffer: Any) -> int:
        self.strike()
        return super().readinto(buffer)

    def truncate(self, size: int | None = None) -> int:
        self.strike()
        return super().truncate(size)

    def flush(self) -> None:
        self.strike()
        super().flush()

    def seek(self, offset: int, whence: int = 0) -> int:
        self.strike()
        return super().seek(offset, whence)


def fill(file: io.BytesIO) -> None:
    with hdf5_in(file, "w") as (hdf5, _):
        hdf5.create_dataset("x", data=VALUES, chunks=(500,), fletcher32=True)
        hdf5.attrs["kind"] = 3


def contents(file: io.BytesIO) -> np.ndarray:
    with hdf5_in(file, "r") as (hdf5, _):
        assert hdf5.attrs["kind"] == 3
        return hdf5["x"][:]


def test_what_is_written_is_what_h5py_reads() -> None:
    fill(file := Faulty())
    assert np.array_equal(contents(file), VALUES)
    with h5py.File(io.BytesIO(file.getvalue())) as plain:
        assert np.array_equal(plain["x"][:], VALUES)


def test_every_error_of_a_file_that_is_written_is_raised() -> None:
    fill(whole := Faulty())
    assert whole.count > 20
    for at in range(1, whole.count + 1):
        with pytest.raises(OSError, match="No space left"):
            fill(Faulty(at=at))


def test_every_error_of_a_file_that_is_read_is_raised() -> None:
    fill(whole := Faulty())
    contents(probe := Faulty(whole.getvalue()))
    assert probe.count > 10
    for at in range(1, probe.count + 1):
        with pytest.raises(OSError, match="No space left"):
            contents(Faulty(whole.getvalue(), at=at))


def test_nothing_is_written_after_an_error() -> None:
    fill(whole := Faulty())
    file = Faulty(at=whole.count // 2)
    with pytest.raises(OSError, match="No space left"):
        fill(file)
    assert file.count == file.at


def test_a_signal_does_not_pass_through_hdf5() -> None:
    with pytest.raises(KeyboardInterrupt):
        fill(Faulty(at=9, error=KeyboardInterrupt()))


def test_an_error_of_the_block_is_passed_on_and_the_file_is_closed() -> None:
    file = Faulty()
    with pytest.raises(LookupError, match="of the block"), hdf5_in(file, "w") as (hdf5, _):
        raise LookupError("of the block")
    assert not hdf5


def test_an_early_check_raises_the_error() -> None:
    file, reached = Faulty(), list[str]()

    def check() -> None:
        with hdf5_in(file, "w") as (hdf5, stream):
            stream.check()
            file.at = file.count + 1
            hdf5.flush()
            reached.append("flush")
            stream.check()
            reached.append("end")

    with pytest.raises(OSError, match="No space left"):
        check()
    assert reached == ["flush"]


CRASHING = """
from tests.storage.test_streams import Faulty, contents, fill
fill(whole := Faulty())
for at in range(1, 40):
    for call, file in ((fill, Faulty(at=at)), (contents, Faulty(whole.getvalue(), at=at))):
        try:
            call(file)
        except OSError:
            pass
"""


@pytest.mark.slow
def test_a_process_with_such_errors_ends_without_a_crash() -> None:
    done = subprocess.run([sys.executable, "-c", CRASHING], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
