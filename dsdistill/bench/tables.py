"""Results as tables: Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dsdistill import files
from dsdistill.bench import published
from dsdistill.bench.lines import OWN, Line, gains, lines, pixel_bits, without_copies
from dsdistill.bench.published import Published
from dsdistill.bench.results import CellResult, EvaluationResult
from dsdistill.bench.worth import NOTE, sentences
from dsdistill.config.sharing import values_without_folders
from dsdistill.errors import UserError
from dsdistill.evaluation.rows import Row
from dsdistill.text import cell, kilobytes, plain

CAPTION = (
    "Accuracy in percent on the test set after the last epoch: mean ± sample standard deviation over all "
    "fresh students of all seeds; no ± where there is one student. Real images are trained on as the "
    "distilled set is, at its learning rate where that was learned. Experts are trained once for all cells "
    "that match with them or are labelled by them; their time comes on top, and that of stored labels, the "
    "start of the command included."
)
CODED = (
    "Bits are those of a stored pixel. A set with fewer than the first of its method is an encoded copy of "
    "that; real images named @bytes take the bytes of a set or of a copy, those named by a size as many "
    "bytes as it says, and both are coded like the set or the copy."
)
GAINS = "Gains of one method over another, mean ± sample standard deviation of the differences seed by seed:"


def markdown(results: Sequence[CellResult], problems: Sequence[str] = ()) -> str:
    """Return a table in Markdown, with how it is to be read and where published values come from."""
    joined = lines(results)
    columns, sources = _columns(joined), citations(joined)
    caption = f"{CAPTION} {CODED}" if "bits" in columns else CAPTION
    text = [caption, "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for line in joined:
        cells = (_markdown(str(of_line(line))) for of_line in columns.values())
        text.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    if worth := sentences(without_copies(joined)):
        text += ["", NOTE, "", *(f"- {_markdown(sentence)}" for sentence in worth)]
    if compared := gains(results):
        text += ["", GAINS, "", *(f"- {_markdown(str(gain))}" for gain in compared)]
    if sources:
        text += ["", published.NOTE, ""]
        text += [f"{number}. {source}" for number, source in enumerate(sources, 1)]
    if problems:
        text += ["", *(f"- {_markdown(problem)}" for problem in problems)]
    return "\n".join([*text, ""])


def _columns(joined: Sequence[Line]) -> dict[str, Callable[[Line], object]]:
    """Return what a table has of a line, by the heads of its columns."""
    sources = citations(joined)

    def printed(line: Line) -> str:
        value = line.published
        return f"{value} [{sources.index(cited(value)) + 1}]" if value else ""

    columns: dict[str, Callable[[Line], object]] = {
        "data set": lambda line: line.dataset,
        "IPC": lambda line: line.ipc,
        "method": lambda line: line.method,
        "labels": lambda line: line.regime,
        "student": lambda line: line.network,
        "protocol": lambda line: line.protocol,
        "epochs": lambda line: line.epochs,
        "accuracy %": lambda line: line.accuracy,
        "students": lambda line: line.over,
        "distilled in": lambda line: line.spent,
        "iterations": lambda line: line.iterations,
    }
    if any(line.of_copy for line in joined):
        columns["bits"] = lambda line: line.bits or ""
    columns["kB"] = lambda line: kilobytes(line.bytes)
    if any(line.label_bytes for line in joined):
        columns["of labels kB"] = lambda line: kilobytes(line.label_bytes) if line.label_bytes else ""
    return columns | {"published %": printed}


def _markdown(text: str) -> str:
    """Return a text for a cell of a table, where it neither ends the cell nor begins a tag."""
    return re.sub(r"[\\|<]", r"\\\g<0>", plain(text))


_OF_CELL = ("suite", "cell", "dataset", "method", "ipc", "seed")
_OF_ROW = (
    "set",
    "regime",
    "network",
    "protocol",
    "epochs",
    "mean",
    "std",
    "students",
    "values",
    "images",
    "decoded",
)
_OF_COST = (
    "bits",
    "stored_bytes",
    "label_bytes",
    "iterations",
    "distil_seconds",
    "label_seconds",
    "peak_memory_bytes",
)
_OF_FILE = ("file", "sha256", "machine", "date", "evaluation")


def csv_text(results: Sequence[CellResult]) -> str:
    """Return a row for every cell, evaluation, student and training set.

    Texts are written as `cell` says, so that no spreadsheet computes them; numbers stay numbers.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*_OF_CELL, *_OF_ROW, *_OF_COST, *_OF_FILE])
    for result in results:
        for evaluation in result.evaluations:
            for row in evaluation.rows:
                writer.writerow(_csv_row(result, evaluation, row))
    return file.getvalue()


