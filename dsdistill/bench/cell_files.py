"""The files in a cell's folder: its settings, its state, and the result of its commands."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import tomli_w

from dsdistill import files
from dsdistill.bench import results as stored
from dsdistill.bench.cells import Cell
from dsdistill.bench.encode_step import coded_files
from dsdistill.bench.expert_set import ExpertSet
from dsdistill.bench.results import CellResult, Point
from dsdistill.config.options import difference, table_at
from dsdistill.errors import UserError
from dsdistill.evaluation.baselines import expanded_names
from dsdistill.evaluation.rows import read_row
from dsdistill.labelling.parts import LabelParts
from dsdistill.storage import set_file as storage
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.storage.set_description import describe

FAILURE = "failed.txt"
"""Why a cell failed, in its folder."""
_LONGEST_FAILURE = 1 << 16


def write_settings(jobs: Sequence[Cell | ExpertSet], results: Path) -> None:
    """Write the settings of cells and of experts, before the first of them begins.

    If only the evaluation settings of a cell changed, its results are deleted and the distilled set is kept,
    with the rows that its file holds. If those of its labels changed, its labels are deleted too.

    Raises:
        UserError: one was begun with other settings of its distillation or training; nothing was touched.
    """
    changes = [_changes(job, results) for job in jobs]
    for job, changed in zip(jobs, changes, strict=True):
        if lasting := [text for key, text in changed.items() if not _after_distillation(key)]:
            raise UserError(
                f"{results / job.name} was begun with other settings ({lasting[0]}): choose another folder "
                "with -o, or remove what is there"
            )
    for job, changed in zip(jobs, changes, strict=True):
        if isinstance(job, Cell):
            for report in _stale_reports(job, results, changed):
                files.remove(report)
            if any(map(_of_labels, changed)):
                remove_labels(job, results)
        file = job.settings_file(results)
        files.make_folder(file.parent, parents=True)
        files.sweep(file.parent)
        files.replace(file, tomli_w.dumps(job.settings()).encode())


def _stale_reports(cell: Cell, results: Path, changed: Mapping[str, str]) -> list[Path]:
    """Return the reports that other settings than now have led to."""
    folder = results / cell.name
    first = f"evaluate.{name}." if (name := cell.evaluations[0].name) else "evaluate."
    of_curve = {"evaluate.first", "evaluate.curve_students"}
    of_curve |= {first + key for key in ("protocol", "epochs", "precision", "seed")}
    if changed.keys() <= {"bits"}:  # what was evaluated stays
        return [folder / "result.json"] if changed else []
    stale = [folder / "result.json", *folder.glob("evaluation*.json")]
    return stale + ([] if of_curve.isdisjoint(changed) else list(folder.glob("curve-*.json")))


def _changes(job: Cell | ExpertSet, results: Path) -> dict[str, str]:
    """Say, by key, which settings a job had otherwise when it was begun here."""
    try:
        before = files.read_toml(job.settings_file(results))
    except UserError:  # not begun, or nothing that says how
        return {}
    evaluate = table_at(before, "evaluate")
    if isinstance(names := evaluate.get("baselines"), list):
        present = expanded_names(map(str, names))  # under the names of today
        before["evaluate"] = {**evaluate, "baselines": present}
    changes = difference(before, files.parse_toml(tomli_w.dumps(job.settings()))) if before else []
    exact = ("distil.storage", "float32", None)  # that serves whoever takes the default
    return {
        key: f"{key} was {earlier!r}, now {later!r}"
        for key, earlier, later in changes
        if (key, earlier, later) != exact
    }


def _of_labels(key: str) -> bool:
    return key.startswith(("label.", "teachers."))


def _after_distillation(key: str) -> bool:
    return key == "bits" or key.startswith("evaluate.") or _of_labels(key)


def remove_labels(cell: Cell, results: Path) -> None:
    """Delete the labels of a cell, finished or not."""
    file = cell.labelled_file(results)
    LabelParts(file, "").clear()
    files.remove(file)
    files.remove(_label_cost(cell, results))
    remove_copies(file)


def remove_copies(file: Path) -> None:
    """Delete the encoded copies of a set."""
    for copy in coded_files(file):
        files.remove(copy)


def add_label_seconds(cell: Cell, results: Path, seconds: float) -> None:
    """Add the time of a labelling that ended or was stopped to what a cell's labels have taken."""
    with contextlib.suppress(OSError, UserError):  # the disk may be full
        text = json.dumps({"seconds": label_seconds(cell, results) + seconds})
        files.replace(_label_cost(cell, results), f"{text}\n".encode())


