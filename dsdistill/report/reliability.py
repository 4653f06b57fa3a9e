"""Calibration and fidelity on the page: a table of numbers, and reliability diagrams."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from dsdistill.bench.lines import Line
from dsdistill.evaluation.measures import BINS, Calibration
from dsdistill.evaluation.rows import RANDOM, Row
from dsdistill.report import families
from dsdistill.report.drawing import Drawing
from dsdistill.report.figures import Figure, Panel, href
from dsdistill.report.markup import escape, heading, link, number, table
from dsdistill.report.scales import Scale

ABOUT = (
    "Calibration of the first students: ECE (15 bins), negative log-likelihood (NLL) and Brier score on the "
    "test set, then with one temperature T for each student, fitted to training images that it did not train "
    "on (the distillation may have seen them). Disagreement: test images to which two students of a set give "
    "different classes. With a teacher: images with its class, those of its errors with the same wrong "
    "class, and KL(teacher ‖ student) in nats. A diagram shows the accuracy of predictions by their "
    "confidence; on the dashed line both are equal, and the height of a bar at the bottom is the share of "
    "predictions."
)
_WIDTH, _HEIGHT = 190, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 30, 184, 8, 126

_COLUMNS = (
    ("ECE %", "{:.1f}", "calibration.scores.ece"),
    ("NLL", "{:.2f}", "calibration.scores.nll"),
    ("Brier", "{:.2f}", "calibration.scores.brier"),
    ("T", "{:.2f}", "calibration.temperature"),
    ("ECE % at T", "{:.1f}", "calibration.scaled.ece"),
    ("NLL at T", "{:.2f}", "calibration.scaled.nll"),
    ("disagree %", "{:.1f}", "disagreement"),
    ("as the teacher %", "{:.1f}", "fidelity.agreement"),
    ("on its errors %", "{:.1f}", "fidelity.agreement_on_errors"),
    ("KL", "{:.2f}", "fidelity.divergence"),
    ("leak AUC", "{:.3f}", "leak.auc"),
)
"""Heading, format, and where a row has the value; a column without any value is left out."""


def _value(row: Row, place: str) -> float | None:
    """Return what a row has at a place; None where it has nothing."""
    value: Any = row
    for name in place.split("."):
        value = getattr(value, name, None)
    return value if isinstance(value, float) else None


def tables(lines: Sequence[Line]) -> str:
    """Return a table of the lines of first students for each data set and IPC, where rows have measures."""
    return "".join(_table(title, here) for title, here in _groups(lines))


def _table(title: str, lines: Sequence[Line]) -> str:
    values = {name: [_mean(line, place, form) for line in lines] for name, form, place in _COLUMNS}
    values = {name: column for name, column in values.items() if any(column)}
    rows = ""
    for place, line in enumerate(lines):
        cells = f"<td>{escape(line.regime)}</td>" + "".join(
            number(column[place]) for column in values.values()
        )
        style = ' class="baseline"' if line.baseline else ""
        rows += f'<tr{style}><th scope="row">{link(href(line), line.method)}</th>{cells}</tr>'
    head = [heading("method", False), heading("labels", False), *map(heading, values)]
    return f"<h3>{escape(title)}</h3>{table(f'calibration on {title}', head, rows)}"


def _mean(line: Line, place: str, form: str) -> str:
    """Return the mean of a value over the rows of a line; "" where one has none."""
    values = [each for row in line.rows if (each := _value(row, place)) is not None]
    return form.format(statistics.mean(values)) if values and len(values) == len(line.rows) else ""


def figures(lines: Sequence[Line]) -> list[Figure]:
    """Draw the reliability of every distilled set and of random images, a figure per data set and IPC."""
    diagrams = []
    for title, here in _groups(lines):
        shown = [line for line in here if not line.baseline or line.set == RANDOM]
        panels = tuple(Panel(line.method, diagram(line), href(line)) for line in shown)
        diagrams.append(Figure(f"reliability-{title}", f"Reliability, {title}", panels))
    return [figure for figure in diagrams if figure.panels]


def _groups(lines: Sequence[Line]) -> Iterator[tuple[str, list[Line]]]:
    """Yield the lines that have a calibration, under the name of their data set and IPC."""
    measured = [
        line for line in lines if line.first and line.rows and all(row.calibration for row in line.rows)
    ]
    titles = families.places(lines)
    for suite, dataset, ipc in dict.fromkeys((line.suite, line.dataset, line.ipc) for line in measured):
        here = [line for line in measured if (line.suite, line.dataset, line.ipc) == (suite, dataset, ipc)]
        yield families.at(titles[suite, dataset], ipc), here


def diagram(line: Line) -> Drawing:
    """Draw the reliability of a line whose rows have a calibration."""
    bins = _joined([row.calibration for row in line.rows if row.calibration])
    x, y = Scale(0, 100, _LEFT, _RIGHT), Scale(0, 100, _BOTTOM, _TOP)
    total = sum(count for count, _, _ in bins)
    parts = [_axes(x, y)]
    for place, (count, _, _) in enumerate(bins):
        left, right = (x(100 * edge / BINS) for edge in (place, place + 1))
        top = y(25 * count / total)  # all predictions would fill a quarter of the height
        parts.append(
            f'<rect class="share" x="{left + 0.5:.1f}" y="{top:.1f}" width="{right - left - 1:.1f}" '
            f'height="{_BOTTOM - top:.1f}"/>'
        )
    full = [(confidence, accuracy) for count, confidence, accuracy in bins if count]
    path = "L".join(f"{x(confidence):.1f},{y(accuracy):.1f}" for confidence, accuracy in full)
    parts.append(f'<path class="line" d="M{path}"/>')
    for confidence, accuracy in full:
        words = f"{accuracy:.1f} % right at a confidence of {confidence:.1f} %"
        mark = f'<circle class="mark" cx="{x(confidence):.1f}" cy="{y(accuracy):.1f}" r="2.6"/>'
        parts.append(f'<g class="distilled"><title>{escape(words)}</title>{mark}</g>')
    about = "; ".join(
        f"confidence {confidence:.0f} %: {accuracy:.0f} % right" for confidence, accuracy in full
    )
    title = f"Reliability of students on {line.method}"
    return Drawing(
        width=_WIDTH, height=_HEIGHT, inside="".join(parts), title=title, about=about, kind="curves"
    )


def _joined(rows: Sequence[Calibration]) -> list[tuple[int, float, float]]:
    """Return count, mean confidence and accuracy of each bin over several rows."""
    bins = []
    for place in range(BINS):
        counts = [row.counts[place] for row in rows]
        total = max(1, sum(counts))
        confidence, accuracy = (
            sum(count * each[place] for count, each in zip(counts, values, strict=True)) / total
            for values in ([row.confidences for row in rows], [row.accuracies for row in rows])
        )
        bins.append((sum(counts), confidence, accuracy))
    return bins


def _axes(x: Scale, y: Scale) -> str:
    parts = []
    for value in (0, 50, 100):
        parts.append(
            f'<line class="grid" x1="{x.start}" x2="{x.end}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        )
        parts.append(f'<text class="side" x="{x.start - 5}" y="{y(value) + 4:.1f}">{value}</text>')
        parts.append(f'<text class="tick" x="{x(value):.1f}" y="{y.start + 14}">{value}</text>')
    parts.append(f'<path class="rule" d="M{x(0)},{y(0)}L{x(100)},{y(100)}"/>')
    middle = (x.start + x.end) / 2
    return "".join([*parts, f'<text class="label" x="{middle}" y="{y.start + 24}">confidence %</text>'])
