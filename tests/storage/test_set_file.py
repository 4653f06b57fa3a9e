"""Files of sets: what is written and loaded, and writing that fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dsdistill.errors import UserError
from dsdistill.storage import set_file, set_results
from tests.helpers.labels import with_views
from tests.helpers.storage import make, same


def test_pixels_that_are_viewed_are_stored_as_they_are(tmp_path: Path) -> None:
    for dtype in ("uint8", "float16"):
        with pytest.raises(UserError, match=f"{dtype} changes the pixels, and a teacher has"):
            set_file.write(tmp_path / "set.h5", with_views(), dtype)
    assert list(tmp_path.iterdir()) == []


def test_views_are_loaded_in_place_of_images(tmp_path: Path) -> None:
    path, labelled = tmp_path / "set.h5", with_views()
    set_file.write(path, labelled)
    dataset = set_file.load(path, views=True)
    assert [len(images) for images, _ in dataset] == [5, 5, 2] * 3  # type: ignore[attr-defined]
    assert len(set_file.load(path)) == 12
    with pytest.raises(UserError, match="leave space, labels, decode and ipc out"):
        set_file.load(path, "unit", views=True)


def test_check_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_file.check_writable(tmp_path / "set.h5")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.chdir(tmp_path)
    set_file.check_writable("set.h5")

    for path, message in (
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "set.h5", "mkdir -p"),
        ("/proc/set.h5", "cannot write in /proc"),
    ):
        with pytest.raises(UserError, match=message):
            set_file.check_writable(path)

    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="would not be replaced"):
        set_file.check_writable(tmp_path / "thesis.txt", overwrite=True)
    with pytest.raises(UserError, match="is a file"):
        set_file.check_writable(tmp_path / "thesis.txt" / "set.h5")
    with pytest.raises(UserError, match="is a file"):
        set_file.write(tmp_path / "thesis.txt" / "set.h5", make())

    set_file.write(tmp_path / "set.h5", make())
    set_file.check_writable(tmp_path / "set.h5", overwrite=True)
    with pytest.raises(UserError, match="exists; choose another name"):
        set_file.check_writable(tmp_path / "set.h5", overwrite=False)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_file.write(tmp_path / "set.h5", make())

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (
        lambda: set_file.write(tmp_path / "set.h5", make(classes=("x", "y", "z"))),
        lambda: set_results.append_result(tmp_path / "set.h5", {"mean": 1}),
    ):
        with pytest.raises(UserError, match=r"cannot write .*set.h5: No space left on device$"):
            write()
    assert same(set_file.read(tmp_path / "set.h5"), make())
    assert [file.name for file in tmp_path.iterdir()] == ["set.h5"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    set_file.write(tmp_path / "real" / "set.h5", make())
    (tmp_path / "link.h5").symlink_to(tmp_path / "real" / "set.h5")
    set_file.write(tmp_path / "link.h5", make(count=1))
    set_results.append_result(tmp_path / "link.h5", {"mean": 1})
    assert (tmp_path / "link.h5").is_symlink()
    assert len(set_file.load(tmp_path / "real" / "set.h5")) == 3
    assert set_results.results(tmp_path / "real" / "set.h5") == [{"mean": 1}]


def test_what_is_replaced_passes_on_its_permissions_and_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    set_file.write(path, make())
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 12345, 23456)
    before = path.stat()
    for change in (
        lambda: set_file.write(path, make()),
        lambda: set_results.append_result(path, {"mean": 1.0}),
    ):
        change()
        now = path.stat()
        assert (now.st_mode, now.st_uid, now.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
