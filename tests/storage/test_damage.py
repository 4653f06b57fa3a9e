"""HDF5 files that are refused when read: other files, changed content, flipped bits, truncation."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from dsdistill.errors import UserError
from dsdistill.storage import set_file
from dsdistill.storage.hdf5 import checksum, contents, fixed_text, set_attributes
from dsdistill.synthetic.distilled import DistilledSet
from tests.helpers.storage import make, same

# Refusals ---------------------------------------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        set_file.read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    assert "no file at" in refusal(tmp_path / "absent.h5")
    assert "no file at" in refusal(tmp_path / "no" / "folder.h5")
    assert "Is a directory" in refusal(tmp_path)
    (tmp_path / "empty.h5").write_bytes(b"")
    assert "not an HDF5 file" in refusal(tmp_path / "empty.h5")
    (tmp_path / "text.h5").write_text("hello" * 1000)
    assert "not an HDF5 file" in refusal(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w", userblock_size=512) as file:
        file["images"] = np.zeros(3)
    assert "an HDF5 file, but not a dsdistill one" in refusal(tmp_path / "other.h5")
    with h5py.File(tmp_path / "other.h5", "r+") as file:
        file.attrs["format"] = fixed_text("something else")
    assert "an HDF5 file, but not a dsdistill one" in refusal(tmp_path / "other.h5")


def changed(path: Path, **attributes: str | int | float) -> None:
    """Change attributes of a file and make its checksum right again."""
    with h5py.File(path, "r+") as file:
        for name, value in attributes.items():
            node, _, key = name.rpartition("__")
            set_attributes(file[node or "/"], **{key: value})
        set_attributes(file, sha256=checksum(*contents(file)))


def test_a_newer_version_says_how_to_upgrade(tmp_path: Path) -> None:
    set_file.write(tmp_path / "set.h5", make())
    changed(tmp_path / "set.h5", version=7)
    message = refusal(tmp_path / "set.h5")
    assert "written by a newer dsdistill (format version 7, this one reads 1)" in message
    assert "upgrade dsdistill" in message


def test_pixels_elsewhere_or_nowhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(4 * 4 * 9))
    for name in ("outside", "virtual", "nothing"):
        path = tmp_path / f"{name}.h5"
        set_file.write(path, make())
        with h5py.File(path, "r+") as file:
            del file["images"]
            if name == "outside":
                external = [(str(tmp_path / "raw"), 0, 4 * 4 * 9)]
                file.create_dataset("images", (4, 1, 3, 3), "f4", external=external)
            elif name == "virtual":
                layout = h5py.VirtualLayout((4, 1, 3, 3), "f4")
                layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "images", (4, 1, 3, 3))
                file.create_virtual_dataset("images", layout)
            else:
                file.create_dataset("images", (10**6, 3, 1000, 1000), "u1", chunks=(1, 3, 1000, 1000))
        said = (
            "claims 3e+03 GB, of which next to nothing is there" if name == "nothing" else "outside the file"
        )
        assert said in refusal(path)


def test_a_sound_file_with_unsound_content_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    for change, message in (
        ({"decode__factor": 2}, "mode 'none'"),
        ({"decode__factor": 2, "decode__mode": "up"}, "mode 'up'"),
        ({"decode__factor": 0}, "factor 0"),
        ({"decode__factor": 9, "decode__mode": "single"}, "choose a smaller factor"),
        ({"decode__factor": "x"}, "damaged"),
        ({"decode__mode": 1}, "mode '1'"),
        ({"preprocess__kind": "magic"}, ""),
        ({"images__scale": "x"}, "damaged"),
        ({"version": "one"}, "damaged"),
    ):
        set_file.write(path, make())
        changed(path, **change)
        assert message in refusal(path)
    for name in ("images", "labels", "classes", "preprocess", "decode"):
        set_file.write(path, make())
        with h5py.File(path, "r+") as file:
            del file[name]
        changed(path)
        assert "damaged" in refusal(path)
    for name, array in (
        ("images", np.zeros((12, 3, 8, 8), np.int32)),
        ("labels", np.zeros(12, np.int32)),
        ("labels", np.full(12, 3)),
        ("soft_labels", np.zeros((12, 2), np.float32)),
    ):
        set_file.write(path, make(soft_labels=torch.zeros(12, 3)))
        with h5py.File(path, "r+") as file:
            scale = dict(file[name].attrs)
            del file[name]
            file.create_dataset(name, data=array).attrs.update(scale)
        changed(path)
        refusal(path)


def test_links_out_of_the_file_are_not_followed(tmp_path: Path) -> None:
    set_file.write(tmp_path / "a.h5", make())
    set_file.write(tmp_path / "b.h5", make())
    with h5py.File(tmp_path / "b.h5", "r+") as file:
        del file["images"]
        file["images"] = h5py.ExternalLink(str(tmp_path / "a.h5"), "/images")
    assert "damaged" in refusal(tmp_path / "b.h5")


def test_any_change_to_the_content_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    for change in (
        lambda file: file["images"].write_direct(np.full((12, 3, 8, 8), 0.5, np.float32)),
        lambda file: file["labels"].__setitem__(0, 1),
        lambda file: file["classes"].__setitem__(0, b"other"),
        lambda file: file.attrs.__setitem__("seconds", 1.4),
        lambda file: file.attrs.__setitem__("extra", 1),
        lambda file: file.attrs.__delitem__("method"),
        lambda file: file["preprocess"].create_dataset("extra", data=1.0),
    ):
        set_file.write(path, make())
        with h5py.File(path, "r+") as file:
            change(file)
        assert "does not match its checksum" in refusal(path)


# Damage -----------------------------------------------------------------------------------------------------


def outcome(path: Path, data: bytes, original: DistilledSet) -> str:
    """Read damaged bytes: refused, or equal to the last bit; anything else fails the test."""
    path.write_bytes(data)
    try:
        found = set_file.read(path)
    except UserError as error:
        return "refused" if "\n" not in str(error) else f"refused in several lines: {error}"
    assert same(found, original)
    return "equal"


def test_flipped_bits_never_go_unnoticed(tmp_path: Path) -> None:
    distilled = make(
        count=2, size=16, soft_labels=torch.ones(6, 3), attributes={"method": "dm", "config": "x" * 99}
    )
    set_file.write(tmp_path / "set.h5", distilled)
    set_file.append_result(tmp_path / "set.h5", {"mean": 0.5})
    data = (tmp_path / "set.h5").read_bytes()
    found = []
    for i, place in enumerate(np.linspace(0, len(data) - 1, 400).astype(int)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (i % 8)
        found.append(outcome(tmp_path / "damaged.h5", bytes(damaged), distilled))
        with contextlib.suppress(UserError):
            assert set_file.results(tmp_path / "damaged.h5") == [{"mean": 0.5}]
    assert set(found) <= {"refused", "equal"}
    assert found.count("refused") > 200  # most of the file is content


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    distilled = make(count=2, size=16)
    set_file.write(tmp_path / "set.h5", distilled)
    data = (tmp_path / "set.h5").read_bytes()
    for length in [*np.linspace(0, len(data) - 1, 100).astype(int), *range(0, 96, 5)]:
        assert outcome(tmp_path / "damaged.h5", data[:length], distilled) == "refused"


def test_lost_sectors_never_go_unnoticed(tmp_path: Path) -> None:
    distilled = make(count=2, size=16)
    set_file.write(tmp_path / "set.h5", distilled)
    data = (tmp_path / "set.h5").read_bytes()
    for start in range(0, len(data), 512):
        found = outcome(tmp_path / "damaged.h5", data[:start] + bytes(512) + data[start + 512 :], distilled)
        assert found in ("refused", "equal")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_file.write(tmp_path / "set.h5", make())

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (
        lambda: set_file.write(tmp_path / "set.h5", make(classes=("x", "y", "z"))),
        lambda: set_file.append_result(tmp_path / "set.h5", {"mean": 1}),
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
    set_file.append_result(tmp_path / "link.h5", {"mean": 1})
    assert (tmp_path / "link.h5").is_symlink()
    assert len(set_file.load(tmp_path / "real" / "set.h5")) == 3
    assert set_file.results(tmp_path / "real" / "set.h5") == [{"mean": 1}]
