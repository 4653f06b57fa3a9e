"""Results as one HTML page: no network, no script; tables, charts and images are inside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib import metadata, resources
from pathlib import Path
from string import Template

from dsdistill import files
from dsdistill.bench.collection import collect
from dsdistill.bench.lines import gains, without_copies
from dsdistill.bench.lines import lines as joined_lines
from dsdistill.bench.results import CellResult
from dsdistill.config.sharing import values_without_folders
from dsdistill.errors import UserError
from dsdistill.report import cell, figures, pictures, sections, tables
from dsdistill.report.markup import LONG, escape, sentences
from dsdistill.runtime import provenance
from dsdistill.text import duration


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
    files.replace(output, html(cells, values_without_folders(problems)).encode())
    return output


def html(results: Sequence[CellResult], problems: Sequence[str] = ()) -> str:
    """Return the page of some results; sets and logs in their folders are read if they exist."""
    all_lines = joined_lines(results)
    lines = without_copies(all_lines)
    parts = {
        "results": ("Results", sections.results(lines) + sections.gained(gains(results))),
        "time": (
            "Accuracy against seconds",
            sections.grouped(figures.over_time(results, lines), sections.TIME),
        ),
        "bytes": ("Accuracy against bytes", sections.over_bytes(all_lines)),
        "images": ("Images", pictures.pictures(results)),
        "networks": ("Across architectures", tables.networks(lines)),
        "scores": ("Scores", tables.scores(lines)),
        "calibration": ("Calibration and fidelity", sections.calibration(lines)),
        "losses": ("Losses", sections.grouped(figures.losses(results), sections.LOSSES)),
        "problems": ("Left out", sentences(problems)),
        "cells": ("Cells", cell.articles(results)),
    }
    shown = {key: part for key, part in parts.items() if part[1]}
    folder = resources.files("dsdistill.report")
    return Template((folder / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(", ".join(dict.fromkeys(each.suite for each in results))),
        style=(folder / "style.css").read_text(encoding="utf-8"),
        conclusions=sections.conclusions(lines) + sections.flags(results),
        facts="".join(
            f"<div><dt>{name}</dt><dd>{escape(text, LONG)}</dd></div>" for name, text in _facts(results)
        ),
        links="".join(f'<li><a href="#{key}">{title}</a></li>' for key, (title, _) in shown.items()),
        body="\n".join(_section(key, *part) for key, part in shown.items()),
    )


def _section(key: str, title: str, inside: str) -> str:
    return (
        f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{title}</h2>\n'
        f"{inside}</section>"
    )


def _facts(results: Sequence[CellResult]) -> Iterator[tuple[str, str]]:
    """Yield what the page covers, and the date, version and commit of its results and of itself."""
    methods = len({each.method for each in results})
    datasets = ", ".join(dict.fromkeys(each.dataset for each in results))
    yield (
        "covers",
        f"{_some(len(results), 'cell')}, {_some(methods, 'method')} on {datasets}; "
        f"{duration(sum(each.seconds for each in results))} of distillation",
    )
    yield "machine", "; ".join(dict.fromkeys(each.machine for each in results))
    days = sorted({day for each in results if (day := str(each.report.get("date", ""))[:10])})
    versions = dict.fromkeys(version for each in results if (version := cell.version(each)))
    period = f"evaluated {' to '.join(dict.fromkeys((days[0], days[-1])))}" if days else ""
    yield "results", ", ".join(filter(None, [period, f"dsdistill {', '.join(versions)}" if versions else ""]))
    written = f"written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, dsdistill {metadata.version('dsdistill')}"
    commit = provenance.commit()
    yield "page", f"{written}, commit {commit}" if commit else written


def _some(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"
