"""Only regular files are read, and none that is too large."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsdistill import files
from tests.helpers.special_files import SPECIAL


@pytest.mark.parametrize("kind", SPECIAL)
def test_only_a_regular_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    SPECIAL[kind](tmp_path / "set.h5")
    for call in (files.open_regular, files.read, files.read_text):
        with pytest.raises(OSError):  # noqa: PT011 - the system's words for a socket and a loop
            call(tmp_path / "set.h5")


def test_what_is_refused_is_named(tmp_path: Path) -> None:
    SPECIAL["pipe"](tmp_path / "set.h5")
    with pytest.raises(OSError, match="it is a pipe, not a regular file"):
        files.open_regular(tmp_path / "set.h5")
    with pytest.raises(FileNotFoundError):
        files.open_regular(tmp_path / "none")


def test_a_file_and_a_link_to_it_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("Grüße".encode())
    (tmp_path / "link").symlink_to("a")
    for name in ("a", "link"):
        assert files.read(tmp_path / name, most=7) == "Grüße".encode()
        assert files.read_text(tmp_path / name) == "Grüße"
        with files.open_regular(tmp_path / name) as file:
            assert file.read(3) == b"Gr\xc3"


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "a", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match=r"it has 1,099,511,627,776 bytes, and such a file has 67,108,864"):
        files.read_text(tmp_path / "a")


def test_text_is_utf8(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="utf-8"):
        files.read_text(tmp_path / "a")
