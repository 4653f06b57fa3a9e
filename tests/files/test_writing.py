"""Files are written whole or not at all; what a kill leaves is swept, and nothing else."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path
from typing import BinaryIO

import pytest

from dsdistill import files
from dsdistill.errors import UserError
from dsdistill.files import writing
from tests.helpers.faults import ERRORS, Fault, failing
from tests.helpers.processes import started
from tests.helpers.special_files import SPECIAL


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# One file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 5, writing._BLOCK, 2 * writing._BLOCK + 1])
def test_bytes_are_written(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    for content in (data, memoryview(data), memoryview(bytearray(data))):
        files.replace(tmp_path / "a", content)
        assert (tmp_path / "a").read_bytes() == data
    files.replace(tmp_path / "a", data, b"", memoryview(b"end"))
    assert (tmp_path / "a").read_bytes() == data + b"end"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["x" * 240, "x" * 255, "ü" * 127])
def test_long_names_are_written(tmp_path: Path, name: str) -> None:
    files.replace(tmp_path / name, b"one")
    files.replace(tmp_path / name, b"two")
    assert (tmp_path / name).read_bytes() == b"two"
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o666, 0o2755])
def test_permissions_are_kept(tmp_path: Path, mode: int) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "a").chmod(mode)
    files.replace(tmp_path / "a", b"new")
    assert (tmp_path / "a").stat().st_mode & 0o7777 == mode


def test_a_private_file_is_private_while_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "a").touch(0o600)
    with files.replacing(tmp_path / "a") as file:
        assert os.fstat(file.fileno()).st_mode & 0o777 == 0o600


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="only root may give a file away")
def test_the_owner_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    os.chown(tmp_path / "a", 12345, 54321)
    files.replace(tmp_path / "a", b"new")
    found = (tmp_path / "a").stat()
    assert (found.st_uid, found.st_gid) == (12345, 54321)


def test_a_link_remains_a_link(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "a").symlink_to("below/b")
    for content in (b"one", b"two"):
        files.replace(tmp_path / "a", content)
        assert (tmp_path / "a").is_symlink()
        assert (tmp_path / "below/b").read_bytes() == content
    assert (names(tmp_path), names(tmp_path / "below")) == (["a", "below"], ["b"])


@pytest.mark.parametrize("kind", SPECIAL)
def test_nothing_but_a_regular_file_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    SPECIAL[kind](tmp_path / "a")
    before = os.lstat(tmp_path / "a")
    with pytest.raises(UserError, match="cannot write"):
        files.replace(tmp_path / "a", b"new")
    assert os.path.samestat(os.lstat(tmp_path / "a"), before)
    assert names(tmp_path) == ["a"]


def test_a_write_protected_file_stays(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(0o444)
    with pytest.raises(UserError, match=r"is write-protected; .* chmod u\+w"):
        files.replace(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), UserError("it is another set")])
def test_a_failing_verification_leaves_the_old_file(tmp_path: Path, error: Exception) -> None:
    (tmp_path / "a").write_bytes(b"old")
    seen = []

    def verify(written: BinaryIO) -> None:
        seen.append(written.read())
        raise error

    refused = pytest.raises(UserError, match=r"Input/output error|another set")
    with refused, files.replacing(tmp_path / "a", verify) as file:
        file.write(b"new")
    assert seen == [b"new"]
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("change", [b"nev", b"ne", b"news"])
def test_a_disk_that_changes_bytes_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: bytes
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(writing, "_forget", lambda file: Path(file.name).write_bytes(change))
    for write in (files.replace, files.write_new):
        with pytest.raises(UserError, match="it reads back otherwise than it was written"):
            write(tmp_path / ("a" if write is files.replace else "b"), b"new")
    with pytest.raises(UserError, match="it reads back otherwise"):
        files.replace(tmp_path / "a", b"ne", b"w")
    assert (tmp_path / "a").read_bytes() == b"old"


def test_an_error_of_the_block_is_passed_on(tmp_path: Path) -> None:
    def failing() -> None:
        with files.replacing(tmp_path / "a") as file:
            file.write(b"new")
            raise LookupError

    with pytest.raises(LookupError):
        failing()
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("lasts", [False, True])
def test_an_error_of_any_operation_leaves_the_old_content_or_the_new(
    tmp_path: Path, name: str, lasts: bool
) -> None:
    path, outcomes = tmp_path / "a", list[tuple[bool, bytes]]()
    for at in itertools.count(1):
        path.write_bytes(b"old")
        fault, said = Fault(at, failing(ERRORS[name]), lasts), ""
        with pytest.MonkeyPatch.context() as patch:
            fault.install(patch)
            try:
                files.replace(path, b"new")
            except UserError as error:
                said = str(error)
        assert not said or os.strerror(ERRORS[name]) in said
        outcomes.append((bool(said), path.read_bytes()))
        if not lasts:  # else what is left cannot be deleted either
            assert names(tmp_path) == ["a"]
        if at > fault.count:
            break
    assert len(outcomes) > 8
    assert (False, b"old") not in outcomes
    assert outcomes[0] in [(True, b"old"), (False, b"new")]
    assert outcomes[-1] == (False, b"new")


# Folders ----------------------------------------------------------------------------------------------------


def test_a_folder_appears_with_all_its_files(tmp_path: Path) -> None:
    with files.new_folder(tmp_path / "out") as part:
        files.make_folder(part / "below")
        files.write_new(part / "below" / "a", b"content")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out/below/a").read_bytes() == b"content"
    assert names(tmp_path) == ["out"]


def test_a_folder_that_fails_does_not_appear(tmp_path: Path) -> None:
    def failing() -> None:
        with files.new_folder(tmp_path / "out") as part:
            files.write_new(part / "a", b"content")
            files.write_new(part / "a", b"again")

    with pytest.raises(UserError, match="cannot write"):
        failing()
    assert names(tmp_path) == []


def test_a_folder_replaces_only_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with files.new_folder(tmp_path / "empty") as part:
        files.write_new(part / "a", b"content")
    assert names(tmp_path / "empty") == ["a"]
    with pytest.raises(UserError, match="is not an empty folder"), files.new_folder(tmp_path / "empty"):
        pass


def test_folders_are_made_with_those_above_them(tmp_path: Path) -> None:
    for _ in range(2):
        files.make_folder(tmp_path / "a/b/c", parents=True)
    assert (tmp_path / "a/b/c").is_dir()
    with pytest.raises(UserError, match="does not exist; make it first"):
        files.make_folder(tmp_path / "x/y")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file, not a folder"):
        files.make_folder(tmp_path / "file")


def test_files_and_folders_are_removed_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to("kept")
    (tmp_path / "folder/below").mkdir(parents=True)
    (tmp_path / "file").touch()
    for name in ("link", "folder", "file", "gone"):
        files.remove(tmp_path / name)
    assert names(tmp_path) == ["kept"]


def test_a_folder_of_temporary_files_is_empty(tmp_path: Path) -> None:
    assert files.is_empty(tmp_path)
    (tmp_path / ".config.toml.0a1b2c3d.part").touch()
    assert files.is_empty(tmp_path)
    (tmp_path / "config.toml").touch()
    assert not files.is_empty(tmp_path)
    with pytest.raises(UserError, match="cannot read"):
        files.is_empty(tmp_path / "config.toml")


# What a kill leaves -----------------------------------------------------------------------------------------

WRITING = """
import sys
from dsdistill import files
with files.replacing(sys.argv[1]) as file:
    file.write(bytes(1000))
    file.flush()
    print("started", flush=True)
    sys.stdin.read()
