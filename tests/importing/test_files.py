"""Files of tensors: what they hold, and that no file runs code or takes more memory than it has bytes."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dsdistill.errors import UserError
from dsdistill.importing.files import read_file
from tests.helpers.imports import saved


def test_each_kind_of_file_gives_equal_tensors(tmp_path: Path) -> None:
    images, labels = torch.rand(4, 1, 2, 2), torch.arange(4)
    arrays = {"images": images.numpy(), "labels": labels.numpy()}
    saved(tmp_path / "a.pt", {"images": images, "labels": labels})
    np.savez(tmp_path / "a.npz", **arrays)
    save_file({"images": images, "labels": labels}, tmp_path / "a.safetensors")
    for name in ("a.pt", "a.npz", "a.safetensors"):
        content = read_file(tmp_path / name)
        assert torch.equal(content["images"], images)
        assert torch.equal(content["labels"], labels)
    np.save(tmp_path / "a.npy", images.numpy().astype(">f4"))
    assert torch.equal(read_file(tmp_path / "a.npy"), images)
    torch.save(images, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(read_file(tmp_path / "old.pt"), images)
    np.save(tmp_path / "wide.npy", np.arange(3, dtype=np.uint16))
    assert read_file(tmp_path / "wide.npy").tolist() == [0, 1, 2]


def test_single_numbers_of_numpy_are_read(tmp_path: Path) -> None:
    content = {"accuracies": {"ConvNet": [np.float64(0.5), np.float32(0.25)]}, "images": torch.zeros(2)}
    assert read_file(saved(tmp_path / "a.pt", content))["accuracies"] == {"ConvNet": [0.5, 0.25]}


class _Code:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.marker,))


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    saved(tmp_path / "a.pt", {"images": torch.zeros(1), "more": _Code(marker)})
    (tmp_path / "b.pt").write_bytes(pickle.dumps(_Code(marker)))
    np.save(tmp_path / "c.npy", np.array([_Code(marker)], dtype=object))
    for name, match in (
        ("a.pt", "could run code; where you trust it"),
        ("b.pt", "run code|cannot read"),
        ("c.npy", "cannot read"),
    ):
        with pytest.raises(UserError, match=match) as caught:
            read_file(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not marker.exists()


def test_a_file_cannot_claim_more_than_it_holds(tmp_path: Path) -> None:
    saved(tmp_path / "a.pt", torch.zeros(1 << 20))
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as stored,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in stored.namelist():
            archive.writestr(name, stored.read(name))
    (tmp_path / "packed.pt").write_bytes(packed.getvalue())
    with pytest.raises(UserError, match=r"compressed, which torch\.save does not do"):
        read_file(tmp_path / "packed.pt")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)}
    )
    (tmp_path / "hollow.npy").write_bytes(header.getvalue())
    with pytest.raises(UserError, match=r"cannot read .*hollow\.npy|does not fit into memory"):
        read_file(tmp_path / "hollow.npy")


@pytest.mark.parametrize("suffix", [".pt", ".npy", ".npz", ".safetensors"])
def test_damage_is_told_in_one_line(tmp_path: Path, suffix: str) -> None:
    for number, data in enumerate((b"", b"PK\x03\x04 no zip", b"\x80\x02 no pickle", bytes(range(256)) * 8)):
        path = tmp_path / f"{number}{suffix}"
        path.write_bytes(data)
        with pytest.raises(UserError) as caught:
            read_file(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file at"):
        read_file(tmp_path / "absent.pt")
    with pytest.raises(UserError, match=r"known suffixes: \.pt"):
        read_file(tmp_path / "a.mat")
    (tmp_path / "a.pt").mkdir()
    with pytest.raises(UserError, match="a folder"):
        read_file(tmp_path / "a.pt")
    np.save(tmp_path / "a.npy", np.zeros(3, dtype=np.complex64))
    with pytest.raises(UserError, match="holds complex64"):
        read_file(tmp_path / "a.npy")
