"""Paths as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsdistill.errors import UserError
from dsdistill.files import expanded


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/set.h5") == tmp_path / "set.h5"
    assert expanded(Path("~/set.h5")) == tmp_path / "set.h5"
    assert expanded("a/~/set.h5") == Path("a/~/set.h5")
    with pytest.raises(UserError, match="home folder in ~nobody-of-this-name"):
        expanded("~nobody-of-this-name/set.h5")
