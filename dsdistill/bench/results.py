"""A cell's ``result.json``: written once the cell is finished, read back with every value checked."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from dsdistill import files
from dsdistill.bench.cells import Cell, ExpertSet
from dsdistill.config.options import difference
from dsdistill.config.validation import validated
from dsdistill.errors import UserError
from dsdistill.evaluation.baselines import expanded
from dsdistill.evaluation.rows import DISTILLED, Row
from dsdistill.storage import set_file as storage
from dsdistill.storage.expert_file import ExpertFile

FORMAT = "dsdistill-cell"
VERSION = 1
ANOTHER = "another set lies there now"


@dataclass(frozen=True)
class Point:
    """Accuracy at a moment of the distillation: percent, by ``students`` fresh students."""

    iteration: int
    seconds: float
    mean: float
    std: float
    students: int


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """A finished cell.

    Attributes:
        suite, cell: the suite's name, the cell's folder below the results.
        dataset, method, ipc, seed, network: which it is; the network that features were matched in.
        told: what the cell was told. config: the run's resolved TOML.
        file, sha256: the set, beside the result, and the checksum of its content.
        iterations, seconds, peak_memory_bytes, machine, created: of the distillation.
        experts_seconds: that the experts it matched with took, which other cells may share.
        evaluation: how it was judged, when and where: an evaluation's report without its rows.
        rows: accuracies by student and training set, the distilled set's and the baselines'.
        curve: snapshots, earliest first, then the finished set.
        commands: that made it.
        path: where the result was read from, or None.
    """

    suite: str
    cell: str
    dataset: str
    method: str
    ipc: int
    seed: int
    network: str
    told: dict[str, Any]
    config: str
    file: str
    sha256: str
    iterations: int
    seconds: float
    peak_memory_bytes: int
    machine: str
    created: str
    evaluation: dict[str, Any]
    rows: list[Row]
    curve: list[Point] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    experts_seconds: float = 0.0
    path: Path | None = None

    @property
    def main(self) -> Row:
        """The distilled set by the first student."""
        return next(row for row in self.rows if row.set == DISTILLED)

    @property
    def stored_bytes(self) -> float:
        """Compressed bytes of the set's images and labels."""
        cost = self.evaluation.get("cost", {})
        return float(cost.get("image_bytes", 0.0)) + float(cost.get("label_bytes", 0.0))

    @property
    def real_image_bytes(self) -> float:
        """Compressed bytes of a real image, as the evaluation measured them; 0 where it did not."""
        count = float(self.evaluation.get("cost", {}).get("real_images", 0.0))
        return self.stored_bytes / count if count else 0.0

    @property
    def doubt(self) -> str:
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

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-able values."""
        table = {key: value for key, value in dataclasses.asdict(self).items() if key != "path"}
        return {"format": FORMAT, "version": VERSION, **table}


def write_told(jobs: Sequence[Cell | ExpertSet], results: Path) -> None:
    """Write what cells, and trainings of experts, are told, before the first of them begins.

    Where a cell was told before to be judged otherwise, its verdicts are forgotten; the set stays, and what
    its file knows of them.

    Raises:
        UserError: one was begun being told to be made otherwise; nothing has been touched.
    """
    changed = [_changes(job, results) for job in jobs]
    for job, changes in zip(jobs, changed, strict=True):
        if lasting := [text for key, text in changes.items() if not _of_judging(key)]:
            raise UserError(
                f"{results / job.name} was begun with other settings ({lasting[0]}): choose another folder "
                "with -o, or remove what is there"
            )
    for job, changes in zip(jobs, changed, strict=True):
        _write_told(job, results, changes)


def _write_told(job: Cell | ExpertSet, results: Path, changes: Mapping[str, str]) -> None:
    """Write what one is told, and forget the verdicts that it makes stale."""
    folder = results / job.name
    stale = [folder / "result.json", folder / "evaluation.json"] if changes else []
    if not _OF_CURVES.isdisjoint(changes):
        stale += folder.glob("curve-*.json")
    for verdict in stale:
        verdict.unlink(missing_ok=True)
    file = job.told_file(results)
    file.parent.mkdir(parents=True, exist_ok=True)
    files.replace(file, tomli_w.dumps(job.told()).encode())


def _changes(job: Cell | ExpertSet, results: Path) -> dict[str, str]:
    """Say, by key, what a job was told otherwise when it was begun here."""
    try:
        text = job.told_file(results).read_text()
        before, now = tomllib.loads(text), tomllib.loads(tomli_w.dumps(job.told()))
    except (OSError, ValueError):  # not begun, or nothing that says how
        return {}
    evaluate = before.get("evaluate", {})
    if isinstance(names := evaluate.get("baselines"), list):
        before["evaluate"] = {**evaluate, "baselines": expanded(map(str, names))}  # under their present names
    changes = difference(before, now) if before else []
    return {key: f"{key} was {earlier!r}, now {later!r}" for key, earlier, later in changes}


def _of_judging(key: str) -> bool:
    return key.startswith("evaluate.")


_OF_CURVES = {f"evaluate.{key}" for key in ("protocol", "epochs", "curve_students")}


def write_failure(cell: Cell, results: Path, why: str) -> None:
    """Keep why a cell failed, if that is possible; empty when it is tried again."""
    file = results / cell.name / FAILURE
    with contextlib.suppress(OSError, UserError):  # the disk may be full, which is why
        if why:
            files.replace(file, f"{why}\n".encode())
        else:
            file.unlink(missing_ok=True)


FAILURE = "failed.txt"
"""Why a cell failed, in its folder."""


def finish(suite: str, cell: Cell, results: Path, commands: list[str]) -> CellResult:
    """Join what a cell's commands left into its ``result.json``.

    Raises:
        UserError: a file is missing or damaged.
    """
    folder = results / cell.name
    set_file = folder / "set.h5"
    about = storage.describe(set_file).attributes
    verdict = _json(folder / "evaluation.json")
    rows = verdict.pop("rows", [])
    curve = [point for path in cell.run(results).snapshots() if (point := _point(cell, results, path))]
    table = {
        "suite": suite,
        "cell": cell.name,
        "dataset": cell.dataset,
        "method": Path(cell.method).stem,
        "ipc": cell.ipc,
        "seed": cell.seed,
        "network": cell.network,
        "told": json.loads(json.dumps(cell.told())),
        "config": about["config"],
        "file": set_file.name,
        "sha256": storage.digest(set_file),
        "iterations": about["iterations"],
        "seconds": about["seconds"],
        "experts_seconds": _experts_seconds(cell, results),
        "peak_memory_bytes": about["peak_memory_bytes"],
        "machine": about["machine"],
        "created": about["created"],
        "evaluation": verdict,
        "rows": rows,
        "commands": commands,
    }
    found = _checked(table, folder / "result.json")
    if curve:
        end = found.main
        last = Point(found.iterations, found.seconds, end.mean, end.std, len(end.values))
        found = dataclasses.replace(found, curve=[*curve, last])
    files.replace(folder / "result.json", (json.dumps(found.to_dict(), indent=1) + "\n").encode())
    return found


def read(path: Path) -> CellResult:
    """Read a ``result.json``.

    Raises:
        UserError: it is cut short, was written by something else, or holds values that cannot be.
    """
    table = _json(path)
    if table.pop("format", None) != FORMAT:
        raise UserError(f"{path} is not the result of a cell")
    if (version := table.pop("version", None)) != VERSION:
        raise UserError(f"{path} has version {version!r}; this dsdistill reads {VERSION}")
    return _checked(table, path)


def done(cell: Cell, results: Path) -> CellResult | None:
    """Return a cell's result if it is finished and whole, and no other judging has been asked for since."""
    try:
        return read(results / cell.name / "result.json") if not _changes(cell, results) else None
    except UserError:
        return None


