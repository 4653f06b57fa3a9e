"""The content of an expert file, as HDF5 nodes: networks trained on real data, each at several epochs.

======================= ==========================================================================
node                    content
======================= ==========================================================================
``/weights``            float32 [experts, epochs, P]: the parameters in the order of the network's
                        ``named_parameters()``, flattened and joined
``/buffers``            float32 [experts, epochs, Q] likewise: the other tensors of its ``state_dict()``, such
                        as running statistics; absent if Q = 0
``/digests``            uint8 [experts, epochs, 2, 32]: SHA-256 of the bytes of each state's weights, and of
                        its buffers; from version 2
``/epochs``             int64, ascending: the stored epochs of training; 0 is the initial weights
``/classes``            K names, UTF-8, in label order
``/preprocess/<name>``  the preprocessing of the training images; the attribute ``kind`` names it
``/training/<name>``    of each expert: ``loss`` and ``accuracy`` on the images trained on (final weights, no
                        augmentation), ``seconds``, ``machine``, ``created``; of networks that were
                        trained without labels, of the linear probe that is their classifier, or, where
                        the data have none, the loss of the last epoch and an accuracy of 0
``/training/test_accuracy``
                        float64 [experts, epochs]: the accuracy on the test images at every stored epoch;
                        absent where it was not measured
``/training/validation_accuracy``
                        float64 [experts, epochs] likewise: on the training images that were held out
                        (`dsdistill.data.selection.validation_split`); absent where none were
``/training/el2n``      float32 [experts, N]: the EL2N score of every training image, in their order; absent
                        where it was not recorded
attributes of ``/``     ``format``, ``version``, ``network``, ``layout`` (JSON: name, shape and dtype of every
                        flattened tensor), ``channels``, ``size``, ``dataset``, ``fingerprint``, ``seed``,
                        ``config`` (TOML), ``packages`` (JSON), ``sha256`` (from version 2)
======================= ==========================================================================

A file with ``validation_accuracy`` is of version 5, any other with ``el2n`` of 4, any other with
``test_accuracy`` of 3, and all others are of 2.
Weights are not compressed, because they hardly shrink. A state is compared with its digest when it is read.
``sha256`` covers all the rest when the file is opened: see `dsdistill.storage.hdf5.checksum`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from dsdistill.data.preprocess import Preprocess, from_state
from dsdistill.files import parse_toml
from dsdistill.networks.layout import Layout
from dsdistill.storage.hdf5 import EXPERTS, attribute, checksum, contents, create, fixed_text, set_attributes

_TRAINING: dict[str, type] = {
    "loss": float,
    "accuracy": float,
    "seconds": float,
    "machine": str,
    "created": str,
}
_ATTRIBUTES: dict[str, type] = {
    "network": str,
    "dataset": str,
    "fingerprint": str,
    "channels": int,
    "size": int,
    "seed": int,
    "config": str,
    "packages": str,
}
ACCURACIES = ("test_accuracy", "validation_accuracy")
"""The fields of a record on images that no step saw, a fraction for every stored epoch."""
_SCORED = "el2n"
_SINCE = {"test_accuracy": 3, _SCORED: 4, "validation_accuracy": 5}
"""The version since which a file may hold a node of ``/training``."""
_MOST = math.sqrt(2) + 1e-5  # of EL2N, up to rounding
_CHUNK = 1 << 22  # values: 16 MB
SLICED = EXPERTS.sliced
"""The data sets of a state, in the order of a `Snapshot`."""
DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpertMetadata:
    """The properties that all experts of a file share.

    Attributes:
        epochs: the stored epochs, ascending; 0 is the initial weights.
        config: of their training, TOML.
    """

    network: str
    layout: Layout
    dataset: str
    fingerprint: str
    classes: tuple[str, ...]
    channels: int
    size: int
    preprocess: Preprocess
    epochs: tuple[int, ...]
    seed: int
    config: str
    packages: str = "{}"

    @property
    def recipe(self) -> str:
        """The name or path of the recipe that they were trained by; empty where it is not stated."""
        return str(parse_toml(self.config).get("recipe", ""))

    @property
    def self_supervised(self) -> bool:
        """Whether they were trained without labels, so that a classifier is a linear probe at most."""
        return parse_toml(self.config).get("objective", "classification") != "classification"

    @property
    def expert_bytes(self) -> int:
        """Bytes of one expert in a file."""
        return 4 * len(self.epochs) * sum(self.layout.sizes)


@dataclass(frozen=True)
class TrainingRecord:
    """The outcome of one expert's training.

    Attributes:
        loss, accuracy: on the images trained on, not augmented, with the final weights; the accuracy is a
            fraction.
        seconds: its duration.
        machine: where it ran.
        created: when it ended, ISO 8601.
        test_accuracy: on the test images, a fraction, at every stored epoch; empty where it was not measured.
        validation_accuracy: likewise on the training images that were held out; empty where none were.
    """

    loss: float
    accuracy: float
    seconds: float
    machine: str
    created: str
    test_accuracy: tuple[float, ...] = ()
    validation_accuracy: tuple[float, ...] = ()


Snapshot = tuple[Tensor, Tensor]
"""Weights float32 [P] and buffers float32 [Q]."""

Expert = tuple[TrainingRecord, Iterable[Snapshot]]
"""One network: the outcome of its training, and its state at every stored epoch."""


def fill(
    file: h5py.File,
    metadata: ExpertMetadata,
    experts: Iterable[Expert],
    count: int,
    scores: Sequence[Tensor] = (),
) -> None:
    """Write experts into an empty file, one snapshot in memory at a time.

    Args:
        scores: the EL2N of every training image, float32 [N] of each expert; empty if it was not recorded.

    Raises:
        ValueError: there are more or fewer than ``count`` experts, or than one snapshot for each epoch.
    """
    epochs = len(metadata.epochs)
    nodes = [
        file.create_dataset(
            name, (count, epochs, length), "<f4", chunks=(1, 1, min(length, _CHUNK)), fletcher32=True
        )
        for name, length in zip(SLICED, metadata.layout.sizes, strict=True)
        if length
    ]
    records: list[TrainingRecord] = []
    digests = np.zeros((count, epochs, len(SLICED), DIGEST_BYTES), np.uint8)
    for number, (record, snapshots) in enumerate(experts):
        records.append(record)
        for position, flats in zip(range(epochs), snapshots, strict=True):
            for node, flat in zip(nodes, flats, strict=False):  # no node where there are no buffers
                node[number, position] = flat.numpy()
            digests[number, position] = [digest_of(flat.numpy()) for flat in flats]
    if len(records) != count:
        raise ValueError(f"{len(records)} experts came where {count} were announced")
    create(file, "digests", digests)
    create(file, "epochs", np.array(metadata.epochs, dtype=np.int64))
    create(file, "classes", fixed_text(metadata.classes))
    preprocess = file.create_group("preprocess")
    set_attributes(preprocess, kind=metadata.preprocess.kind)
    for name, tensor in metadata.preprocess.state().items():
        create(preprocess, name, tensor.numpy())
    training = file.create_group("training")
    for name, kind in _TRAINING.items():
        column = [getattr(record, name) for record in records]
        create(training, name, fixed_text(column) if kind is str else np.array(column, dtype=np.float64))
    for name in ACCURACIES:
        accuracies = np.array([getattr(record, name) for record in records], dtype=np.float64)
        if accuracies.size:
            create(training, name, accuracies)
    if scores:
        create(training, _SCORED, torch.stack(list(scores)).numpy())
    set_attributes(
        file,
        format=EXPERTS.name,
        version=max([2, *(since for name, since in _SINCE.items() if name in training)]),
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
    set_attributes(file, sha256=checksum(*contents(file, SLICED)))


def digest_of(flat: np.ndarray) -> np.ndarray:
    """Return the SHA-256 of an array's bytes, uint8 [32]."""
    return np.frombuffer(hashlib.sha256(np.ascontiguousarray(flat).data).digest(), np.uint8)


