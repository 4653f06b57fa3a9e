"""An expert file: networks trained on real data, each at several epochs, in one HDF5 file read by the slice.

`expert_schema` lists its nodes, `expert_writer` writes it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsdistill import files
from dsdistill.data.real import RealDataset, Task
from dsdistill.errors import UserError
from dsdistill.files import expanded, reason
from dsdistill.networks import build_network
from dsdistill.networks.base import Network
from dsdistill.networks.layout import Layout
from dsdistill.plugs import without_folder
from dsdistill.seeding import forked
from dsdistill.storage.expert_schema import (
    ACCURACIES,
    SLICED,
    Expert,
    ExpertMetadata,
    Snapshot,
    TrainingRecord,
    digest_of,
    parse_digests,
    parse_el2n,
    parse_metadata,
    parse_training,
    read_el2n,
)
from dsdistill.storage.hdf5 import EXPERTS, attribute, opened
from dsdistill.text import listing, plain, ranges

__all__ = [
    "ACCURACIES",
    "Expert",
    "ExpertFile",
    "ExpertMetadata",
    "Snapshot",
    "TrainingRecord",
    "holds_experts",
]


@dataclass(frozen=True, eq=False)
class ExpertFile:
    """An expert file whose structure is verified; weights are read from it on demand.

    Attributes:
        path: of the file.
        metadata: the properties that its experts share.
        training: the outcome of each expert's training.
        has_el2n: whether it holds how hard each training image was for each expert; see `el2n`.
    """

    path: Path
    metadata: ExpertMetadata
    training: tuple[TrainingRecord, ...]
    has_el2n: bool = False
    _digests: NDArray[np.uint8] | None = None
    """Of every state's weights and buffers; None for a file of version 1."""

    def __repr__(self) -> str:
        meta, epochs = self.metadata, ranges(self.epochs)
        words = f"{self.count} of {meta.network} for {meta.dataset}, epochs {epochs}"
        return f"<ExpertFile {plain(str(self.path))}: {plain(words)}>"

    @classmethod
    def open(cls, path: str | Path) -> ExpertFile:
        """Open an expert file and verify its structure.

        >>> experts = dsdistill.ExpertFile.open("pool.h5")
        >>> experts.count, experts.epochs, experts.flat(expert=0, epoch=1).dtype
        (2, (0, 1), torch.float32)

        Raises:
            UserError: the file does not exist, holds no experts, has a newer version, or is damaged.
        """
        path = expanded(path)
        with opened(path, EXPERTS) as file:
            metadata, training = parse_metadata(file), parse_training(file)
            return cls(path, metadata, training, parse_el2n(file), parse_digests(file))

    @property
    def count(self) -> int:
        """The number of experts."""
        return len(self.training)

    @property
    def epochs(self) -> tuple[int, ...]:
        """The stored epochs, ascending; 0 is the initial weights."""
        return self.metadata.epochs

    @property
    def digest(self) -> str:
        """Return 16 hexadecimal digits that identify the experts.

        Weights, many gigabytes, are not read. The digits follow from the training data and the network, and
        from the final loss of the first expert, which no other training has to the last bit. They do not
        change when experts are added to the file.
        """
        metadata, first = self.metadata, self.training[0]
        identity = [
            metadata.network,
            metadata.fingerprint,
            metadata.seed,
            metadata.epochs,
            first.loss,
            first.accuracy,
        ]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]

    def flat(self, expert: int, epoch: int) -> Tensor:
        """Return the parameters of an expert after some epochs, float32 [P], in ``named_parameters()`` order.

        Raises:
            UserError: there is no such expert, the epoch is not stored, or the file is damaged there.
        """
        return self._read("weights", expert, epoch)

    def snapshot(self, expert: int, epoch: int) -> Snapshot:
        """Return `flat` and the buffers, float32 [Q]; raises the same errors."""
        weights, has_buffers = self.flat(expert, epoch), bool(self.metadata.layout.buffers)
        return weights, self._read("buffers", expert, epoch) if has_buffers else torch.empty(0)

    def state(self, expert: int, epoch: int) -> dict[str, Tensor]:
        """Return the argument for ``network.load_state_dict``, float32, on the CPU; raises as `flat`."""
        return self.metadata.layout.unpack(*self.snapshot(expert, epoch))

    def test_accuracy(self, expert: int, epoch: int) -> float:
        """Return the accuracy of an expert after some epochs on the test images, a fraction.

        >>> tested = {"epochs": 1, "network": "convnet2-w8", "options": {"test": "stored", "count": 1}}
        >>> experts = dsdistill.train_experts("tested.h5", dataset="digits", recipe="ncfm", **tested)
        >>> 0 <= experts.test_accuracy(expert=0, epoch=1) <= 1
        True

        Raises:
            UserError: there is no such expert, the epoch is not stored, or no accuracies are.
        """
        position = self._position(expert, epoch)
        if not self.training[expert].test_accuracy:
            raise UserError(
                f"{self.path} holds no accuracies on test images; --set test=stored measures them in training"
            )
        return self.training[expert].test_accuracy[position]

    @property
    def holds_out(self) -> bool:
        """Whether a part of the training images was held out; see `validation_accuracy`."""
        return bool(self.training[0].validation_accuracy)

    def validation_accuracy(self, expert: int, epoch: int) -> float:
        """Return the accuracy of an expert after some epochs on the training images held out, a fraction.

        >>> kept = {"epochs": 1, "network": "convnet2-w8", "options": {"test": "validation", "count": 1}}
        >>> experts = dsdistill.train_experts("kept.h5", dataset="digits", recipe="ncfm", **kept)
        >>> 0 <= experts.validation_accuracy(expert=0, epoch=1) <= 1
        True

        Raises:
            UserError: there is no such expert, the epoch is not stored, or no images were held out.
        """
        position = self._position(expert, epoch)
        if not self.holds_out:
            raise UserError(
                f"{self.path} holds no accuracies on training images held out; --set test=validation holds "
                "a tenth of them out, and measures the accuracy on it in training"
            )
        return self.training[expert].validation_accuracy[position]

    def el2n(self, expert: int) -> Tensor:
        """Return how hard each training image was for an expert: EL2N in [0, √2], float32 [N].

        It is the mean over the first ``record_el2n`` epochs, of the images as they were trained on, augmented
        (Paul et al. 2021). N counts the training images, in the order of the data set.

        >>> recorded = {"epochs": 2, "network": "convnet2-w8", "options": {"record_el2n": 2, "count": 1}}
        >>> experts = dsdistill.train_experts("recorded.h5", dataset="digits", recipe="mtt", **recorded)
        >>> experts.el2n(expert=0).shape
        torch.Size([1347])

        Raises:
            UserError: there is no such expert, none was recorded, or the file is damaged.
        """
        self._position(expert, self.epochs[0])
        if not self.has_el2n:
            raise UserError(
                f"{self.path} does not hold how hard each training image was: dsdistill experts --recipe "
                "el2n trains networks that record it, as --set record_el2n=10 does with other recipes"
            )
        try:
            return read_el2n(self._file, expert)
        except Exception as error:  # h5py meets damage with OSError, KeyError, RuntimeError, …
            raise UserError(f"{self.path} is damaged: {reason(error)}; make it again") from error

    def check(self, task: Task, network: str, fingerprint: str) -> None:
        """Check that the experts were trained for a task.

        Args:
            task: the task to distil.
            network: the name of the network to match with.
            fingerprint: of the training images.

        Raises:
            UserError: data set, classes or their order, image shape, preprocessing or network differ; the
                sentence names both.
        """
        mine = self.metadata
        if mine.classes != task.classes:
            raise self._other(*_differing(mine.classes, task.classes))
        self._check_shape(task)
        if mine.fingerprint != fingerprint:
            raise self._other("data set", *self._named(task, fingerprint))
        self._check_preprocess(task)
        name = without_folder(network)
        if mine.network != name and not self._same_network(name):
            raise self._other("network", mine.network, name, f"; pass --network {mine.network}")
        self._check_layout(name)

    def check_features(self, task: Task, real: RealDataset) -> None:
        """Check that the experts were trained on the images of a task, so that their features are of these.

        It does not matter whether labels were there, nor which classes.

        Args:
            task: what the features are for.
            real: its training images.

        Raises:
            UserError: images, their shape or preprocessing differ; the sentence names both.
        """
        self._check_shape(task)
        if not real.has_images_of(self.metadata.fingerprint):
            raise self._other("the images of", *self._named(task, real.fingerprint))
        self._check_preprocess(task)
        self._check_layout(self.metadata.network)

    def _named(self, task: Task, fingerprint: str) -> tuple[str, str]:
        """Return the names and the first digits of the data of the experts, and of a task's."""
        mine = self.metadata
        return f"{mine.dataset} ({mine.fingerprint[:8]}…)", f"{task.name} ({fingerprint[:8]}…)"

    def _check_shape(self, task: Task) -> None:
        mine = self.metadata
        shapes = [f"{c}x{size}x{size}" for c, size in ((mine.channels, mine.size), task.shape[:2])]
        if shapes[0] != shapes[1]:
            raise self._other("images of", shapes[0], shapes[1])

    def _check_preprocess(self, task: Task) -> None:
        mine = self.metadata
        if mine.preprocess.kind != task.preprocess.kind:
            hint = (
                "; pass --set data.zca=true"
                if mine.preprocess.kind == "zca"
                else "; pass --set data.zca=false"
            )
            raise self._other("preprocessing", mine.preprocess.kind, task.preprocess.kind, hint)
        if not mine.preprocess.agrees(task.preprocess):
            kind = mine.preprocess.kind
            raise self._other("preprocessing", f"one {kind}", f"another {kind}, of other constants")

    def _check_layout(self, name: str) -> None:
        if Layout.of(self._built(name)) != self.metadata.layout:
            raise UserError(
                f"{self.path} holds weights of another {self.metadata.network} than is built here; make it "
                "again"
            )

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        file = self.__dict__.pop("_file", None)
        if file is not None:
            file.close()

    @cached_property
    def _file(self) -> h5py.File:
        """The file, which may have been replaced since it was verified."""
        files.open_regular(self.path).close()  # h5py would wait for the writer of a pipe
        file = h5py.File(self.path, "r")
        if parse_training(file) != self.training:
            file.close()
            raise ValueError("other experts lie there by now")
        return file

    def _position(self, expert: int, epoch: int) -> int:
        """Return the position of an epoch among those stored.

        Raises:
            UserError: there is no such expert, or the epoch is not stored.
        """
        if not 0 <= expert < self.count:
            raise UserError(f"{self.path} holds experts 0 to {self.count - 1}, not expert {expert}")
        if epoch not in self.epochs:
            raise UserError(f"{self.path} does not hold epoch {epoch}; it holds {ranges(self.epochs)}")
        return self.epochs.index(epoch)

    def _read(self, name: str, expert: int, epoch: int) -> Tensor:
        position = self._position(expert, epoch)
        try:
            array = self._file[name][expert, position]
            if self._digests is not None:
                expected = self._digests[expert, position, SLICED.index(name)]
                if not np.array_equal(digest_of(array), expected):
                    raise ValueError(f"/{name} holds other values than were written")
            tensor = torch.from_numpy(array)
            if not tensor.isfinite().all():
                raise ValueError(f"/{name} holds values that are not finite (NaN or infinity)")
            return tensor
        except Exception as error:  # h5py meets damage with OSError, KeyError, RuntimeError, …
            raise UserError(
                f"{self.path} is damaged at expert {expert}, epoch {epoch}: {reason(error)}; make it again"
            ) from error

    def _same_network(self, name: str) -> bool:
        """Whether a name is another one for the same network, as convnet is for convnet3."""
        try:
            return repr(self._built(name)) == repr(self._built(self.metadata.network))
        except UserError:  # theirs is code that is not given here
            return False

    def _built(self, name: str) -> Network:
        with forked(0, "networks"):
            return build_network(name, self.metadata.channels, self.metadata.size, len(self.metadata.classes))

    def _other(self, what: str, mine: str, other: str, hint: str = "; train experts for it") -> UserError:
        return UserError(f"{self.path} was trained with {what} {mine}, and this run has {other}{hint}")


def holds_experts(path: str | Path) -> bool:
    """Whether a file claims to hold experts; `ExpertFile.open` checks that it does."""
    try:
        path = expanded(path)
        files.open_regular(path).close()  # h5py would wait for the writer of a pipe
        with h5py.File(path, "r") as file:
            return attribute(file, "format") == EXPERTS.name
    except Exception:  # no such file, not HDF5, or damaged: the error comes when it is read
        return False


_LISTED = 12  # classes named in an error


def _differing(mine: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, str, str]:
    """Return how two lists of classes differ: both lists or, if they are long, the first other name."""
    if len(mine) != len(other) or len(mine) <= _LISTED:
        return "classes", listing(mine, _LISTED), listing(other, _LISTED)
    label = next(i for i, names in enumerate(zip(mine, other, strict=True)) if names[0] != names[1])
    return f"class {label}", repr(mine[label]), repr(other[label])
