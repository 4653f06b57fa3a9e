"""The sentences on top of the page: what is best, whether clearly, and whether it beats real images."""

from __future__ import annotations

import dataclasses

import pytest

from dsdistill.bench.comparison import Verdict, verdict
from dsdistill.bench.lines import Line
from dsdistill.bench.lines import lines as joined_lines
from dsdistill.bench.results import CellResult
from dsdistill.evaluation.rows import Row
from dsdistill.report import conclusion
from tests.helpers.bench import result, row
from tests.helpers.reports import grid


def around(mean: float, std: float) -> list[float]:
    """Return three values of this mean and sample standard deviation."""
    return [mean - std, mean, mean + std]


def told(*cells: CellResult) -> str:
    """Return the one finding on some cells."""
    (finding,) = conclusion.findings(joined_lines(cells))
    return finding.text


def cell(method: str, mean: float, std: float, *real: Row) -> CellResult:
    """Return a cell with its accuracy, and those of real images."""
    return result(method, rows=[row("distilled", around(mean, std)), *real])


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        (53.0, 1.0, Verdict.AHEAD),
        (52.0, 1.0, Verdict.LEVEL),  # apart by just the greater deviation
        (53.0, 4.0, Verdict.LEVEL),  # less than its own
        (49.0, 0.0, Verdict.LEVEL),
        (47.0, 1.0, Verdict.BEHIND),
    ],
)
def test_a_verdict_needs_more_than_both_deviations(mean: float, std: float, expected: Verdict) -> None:
    one, other = joined_lines([cell("dm", mean, std), cell("mtt", 50.0, 2.0)])
    assert verdict(one, other) is expected


def test_one_student_allows_no_verdict() -> None:
    rows = [row("distilled", [60.0]), row("random", around(40.0, 1.0))]
    one, other = joined_lines([result(rows=rows)])
    assert verdict(one, other) is Verdict.UNKNOWN
    text = told(result(rows=rows))
    assert "is by one student 20.00 points above as many random real images" in text
    found = conclusion.findings(joined_lines([result(rows=rows)]))
    assert conclusion.overall(found).startswith("No distilled set is compared")


def test_the_best_is_named_with_the_next_and_random_images() -> None:
    text = told(
        cell("dm", 55.0, 1.0, row("random", around(40.0, 3.0))), cell("mtt", 60.0, 1.0), cell("dc", 41.0, 1.0)
    )
    assert text == (
        "mtt is the best of 3 with 60.00 ± 1.00 %, ahead of dm at 55.00 ± 1.00 %. "
        "It beats as many random real images (40.00 ± 3.00 %). 2 of 3 beat as many random real images."
    )


def test_methods_that_are_level_with_the_best_are_counted() -> None:
    text = told(cell("dm", 59.5, 1.0), cell("mtt", 60.0, 1.0), cell("dc", 59.2, 0.1), cell("idc", 50.0, 1.0))
    assert (
        "mtt is the best of 4 with 60.00 ± 1.00 %, level with dm at 59.50 ± 1.00 % and with 1 more." in text
    )
    assert text.endswith("It is not compared with random real images.")


def test_real_images_that_win_are_said_to_win() -> None:
    real = [row("random", around(60.0, 1.0)), row("herding", around(65.0, 1.0))]
    real += [row("random@bytes", around(80.0, 1.0), images=100)]
    cells = [cell("dm", 50.0, 1.0, *real), cell("mtt", 40.0, 1.0)]
    text = told(*cells)
    assert "It is behind as many random real images (60.00 ± 1.00 %), and is behind random" in text
    assert "real images for the same bytes (80.00 ± 1.00 %, 10.0 kB)." in text
    assert "As many real images chosen by herding are ahead of it (65.00 ± 1.00 %)." in text
    assert text.endswith(
        "None of 2 beats as many random real images; none of 2 beats random ones for the same bytes."
    )
    assert conclusion.overall(conclusion.findings(joined_lines(cells))) == (
        "No distilled set beats as many random real images; "
        "no distilled set beats random real images for the same bytes."
    )


def test_equal_bytes_are_those_of_a_set_of_about_the_same_size() -> None:
    real = row("random@bytes", around(80.0, 1.0), images=100)
    small = cell("mtt", 60.0, 1.0)
    small.report["cost"].update(image_bytes=2500.0, label_bytes=0.0)
    text = told(cell("dm", 50.0, 1.0, real), small)
    assert text == (
        "mtt is the best of 2 with 60.00 ± 1.00 %, ahead of dm at 50.00 ± 1.00 %. It is not compared with "
        "random real images. None of 1 beats random ones for the same bytes (80.00 ± 1.00 %)."
    )  # mtt's set is a quarter of dm's


def test_only_students_trained_alike_are_compared_with_random_images() -> None:
    other = dataclasses.replace(row("distilled", around(60.0, 1.0), "resnet18"), protocol="dsa")
    cells = [cell("dm", 50.0, 1.0, row("random", around(40.0, 1.0))), result("mtt", rows=[other])]
    (finding,) = conclusion.findings(joined_lines(cells))
    assert finding.text.startswith("mtt (student resnet18, protocol dsa) is the best of 2")
    assert "It is not compared with random real images." in finding.text
    assert finding.mixed
    assert finding.random == conclusion.Tally(1, 1)
    learned = cell("mtt", 60.0, 1.0)
    learned.report["lr"] = 0.02
    assert "not compared" in told(cell("dm", 50.0, 1.0, row("random", around(40.0, 1.0))), learned)


def test_findings_are_joined_to_one_sentence() -> None:
    lines: list[Line] = joined_lines(grid())
    found = conclusion.findings(lines)
    assert [each.title for each in found] == [
        f"{dataset}, {ipc} per class" for dataset in ("cifar10", "fashion-mnist") for ipc in (1, 10)
    ]
    assert conclusion.overall(found) == (
        "With the student convnet, distilled images beat as many random real images in 26 of 40 comparisons; "
        "distilled images beat random real images for the same bytes in 2 of 40 comparisons."
    )


def test_the_headline_counts_methods_and_names_the_student() -> None:
    real = row("random", around(50.0, 1.0))
    cells = [cell("dm", 60.0, 1.0, real), cell("dc", 40.0, 1.0)]
    found = conclusion.findings(joined_lines(cells))
    assert conclusion.overall(found) == "1 of 2 methods beat as many random real images."
    other = [row("distilled", around(20.0, 1.0), "resnet18"), row("random", around(50.0, 1.0), "resnet18")]
    rows = [row("distilled", around(60.0, 1.0)), real, *other]
    found = conclusion.findings(joined_lines([result("dm", rows=rows), cells[1]]))
    assert conclusion.overall(found) == (
        f"With the student {real.network}, 1 of 2 methods beat as many random real images."
    )
    both = conclusion.findings(joined_lines([cells[0], cell("dc", 60.0, 1.0)]))
    assert conclusion.overall(both) == "Both methods beat as many random real images."
