"""Checks before the work that its result can be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsdistill.errors import UserError
from dsdistill.files import check_new_folder, check_replaceable, check_target


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set.h5").symlink_to("set.h5")
    (tmp_path / "report.json").symlink_to("report.json")
    with pytest.raises(UserError, match=r"set\.h5: Too many levels"):
        check_target(tmp_path / "set.h5")
    with pytest.raises(UserError, match=r"report\.json: Too many levels"):
        check_replaceable(tmp_path / "report.json", ".json")
    with pytest.raises(UserError, match="not an empty folder"):
        check_new_folder(tmp_path / "set.h5")


@pytest.mark.parametrize("length", [255, 256])
def test_long_names_are_refused_where_they_cannot_be(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("x" * (length - 3) + ".h5")
    if length <= 255:
        check_target(path)
        return
    with pytest.raises(UserError, match="too long for the file system"):
        check_target(path)


def test_write_protected_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    path.touch(0o600)
    check_target(path)
    path.chmod(0o444)  # root could write it, and should not
    with pytest.raises(UserError, match=r"is write-protected; .* chmod u\+w"):
        check_target(path)


def test_new_folders_replace_at_most_empty_ones(tmp_path: Path) -> None:
    check_new_folder(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_new_folder(tmp_path / "empty")
    with pytest.raises(UserError, match="not an empty folder"):
        check_new_folder(tmp_path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="not an empty folder"):
        check_new_folder(tmp_path / "dangling")
