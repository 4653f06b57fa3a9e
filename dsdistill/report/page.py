"""Results as one HTML page: no network, no script; tables, charts and images are inside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata, resources
from pathlib import Path
from string import Template

from dsdistill import files
from dsdistill.bench.collection import collect
from dsdistill.bench.lines import gains
from dsdistill.bench.lines import lines as joined_lines
from dsdistill.bench.results import CellResult
from dsdistill.config.sharing import told
from dsdistill.errors import UserError
from dsdistill.report import cell, figures, sections
from dsdistill.report.markup import escape
from dsdistill.text import duration

TIME = (
    "Seconds are those in the loop of the distillation; evaluation is not counted, nor the training of "
    "experts, whose time the table adds. Joined points are snapshots of one run, evaluated by fresh "
    "students, fewer than at the end; bars are one standard deviation over students. A point leads to its "
    "cell."
)
BYTES = (
    "Compressed bytes of images and labels as they are in the file; real images count what they take stored "
    "in the same way. Not counted is the matrix of a whitened set, whose size its cell tells. Students are "
    "the network that each method matched in."
)


def write(results: Path, output: Path, notify: Callable[[str], None]) -> Path:
    """Make the page of all results below a folder.

    Args:
        notify: receives a sentence for every file that is left out; the page lists them too.

    Raises:
        UserError: no such folder, no finished cell in it, or the page cannot be written.
    """
    results, output = files.expanded(results), files.expanded(output)
    files.check_replaceable(output, ".html")
    cells, problems = collect(results)
    for problem in problems:
        notify(problem)
    if not cells:
        raise UserError(
            f"there is no finished cell in {results}"
            + (f" ({len(problems)} files left out, see above)" if problems else "")
            + "; make some with: dsdistill bench digits"
        )
    files.replace(output, html(cells, told(problems)).encode())
    return output


def html(results: Sequence[CellResult], problems: Sequence[str] = ()) -> str:
    """Return the page of some results; sets and logs in their folders are read if they exist."""
    lines = joined_lines(results)
    parts = {
        "results": ("Results", sections.accuracies(lines) + sections.gained(gains(results))),
        "time": ("Accuracy against seconds", sections.charts(figures.over_time(results, lines), TIME)),
        "bytes": ("Accuracy against bytes", sections.charts(figures.over_bytes(results, lines), BYTES)),
        "images": ("Images", sections.images(results)),
        "networks": ("Across architectures", sections.networks(lines)),
        "scores": ("Scores", sections.scores(lines)),
        "losses": ("Losses", sections.losses(figures.losses(results))),
        "problems": ("Left out", sections.sentences(problems)),
        "cells": ("Cells", "".join(map(cell.article, results))),
    }
    shown = {key: part for key, part in parts.items() if part[1]}
    folder = resources.files("dsdistill.report")
    return Template((folder / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(", ".join(dict.fromkeys(each.suite for each in results))),
        style=(folder / "style.css").read_text(encoding="utf-8"),
        summary=escape(_summary(results), 2000),
        links="".join(f'<li><a href="#{key}">{title}</a></li>' for key, (title, _) in shown.items()),
        body="\n".join(_section(key, *part) for key, part in shown.items()),
        version=escape(metadata.version("dsdistill")),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _section(key: str, title: str, inside: str) -> str:
    return (
        f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{title}</h2>\n'
        f"{inside}</section>"
    )


def _summary(results: Sequence[CellResult]) -> str:
    def some(count: int, one: str, many: str) -> str:
        return f"{count} {one if count == 1 else many}"

    methods = len({each.method for each in results})
    datasets = ", ".join(dict.fromkeys(each.dataset for each in results))
    seconds = duration(sum(each.seconds for each in results))
    machines = "; ".join(dict.fromkeys(each.machine for each in results))
    return (
        f"{some(len(results), 'cell', 'cells')}, {some(methods, 'method', 'methods')} on {datasets}: "
        f"{seconds} of distillation on {machines}."
    )
