"""Opening HDF5 files: other files and versions are refused, and damage never goes unnoticed."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from dsdistill.errors import UserError
from dsdistill.storage import set_file, set_results
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.storage.hdf5 import LAYOUT, check_suffix, fixed_text, set_attributes
from dsdistill.storage.structure import LONGEST
from dsdistill.synthetic.distilled import DistilledSet
from tests.helpers.expert_files import refused
from tests.helpers.storage import changed, make, refusal, same


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    assert "no file at" in refusal(tmp_path / "absent.h5")
    assert "no file at" in refusal(tmp_path / "no" / "folder.h5")
    assert "it is a folder" in refusal(tmp_path)
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


def test_a_newer_version_says_how_to_upgrade(tmp_path: Path) -> None:
    set_file.write(tmp_path / "set.h5", make())
    changed(tmp_path / "set.h5", version=7)
    message = refusal(tmp_path / "set.h5")
    assert "written by a newer dsdistill (format version 7, this one reads 5)" in message
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


def test_links_out_of_the_file_are_not_followed(tmp_path: Path) -> None:
    set_file.write(tmp_path / "a.h5", make())
    set_file.write(tmp_path / "b.h5", make())
    with h5py.File(tmp_path / "b.h5", "r+") as file:
        del file["images"]
        file["images"] = h5py.ExternalLink(str(tmp_path / "a.h5"), "/images")
    assert "damaged" in refusal(tmp_path / "b.h5")


def test_chunks_are_an_image_or_256_kilobytes(tmp_path: Path) -> None:
    for size, rows in ((8, 12), (64, 5), (160, 1)):
        set_file.write(tmp_path / "set.h5", make(size=size))
        with h5py.File(tmp_path / "set.h5") as file:
            assert file["images"].chunks == (rows, 3, size, size)


def test_checksum_is_as_documented(tmp_path: Path) -> None:
    set_file.write(tmp_path / "set.h5", make(soft_labels=torch.ones(12, 3)), "float16")
    digest = hashlib.sha256()
    with h5py.File(tmp_path / "set.h5") as file:
        for path in sorted(
            ["images", "labels", "soft_labels", "classes", *(f"preprocess/{n}" for n in file["preprocess"])]
        ):
            array = file[path][()]
            digest.update(
                json.dumps([path, list(array.shape), array.dtype.str]).encode() + b"\n" + array.tobytes()
            )
        attributes = {
            "@format": "dsdistill",
            "@version": 1,
            "@method": "dm",
            "@seed": 3,
            "@seconds": 1.5,
            "decode@factor": 1,
            "decode@mode": "none",
            "images@scale": 1.0,
            "preprocess@kind": "standardise",
        }
        for key in sorted(attributes):
            digest.update(json.dumps([key, attributes[key]]).encode() + b"\n")
        assert file.attrs["sha256"].decode() == digest.hexdigest()


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


def outcome(path: Path, data: bytes, original: DistilledSet) -> str:
    """Read damaged bytes: refused, or equal to the last bit; anything else fails the test."""
    path.write_bytes(data)
    try:
        found = set_file.read(path)
    except UserError as error:
        return "refused" if "\n" not in str(error) else f"refused in several lines: {error}"
    assert same(found, original)
    return "equal"


@pytest.mark.slow
def test_flipped_bits_never_go_unnoticed(tmp_path: Path) -> None:
    distilled = make(
        count=2, size=16, soft_labels=torch.ones(6, 3), attributes={"method": "dm", "config": "x" * 99}
    )
    set_file.write(tmp_path / "set.h5", distilled)
    set_results.append_result(tmp_path / "set.h5", {"mean": 0.5})
    data = (tmp_path / "set.h5").read_bytes()
    found = []
    for i, place in enumerate(np.linspace(0, len(data) - 1, 400).astype(int)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << (i % 8)
        found.append(outcome(tmp_path / "damaged.h5", bytes(damaged), distilled))
        with contextlib.suppress(UserError):
            assert set_results.results(tmp_path / "damaged.h5") == [{"mean": 0.5}]
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


def test_no_file_and_foreign_files(tmp_path: Path, finished: Path) -> None:
    refused(lambda: ExpertFile.open(tmp_path / "none.h5"), "no file at")
    (tmp_path / "text.h5").write_text("no weights")
    refused(lambda: ExpertFile.open(tmp_path / "text.h5"), "not an HDF5 file")
    refused(lambda: ExpertFile.open(finished), "holds no experts")
    refused(lambda: ExpertFile.open(tmp_path), "cannot read")


@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_a_truncated_file(pool: Path, share: float) -> None:
    data = pool.read_bytes()
    pool.write_bytes(data[: int(share * len(data))])
    refused(lambda: ExpertFile.open(pool), "damaged")


def test_a_newer_version(pool: Path) -> None:
    with h5py.File(pool, "r+", libver=LAYOUT) as file:
        del file.attrs["version"]
        set_attributes(file, version=9)
    refused(lambda: ExpertFile.open(pool), "newer dsdistill", "9")


def test_a_distilled_set_is_not_one(shared: Path) -> None:
    refused(lambda: set_file.read(shared), "holds experts, not a distilled set")


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 1001, "猫" * 334])
def test_names_that_a_file_cannot_hold_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"a class name (holds a character that HDF5|takes 1,00)"):
        set_file.write(tmp_path / "set.h5", make(classes=("a", "b", name)))
    assert not list(tmp_path.iterdir())


def test_long_texts_are_refused_where_a_file_cannot_hold_them(tmp_path: Path) -> None:
    longest = "x" * (1 << 20)
    set_file.write(tmp_path / "set.h5", make(classes=("", "b", "x" * 1000), attributes={"config": longest}))
    assert set_file.read(tmp_path / "set.h5").attributes["config"] == longest
    with pytest.raises(UserError, match="attribute 'config' takes 16,777,217 bytes"):
        set_file.check_storable([], {"config": "x" * (LONGEST + 1)})


@pytest.mark.parametrize("suffix", [".pt", ".PNG", ".npz", ".json"])
def test_outputs_named_like_other_formats_are_refused(suffix: str) -> None:
    with pytest.raises(UserError, match=rf"the output is HDF5, not a {suffix.lower()} file: name it set\.h5"):
        check_suffix(f"a/set{suffix}")
    for name in ("set.h5", "set.hdf5", "set", "set.v2"):
        check_suffix(name)
