"""Execution: what is compiled."""

from __future__ import annotations

import pytest

from dsdistill.evaluation.execution import COMPILE_PIXELS, Auto, ExecutionConfig


@pytest.mark.parametrize(
    ("compile", "pixels", "expected"),
    [
        ("auto", COMPILE_PIXELS["cpu"], True),
        ("auto", COMPILE_PIXELS["cpu"] - 1, False),
        (True, 0, True),
        (False, COMPILE_PIXELS["cpu"], False),
    ],
)
def test_students_are_compiled_where_their_work_is_large_enough(
    compile: bool | Auto, pixels: int, expected: bool
) -> None:
    execution = ExecutionConfig(compile=compile).execution(pixels, lambda sentence: None)
    assert execution.compile is expected
