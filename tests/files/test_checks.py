"""What can be written is known before a long run."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dsdistill.errors import UserError
from dsdistill.files import check_folder, check_new_folder, check_replaceable, check_target, reason
from dsdistill.files.checks import not_regular
from tests.helpers.special_files import SPECIAL


def refused(path: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        check_target(path)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("kind", SPECIAL)
def test_only_a_regular_file_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    SPECIAL[kind](tmp_path / "set.h5")
    refused(tmp_path / "set.h5", "cannot write", "choose another name")


def test_new_files_old_files_and_links_to_them_may_be_written(tmp_path: Path) -> None:
    (tmp_path / "old.h5").touch()
    (tmp_path / "link.h5").symlink_to("old.h5")
    (tmp_path / "dangling.h5").symlink_to("new.h5")
    for name in ("old.h5", "link.h5", "dangling.h5", "new.h5"):
        check_target(tmp_path / name)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("mode", [0o444, 0o400, 0o555])
def test_what_is_write_protected_is_refused_for_root_too(tmp_path: Path, mode: int) -> None:
    (tmp_path / "set.h5").touch()
    (tmp_path / "set.h5").chmod(mode)
    refused(tmp_path / "set.h5", "is write-protected", "chmod u+w")


def test_folders_that_cannot_take_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(tmp_path / "none" / "set.h5", "does not exist; make it first: mkdir -p")
    refused(tmp_path / "file" / "set.h5", "is a file")
    (tmp_path / "dangling.h5").symlink_to("none/set.h5")
    refused(tmp_path / "dangling.h5", "does not exist")


@pytest.mark.parametrize("length", [256, 300, 5000])
def test_names_that_are_too_long_are_refused(tmp_path: Path, length: int) -> None:
    refused(tmp_path / ("x" * length), "too long")
    refused(tmp_path / ("ü" * (length // 2)), "too long")


def test_a_name_of_255_bytes_may_be_written(tmp_path: Path) -> None:
    check_folder(tmp_path / ("x" * 255))
    check_target(tmp_path / ("ü" * 127 + "x"))


def test_only_files_of_one_kind_are_replaceable(tmp_path: Path) -> None:
    (tmp_path / "page.HTML").touch()
    check_replaceable(tmp_path / "page.HTML", ".html")
    check_replaceable(tmp_path / "new.h5", ".html")
    (tmp_path / "set.h5").touch()
    for path in (tmp_path / "set.h5", tmp_path):
        with pytest.raises(UserError, match=r"is no \.html file; choose another name"):
            check_replaceable(path, ".html")


def test_kinds_of_files_are_named() -> None:
    assert not_regular(stat.S_IFREG) == ""
    assert not_regular(stat.S_IFIFO) == "it is a pipe, not a regular file"
    assert not_regular(os.stat("/dev/null").st_mode) == "it is a device, not a regular file"


def test_a_reason_is_one_line() -> None:
    assert reason(OSError(28, "No space left on device")) == "No space left on device"
    assert reason(KeyError("x")) == "x"
    assert reason(ValueError("one\ntwo")) == "one"
    assert reason(ValueError()) == "ValueError"


def test_new_folders_replace_at_most_empty_ones(tmp_path: Path) -> None:
    check_new_folder(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_new_folder(tmp_path / "empty")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path, tmp_path / "dangling", tmp_path / "loop"):
        with pytest.raises(UserError, match="not an empty folder"):
            check_new_folder(path)
