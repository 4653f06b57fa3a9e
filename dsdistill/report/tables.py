"""Tables of the page: accuracies, accuracies across architectures, and scores."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from dsdistill.bench import published
from dsdistill.bench.lines import REGIME_ORDER, Line
from dsdistill.bench.tables import cited
from dsdistill.evaluation.rows import DISTILLED, DISTILLED_HARD, TEACHER, UNAUGMENTED
from dsdistill.report import families
from dsdistill.report.families import COLUMNS, Column, Family
from dsdistill.report.figures import anchor, href
from dsdistill.report.markup import escape, heading, link, note, number, table
from dsdistill.text import kilobytes

# Accuracies -------------------------------------------------------------------------------------------------

_BYTES = Column("kB", lambda line: kilobytes(line.bytes), foldable=False)
_PUBLISHED = Column("published %", lambda line: str(line.published or ""), foldable=False)


def accuracies(titled: Sequence[tuple[str, Family]], lines: Sequence[Line], sources: Sequence[str]) -> str:
    """Return a table of named families of one data set, the most accurate line of each first.

    Args:
        lines: of all families of the data set; what they share is left out of the table.
        sources: where published values come from, as they are numbered.
    """
    columns, _ = families.fold((_PUBLISHED, _BYTES, *COLUMNS), lines)
    columns = [column for column in columns if column.name != "student"]  # titles of families say it
    head = [heading("method", False), heading("accuracy %")]
    head += [heading(column.name, column.number) for column in columns]
    body = ""
    for title, family in titled:
        best = _best(family.lines)
        rows = "".join(
            _row(line, name, columns, sources, line in best)
            for line, name in zip(family.lines, families.labels(family), strict=True)
        )
        top = f'<tr><th scope="rowgroup" colspan="{len(head)}"><span>{escape(title)}</span></th></tr>'
        body += f'<tbody class="group">{top}{rows}</tbody>'
    return table(f"accuracies on {lines[0].dataset}", head, body)


def _best(lines: Sequence[Line]) -> list[Line]:
    """Return the most accurate methods of those with one protocol and student, where these are several."""
    alike: dict[tuple[str, int, str, str], list[Line]] = {}
    for line in lines:
        if not line.baseline:
            alike.setdefault((line.protocol, line.epochs, line.network, line.regime), []).append(line)
    tops = [(group, max(line.mean for line in group)) for group in alike.values() if len(group) > 1]
    return [line for group, top in tops for line in group if line.mean == top]


def _row(line: Line, name: str, columns: Sequence[Column], sources: Sequence[str], best: bool) -> str:
    kind = "number best" if best else "number"
    cells = f'<td class="{kind}">{link(href(line), line.accuracy)}</td>'
    for column in columns:
        text = "" if column.of_sets and line.baseline else column.text(line)
        if column is _PUBLISHED and line.published:
            at = sources.index(cited(line.published)) + 1
            cells += f'<td class="number">{escape(text)} <a href="#source-{at}">[{at}]</a></td>'
        elif column.name == "seed":
            links = [link(f"#{anchor(each)}", str(each.seed)) for each in line.cells]
            cells += f'<td class="number">{", ".join(links)}</td>'
        else:
            cells += number(text) if column.number else f"<td>{escape(text)}</td>"
    style = ' class="baseline"' if line.baseline else ""
    return f'<tr{style}><th scope="row">{escape(name)}</th>{cells}</tr>'


def listed(sources: Sequence[str]) -> str:
    """Return sources as a numbered list, which published values lead to."""
    if not sources:
        return ""
    items = "".join(
        f'<li id="source-{count}">{escape(text, 2000)}</li>' for count, text in enumerate(sources, 1)
    )
    return f"{note(published.NOTE)}<ol>{items}</ol>"


# Accuracy against bytes -------------------------------------------------------------------------------------

_RATES = (
    Column("IPC", lambda line: str(line.ipc), foldable=False),
    Column("bits", lambda line: str(line.bits or ""), foldable=False),
    _BYTES,
    *(column for column in COLUMNS if column.name in ("labels", "student", "protocol")),
)


def rates(lines: Sequence[Line]) -> str:
    """Return a table for each data set of which sets were also encoded in fewer bits; empty without any."""
    titles, text = families.places(lines), ""
    first = [line for line in lines if line.first and not line.for_scores]
    for place in dict.fromkeys((line.suite, line.dataset) for line in first if line.of_copy):
        here = [line for line in first if (line.suite, line.dataset) == place]
        columns, shared = families.fold(_RATES, here)
        head = [heading("method", False), heading("accuracy %")]
        head += [heading(column.name, column.number) for column in columns]
        rows = "".join(_row(line, line.method, columns, (), False) for line in here)
        text += note(shared) + table(f"accuracy against bytes on {titles[place]}", head, rows)
    return text


# Across architectures ---------------------------------------------------------------------------------------


def networks(lines: Sequence[Line]) -> str:
    """Return a heat map per data set and IPC where a method has several students.

    Methods go down, students across.
    """
    text, titles = "", families.places(lines)
    shown = [line for line in lines if not line.for_scores and line.set != TEACHER]
    for suite, dataset, ipc in dict.fromkeys((line.suite, line.dataset, line.ipc) for line in shown):
        here = [line for line in shown if (line.suite, line.dataset, line.ipc) == (suite, dataset, ipc)]
        students = list(dict.fromkeys(line.network for line in sorted(here, key=lambda line: not line.first)))
        methods: dict[tuple[str, bool, str, str], dict[str, Line]] = {}
        for line in here:
            key = line.regime, line.baseline, line.method, line.protocol
            methods.setdefault(key, {})[line.network] = line
        if not any(len(at) > 1 for (_, baseline, _, _), at in methods.items() if not baseline):
            continue
        title = families.at(titles[suite, dataset], ipc)
        head = [heading("method", False), *map(heading, (*students, "mean", "worst"))]
        text += f"<h3>{escape(title)}</h3>{table(f'students on {title}', head, _heat_map(methods, students))}"
    if not text:
        return ""
    return note("Accuracy in percent by student, each method under its protocol; darker is better.") + text


def _heat_map(methods: dict[tuple[str, bool, str, str], dict[str, Line]], students: Sequence[str]) -> str:
    """Return the rows, one regime of labels after the other, the best mean over students first."""
    every = [line.mean for each in methods.values() for line in each.values()]
    protocols, rows = {protocol for *_, protocol in methods}, ""
    regimes = {regime for regime, *_ in methods}

    def place(item: tuple[tuple[str, bool, str, str], dict[str, Line]]) -> tuple[int, float]:
        return REGIME_ORDER.index(item[0][0]), -statistics.mean(line.mean for line in item[1].values())

    for (regime, baseline, method, protocol), at in sorted(methods.items(), key=place):
        values = "".join(_heat(at.get(name), min(every), max(every)) for name in students)
        means = [line.mean for line in at.values()]
        complete = len(means) == len(students)
        across = [f"{value:.1f}" if complete else "" for value in (statistics.mean(means), min(means))]
        values += "".join(map(number, across))
        by = f" <small>protocol {escape(protocol)}</small>" if len(protocols) > 1 else ""
        by += f" <small>labels {escape(regime)}</small>" if len(regimes) > 1 else ""
        style = ' class="baseline"' if baseline else ""
        rows += f'<tr{style}><th scope="row">{escape(method)}{by}</th>{values}</tr>'
    return rows


def _heat(line: Line | None, low: float, high: float) -> str:
    if line is None:
        return number("")
    share = (line.mean - low) / (high - low) if high > low else 0.0
    value = link(href(line), f"{line.mean:.1f}")
    return f'<td class="heat" style="--h:{share:.2f}" title="{escape(line.accuracy)}">{value}</td>'


# Scores -----------------------------------------------------------------------------------------------------

_TRAINED = {
    "accuracy %": DISTILLED,
    "hard labels": DISTILLED_HARD,
    "plain": DISTILLED + UNAUGMENTED,
}
"""By heading: how the set's students were trained."""
_SCORES = {
    "IOR": ("ior", "{:+.1f}", 100),
    "HLR": ("hlr", "{:+.1f}", 100),
    "full's epochs": ("full_epochs", "{:.0f}", 1),
    "LRS": ("lrs", "{:.3f}", 1),
    "plain IOR": ("plain_ior", "{:+.1f}", 100),
    "ARS": ("ars", "{:.3f}", 1),
}
"""By heading: the key in an evaluation's scores, how it is written, and times what."""
_ABOUT_SCORES = (
    "Scores as DD-Ranking defines them (arXiv 2505.13300), means over the seeds. IOR: points above as many "
    "random real images. HLR: points below the full data set, both under hard labels; that is trained "
    "on for the epochs shown, which may not exhaust it, and left out where the set is given more steps. LRS "
    "weighs the two; ARS weighs the IOR against the plain one, of students without augmentation. Both lie in "
    "[0, 1]; more is better."
)
_STUDENT = tuple(column for column in COLUMNS if column.name in ("labels", "student", "protocol"))


