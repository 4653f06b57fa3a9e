"""Which charts results make: accuracy against seconds and bytes, and losses."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsdistill.bench.lines import Line
from dsdistill.bench.results import ANOTHER, CellResult
from dsdistill.evaluation.rows import FULL, RANDOM
from dsdistill.report.charts import COLOURS, Mark, Rule, Series, plot, spark, thinned
from dsdistill.runtime import metrics
from dsdistill.text import spread


@dataclass(frozen=True)
class Figure:
    """A chart, a name for its file, and what to say below it."""

    name: str
    title: str
    svg: str
    caption: str = ""


def colours(results: Sequence[CellResult], lines: Sequence[Line] = ()) -> dict[str, int]:
    """Give every method a colour, the same in all charts; baselines come after the methods."""
    methods = sorted({each.method for each in results})
    evaluated = (line.method for line in lines if not line.baseline and not line.for_scores)
    real = (line.method for line in lines if line.baseline)
    return {name: number for number, name in enumerate(dict.fromkeys([*methods, *evaluated, *real]))}


_LONGEST_ID = 200  # characters


def anchor(result: CellResult) -> str:
    """Return the id of a cell on the page."""
    key = _key(result)
    if len(key) > _LONGEST_ID:
        key = f"{key[:_LONGEST_ID]}-{hashlib.sha256(key.encode(errors='replace')).hexdigest()[:16]}"
    return "cell-" + "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in key)


def over_time(results: Sequence[CellResult], lines: Sequence[Line]) -> list[Figure]:
    """Draw accuracy against seconds of distillation, a chart per suite, data set and IPC."""
    colour = colours(results, lines)
    figures = []
    for suite, dataset, ipc in dict.fromkeys((each.suite, each.dataset, each.ipc) for each in results):
        cells = [each for each in results if (each.suite, each.dataset, each.ipc) == (suite, dataset, ipc)]
        series = [Series(each.method, _curve(each), colour[each.method]) for each in cells]
        rules = [
            Rule(line.method, line.mean, f"{line.method}: {line.accuracy} %, protocol {line.protocol}")
            for line in lines
            if (line.suite, line.dataset, line.ipc) == (suite, dataset, ipc)
            and line.baseline
            and line.first
            and line.set in (RANDOM, FULL)
            and any(line.evaluation == each.evaluations[0].label for each in line.cells)
        ]
        title = f"{dataset}, {ipc} per class"
        svg = plot(
            series,
            "seconds of distillation (log scale)",
            "accuracy %",
            rules,
            f"{title}: accuracy against seconds",
        )
        figures.append(Figure(f"seconds-{suite}-{dataset}-ipc{ipc}", title, svg))
    return [figure for figure in figures if figure.svg]


def over_bytes(results: Sequence[CellResult], lines: Sequence[Line]) -> list[Figure]:
    """Draw accuracy against stored bytes, a chart per suite and data set; by the network distilled with."""
    colour = colours(results, lines)
    figures = []
    for suite, dataset in dict.fromkeys((each.suite, each.dataset) for each in results):
        here = [
            line
            for line in lines
            if (line.suite, line.dataset, line.first) == (suite, dataset, True)
            and not line.for_scores
            and line.set != FULL
        ]
        kinds = dict.fromkeys((line.method, line.protocol) for line in here)
        protocols: dict[str, list[str]] = {}
        for method, protocol in kinds:
            protocols.setdefault(method, []).append(protocol)
        series = []
        for method, protocol in kinds:
            chosen = [line for line in here if (line.method, line.protocol) == (method, protocol)]
            several, lap = len(protocols[method]) > 1, protocols[method].index(protocol)
            name = f"{method} ({protocol})" if several else method
            series.append(Series(name, tuple(map(_stored, chosen)), colour[method] + COLOURS * lap))
        svg = plot(
            series,
            "kB of images and labels (log scale)",
            "accuracy %",
            (),
            f"{dataset}: accuracy against bytes",
        )
        figures.append(Figure(f"bytes-{suite}-{dataset}", dataset, svg))
    return [figure for figure in figures if figure.svg]


def losses(results: Sequence[CellResult]) -> list[Figure]:
    """Draw the loss of every cell that still has its run."""
    colour = colours(results)
    figures = []
    for each in results:
        log = (
            each.folder / "set.run" / "metrics.jsonl"
            if each.folder and each.file_problem != ANOTHER
            else None
        )
        curve = thinned(read_losses(log)) if log else []
        title, caption = f"{each.dataset}, {each.ipc} per class", f"{each.method}, seed {each.seed}"
        if svg := spark(curve, colour[each.method], f"loss of {caption} on {title}"):
            figures.append(Figure(anchor(each), title, svg, caption))
    return figures


def read_losses(path: Path) -> list[tuple[float, float]]:
    """Read (iteration, loss) from a run's log, without what is damaged; nothing where there is none."""
    losses = []
    for entry in itertools.islice(metrics.read(path), _MOST):
        with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
            losses.append((float(entry["iteration"]), float(entry["loss"])))
    return [each for each in losses if all(map(math.isfinite, each))]


_MOST = 1_000_000  # entries of a log that are drawn


def _curve(result: CellResult) -> tuple[Mark, ...]:
    main, link = result.main, f"#{anchor(result)}"
    name = f"{result.method}, seed {result.seed}"
    besides = f", experts in {result.experts_seconds:.3g} s besides" if result.experts_seconds else ""
    marks = [
        Mark(
            point.seconds,
            point.mean,
            point.std,
            f"{name}: {spread(point.mean, point.std, point.students)} % after {point.iteration} iterations, "
            f"{point.seconds:.3g} s{besides} ({point.students} students)",
            link,
        )
        for point in result.curve
    ]
    title = f"{name}: {main.accuracy} % after {result.seconds:.3g} s{besides}"
    return tuple(marks) or (Mark(result.seconds, main.mean, main.std, title, link),)


def _stored(line: Line) -> Mark:
    link = "" if line.baseline else f"#{anchor(line.cells[0])}"
    title = f"{line.method}, {line.ipc} per class: {line.accuracy} % in {line.bytes / 1e3:,.1f} kB"
    return Mark(line.bytes / 1e3, line.mean, line.std, title, link)


def _key(result: CellResult) -> str:
    return f"{result.suite}-{result.cell}"
