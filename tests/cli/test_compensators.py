"""What the command line says of a set with compensators."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsdistill.cli import main
from dsdistill.export import picture
from dsdistill.storage import set_file
from tests.helpers.storage import with_compensators


def test_info_and_show_count_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_file.write(tmp_path / "set.h5", with_compensators())
    assert main(["info", str(tmp_path / "set.h5")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "images 12 of 3x8x8, 4 a class stored as float32" in said
    assert "into 36 training images (8 compensators, each added to an image of every class)" in said
    titles: list[str] = []
    monkeypatch.setattr(picture, "write_grid", lambda *_, title: titles.append(title))
    assert main(["show", str(tmp_path / "set.h5")]) == 0
    assert titles == ["set, dm, 12 images and 8 compensators"]
