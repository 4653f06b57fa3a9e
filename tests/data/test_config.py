"""The options of the data."""

from __future__ import annotations

from typing import Any

import pytest

from dsdistill.data.config import DataConfig
from dsdistill.errors import UserError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_fraction": 0.0}, "between 0 and 1, not 0"),
        ({"test_fraction": 1.5}, "between 0 and 1, not 1.5"),
        ({"test_fraction": float("nan")}, "between 0 and 1"),
        ({"size": 0}, "between 1 and 16384 pixels, not 0"),
        ({"size": 10**30}, "between 1 and 16384 pixels, not 1e.30"),
        ({"channels": 2}, "1 .grey. or 3"),
        ({"range": 0}, "between 1 and 2147483647, not 0"),
        ({"range": 2**31}, "between 1 and"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DataConfig(name="digits", **options)
