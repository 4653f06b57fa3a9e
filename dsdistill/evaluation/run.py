"""Evaluation of a file: from its name to a report."""

from __future__ import annotations

import dataclasses
import json as json_format
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsdistill import files
from dsdistill.config.labels import Source
from dsdistill.config.transfer import TuningKind
from dsdistill.data.memory import opened
from dsdistill.data.sources import DataSource
from dsdistill.evaluation.baselines import method_of
from dsdistill.evaluation.execution import Auto, ExecutionConfig
from dsdistill.evaluation.kinds import class_work, transfer_work
from dsdistill.evaluation.report import Report
from dsdistill.evaluation.request import EvaluationRequest, split_names
from dsdistill.evaluation.rows import FULL, Row, read_row
from dsdistill.evaluation.transfer_run import (
    TransferRequest,
    Transfers,
)
from dsdistill.networks import NetworkFactory
from dsdistill.protocol import load_protocol
from dsdistill.runtime import launch
from dsdistill.runtime.callbacks import Callback, Listener, Observer
from dsdistill.runtime.cuda_graphs import resolve_mode
from dsdistill.runtime.device import full_float32, resolve_device, training_precision
from dsdistill.runtime.notice import Notify
from dsdistill.runtime.ranks import Ranks, current
from dsdistill.storage import origin, set_file, set_results
from dsdistill.storage.set_description import describe
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
            the set is made for, else the protocol's student.
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
        content = describe(file)
        distilled = set_file.load(file, ipc=ipc)
        set_file.check_same(file, set_file.digest(file), content.digest)
        name, source = opened(dataset)
        torch_device = resolve_device(device)
        arithmetic = training_precision(precision, torch_device, observer.on_notice)
        graphs = resolve_mode(cuda_graphs, torch_device, "cuda_graphs")
        execution = ExecutionConfig(torch_device, arithmetic, compile, stack, graphs, ranks)
        request = EvaluationRequest(
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
            baselines=None if baselines is None else split_names(baselines),
            scores=scores,
            leak=leak,
            transfer=TransferRequest(transfer, fractions, tuning, steps),
        )
        work = transfer_work if load_protocol(request.protocol).transfer else class_work
        with ranks.first_before_others():  # which find decoded what the first has decoded
            report, rows = work(request, content, distilled, execution, observer)
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


@dataclass(frozen=True)
class _Saving(Callback):
    """Adds every new row to the set's file."""

    report: Report
    file: Path
    digest: str
    notify: Notify

    def on_row(self, row: Row) -> None:
        self.report.append_to(self.file, row, self.digest, self.notify)


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
    rows, stored = report.earlier_rows(file), len(set_results.results(file))
    if leak:
        rows = [row for row in rows if row.leak or method_of(row.set) == FULL]
    if not stored:
        notify(f"there are no results in {file} to resume from: starting anew")
    else:
        reason = "" if rows else ": all are of other settings, data, code or machines"
        notify(f"{len(rows)} of the {stored} rows in the file are kept{reason}")
    return rows
