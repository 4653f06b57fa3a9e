"""A cell's ``result.json``: its settings, its set and the reports on it; reading checks every value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le

from dsdistill.config.sharing import toml_without_folders, values_without_folders
from dsdistill.config.validation import validate
from dsdistill.errors import UserError
from dsdistill.evaluation.measures import Amount, Count, Percent
from dsdistill.evaluation.rows import DISTILLED, Row, modernise_row
from dsdistill.files import read_json
from dsdistill.storage import set_file as storage

FORMAT = "dsdistill-cell"
VERSION = 2
ANOTHER = "another set lies there now"


@dataclass(frozen=True)
class Point:
    """Accuracy at a moment of the distillation: percent, by ``students`` fresh students."""

    iteration: Count
    seconds: Amount
    mean: Percent
    std: Percent
    students: Count


@dataclass(frozen=True)
class EvaluationResult:
    """One evaluation of a cell's set.

    Attributes:
        name: in the suite; empty where it has no tables of evaluations.
        report: how, when and where: an evaluation's report without its rows.
        rows: accuracies by student and training set, the distilled set's and the baselines'.
        bits: of a stored pixel. Earlier versions did not say; nearly all sets were float32.
    """

    name: str
    report: dict[str, Any]
    rows: list[Row]
    bits: Annotated[int, Ge(1), Le(64)] = 32

    @property
    def label(self) -> str:
        """Its name without the seed, which one table of a suite can have several of."""
        return self.name.removesuffix(f"-seed{self.report.get('seed')}")

    @property
    def main(self) -> Row:
        """The distilled set by the first student."""
        return next(row for row in self.rows if row.set == DISTILLED)

    @property
    def image_bytes(self) -> float:
        """Compressed bytes of the set's images."""
        return float(self.report.get("cost", {}).get("image_bytes", 0.0))

    @property
    def label_bytes(self) -> float:
        """Compressed bytes of the labels in the file that was evaluated."""
        return float(self.report.get("cost", {}).get("label_bytes", 0.0))

    @property
    def real_image_bytes(self) -> float:
        """Compressed bytes of a real image, as the evaluation measured them; 0 where it did not."""
        count = float(self.report.get("cost", {}).get("real_images", 0.0))
        return (self.image_bytes + self.label_bytes) / count if count else 0.0

    def bytes_of_real(self, row: Row) -> float:
        """Return the compressed bytes of the real images of a baseline; by their number in earlier rows."""
        return row.images * self.real_image_bytes if row.image_bytes is None else row.image_bytes


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """A finished cell.

    Attributes:
        suite, cell: the suite's name, the cell's folder below the results.
        dataset, method, ipc, seed, network: which it is; the network that features were matched in.
        settings: the cell's. config: the run's resolved TOML.
        file, sha256: the set, beside the result, and the checksum of its content.
        iterations, seconds, peak_memory_bytes, machine, created: of the distillation.
        experts_seconds: that the experts it matched with took, which other cells may share.
        teacher_seconds: that further experts took, who only label, likewise.
        label_seconds: that its labels took; 0 for a set that was not labelled.
        evaluations: as the suite has them; at least one.
        curve: snapshots, earliest first, then the finished set; in the first evaluation.
        commands: that distilled and evaluated the set.
        path: where the result was read from, or None.
    """

    suite: str
    cell: str
    dataset: str
    method: str
    ipc: int
    seed: int
    network: str
    settings: dict[str, Any]
    config: str
    file: str
    sha256: str
    iterations: Count
    seconds: Amount
    peak_memory_bytes: Count
    machine: str
    created: str
    evaluations: list[EvaluationResult]
    curve: list[Point] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    experts_seconds: Amount = 0.0
    teacher_seconds: Amount = 0.0
    label_seconds: Amount = 0.0
    path: Path | None = None

    @property
    def report(self) -> dict[str, Any]:
        """The report of the first evaluation."""
        return self.evaluations[0].report

    @property
    def main(self) -> Row:
        """The distilled set by the first student of the first evaluation."""
        return self.evaluations[0].main

    def is_copy(self, evaluation: EvaluationResult) -> bool:
        """Whether an evaluation is of an encoded copy of the set, beside the set as it is."""
        return evaluation.bits != self.evaluations[0].bits

    @property
    def gain_over(self) -> str:
        """The method that its own is compared with, seed by seed; or empty."""
        return str(self.settings.get("evaluate", {}).get("gain_over", ""))

    @property
    def stored_bytes(self) -> float:
        """Compressed bytes of the set's images and labels."""
        return self.evaluations[0].image_bytes + self.evaluations[0].label_bytes

    @property
    def file_problem(self) -> str:
        """What is wrong with the set beside the result; empty where nothing is, or nobody can know."""
        if self.path is None:
            return ""
        try:
            same = storage.digest(self.path.parent / self.file) == self.sha256
        except UserError:
            return "missing or damaged"
        return "" if same else ANOTHER

    @property
    def folder(self) -> Path | None:
        """Where the cell's files lie."""
        return self.path.parent if self.path else None

    def settings_of(self, evaluation: EvaluationResult) -> dict[str, Any]:
        """Return the settings of one of its evaluations."""
        table: dict[str, Any] = self.settings.get("evaluate", {})
        return table.get(evaluation.name, {}) if evaluation.name else table

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-able values."""
        table = {key: value for key, value in dataclasses.asdict(self).items() if key != "path"}
        return {"format": FORMAT, "version": VERSION, **table}


def read(path: Path) -> CellResult:
    """Read a ``result.json`` of this version or of version 1, which had one evaluation.

    Raises:
        UserError: it is cut short, was written by something else, or holds values that cannot be.
    """
    table = read_json(path)
    if table.pop("format", None) != FORMAT:
        raise UserError(f"{path} is not the result of a cell")
    version = table.pop("version", None)
    if version == 1:
        table["settings"] = table.pop("told", None)
        keys = {"report": "evaluation", "rows": "rows"}
        table["evaluations"] = [{"name": "", **{key: table.pop(old, None) for key, old in keys.items()}}]
    elif version != VERSION:
        raise UserError(f"{path} has version {version!r}; this dsdistill reads 1 and {VERSION}")
    return from_table(table, path)


def from_table(table: Mapping[str, Any], path: Path) -> CellResult:
    """Make a result of the values in ``path``, unknown ones left out.

    Tables and pages are passed on, so no text of it names a folder of this machine.

    Raises:
        UserError: a value is missing or cannot be.
    """
    known = [each.name for each in dataclasses.fields(CellResult)]
    values = values_without_folders({key: value for key, value in table.items() if key in known})
    if isinstance(config := table.get("config"), str):
        values["config"] = toml_without_folders(config)
    values["evaluations"] = _modernise(values.get("evaluations"))
    result: CellResult = validate(CellResult, {**values, "path": path}, f"{path}: key", known)
    for evaluation in result.evaluations:
        rows = evaluation.rows
        if not any(row.set == DISTILLED for row in rows) or not all(row.values for row in rows):
            raise UserError(f"{path} holds no accuracy of its distilled set")
        _check_report(evaluation.report, path)
    if not result.evaluations:
        raise UserError(f"{path} holds no evaluation")
    return result


def _modernise(evaluations: Any) -> Any:
    """Return the evaluations of a table with what earlier versions left out of their rows."""
    if not isinstance(evaluations, list):
        return evaluations
    modern = []
    for each in evaluations:
        if isinstance(each, Mapping) and isinstance(each.get("rows"), list):
            report = each.get("report")
            soft = isinstance(report, Mapping) and report.get("soft_labels") is True
            rows = [modernise_row(row, soft) if isinstance(row, Mapping) else row for row in each["rows"]]
            each = {**each, "rows": rows}
        modern.append(each)
    return modern


def _check_report(report: Mapping[str, Any], path: Path) -> None:
    """Check the values of a report that programs calculate with.

    Raises:
        UserError: one cannot be.
    """
    cost, seed = report.get("cost", {}), report.get("seed", 0)
    sound = isinstance(cost, Mapping) and all(
        isinstance(each, int | float) and 0 <= each <= 1e18 for each in cost.values()
    )
    if not sound or not isinstance(seed, int):
        raise UserError(f"{path} holds a seed or a cost that is no number")
