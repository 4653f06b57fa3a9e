"""A buffer: networks trained on real data, each at several epochs, in one HDF5 file read by the slice.

======================= ==========================================================================
node                    content
======================= ==========================================================================
``/weights``            float32 [experts, kept, P]: the parameters in the order of the network's
                        ``named_parameters()``, flattened and joined
``/buffers``            float32 [experts, kept, Q] likewise: what else its ``state_dict()`` holds, such as
                        running statistics; absent where Q = 0
``/epochs``             int64 [kept], ascending: epochs of training behind each; 0 is the initial weights
``/classes``            K names, UTF-8, in label order
``/preprocess/<name>``  what the networks saw; the attribute ``kind`` says what it is
``/training/<name>``    of each expert: ``loss`` and ``accuracy`` on the training images (final weights, no
                        augmentation), ``seconds``, ``machine``, ``created``
attributes of ``/``     ``format``, ``version``, ``network``, ``layout`` (JSON: name, shape and dtype of all
                        that is flattened), ``channels``, ``size``, ``dataset``, ``fingerprint``, ``seed``,
                        ``config`` (TOML), ``packages`` (JSON)
======================= ==========================================================================

Weights are not compressed: they hardly shrink. Every chunk carries a checksum, verified when it is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from dsdistill.data.preprocess import Preprocess, from_state
from dsdistill.data.real import Task
from dsdistill.errors import UserError
from dsdistill.files import reason
from dsdistill.networks import build_network
from dsdistill.networks.base import Network
from dsdistill.networks.layout import Layout
from dsdistill.seeding import forked
from dsdistill.storage.hdf5 import EXPERTS, attribute
from dsdistill.text import listing, ranges

FORMAT = EXPERTS
VERSION = 1

TRAINING: dict[str, type] = {
    "loss": float,
    "accuracy": float,
    "seconds": float,
    "machine": str,
    "created": str,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpertMetadata:
    """What all experts of a buffer have in common.

    Attributes:
        epochs: those kept, ascending; 0 is the initial weights.
        config: what they were trained with, TOML.
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
    def expert_bytes(self) -> int:
        """Bytes that one expert takes in a file."""
        return 4 * len(self.epochs) * sum(self.layout.sizes)


@dataclass(frozen=True)
class TrainingRecord:
    """How one expert's training went.

    Attributes:
        loss, accuracy: on the training images, not augmented, with the final weights; the accuracy is a
            fraction.
        seconds: it took.
        machine: it ran on.
        created: when it ended, ISO 8601.
    """

    loss: float
    accuracy: float
    seconds: float
    machine: str
    created: str


Snapshot = tuple[Tensor, Tensor]
"""Weights float32 [P] and buffers float32 [Q]."""

Expert = tuple[TrainingRecord, Iterable[Snapshot]]
"""One network: how its training went, and its state at every kept epoch."""


