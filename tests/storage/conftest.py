"""An expert file for the tests of storage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.expert_files import written


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("buffer") / "pool.h5")


@pytest.fixture
def pool(shared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(shared, tmp_path))
