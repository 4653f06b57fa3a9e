"""Evaluation of a file: from its name to a report."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json as json_format
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsdistill import files
from dsdistill.config.data_names import data_name
from dsdistill.config.labels import Source
from dsdistill.config.regimes import REGIMES
from dsdistill.config.sharing import file_name
from dsdistill.config.transfer import TuningKind
from dsdistill.config.validation import validate
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.data.memory import InMemory, opened
from dsdistill.data.sources import DataSource
from dsdistill.errors import UserError
from dsdistill.evaluation.baselines import check, expanded_names, images_in_bytes, method_of
from dsdistill.evaluation.config import EvaluationConfig, RealData
from dsdistill.evaluation.evaluate import check_fit, evaluate_set
from dsdistill.evaluation.execution import Auto, Execution, ExecutionConfig
from dsdistill.evaluation.plan import source_of
from dsdistill.evaluation.pretraining import names_of
from dsdistill.evaluation.report import Report
from dsdistill.evaluation.rows import FULL, Row, read_row
from dsdistill.evaluation.transfer import evaluate_transfer
from dsdistill.evaluation.transfer_run import (
    TransferRequest,
    Transfers,
    check_targets,
    plan_transfer,
    read_downstream,
    read_taught,
)
from dsdistill.networks import NetworkFactory, check_network, network_list, source_digest
from dsdistill.protocol import Protocol, load_protocol
from dsdistill.runtime import launch, provenance
from dsdistill.runtime.callbacks import Callback, Listener, Observer
from dsdistill.runtime.cuda_graphs import resolve_mode
from dsdistill.runtime.device import full_float32, resolve_device, training_precision
from dsdistill.runtime.notice import Notify
from dsdistill.runtime.ranks import Ranks, current
from dsdistill.storage import origin, set_file
from dsdistill.synthetic.distilled import DistilledDataset
from dsdistill.synthetic.prefix import prefix
from dsdistill.teachers import Committee, TeacherReference, load_teachers
from dsdistill.teachers.reference import parse_references


def evaluate(
    file: str | Path,
    *,
    ipc: int | None = None,
    dataset: DataSource | None = None,
    root: str | Path | None = None,
    protocol: str | Path | None = None,
    networks: str | NetworkFactory | Sequence[str | NetworkFactory] = (),
    repeats: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    compile: bool | Auto = "auto",
    stack: bool | Auto = "auto",
    cuda_graphs: bool | Auto = "auto",
    labels: Source | None = None,
    teacher: str | Path | Sequence[str | Path] | None = None,
    baselines: str | Sequence[str] | None = None,
    transfer: Transfers | None = None,
    fractions: str | Sequence[float] | None = None,
    tuning: TuningKind | None = None,
    steps: int | None = None,
    scores: bool = False,
    leak: bool = False,
    json: str | Path | None = None,
    save: bool = True,
    resume: bool = False,
    download: bool = False,
    callbacks: Sequence[Listener] = (),
) -> Report:
    """Train fresh students on a distilled set and on its baselines, test them, and report.

    >>> report = dsdistill.evaluate("set.h5", epochs=2, repeats=2)
    >>> [(row.set, row.images, len(row.values)) for row in report.rows]
    [('distilled', 10, 2), ('random', 10, 2)]

    Args:
        file: a distilled set.
        ipc: evaluate the first so many images of each class alone, as `load` takes them.
        dataset: the data set to evaluate on, as `distill` takes it; default the one the file names, read with
            the options the file names.
        root: folder of the data sets.
        protocol: a protocol's name or TOML file, read for the data set and the IPC; default the one of the
            method that made the file, else dm.
        networks: names, or one string with commas, or your own, as `distill` takes one; default the network
            the set was distilled with, else the protocol's student.
        repeats, epochs: in place of the protocol's.
        seed: of every random draw.
        compile, stack, cuda_graphs: see ``dsdistill.evaluation.execution.ExecutionConfig``.
        labels: "hard", "static" (stored logits of each image), "views" (stored views) or "teacher" (one that
            labels every batch), in place of the labels that the protocol names.
        teacher: a file of experts, ``FILE@EPOCH`` for one of its epochs, or several for a committee. It
            labels batches where labels come from a teacher, labels the controls, and is compared with the
            students.
        baselines: names (see ``dsdistill.evaluation.baselines``), or one string with commas; "" for none. By
            default random; where students learn from soft labels also distilled-hard, and with a teacher
            random+labels, noise+labels and the teacher itself. Of pre-training: scratch, and with a teacher
            also random+targets, k-means+targets and full+targets, real images with its features as targets.
        transfer: with a protocol that pre-trains, krr-st, the data that students learn then: names with
            commas between them, or a list of what ``dataset`` takes. They are read at the size and with the
            channels of the set. A row has the accuracy on the test images of one of these.
        fractions: of their training images, whose labels students see, ``[0.01, 0.1, 1]``; default all.
        tuning, steps: "fine-tune" or "probe", and steps of fine-tuning, in place of the protocol's.
        scores: also train the students that DD-Ranking's scores need besides the baselines random and full;
            see ``dsdistill.evaluation.config.EvaluationConfig``. Scores that need no more are reported either
            way.
        leak: also test whether students tell training images from fresh ones; see
            ``dsdistill.evaluation.measures.Leak``.
        json: also write the report here.
        save: also add the results to the file.
        resume: reuse the results in the file of the same evaluation, and train only for the others.
        download: fetch a missing data set. An ``hf:NAME`` that only the file gives is fetched with it alone.
        callbacks: listen to the evaluation, and may stop it: see `Callback`. A function is called with every
            new row.

    Raises:
        UserError: a name is unknown, a file cannot be read or written, the set or the teacher does not fit
            the data, or labels or a teacher are missing.
    """
    file = files.expanded(file)
    json = None if json is None else files.expanded(json)
    ranks = current()
    with Observer.of_rank(callbacks, ranks) as observer:
        content = set_file.describe(file)
        distilled = set_file.load(file, ipc=ipc)
        set_file.check_same(file, set_file.digest(file), content.digest)
        name, source = opened(dataset)
        torch_device = resolve_device(device)
        arithmetic = training_precision(precision, torch_device, observer.on_notice)
        graphs = resolve_mode(cuda_graphs, torch_device, "cuda_graphs")
        execution = ExecutionConfig(torch_device, arithmetic, compile, stack, graphs, ranks)
        asked = _Asked(
            file=file,
            json=json,
            save=save,
            ipc=ipc,
            dataset=name,
            source=source,
            root=root,
            download=download,
            protocol=protocol or origin.protocol_of(file, distilled.attributes),
            networks=networks,
            repeats=repeats,
            epochs=epochs,
            seed=seed,
            labels=labels,
            references=() if teacher is None else parse_references(teacher),
            baselines=None if baselines is None else _split(baselines),
            scores=scores,
            leak=leak,
            transfer=TransferRequest(transfer, fractions, tuning, steps),
        )
        work = _transfer_work if load_protocol(asked.protocol).transfer else _class_work
        with ranks.first_before_others():  # which find decoded what the first has decoded
            report, rows = work(asked, content, distilled, execution, observer)
        ranks.check_same({"set": content.digest})
        earlier: list[Row] = []
        if (resume or launch.attempt() > 0) and ranks.is_first:
            earlier = _earlier_rows(report, file, leak, observer.on_notice)
        if save:  # at once: an evaluation that is stopped loses only unfinished rows
            observer.add_first(_Saving(report, file, content.digest, observer.on_notice))
        with full_float32():
            report.rows[:] = rows(_of_first_rank(earlier, ranks))
        if json is not None and ranks.is_first:
            report.write_json(json)
        ranks.wait()  # until all is written
        observer.on_end(report)
    return report


@dataclass(frozen=True, kw_only=True, eq=False)
class _Asked:
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


Work = tuple[Report, Callable[[Sequence[Row]], list[Row]]]
"""A report without rows, and what trains students for them: from the rows of an earlier evaluation."""


def _class_work(
    asked: _Asked,
    content: set_file.Description,
    distilled: DistilledDataset,
    execution: ExecutionConfig,
    observer: Observer,
) -> Work:
    """Prepare an evaluation whose students learn the classes of the data that the set was distilled from."""
    asked.transfer.refuse(str(asked.protocol))
    data_config = asked.data(distilled)
    resolved = asked.resolved(data_config.name, distilled.ipc).with_labels(asked.labels)
    config = _config(asked.networks, asked.baselines, distilled, resolved)
    config = dataclasses.replace(
        config, scores=asked.scores, labels=asked.labels, leak=asked.leak, seed=asked.seed
    )
    asked.check_outputs(observer)

    # Not where the file alone names a data set of a server.
    fetch = asked.download or asked.dataset is not None
    data = read_real_data(distilled, data_config, asked.source, fetch, observer)
    content = content if asked.ipc is None else _of_first(content, asked.file, asked.ipc)
    size = content.image_bytes + content.label_bytes
    real_images = images_in_bytes(data.train, size, asked.seed, content.coded)
    config = dataclasses.replace(config, real_images=real_images, coding=content.coded)
    cost = _cost(content) | {"real_images": float(real_images)}
    cost |= {"coded_bits": float(content.coded.bits)} if content.coded else {}
    committee = _committee(asked.references, distilled, data, resolved, execution)
    report = _report(distilled, data, resolved, config, execution, committee)
    report = dataclasses.replace(report, file=asked.file.name, cost=cost)

    def rows(earlier: Sequence[Row]) -> list[Row]:
        return evaluate_set(distilled, data, resolved, config, execution, earlier, observer, committee)

    return report, rows


def _transfer_work(
    asked: _Asked,
    content: set_file.Description,
    distilled: DistilledDataset,
    execution: ExecutionConfig,
    observer: Observer,
) -> Work:
    """Prepare an evaluation whose students are pre-trained on the set's targets, then learn other data."""
    if execution.ranks.count > 1:
        raise UserError(
            f"protocol {asked.protocol!s} pre-trains students, which one process does: leave torchrun out"
        )
    name = data_name(str(distilled.attributes.get("dataset", asked.file.name)))
    resolved = asked.transfer.protocol(asked.resolved(name, distilled.ipc))
    check_targets(distilled, resolved.name)
    of_classes = {"labels": asked.labels, "scores": asked.scores, "leak": asked.leak}
    if refused := [option for option, value in of_classes.items() if value]:
        raise UserError(f"protocol {resolved.name!r} pre-trains on targets: leave --{refused[0]} out")
    networks = students_of(asked.networks, distilled, resolved)
    names_of(asked.baselines, bool(asked.references))
    asked.check_outputs(observer)
    if True in (execution.compile, execution.stack, execution.cuda_graphs):
        observer.on_notice("students that are pre-trained are neither compiled, stacked nor captured")

    taught = read_taught(
        asked.references, distilled, lambda: asked.data(distilled), asked.source, execution, observer
    )
    plain = Execution(execution.device, execution.precision)
    downstream = read_downstream(asked.transfer, distilled, asked.root, asked.download, plain, observer)
    plan = plan_transfer(
        distilled, resolved, networks, asked.baselines, taught, downstream, asked.seed, plain
    )
    conditions = [resolved.training, taught.real.fingerprint if taught else "", provenance.code_digest()]
    conditions += filter(None, [source_digest(networks), taught.teacher.digest if taught else None])
    teacher = taught.teacher.name if taught else None
    report = _blank_report(
        distilled, name, resolved, asked.seed, execution, conditions, labels="targets", teacher=teacher
    )
    report = dataclasses.replace(report, file=asked.file.name, cost=_cost(content))
    return report, lambda earlier: evaluate_transfer(plan, resolved, name, earlier, observer)


