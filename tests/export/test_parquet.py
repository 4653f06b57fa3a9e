"""A distilled set as a parquet file."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dsdistill.errors import UserError
from dsdistill.export.parquet import export_parquet
from tests.helpers.exports import as_bytes, written


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    written(tmp_path / "set.h5")
    with pytest.raises(UserError, match=r'pip install "dsdistill\[hf\]"'):
        export_parquet(tmp_path / "set.h5", tmp_path / "set.parquet")
    assert [file.name for file in tmp_path.iterdir()] == ["set.h5"]


def test_columns_hold_what_was_learned(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    distilled = written(tmp_path / "set.h5", soft_labels=torch.arange(18.0).reshape(6, 3))
    assert export_parquet(tmp_path / "set.h5", tmp_path / "set.parquet") == []
    table = parquet.read_table(tmp_path / "set.parquet")
    columns = table.to_pydict()
    np.testing.assert_array_equal(np.array(columns["pixels"], np.float32), distilled.images.numpy())
    assert columns["label"] == distilled.labels.tolist()
    np.testing.assert_array_equal(columns["logits"], np.arange(18.0).reshape(6, 3))
    picture = np.asarray(Image.open(io.BytesIO(columns["image"][4]["bytes"])))
    np.testing.assert_array_equal(picture.transpose(2, 0, 1), as_bytes(distilled.images[4]))
    about = json.loads(table.schema.metadata[b"dsdistill"])
    assert about["classes"] == ["plane", "car", "bird"]


def test_another_kind_of_file_is_not_replaced(tmp_path: Path) -> None:
    written(tmp_path / "set.h5")
    with pytest.raises(UserError, match=r"exists and is no \.parquet file"):
        export_parquet(tmp_path / "set.h5", tmp_path / "set.h5")
