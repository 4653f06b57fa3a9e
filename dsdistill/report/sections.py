"""The sections of the page before its cells, as HTML; empty where there is nothing to show."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dsdistill.bench.lines import Gain, Line
from dsdistill.bench.results import CellResult
from dsdistill.bench.tables import CAPTION, GAINS, citations
from dsdistill.bench.worth import NOTE
from dsdistill.bench.worth import sentences as worth
from dsdistill.evaluation.rows import labels_do_the_work
from dsdistill.report import budgets, conclusion, dots, families, figures, reliability, tables
from dsdistill.report.families import Family
from dsdistill.report.figures import Figure, Panel
from dsdistill.report.markup import LONG, escape, link, note, sentences

_KEY = (
    "Charts and tables are sorted by accuracy. Bars are one standard deviation; dashed is the mean of random "
    "real images. Real images are grey in tables, and bold is the best of several under one protocol."
)
_CURVES = (
    "Coloured is one method, grey all others, dashed as many random real images; the axes of a group are the "
    "same. Bars are one standard deviation over students. A point leads to its cell."
)
TIME = (
    f"Accuracy % against seconds (log scale). {_CURVES} Seconds are those in the loop of the distillation; "
    "evaluation is not counted, nor the training of experts, whose time the table adds. Joined points are "
    "snapshots of one run, evaluated by fresh students, fewer than at the end."
)
BYTES = (
    f"Accuracy % against kB of images and labels (log scale). {_CURVES.replace('as many random', 'random')} "
    "Names that end in @bytes, their points squares, are real images for the bytes of sets; those for a "
    "size of their own stand in the table alone. Bytes are compressed, as in the file; real images count "
    "what they take stored in the same way. Not counted is the matrix of a whitened set, whose size its cell "
    "tells. Students are the first of each evaluation."
)
CODED = (
    "Sets were also encoded in fewer bits a pixel, and decoded for their students; real images for the bytes "
    "of such a copy are coded like it. A curve joins the numbers of bits at one IPC."
)
LOSSES = (
    "The matching loss over iterations, smoothed where they are many, with where it begins and ends; losses "
    "of different methods have no common scale."
)


def conclusions(lines: Sequence[Line]) -> str:
    """Say what the results show: one sentence, then one entry per data set and IPC."""
    findings = conclusion.findings(lines)
    remarks = f"{conclusion.NOTE} {conclusion.MIXED if any(each.mixed for each in findings) else ''}".strip()
    entries = "".join(
        f"<li><strong>{escape(each.title)}:</strong> {_unbroken(each.text)}</li>" for each in findings
    )
    return (
        f'<p class="conclusion">{escape(conclusion.overall(findings), LONG)}</p>'
        f'<ul class="findings">{entries}</ul>{note(remarks)}'
    )


def flags(results: Sequence[CellResult]) -> str:
    """Return what warns of accuracies that do not rest on the images, with the cells that it is of."""
    items = ""
    for result in results:
        for evaluation in result.evaluations:
            name = f"{result.method}, {result.dataset}, {result.ipc} per class, seed {result.seed}"
            name += f", evaluation {evaluation.name}" if evaluation.name else ""
            name += f", {evaluation.bits} bits" if result.is_copy(evaluation) else ""
            for sentence in labels_do_the_work(evaluation.rows):
                items += f"<li>{link(f'#{figures.anchor(result)}', name)}: {escape(sentence, LONG)}</li>"
    return f'<ul class="findings">{items}</ul>' if items else ""


def _unbroken(text: str) -> str:
    """Return a sentence in which no line ends before a deviation, a unit or a sign."""
    return re.sub(r"(?<=\d) (?=[±%]|kB)|(?<=±) ", "\N{NO-BREAK SPACE}", escape(text, LONG))


def results(lines: Sequence[Line]) -> str:
    """Return a chart per family and a table per data set, and where published values come from."""
    sources, titles = citations(lines), families.places(lines)
    text = note(CAPTION) + note(_KEY)
    for place, group in families.by_place(lines).items():
        here = [line for family in group for line in family.lines]
        _, shared = families.fold(families.COLUMNS, here)
        kinds = dots.key([figures.kind(line) for line in here])
        charts = _panels(figures.accuracy(titles[place], group).panels, "dotplots")
        text += f"<h3>{escape(titles[place])}</h3>{note(shared)}{kinds}{charts}"
        text += _tables(group, here, sources)
    if remarks := worth(lines):
        text += note(NOTE) + sentences(remarks)
    return text + tables.listed(sources)


def _tables(group: Sequence[Family], lines: Sequence[Line], sources: Sequence[str]) -> str:
    """Return the table of the first students, and folded that of the others."""
    titled = families.titled(group)
    text = tables.accuracies([each for each in titled if each[1].first], lines, sources)
    others = [each for each in titled if not each[1].first]
    if not others:
        return text
    networks = ", ".join(dict.fromkeys(family.network for _, family in others))
    folded = tables.accuracies(others, lines, sources)
    return f"{text}<details><summary>By other students: {escape(networks)}</summary>{folded}</details>"


def calibration(lines: Sequence[Line]) -> str:
    """Return tables of calibration and fidelity, and reliability diagrams, of the first students."""
    diagrams = [
        f"<h3>{escape(figure.title)}</h3>{_panels(figure.panels, 'curves')}"
        for figure in reliability.figures(lines)
    ]
    text = reliability.tables(lines)
    return note(reliability.ABOUT) + text + "".join(diagrams) if text else ""


def gained(gains: Sequence[Gain]) -> str:
    """Return the gains of one method over another, a sentence each."""
    listed = sentences([str(gain) for gain in gains])
    return note(GAINS) + listed if listed else ""


def over_bytes(lines: Sequence[Line]) -> str:
    """Return charts of accuracy against bytes; where sets were encoded, what is best, and folded a table."""
    rates = tables.rates(lines)
    charts = grouped(figures.over_bytes(lines), f"{BYTES} {CODED}" if rates else BYTES)
    folded = f"<details><summary>The values of these charts</summary>{rates}</details>" if rates else ""
    return charts + sentences(budgets.sentences(lines)) + folded


def grouped(drawn: Sequence[Figure], about: str, kind: str = "curves") -> str:
    """Return figures under headings, after how they are to be read."""
    parts = [f"<h3>{escape(figure.title)}</h3>{_panels(figure.panels, kind)}" for figure in drawn]
    return note(about) + "".join(parts) if parts else ""


def _panels(panels: Sequence[Panel], kind: str) -> str:
    """Return drawings side by side, each below its name."""
    inside = ""
    for panel in panels:
        name = link(panel.href, panel.name) if panel.href else escape(panel.name)
        inside += f"<figure><figcaption>{name}</figcaption>{panel.drawing.html}</figure>"
    return f'<div class="{kind}" style="--count:{len(panels)}">{inside}</div>'