def state(cell: Cell, results: Path) -> str:
    """Say in a word or two how far a cell is."""
    if changed := _changes(cell, results):
        return "to be judged anew" if all(map(_of_judging, changed)) else "begun with other settings"
    if done(cell, results):
        return "finished"
    if (results / cell.name / "set.h5").exists():
        return "distilled"
    return "begun" if cell.run(results).config_file.exists() else "to do"


def trained(experts: ExpertSet, results: Path) -> bool:
    """Whether experts are there; their file appears when the last is trained."""
    return experts.file(results).exists()


def verdict_done(path: Path) -> bool:
    """Whether an evaluation is there and whole."""
    try:
        return bool(_json(path).get("rows"))
    except UserError:
        return False


def _experts_seconds(cell: Cell, results: Path) -> float:
    if cell.experts is None:
        return 0.0
    try:
        return sum(each.seconds for each in ExpertFile.open(cell.experts.file(results)).training)
    except UserError:  # moved away since: no reason to lose the cell
        return 0.0


def _point(cell: Cell, results: Path, snapshot: Path) -> Point | None:
    verdict = _json(cell.verdict(results, snapshot))
    about = storage.describe(snapshot).attributes
    row = verdict["rows"][0]
    moment = int(about["iterations"]), float(about["seconds"])
    return Point(*moment, row["mean"], row["std"], len(row["values"]))


def _json(path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number")

    try:
        table = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    except OSError as error:
        raise UserError(f"cannot read {path}: {files.reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not whole JSON ({files.reason(error)})") from error
    if not isinstance(table, dict):
        raise UserError(f"{path} is not the result of a cell")
    return table


def _checked(table: Mapping[str, Any], path: Path) -> CellResult:
    known = [each.name for each in dataclasses.fields(CellResult)]
    unread = {key: value for key, value in table.items() if key in known and key != "path"}
    made: CellResult = validated(CellResult, {**unread, "path": path}, f"{path}: key", known)
    if not any(row.set == DISTILLED for row in made.rows) or not all(row.values for row in made.rows):
        raise UserError(f"{path} holds no accuracy of its distilled set")
    return made
