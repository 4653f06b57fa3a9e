"""The arrays in an npz file, whose headers are checked before any of them is read.

An npz file is a zip of npy files. A few kilobytes of it can claim terabytes, so what a header claims is
compared with what the zip holds, and that with the free memory. A large array is not read into memory: it is
mapped where it lies, or unpacked into a file.
"""

from __future__ import annotations

import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from dsdistill.data import mapped
from dsdistill.errors import UserError
from dsdistill.files import INFLATION, reason
from dsdistill.runtime.device import check_memory
from dsdistill.runtime.notice import Progress, silent

_SLACK = 1 << 16  # bytes that an array may claim beyond what it inflates to
_COPIES = 3  # an array, its conversion to bytes, and these in another order
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Header:
    """The shape and dtype of an array that was not read."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool
    start: int
    """Bytes of the member before those of the array."""


class Archive:
    """An npz file; not its arrays, which `read` returns."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        """Read the list of arrays.

        Args:
            file: open for reading.
            name: for errors.

        Raises:
            UserError: it is no zip file, or an array is there twice.
        """
        self.name, self._file = name, file
        try:
            self._zip = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise UserError(f"{name} is not an npz file; save images and labels with numpy.savez") from error
        except _DAMAGE as error:
            raise self._damaged(error) from error
        members = self._zip.infolist()
        self._members = {info.filename.removesuffix(".npy"): info for info in members}
        if len(self._members) < len(members):
            counts = Counter(info.filename.removesuffix(".npy") for info in members)
            raise self._damaged(f"it holds {max(counts, key=counts.__getitem__)!r} twice")

    @property
    def keys(self) -> list[str]:
        """The names of its arrays, sorted."""
        return sorted(self._members)

    def header(self, key: str) -> Header:
        """Read and check what an array claims to be.

        Raises:
            UserError: it is no array of plain values, is damaged or encrypted, claims more than is there, or
                does not fit into the memory that is free.
        """
        try:
            header = self._header(self._members[key])
        except _DAMAGE as error:
            raise self._damaged(error, key) from error
        if not _stays_in_file(header):
            check_memory(f"{self.name}: {key} takes", _COPIES * _bytes(header))
        return header

    def read(self, key: str, progress: Progress = silent) -> NDArray[np.generic]:
        """Read an array; a large one is in a file, and its checksum is compared before it is returned.

        Args:
            key: of the array.
            progress: hears how many megabytes of a large array are read.

        Raises:
            UserError: as `header`; or there is no room for what is unpacked.
        """
        header, info = self.header(key), self._members[key]
        try:
            if _stays_in_file(header):
                return self._read_large(header, info, progress)
            with self._zip.open(info) as file:
                return np.lib.format.read_array(file, allow_pickle=False)
        except UserError:
            raise
        except _DAMAGE as error:
            raise self._damaged(error, key) from error

    def _read_large(self, header: Header, info: zipfile.ZipInfo, progress: Progress) -> NDArray[np.generic]:
        """Map an array that is stored as it is, or unpack it."""
        blocks = self._blocks(header, info, progress)
        if info.compress_type != zipfile.ZIP_STORED:
            filled, at = mapped.room((_bytes(header),), f"{self.name}: unpacked it takes"), 0
            for block in blocks:
                filled[at : at + len(block)] = np.frombuffer(block, np.uint8)
                at += len(block)
            return filled.view(header.dtype).reshape(header.shape)
        for _ in blocks:  # to the end, where the checksum is compared
            pass
        start = _start_of(self._file, info) + header.start
        return mapped.opened(self._file, header.dtype, header.shape, start)

    def _blocks(self, header: Header, info: zipfile.ZipInfo, progress: Progress) -> Iterator[bytes]:
        """Yield the bytes of an array, and compare the checksum at the end."""
        advance = mapped.megabytes(f"{self.name}: reading {info.filename.removesuffix('.npy')}", progress)
        total, done = _bytes(header), 0
        with self._zip.open(info) as file:
            file.read(header.start)
            while block := file.read(_BLOCK):
                done += len(block)
                advance(done, total)
                yield block
        if done != total:
            raise EOFError("it ends early")

    def _header(self, info: zipfile.ZipInfo) -> Header:
        if info.flag_bits & 1:
            raise ValueError("it is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("it is compressed in another way than numpy's")
        if info.file_size > INFLATION * info.compress_size + _SLACK:
            raise ValueError("it claims to become larger than compressed data can")
        with self._zip.open(info) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers by Python 2, and of escapes in damaged ones
            version = np.lib.format.read_magic(file)
            parse = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in parse:
                raise ValueError(f"it is of the unknown version {version}")
            shape, fortran_order, dtype = parse[version](file)
            header = Header(shape, dtype, fortran_order, file.tell())
            if dtype.hasobject or any(side < 0 for side in shape):
                raise ValueError("it holds Python objects")
            if _bytes(header) != info.file_size - header.start:
                raise ValueError("its header does not fit its content")
        return header

    def _damaged(self, error: BaseException | str, key: str = "") -> UserError:
        what = error if isinstance(error, str) else reason(error)
        place = f"{key}: " if key else ""
        return UserError(f"cannot read {self.name} as an npz file of plain arrays ({place}{what})")


_DAMAGE = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What zipfile and numpy raise where a file is damaged, encrypted or made to deceive."""


def _stays_in_file(header: Header) -> bool:
    """Whether an array is mapped or unpacked to a file, not read into memory."""
    return mapped.is_large(header.shape, header.dtype) and not header.fortran_order


def _start_of(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Return where the bytes of a member begin: behind its header, whose name and extra field come last."""
    file.seek(info.header_offset + 26)
    name, extra = struct.unpack("<HH", file.read(4))
    return info.header_offset + 30 + name + extra


def _bytes(header: Header) -> int:
    return math.prod(header.shape) * header.dtype.itemsize