def _config(
    networks: str | NetworkFactory | Sequence[str | NetworkFactory],
    baselines: Sequence[str] | None,
    distilled: DistilledDataset,
    protocol: Protocol,
) -> EvaluationConfig:
    """Return which networks and baselines are evaluated.

    Raises:
        UserError: a network or baseline is unknown.
    """
    students = students_of(networks, distilled, protocol)
    if baselines is None:
        return EvaluationConfig(networks=students, baselines=None)
    real_sets = expanded_names(baselines)
    for baseline in real_sets:
        check(baseline)
    return EvaluationConfig(networks=students, baselines=real_sets)


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


def _committee(
    references: Sequence[TeacherReference],
    distilled: DistilledDataset,
    data: RealData,
    protocol: Protocol,
    execution: ExecutionConfig,
) -> Committee | None:
    """Load the teachers, if any are named, and check that they answer for images as the students see them.

    Raises:
        UserError: a file holds no such teacher, or one for other data, classes or preprocessing.
    """
    if not references:
        return None
    task = dataclasses.replace(data.task, preprocess=distilled.preprocess)
    teachers = load_teachers(references, task, data.train.fingerprint, execution.device)
    mode, precision = protocol.labels.teacher_mode, execution.precision
    return Committee(teachers, mode=mode, precision=precision)


