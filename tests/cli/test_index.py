"""What the command line knows without loading torch is what the code says."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from dsdistill.cli import index


def test_the_index_is_that_of_the_code() -> None:
    stored = tomllib.loads(index.PATH.read_text(encoding="utf-8"))
    assert stored == index.from_code(), "run `make index`"
    assert index.option_keys("distill") == stored["options"]["distill"]
    assert (index.datasets(), index.networks()) == (stored["datasets"], stored["networks"])
    assert "optimiser.lr" in index.option_keys("distill")
    assert "sharpness.rho" in index.option_keys("experts")
    assert index.option_keys("evaluate") == []


def test_writing_it_again_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, path = index.PATH.read_text(encoding="utf-8"), tmp_path / "index.toml"
    monkeypatch.setattr(index, "PATH", path)
    index.write()
    assert path.read_text(encoding="utf-8") == before
