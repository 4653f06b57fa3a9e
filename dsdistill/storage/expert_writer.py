"""Write an `ExpertFile`: one snapshot in memory at a time, moved into place at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import h5py

from dsdistill import files
from dsdistill.errors import UserError
from dsdistill.storage.expert_schema import Expert, ExpertMetadata, fill
from dsdistill.storage.hdf5 import LAYOUT, check_attribute, check_names

_SPARE = 1 << 24  # bytes of a file beyond its weights


def write(path: str | Path, metadata: ExpertMetadata, experts: Iterable[Expert], count: int) -> None:
    """Write an expert file, one snapshot in memory at a time; it replaces at once any file at ``path``.

    Args:
        experts: ``count`` of them, each with a snapshot for every epoch of ``metadata``.

    Raises:
        UserError: the file cannot be written, or HDF5 cannot store a name.
        ValueError: there are more or fewer experts or snapshots than that.
    """
    check_storable(metadata)
    check_space(Path(os.path.realpath(path)), count * metadata.expert_bytes)
    with files.replacing(path) as part, h5py.File(part, "w", libver=LAYOUT) as file:
        fill(file, metadata, experts, count)


def check_storable(metadata: ExpertMetadata) -> None:
    """Check before the training that a file can hold the texts of its experts.

    Raises:
        UserError: one holds a character that HDF5 cannot store, or is too long.
    """
    check_names(metadata.classes)
    for name in ("dataset", "network", "config", "packages"):
        check_attribute(name, getattr(metadata, name))


def check_space(path: Path, needed: int) -> None:
    """Check that a file fits on the disk, because a full disk crashes HDF5.

    Raises:
        UserError: it does not fit; the sentence states the bytes needed and the bytes free.
    """
    free = shutil.disk_usage(path.absolute().parent).free
    if free < needed + _SPARE:
        raise UserError(
            f"{path.name} needs {needed / 1e9:.3g} GB and {free / 1e9:.3g} GB are free in "
            f"{path.absolute().parent}; make room, keep fewer epochs or train fewer experts"
        )