def _csv_row(result: CellResult, evaluation: EvaluationResult, row: Row) -> list[Any]:
    """Return the values below the columns of ``csv_text``."""
    values = " ".join(f"{value:.4f}" for value in row.values)
    place = [getattr(result, key) for key in _OF_CELL]
    place += [row.set, row.regime, row.network, row.protocol]
    accuracy = [row.epochs, f"{row.mean:.4f}", f"{row.std:.4f}"]
    accuracy += [len(row.values), values, row.images, row.decoded]
    labels = evaluation.label_bytes if row.regime == "SL" else 0.0
    bits = pixel_bits(row.set, evaluation.bits) or ""
    cost: list[Any] = [evaluation.image_bytes + evaluation.label_bytes, labels or "", result.iterations]
    seconds = f"{result.label_seconds:.2f}" if row.regime == "SL" and result.label_seconds else ""
    cost += [f"{result.seconds:.2f}", seconds, result.peak_memory_bytes]
    if row.set not in OWN:  # real images, which cost nothing but their bytes
        size = evaluation.bytes_of_real(row) + (labels if row.images else 0.0)
        cost = [f"{size:.0f}" if size else "", labels or "", "", "", "", ""]
    of_file = [f"{result.cell}/{result.file}", result.sha256, result.machine]
    of_file += [str(evaluation.report.get("date", "")), evaluation.name]
    return [*map(_text, place), *accuracy, bits, *cost, *map(_text, of_file)]


def _text(value: Any) -> Any:
    return cell(value) if isinstance(value, str) else value


FILES = ("results.json", "results.csv", "table.md")


def check_replaceable(folder: Path) -> None:
    """Check before a suite runs that its tables can be written and replace nothing but an earlier suite's.

    Raises:
        UserError: files of such names lie there, without results.json of a suite; or the folder or a file in
            it cannot be written.
    """
    existing = [folder / name for name in FILES if (folder / name).exists()]
    try:
        ours = not existing or {"suite", "cells"} <= files.read_json(folder / FILES[0]).keys()
    except UserError:
        ours = False
    if not ours:
        raise UserError(
            f"{existing[0]} would be replaced, and no results.json of a suite lies there; choose another -o"
        )
    if folder.is_dir():
        for file in (*(folder / name for name in FILES), *folder.glob("plots/*.svg")):
            files.check_target(file)


def write(folder: Path, suite: str, results: Sequence[CellResult], problems: Sequence[str]) -> list[Path]:
    """Write results.json, results.csv and table.md, each at once or not at all; return them."""
    problems = values_without_folders(problems)
    table = {"suite": suite, "cells": [each.to_dict() for each in results], "problems": problems}
    texts = (json.dumps(table, indent=1) + "\n", csv_text(results), markdown(results, problems))
    for name, text in zip(FILES, texts, strict=True):
        files.replace(folder / name, text.encode())
    return [folder / name for name in FILES]


def cited(value: Published) -> str:
    """Return where a published value was read, and what was special about it."""
    return f"{value.source} ({value.note})" if value.note else value.source


def citations(lines: Sequence[Line]) -> list[str]:
    """Return where the published values of lines come from, each once."""
    return list(dict.fromkeys(cited(line.published) for line in lines if line.published))