"""


def test_what_a_kill_leaves_is_swept_and_what_a_living_process_writes_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    path.write_bytes(b"old")
    with started(WRITING, path) as process:
        assert files.sweep(path) == 0
        assert len(names(tmp_path)) == 2
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert path.read_bytes() == b"old"
        assert len(names(tmp_path)) == 2
        assert files.sweep(path) == 1000
    assert names(tmp_path) == ["set.h5"]


LEFT = ".set.h5.0a1b2c3d.part"


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        (LEFT, False),
        (".other.h5.0a1b2c3d.part", True),
        (".my.set.h5.0a1b2c3d.part", True),
        (".set.h5.part", True),
        (".set.h5.0a1b2c3.part", True),
        (".set.h5.0A1B2C3D.part", True),
        ("set.h5.0a1b2c3d.part", True),
        (".set.h5.0a1b2c3d.part.gz", True),
    ],
)
def test_only_leftovers_of_the_output_are_swept(tmp_path: Path, name: str, kept: bool) -> None:
    (tmp_path / name).touch()
    files.sweep(tmp_path / "set.h5")
    assert names(tmp_path) == [name] * kept


def test_a_folder_is_swept_of_all_leftovers_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "set.run"
    (folder / "below").mkdir(parents=True)
    for path in (folder / LEFT, folder / ".x.0a1b2c3d.part", folder / "below" / LEFT, folder / "x"):
        path.touch()
    (tmp_path / ".set.run.0a1b2c3d.part").mkdir()
    (tmp_path / LEFT).touch()
    files.sweep(folder)
    assert (names(tmp_path), names(folder), names(folder / "below")) == (
        [LEFT, "set.run"],
        ["below", "x"],
        [LEFT],
    )


def test_a_link_with_the_name_of_a_leftover_is_kept(tmp_path: Path) -> None:
    (tmp_path / LEFT).symlink_to("elsewhere")
    files.sweep(tmp_path / "set.h5")
    assert names(tmp_path) == [LEFT]


def test_a_temporary_file_that_is_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, calls = writing.try_lock, list[int]()

    def swept(handle: int) -> bool:
        calls.append(handle)
        if len(calls) == 1:
            files.sweep(tmp_path / "a")
        return lock(handle)

    monkeypatch.setattr(writing, "try_lock", swept)
    files.replace(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_temporary_names_are_told_from_others() -> None:
    assert writing.is_temporary(".a.0123abcd.part")
    assert not any(map(writing.is_temporary, (".part", ".0123abcd.part", "a.part", "a.0123abcd.part")))
