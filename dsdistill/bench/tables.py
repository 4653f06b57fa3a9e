"""Results as tables: lines joined over seeds, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsdistill import files
from dsdistill.bench import published
from dsdistill.bench.published import Published
from dsdistill.bench.results import CellResult
from dsdistill.errors import UserError
from dsdistill.evaluation.rows import DISTILLED, DISTILLED_HARD, UNAUGMENTED, Row
from dsdistill.text import duration, kilobytes, spread

_PLAINLY = ", no augmentation"
_OWN = {DISTILLED: "", DISTILLED_HARD: ", hard labels", DISTILLED + UNAUGMENTED: _PLAINLY}
"""Rows of the set itself, and what is added to the method's name."""
CAPTION = (
    "Accuracy in percent on the test set after the last epoch: mean ± sample standard deviation over all "
    "fresh students of all seeds; no ± where there is one student. Real images are trained on as the "
    "distilled set is, at its learning rate where that was learned. Experts are trained once for all cells "
    "that match with them; their time comes on top."
)


@dataclass(frozen=True)
class Line:
    """One method or baseline at one data set, IPC, student and protocol, over the seeds.

    Attributes:
        method: a recipe's name, or a baseline's, with what is special about it. set: the rows' own name.
        baseline: whether it is real images.
        first: whether the student is the network that features were matched in.
        values: one per student, in percent, of all seeds.
        images: stored, or real ones taken. bytes: of images and labels, compressed, mean over the seeds; NaN
            where that is not known. seconds: of the distillation, likewise. experts_seconds: of the experts.
        published: what was printed for the method, data set and IPC; only with the first student.
        cells: the results it was made from.
    """

    suite: str
    dataset: str
    ipc: int
    method: str
    set: str
    baseline: bool
    network: str
    first: bool
    protocol: str
    epochs: int
    values: tuple[float, ...]
    images: int
    bytes: float
    seconds: float
    experts_seconds: float
    published: Published | None
    cells: tuple[CellResult, ...]

    @property
    def for_scores(self) -> bool:
        """Whether students were trained otherwise than the protocol says, for what scores compare."""
        return self.set == DISTILLED_HARD or self.set.endswith(UNAUGMENTED)

    @property
    def mean(self) -> float:
        """Mean accuracy over all students."""
        return statistics.mean(self.values)

    @property
    def std(self) -> float:
        """Sample standard deviation over all students; 0 for one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def accuracy(self) -> str:
        """Mean ± deviation, as tables print it."""
        return spread(self.mean, self.std, len(self.values))

    @property
    def spent(self) -> str:
        """Time of the distillation, and of the experts it needs."""
        if self.baseline:
            return ""
        experts = f" + {duration(self.experts_seconds)}" if self.experts_seconds else ""
        return duration(self.seconds) + experts

    @property
    def iterations(self) -> str:
        """How many the distillation took, mean over the seeds: a budget in seconds leaves them open."""
        return "" if self.baseline else f"{statistics.mean(each.iterations for each in self.cells):.0f}"

    @property
    def over(self) -> str:
        """Students behind the mean, and seeds."""
        seeds = len({each.seed for each in self.cells})
        return f"{len(self.values)} ({seeds} seeds)" if seeds > 1 else str(len(self.values))


def lines(results: Iterable[CellResult]) -> list[Line]:
    """Join results that differ in their seed only.

    Returns:
        lines by suite, data set, IPC and student; distilled sets first, then baselines, as they came.
    """
    groups: dict[tuple[Any, ...], list[tuple[CellResult, Row]]] = {}
    for result in results:
        for row in result.rows:
            made = _without_seed(result) if row.set in _OWN else result.method
            key = (result.suite, result.dataset, result.ipc, row.network, row.set, made)
            groups.setdefault((*key, row.protocol, row.epochs), []).append((result, row))
    shared = Counter((*key[:5], *key[6:]) for key in groups)  # by all but who judged it
    found = [
        _line(members, alone=shared[*key[:5], *key[6:]] == 1 and "@" not in key[4])
        for key, members in groups.items()
    ]
    return sorted(
        found,
        key=lambda each: (each.suite, each.dataset, each.ipc, not each.first, each.network, each.baseline),
    )


def markdown(results: Sequence[CellResult], problems: Sequence[str] = ()) -> str:
    """Return a table in Markdown, with how it is to be read and where published values come from."""
    drawn = lines(results)
    head = ["data set", "IPC", "method", "student", "protocol", "epochs", "accuracy %", "students"]
    head += ["distilled in", "iterations", "kB", "published %"]
    text = [CAPTION, "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    sources: list[str] = []
    for line in drawn:
        mark = ""
        if line.published:
            source = cited(line.published)
            sources += [source] if source not in sources else []
            mark = f"{line.published} [{sources.index(source) + 1}]"
        cells = [line.dataset, line.ipc, line.method, line.network, line.protocol, line.epochs, line.accuracy]
        cells += [line.over, line.spent, line.iterations, kilobytes(line.bytes), mark]
        text.append(f"| {' | '.join(map(str, cells))} |".replace("|  |", "| |"))
    if sources:
        text += ["", published.NOTE, ""]
        text += [f"{number}. {source}" for number, source in enumerate(sources, 1)]
    if problems:
        text += ["", *(f"- {problem}" for problem in problems)]
    return "\n".join([*text, ""])


def csv_text(results: Sequence[CellResult]) -> str:
    """Return a row for every cell, student and training set."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    head = [
        "suite",
        "cell",
        "dataset",
        "method",
        "ipc",
        "seed",
        "set",
        "network",
        "protocol",
        "epochs",
        "mean",
    ]
    head += ["std", "students", "values", "images", "decoded", "stored_bytes", "iterations", "distil_seconds"]
    writer.writerow([*head, "peak_memory_bytes", "file", "sha256", "machine", "date"])
    for each in results:
        for row in each.rows:
            values = " ".join(f"{value:.4f}" for value in row.values)
            about = [each.suite, each.cell, each.dataset, each.method, each.ipc, each.seed]
            found = [row.set, row.network, row.protocol, row.epochs, f"{row.mean:.4f}", f"{row.std:.4f}"]
            found += [len(row.values), values, row.images, row.decoded]
            cost: list[Any] = [
                each.stored_bytes,
                each.iterations,
                f"{each.seconds:.2f}",
                each.peak_memory_bytes,
            ]
            if row.set not in _OWN:  # real images, which cost nothing but their bytes
                taken = row.images * each.real_image_bytes
                cost = [f"{taken:.0f}" if taken else "", "", "", ""]
            made = [f"{each.cell}/{each.file}", each.sha256, each.machine, each.evaluation.get("date", "")]
            writer.writerow([*about, *found, *cost, *made])
    return file.getvalue()


