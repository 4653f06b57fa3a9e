"""Which charts results make: accuracies, accuracy against seconds and bytes, and losses."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dsdistill.bench import comparison
from dsdistill.bench.lines import Line
from dsdistill.bench.results import ANOTHER, CellResult
from dsdistill.evaluation.rows import BYTES, FULL, LABELLED, RANDOM, TEACHER, size_of
from dsdistill.report import curves, dots, families
from dsdistill.report.curves import Curve, Mark
from dsdistill.report.dots import Dot, Kind
from dsdistill.report.drawing import Drawing
from dsdistill.report.families import Family
from dsdistill.report.scales import linear, logarithmic
from dsdistill.runtime import metrics
from dsdistill.text import spread


@dataclass(frozen=True)
class Panel:
    """One of several drawings side by side, its name and where that leads."""

    name: str
    drawing: Drawing
    href: str = ""


@dataclass(frozen=True)
class Figure:
    """Panels that belong together, with a name for their file."""

    name: str
    title: str
    panels: tuple[Panel, ...]


_LONGEST_ID = 200  # characters


def anchor(result: CellResult) -> str:
    """Return the id of a cell on the page."""
    name = f"{result.suite}-{result.cell}"
    if len(name) > _LONGEST_ID:
        name = f"{name[:_LONGEST_ID]}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:16]}"
    return "cell-" + "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)


# Accuracies -------------------------------------------------------------------------------------------------


def accuracies(lines: Sequence[Line]) -> list[Figure]:
    """Draw a dot plot for every family of lines, a figure per suite and data set."""
    titles = families.places(lines)
    return [accuracy(titles[place], group) for place, group in families.by_place(lines).items()]


def accuracy(title: str, group: Sequence[Family]) -> Figure:
    """Draw the dot plots of the families of one data set, which share their axis."""
    suite, dataset = group[0].place
    return Figure(f"accuracy-{suite}-{dataset}", title, tuple(_dot_plots(group)))


def kind(line: Line) -> Kind:
    """Return what the students of a line were trained on."""
    if not line.baseline:
        return Kind.DISTILLED
    if line.set == FULL:
        return Kind.FULL
    if line.set.endswith(LABELLED) or line.set == TEACHER:
        return Kind.CONTROL
    return Kind.REAL_BYTES if size_of(line.set) else Kind.REAL


def _dot_plots(group: Sequence[Family]) -> Iterator[Panel]:
    rows = [_dots(family) for family in group]
    within = dots.frame([dot for family in rows for dot in family])
    for (name, family), each in zip(families.titled(group), rows, strict=True):
        compared = RANDOM if family.regime == "HL" else RANDOM + LABELLED
        random = {line.mean for line in family.lines if line.set == compared}
        title = f"Accuracy on {families.at(family.dataset, family.ipc)}, student {family.network}"
        first, last = each[0], each[-1]
        about = f"Rows from {first.name}, {first.text} %, to {last.name}, {last.text} %; the table has all."
        reference = random.pop() if len(random) == 1 else None
        yield Panel(name, dots.draw(each, within, reference, title, about))


def _dots(family: Family) -> list[Dot]:
    ours = [line for line in family.lines if not line.baseline]
    names = families.labels(family)
    return [
        Dot(name, line.mean, line.std, line.accuracy, kind(line), href(line), line in ours[:1])
        for line, name in zip(family.lines, names, strict=True)
    ]


def href(line: Line) -> str:
    """Return where a line leads: to its first cell."""
    return f"#{anchor(line.cells[0])}"


# Against seconds and bytes ----------------------------------------------------------------------------------

_SPREAD = 2.0  # seconds or bytes that differ by less are no axis


def over_time(results: Sequence[CellResult], lines: Sequence[Line]) -> list[Figure]:
    """Draw accuracy against seconds of distillation, a panel per method; by suite, data set, IPC and regime.

    Accuracies are those of the first evaluation. There is no figure where all methods took about the same
    time and none was evaluated on the way.
    """
    titles, figures = families.places(results), []
    several = len({each.main.regime for each in results}) > 1
    for group in dict.fromkeys(map(_of_time, results)):
        suite, dataset, ipc, regime = group
        methods: dict[str, _Method] = {}
        for each in results:
            if _of_time(each) == group:
                method = methods.setdefault(each.method, _Method(f"#{anchor(each)}"))
                method.own.append(_snapshots(each))
        marks = [mark for each in methods.values() for curve in each.own for mark in curve]
        seconds = [mark.x for mark in marks if mark.drawable] or [1.0]
        for line, random in _with_random(lines, suite, dataset, ipc):
            of_first = line.evaluation == line.cells[0].evaluations[0].label
            if of_first and line.regime == line.cells[0].main.regime == regime:
                level = [Mark(end, random.mean) for end in (min(seconds), max(seconds))]
                methods[line.cells[0].method].real.append(level)
        suffix, words = _of_regime(regime, several)
        title = families.at(titles[suite, dataset], ipc) + words
        panels = _panels(methods, "accuracy against seconds")
        figures.append(Figure(f"seconds-{suite}-{dataset}-ipc{ipc}{suffix}", title, panels))
    return [figure for figure in figures if figure.panels]


def over_bytes(lines: Sequence[Line]) -> list[Figure]:
    """Draw accuracy against stored bytes, a panel per method and protocol; by suite, data set and regime.

    So are real images for these bytes, a panel per selection; those for a size of their own are left out, as
    all of them take as many. A curve joins IPCs, or the numbers of bits at one IPC where encoded copies were
    evaluated. Students are the first of each evaluation. There is no figure where all sets take about as many
    bytes.
    """
    titles, figures = families.places(lines), []
    shown = [line for line in lines if line.first and not line.for_scores]
    regimes = {line.regime for line in shown if not line.baseline}
    for suite, dataset, regime in dict.fromkeys((each.suite, each.dataset, each.regime) for each in shown):
        here = [line for line in shown if (line.suite, line.dataset, line.regime) == (suite, dataset, regime)]
        methods = {} if all(line.baseline for line in here) else _with_bytes(here)
        panels = _panels(methods, "accuracy against kB")
        suffix, words = _of_regime(regime, len(regimes) > 1)
        figures.append(Figure(f"bytes-{suite}-{dataset}{suffix}", titles[suite, dataset] + words, panels))
    return [figure for figure in figures if figure.panels]


def _with_bytes(here: Sequence[Line]) -> dict[str, _Method]:
    """Return what is drawn of sets, and of real images for their bytes, by the names of panels."""
    several = len({line.protocol for line in here if not line.baseline}) > 1
    groups: dict[str, list[Line]] = {}
    for line in here:
        if not line.baseline or line.set.endswith(BYTES):
            name = line.set if line.baseline else line.method
            groups.setdefault(f"{name} ({line.protocol})" if several else name, []).append(line)
    methods = {}
    for name, group in groups.items():
        method = methods[name] = _Method(href(group[0]), kind=kind(group[0]))
        if method.kind is Kind.DISTILLED:
            method.own = _joined(group)
            real = [each for line in group for each in _random(here, line)]
            method.real = _joined(list({id(each): each for each in real}.values()))
        else:
            for beside in dict.fromkeys(line.method for line in group):
                method.own += _joined([line for line in group if line.method == beside])
    return methods


def _joined(lines: Sequence[Line]) -> list[list[Mark]]:
    """Return the curves of lines: over the bits at each IPC, or over IPCs where there are no copies."""
    if not any(line.of_copy for line in lines):
        return [[_stored(line) for line in lines]]
    ipcs = dict.fromkeys(line.ipc for line in lines)
    return [[_stored(line) for line in lines if line.ipc == ipc] for ipc in ipcs]


def _of_time(result: CellResult) -> tuple[str, str, int, str]:
    return result.suite, result.dataset, result.ipc, result.main.regime


def _of_regime(regime: str, several: bool) -> tuple[str, str]:
    """Return what the name and the title of a figure say of the regime of labels."""
    return (f"-{regime.lower()}", f", labels {regime}") if several else ("", "")


@dataclass
class _Method:
    """What is drawn of a method or a selection of real images.

    Attributes:
        href: where it leads. own: its curves. real: those of the real images it is compared with.
    """

    href: str
    kind: Kind = Kind.DISTILLED
    own: list[list[Mark]] = field(default_factory=list)
    real: list[list[Mark]] = field(default_factory=list)


def _with_random(lines: Sequence[Line], suite: str, dataset: str, ipc: int) -> Iterator[tuple[Line, Line]]:
    """Yield the methods by their first students, each with as many random real images."""
    here = [
        line
        for line in lines
        if (line.suite, line.dataset, line.ipc, line.first) == (suite, dataset, ipc, True)
    ]
    for line in here:
        if not line.baseline and not line.for_scores and (random := comparison.random_images(line, here)):
            yield line, random


def _random(here: Sequence[Line], line: Line) -> list[Line]:
    """Return the random real images that a set is compared with: as many, and for the same bytes."""
    same = [each for each in here if each.ipc == line.ipc]
    lines = comparison.random_images(line, same), comparison.random_images_of_bytes(line, same)
    return [each for each in lines if each]


def _panels(methods: Mapping[str, _Method], what: str) -> tuple[Panel, ...]:
    """Draw a panel per method, the most accurate first, then those of real images, all on the same axes."""
    own = {name: _drawable(method.own) for name, method in methods.items()}
    own = {name: curves for name, curves in own.items() if curves}
    real = {name: _drawable(methods[name].real) for name in own}
    marks = [mark for curves in own.values() for curve in curves for mark in curve]
    if not _informative(own, marks):
        return ()
    every = [*marks, *(mark for curves in real.values() for curve in curves for mark in curve)]
    ends = [mark.y + sign * mark.error for mark in every for sign in (-1, 1)]
    scales = (
        logarithmic([mark.x for mark in every], curves.LEFT, curves.RIGHT),
        linear(ends, curves.BOTTOM, curves.TOP, 100.0),
    )
    kinds = {name: methods[name].kind for name in own}
    ours = {name: own[name] for name in own if kinds[name] is Kind.DISTILLED}
    ordered = sorted(own, key=lambda name: (name not in ours, -max(map(_end, own[name]))))
    drawn = (
        curves.draw(own[name], _others(ours, name), real[name], scales, f"{name}: {what}", kinds[name])
        for name in ordered
    )
    return tuple(Panel(name, each, methods[name].href) for name, each in zip(ordered, drawn, strict=True))


def _end(curve: Curve) -> float:
    """Return the accuracy of most seconds or bytes."""
    return max(curve, key=lambda mark: mark.x).y


def _drawable(curves: Sequence[Curve]) -> list[Curve]:
    inside = [[mark for mark in curve if mark.drawable] for curve in curves]
    return [curve for curve in inside if curve]


def _others(own: Mapping[str, Sequence[Curve]], name: str) -> list[Curve]:
    return [curve for other, curves in own.items() if other != name for curve in curves]


def _informative(own: Mapping[str, Sequence[Curve]], marks: Sequence[Mark]) -> bool:
    """Whether a horizontal axis tells points apart."""
    xs = [mark.x for mark in marks]
    several = any(len(curve) > 1 for curves in own.values() for curve in curves)
    return several or (bool(xs) and max(xs) > _SPREAD * min(xs))


def _snapshots(result: CellResult) -> list[Mark]:
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
    return marks or [Mark(result.seconds, main.mean, main.std, title, link)]


def _stored(line: Line) -> Mark:
    bits = f", {line.bits} bit{'s' if line.bits > 1 else ''}" if line.of_copy else ""
    title = f"{line.method}, {line.ipc} per class{bits}: {line.accuracy} % in {line.bytes / 1e3:,.1f} kB"
    return Mark(line.bytes / 1e3, line.mean, line.std, title, href(line))


# Losses -----------------------------------------------------------------------------------------------------


def losses(results: Sequence[CellResult]) -> list[Figure]:
    """Draw the loss of every cell that still has its run, by data set and IPC."""
    titles = families.places(results)
    groups: dict[tuple[str, str, int], list[Panel]] = {}
    for each in results:
        if not each.folder or each.file_problem == ANOTHER:
            continue
        curve = curves.thinned(read_losses(each.folder / "set.run" / "metrics.jsonl"))
        name = f"{each.method}, seed {each.seed}"
        if drawing := curves.spark(curve, f"Loss of {name} on {families.at(each.dataset, each.ipc)}"):
            panels = groups.setdefault((each.suite, each.dataset, each.ipc), [])
            panels.append(Panel(name, drawing, f"#{anchor(each)}"))
    return [
        Figure(f"loss-{suite}-{dataset}-ipc{ipc}", families.at(titles[suite, dataset], ipc), tuple(panels))
        for (suite, dataset, ipc), panels in groups.items()
    ]


def read_losses(path: Path) -> list[tuple[float, float]]:
    """Read (iteration, loss) from a run's log, without what is damaged; nothing where there is none."""
    losses = []
    for entry in itertools.islice(metrics.read(path), _MOST):
        with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
            losses.append((float(entry["iteration"]), float(entry["loss"])))
    return [each for each in losses if all(map(math.isfinite, each))]


_MOST = 1_000_000  # entries of a log that are drawn
