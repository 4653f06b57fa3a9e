"""A distilled set with smaller pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dsdistill.errors import UserError
from dsdistill.export.hdf5 import export_h5
from dsdistill.storage import set_file, set_results
from dsdistill.storage.set_description import describe
from dsdistill.synthetic.multi_formation import MultiFormation
from tests.helpers.exports import as_bytes, written


def test_pixels_are_stored_in_fewer_bytes(tmp_path: Path) -> None:
    path, small, half = (tmp_path / name for name in ("set.h5", "small.h5", "half.h5"))
    made = written(
        path,
        soft_labels=torch.rand(6, 3),
        multi_formation=MultiFormation(factor=2),
        attributes={"method": "idc", "lr": 0.02},
    )
    set_results.append_result(path, {"accuracy": 50.0})
    error = (made.images - torch.from_numpy(as_bytes(made.images)).float() / 255).abs().max()
    said = export_h5(path, small, "uint8")
    assert f"uint8: the largest error of a pixel is {float(error):.2g}, where white is 1" in said
    found = set_file.read(small)
    assert np.array_equal(np.rint(found.images.numpy() * 255), as_bytes(made.images))
    assert torch.equal(found.soft_labels, made.soft_labels)  # type: ignore[arg-type]
    assert (found.multi_formation, found.attributes) == (made.multi_formation, set_file.read(path).attributes)
    assert set_results.results(small) == []  # they were those of other pixels
    assert describe(small).image_bytes < describe(path).image_bytes / 2
    assert "float16" in export_h5(path, half, "float16")
    assert torch.equal(set_file.read(half).images, made.images.half().float())


def test_a_set_is_not_replaced_by_its_own_export(tmp_path: Path) -> None:
    made = written(tmp_path / "set.h5")
    with pytest.raises(UserError, match="is the set itself"):
        export_h5(tmp_path / "set.h5", tmp_path / "sub" / ".." / "set.h5", "uint8")
    with pytest.raises(UserError, match="unknown storage dtype 'int4'"):
        export_h5(tmp_path / "set.h5", tmp_path / "new.h5", "int4")  # type: ignore[arg-type]
    written(tmp_path / "other.h5")
    with pytest.raises(UserError, match="exists"):
        export_h5(tmp_path / "set.h5", tmp_path / "other.h5", "uint8")
    assert describe(tmp_path / "other.h5").dtype == "float32"
    assert torch.equal(set_file.read(tmp_path / "set.h5").images, made.images)
    assert not (tmp_path / "new.h5").exists()
