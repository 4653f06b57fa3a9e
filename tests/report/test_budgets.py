"""What is said to be best within the bytes of a set."""

from __future__ import annotations

import dataclasses

import pytest

from dsdistill.bench.lines import lines as joined_lines
from dsdistill.bench.results import CellResult, EvaluationResult
from dsdistill.evaluation.rows import Row
from dsdistill.report import budgets, page
from tests.helpers.bench import coded, result, row


def shifted(cell: CellResult, set_points: float = 0.0, real_points: float = 0.0) -> CellResult:
    """Return a cell whose sets and real images for their bytes are so many points more accurate."""
    evaluations = []
    for each in cell.evaluations:
        rows = []
        for old in each.rows:
            points = set_points if old.set == "distilled" else real_points * old.set.endswith("@bytes")
            moved = row(old.set, [value + points for value in old.values], images=old.images)
            rows.append(moved)
        evaluations.append(EvaluationResult(each.name, each.report, rows, each.bits))
    return result(cell.method, cell.ipc, cell.seed, evaluations=evaluations)


def test_the_best_of_all_numbers_of_bits_that_fit_is_compared_with_real_images_that_fit() -> None:
    """Ten per class in 2 bits take the 10 kB of one per class, and are better."""
    ten = shifted(coded(ipc=10), set_points=20.0, real_points=5.0)
    one, more = budgets.sentences(joined_lines([coded(), ten]))
    assert one == (
        "cifar10, in the 10.0 kB of 1 per class as distilled: dm (100 images in 2 bits, 10.0 kB: "
        "69.00 ± 1.41 %) beats the best real images evaluated here, random@bytes of dm (1,000 images in 2 "
        "bits, 10.0 kB: 43.50 ± 0.71 %)."
    )
    assert more.startswith("cifar10, in the 100.0 kB of 10 per class as distilled: dm (100 images in 32 bits")
    assert "random@bytes of dm (1,000 images in 8 bits, 100.0 kB: 45.50 ± 0.71 %)" in more


@pytest.mark.parametrize(("points", "verb"), [(20.0, "is behind"), (10.0, "is level with"), (0.0, "beats")])
def test_sets_that_do_not_win_are_said_not_to(points: float, verb: str) -> None:
    cell = shifted(coded(), real_points=points)
    (said,) = budgets.sentences(joined_lines([cell]))
    assert f" {verb} the best real images evaluated here" in said
    assert said in page.html([cell])


def test_nothing_is_said_without_copies() -> None:
    assert budgets.sentences(joined_lines([result(), result(ipc=10)])) == []


def test_real_images_under_another_protocol_are_not_compared() -> None:
    evaluations = [
        dataclasses.replace(each, rows=[_elsewhere(old) for old in each.rows]) for each in coded().evaluations
    ]
    (said,) = budgets.sentences(joined_lines([result(evaluations=evaluations)]))
    assert said.endswith("51.00 ± 1.41 %).")


def _elsewhere(old: Row) -> Row:
    return old if old.set == "distilled" else dataclasses.replace(old, protocol="rded")
