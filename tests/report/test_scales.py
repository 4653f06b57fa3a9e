"""Axes: values at their places, and a few round ticks."""

from __future__ import annotations

import itertools
import math

import pytest

from dsdistill.report.scales import Scale, linear, logarithmic, short


@pytest.mark.parametrize("most", [3, 4, 7])
@pytest.mark.parametrize(
    "values", [[1e-3], [5.0, 5.0], [0.9, 1.1], [3, 3000], [1, 1e9], [7.1, 7.2, 7.3], [0.5, 4.0], [99.9, 100]]
)
def test_axes_have_a_few_round_ticks_inside(values: list[float], most: int) -> None:
    for scale in (linear(values, 0, 100), logarithmic(values, 0, 100)):
        ticks = scale.ticks(most)
        assert 1 <= len(ticks) <= most
        assert all(scale.low <= tick <= scale.high for tick in ticks)
        steps = {round(after - before, 9) for before, after in itertools.pairwise(ticks)}
        assert scale.log or len(steps) <= 1
        assert all(f"{step:e}"[0] in "125" for step in steps if not scale.log)
        assert all(0 <= scale(value) <= 100 for value in values)


def test_accuracies_have_no_room_above_a_hundred_percent() -> None:
    assert linear([50, 99.9], 0, 1, 100.0).high == 100.0
    assert linear([50, 100.5], 0, 1, 100.0).high == 100.5  # unless a bar reaches there


def test_a_logarithmic_scale_has_equal_factors_at_equal_distances() -> None:
    scale = Scale(1, 1000, 0, 300, log=True)
    assert [scale(value) for value in (1, 10, 100, 1000)] == pytest.approx([0, 100, 200, 300])
    assert math.isfinite(scale(0.0))


def test_axis_values_are_short() -> None:
    assert [short(value) for value in (0.5, 20, 3000, 1.5e6, 2e9)] == ["0.5", "20", "3k", "1.5M", "2G"]
