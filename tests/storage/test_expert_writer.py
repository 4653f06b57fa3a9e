"""Writing an expert file that fails."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dsdistill.errors import UserError
from dsdistill.storage import expert_writer
from tests.helpers.expert_files import metadata, refused, states, training, written


def test_a_failure_leaves_the_old_file_and_no_other(pool: Path) -> None:
    before = pool.read_bytes()

    def fails() -> Iterator[Any]:
        yield training(0), map(metadata().layout.pack, states(0))
        raise UserError("a part is damaged")

    with pytest.raises(UserError, match="a part is damaged"):
        expert_writer.write(pool, metadata(), fails(), 2)
    for experts in ([], [(training(0), [])]):
        with pytest.raises(ValueError):  # noqa: PT011 - a defect of the caller
            expert_writer.write(pool, metadata(), experts, 1)
    assert pool.read_bytes() == before
    assert list(pool.parent.iterdir()) == [pool]


def test_a_full_disk_is_found_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    refused(lambda: written(tmp_path / "pool.h5"), "GB are free")
    assert not list(tmp_path.iterdir())
