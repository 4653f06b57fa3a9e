"""Survey picture files, decode them on every core, and cache them as a memory-mapped array."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import PIL
from torch import Tensor

from dsdistill.data import mapped
from dsdistill.data.cache import caching, damaged, is_verified, note_verified, recall, store, used
from dsdistill.data.listing import Listing
from dsdistill.data.pictures import FULL_RANGE, GREY, TRANSPARENT, Decoding, Header, pixels, probe
from dsdistill.data.real import RealDataset, fingerprint
from dsdistill.errors import UserError
from dsdistill.files import cache_folder, open_regular, reason
from dsdistill.runtime.callbacks import Callback
from dsdistill.runtime.notice import Progress

LADDER = (8, 16, 28, 32, 64, 128, 224)
BATCH = 256  # files in flight: bounds memory however long the list
_VERSION = 2
"""Of decoding and of its cache: to be raised with every change of pixels."""
_MARK = hashlib.sha256().digest_size * 2  # in hexadecimal digits
_BLOCK = 1 << 20
_SMALL_RANGE = (1 << 14) - 1
"""Cameras and scanners have 10, 12 or 14 bits; 16-bit files of such values come out nearly black."""
T = TypeVar("T")


@dataclass(frozen=True)
class Survey:
    """How many files there are of each header."""

    counts: dict[Header, int]

    def count(self, condition: Callable[[Header], bool]) -> int:
        """Count the files whose header satisfies a condition."""
        return sum(n for header, n in self.counts.items() if condition(header))

    @property
    def channels(self) -> int:
        """1 if every image is greyscale, else 3."""
        return 3 if self.count(lambda header: header.kind not in GREY) else 1

    @property
    def size(self) -> int:
        """The commonest shorter side, each first rounded down to a step of the ladder (ties: smaller)."""
        votes: Counter[int] = Counter()
        for header, n in self.counts.items():
            side = min(header.width, header.height)
            votes[max((step for step in LADDER if step <= side), default=side)] += n
        return min(votes, key=lambda side: (-votes[side], side))

    def sentence(self, what: str, decoding: Decoding, advises: bool = True) -> str | None:
        """Describe what a decoding changes or leaves out; None if nothing.

        Args:
            what: the name of the images.
            advises: whether to say how more grey levels are kept.
        """
        square, grey = (decoding.size, decoding.size), decoding.channels == 1
        changes = [
            (
                self.count(lambda header: header[:2] != square),
                f"not {decoding.size}x{decoding.size} resized (bilinear, antialiased, aspect not kept)",
            ),
            (
                self.count(lambda header: header.kind in TRANSPARENT),
                "with transparency composited onto white",
            ),
            (self.count(_is_16_bit), self._scaling(decoding, advises)),
            (
                self.count(lambda header: (header.kind in GREY) != grey),
                "colour reduced to luma" if grey else "greyscale repeated to 3 channels",
            ),
            (
                self.count(lambda header: header.turned),
                "turned as their EXIF data say"
                if decoding.exif
                else "not turned as their EXIF data say (data.exif=true turns them)",
            ),
            (self.count(lambda header: header.animated), "with several frames, of which the first is read"),
        ]
        parts = [f"{n} {what}" for n, what in changes if n]
        if not parts:
            return None
        return f"{what}: {sum(self.counts.values())} images, {', '.join(parts)}"

    def _scaling(self, decoding: Decoding, advises: bool) -> str:
        """Say how 16-bit values are scaled, and if that leaves few grey levels, how more are kept."""
        if decoding.range is not None:
            return f"16-bit scaled from 0..{decoding.range} to 8 bits"
        largest = (1 << max(filter(None, map(_bits_of_16, self.counts)), default=0)) - 1
        if not (advises and 0 < largest <= _SMALL_RANGE):
            return "16-bit scaled to 8 bits"
        levels = round(largest * 255 / FULL_RANGE) + 1
        return (
            f"16-bit scaled to 8 bits (no value above {largest}, so {levels} grey levels are left: "
            f"data.range={largest} keeps more)"
        )


def _is_16_bit(header: Header) -> bool:
    return header.kind == "16-bit"


def _bits_of_16(header: Header) -> int:
    return header.bits if _is_16_bit(header) else 0


def _on_every_core(
    work: Callable[[Path], T], paths: Sequence[Path], what: str, progress: Progress
) -> Iterator[list[T]]:
    """Yield the results of ``work`` in order, batch by batch, and report the progress as ``what``.

    Threads suffice: Pillow's decoders and resizer release the interpreter lock.
    """
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, 16))
    try:
        progress(what, 0, len(paths))
        for start in range(0, len(paths), BATCH):
            batch = paths[start : start + BATCH]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module="PIL")  # of large pictures and damaged metadata
                results = list(pool.map(work, batch))
            progress(what, start + len(batch), len(paths))
            yield results
    finally:
        pool.shutdown(cancel_futures=True)  # who stops waits for the files in hand, not for the batch


def survey(listing: Listing, observer: Callback) -> Survey:
    """Read every file's header; the counts are cached.

    Raises:
        UserError: a file is not a picture, or the cache folder cannot be written.
    """
    cached = _cached(listing, "headers", ".json")
    if (stored := recall(cached, observer.on_notice)) is not None:
        return Survey({Header(*header): count for header, count in json.loads(stored)})
    counts: Counter[Header] = Counter()
    for headers in _on_every_core(probe, listing.paths, f"{listing.name}: reading headers", observer.on_read):
        counts.update(headers)
    try:
        store(cached, json.dumps(sorted(counts.items())).encode())
    except UserError as error:  # the headers are read again the next time; pixels may not fit in memory
        observer.on_notice(str(error))
    return Survey(dict(counts))


def decode(listing: Listing, decoding: Decoding, observer: Callback) -> RealDataset:
    """Decode a listing to a memory-mapped uint8 [N,channels,size,size], from the cache if it is there.

    Raises:
        UserError: a file is damaged, or the cache folder cannot be written.
    """
    what = f"{listing.name} ({listing.split})"
    sentence = survey(listing, observer).sentence(what, decoding, advises=listing.split == "train")
    for each in filter(None, (*listing.notices, sentence)):
        observer.on_notice(each)
    shape = (len(listing.paths), decoding.channels, decoding.size, decoding.size)
    cached = _cached(listing, repr(decoding), f"-{decoding.channels}x{decoding.size}.npy")
    data = _from_cache(cached, listing, shape, observer)
    if data is None:
        _decode_to(cached, listing, decoding, shape, observer.on_read)
        data = _from_cache(cached, listing, shape, observer)
    if data is None:
        raise UserError(
            f"{cached} was written but cannot be read back; free memory, or choose a smaller --size"
        )
    return data


def _cached(listing: Listing, what: str, ending: str) -> Path:
    """Return the file of the cache for what is made of these files by this version of the decoding."""
    key = hashlib.sha256(f"{_VERSION} {PIL.__version__} {listing.digest} {what}".encode()).hexdigest()
    return cache_folder() / "pictures" / f"{key[:32]}{ending}"


def _decode_to(
    cached: Path, listing: Listing, decoding: Decoding, shape: tuple[int, ...], progress: Progress
) -> None:
    """Write an array that numpy can map, and behind it the fingerprint of the data set.

    Front to back, not through a map: a full disk is then an error, not a bus error.
    """

    def verify(written: BinaryIO) -> None:
        written.seek(start)
        advance = mapped.megabytes(f"{listing.name} ({listing.split}): reading back", progress)

        def blocks() -> Iterator[bytes]:
            for at in range(start, end, _BLOCK):
                advance(min(at + _BLOCK, end) - start, end - start)
                yield written.read(min(_BLOCK, end - at))

        mark_on_disk = fingerprint(shape, listing.classes, blocks(), listing.labels)
        if mark_on_disk.encode() != written.read():
            raise OSError("it reads back otherwise than it was written; the disk may be failing")

    with caching(cached, verify) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        start = file.tell()

        def decoded() -> Iterator[memoryview]:
            what = f"{listing.name}: decoding {listing.split}"
            work = partial(pixels, decoding=decoding)
            for batch in _on_every_core(work, listing.paths, what, progress):
                block = np.ascontiguousarray(np.stack(batch)).data
                file.write(block)
                yield block

        mark = fingerprint(shape, listing.classes, decoded(), listing.labels)
        end = file.tell()
        file.write(mark.encode())


def _from_cache(
    cached: Path, listing: Listing, shape: tuple[int, ...], observer: Callback
) -> RealDataset | None:
    """Map a cached array whose pixels are those that were written; None if there is none.

    To compare its fingerprint reads it once, at the speed of the disk or of SHA-256; a run needs the
    fingerprint anyway. A large array whose file was not touched since is compared again after a month only.
    """
    notify = observer.on_notice
    try:
        with open_regular(cached) as file:
            file.seek(max(os.fstat(file.fileno()).st_size - _MARK, 0))
            mark = file.read()
        images = _mapped(cached)
        if images.shape != shape:
            raise ValueError("it is no array of these pictures")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:  # truncated, or no array
        notify(damaged(cached, reason(error)))
        return None
    data = RealDataset(listing.name, listing.split, images, listing.labels, listing.classes)
    large = mapped.is_large(shape)
    if large and is_verified(cached):
        return data.fingerprinted(observer.on_read, mark.decode("ascii", "replace"))
    data = data.fingerprinted(observer.on_read)
    if data.fingerprint.encode() != mark:
        notify(damaged(cached))
        return None
    used(cached)
    if large:
        note_verified(cached)
    return data


def _mapped(path: Path) -> Tensor:
    """Map a cached array.

    The map is copy-on-write, so that a stray write cannot reach the file. It is read-only if the system
    refuses the memory that copies of all pages would need (tens of gigabytes for ImageNet).

    Raises:
        OSError, ValueError, EOFError: it is no array of bytes, or not all of it is there.
    """
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except OSError:  # the error number of a refusal differs between systems
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype != np.uint8:
        raise ValueError("it holds no bytes")
    return mapped.as_tensor(array)
