"""The command export."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.cli import Captured, succeed


def test_export_writes_a_folder_or_a_file(capsys: Captured, made: Path) -> None:
    pngs, tensors = made.parent / "pngs", made.parent / "set.pt"
    succeed(capsys, "export", made, pngs)
    assert len(list(pngs.rglob("*.png"))) == 10
    succeed(capsys, "export", made, tensors, "--space", "unit")
    assert tensors.exists()