def scores(lines: Sequence[Line]) -> str:
    """Return a table of scores per data set and IPC, where suites ask for them."""
    own = [line for line in lines if not line.baseline and not line.for_scores]
    requested = {(line.suite, line.dataset, line.ipc) for line in lines if line.for_scores}
    titles, text = families.places(lines), ""
    for suite, dataset, ipc in dict.fromkeys((line.suite, line.dataset, line.ipc) for line in own):
        here = [line for line in own if (line.suite, line.dataset, line.ipc) == (suite, dataset, ipc)]
        weighed = any({"lrs", "ars"} & _scores_of(line).keys() for line in here)
        if (suite, dataset, ipc) in requested or weighed:
            title = families.at(titles[suite, dataset], ipc)
            text += f"<h3>{escape(title)}</h3>{_scores_table(title, here, lines)}"
    return note(_ABOUT_SCORES) + text if text else ""


def _scores_table(title: str, here: Sequence[Line], lines: Sequence[Line]) -> str:
    """Return the table of one data set and IPC, by regime of labels, the most accurate first."""
    otherwise = {(_evaluation(line), line.network, line.set): line.accuracy for line in lines}
    columns, shared = families.fold(_STUDENT, here)
    ordered = sorted(here, key=lambda line: (REGIME_ORDER.index(line.regime), -line.mean))
    values: dict[str, list[str]] = {
        name: [otherwise.get((_evaluation(line), line.network, kind), "") for line in ordered]
        for name, kind in _TRAINED.items()
    }
    for name, (key, written, times) in _SCORES.items():
        known = [_scores_of(line).get(key) for line in ordered]
        values[name] = ["" if each is None else written.format(times * each) for each in known]
    values = {name: column for name, column in values.items() if any(column)}
    rows = ""
    for row, line in enumerate(ordered):
        how = "".join(f"<td>{escape(column.text(line))}</td>" for column in columns)
        numbers = "".join(number(column[row]) for column in values.values())
        rows += f'<tr><th scope="row">{link(href(line), line.method)}</th>{how}{numbers}</tr>'
    head = [heading("method", False), *(heading(column.name, False) for column in columns)]
    return note(shared) + table(f"scores on {title}", [*head, *map(heading, values)], rows)


def _evaluation(line: Line) -> tuple[Any, ...]:
    """Return which cells and evaluation a line joins; two suites may call theirs alike."""
    return line.evaluation, *((each.suite, each.cell) for each in line.cells)


def _scores_of(line: Line) -> dict[str, float]:
    """Return the means over the seeds of those scores that every report of a line has."""
    reported = [report.get("scores", {}).get("networks", {}) for report in line.reports]
    of_student = [each.get(line.network, {}) for each in reported]
    shared = set.intersection(*map(set, of_student))
    return {key: statistics.mean(each[key] for each in of_student) for key in shared}
