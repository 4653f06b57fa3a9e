"""The charts of the report as files, for people who want one of them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from dsdistill import files
from dsdistill.bench.expert_set import slug
from dsdistill.bench.lines import lines as joined_lines
from dsdistill.bench.lines import without_copies
from dsdistill.bench.results import CellResult
from dsdistill.report import drawing, figures


def write(folder: Path, results: Sequence[CellResult]) -> list[Path]:
    """Write an SVG for each chart of accuracy; return the files."""
    all_lines = joined_lines(results)
    lines = without_copies(all_lines)
    style = (resources.files("dsdistill.report") / "style.css").read_text(encoding="utf-8")
    charts = [*figures.accuracies(lines), *figures.over_time(results, lines), *figures.over_bytes(all_lines)]
    written = []
    for figure in charts:
        files.make_folder(folder, parents=True)
        path = folder / f"{slug(figure.name)}.svg"
        panels = [(panel.name, panel.drawing) for panel in figure.panels]
        files.replace(path, drawing.sheet(figure.title, panels, style).encode())
        written.append(path)
    return written
