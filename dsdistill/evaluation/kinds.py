"""The kinds of evaluation: students that learn the classes of a set, and those that are pre-trained on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from dsdistill.config.data_names import data_name
from dsdistill.config.regimes import REGIMES
from dsdistill.errors import UserError
from dsdistill.evaluation.baselines import check, expanded_names, images_filling, images_in_bytes
from dsdistill.evaluation.blank_report import blank_report, cost_of
from dsdistill.evaluation.config import EvaluationConfig, RealData
from dsdistill.evaluation.evaluate import evaluate_set
from dsdistill.evaluation.execution import Execution, ExecutionConfig
from dsdistill.evaluation.plan import source_of
from dsdistill.evaluation.pretraining import names_of
from dsdistill.evaluation.report import Report
from dsdistill.evaluation.request import EvaluationRequest, read_real_data, students_of
from dsdistill.evaluation.rows import BYTES, Row, size_of
from dsdistill.evaluation.transfer import evaluate_transfer
from dsdistill.evaluation.transfer_run import (
    check_targets,
    plan_transfer,
    read_downstream,
    read_taught,
)
from dsdistill.networks import NetworkFactory, source_digest
from dsdistill.protocol import Protocol
from dsdistill.runtime import provenance
from dsdistill.runtime.callbacks import Observer
from dsdistill.storage import set_file
from dsdistill.storage.set_description import Description
from dsdistill.storage.set_sizes import sizes_of
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.synthetic.prefix import prefix
from dsdistill.teachers import Committee, TeacherReference, load_teachers

Work = tuple[Report, Callable[[Sequence[Row]], list[Row]]]
"""A report without rows, and what trains students for them: from the rows of an earlier evaluation."""


def class_work(
    request: EvaluationRequest,
    content: Description,
    distilled: DistilledDataset,
    execution: ExecutionConfig,
    observer: Observer,
) -> Work:
    """Prepare an evaluation whose students learn the classes of the data that the set was distilled from."""
    request.transfer.refuse(str(request.protocol))
    data_config = request.data(distilled)
    resolved = request.resolved(data_config.name, distilled.ipc).with_labels(request.labels)
    config = _config(request.networks, request.baselines, distilled, resolved)
    config = dataclasses.replace(
        config, scores=request.scores, labels=request.labels, leak=request.leak, seed=request.seed
    )
    request.check_outputs(observer)

    # Not where the file alone names a data set of a server.
    fetch = request.download or request.dataset is not None
    data = read_real_data(distilled, data_config, request.source, fetch, observer)
    content = content if request.ipc is None else _of_first(content, request.file, request.ipc)
    size = content.image_bytes + content.label_bytes
    real_images = images_in_bytes(data.train, size, request.seed, content.coded)
    named = images_filling(config.baselines or (), data.train, request.seed, content.coded)
    numbers = {**named, size_of(BYTES): real_images}
    config = dataclasses.replace(config, real_images=numbers, coding=content.coded)
    cost = cost_of(content) | {"real_images": float(real_images)}
    cost |= {"coded_bits": float(content.coded.bits)} if content.coded else {}
    committee = _committee(request.references, distilled, data, resolved, execution)
    report = _report(distilled, data, resolved, config, execution, committee)
    report = dataclasses.replace(report, file=request.file.name, cost=cost)

    def rows(earlier: Sequence[Row]) -> list[Row]:
        return evaluate_set(distilled, data, resolved, config, execution, earlier, observer, committee)

    return report, rows


def transfer_work(
    request: EvaluationRequest,
    content: Description,
    distilled: DistilledDataset,
    execution: ExecutionConfig,
    observer: Observer,
) -> Work:
    """Prepare an evaluation whose students are pre-trained on the set's targets, then learn other data."""
    if execution.ranks.count > 1:
        raise UserError(
            f"protocol {request.protocol!s} pre-trains students, which one process does: leave torchrun out"
        )
    name = data_name(str(distilled.attributes.get("dataset", request.file.name)))
    resolved = request.transfer.protocol(request.resolved(name, distilled.ipc))
    check_targets(distilled, resolved.name)
    of_classes = {"labels": request.labels, "scores": request.scores, "leak": request.leak}
    if refused := [option for option, value in of_classes.items() if value]:
        raise UserError(f"protocol {resolved.name!r} pre-trains on targets: leave --{refused[0]} out")
    networks = students_of(request.networks, distilled, resolved)
    names_of(request.baselines, bool(request.references))
    request.check_outputs(observer)
    if True in (execution.compile, execution.stack, execution.cuda_graphs):
        observer.on_notice("students that are pre-trained are neither compiled, stacked nor captured")

    taught = read_taught(
        request.references, distilled, lambda: request.data(distilled), request.source, execution, observer
    )
    plain = Execution(execution.device, execution.precision)
    downstream = read_downstream(request.transfer, distilled, request.root, request.download, plain, observer)
    plan = plan_transfer(
        distilled, resolved, networks, request.baselines, taught, downstream, request.seed, plain
    )
    # Rows say their own epochs, and students from scratch have none.
    training = {key: value for key, value in resolved.training.items() if key != "epochs"}
    conditions = [training, taught.real.fingerprint if taught else "", provenance.code_digest()]
    conditions += filter(None, [source_digest(networks), taught.teacher.digest if taught else None])
    teacher = taught.teacher.name if taught else None
    report = blank_report(
        distilled, name, resolved, request.seed, execution, conditions, labels="targets", teacher=teacher
    )
    report = dataclasses.replace(report, file=request.file.name, cost=cost_of(content))
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


def _of_first(content: Description, file: Path, ipc: int) -> Description:
    """Return a description with the bytes of the first images of each class."""
    part = prefix(set_file.read(file), ipc)
    sizes = sizes_of(part, content.dtype)
    return dataclasses.replace(
        content,
        image_bytes=sizes.image_bytes + sizes.compensator_bytes,
        label_bytes=sizes.label_bytes,
        view_bytes=sizes.view_bytes,
        coded=part.coded.coding if part.coded else None,
    )


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
    return blank_report(
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