@dataclass(frozen=True, eq=False)
class ExpertFile:
    """A buffer that was verified when it was opened; weights are read from the file when they are asked for.

    Attributes:
        path: of the file.
        metadata: what its experts have in common.
        training: how each one's training went.
    """

    path: Path
    metadata: ExpertMetadata
    training: tuple[TrainingRecord, ...]

    @classmethod
    def open(cls, path: str | Path) -> ExpertFile:
        """Open a buffer and verify its structure.

        Raises:
            UserError: no such file, not a buffer, made by a newer version, or damaged.
        """
        with _opened(Path(path)) as file:
            metadata = _facts(file)
            return cls(Path(path), metadata, _trained(file))

    @property
    def count(self) -> int:
        """Experts held."""
        return len(self.training)

    @property
    def epochs(self) -> tuple[int, ...]:
        """Epochs kept, ascending; 0 is the initial weights."""
        return self.metadata.epochs

    @property
    def digest(self) -> str:
        """16 hexadecimal digits by which the experts are known.

        Weights, many gigabytes, are not read: the digits follow from what experts were trained on and from
        the final loss of the first, which no other training has to the last bit. More experts change nothing.
        """
        metadata, first = self.metadata, self.training[0]
        told = [
            metadata.network,
            metadata.fingerprint,
            metadata.seed,
            metadata.epochs,
            first.loss,
            first.accuracy,
        ]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]

    def flat(self, expert: int, epoch: int) -> Tensor:
        """Return the parameters of an expert after some epochs, float32 [P], in ``named_parameters()`` order.

        Raises:
            UserError: there is no such expert, the epoch was not kept, or the file is damaged there.
        """
        return self._read("weights", expert, epoch)

    def snapshot(self, expert: int, epoch: int) -> Snapshot:
        """Return `flat` and the buffers beside it, float32 [Q]; errors as there."""
        has_buffers = bool(self.metadata.layout.buffers)
        return self.flat(expert, epoch), (
            self._read("buffers", expert, epoch) if has_buffers else torch.empty(0)
        )

    def state(self, expert: int, epoch: int) -> dict[str, Tensor]:
        """Return what ``network.load_state_dict`` takes, float32 and on the CPU; errors as `flat`."""
        return self.metadata.layout.unpack(*self.snapshot(expert, epoch))

    def check(self, task: Task, network: str, fingerprint: str) -> None:
        """Refuse to serve a task that the experts were not trained for.

        Args:
            task: what is distilled.
            network: the name of the network that is matched with.
            fingerprint: of the training images.

        Raises:
            UserError: data set, classes and their order, image shape, preprocessing or network differ; the
                sentence names both.
        """
        mine = self.metadata
        if mine.classes != task.classes:
            raise self._other(*_differing(mine.classes, task.classes))
        shapes = [f"{c}x{size}x{size}" for c, size in ((mine.channels, mine.size), task.shape[:2])]
        if shapes[0] != shapes[1]:
            raise self._other("images of", shapes[0], shapes[1])
        if mine.fingerprint != fingerprint:
            one, other = mine.fingerprint[:8], fingerprint[:8]
            raise self._other("data set", f"{mine.dataset} ({one}…)", f"{task.name} ({other}…)")
        if mine.preprocess.kind != task.preprocess.kind:
            hint = (
                "; pass --set data.zca=true"
                if mine.preprocess.kind == "zca"
                else "; pass --set data.zca=false"
            )
            raise self._other("preprocessing", mine.preprocess.kind, task.preprocess.kind, hint)
        if not _close(mine.preprocess.state(), task.preprocess.state()):
            kind = mine.preprocess.kind
            raise self._other("preprocessing", f"one {kind}", f"another {kind}, of other constants")
        if mine.network != network and not self._same_network(network):
            raise self._other("network", mine.network, network, f"; pass --network {mine.network}")
        if Layout.of(self._built(mine.network)) != mine.layout:
            raise UserError(
                f"{self.path} holds weights of another {mine.network} than this version builds; make it again"
            )

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        file = self.__dict__.pop("_file", None)
        if file is not None:
            file.close()

    @cached_property
    def _file(self) -> h5py.File:
        return h5py.File(self.path, "r")

    def _read(self, name: str, expert: int, epoch: int) -> Tensor:
        if not 0 <= expert < self.count:
            raise UserError(f"{self.path} holds experts 0 to {self.count - 1}, not expert {expert}")
        if epoch not in self.epochs:
            raise UserError(f"{self.path} does not hold epoch {epoch}; it holds {ranges(self.epochs)}")
        try:
            return torch.from_numpy(self._file[name][expert, self.epochs.index(epoch)])
        except Exception as error:  # h5py meets damage with OSError, KeyError, RuntimeError, …
            raise UserError(
                f"{self.path} is damaged at expert {expert}, epoch {epoch}: {reason(error)}; make it again"
            ) from error

    def _same_network(self, name: str) -> bool:
        """Whether a name is another one for the same network, as convnet is for convnet3."""
        return repr(self._built(name)) == repr(self._built(self.metadata.network))

    def _built(self, name: str) -> Network:
        with forked(0, "networks"):
            return build_network(name, self.metadata.channels, self.metadata.size, len(self.metadata.classes))

    def _other(self, what: str, mine: str, asked: str, hint: str = "; train experts for it") -> UserError:
        return UserError(f"{self.path} was trained with {what} {mine}, and this run has {asked}{hint}")


