"""Lists of many files are kept, and taken for what they were until something changes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dsdistill.data import file_index, listing
from dsdistill.data.catalog import load
from dsdistill.data.config import DataConfig
from dsdistill.data.listing import Listing, list_classes
from tests.helpers.callbacks import Told
from tests.helpers.data import class_folders, pixels, save

OLD = 10**9
"""Nanoseconds: folders that changed so long ago are relied on."""


@pytest.fixture
def pets(tmp_path: Path, data_home: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(file_index, "MANY", 12)
    monkeypatch.setattr(file_index, "_SETTLED_NS", 0)
    root = class_folders(tmp_path / "pets")
    save(root / "dog" / "more" / "rex.png", pixels(8, 8, 3))
    (root / "cat" / "notes.txt").write_text("")
    return root


def listed(root: Path) -> Listing:
    return list_classes(root, "pets", "train")


def forbid_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("looked into a folder")

    monkeypatch.setattr(listing, "_Walk", forbidden)


def test_a_kept_list_is_the_one_that_was_found(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(file_index, "MANY", 100)
        plain = listed(pets)  # not kept
    first = listed(pets)
    forbid_looking(monkeypatch)
    again = listed(pets)
    for each in (first, again):
        assert list(each.paths) == list(plain.paths)
        assert each.paths[2:5] == list(plain.paths[2:5])
        assert each.labels.tolist() == plain.labels.tolist()
        assert (each.classes, each.notices, each.digest) == (plain.classes, plain.notices, plain.digest)
        positions = each.labels.argsort(descending=True)[:7]
        assert each.part("test", positions).digest == plain.part("test", positions).digest
        assert list(each.part("test", positions).paths) == list(plain.part("test", positions).paths)


def add(root: Path) -> None:
    save(root / "cat" / "new.png", pixels(8, 8, 3))


def add_in_a_deeper_folder(root: Path) -> None:
    save(root / "dog" / "more" / "new.png", pixels(8, 8, 3))


def add_a_class(root: Path) -> None:
    save(root / "emu" / "new.png", pixels(8, 8, 3))


def delete(root: Path) -> None:
    (root / "cat" / "0.png").unlink()


def replace(root: Path) -> None:
    save(root / "new.png", pixels(8, 8, 3, seed=9))
    os.replace(root / "new.png", root / "cat" / "3.png")


def rename(root: Path) -> None:
    (root / "cat" / "0.png").rename(root / "cat" / "00.png")


def edit_all(root: Path) -> None:
    for path in (root / "cat").glob("*.png"):
        path.write_bytes(path.read_bytes() + b" ")


def copy_of_the_class(root: Path) -> None:
    shutil.copytree(root / "cat", root / "copy")
    shutil.rmtree(root / "cat")
    (root / "copy").rename(root / "cat")


@pytest.mark.parametrize(
    "change",
    [add, add_in_a_deeper_folder, add_a_class, delete, replace, rename, edit_all, copy_of_the_class],
)
def test_a_change_is_noticed(pets: Path, change: Callable[[Path], None]) -> None:
    before = listed(pets).digest
    assert listed(pets).digest == before
    change(pets)
    after = listed(pets)
    assert after.digest != before
    assert after.digest == listed(pets).digest


def test_a_library_that_reads_other_pictures_lists_anew(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed(pets)
    monkeypatch.setattr(file_index, "suffixes", lambda: frozenset({".new"}))
    forbid_looking(monkeypatch)
    with pytest.raises(AssertionError, match="looked into a folder"):
        listed(pets)


def test_a_folder_that_changed_just_now_is_not_relied_on(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_index, "_SETTLED_NS", 3600 * OLD)
    listed(pets)
    assert not list((tmp_path / "cache").rglob("*.index"))


def test_a_damaged_list_is_made_anew(pets: Path, tmp_path: Path) -> None:
    before = listed(pets).digest
    (kept,) = (tmp_path / "cache").rglob("*.index")
    whole = kept.read_bytes()
    for damage in (b"", whole[:-1], whole[:40], bytes([whole[0] ^ 1]) + whole[1:], whole[:-40] + b"x" * 40):
        kept.write_bytes(damage)
        assert listed(pets).digest == before
        assert kept.read_bytes() == whole


def test_a_second_opening_looks_at_no_file(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DataConfig(name=f"folder:{pets}")
    before = load(config, "train")[1]
    forbid_looking(monkeypatch)
    after = load(config, "train")[1]
    assert after.fingerprint == before.fingerprint
    assert len(load(config, "test")[1]) + len(after) == 13


def test_many_files_and_classes_are_listed_with_progress(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_MANY_CLASSES", 2)
    monkeypatch.setattr(file_index, "_REPORTED", 5)
    reports: list[tuple[str, int, int]] = []
    load(DataConfig(name=f"folder:{pets}"), "train", Told(read=lambda *each: reports.append(each)))
    name = f"folder:{pets}"
    assert [each for each in reports if "listing" in each[0]] == [
        (f"{name}: listing the classes of train", 1, 2),
        (f"{name}: listing the classes of train", 2, 2),
    ]
    assert [done for what, done, _ in reports if "looking" in what] == [0, 5, 10, 13]
