"""The parts of the page between its head and its cells, as HTML; empty where there is nothing to show."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from dsdistill.bench import published, tables
from dsdistill.bench.lines import Gain, Line
from dsdistill.bench.results import CellResult
from dsdistill.errors import UserError
from dsdistill.evaluation.rows import DISTILLED, DISTILLED_HARD, UNAUGMENTED
from dsdistill.report.figures import Figure, anchor
from dsdistill.report.markup import escape
from dsdistill.storage import set_file
from dsdistill.synthetic import picture
from dsdistill.text import kilobytes

_LONG = 2000  # characters of a sentence


def accuracies(lines: Sequence[Line]) -> str:
    """Return a table per data set, and where published values come from."""
    sources = list(dict.fromkeys(tables.cited(line.published) for line in lines if line.published))
    text = ""
    for suite, dataset in dict.fromkeys((line.suite, line.dataset) for line in lines):
        here = [line for line in lines if (line.suite, line.dataset) == (suite, dataset) and line.first]
        here = [line for line in here if not line.for_scores]
        text += _table(dataset, here, sources)
    if sources:
        listed = "".join(
            f'<li id="source-{number}">{escape(text, _LONG)}</li>' for number, text in enumerate(sources, 1)
        )
        text += f"<p><small>{escape(published.NOTE, _LONG)}</small></p><ol>{listed}</ol>"
    return text


def _table(dataset: str, lines: Sequence[Line], sources: Sequence[str]) -> str:
    printed = any(line.published for line in lines)
    head = [("method", False), ("accuracy %", True), ("student", False), ("students", True)]
    head += [("published %", True)] if printed else []
    head += [("distilled in", True), ("iterations", True), ("kB", True)]
    head += [("protocol", False), ("epochs", True), ("cells", False)]
    columns = "".join(_heading(name, number) for name, number in head)
    groups = ""
    for ipc in dict.fromkeys(line.ipc for line in lines):
        group = sorted(
            (line for line in lines if line.ipc == ipc), key=lambda line: (line.baseline, -line.mean)
        )
        best = _best(group)
        title = f'<tr><th scope="rowgroup" colspan="{len(head)}">{ipc} per class</th></tr>'
        rows = "".join(_row(line, sources, printed, line in best) for line in group)
        groups += f'<tbody class="group">{title}{rows}</tbody>'
    note = f"{dataset}. {tables.CAPTION} Bold: the best of several under one protocol. Grey: real images."
    table = f"<table><thead><tr>{columns}</tr></thead>{groups}</table>"
    return _scrolling(f"results on {dataset}", note, table)


def _best(lines: Sequence[Line]) -> list[Line]:
    """Return the most accurate methods of those with one protocol and student, where these are several."""
    alike: dict[tuple[str, int, str], list[Line]] = {}
    for line in lines:
        if not line.baseline:
            alike.setdefault((line.protocol, line.epochs, line.network), []).append(line)
    tops = [(group, max(line.mean for line in group)) for group in alike.values() if len(group) > 1]
    return [line for group, top in tops for line in group if line.mean == top]


def _row(line: Line, sources: Sequence[str], printed: bool, best: bool) -> str:
    links = ", ".join(f'<a href="#{anchor(each)}">seed {each.seed}</a>' for each in line.cells[:5])
    links += f" and {len(line.cells) - 5} more" if len(line.cells) > 5 else ""
    cells = [_number(line.accuracy, "best" if best else ""), f"<td>{escape(line.network)}</td>"]
    cells.append(_number(line.over))
    if printed:
        mark = ""
        if line.published:
            at = sources.index(tables.cited(line.published)) + 1
            mark = f'{escape(str(line.published))} <a href="#source-{at}">[{at}]</a>'
        cells.append(f'<td class="number">{mark}</td>')
    cells += [_number(line.spent), _number(line.iterations), _number(kilobytes(line.bytes))]
    cells += [f"<td>{escape(line.protocol)}</td>", _number(str(line.epochs)), f"<td>{links}</td>"]
    kind = ' class="baseline"' if line.baseline else ""
    return f'<tr{kind}><th scope="row">{escape(line.method)}</th>{"".join(cells)}</tr>'


def gained(gains: Sequence[Gain]) -> str:
    """Return the gains of one method over another, a sentence each."""
    listed = sentences([str(gain) for gain in gains])
    return f'<p class="about">{escape(tables.GAINS, _LONG)}</p>{listed}' if listed else ""


def networks(lines: Sequence[Line]) -> str:
    """Return a heat map per data set and IPC: methods down, students across."""
    text, lines = "", [line for line in lines if not line.for_scores]
    for suite, dataset, ipc in dict.fromkeys((line.suite, line.dataset, line.ipc) for line in lines):
        here = [line for line in lines if (line.suite, line.dataset, line.ipc) == (suite, dataset, ipc)]
        students = list(dict.fromkeys(line.network for line in sorted(here, key=lambda line: not line.first)))
        if len(students) < 2:
            continue
        low, high = min(line.mean for line in here), max(line.mean for line in here)
        head = "".join(_heading(name, True) for name in (*students, "mean", "worst"))
        rows = ""
        for kind in dict.fromkeys((line.baseline, line.method, line.protocol) for line in here):
            at = {line.network: line for line in here if (line.baseline, line.method, line.protocol) == kind}
            values = "".join(_heat(at.get(name), low, high) for name in students)
            means = [line.mean for line in at.values()]
            complete = len(means) == len(students)
            across = [f"{value:.1f}" if complete else "" for value in (statistics.mean(means), min(means))]
            values += "".join(map(_number, across))
            style = ' class="baseline"' if kind[0] else ""
            name = f'<th scope="row">{escape(kind[1])} <small>protocol {escape(kind[2])}</small></th>'
            rows += f"<tr{style}>{name}{values}</tr>"
        title = f"{dataset}, {ipc} per class"
        note = f"{title}. Accuracy in percent by student, each method under its protocol."
        head = f'<thead><tr><th scope="col">method</th>{head}</tr></thead>'
        text += _scrolling(f"students on {title}", note, f"<table>{head}<tbody>{rows}</tbody></table>")
    return text


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


def scores(lines: Sequence[Line]) -> str:
    """Return a table of scores per data set and IPC, where suites ask for them."""
    own = [line for line in lines if not line.baseline and not line.for_scores]
    requested = {(line.suite, line.dataset, line.ipc) for line in lines if line.for_scores}
    otherwise = {(_evaluation(line), line.network, line.set): line.accuracy for line in lines}
    text = ""
    for suite, dataset, ipc in dict.fromkeys((line.suite, line.dataset, line.ipc) for line in own):
        here = [line for line in own if (line.suite, line.dataset, line.ipc) == (suite, dataset, ipc)]
        scored = [_scores_of(line) for line in here]
        if (suite, dataset, ipc) not in requested and not any(
            {"lrs", "ars"} & each.keys() for each in scored
        ):
            continue
        rows = ""
        for line, of_line in zip(here, scored, strict=True):
            values = [
                otherwise.get((_evaluation(line), line.network, kind), "") for kind in _TRAINED.values()
            ]
            for key, written, times in _SCORES.values():
                values.append(written.format(times * of_line[key]) if key in of_line else "")
            student = f"<small>on {escape(line.network)}, protocol {escape(line.protocol)}</small>"
            link = f'<a href="#{anchor(line.cells[0])}">{escape(line.method)}</a>'
            rows += f'<tr><th scope="row">{link} {student}</th>{"".join(map(_number, values))}</tr>'
        head = '<th scope="col">method</th>' + "".join(_heading(name, True) for name in (*_TRAINED, *_SCORES))
        title = f"{dataset}, {ipc} per class"
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        text += _scrolling(f"scores on {title}", f"{title}. {_ABOUT_SCORES}", table)
    return text


def _evaluation(line: Line) -> tuple[Any, ...]:
    """Return which cells and evaluation a line joins; two suites may call theirs alike."""
    return line.evaluation, *((each.suite, each.cell) for each in line.cells)


def _scores_of(line: Line) -> dict[str, float]:
    """Return the means over the seeds of those scores that every report of a line has."""
    networks = [report.get("scores", {}).get("networks", {}) for report in line.reports]
    of_student = [each.get(line.network, {}) for each in networks]
    shared = set.intersection(*map(set, of_student))
    return {key: statistics.mean(each[key] for each in of_student) for key in shared}


def _heat(line: Line | None, low: float, high: float) -> str:
    if line is None:
        return '<td class="number"></td>'
    share = (line.mean - low) / (high - low) if high > low else 0.0
    value = f'<a href="#{anchor(line.cells[0])}">{line.mean:.1f}</a>'
    return f'<td class="heat" style="--h:{share:.2f}" title="{escape(line.accuracy)}">{value}</td>'


def images(results: Sequence[CellResult]) -> str:
    """Return the images of every method, data set and IPC, by its first seed whose set can be read."""
    groups: dict[str, dict[str, str]] = {}
    for each in results:
        group = groups.setdefault(f"{each.dataset}, {each.ipc} per class", {})
        kind = f"{each.suite} {each.method}"
        if kind in group or each.folder is None or each.file_problem:
            continue  # the cell says so
        try:
            distilled = set_file.read(each.folder / each.file)
        except UserError:
            continue
        name, cut = f"{each.method}, seed {each.seed}", picture.omissions(distilled.labels)
        caption = f'<a href="#{anchor(each)}">{escape(name)}</a>' + (f"; {cut}" if cut else "")
        alt = f"distilled images of {each.dataset} by {each.method}"
        image = f'<img src="{picture.data_uri(distilled.images, distilled.labels)}" alt="{escape(alt)}">'
        group[kind] = f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
    drawn = {title: "".join(group.values()) for title, group in groups.items() if group}
    if not drawn:
        return ""
    note = "A column per class. Pixels as stored, clipped to [0, 1]; a multi-formation shows tiles."
    return f'<p class="quiet">{note}</p>{_grouped(drawn, "grids")}'


def charts(drawn: Sequence[Figure], note: str) -> str:
    """Return charts side by side, and how they are to be read."""
    if not drawn:
        return ""
    each = "".join(f"<figure><h3>{escape(one.title)}</h3>{one.svg}</figure>" for one in drawn)
    return f'<p class="quiet">{note}</p><div class="charts">{each}</div>'


def losses(drawn: Sequence[Figure]) -> str:
    """Return small curves side by side."""
    groups: dict[str, str] = {}
    for one in drawn:
        caption = f'<a href="#{one.name}">{escape(one.caption)}</a>'
        figure = f"<figure>{one.svg}<figcaption>{caption}</figcaption></figure>"
        groups[one.title] = groups.get(one.title, "") + figure
    if not groups:
        return ""
    note = (
        "The matching loss over iterations, smoothed where they are many, with where it begins and ends; "
        "losses of different methods have no common scale."
    )
    return f'<p class="quiet">{note}</p>{_grouped(groups, "sparks")}'


def sentences(listed: Sequence[str]) -> str:
    """Return a list; empty where there is nothing to list."""
    return f"<ul>{''.join(f'<li>{escape(each, _LONG)}</li>' for each in listed)}</ul>" if listed else ""


def _grouped(groups: Mapping[str, str], kind: str) -> str:
    """Return figures under headings."""
    return "".join(
        f'<h3>{escape(title)}</h3><div class="{kind}">{inside}</div>' for title, inside in groups.items()
    )


def _scrolling(name: str, note: str, table: str) -> str:
    """Put a table in a region of its own, which scrolls on a phone; its note stays above."""
    region = f'<div class="scroll" role="region" aria-label="{escape(name)}" tabindex="0">{table}</div>'
    return f'<p class="about">{escape(note, _LONG)}</p>{region}'


def _heading(name: str, number: bool) -> str:
    kind = ' class="number"' if number else ""
    return f'<th scope="col"{kind}>{escape(name)}</th>'


def _number(text: str, kind: str = "") -> str:
    return f'<td class="{f"number {kind}".strip()}">{escape(text)}</td>'