@dataclass(frozen=True)
class _Saving(Callback):
    """Adds every new row to the set's file."""

    report: Report
    file: Path
    digest: str
    notify: Notify

    def on_row(self, row: Row) -> None:
        self.report.append_to(self.file, row, self.digest, self.notify)


def _split(names: str | Sequence[str]) -> list[str]:
    """Return a list of names, given as one or as one string with commas."""
    parts = names.split(",") if isinstance(names, str) else names
    return [part.strip() for part in parts if part.strip()]


def _default_student(distilled: DistilledDataset, protocol: Protocol) -> str:
    """Return the network that a protocol trains on a set.

    Raises:
        UserError: there is no such network here. Of code that a file names, none is loaded.
    """
    student = file_name(protocol.student_for(str(distilled.attributes.get("network", ""))))
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


def _of_first(content: set_file.Description, file: Path, ipc: int) -> set_file.Description:
    """Return a description with the bytes of the first images of each class."""
    part = prefix(set_file.read(file), ipc)
    sizes = set_file.sizes_of(part, content.dtype)
    return dataclasses.replace(
        content,
        image_bytes=sizes.image_bytes + sizes.compensator_bytes,
        label_bytes=sizes.label_bytes,
        view_bytes=sizes.view_bytes,
        coded=part.coded.coding if part.coded else None,
    )


