"""The file of a distilled set: HDF5, typed, checksummed, readable by stock h5py.

`set_schema` lists its nodes.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import h5py
import torch

from dsdistill import files
from dsdistill.config.storage import Dtype, pixel_bytes
from dsdistill.config.unlabelled import is_labelled
from dsdistill.errors import UserError
from dsdistill.files import exclusive, parse_json, reason, replace
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
from dsdistill.storage.set_schema import (
    add_result,
    as_stored,
    fill,
    parse,
    parse_results,
    pixels_of,
    to_uint8,
)
from dsdistill.storage.structure import LONGEST, NODES
from dsdistill.synthetic.coded import Coding
from dsdistill.synthetic.decoding import decoded_counts
from dsdistill.synthetic.distilled import (
    DistilledDataset,
    DistilledSet,
    LabelKind,
    Scalar,
    extra_labels,
)
from dsdistill.synthetic.multi_formation import MultiFormation
from dsdistill.synthetic.prefix import prefix
from dsdistill.synthetic.view_dataset import ViewDataset

__all__ = [
    "Description",
    "Dtype",
    "append_result",
    "check_same",
    "check_storable",
    "check_writable",
    "describe",
    "digest",
    "largest_error",
    "load",
    "read",
    "results",
    "sizes_of",
    "stored_bytes",
    "to_uint8",
    "write",
]

MOST_RESULTS = NODES // 4
"""Evaluations that a file may hold; a node and an attribute each."""


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
    return max(float((one - other).abs().max()) for (one, _), (other, _) in pairs)


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


def append_result(
    path: str | Path, result: Mapping[str, Any], expected: str = "", notify: Notify = silent
) -> None:
    """Add an evaluation to a set's file; the set and its checksum do not change.

    Args:
        expected: the `digest` of the set that was evaluated; empty for any.
        notify: as for `write`.

    Raises:
        UserError: as `read`; the result is not JSON, or too large; the file holds another set by now, or
            cannot be written.
    """
    try:
        text = json.dumps(result, allow_nan=False)
        parse_json(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"the result cannot be written as JSON: {reason(error)}") from error
    if len(text) > LONGEST:
        raise UserError(f"a result of more than {LONGEST / 1e6:.3g} MB is no evaluation; shorten it")
    path = files.expanded(path)
    if not path.exists():
        digest(path)  # raises the error of a file that is not there
    files.check_target(path)
    with exclusive(path, notify):  # or two evaluations that end at the same time would lose one result
        with opened(path, SET) as file:
            parse(file)
            sha256, earlier = str(attribute(file, "sha256")), parse_results(file)
            check_same(path, sha256, expected)
        number = max(earlier, default=-1) + 1
        if number >= MOST_RESULTS:
            raise UserError(
                f"{path} holds {number:,} results, as many as it can; evaluate a copy without them"
            )
        buffer = io.BytesIO(_bytes(path))
        with h5py.File(buffer, "r+", libver=LAYOUT) as file:
            add_result(file, number, text)
        _check_added(buffer, path, sha256, earlier | {number: json.loads(text)})
        replace(path, buffer.getbuffer())


def _bytes(path: str | Path) -> bytes:
    try:
        return files.read(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error


def _check_added(
    buffer: io.BytesIO, path: str | Path, digest: str, results: Mapping[int, Mapping[str, Any]]
) -> None:
    """Check that the new content of a file holds the same set as the old one, and these results.

    Raises:
        UserError: it does not.
    """
    try:
        with h5py.File(buffer, "r") as file:
            parse(file)
            whole = attribute(file, "sha256") == digest and parse_results(file) == results
    except Exception as error:  # h5py meets damage with OSError, KeyError, RuntimeError, ValueError, …
        raise UserError(f"{path} stays as it is: with the result it cannot be read") from error
    if not whole:
        raise UserError(f"{path} stays as it is: with the result it holds something else")


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


def results(path: str | Path) -> list[dict[str, Any]]:
    """Return the evaluations in a set's file, in the order in which they were added.

    Raises:
        UserError: as `read`.
    """
    with opened(path, SET) as file:
        return list(parse_results(file).values())


@dataclass(frozen=True)
class Description:
    """The content of a set's file and its size.

    Attributes:
        counts: stored images of each class.
        compensators: stored images that are added to those of all classes; they are of no class.
        decoded_counts: training images of each class; equal to ``counts`` if the set needs no decoding.
        shape: of an image: C, H, W.
        dtype: of the stored pixels; None where they are coded.
        storage: how pixels are stored, for people.
        coded: their bits, side of a patch and number of shared quantisers; None where they are not.
        preprocess: its kind.
        labels: which it has: "hard", "hard, soft labels", "hard, 3000 views (30 epochs, cutmix, float16)",
            "targets of 512 numbers".
        file_bytes, image_bytes, label_bytes, preprocess_bytes: bytes on disk, compressed; compensators are
            images; labels are the hard and the soft ones, the weights of images, targets and views.
        view_bytes: those of the views alone.
        digest: the checksum of the set, results aside.
        attributes: how the set was made.
        results: the evaluations, in the order in which they were added.
    """

    classes: tuple[str, ...]
    counts: tuple[int, ...]
    compensators: int
    decoded_counts: tuple[int, ...]
    multi_formation: MultiFormation
    shape: tuple[int, ...]
    dtype: Dtype | None
    storage: str
    coded: Coding | None
    preprocess: str
    has_soft_labels: bool
    labels: str
    file_bytes: int
    image_bytes: int
    label_bytes: int
    view_bytes: int
    preprocess_bytes: int
    digest: str
    attributes: dict[str, Scalar]
    results: list[dict[str, Any]]

    @property
    def bits(self) -> int:
        """Of a stored pixel."""
        if self.coded:
            return self.coded.bits
        assert self.dtype
        return int(8 * pixel_bytes(self.dtype))


def describe(path: str | Path) -> Description:
    """Verify a file and describe its content.

    Raises:
        UserError: as `read`.
    """
    with opened(path, SET) as file:
        distilled = parse(file)
        sizes, coded = _sizes(file), distilled.coded
        dtype = None if coded else str(file["images"].dtype)
        per_class = Counter(distilled.labels.tolist())
        counts = tuple(per_class[label] for label in range(len(distilled.classes)))
        return Description(
            classes=distilled.classes,
            counts=counts,
            compensators=distilled.compensator_count,
            decoded_counts=tuple(
                decoded_counts(counts, distilled.multi_formation, distilled.compensator_count)
            ),
            multi_formation=distilled.multi_formation,
            shape=tuple(distilled.images.shape[1:]),
            dtype=dtype,  # type: ignore[arg-type]  # which `parse` has checked
            storage=coded.words if coded else str(dtype),
            coded=coded.coding if coded else None,
            preprocess=distilled.preprocess.kind,
            has_soft_labels=distilled.soft_labels is not None,
            labels=_label_words(distilled),
            file_bytes=files.expanded(path).stat().st_size,
            image_bytes=sizes.image_bytes + sizes.compensator_bytes,
            label_bytes=sizes.label_bytes,
            view_bytes=sizes.view_bytes,
            preprocess_bytes=sizes.preprocess_bytes,
            digest=str(attribute(file, "sha256")),
            attributes=dict(distilled.attributes),
            results=list(parse_results(file).values()),
        )


_LABELS = ("labels", "soft_labels", "sample_weights", "targets", "views")
"""The nodes that tell what the images are."""


def _label_words(distilled: DistilledSet) -> str:
    """Say which labels a set has."""
    hard = ["hard"] if is_labelled(distilled.classes) else []
    return ", ".join([*hard, *extra_labels(distilled).values()]) or "none"


@dataclass(frozen=True)
class Sizes:
    """Bytes of a set in a file, compressed.

    Attributes:
        image_bytes: of the images. compensator_bytes: of compensators.
        label_bytes: of hard and soft labels, weights of images, targets and views.
        view_bytes: of the views alone.
        preprocess_bytes: of the preprocessing.
    """

    image_bytes: int
    compensator_bytes: int
    label_bytes: int
    view_bytes: int
    preprocess_bytes: int


def sizes_of(distilled: DistilledSet, dtype: Dtype | None = None) -> Sizes:
    """Return the bytes that a set would take in a file.

    Args:
        dtype: as of `write`.

    Raises:
        UserError: the dtype cannot hold a pixel.
    """
    with h5py.File(io.BytesIO(), "w", libver=LAYOUT) as file:
        fill(file, distilled, dtype)
        return _sizes(file)


def _sizes(file: h5py.File) -> Sizes:
    size = Counter({name: stored_bytes(node) for name, node in file.items()})
    return Sizes(
        image_bytes=size["images"] + size["pixels"],
        compensator_bytes=size["compensators"],
        label_bytes=sum(size[name] for name in _LABELS),
        view_bytes=size["views"],
        preprocess_bytes=size["preprocess"],
    )


def stored_bytes(node: h5py.Group | h5py.Dataset) -> int:
    """Return the bytes on disk of a data set, or of all in a group."""
    if isinstance(node, h5py.Dataset):
        return int(node.id.get_storage_size())
    return sum(map(stored_bytes, node.values()))


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
