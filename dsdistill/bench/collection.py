"""The results in a folder: every finished cell once, with scores; and what is missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dsdistill.bench.cell_files import read_failure
from dsdistill.bench.conditions import Conditions
from dsdistill.bench.results import CellResult, EvaluationResult, read
from dsdistill.config.options import table_at
from dsdistill.errors import UserError
from dsdistill.evaluation import scores
from dsdistill.evaluation.rows import FULL, RANDOM, canonical
from dsdistill.files import read_toml


def collect(folder: Path) -> tuple[list[CellResult], list[str]]:
    """Read every result below a folder; of copies, the one that lies where its suite put it counts.

    Returns:
        the results by name; and a sentence for each file that is none, for each copy, and for each cell that
        is not finished.

    Raises:
        UserError: there is no such folder, or it is a file.
    """
    if folder.is_file():
        raise UserError(
            f"{folder} is a file, and a report is of a folder that dsdistill bench has written; the results "
            f"of one set: dsdistill info {folder}"
        )
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; make results with: dsdistill bench digits -o {folder}")
    files: list[tuple[Path, CellResult]] = []
    problems = []
    for path in sorted(folder.rglob("result.json")):
        try:
            files.append((path, read(path)))
        except UserError as error:
            problems.append(f"left out: {str(error).replace(f'{folder}/', '')}")
    files.sort(key=lambda file: file[0].parent != folder / file[1].cell)
    first: dict[tuple[str, str], tuple[Path, CellResult]] = {}
    for path, result in files:
        counted, _ = first.setdefault((result.suite, result.cell), (path, result))
        if counted != path:
            names = (each.relative_to(folder) for each in (path, counted))
            problems.append("left out: {} is of the same suite and cell as {}".format(*names))
    problems += [
        _unfinished(path.parent, folder)
        for path in sorted(folder.rglob("cell.toml"))
        if not (path.parent / "result.json").exists()
    ]
    results = [result for _, result in first.values()]
    results.sort(key=lambda each: (each.suite, each.dataset, each.ipc, each.method, each.seed))
    return _scored(results), problems


def _unfinished(cell: Path, folder: Path) -> str:
    """Say that a cell is not finished, why if it failed, and which baselines others miss for it."""
    text = f"not finished: {cell.relative_to(folder)}"
    if reason := read_failure(cell):
        text += f" ({reason.replace(f'{folder}/', '')})"
    try:
        names = list(dict.fromkeys(_baselines(table_at(read_toml(cell / "cell.toml"), "evaluate"))))
    except UserError:
        names = []
    return text + (f"; its baselines are missing too: {', '.join(names)}" if names else "")


def _baselines(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the baselines of a cell's evaluations, whether it has one or several by name."""
    for table in (settings, *settings.values()):
        if isinstance(table, Mapping):
            names = table.get("baselines")
            yield from (canonical(str(name)) for name in (names if isinstance(names, list) else ()))


def _scored(results: Sequence[CellResult]) -> list[CellResult]:
    """Compute the scores of every evaluation.

    Baselines that it lacks are taken from an evaluation of equal conditions.
    """
    alike: dict[tuple[str, Conditions], list[EvaluationResult]] = {}
    for result in results:
        for evaluation in result.evaluations:
            key = result.suite, Conditions.of_result(result, evaluation)
            alike.setdefault(key, []).append(evaluation)
    scored = []
    for result in results:
        evaluations = []
        for evaluation in result.evaluations:
            others = alike[result.suite, Conditions.of_result(result, evaluation)]
            table = _scores(evaluation, others)
            report = {**evaluation.report, "scores": table}
            evaluations.append(dataclasses.replace(evaluation, report=report))
        scored.append(dataclasses.replace(result, evaluations=evaluations))
    return scored


def _scores(evaluation: EvaluationResult, others: Sequence[EvaluationResult]) -> dict[str, Any]:
    rows = {(row.network, row.set): row for row in evaluation.rows}
    for other in others:
        enough = other.main.decoded >= evaluation.main.decoded  # steps on the full set follow from the set's
        for row in other.rows:
            if row.set == RANDOM or (row.set == FULL and enough):
                rows.setdefault((row.network, row.set), row)
    return scores.of_rows(list(rows.values()), bool(evaluation.report.get("soft_labels")))
