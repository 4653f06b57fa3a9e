"""Calibration on the page: numbers of rows joined over seeds, and what a diagram shows."""

from __future__ import annotations

import dataclasses

from dsdistill.bench.lines import lines
from dsdistill.bench.results import CellResult
from dsdistill.evaluation.measures import BINS, Calibration, Fidelity, Scores
from dsdistill.report import page, reliability
from tests.helpers.bench import result, row


def calibrated(ece: float, first: int, last: int) -> Calibration:
    """Return a calibration with predictions in the first and the last bin."""
    rest = BINS - 2
    return Calibration(
        Scores(ece, 1.5, 0.5),
        2.0,
        Scores(1.0, 1.0, 0.25),
        30,
        [first, *[0] * rest, last],
        [5.0, *[0.0] * rest, 98.0],
        [10.0, *[0.0] * rest, 50.0],
    )


def cells() -> list[CellResult]:
    found = []
    for seed, ece in enumerate((20.0, 40.0)):
        own = dataclasses.replace(
            row("distilled", [50.0, 52.0]),
            regime="SL",
            calibration=calibrated(ece, 10, 30),
            fidelity=Fidelity("a teacher", 80.0, 0.25, 3, 50.0),
        )
        labelled = dataclasses.replace(row("random+labels", [50.5, 51.0]), regime="SL")
        found.append(result(seed=seed, rows=[own, row("random", [30.0, 31.0]), labelled]))
    return found


def test_numbers_are_means_over_the_seeds() -> None:
    text = reliability.tables(lines(cells()))
    for value in ("30.0", "1.50", "0.50", "2.00", "80.0", "50.0", "0.25"):
        assert f'<td class="number">{value}</td>' in text
    assert "<td>SL</td>" in text
    assert "leak AUC" not in text  # nobody asked for it
    assert "random" not in text  # as an earlier version measured them: not at all


def test_a_diagram_joins_the_bins_that_are_not_empty() -> None:
    (figure,) = reliability.figures(lines(cells()))
    (panel,) = figure.panels
    assert panel.drawing.about == "confidence 5 %: 10 % right; confidence 98 %: 50 % right"
    assert panel.drawing.inside.count('class="share"') == BINS
    assert panel.drawing.inside.count("<circle") == 2


def test_the_page_has_calibration_and_flags_only_where_they_are_known() -> None:
    text = page.html(cells())
    assert 'id="calibration"' in text
    assert text.count("labels do the work") == 2  # a cell each
    assert "random+labels of dm" in text
    plain = page.html([result()])
    assert 'id="calibration"' not in plain
    assert "labels do the work" not in plain
