"""Compensators in the file of a set."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import pytest
import torch

from dsdistill.data.preprocess import Standardise
from dsdistill.errors import UserError
from dsdistill.storage import hdf5, set_file, set_results
from dsdistill.storage.hdf5 import SET, checksum, contents, set_attributes
from dsdistill.storage.set_description import describe
from tests.helpers.labels import views_of
from tests.helpers.storage import make, refusal, same, with_compensators


def test_they_come_back_bit_for_bit(tmp_path: Path) -> None:
    ours = with_compensators()
    assert set_file.write(tmp_path / "set.h5", ours) == 0
    found = set_file.read(tmp_path / "set.h5")
    assert same(found, ours)
    assert found.digest == ours.digest
    with h5py.File(tmp_path / "set.h5") as file:
        assert file["compensators"].dtype == "float32"


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_smaller_pixels_have_compensators_in_half_precision(tmp_path: Path, dtype: set_file.Dtype) -> None:
    """8 bits hold no negative numbers."""
    ours = with_compensators()
    assert ours.compensators is not None
    ours = dataclasses.replace(ours, images=(ours.images.clamp(0, 1) * 255).round() / 255)
    error = set_file.write(tmp_path / "set.h5", ours, dtype)
    found = set_file.read(tmp_path / "set.h5")
    half = ours.compensators.half().float()
    assert found.compensators is not None
    assert torch.equal(found.compensators, half)
    assert found.compensators.min() < 0
    assert error >= float((half - ours.compensators).abs().max()) > 0
    with h5py.File(tmp_path / "set.h5") as file:
        assert (file["images"].dtype, file["compensators"].dtype) == (dtype, "float16")


def test_only_such_files_have_the_new_version_which_older_ones_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = with_compensators()
    sets = {"plain": make(), "weights": make(sample_weights=torch.ones(12)), "compensators": ours}
    versions = {}
    for name, each in sets.items():
        set_file.write(tmp_path / f"{name}.h5", each)
        with h5py.File(tmp_path / f"{name}.h5") as file:
            versions[name] = int(file.attrs["version"])
    assert versions == {"plain": 1, "weights": 2, "compensators": 3}
    monkeypatch.setattr("dsdistill.storage.set_file.SET", dataclasses.replace(SET, version=2))
    assert "was written by a newer dsdistill (format version 3, this one reads 2)" in refusal(
        tmp_path / "compensators.h5"
    )
    set_file.read(tmp_path / "weights.h5")


def test_they_count_as_images(tmp_path: Path) -> None:
    ours = with_compensators()
    set_file.write(tmp_path / "set.h5", ours)
    set_file.write(tmp_path / "plain.h5", dataclasses.replace(ours, compensators=None))
    about, plain = describe(tmp_path / "set.h5"), describe(tmp_path / "plain.h5")
    with h5py.File(tmp_path / "set.h5") as file:
        size = file["compensators"].id.get_storage_size()
    assert about.image_bytes - plain.image_bytes == size > 0
    assert about.counts == (4, 4, 4)
    assert (about.compensators, about.decoded_counts) == (8, (12, 12, 12))


def test_a_class_without_images_has_no_decoded_ones(tmp_path: Path) -> None:
    ours = dataclasses.replace(with_compensators(), classes=("a", "b", "c", "none"))
    set_file.write(tmp_path / "set.h5", ours)
    assert describe(tmp_path / "set.h5").decoded_counts == (12, 12, 12, 0)


def test_a_dtype_that_changes_what_was_viewed_is_refused(tmp_path: Path) -> None:
    ours = dataclasses.replace(with_compensators(), images=with_compensators().images.half().float())
    viewed = dataclasses.replace(ours, views=views_of(ours))
    with pytest.raises(UserError, match="float16 changes the pixels, and a teacher has answered"):
        set_file.write(tmp_path / "set.h5", viewed, "float16")
    assert ours.compensators is not None
    half = dataclasses.replace(ours, compensators=ours.compensators.half().float())
    set_file.write(tmp_path / "set.h5", dataclasses.replace(half, views=views_of(half)), "float16")
    assert set_file.read(tmp_path / "set.h5").views is not None


def test_compensators_of_bytes_are_damage(tmp_path: Path) -> None:
    set_file.write(tmp_path / "set.h5", with_compensators())
    with h5py.File(tmp_path / "set.h5", "r+") as file:
        del file["compensators"]
        hdf5.create(file, "compensators", torch.zeros(8, 3, 8, 8, dtype=torch.uint8).numpy())
        set_attributes(file, sha256=checksum(*contents(file)))
    assert "/compensators has an unknown type" in refusal(tmp_path / "set.h5")


def test_results_may_be_added(tmp_path: Path) -> None:
    set_file.write(tmp_path / "set.h5", with_compensators())
    set_results.append_result(tmp_path / "set.h5", {"mean": 0.5})
    assert set_results.results(tmp_path / "set.h5") == [{"mean": 0.5}]
    assert same(set_file.read(tmp_path / "set.h5"), with_compensators())


def test_stock_h5py_reads_and_decodes_them(tmp_path: Path) -> None:
    """As a program without dsdistill does."""
    ours = with_compensators()
    set_file.write(tmp_path / "set.h5", ours)

    with h5py.File(tmp_path / "set.h5") as file:
        x, y, u = file["images"][:], file["labels"][:], file["compensators"][:]
    k = (y == y[0]).sum()
    x, u = x.reshape(-1, 1, k, *x.shape[1:]), u.reshape(1, -1, k, *u.shape[1:])
    sums = (x + u).clip(0, 1)
    images = torch.cat([torch.tensor(x), torch.tensor(sums)], 1).flatten(0, 2)

    assert torch.equal(images, ours.decode()[0])
    assert isinstance(ours.preprocess, Standardise)
