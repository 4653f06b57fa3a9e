"""The file of a distilled set: HDF5, typed, checksummed, readable by stock h5py.

`set_schema` lists its nodes, `set_results` has its evaluations, and `set_description` says what it holds.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, overload

import h5py
import torch

from dsdistill import files
from dsdistill.config.storage import Dtype
from dsdistill.errors import UserError
from dsdistill.files import exclusive, replace
from dsdistill.runtime.notice import Notify, silent
from dsdistill.storage.hdf5 import (
    LAYOUT,
    SET,
    attribute,
    check_attribute,
    check_names,
    check_suffix,
    opened,
)
from dsdistill.storage.set_schema import as_stored, fill, parse, pixels_of, to_uint8
from dsdistill.synthetic.distilled import DistilledSet, Scalar
from dsdistill.synthetic.distilled_dataset import DistilledDataset, LabelKind
from dsdistill.synthetic.prefix import prefix
from dsdistill.synthetic.view_dataset import ViewDataset

__all__ = [
    "Dtype",
    "check_same",
    "check_storable",
    "check_writable",
    "digest",
    "largest_error",
    "load",
    "read",
    "to_uint8",
    "write",
]

_AT_ONCE = 256
"""Images that are compared at once: their differences take memory, too."""


def write(
    path: str | Path, distilled: DistilledSet, dtype: Dtype | None = None, notify: Notify = silent
) -> float:
    """Write a set; it replaces at once any file at ``path``.

    Args:
        dtype: of the stored pixels; None: float32, or as they are coded. "uint8" clips them to [0,1] and
            rounds them to 256 levels. Compensators are no pixels, as they may be negative: "uint8" stores
            them as float16.
        notify: receives a sentence if another process that changes the file has to be waited for.

    Returns:
        the largest absolute error that storing caused in a pixel or in a compensator, measured by reading
        back; 0 for float32.

    Raises:
        UserError: the file cannot be written, the dtype or HDF5 cannot hold a value, or the dtype changes
            pixels that the set has views of.
    """
    path = files.expanded(path)
    check_storable(distilled.classes, distilled.attributes)
    _check_viewed(distilled, dtype)
    # A full disk crashes HDF5 beyond repair (a segmentation fault), so it writes to memory.
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=LAYOUT) as file:
        fill(file, distilled, dtype)
    with h5py.File(buffer, "r") as file:
        stored = parse(file)
    files.check_target(path)
    with exclusive(path, notify):
        replace(path, buffer.getbuffer())
    return largest_error(stored, distilled)


def largest_error(stored: DistilledSet, distilled: DistilledSet) -> float:
    """Return the largest absolute difference of two sets in a pixel or in a compensator."""
    pairs = zip(pixels_of(stored), pixels_of(distilled), strict=True)
    parts = (zip(one.split(_AT_ONCE), other.split(_AT_ONCE), strict=True) for (one, _), (other, _) in pairs)
    return max(float((some - others).abs().max()) for part in parts for some, others in part)


def _check_viewed(distilled: DistilledSet, dtype: Dtype | None) -> None:
    """Check that a file holds what a teacher has seen.

    Raises:
        UserError: the set has views, and the dtype changes the pixels that are viewed.
    """
    if distilled.views is None or dtype is None:
        return
    if not all(torch.equal(as_stored(part, how), part) for part, how in pixels_of(distilled, dtype)):
        raise UserError(
            f"{dtype} changes the pixels, and a teacher has answered to views of them as they are: store "
            "the set without its views first, then label what is stored"
        )


def check_storable(classes: Sequence[str], attributes: Mapping[str, Scalar]) -> None:
    """Check before a long run that a file can hold the names of its classes and its attributes.

    Raises:
        UserError: one holds a character that HDF5 cannot store, or is too long.
    """
    check_names(classes)
    for name, value in attributes.items():
        check_attribute(name, value)


def read(path: str | Path) -> DistilledSet:
    """Read a set and verify it: format, version, shapes, dtypes, values, checksum.

    Raises:
        UserError: the file does not exist, is not a dsdistill file, has a newer version, or is damaged.
    """
    with opened(path, SET) as file:
        return parse(file)


@overload
def load(
    path: str | Path,
    space: Literal["network", "unit"] = "network",
    labels: LabelKind = "hard",
    decode: bool = True,
    *,
    views: Literal[False] = False,
    ipc: int | None = None,
) -> DistilledDataset: ...


@overload
def load(
    path: str | Path,
    space: Literal["network", "unit"] = "network",
    labels: LabelKind = "hard",
    decode: bool = True,
    *,
    views: Literal[True],
) -> ViewDataset: ...


def load(
    path: str | Path,
    space: Literal["network", "unit"] = "network",
    labels: LabelKind = "hard",
    decode: bool = True,
    *,
    views: bool = False,
    ipc: int | None = None,
) -> DistilledDataset | ViewDataset:
    """Load a set, verified, as a torch data set.

    >>> dataset = dsdistill.load("set.h5")
    >>> images, labels = next(iter(torch.utils.data.DataLoader(dataset, batch_size=4)))
    >>> images.shape, labels
    (torch.Size([4, 1, 8, 8]), tensor([0, 1, 2, 3]))

    Args:
        space: "network" for preprocessed images, as a student is trained on; "unit" for pixels.
        labels: "soft" for the learned logits in place of class indices, "targets" for the numbers that a
            network is to answer; a set without labels has these, if any, as its labels.
        decode: decode the stored images of a multi-formation, or of compensators, into training images.
        views: load the stored views in place of the images: a `ViewDataset`, whose items are whole batches.
            It is in network space, decoded, and has no other labels, so the other options stay as they are.
        ipc: the first so many images of each class alone, of a set that was made for several sizes (method
            mdc); see the attribute ``sizes``. It has no views, which are of all images.

    Raises:
        UserError: as `read`; the set has no soft labels, targets or views, and these are asked for; or it
            was not made for that size.
    """
    if not views:
        distilled = read(path) if ipc is None else prefix(read(path), ipc)
        return DistilledDataset(distilled, space, labels, decode)
    if (space, labels, decode, ipc) != ("network", "hard", True, None):
        raise UserError(
            "views are of all images, in network space, decoded, and have logits: leave space, labels, "
            "decode and ipc out"
        )
    return ViewDataset(read(path))


def check_same(path: str | Path, sha256: str, expected: str) -> None:
    """Check that a file still holds a set.

    Args:
        sha256, expected: digests; of the set that it holds, and of the one that it held (empty for any).

    Raises:
        UserError: it holds another one.
    """
    if expected and sha256 != expected:
        raise UserError(
            f"{path} holds another set by now ({sha256[:8]}… in place of {expected[:8]}…); evaluate it anew"
        )


def digest(path: str | Path) -> str:
    """Return the checksum of a set, results aside, as its file states it.

    Raises:
        UserError: the file cannot be read or is not a dsdistill file.
    """
    with opened(path, SET) as file:
        return str(attribute(file, "sha256"))


def check_writable(path: str | Path, overwrite: bool = False, remedy: str = "") -> None:
    """Check before a long run that its result can be written.

    Args:
        overwrite: whether a dsdistill file at ``path`` may be replaced; any other file never is.
        remedy: a remedy other than another name, for the message.

    Raises:
        UserError: the path is a folder or has the suffix of another format, its folder is missing or cannot
            be written to, or a file is there.
    """
    target = files.expanded(path)
    if os.path.isdir(target):  # unlike Path.is_dir, it takes any name
        raise UserError(f"{path} is a folder; name a file, for example {target / 'set.h5'}")
    files.check_target(target)
    if not target.exists():
        check_suffix(target, "; dsdistill export writes a .pt or PNG files from it")
        return
    try:
        with opened(path, SET):
            pass
    except UserError as error:
        raise UserError(f"{path} exists and would not be replaced ({error}); choose another name") from error
    if not overwrite:
        raise UserError(f"{path} exists; choose another name{remedy}")
