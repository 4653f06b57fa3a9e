"""Lines of tables: rows joined over seeds; and gains of one method over another, seed by seed."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dsdistill.bench import published
from dsdistill.bench.published import Published
from dsdistill.bench.results import CellResult, EvaluationResult
from dsdistill.config.regimes import REGIMES
from dsdistill.evaluation.rows import (
    DISTILLED,
    DISTILLED_HARD,
    LABELLED,
    NOISE,
    TEACHER,
    UNAUGMENTED,
    Row,
    size_of,
)
from dsdistill.text import duration, spread

_UNAUGMENTED = ", no augmentation"
REGIME_ORDER = tuple(dict.fromkeys(REGIMES.values()))
"""Regimes of labels, as tables have them one below the other."""
OWN = {DISTILLED: "", DISTILLED_HARD: ", hard labels", DISTILLED + UNAUGMENTED: _UNAUGMENTED}
"""Rows of the set itself, and what is added to the method's name."""
_REAL_BITS = 8
"""Of a pixel of a real image."""


def pixel_bits(row: str, set_bits: int) -> int:
    """Return the bits of a pixel of the images behind a row; 0 where these are no stored ones.

    >>> pixel_bits("random", 4), pixel_bits("random@bytes", 4), pixel_bits("random@bytes", 32)
    (8, 4, 8)

    Args:
        row: its set. set_bits: of the distilled set of its evaluation, as which real images are coded.
    """
    if row in OWN:
        return set_bits
    if row == TEACHER or row.startswith(NOISE):
        return 0
    return min(set_bits, _REAL_BITS) if size_of(row) else _REAL_BITS


@dataclass(frozen=True)
class Line:
    """One method or baseline at one data set, IPC, student and evaluation, over the seeds.

    Attributes:
        method: the method's name, or a baseline's, with what is special about it. set: the rows' own name.
        evaluation: its name in the suite, or empty.
        baseline: whether it is real images, or a control. regime: how labels reached the students; see `Row`.
        first: whether the student is the first of its evaluation.
        values: one per student, in percent, of all seeds.
        set_bits: of a pixel of the distilled set that the evaluation is of.
        images: stored, or real ones taken. bytes: of images and labels, compressed, mean over the seeds; NaN
            where that is not known. label_bytes: those of stored soft labels among them, likewise.
        seconds: of the distillation, likewise. experts_seconds: of the experts, teachers among them.
            label_seconds: of the labelling whose labels students learned from.
        published: the printed accuracy of the method, data set and IPC; only with the first student.
        cells: the results it joins. reports: those of the joined evaluations. rows: that it joins.
    """

    suite: str
    dataset: str
    ipc: int
    method: str
    set: str
    evaluation: str
    baseline: bool
    regime: str
    network: str
    first: bool
    protocol: str
    epochs: int
    values: tuple[float, ...]
    set_bits: int
    images: int
    bytes: float
    label_bytes: float
    seconds: float
    experts_seconds: float
    label_seconds: float
    published: Published | None
    cells: tuple[CellResult, ...]
    reports: tuple[dict[str, Any], ...]
    rows: tuple[Row, ...] = ()

    @property
    def bits(self) -> int:
        """Of a pixel of its images; 0 where these are no stored ones."""
        return pixel_bits(self.set, self.set_bits)

    @property
    def of_copy(self) -> bool:
        """Whether it is of an encoded copy of a set that was evaluated as it is, too."""
        return self.set_bits != self.cells[0].evaluations[0].bits

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
        """Time of the distillation, of the experts it needs, and of the labels."""
        if self.baseline:
            return ""
        experts = f" + {duration(self.experts_seconds)}" if self.experts_seconds else ""
        labels = f" + labels {duration(self.label_seconds)}" if self.label_seconds else ""
        return duration(self.seconds) + experts + labels

    @property
    def iterations(self) -> str:
        """How many the distillation took, mean over the seeds: a budget in seconds leaves them open."""
        return "" if self.baseline else f"{statistics.mean(each.iterations for each in self.cells):.0f}"

    @property
    def over(self) -> str:
        """Students behind the mean, and seeds."""
        seeds = len({each.seed for each in self.cells})
        return f"{len(self.values)} ({seeds} seeds)" if seeds > 1 else str(len(self.values))


