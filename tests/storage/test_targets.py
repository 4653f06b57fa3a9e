"""Targets, and sets without labels, in the file of a set."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import pytest
import torch

import dsdistill
from dsdistill.config.unlabelled import UNLABELLED
from dsdistill.errors import UserError
from dsdistill.storage import hdf5, set_file
from dsdistill.storage.hdf5 import SET, checksum, contents, set_attributes
from dsdistill.storage.set_description import describe
from dsdistill.synthetic.distilled import DistilledSet
from tests.helpers.storage import make, refusal, same


def with_targets(**fields: object) -> DistilledSet:
    """Return twelve images without labels, each with five numbers."""
    targets = torch.randn(12, 5, generator=torch.Generator().manual_seed(2))
    about = {"method": "krr-st", "targets": "features of a teacher"}
    values = {"targets": targets, "classes": UNLABELLED, "labels": torch.zeros(12, dtype=torch.int64)}
    return make(**{**values, "attributes": about, **fields})


def test_they_come_back_bit_for_bit(tmp_path: Path) -> None:
    ours = with_targets()
    set_file.write(tmp_path / "set.h5", ours)
    assert same(set_file.read(tmp_path / "set.h5"), ours)
    with h5py.File(tmp_path / "set.h5") as file:
        assert file["targets"].dtype == "float32"
        assert file["targets"].compression == "gzip"
        assert file["targets"].fletcher32


def test_a_set_without_labels_has_targets_in_their_place(tmp_path: Path) -> None:
    ours = with_targets()
    assert ours.targets is not None
    set_file.write(tmp_path / "set.h5", ours)
    dataset = dsdistill.load(tmp_path / "set.h5", space="unit")
    image, target = dataset[3]
    assert torch.equal(image, ours.images[3])
    assert isinstance(target, torch.Tensor)
    assert torch.equal(target, ours.targets[3])
    assert torch.equal(dataset[2:4][1], ours.targets[2:4])  # type: ignore[arg-type]
    assert repr(dataset).endswith("12 images of 3x8x8, without labels, in unit space, targets>")


def test_a_set_with_labels_has_them_where_they_are_asked_for(tmp_path: Path) -> None:
    ours = with_targets(classes=("a", "b"), labels=torch.arange(2).repeat_interleave(6))
    assert ours.targets is not None
    set_file.write(tmp_path / "set.h5", ours)
    assert dsdistill.load(tmp_path / "set.h5")[7][1] == 1
    target = dsdistill.load(tmp_path / "set.h5", labels="targets")[7][1]
    assert torch.equal(target, ours.targets[7])  # type: ignore[arg-type]


def test_a_set_has_no_targets_that_nobody_gave_it(tmp_path: Path) -> None:
    set_file.write(tmp_path / "set.h5", make())
    with pytest.raises(UserError, match="the set has no targets; load it with labels="):
        dsdistill.load(tmp_path / "set.h5", labels="targets")
    with pytest.raises(UserError, match="unknown kind of labels 'real'; known: hard, soft, targets"):
        dsdistill.load(tmp_path / "set.h5", labels="real")  # type: ignore[call-overload]


def test_only_such_files_have_the_new_version_which_older_ones_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {}
    for name, each in {"plain": make(), "targets": with_targets()}.items():
        set_file.write(tmp_path / f"{name}.h5", each)
        with h5py.File(tmp_path / f"{name}.h5") as file:
            versions[name] = int(file.attrs["version"])
    assert versions == {"plain": 1, "targets": 5}
    monkeypatch.setattr("dsdistill.storage.set_file.SET", dataclasses.replace(SET, version=4))
    assert "newer dsdistill (format version 5, this one reads 4)" in refusal(tmp_path / "targets.h5")
    set_file.read(tmp_path / "plain.h5")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.zeros(11, 5), r"targets must be float32 \[12,d\], a row an image, got float32 \[11, 5\]"),
        (torch.zeros(12), r"got float32 \[12\]"),
        (torch.zeros(12, 0), r"got float32 \[12, 0\]"),
        (torch.zeros(12, 5).double(), r"got float64 \[12, 5\]"),
        (torch.full((12, 5), torch.nan), "targets hold values that are not finite"),
    ],
)
def test_targets_that_are_none_are_refused(targets: torch.Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        with_targets(targets=targets)


def test_damaged_targets_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    set_file.write(path, with_targets())
    with h5py.File(path, "r+") as file:
        file["targets"][3, 2] = 7.0
    assert "its content does not match its checksum" in refusal(path)
    with h5py.File(path, "r+") as file:
        del file["targets"]
        hdf5.create(file, "targets", torch.zeros(12, 5, dtype=torch.int32).numpy())
        set_attributes(file, sha256=checksum(*contents(file)))
    assert "targets must be float32 [12,d], a row an image, got int32 [12, 5]" in refusal(path)


def test_they_count_as_labels(tmp_path: Path) -> None:
    ours = with_targets()
    set_file.write(tmp_path / "set.h5", ours)
    set_file.write(tmp_path / "bare.h5", dataclasses.replace(ours, targets=None))
    about, bare = describe(tmp_path / "set.h5"), describe(tmp_path / "bare.h5")
    with h5py.File(tmp_path / "set.h5") as file:
        size = file["targets"].id.get_storage_size()
    assert about.label_bytes - bare.label_bytes == size > 0
    assert (about.labels, bare.labels) == ("targets of 5 numbers", "none")


def test_smaller_pixels_leave_them_alone(tmp_path: Path) -> None:
    ours = with_targets()
    set_file.write(tmp_path / "set.h5", ours, "uint8")
    assert torch.equal(set_file.read(tmp_path / "set.h5").targets, ours.targets)  # type: ignore[arg-type]


def test_stock_h5py_reads_them(tmp_path: Path) -> None:
    ours = with_targets()
    set_file.write(tmp_path / "set.h5", ours)
    with h5py.File(tmp_path / "set.h5") as file:
        assert file["targets"][:].tolist() == ours.targets.tolist()  # type: ignore[union-attr]
        assert list(file["classes"].asstr()[:]) == ["unlabelled"]
        assert file.attrs["targets"].decode() == "features of a teacher"
