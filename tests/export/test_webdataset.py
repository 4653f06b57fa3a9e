"""A distilled set as WebDataset shards."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from dsdistill.errors import UserError
from dsdistill.export import webdataset
from dsdistill.export.webdataset import export_webdataset
from tests.helpers.exports import written


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]


def test_a_shard_holds_each_example_under_one_name(tmp_path: Path) -> None:
    distilled = written(tmp_path / "set.h5", soft_labels=torch.arange(18.0).reshape(6, 3))
    assert export_webdataset(tmp_path / "set.h5", tmp_path / "set.tar") == []
    content = members(tmp_path / "set.tar")
    assert [name for name in content if name.startswith("00000005.")] == [
        f"00000005.{ending}" for ending in ("png", "npy", "cls", "json", "logits.npy")
    ]
    assert len(content) == 6 * 5
    np.testing.assert_array_equal(np.load(io.BytesIO(content["00000005.npy"])), distilled.images[5].numpy())
    np.testing.assert_array_equal(np.load(io.BytesIO(content["00000001.logits.npy"])), [3, 4, 5])
    assert content["00000005.cls"] == b"2"
    assert json.loads(content["00000002.json"]) == {"label": 1, "class": "car"}
    first = (tmp_path / "set.tar").read_bytes()
    export_webdataset(tmp_path / "set.h5", tmp_path / "set.tar")
    assert (tmp_path / "set.tar").read_bytes() == first


def test_a_folder_holds_shards_and_a_description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "_IN_A_SHARD", 4)
    written(tmp_path / "set.h5")
    export_webdataset(tmp_path / "set.h5", tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "dsdistill.json",
        "shard-000000.tar",
        "shard-000001.tar",
    ]
    names = [name for shard in (0, 1) for name in members(tmp_path / "out" / f"shard-{shard:06d}.tar")]
    assert [name for name in names if name.endswith("cls")] == [f"{number:08d}.cls" for number in range(6)]
    about = json.loads((tmp_path / "out" / "dsdistill.json").read_text())
    assert about["classes"] == ["plane", "car", "bird"]
    assert about["preprocess"]["std"] == [0.25] * 3


def test_refusals_leave_nothing_behind(tmp_path: Path) -> None:
    written(tmp_path / "set.h5")
    with pytest.raises(UserError, match="not an empty folder"):
        export_webdataset(tmp_path / "set.h5", tmp_path / "set.h5")
    with pytest.raises(UserError, match="no file at"):
        export_webdataset(tmp_path / "absent.h5", tmp_path / "out")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["set.h5"]