def parse_digests(file: h5py.File) -> np.ndarray | None:
    """Check all but weights and buffers against their checksum, and return the digests of those.

    Returns:
        uint8 [experts, epochs, 2, 32]; None where the file is of version 1, which has neither.

    Raises:
        ValueError: the checksum is another, or there is none.
    """
    if attribute(file, "version") == 1:
        return None
    if attribute(file, "sha256") != checksum(*contents(file, SLICED)):
        raise ValueError("its checksum does not match its content")
    digests = np.asarray(file["digests"][()])
    shape = (len(file["training/loss"]), len(file["epochs"]), len(SLICED), DIGEST_BYTES)
    if digests.dtype != np.uint8 or digests.shape != shape:
        raise ValueError(f"/digests is {digests.dtype} {list(digests.shape)}, not uint8 {list(shape)}")
    return digests


def parse_metadata(file: h5py.File) -> ExpertMetadata:
    """Read all but weights and training records, and verify that the weights have the shape they should.

    Raises:
        ValueError: an attribute is of another type, the epochs do not ascend, or weights or buffers are of
            another shape.
    """
    attributes = {name: _typed(file, name, kind) for name, kind in _ATTRIBUTES.items()}
    parse_toml(attributes["config"])
    state = {name: torch.from_numpy(np.asarray(node[()])) for name, node in file["preprocess"].items()}
    epochs = tuple(file["epochs"][:].tolist())
    layout = Layout.parse(str(attribute(file, "layout")))
    if not epochs or list(epochs) != sorted(set(epochs)) or epochs[0] < 0:
        raise ValueError("/epochs does not ascend from 0 or above")
    for name, length in zip(SLICED, layout.sizes, strict=True):
        if length:
            _check_shape(file, name, (len(file["training/loss"]), len(epochs), length))
    return ExpertMetadata(
        layout=layout,
        classes=tuple(name.decode() for name in file["classes"][:]),
        preprocess=from_state(str(attribute(file["preprocess"], "kind")), state),
        epochs=epochs,
        **attributes,
    )


