"""Files that several tests of evaluation read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.evaluation import write_digits


@pytest.fixture
def digits_file(tmp_path: Path) -> Path:
    """Two random digits of each class, as a distilled set."""
    return write_digits(tmp_path / "digits.h5", network="convnet3-w8")