def label_seconds(cell: Cell, results: Path) -> float:
    """Return the time that a cell's labels have taken; 0 where nobody knows."""
    try:
        return max(0.0, float(files.read_json(_label_cost(cell, results))["seconds"]))
    except (UserError, KeyError, TypeError, ValueError):
        return 0.0


def _label_cost(cell: Cell, results: Path) -> Path:
    return results / cell.name / "labelling.json"


def write_failure(cell: Cell, results: Path, reason: str) -> None:
    """Write why a cell failed, if that is possible; empty when it is tried again."""
    file = results / cell.name / FAILURE
    with contextlib.suppress(OSError, UserError):  # the disk may be full, which is why
        if reason:
            files.replace(file, f"{reason}\n".encode())
        else:
            file.unlink(missing_ok=True)


def read_failure(folder: Path) -> str:
    """Return why the cell in a folder failed; empty where it did not, or nobody can know."""
    try:
        return files.read(folder / FAILURE, most=_LONGEST_FAILURE).decode(errors="replace").strip()
    except OSError:
        return ""


def write_result(suite: str, cell: Cell, results: Path, commands: list[str]) -> CellResult:
    """Join the files of a cell's commands into its ``result.json``.

    Raises:
        UserError: a file is missing or damaged.
    """
    folder = results / cell.name
    set_file = folder / "set.h5"
    about = describe(set_file)
    attributes = about.attributes
    evaluations = []
    for evaluation in cell.all_evaluations:
        report = files.read_json(cell.report(evaluation, results))
        rows, bits = report.pop("rows", []), evaluation.bits or about.bits
        evaluations.append({"name": evaluation.name, "bits": bits, "report": report, "rows": rows})
    table = {
        "suite": suite,
        "cell": cell.name,
        "dataset": cell.dataset,
        "method": Path(cell.method).stem,
        "ipc": cell.ipc,
        "seed": cell.seed,
        "network": cell.network,
        "settings": json.loads(json.dumps(cell.settings())),
        "file": set_file.name,
        "sha256": storage.digest(set_file),
        "experts_seconds": sum(_seconds(each, results) for each in cell.experts),
        "teacher_seconds": sum(_seconds(each, results) for each in cell.needs if each not in cell.experts),
        "label_seconds": label_seconds(cell, results) if cell.label else 0.0,
        "evaluations": evaluations,
        "commands": commands,
    }
    of_set = ("config", "iterations", "seconds", "peak_memory_bytes", "machine", "created")
    table |= {key: attributes[key] for key in of_set if key in attributes}
    result = stored.from_table(table, folder / "result.json")
    if curve := [_point(cell, results, path) for path in cell.run(results).snapshots()]:
        end = result.main
        last = Point(result.iterations, result.seconds, end.mean, end.std, len(end.values))
        result = dataclasses.replace(result, curve=[*curve, last])
    files.replace(folder / "result.json", (json.dumps(result.to_dict(), indent=1) + "\n").encode())
    return result


def read_result(cell: Cell, results: Path) -> CellResult | None:
    """Return a cell's result if it is finished and whole, and its settings are those of now."""
    try:
        result = stored.read(results / cell.name / "result.json")
    except UserError:
        return None
    return None if _changes(cell, results) else result


def state(cell: Cell, results: Path) -> str:
    """Say in a word or two how far a cell is."""
    if changed := _changes(cell, results):
        if not all(map(_after_distillation, changed)):
            return "begun with other settings"
        return "to be labelled again" if any(map(_of_labels, changed)) else "to be evaluated again"
    if read_result(cell, results):
        return "finished"
    if (results / cell.name / "set.h5").exists():
        return "labelled" if cell.label and cell.labelled_file(results).exists() else "distilled"
    return "begun" if cell.run(results).config_file.exists() else "to do"


def is_evaluated(report: Path) -> bool:
    """Whether the report of an evaluation is there and whole."""
    try:
        return bool(files.read_json(report).get("rows"))
    except UserError:
        return False


def _seconds(experts: ExpertSet, results: Path) -> float:
    """Return how long the training of experts took."""
    try:
        return sum(each.seconds for each in ExpertFile.open(experts.file(results)).training)
    except UserError:  # moved away since: no reason to lose the cell
        return 0.0


def _point(cell: Cell, results: Path, snapshot: Path) -> Point:
    path = cell.snapshot_report(results, snapshot)
    rows, attributes = files.read_json(path).get("rows"), describe(snapshot).attributes
    row = read_row(rows[0]) if isinstance(rows, list) and rows else None
    if row is None or not {"iterations", "seconds"} <= attributes.keys():
        raise UserError(f"{path} holds no accuracy of {snapshot.name}; delete both, and run the suite again")
    moment = int(attributes["iterations"]), float(attributes["seconds"])
    return Point(*moment, row.mean, row.std, len(row.values))
