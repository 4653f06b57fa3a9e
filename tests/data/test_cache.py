"""The cache's files: verified whenever they are read, and deleted when they are of no use."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from dsdistill.data import cache
from dsdistill.data.cache import caching, recall, store
from dsdistill.errors import UserError

NAME = "0123456789abcdef" * 2


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    path, told = tmp_path / "deep" / f"{NAME}.json", list[str]()
    assert recall(path, told.append) is None
    assert told == []  # nothing is there, which is no damage
    store(path, b"[1, 2, 3]")
    assert recall(path, told.append) == b"[1, 2, 3]"
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert recall(path, told.append) is None
    for damage in (b"", whole[:-1], whole[1:], whole + b"\0"):
        path.write_bytes(damage)
        assert recall(path, told.append) is None
    assert len(told) == len(whole) + 4
    assert all("damaged" in sentence for sentence in told)


def test_a_pipe_in_place_of_a_file_is_not_opened(tmp_path: Path) -> None:
    path, told = tmp_path / f"{NAME}.json", list[str]()
    os.mkfifo(path)
    assert recall(path, told.append) is None
    assert "it is a pipe" in told[0]
    with pytest.raises(UserError, match="it is a pipe"):
        store(path, b"")


def test_errors_of_the_work_are_not_taken_for_those_of_the_cache(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        with caching(path, verify=lambda written: None):
            raise UserError("cannot read the picture a.png")

    with pytest.raises(UserError, match=r"^cannot read the picture a\.png$"):
        write(tmp_path / f"{NAME}.npy")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write the cache file.*set DSDISTILL_CACHE"):
        write(tmp_path / "file" / f"{NAME}.npy")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_what_is_long_unused_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    old = time.time() - 2 * cache._UNUSED
    ours = [f"{NAME}-3x64.npy", f"{NAME}.json", f"{NAME}.zca", f"{NAME}.safetensors"]
    kept = ["holiday.npy", f"{NAME}.txt", f"x{NAME}.json"]
    for name in (*ours, *kept, f".{NAME}.npy.0a1b2c3d.part"):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (old, old))
    read = tmp_path / f"{NAME[::-1]}.json"
    store(read, b"")
    os.utime(read, (old, old))
    assert recall(read, pytest.fail) == b""  # which is a use
    store(tmp_path / f"{NAME}-1x8.npy", b"")
    assert {entry.name for entry in tmp_path.iterdir()} == {*kept, read.name, f"{NAME}-1x8.npy"}
