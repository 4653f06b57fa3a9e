"""What an evaluation is asked for, and what follows from that and the set: data, students, outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsdistill import files
from dsdistill.config.labels import Source
from dsdistill.config.sharing import file_name
from dsdistill.config.validation import validate
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.data.memory import InMemory
from dsdistill.errors import UserError
from dsdistill.evaluation.config import RealData
from dsdistill.evaluation.evaluate import check_fit
from dsdistill.evaluation.transfer_run import (
    TransferRequest,
)
from dsdistill.networks import NetworkFactory, check_network, network_list
from dsdistill.protocol import Protocol, load_protocol
from dsdistill.runtime.callbacks import Observer
from dsdistill.storage import origin
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.teachers import TeacherReference


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationRequest:
    """What `evaluate` is asked for, all but how it is computed.

    Attributes:
        dataset, source: the name of the data set and the data, where they are given.
        references: of teachers.
        baselines: names; None for the default.
        transfer: of protocols that pre-train.
    """

    file: Path
    json: str | Path | None
    save: bool
    ipc: int | None
    dataset: str | None
    source: InMemory | None
    root: str | Path | None
    download: bool
    protocol: str | Path
    networks: str | NetworkFactory | Sequence[str | NetworkFactory]
    repeats: int | None
    epochs: int | None
    seed: int
    labels: Source | None
    references: Sequence[TeacherReference]
    baselines: Sequence[str] | None
    scores: bool
    leak: bool
    transfer: TransferRequest

    def data(self, distilled: DistilledDataset) -> DataConfig:
        """Return how to read the data that a set was distilled from: see `data_config_of`."""
        return data_config_of(self.file, distilled, self.dataset, self.root, self.download)

    def resolved(self, dataset: str | None, ipc: int) -> Protocol:
        """Return the protocol for a data set and an IPC."""
        return load_protocol(self.protocol, dataset, ipc, repeats=self.repeats, epochs=self.epochs)

    def check_outputs(self, observer: Observer) -> None:
        """Check that results can be written, unless none are."""
        if not observer.dry:
            _check_outputs(self.file, self.json, self.save)


def students_of(
    networks: str | NetworkFactory | Sequence[str | NetworkFactory],
    distilled: DistilledDataset,
    protocol: Protocol,
) -> list[str]:
    """Return the names of the students' networks; where none are given, the one of the set or the protocol.

    Raises:
        UserError: one is unknown.
    """
    return network_list(networks) or [_default_student(distilled, protocol)]


def _default_student(distilled: DistilledDataset, protocol: Protocol) -> str:
    """Return the network that a protocol trains on a set.

    Raises:
        UserError: there is no such network here. Of code that a file names, none is loaded.
    """
    student = file_name(protocol.student_for(distilled.made_for))
    try:
        check_network(student)
    except UserError as error:
        raise UserError(f"{error}; students are named by --networks (networks=[…])") from error
    return student


def _check_outputs(file: Path, json: str | Path | None, save: bool) -> None:
    """Check before hours of training that results can be written.

    Raises:
        UserError: a folder is missing or not writable, a file is write-protected, or another kind of file
            would be replaced.
    """
    if json is not None:
        files.check_replaceable(json, ".json")
        files.sweep(json)
    if save:
        try:
            files.check_target(file)
            files.sweep(file)
        except UserError as error:
            raise UserError(f"{error}, or pass --no-save (save=False) to leave the file as it is") from error


def data_config_of(
    file: Path, distilled: DistilledDataset, dataset: str | None, root: str | Path | None, download: bool
) -> DataConfig:
    """Return how to read the data a set was distilled from, at its size and channels.

    The set has its own whitening, so none is fitted. The folder that the data were read from is used if it
    still exists.

    Raises:
        UserError: neither the caller nor the file names the data set, or it is not known where that lies.
    """
    stored = origin.stored_data(distilled.attributes)
    if dataset:
        stored["name"] = dataset
    else:
        stored = origin.data_of(file, distilled.attributes, stored)
    fields = {field.name for field in dataclasses.fields(DataConfig)} - {"download", "zca"}
    options = {key: value for key, value in stored.items() if key in fields}
    _, options["channels"], options["size"], _ = distilled.images.shape
    stored_root = options.pop("root", None)
    if root is not None:
        options["root"] = files.expanded(root)
    elif stored_root and Path(str(stored_root)).is_dir():
        options["root"] = Path(str(stored_root))
    config: DataConfig = validate(DataConfig, options, "the file's attribute 'data': key", fields)
    return dataclasses.replace(config, download=download)


def read_real_data(
    distilled: DistilledDataset,
    config: DataConfig,
    source: InMemory | None,
    fetch: bool,
    observer: Observer,
) -> RealData:
    """Load the data to evaluate on, and notify if they differ from those the set was distilled from.

    Args:
        fetch: whether a server may be asked for them.

    Raises:
        UserError: the data cannot be read, or the set does not fit them.
    """
    source = catalog.opened(config, source, fetch)
    task, train = catalog.load(config, "train", observer, source)
    check_fit(distilled, task)
    test = catalog.read(config, "test", observer, source)
    if distilled.attributes.get("fingerprint", train.fingerprint) != train.fingerprint:
        observer.on_notice(f"{config.name} on this machine is not the data the set was distilled from")
    return RealData(task, train, test)


def split_names(names: str | Sequence[str]) -> list[str]:
    """Return a list of names, given as one or as one string with commas."""
    parts = names.split(",") if isinstance(names, str) else names
    return [part.strip() for part in parts if part.strip()]
