"""Ways to damage a file: its bytes, its HDF5 nodes, or the values of its TOML or JSON."""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tomli_w
from hypothesis import strategies

# Bytes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ByteMutation:
    """Damage at a place of a file, which is a share of its length."""

    kind: str
    place: float
    number: int

    def __call__(self, path: Path) -> None:
        data = bytearray(path.read_bytes())
        at = min(int(self.place * len(data)), len(data) - 1)
        if self.kind == "flip":
            data[at] ^= 1 << self.number % 8
        elif self.kind == "set":
            data[at] = self.number
        elif self.kind == "zero":
            data[at : at + self.number] = bytes(len(data[at : at + self.number]))
        elif self.kind == "cut":
            del data[at:]
        elif self.kind == "drop":
            del data[at : at + self.number]
        else:
            data[at:at] = bytes([self.number]) * self.number
        path.write_bytes(data)


byte_mutations = strategies.builds(
    ByteMutation,
    kind=strategies.sampled_from(["flip", "flip", "flip", "set", "zero", "cut", "drop", "insert"]),
    place=strategies.floats(0, 1),
    number=strategies.integers(0, 255),
)

# HDF5 -------------------------------------------------------------------------------------------------------

_VALUES: tuple[Any, ...] = (
    0,
    -1,
    2**63 - 1,
    float("nan"),
    float("inf"),
    "",
    "x" * 60_000,
    b"\xff\xfe",
    "1e9",
)


@dataclass(frozen=True)
class NodeMutation:
    """A change of one node or attribute of an HDF5 file; which one is a share of all."""

    kind: str
    place: float
    value: Any

    def __call__(self, path: Path) -> None:
        with h5py.File(path, "r+") as file:
            names: list[str] = []
            file.visit(names.append)
            name = names[min(int(self.place * len(names)), len(names) - 1)]
            _NODES[self.kind](file, name, self.value)


def _delete(file: h5py.File, name: str, value: Any) -> None:
    del file[name]


def _rename(file: h5py.File, name: str, value: Any) -> None:
    file.move(name, f"{name}-other")


def _fill(file: h5py.File, name: str, value: Any) -> None:
    node = file[name]
    if isinstance(node, h5py.Dataset) and node.dtype.kind in "iuf" and isinstance(value, (int, float)):
        with np.errstate(all="ignore"):
            node[...] = np.array(value).astype(node.dtype)


def _reshape(file: h5py.File, name: str, value: Any) -> None:
    if isinstance(node := file[name], h5py.Dataset):
        array = node[()]
        del file[name]
        file[name] = np.asarray(array)[None]


def _retype(file: h5py.File, name: str, value: Any) -> None:
    if isinstance(node := file[name], h5py.Dataset):
        array = node[()]
        del file[name]
        file.create_dataset(name, data=np.asarray(array).astype("S8"))


def _hollow(file: h5py.File, name: str, value: Any) -> None:
    del file[name]
    file.create_dataset(name, (10**6, 1000, 28, 28), "<f4", chunks=(1, 1, 28, 28), compression="gzip")


def _link(file: h5py.File, name: str, value: Any) -> None:
    del file[name]
    file[name] = h5py.ExternalLink("/dev/zero", "/")


def _loop(file: h5py.File, name: str, value: Any) -> None:
    del file[name]
    file[name] = h5py.SoftLink(f"/{name}")


def _attribute(file: h5py.File, name: str, value: Any) -> None:
    for node in (file, file[name]):
        for key in list(node.attrs)[:1]:
            node.attrs[key] = value


def _add(file: h5py.File, name: str, value: Any) -> None:
    file.create_group(f"{name}-more" if isinstance(file[name], h5py.Dataset) else f"{name}/more/and/more")


_NODES: dict[str, Callable[[h5py.File, str, Any], None]] = {
    function.__name__.strip("_"): function
    for function in (_delete, _rename, _fill, _reshape, _retype, _hollow, _link, _loop, _attribute, _add)
}

node_mutations = strategies.builds(
    NodeMutation,
    kind=strategies.sampled_from(sorted(_NODES)),
    place=strategies.floats(0, 1),
    value=strategies.sampled_from(_VALUES),
)

# TOML and JSON ----------------------------------------------------------------------------------------------

_ODD: tuple[Any, ...] = (
    *(0, -1, 10**19, 1e308, -0.5, True, "", "x" * 5000, "\x1b[31m\n", "é" * 100, "auto", "none"),
    *([], [[]], [1, "a"], {}, {"a": {"b": []}}, ["x"] * 2000),
)


@dataclass(frozen=True)
class ValueMutation:
    """A change of one value in a TOML or JSON file; which one is a share of all."""

    kind: str
    place: float
    value: Any

    def __call__(self, path: Path) -> None:
        text = path.read_text()
        toml = path.suffix == ".toml"
        table = tomllib.loads(text) if toml else json.loads(text)
        parents = list(_parents(table))
        parent, key = parents[min(int(self.place * len(parents)), len(parents) - 1)]
        if self.kind == "replace":
            parent[key] = copy.deepcopy(self.value)
        elif self.kind == "delete":
            del parent[key]
        elif self.kind == "wrap":
            parent[key] = [parent[key]]
        elif isinstance(parent, dict):
            parent[f"{key}_more"] = parent[key]
        path.write_text(tomli_w.dumps(table) if toml else json.dumps(table))


def _parents(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place of a nested value: its container and its key or index."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _parents(value[key])


value_mutations = strategies.builds(
    ValueMutation,
    kind=strategies.sampled_from(["replace", "replace", "replace", "delete", "wrap", "add"]),
    place=strategies.floats(0, 1),
    value=strategies.sampled_from(_ODD),
)
