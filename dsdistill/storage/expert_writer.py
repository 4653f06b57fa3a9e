"""Write an `ExpertFile`: one snapshot in memory at a time, put in place at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np

from dsdistill import files
from dsdistill.errors import UserError
from dsdistill.files import reason
from dsdistill.storage.expert_file import FORMAT, TRAINING, VERSION, Expert, ExpertMetadata, TrainingRecord
from dsdistill.storage.hdf5 import LAYOUT, check_text, create, fixed_text, set_attributes

_CHUNK = 1 << 22  # values: 16 MB
_SPARE = 1 << 24  # bytes of a file beyond its weights


def write(path: str | Path, metadata: ExpertMetadata, experts: Iterable[Expert], count: int) -> None:
    """Write a buffer, one snapshot in memory at a time, replacing at once whatever file was there.

    Args:
        experts: ``count`` of them; each brings a snapshot for every epoch of ``metadata``.

    Raises:
        UserError: the file cannot be written, or a name holds what HDF5 cannot store.
        ValueError: more or fewer experts or snapshots came than were announced.
    """
    for text in (metadata.dataset, metadata.config, *metadata.classes):
        check_text("a name", text)
    target = Path(os.path.realpath(path))
    files.check_folder(target)
    check_space(target, count * metadata.expert_bytes)
    part = files.temporary_neighbour(target)
    try:
        with h5py.File(part, "w", libver=LAYOUT) as file:
            _write(file, metadata, experts, count)
        with open(part, "rb") as written:
            os.fsync(written.fileno())
        os.replace(part, target)
        files.sync_folder(target.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason(error)}") from error
    finally:
        part.unlink(missing_ok=True)


def check_space(path: Path, needed: int) -> None:
    """Find out before HDF5 does, which a full disk crashes, whether a file fits.

    Raises:
        UserError: saying how much is free and how much is missing.
    """
    free = shutil.disk_usage(path.absolute().parent).free
    if free < needed + _SPARE:
        raise UserError(
            f"{path.name} needs {needed / 1e9:.3g} GB and {free / 1e9:.3g} GB are free in "
            f"{path.absolute().parent}; make room, keep fewer epochs or train fewer experts"
        )


def _write(file: h5py.File, metadata: ExpertMetadata, experts: Iterable[Expert], count: int) -> None:
    kept = len(metadata.epochs)
    nodes = [
        file.create_dataset(
            name, (count, kept, length), "<f4", chunks=(1, 1, min(length, _CHUNK)), fletcher32=True
        )
        for name, length in zip(("weights", "buffers"), metadata.layout.sizes, strict=True)
        if length
    ]
    trained: list[TrainingRecord] = []
    for number, (training, snapshots) in enumerate(experts):
        trained.append(training)
        for position, flats in zip(range(kept), snapshots, strict=True):
            for node, flat in zip(nodes, flats, strict=False):  # no node where there are no buffers
                node[number, position] = flat.numpy()
    if len(trained) != count:
        raise ValueError(f"{len(trained)} experts came where {count} were announced")
    create(file, "epochs", np.array(metadata.epochs, dtype=np.int64))
    create(file, "classes", fixed_text(metadata.classes))
    preprocess = file.create_group("preprocess")
    set_attributes(preprocess, kind=metadata.preprocess.kind)
    for name, tensor in metadata.preprocess.state().items():
        create(preprocess, name, tensor.numpy())
    training_node = file.create_group("training")
    for name, kind in TRAINING.items():
        column = [getattr(each, name) for each in trained]
        create(training_node, name, fixed_text(column) if kind is str else np.array(column, dtype=np.float64))
    set_attributes(
        file,
        format=FORMAT,
        version=VERSION,
        network=metadata.network,
        layout=metadata.layout.text(),
        channels=metadata.channels,
        size=metadata.size,
        dataset=metadata.dataset,
        fingerprint=metadata.fingerprint,
        seed=metadata.seed,
        config=metadata.config,
        packages=metadata.packages,
    )
