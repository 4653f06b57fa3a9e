"""How many bytes a set takes in a file, by what they hold."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass

import h5py

from dsdistill.config.storage import Dtype
from dsdistill.storage.hdf5 import LAYOUT
from dsdistill.storage.set_schema import fill
from dsdistill.synthetic.distilled import DistilledSet

_LABELS = ("labels", "soft_labels", "sample_weights", "targets", "views")
"""The nodes that tell what the images are."""


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
        dtype: as of `set_file.write`.

    Raises:
        UserError: the dtype cannot hold a pixel.
    """
    with h5py.File(io.BytesIO(), "w", libver=LAYOUT) as file:
        fill(file, distilled, dtype)
        return sizes_in(file)


def sizes_in(file: h5py.File) -> Sizes:
    """Return the bytes that a set takes in an open file."""
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
