"""Tensors by key in files: found again by another process, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dsdistill.runtime.tensor_folder import TensorFolder

CPU = torch.device("cpu")


def folder(path: Path) -> TensorFolder:
    return TensorFolder(path, "real-", CPU)


def test_values_are_found_by_their_keys(tmp_path: Path) -> None:
    written, pair = folder(tmp_path), (torch.rand(3), torch.rand(2, 2, dtype=torch.float64))
    written[(0, ("means", 0, 10))] = torch.arange(6.0).view(2, 3)
    written[(1, "pair")] = pair
    assert list(written) == [(0, ("means", 0, 10)), (1, "pair")]
    again = folder(tmp_path)
    assert torch.equal(again[(0, ("means", 0, 10))], torch.arange(6.0).view(2, 3))
    assert all(torch.equal(one, other) for one, other in zip(again[(1, "pair")], pair, strict=True))
    for absent in ((1, ("means", 0, 10)), (0, ("means", 0, 5)), "means"):
        with pytest.raises(KeyError):
            again[absent]
    assert len(list(tmp_path.glob("real-*.safetensors"))) == 2
    written.clear()
    assert not list(tmp_path.iterdir())


def test_what_is_damaged_is_not_there(tmp_path: Path) -> None:
    written = folder(tmp_path)
    written["a"] = torch.rand(100)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(KeyError):
        written["a"]
    written["a"] = torch.zeros(2)
    assert torch.equal(folder(tmp_path)["a"], torch.zeros(2))
