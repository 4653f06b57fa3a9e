"""Installed packages that add something by an entry point, made in a folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str, group: str, points: str) -> None:
    """Install a package ``addition`` for one test.

    Args:
        folder: of the test.
        code: of its module.
        group: of entry points.
        points: lines of it, ``NAME = addition:OBJECT``.
    """
    (folder / "addition.py").write_text(code)
    told = folder / "addition-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: addition\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text(f"[{group}]\n{points}\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "addition", raising=False)
