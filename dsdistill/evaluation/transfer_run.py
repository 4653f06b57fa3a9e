"""Transfer from a set's file: its targets, the teacher, the data that students learn, and an empty report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from dsdistill import files
from dsdistill.config.transfer import TransferConfig, TuningKind
from dsdistill.config.unlabelled import check_labelled
from dsdistill.config.validation import validate
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.data.memory import opened
from dsdistill.data.sources import DataSource
from dsdistill.errors import UserError
from dsdistill.evaluation import tuning
from dsdistill.evaluation.accuracy import TestImages
from dsdistill.evaluation.config import RealData
from dsdistill.evaluation.execution import Execution, ExecutionConfig
from dsdistill.evaluation.pretraining import Taught, names_of, plan_sets
from dsdistill.evaluation.transfer import Plan
from dsdistill.protocol import Protocol
from dsdistill.runtime.callbacks import Observer
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.teachers import load_feature_teacher
from dsdistill.teachers.reference import TeacherReference

Transfers: TypeAlias = DataSource | list[DataSource]
"""Data to learn: one source, names with commas between them, or a list of sources."""


@dataclass(frozen=True)
class TransferRequest:
    """What is asked of a transfer; None and empty ones are left to the protocol.

    Attributes:
        data: to learn.
        fractions: of their training images, whose labels students see.
        tuning, steps: in place of the protocol's.
    """

    data: Transfers | None = None
    fractions: str | Sequence[float] | None = None
    tuning: TuningKind | None = None
    steps: int | None = None

    def refuse(self, protocol: str) -> None:
        """Refuse all of it under a protocol without transfer.

        Raises:
            UserError: something is asked for.
        """
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is not None:
                name = {"data": "transfer"}.get(field.name, field.name)
                raise UserError(
                    f"protocol {protocol!r} has no transfer that --{name} is of: pass --protocol krr-st, or "
                    "leave it out"
                )

    def protocol(self, protocol: Protocol) -> Protocol:
        """Return a protocol with the options of the transfer that are asked for.

        Raises:
            UserError: one is invalid.
        """
        options = {name: getattr(self, name) for name in ("tuning", "steps")}
        table = dataclasses.asdict(protocol.transfer or TransferConfig())
        table |= {name: value for name, value in options.items() if value is not None}
        config: TransferConfig = validate(TransferConfig, table, "transfer:", list(table))
        return dataclasses.replace(protocol, transfer=config)

    def shares(self) -> list[float]:
        """Return the fractions of labels.

        Raises:
            UserError: one is no share.
        """
        fractions = (1.0,) if self.fractions is None else self.fractions
        parts = (
            [part for part in fractions.split(",") if part.strip()]
            if isinstance(fractions, str)
            else fractions
        )
        try:
            shares = [float(part) for part in parts]
        except (TypeError, ValueError) as error:
            raise UserError(
                f"fractions of labels are numbers, such as 0.01,0.1,1, not {fractions!r}"
            ) from error
        if not shares or not all(0 < share <= 1 for share in shares):
            raise UserError(
                f"fractions of labels lie above 0 and up to 1, such as 0.01,0.1,1, not {fractions!r}"
            )
        return list(dict.fromkeys(shares))

    def sources(self) -> list[DataSource]:
        """Return the data to learn, one by one.

        Raises:
            UserError: there are none.
        """
        data, sources = self.data, list[DataSource]()
        if isinstance(data, str):
            sources += [part.strip() for part in data.split(",") if part.strip()]
        elif data is not None:
            sources += data if isinstance(data, list) else [data]
        if not sources:
            raise UserError(
                "pre-training alone tells nothing: name data to learn then, such as --transfer "
                "digits,folder:PATH"
            )
        return sources


def check_targets(distilled: DistilledDataset, name: str) -> None:
    """Check that students can be pre-trained on a set.

    Raises:
        UserError: it has no targets.
    """
    if distilled.targets is None:
        raise UserError(
            f"protocol {name!r} pre-trains students on targets, and the set has none: evaluate a set of "
            "--method krr-st, or by another protocol"
        )


def read_downstream(
    request: TransferRequest,
    distilled: DistilledDataset,
    root: str | Path | None,
    download: bool,
    execution: Execution,
    observer: Observer,
) -> list[tuning.DownstreamData]:
    """Read the data to learn, at the size and with the channels of the set.

    Raises:
        UserError: they cannot be read, or have no labels.
    """
    _, channels, size, _ = distilled.images.shape
    downstream: list[tuning.DownstreamData] = []
    for each in request.sources():
        name, source = opened(each)
        assert name is not None
        config = DataConfig(
            name=name,
            root=None if root is None else files.expanded(root),
            size=size,
            channels=channels,
            download=download,
        )
        source = catalog.opened(config, source)
        task, train = catalog.load(config, "train", observer, source)
        check_labelled(task.classes, task.name, "students learn its classes", "take data with labels")
        data = RealData(task, train, catalog.read(config, "test", observer, source))
        test = TestImages(data.test, task.preprocess, execution.device)
        downstream += [tuning.DownstreamData(data, test, share) for share in request.shares()]
    return downstream


def read_taught(
    references: Sequence[TeacherReference],
    distilled: DistilledDataset,
    config: Callable[[], DataConfig],
    source: catalog.InMemory | None,
    execution: ExecutionConfig,
    observer: Observer,
) -> Taught | None:
    """Read the teacher and the real images that it gives targets to, if one is named.

    Args:
        config: returns how to read the data that the set was distilled from.

    Raises:
        UserError: there are several teachers, or it was trained on other data; or these cannot be read.
    """
    if not references:
        return None
    if len(references) > 1 or references[0].expert is None:
        raise UserError("targets are the features of one network: name one teacher, such as FILE#0")
    data = config()
    task, real = catalog.load(data, "train", observer, catalog.opened(data, source))
    task = dataclasses.replace(task, preprocess=distilled.preprocess)
    return Taught(task, real, load_feature_teacher(references[0], task, real, execution.device))


def plan_transfer(
    distilled: DistilledDataset,
    protocol: Protocol,
    networks: Sequence[str],
    baselines: Sequence[str] | None,
    taught: Taught | None,
    downstream: Sequence[tuning.DownstreamData],
    seed: int,
    execution: Execution,
) -> Plan:
    """Return all that is trained.

    Raises:
        UserError: a baseline is unknown, or needs a teacher and there is none.
    """
    assert protocol.transfer is not None
    names = names_of(baselines, taught is not None)
    sets = plan_sets(distilled, names, taught, protocol, seed, execution.device)
    _, channels, size, _ = distilled.images.shape
    return Plan(networks, sets, downstream, tuning.Tuning(protocol.transfer, execution, seed), channels, size)