@dataclass(frozen=True)
class _Member:
    """A row of a line, with the evaluation and the cell that it is of."""

    cell: CellResult
    evaluation: EvaluationResult
    row: Row

    @property
    def kind(self) -> tuple[Any, ...]:
        """All that the rows of a line share, but for who evaluated them."""
        cell, row = self.cell, self.row
        place = cell.suite, cell.dataset, cell.ipc, row.network, row.set
        how = row.protocol, row.epochs, row.regime, self.evaluation.bits
        return *place, cell.method if row.set in OWN else "", *how

    @property
    def size(self) -> float:
        """Compressed bytes of images and labels; 0 where that is not known, as of noise."""
        evaluation = self.evaluation
        if self.row.set == DISTILLED_HARD:
            return evaluation.image_bytes
        if self.row.set in OWN:
            return evaluation.image_bytes + evaluation.label_bytes
        if self.row.set.startswith(NOISE):
            return 0.0
        return evaluation.bytes_of_real(self.row) + self.label_bytes

    @property
    def label_bytes(self) -> float:
        """Compressed bytes of stored soft labels."""
        return self.evaluation.label_bytes if self.row.regime == "SL" else 0.0

    @property
    def experts_seconds(self) -> float:
        """Seconds of the experts that the set and its students needed."""
        if self.row.set not in OWN:
            return 0.0
        return self.cell.experts_seconds + (self.cell.teacher_seconds if self.row.regime != "HL" else 0.0)

    @property
    def label_seconds(self) -> float:
        """Seconds of the labelling whose labels students learned from."""
        return self.cell.label_seconds if self.row.set in OWN and self.row.regime == "SL" else 0.0

    @property
    def source(self) -> str:
        """All settings of a row but its seed; of a baseline, the method and the evaluation's name."""
        cell, label = self.cell, self.evaluation.label
        if self.row.set not in OWN:
            return json.dumps([cell.method, label])
        evaluate = {**cell.settings_of(self.evaluation), "baselines": None, "seed": None}
        distil = {**cell.settings.get("distil", {}), "seed": None}
        labels = {**cell.settings.get("label", {}), "seed": None}
        table = [cell.method, label, distil, labels, evaluate, cell.settings.get("experts")]
        return json.dumps(table, sort_keys=True, default=str)


def lines(results: Iterable[CellResult]) -> list[Line]:
    """Join results that differ in their seed only.

    Returns:
        lines by suite, data set, IPC, student and regime of labels; distilled sets first, each followed by
        its encoded copies, then baselines, as they came.
    """
    groups: dict[tuple[Any, ...], list[_Member]] = {}
    for cell in results:
        for evaluation in cell.evaluations:
            for row in evaluation.rows:
                member = _Member(cell, evaluation, row)
                groups.setdefault((member.kind, member.source), []).append(member)
    sources: dict[tuple[Any, ...], list[_Member]] = {}
    for (kind, _), members in groups.items():
        sources.setdefault(kind, []).append(members[0])
    joined = [_line(members, sources[kind]) for (kind, _), members in groups.items()]
    return sorted(
        joined,
        key=lambda line: (*_place(line), REGIME_ORDER.index(line.regime), line.baseline),
    )


def without_copies(lines: Iterable[Line]) -> list[Line]:
    """Return the lines of sets as they are, and of what is evaluated with them."""
    return [line for line in lines if not line.of_copy]


def _place(line: Line) -> tuple[Any, ...]:
    return line.suite, line.dataset, line.ipc, not line.first, line.network


