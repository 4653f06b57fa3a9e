"""Sets of coded pixels in files: read back, described, decoded by stock code, damaged."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from dsdistill.config.storage import Dtype
from dsdistill.encoding.encode import with_coded
from dsdistill.errors import UserError
from dsdistill.storage import set_file, set_results
from dsdistill.storage.hdf5 import checksum, contents, set_attributes
from dsdistill.storage.set_description import describe
from dsdistill.storage.set_sizes import sizes_of
from dsdistill.synthetic.coded import Coding, encode
from dsdistill.synthetic.distilled import DistilledSet
from tests.helpers import documents
from tests.helpers.storage import make, same, with_compensators

ROOT = Path(__file__).parents[2]


def coded_set(bits: int = 2, patch: int = 4, groups: int = 5, **fields: object) -> DistilledSet:
    plain = make(**fields)
    return with_coded(plain, encode(plain.images, Coding(bits, patch, groups)))


@pytest.mark.parametrize(("bits", "patch", "groups"), [(2, 4, 5), (3, 5, 0), (8, 0, 0)])
def test_a_set_is_read_back(tmp_path: Path, bits: int, patch: int, groups: int) -> None:
    distilled = coded_set(bits, patch, groups)
    assert set_file.write(tmp_path / "set.h5", distilled) == 0

    found = set_file.read(tmp_path / "set.h5")

    assert same(found, distilled)
    assert found.coded is not None
    assert found.coded.coding == Coding(bits, patch, groups)
    assert torch.equal(set_file.load(tmp_path / "set.h5", "unit").images, distilled.images)
    set_file.write(tmp_path / "again.h5", found)
    assert set_file.digest(tmp_path / "again.h5") == set_file.digest(tmp_path / "set.h5")


@pytest.mark.parametrize("coding", [(3, 5, 4), (2, 4, 0), (8, 0, 0)])
def test_the_lines_in_the_documents_decode_it(tmp_path: Path, coding: tuple[int, int, int]) -> None:
    distilled = coded_set(*coding, size=9)
    set_file.write(tmp_path / "set.h5", distilled)
    blocks = documents.blocks(ROOT / "docs" / "file-format.md", "python")
    (code,) = [each for each in blocks if "def images_of" in each]
    names: dict[str, Any] = {}
    exec(code, names)

    with h5py.File(tmp_path / "set.h5") as file:
        images = names["images_of"](file)

    np.testing.assert_allclose(images, distilled.images.numpy(), atol=1e-6)


def test_what_is_described(tmp_path: Path) -> None:
    set_file.write(tmp_path / "coded.h5", coded_set())
    set_file.write(tmp_path / "plain.h5", make())
    coded, plain = (describe(tmp_path / name) for name in ("coded.h5", "plain.h5"))
    assert (coded.dtype, coded.coded) == (None, Coding(2, 4, 5))
    assert coded.storage == "2 bits in patches of 4×4, 5 scales"
    assert (plain.dtype, plain.storage, plain.coded) == ("float32", "float32", None)
    assert coded.image_bytes < plain.image_bytes / 10
    assert coded.label_bytes == plain.label_bytes
    assert sizes_of(coded_set()).image_bytes == coded.image_bytes
    with h5py.File(tmp_path / "coded.h5") as file, h5py.File(tmp_path / "plain.h5") as other:
        assert (file.attrs["version"], other.attrs["version"]) == (4, 1)
        assert "images" not in file


@pytest.mark.parametrize(("dtype", "bits"), [("float32", 32), ("float16", 16), ("uint8", 8), (None, 2)])
def test_bits_of_a_stored_pixel_are_described(tmp_path: Path, dtype: Dtype | None, bits: int) -> None:
    set_file.write(tmp_path / "set.h5", make() if dtype else coded_set(), dtype)
    assert describe(tmp_path / "set.h5").bits == bits


def test_a_dtype_that_is_asked_for_replaces_the_coding(tmp_path: Path) -> None:
    set_file.write(tmp_path / "set.h5", coded_set(), "float32")
    assert describe(tmp_path / "set.h5").storage == "float32"
    assert torch.equal(set_file.read(tmp_path / "set.h5").images, coded_set().images)


def test_results_are_added(tmp_path: Path) -> None:
    set_file.write(tmp_path / "set.h5", coded_set())
    set_results.append_result(tmp_path / "set.h5", {"mean": 0.5})
    assert same(set_file.read(tmp_path / "set.h5"), coded_set())
    assert set_results.results(tmp_path / "set.h5") == [{"mean": 0.5}]


def test_compensators_stay_beside_coded_images(tmp_path: Path) -> None:
    plain = with_compensators()
    distilled = with_coded(plain, encode(plain.images, Coding(8, 0, 0)))
    error = set_file.write(tmp_path / "set.h5", distilled)
    found = set_file.read(tmp_path / "set.h5")
    assert torch.equal(found.images, distilled.images)
    assert found.compensators is not None
    assert float((found.compensators - plain.compensators).abs().max()) == pytest.approx(error)


def test_coded_pixels_of_other_images_are_refused() -> None:
    with pytest.raises(UserError, match="coded pixels are those of other images"):
        dataclasses.replace(coded_set(), images=make().images)


@pytest.mark.parametrize("node", ["codes", "scales", "offsets", "groups"])
def test_a_file_without_a_part_is_damaged(tmp_path: Path, node: str) -> None:
    path = tmp_path / "set.h5"
    set_file.write(path, coded_set())
    with h5py.File(path, "r+") as file:
        del file[f"pixels/{node}"]
        set_attributes(file, sha256=checksum(*contents(file)))  # or it is refused for that
    with pytest.raises(UserError, match=r"is damaged: (?!.*checksum)"):
        set_file.read(path)
