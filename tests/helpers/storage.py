"""The distilled sets that the tests of storage write, change, compare, and see refused."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import pytest
import torch
from torch import Tensor

from dsdistill.data.preprocess import Preprocess, Standardise, from_state
from dsdistill.errors import UserError
from dsdistill.storage import set_file
from dsdistill.storage.hdf5 import checksum, contents, set_attributes
from dsdistill.synthetic.distilled import DistilledSet


def standardise(channels: int = 3) -> Preprocess:
    return Standardise(torch.linspace(0.4, 0.5, channels), torch.linspace(0.2, 0.3, channels))


def zca(pixels: int) -> Preprocess:
    matrix = torch.randn(pixels, pixels, generator=torch.Generator().manual_seed(1))
    return from_state("zca", {"mean": matrix[0], "matrix": matrix, "eps": torch.tensor(0.1)})


def make(count: int = 4, kinds: int = 3, channels: int = 3, size: int = 8, **fields: object) -> DistilledSet:
    generator = torch.Generator().manual_seed(0)
    values: dict = {
        "images": torch.randn(count * kinds, channels, size, size, generator=generator) * 0.5 + 0.5,
        "labels": torch.arange(kinds).repeat_interleave(count),
        "classes": tuple(f"class {label}" for label in range(kinds)),
        "preprocess": standardise(channels),
        "attributes": {"method": "dm", "seed": 3, "seconds": 1.5},
    }
    return DistilledSet(**(values | fields))


def with_compensators() -> DistilledSet:
    """Return four images of each of three classes, and the compensators of two teachers."""
    generator = torch.Generator().manual_seed(1)
    return make(compensators=torch.randn(8, 3, 8, 8, generator=generator) * 0.5)


def same(a: DistilledSet, b: DistilledSet) -> bool:
    states = a.preprocess.state(), b.preprocess.state()
    tensors: list[tuple[Tensor, Tensor]] = [(a.images, b.images), (a.labels, b.labels)]
    tensors += [(states[0][name], states[1][name]) for name in states[0]]
    for name in ("soft_labels", "sample_weights", "compensators", "targets"):
        one, other = getattr(a, name), getattr(b, name)
        if (one is None) != (other is None):
            return False
        tensors += [(one, other)] if one is not None else []
    return (
        all(x.dtype == y.dtype and torch.equal(x, y) for x, y in tensors)
        and (a.classes, a.preprocess.kind, a.multi_formation)
        == (b.classes, b.preprocess.kind, b.multi_formation)
        and states[0].keys() == states[1].keys()
        and json.dumps(dict(a.attributes), sort_keys=True) == json.dumps(dict(b.attributes), sort_keys=True)
    )


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        set_file.read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def changed(path: Path, **attributes: str | int | float) -> None:
    """Change attributes of a file and make its checksum right again."""
    with h5py.File(path, "r+") as file:
        for name, value in attributes.items():
            node, _, key = name.rpartition("__")
            set_attributes(file[node or "/"], **{key: value})
        set_attributes(file, sha256=checksum(*contents(file)))