def _cost(content: set_file.Description) -> dict[str, float]:
    """Return the bytes of a set's file and of its parts, and the cost of its distillation if stated."""
    sizes = {
        "file_bytes": content.file_bytes,
        "image_bytes": content.image_bytes,
        "label_bytes": content.label_bytes,
        "preprocess_bytes": content.preprocess_bytes,
    }
    names = {"seconds": "distil_seconds", "peak_memory_bytes": "distil_peak_bytes"}
    stated = {name: content.attributes[key] for key, name in names.items() if key in content.attributes}
    return {name: float(value) for name, value in (sizes | stated).items()}


def _report(
    distilled: DistilledDataset,
    data: RealData,
    protocol: Protocol,
    config: EvaluationConfig,
    execution: ExecutionConfig,
    teacher: Committee | None,
) -> Report:
    """Return the report of an evaluation that has no rows yet, but for the file and its cost.

    Raises:
        UserError: the labels that are wanted are not there.
    """
    conditions = [protocol.training, data.train.fingerprint, data.test.fingerprint, provenance.code_digest()]
    conditions += filter(None, [source_digest(config.networks), teacher.digest if teacher else None])
    if (first := distilled.attributes.get("first")) is not None:  # of several sizes, one is evaluated
        conditions.append(f"first {first}")
    source = source_of(protocol, distilled, teacher, config.labels)
    return _blank_report(
        distilled,
        data.task.name,
        protocol,
        config.seed,
        execution,
        conditions,
        soft_labels=source != "hard",
        regime=REGIMES[source],
        labels=source,
        temperature=None if source == "hard" else protocol.labels.temperature,
        teacher=teacher.name if teacher else None,
    )


def _blank_report(
    distilled: DistilledDataset,
    dataset: str,
    protocol: Protocol,
    seed: int,
    execution: ExecutionConfig,
    conditions: Sequence[Any],
    **labels: Any,
) -> Report:
    """Return a report without rows, file and cost.

    Args:
        dataset: its name.
        conditions: what identifies code, data and training, beside names.
        labels: the fields that say what students learn from.
    """
    machine = distilled.attributes.get("machine")
    return Report(
        rows=[],
        file="",
        dataset=dataset,
        protocol=protocol.name,
        epochs=protocol.epochs,
        repeats=protocol.repeats,
        lr=protocol.learning_rate(distilled.lr),
        seed=seed,
        precision=execution.precision,
        device=str(execution.device),
        machine=provenance.machine_name(execution.device),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        packages=provenance.package_versions(),
        conditions=_digest(*conditions),
        distil_machine=str(machine) if machine else None,
        **labels,
    )


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json_format.dumps(parts, sort_keys=True).encode()).hexdigest()


def _of_first_rank(rows: Sequence[Row], ranks: Ranks) -> list[Row]:
    """Return the rows that the first process has."""
    if ranks.count == 1:
        return list(rows)
    table = json_format.dumps([dataclasses.asdict(row) for row in rows])
    return [row for each in json_format.loads(ranks.of_first(table)) if (row := read_row(each))]


def _earlier_rows(report: Report, file: Path, leak: bool, notify: Notify) -> list[Row]:
    """Return the rows in a file that this evaluation reuses, and notify how many they are.

    Args:
        leak: whether rows need a leak test. Students of the full training set have none.
    """
    rows, stored = report.earlier_rows(file), len(set_file.results(file))
    if leak:
        rows = [row for row in rows if row.leak or method_of(row.set) == FULL]
    if not stored:
        notify(f"there are no results in {file} to resume from: starting anew")
    else:
        reason = "" if rows else ": all are of other settings, data, code or machines"
        notify(f"{len(rows)} of the {stored} rows in the file are kept{reason}")
    return rows