def holds_experts(path: str | Path) -> bool:
    """Whether a file says that it is a buffer; `ExpertFile.open` finds out whether it is a sound one."""
    try:
        with h5py.File(path, "r") as file:
            return attribute(file, "format") == FORMAT
    except Exception:  # no such file, none of HDF5, damaged: whoever reads it says so
        return False


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Open a buffer; whatever goes wrong inside says that it is damaged."""
    try:
        open(path, "rb").close()
    except FileNotFoundError as error:
        raise UserError(f"no file at {path}; dsdistill experts makes one") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error
    if not h5py.is_hdf5(path):
        raise UserError(f"{path} is not an HDF5 file")
    try:
        with h5py.File(path, "r") as file:
            known = "format" in file.attrs and attribute(file, "format") == FORMAT
            version = int(attribute(file, "version")) if known else 0
            if known and version <= VERSION:
                yield file
                return
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:
        raise UserError(f"{path} is damaged: {reason(error)}; make it again") from error
    if not known:
        raise UserError(f"{path} is an HDF5 file, but holds no experts; dsdistill experts makes such files")
    raise UserError(
        f"{path} was written by a newer dsdistill (format version {version}, this one reads {VERSION}); "
        "upgrade dsdistill"
    )


def _facts(file: h5py.File) -> ExpertMetadata:
    said: dict[str, Any] = {
        name: attribute(file, name)
        for name in ("network", "dataset", "fingerprint", "channels", "size", "seed", "config", "packages")
    }
    state = {name: torch.from_numpy(np.asarray(node[()])) for name, node in file["preprocess"].items()}
    epochs = tuple(file["epochs"][:].tolist())
    layout = Layout.parse(str(attribute(file, "layout")))
    if not epochs or list(epochs) != sorted(set(epochs)) or epochs[0] < 0:
        raise ValueError("/epochs does not ascend from 0 or above")
    for name, length in zip(("weights", "buffers"), layout.sizes, strict=True):
        if not length:
            continue
        node = file[name]
        kept = (len(file["training/loss"]), len(epochs), length)
        if node.dtype != np.dtype("<f4") or node.shape != kept:
            raise ValueError(f"/{name} is {node.dtype} {list(node.shape)}, not float32 {list(kept)}")
        if node.id.get_num_chunks() != kept[0] * kept[1] * -(-length // node.chunks[2]):
            raise ValueError(f"/{name} is incomplete")
    return ExpertMetadata(
        layout=layout,
        classes=tuple(name.decode() for name in file["classes"][:]),
        preprocess=from_state(str(attribute(file["preprocess"], "kind")), state),
        epochs=epochs,
        **said,
    )


def _trained(file: h5py.File) -> tuple[TrainingRecord, ...]:
    columns = {name: file["training"][name][:].tolist() for name in TRAINING}
    rows = zip(*columns.values(), strict=True)
    words: list[list[Any]] = [
        [value.decode() if isinstance(value, bytes) else value for value in row] for row in rows
    ]
    return tuple(TrainingRecord(**dict(zip(columns, row, strict=True))) for row in words)


def _close(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two preprocessings agree up to what another machine's rounding changes in a ZCA."""
    return all(
        value.shape == other[name].shape and torch.allclose(value, other[name], rtol=1e-3, atol=1e-3)
        for name, value in one.items()
    )


_LISTED = 12  # classes named in a sentence


def _differing(mine: tuple[str, ...], asked: tuple[str, ...]) -> tuple[str, str, str]:
    """Say in what two lists of classes differ: the lists, or, where they are long, the first other name."""
    if len(mine) != len(asked) or len(mine) <= _LISTED:
        return "classes", listing(mine, _LISTED), listing(asked, _LISTED)
    label = next(i for i, names in enumerate(zip(mine, asked, strict=True)) if names[0] != names[1])
    return f"class {label}", repr(mine[label]), repr(asked[label])