@dataclass(frozen=True)
class Gain:
    """Points by which a method is ahead of another, seed by seed, by the first student of an evaluation."""

    suite: str
    dataset: str
    ipc: int
    method: str
    network: str
    protocol: str
    epochs: int
    evaluation: str
    regime: str = "HL"
    over: str = ""
    points: tuple[float, ...] = ()

    def __str__(self) -> str:
        mean = statistics.mean(self.points)
        std = statistics.stdev(self.points) if len(self.points) > 1 else 0.0
        seeds = f"{len(self.points)} seed{'s' if len(self.points) > 1 else ''}"
        gain = f"{'+' if mean >= 0 else ''}{spread(mean, std, len(self.points))} points"
        by = f"{self.network}, protocol {self.protocol}, {self.epochs} epochs"
        by += f", labels {self.regime}" if self.regime != "HL" else ""
        by += f", evaluation {self.evaluation}" if self.evaluation else ""
        return f"{self.dataset}, {self.ipc} per class: {self.method} over {self.over} {gain} ({seeds}; {by})"


def gains(results: Iterable[CellResult]) -> list[Gain]:
    """Return the gains of sets as they are that suites ask for, over the seeds that both methods have."""
    accuracies: dict[Gain, dict[int, list[float]]] = {}
    compared: dict[Gain, Gain] = {}
    for cell in results:
        for evaluation in cell.evaluations:
            if cell.is_copy(evaluation):
                continue
            gain = _gain(cell, evaluation, cell.method)
            accuracies.setdefault(gain, {}).setdefault(cell.seed, []).append(evaluation.main.mean)
            if cell.gain_over:
                compared[gain] = _gain(cell, evaluation, cell.gain_over)
    differences = []
    for gain, other in compared.items():
        ours, theirs = accuracies[gain], accuracies.get(other, {})
        seeds = [seed for seed in ours if seed in theirs]
        points = tuple(statistics.mean(ours[seed]) - statistics.mean(theirs[seed]) for seed in seeds)
        differences += [dataclasses.replace(gain, over=other.method, points=points)] if points else []
    return differences


def _gain(cell: CellResult, evaluation: EvaluationResult, method: str) -> Gain:
    """Return what tells gains apart: the method and how it is evaluated."""
    row, label = evaluation.main, evaluation.label
    place = cell.suite, cell.dataset, cell.ipc
    return Gain(*place, method, row.network, row.protocol, row.epochs, label, row.regime)


def _line(members: list[_Member], sources: list[_Member]) -> Line:
    """Join the rows of one line.

    Args:
        sources: one member of every line that differs from this one in nothing that columns show. If there
            are several, a baseline is named after the method it goes with, and both after the evaluation.
    """
    one, row = members[0].cell, members[0].row
    label = members[0].evaluation.label
    baseline = row.set not in OWN
    method = row.set.replace(UNAUGMENTED, _UNAUGMENTED) if baseline else one.method + OWN[row.set]
    own_labels = row.set.endswith(LABELLED)  # of the method's set, as its views are
    if baseline and ("@" in row.set or own_labels or len({each.cell.method for each in sources}) > 1):
        method += f" of {one.method}"
    first = row.network == members[0].evaluation.main.network
    known = first and not one.is_copy(members[0].evaluation)
    printed = published.find(one.dataset, row.set if baseline else method, one.ipc) if known else None
    if len({each.evaluation.label for each in sources}) > 1:
        method += f", evaluation {label}"
    sizes = [each.size for each in members]
    cells = list({each.cell.cell: each.cell for each in members}.values())
    return Line(
        suite=one.suite,
        dataset=one.dataset,
        ipc=one.ipc,
        method=method,
        set=row.set,
        evaluation=label,
        baseline=baseline,
        regime=row.regime,
        network=row.network,
        first=first,
        protocol=row.protocol,
        epochs=row.epochs,
        values=tuple(value for each in members for value in each.row.values),
        set_bits=members[0].evaluation.bits,
        images=row.images,
        bytes=statistics.mean(sizes) if all(sizes) else float("nan"),
        label_bytes=statistics.mean(each.label_bytes for each in members),
        seconds=float("nan") if baseline else statistics.mean(each.seconds for each in cells),
        experts_seconds=statistics.mean(each.experts_seconds for each in members),
        label_seconds=statistics.mean(each.label_seconds for each in members),
        published=printed,
        cells=tuple(cells),
        reports=tuple(each.evaluation.report for each in members),
        rows=tuple(each.row for each in members),
    )