FILES = ("results.json", "results.csv", "table.md")


def check_replaceable(folder: Path) -> None:
    """Check that tables would replace nothing but an earlier suite's.

    Raises:
        UserError: files of such names lie there, without results.json of a suite.
    """
    there = [folder / name for name in FILES if (folder / name).exists()]
    try:
        ours = not there or {"suite", "cells"} <= json.loads((folder / FILES[0]).read_bytes()).keys()
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        raise UserError(
            f"{there[0]} would be replaced, and no results.json of a suite lies there; choose another -o"
        )


def write(folder: Path, suite: str, results: Sequence[CellResult], problems: Sequence[str]) -> list[Path]:
    """Write results.json, results.csv and table.md, each at once or not at all; return them."""
    table = {"suite": suite, "cells": [each.to_dict() for each in results], "problems": list(problems)}
    texts = (json.dumps(table, indent=1) + "\n", csv_text(results), markdown(results, problems))
    for name, text in zip(FILES, texts, strict=True):
        files.replace(folder / name, text.encode())
    return [folder / name for name in FILES]


def cited(value: Published) -> str:
    """Return where a published value was read, and what was special about it."""
    return f"{value.source} ({value.note})" if value.note else value.source


def _line(members: list[tuple[CellResult, Row]], alone: bool) -> Line:
    """Join the rows of one line; a baseline that is not alone is named after the method it goes with."""
    results = tuple(result for result, _ in members)
    one, row = members[0]
    baseline = row.set not in _OWN
    of = "" if alone else f" of {one.method}"
    method = row.set.replace(UNAUGMENTED, _PLAINLY) + of if baseline else one.method + _OWN[row.set]
    first = row.network == one.network
    sizes = [row.images * each.real_image_bytes if baseline else each.stored_bytes for each, row in members]
    printed = published.find(one.dataset, row.set if baseline else method, one.ipc) if first else None
    return Line(
        suite=one.suite,
        dataset=one.dataset,
        ipc=one.ipc,
        method=method,
        set=row.set,
        baseline=baseline,
        network=row.network,
        first=first,
        protocol=row.protocol,
        epochs=row.epochs,
        values=tuple(value for _, each in members for value in each.values),
        images=row.images,
        bytes=statistics.mean(sizes) if all(sizes) else float("nan"),
        seconds=float("nan") if baseline else statistics.mean(each.seconds for each in results),
        experts_seconds=0.0 if baseline else statistics.mean(each.experts_seconds for each in results),
        published=printed,
        cells=results,
    )


def _without_seed(result: CellResult) -> str:
    """Return all that a cell was told but its seed."""
    told = {**result.told, "distil": {**result.told.get("distil", {}), "seed": None}}
    told["evaluate"] = {**told.get("evaluate", {}), "baselines": None}
    return f"{result.method} {json.dumps(told, sort_keys=True, default=str)}"
