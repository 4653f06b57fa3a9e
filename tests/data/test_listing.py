"""Listing pictures: links, hidden folders, files that are no pictures, and what a list's digest covers."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dsdistill.data.listing import Listing, list_classes
from dsdistill.errors import UserError
from tests.helpers.data import class_folders, fails, pixels, save

pytestmark = pytest.mark.usefixtures("data_home")


def listed(root: Path) -> Listing:
    return list_classes(root, "pets", "train")


def names(listing: Listing, root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in listing.paths]


def test_a_real_folder_is_read_once_whatever_links_lead_to_it(tmp_path: Path) -> None:
    pets = class_folders(tmp_path / "pets", per_class=2)
    before = names(listed(pets), pets)
    class_folders(tmp_path / "elsewhere", per_class=1, classes=("a", "b"))
    (pets / "cat" / "inner").mkdir()
    links = {
        "up": pets,
        "far up": tmp_path,
        "self": pets / "cat",
        "loop": pets / "cat" / "inner",
        "inner/back": pets / "cat",
        "more": tmp_path / "elsewhere",
        "more of it": tmp_path / "elsewhere" / "a",
    }
    for name, target in links.items():
        (pets / "cat" / name).symlink_to(target)
    found = listed(pets)
    more = ["cat/more/a/0.png", "cat/more/b/0.png"]
    assert names(found, pets) == before[:2] + more + before[2:]
    assert found.notices == ("pets (train): 6 links not followed, to folders that are read anyway",)


def test_a_class_that_links_to_another_or_around_it_is_refused(tmp_path: Path) -> None:
    pets = class_folders(tmp_path / "pets")
    (pets / "kitten").symlink_to(pets / "cat")
    fails("'cat' and 'kitten' of .* are one folder", f"folder:{pets}")
    (pets / "kitten").unlink()
    (pets / "all").symlink_to(pets)
    fails("class folder .*all holds no pictures .1 link", f"folder:{pets}")


def test_links_to_pictures_and_to_class_folders_are_followed(tmp_path: Path) -> None:
    stock = class_folders(tmp_path / "stock", per_class=3)
    pets = tmp_path / "pets"
    (pets / "dog").mkdir(parents=True)
    (pets / "cat").symlink_to(stock / "cat")
    (pets / "dog" / "rex.png").symlink_to(stock / "dog" / "0.png")
    assert names(listed(pets), pets) == ["cat/0.png", "cat/1.png", "cat/2.png", "dog/rex.png"]


def test_hidden_folders_and_those_of_a_system_are_passed_over(tmp_path: Path) -> None:
    pets = class_folders(tmp_path / "pets", per_class=1)
    for hidden in (".ipynb_checkpoints", "__MACOSX", ".git/deep", "@eaDir"):
        save(pets / "cat" / hidden / "0.png", pixels(8, 8))
        save(pets / hidden / "0.png", pixels(8, 8))
    save(pets / "cat" / "._0.png", pixels(8, 8))
    found = listed(pets)
    assert names(found, pets) == ["cat/0.png", "dog/0.png"]
    assert (found.classes, found.notices) == (("cat", "dog"), ())


def test_what_is_skipped_is_counted_and_named(tmp_path: Path) -> None:
    pets = class_folders(tmp_path / "pets", per_class=1)
    for name in ("a.txt", "b.TXT", "c.heic", "d", "e.\x1b[31m", "Thumbs.db", "desktop.ini", "README.md"):
        (pets / "cat" / name).write_text("")
    save(pets / "stray.png", pixels(8, 8))
    (pets / "labels.csv").write_text("")
    assert listed(pets).notices == (
        "pets (train): 5 files skipped: 2 .txt, 2 of another kind, 1 .heic; "
        "1 picture beside the class folders left out",
    )
    for path in (pets / "dog").iterdir():
        path.rename(path.with_suffix(".heic"))
    fails("dog holds no pictures .1 file skipped: 1 .heic.; add some", f"folder:{pets}")


def test_pipes_and_sockets_among_pictures_are_counted_and_never_opened(tmp_path: Path) -> None:
    pets = class_folders(tmp_path / "pets", per_class=1)
    os.mkfifo(pets / "cat" / "pipe.png")
    (pets / "cat" / "linked.png").symlink_to(pets / "cat" / "pipe.png")
    (pets / "cat" / "null.jpg").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(pets / "cat")  # a socket's path is short
        try:
            server.bind("socket.gif")
        finally:
            os.chdir(here)
    found = listed(pets)
    assert names(found, pets) == ["cat/0.png", "dog/0.png"]
    assert found.notices == ("pets (train): 4 files skipped: 4 pipe or device",)


def test_a_link_to_itself_is_named(tmp_path: Path) -> None:
    pets = class_folders(tmp_path / "pets")
    (pets / "cat" / "loop.png").symlink_to("loop.png")
    fails("cannot read .*loop.png .Too many levels", f"folder:{pets}", test_fraction=0.01)


def edit(path: Path) -> None:
    """Write other bytes of the same length."""
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def swap(path: Path) -> None:
    """Put another file of the same length in place."""
    other = path.with_name("other")
    shutil.copy(path, other)
    edit(other)
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    os.replace(other, path)


@pytest.mark.parametrize("change", [edit, swap])
def test_a_picture_replaced_with_its_size_and_time_kept_makes_another_list(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    pets = class_folders(tmp_path / "pets")
    path = pets / "cat" / "0.png"
    stat, before = path.stat(), listed(pets).digest
    time.sleep(0.02)  # the clock of file systems ticks
    change(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert listed(pets).digest != before


def test_an_unreadable_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pets = class_folders(tmp_path / "pets")
    scan = os.scandir

    def refuse(folder: Path) -> object:
        if Path(folder).name == "dog":
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"cannot read the folder .*dog .Permission denied"):
        listed(pets)
