"""What a folder of results holds: every finished cell once, with scores; and what is missing."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Sequence
from pathlib import Path

from dsdistill.bench.results import FAILURE, CellResult, read
from dsdistill.errors import UserError
from dsdistill.evaluation import scores
from dsdistill.evaluation.rows import FULL, RANDOM, canonical


def collect(folder: Path) -> tuple[list[CellResult], list[str]]:
    """Read every result below a folder; of copies, the one that lies where its suite put it counts.

    Returns:
        the results by name; and a sentence for each file that is none, for each copy, and for each cell that
        is not finished.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; make results with: dsdistill bench digits -o {folder}")
    there: list[tuple[Path, CellResult]] = []
    problems = []
    for path in sorted(folder.rglob("result.json")):
        try:
            there.append((path, read(path)))
        except UserError as error:
            problems.append(f"left out: {str(error).replace(f'{folder}/', '')}")
    there.sort(key=lambda one: one[0].parent != folder / one[1].cell)
    found: dict[tuple[str, str], tuple[Path, CellResult]] = {}
    for path, each in there:
        first, _ = found.setdefault((each.suite, each.cell), (path, each))
        if first != path:
            names = (one.relative_to(folder) for one in (path, first))
            problems.append("left out: {} is of the same suite and cell as {}".format(*names))
    problems += [
        _unfinished(path.parent, folder)
        for path in sorted(folder.rglob("cell.toml"))
        if not (path.parent / "result.json").exists()
    ]
    cells = (each for _, each in found.values())
    order = sorted(cells, key=lambda each: (each.suite, each.dataset, each.ipc, each.method, each.seed))
    return _scored(order), problems


def _unfinished(cell: Path, folder: Path) -> str:
    """Say that a cell is not finished, why if it failed, and what others miss for it."""
    text = f"not finished: {cell.relative_to(folder)}"
    if (cell / FAILURE).exists():
        why = (cell / FAILURE).read_text(errors="replace").strip()
        text += f" ({why.replace(f'{folder}/', '')})"
    try:
        beside = tomllib.loads((cell / "cell.toml").read_text())["evaluate"]["baselines"]
    except (OSError, ValueError, KeyError, TypeError):
        beside = []
    names = ", ".join(canonical(str(name)) for name in beside)
    return text + (f"; its baselines are missing too: {names}" if beside else "")


def _scored(results: Sequence[CellResult]) -> list[CellResult]:
    """Compute every cell's scores; baselines that it has not judged are those of a cell like it."""
    alike: dict[str, list[CellResult]] = {}
    for each in results:
        alike.setdefault(_judged_as(each), []).append(each)
    found = []
    for each in results:
        rows = {(row.network, row.set): row for row in each.rows}
        for other in alike[_judged_as(each)]:
            enough = other.main.decoded >= each.main.decoded  # steps on the full set follow from the set's
            for row in other.rows:
                if row.set == RANDOM or (row.set == FULL and enough):
                    rows.setdefault((row.network, row.set), row)
        scored = scores.of_rows(list(rows.values()), bool(each.evaluation.get("soft_labels")))
        found.append(dataclasses.replace(each, evaluation={**each.evaluation, "scores": scored}))
    return found


def _judged_as(result: CellResult) -> str:
    """Return all that random images of a cell, as many as it has, depend on."""
    conditions = [result.evaluation.get(key) for key in ("protocol", "epochs", "lr", "precision")]
    try:
        data = tomllib.loads(result.config).get("data", {})
    except ValueError:
        data = {}
    seen = {key: value for key, value in sorted(data.items()) if key not in ("root", "download")}
    return str((result.suite, result.dataset, result.ipc, result.seed, conditions, seen))
