"""Write an `ExpertFile`: one snapshot in memory at a time, verified, moved into place at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import h5py
import torch
from torch import Tensor

from dsdistill import files
from dsdistill.errors import UserError
from dsdistill.storage.expert_schema import (
    SLICED,
    Expert,
    ExpertMetadata,
    Snapshot,
    TrainingRecord,
    digest_of,
    fill,
    parse_digests,
    parse_el2n,
    parse_metadata,
    parse_training,
    read_el2n,
)
from dsdistill.storage.hdf5 import check_attribute, check_names
from dsdistill.storage.streams import Stream, hdf5_in

_SPARE = 1 << 24  # bytes of a file beyond its weights


def write(
    path: str | Path,
    metadata: ExpertMetadata,
    experts: Iterable[Expert],
    count: int,
    scores: Sequence[Tensor] = (),
) -> None:
    """Write an expert file, one snapshot in memory at a time; it replaces at once any file at ``path``.

    What is written is read back, and compared with what came, before any file is replaced.

    Args:
        experts: ``count`` of them, each with a snapshot for every epoch of ``metadata``.
        scores: the EL2N of every training image, float32 [N] of each expert; empty if it was not recorded.

    Raises:
        UserError: the file cannot be written, it reads back otherwise, or HDF5 cannot store a name.
        ValueError: there are more or fewer experts or snapshots than that.
    """
    check_storable(metadata)
    check_space(Path(os.path.realpath(path)), count * metadata.expert_bytes)
    passed = _Passed(metadata, scores)
    with files.replacing(path, passed.verify) as part, hdf5_in(part, "w") as (file, stream):
        fill(file, metadata, passed.along(experts, stream), count, scores)


class _Passed:
    """What went into a file: metadata, training records, scores, and the digests of each snapshot."""

    def __init__(self, metadata: ExpertMetadata, scores: Sequence[Tensor]) -> None:
        self._metadata, self._scores = metadata, scores
        self._training: list[TrainingRecord] = []
        self._digests: list[list[list[bytes]]] = []

    def along(self, experts: Iterable[Expert], stream: Stream) -> Iterator[Expert]:
        """Pass experts on, as long as the file takes them."""
        for record, snapshots in experts:
            digests: list[list[bytes]] = []
            self._training.append(record)
            self._digests.append(digests)
            yield record, self._noted(snapshots, digests, stream)

    def _noted(
        self, snapshots: Iterable[Snapshot], digests: list[list[bytes]], stream: Stream
    ) -> Iterator[Snapshot]:
        for snapshot in snapshots:
            stream.check()
            digests.append([digest_of(flat.numpy()).tobytes() for flat in snapshot])
            yield snapshot

    def verify(self, written: BinaryIO) -> None:
        """Check that a file holds all of it.

        Raises:
            OSError: it does not.
        """
        try:
            with hdf5_in(written, "r") as (file, _):
                same = self._agrees(file)
        except Exception as error:  # h5py meets damage with OSError, KeyError, RuntimeError, ValueError, …
            if isinstance(error, OSError) and error.errno:  # not h5py's: the disk cannot be read
                raise
            raise files.mismatch() from error
        if not same:
            raise files.mismatch()

    def _agrees(self, file: h5py.File) -> bool:
        stored = parse_digests(file)
        if _text(parse_metadata(file), parse_training(file)) != _text(self._metadata, self._training):
            return False
        if parse_el2n(file) != bool(self._scores) or not all(
            torch.equal(read_el2n(file, expert), scores) for expert, scores in enumerate(self._scores)
        ):
            return False
        nodes = [file[name] for name in SLICED if name in file]
        return stored is not None and all(
            stored[expert, position].tobytes() == b"".join(digests)
            and all(
                digest_of(node[expert, position]).tobytes() == digest
                for node, digest in zip(nodes, digests, strict=False)  # no node where there are no buffers
            )
            for expert, epochs in enumerate(self._digests)
            for position, digests in enumerate(epochs)
        )


def _text(metadata: ExpertMetadata, training: Iterable[TrainingRecord]) -> str:
    """Write all but the weights as text, which is equal for equal content, NaN included."""
    state = metadata.preprocess.state()
    tensors = {
        name: (value.dtype, value.shape, digest_of(value.numpy()).tobytes()) for name, value in state.items()
    }
    fields = {name: value for name, value in vars(metadata).items() if name != "preprocess"}
    return repr((sorted(fields.items()), metadata.preprocess.kind, sorted(tensors.items()), list(training)))


def check_storable(metadata: ExpertMetadata) -> None:
    """Check before the training that a file can hold the texts of its experts.

    Raises:
        UserError: one holds a character that HDF5 cannot store, or is too long.
    """
    check_names(metadata.classes)
    for name in ("dataset", "network", "config", "packages"):
        check_attribute(name, getattr(metadata, name))


def check_space(path: Path, needed: int) -> None:
    """Check that a file fits on the disk, because a full disk crashes HDF5; its folder need not exist yet.

    Raises:
        UserError: it does not fit; the sentence states the bytes needed and the bytes free.
    """
    folder = next(each for each in path.absolute().parents if each.exists())
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE:
        raise UserError(
            f"{path.name} needs {needed / 1e9:.3g} GB and {free / 1e9:.3g} GB are free in "
            f"{folder}; make room, keep fewer epochs or train fewer experts"
        )
