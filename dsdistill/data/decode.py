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
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from dsdistill.data.cache import cache_folder, caching
from dsdistill.data.config import Split
from dsdistill.data.pictures import GREY, TRANSPARENT, pixels, probe
from dsdistill.data.real import RealDataset
from dsdistill.data.reporter import Progress, Reporter
from dsdistill.errors import UserError

LADDER = (8, 16, 28, 32, 64, 128, 224)
BATCH = 256  # files in flight: bounds memory however long the list
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Listing:
    """The files of one split, before any is opened: paths, labels [N] and class names."""

    name: str
    split: Split
    paths: tuple[Path, ...]
    labels: Tensor
    classes: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """Hash of the paths with sizes and modification times: an edited file makes a different list."""
        digest = hashlib.sha256()
        for path in self.paths:
            try:
                stat = path.stat()
            except OSError as error:
                raise UserError(f"cannot read {path} ({error.strerror}); mend or delete it") from error
            digest.update(os.fsencode(path.absolute()) + f"\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:32]


@dataclass(frozen=True)
class Survey:
    """How many files there are of each (width, height, kind)."""

    counts: dict[tuple[int, int, str], int]

    def count(self, condition: Callable[[int, int, str], bool]) -> int:
        """Count the files whose width, height and kind satisfy a condition."""
        return sum(n for key, n in self.counts.items() if condition(*key))

    @property
    def channels(self) -> int:
        """1 if every image is greyscale, else 3."""
        return 3 if self.count(lambda w, h, kind: kind not in GREY) else 1

    @property
    def size(self) -> int:
        """The commonest shorter side, each first rounded down to a step of the ladder (ties: smaller)."""
        votes: Counter[int] = Counter()
        for (width, height, _), n in self.counts.items():
            side = min(width, height)
            votes[max((step for step in LADDER if step <= side), default=side)] += n
        return min(votes, key=lambda side: (-votes[side], side))

    def sentence(self, listing: Listing, size: int, channels: int) -> str | None:
        """Describe what decoding to this size and these channels changes; None if nothing."""
        changes = [
            (
                self.count(lambda w, h, kind: (w, h) != (size, size)),
                f"not {size}x{size} resized (bilinear, antialiased, aspect not kept)",
            ),
            (self.count(lambda w, h, kind: kind in TRANSPARENT), "with transparency composited onto white"),
            (self.count(lambda w, h, kind: kind == "16-bit"), "16-bit scaled to 8 bits"),
            (
                self.count(lambda w, h, kind: (kind in GREY) != (channels == 1)),
                "colour reduced to luma" if channels == 1 else "greyscale repeated to 3 channels",
            ),
        ]
        parts = [f"{n} {what}" for n, what in changes if n]
        if not parts:
            return None
        return f"{listing.name} ({listing.split}): {len(listing.paths)} images, {', '.join(parts)}"


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
            results = list(pool.map(work, batch))
            progress(what, start + len(batch), len(paths))
            yield results
    finally:
        pool.shutdown(cancel_futures=True)  # who stops waits for the files in hand, not for the batch


def survey(listing: Listing, progress: Progress) -> Survey:
    """Read every file's header; the counts are cached.

    Raises:
        UserError: a file is not a picture, or the cache folder cannot be written.
    """
    cached = cache_folder() / "pictures" / f"{listing.digest}.json"
    try:
        rows = json.loads(cached.read_text())
        return Survey({(int(w), int(h), str(kind)): int(n) for w, h, kind, n in rows})
    except (OSError, ValueError, TypeError):
        pass  # absent or damaged: count again
    counts: Counter[tuple[int, int, str]] = Counter()
    for kinds in _on_every_core(probe, listing.paths, f"{listing.name}: reading headers", progress):
        counts.update(kinds)
    with caching(cached) as file:
        file.write(json.dumps([[*key, n] for key, n in sorted(counts.items())]).encode())
    return Survey(dict(counts))


def _mapped(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    """Map a cached array; None if unusable.

    The map is copy-on-write, so that a stray write cannot reach the file. It is read-only if the system
    refuses the memory that copies of all pages would need (tens of gigabytes for ImageNet).
    """
    try:
        try:
            array = np.load(path, mmap_mode="c", allow_pickle=False)
        except OSError:  # the error number of a refusal differs between systems
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None  # absent, truncated or not an array
    if array.shape != shape or array.dtype != np.uint8:
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def decode(listing: Listing, size: int, channels: int, reporter: Reporter) -> RealDataset:
    """Decode a listing to a memory-mapped uint8 [N,channels,size,size], from the cache if it is there.

    Raises:
        UserError: a file is damaged, or the cache folder cannot be written.
    """
    sentence = survey(listing, reporter.progress).sentence(listing, size, channels)
    if sentence:
        reporter.notify(sentence)
    shape = (len(listing.paths), channels, size, size)
    cached = cache_folder() / "pictures" / f"{listing.digest}-{channels}x{size}.npy"
    images = _mapped(cached, shape)
    if images is None:
        # Written front to back, not through a map: a full disk is then an error, not a bus error.
        with caching(cached) as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": shape}
            )
            what = f"{listing.name}: decoding {listing.split}"
            work = partial(pixels, size=size, channels=channels)
            for batch in _on_every_core(work, listing.paths, what, reporter.progress):
                file.write(np.stack(batch).tobytes())
        images = _mapped(cached, shape)
        if images is None:
            raise UserError(
                f"{cached} was written but cannot be read back; free memory, or choose a smaller --size"
            )
    return RealDataset(listing.name, listing.split, images, listing.labels, listing.classes)