def _typed(file: h5py.File, name: str, kind: type) -> Any:
    value = attribute(file, name)
    if not isinstance(value, kind):
        raise ValueError(f"the attribute {name!r} has an unknown type")
    return value


def _check_shape(file: h5py.File, name: str, shape: tuple[int, int, int]) -> None:
    node = file[name]
    if node.dtype != np.dtype("<f4") or node.shape != shape:
        raise ValueError(f"/{name} is {node.dtype} {list(node.shape)}, not float32 {list(shape)}")


def parse_training(file: h5py.File) -> tuple[TrainingRecord, ...]:
    """Read the outcome of each expert's training.

    Raises:
        ValueError: there is none, one is incomplete, or a number is not finite.
    """
    columns = {name: _column(file["training"][name], kind) for name, kind in _TRAINING.items()}
    for name in ACCURACIES:
        if name in file["training"]:
            columns[name] = _accuracies(file["training"][name], len(file["epochs"]))
    records = tuple(
        TrainingRecord(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)
    )
    if not records:
        raise ValueError("/training is empty")
    return records


def parse_el2n(file: h5py.File) -> bool:
    """Return whether a file holds the EL2N scores of the training images, and verify those that it holds.

    Raises:
        ValueError: they are not one float32 for each image of each expert, or out of range.
    """
    if _SCORED not in file["training"]:
        return False
    node = file["training"][_SCORED]
    experts = len(file["training/loss"])
    if node.dtype != np.dtype("<f4") or node.ndim != 2 or len(node) != experts:
        raise ValueError(
            f"{node.name} is {node.dtype} {list(node.shape)}, not one float32 for each image of each expert"
        )
    if not all(((row >= 0) & (row <= _MOST)).all() for row in node):
        raise ValueError(f"{node.name} holds values that are no scores, which lie between 0 and √2")
    return True


def read_el2n(file: h5py.File, expert: int) -> Tensor:
    """Read the EL2N scores of the training images by one expert, float32 [N]."""
    return torch.from_numpy(file["training"][_SCORED][expert])


def _accuracies(node: h5py.Dataset, epochs: int) -> list[tuple[float, ...]]:
    """Read the accuracies on images that no step saw, a row for each expert."""
    values = node[:]
    if values.dtype != np.float64 or values.shape[1:] != (epochs,):
        raise ValueError(
            f"{node.name} is {values.dtype} {list(values.shape)}, not one float64 for each epoch"
        )
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{node.name} holds values that are no fractions")
    return [tuple(row) for row in values.tolist()]


def _column(node: h5py.Dataset, kind: type) -> list[Any]:
    values = node[:]
    if values.ndim != 1 or values.dtype.kind != ("S" if kind is str else "f"):
        raise ValueError(f"{node.name} has an unknown type")
    if kind is str:
        return [value.decode() for value in values]
    if not np.isfinite(values).all():
        raise ValueError(f"{node.name} holds values that are not finite")
    return values.tolist()
