"""The pace of a run by its measured steps."""

from __future__ import annotations

import pytest

from dsdistill.runtime.pace import PaceMeter, typical


def meter(*measured: tuple[int, float]) -> PaceMeter:
    pace = PaceMeter()
    for steps, seconds in measured:
        pace.add(steps, seconds)
    return pace


def test_the_first_measurement_warms_up() -> None:
    pace = meter((1, 60.0), (1, 1.0), (10, 30.0))
    assert pace.step == 2.0  # 1 and 3 seconds a step
    assert pace.warm_up == 91.0 - 12 * 2.0


def test_a_step_that_compiles_something_later_is_left_out() -> None:
    assert meter((1, 60.0), (1, 1.0), (1, 1.2), (1, 50.0), (1, 0.8)).step == pytest.approx(1.0)


def test_slow_steps_are_known_after_two_and_quick_ones_after_some() -> None:
    assert not meter((1, 60.0), (1, 100.0)).is_known
    assert meter((1, 0.1), (1, 1.0), (1, 1.0)).is_known
    assert not meter(*[(1, 0.1)] * 15).is_known
    assert meter(*[(1, 0.1)] * 16).is_known


def test_steps_are_timed_one_by_one_while_they_may_compile() -> None:
    assert [meter(*[(1, 0.1)] * count).is_new for count in (0, 1, 2)] == [True, True, False]


def test_one_measurement_is_all_there_is() -> None:
    assert meter((2, 3.0)).step == 1.5
    assert meter((2, 3.0)).warm_up == 0.0


def test_outliers_are_left_out_of_the_mean() -> None:
    assert typical([1.0, 2.0, 1.5, 4000.0]) == 1.5
