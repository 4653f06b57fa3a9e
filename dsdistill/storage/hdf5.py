"""HDF5 as a container of checksummed arrays and attributes, with the formats of dsdistill's files.

All text is of fixed length. HDF5 stores text of variable length in heaps without a checksum, and a flipped
bit there sends it into an endless loop. All else in a file of `LAYOUT` carries a checksum of HDF5's own.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import torch

from dsdistill import files
from dsdistill.errors import UserError
from dsdistill.files import expanded, is_text, reason
from dsdistill.runtime.device import available_memory
from dsdistill.storage.structure import LONGEST, check_structure, nodes
from dsdistill.synthetic.distilled import Scalar


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of dsdistill file, and the ends of the sentences that refuse a file which is not a sound one.

    Attributes:
        name, version: the attributes ``format`` and ``version`` of ``/``; the newest version.
        in_memory: whether the whole file is read before it is opened.
        sliced: the data sets that are read by the slice.
        absent_hint, export_hint, remedy, foreign_hint: end the sentences "no file at PATH", "PATH is not an
            HDF5 file" (of a .pt file), "PATH is damaged: REASON; " and "PATH is an HDF5 file, but ".
        other_hints: end the sentence "PATH " about a file of another kind, by the name of its format.
    """

    name: str
    version: int = 1
    in_memory: bool
    sliced: tuple[str, ...] = ()
    absent_hint: str = ""
    export_hint: str = ""
    remedy: str
    foreign_hint: str
    other_hints: Mapping[str, str] = field(default_factory=dict)


EXPERTS = Format(
    name="dsdistill-experts",
    version=5,
    in_memory=False,
    sliced=("weights", "buffers"),  # they may take many gigabytes
    absent_hint="; dsdistill experts makes one",
    remedy="make it again",
    foreign_hint="holds no experts; dsdistill experts makes such files",
)
SET = Format(
    name="dsdistill",
    version=5,
    in_memory=True,
    export_hint="; a distilled set is the .h5 itself, not its export",
    remedy="make it or fetch it again",
    foreign_hint="not a dsdistill one",
    other_hints={EXPERTS.name: "holds experts, not a distilled set; dsdistill info says which"},
)

RESERVED = ("format", "version", "sha256")
_CHUNK_BYTES = 256 * 1024
# That of HDF5 1.10 (2016), the oldest in which all metadata of a data set carries checksums.
LAYOUT = ("v110", "v110")


@contextmanager
def opened(path: str | Path, expected: Format) -> Iterator[h5py.File]:
    """Open a file for reading and check its format; any error inside the block becomes a UserError.

    Raises:
        UserError: there is no such file, it cannot be read, is of another format or a newer version, or is
            damaged. Errors of h5py inside the block mean damage; a UserError gets the path before it.
    """
    path = expanded(path)
    source, size = _source(path, expected)
    try:
        with h5py.File(source, "r") as file:
            name = attribute(file, "format") if "format" in file.attrs else ""
            version = int(attribute(file, "version")) if name == expected.name else 0
            if name == expected.name and version <= expected.version:
                check_structure(file, size, expected.sliced)
                yield file
                return
    except UserError as error:  # sound HDF5 whose content makes no sense
        raise UserError(f"{path}: {error}") from error
    except MemoryError as error:
        raise UserError(f"{path} does not fit into memory; free some") from error
    except Exception as error:  # h5py meets damage with OSError, KeyError, RuntimeError, ValueError, …
        raise UserError(f"{path} is damaged: {reason(error)}; {expected.remedy}") from error
    if name in expected.other_hints:
        raise UserError(f"{path} {expected.other_hints[str(name)]}")
    if name != expected.name:
        raise UserError(f"{path} is an HDF5 file, but {expected.foreign_hint}")
    raise UserError(
        f"{path} was written by a newer dsdistill (format version {version}, this one reads "
        f"{expected.version}); upgrade dsdistill"
    )


def _source(path: Path, expected: Format) -> tuple[Path | io.BytesIO, int]:
    """Return what h5py opens, the file or its bytes, and their number.

    Raises:
        UserError: there is no such file, it cannot be read, is no HDF5, or is larger than the free memory.
    """
    try:
        with files.open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
        if not h5py.is_hdf5(path):
            hint = expected.export_hint if path.suffix == ".pt" else ""
            raise UserError(f"{path} is not an HDF5 file{hint}")
        if not expected.in_memory:
            return path, size
        data = files.read(path, most=available_memory(torch.device("cpu")))
        return io.BytesIO(data), len(data)
    except FileNotFoundError as error:
        raise UserError(f"no file at {path}{expected.absent_hint}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error


def contents(
    file: h5py.File, sliced: Collection[str] = ()
) -> tuple[dict[str, np.ndarray], dict[str, Scalar]]:
    """Read every data set by path and every attribute by ``path@name``, except checksum and results.

    Args:
        sliced: data sets that are not read.
    """
    arrays: dict[str, np.ndarray] = {}
    attributes: dict[str, Scalar] = {}
    for path, node in nodes(file):
        if path == "results" or path.startswith("results/"):
            continue
        if isinstance(node, h5py.Dataset) and path not in sliced:
            arrays[path] = np.asarray(node[()])
        for name in node.attrs:
            if (path, name) != ("", "sha256"):
                attributes[f"{path}@{name}"] = attribute(node, name)
    return arrays, attributes


def attribute(node: h5py.Group | h5py.Dataset, name: str) -> Scalar:
    """Read one attribute: text of fixed length, an integer or a float.

    Raises:
        ValueError: it is of another type, such as text of variable length, which is never read.
    """
    info = node.attrs.get_id(name)
    if info.shape != () or info.dtype.kind not in "Sif":
        raise ValueError(f"the attribute {name!r} has an unknown type")
    value = node.attrs[name]
    return value.decode() if isinstance(value, bytes) else value.item()


def checksum(arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Scalar]) -> str:
    """Hash a file's content to the hexadecimal SHA-256 of, in this order,

    1. for each data set in order of its path (without the leading slash): the JSON list of path, shape and
       NumPy dtype string, a newline, then its values in C order as stored;
    2. for each attribute in order of its ``path@name`` (the root's path is empty): the JSON list of that and
       the value, then a newline.

    JSON is as Python's json.dumps writes it by default.
    """
    digest = hashlib.sha256()
    for path in sorted(arrays):
        array = arrays[path]
        digest.update(json.dumps([path, list(array.shape), array.dtype.str]).encode() + b"\n")
        digest.update(np.ascontiguousarray(array).tobytes())
    for path in sorted(attributes):
        digest.update(json.dumps([path, attributes[path]]).encode() + b"\n")
    return digest.hexdigest()


def create(group: h5py.Group, name: str, array: np.ndarray) -> h5py.Dataset:
    """Store an array, compressed, in chunks of whole rows: one image, or as many as fit 256 KB."""
    if array.ndim == 0:
        return group.create_dataset(name, data=array)
    rows = max(1, min(len(array), _CHUNK_BYTES * len(array) // max(1, array.nbytes)))
    return group.create_dataset(
        name,
        data=array,
        chunks=(rows, *array.shape[1:]),
        compression="gzip",
        compression_opts=4,
        shuffle=True,
        fletcher32=True,
    )


def set_attributes(node: h5py.Group | h5py.Dataset, /, **attributes: Scalar) -> None:
    """Write attributes as `attribute` reads them."""
    for name, value in attributes.items():
        node.attrs[name] = fixed_text(value) if isinstance(value, str) else value


def fixed_text(text: str | Sequence[str]) -> np.ndarray:
    """Encode one text (to an array of no dimensions) or a list of them as fixed-length UTF-8."""
    encoded = [word.encode() for word in ([text] if isinstance(text, str) else text)]
    array = np.array(encoded, dtype=h5py.string_dtype("utf-8", max(1, *map(len, encoded))))
    return array.reshape(()) if isinstance(text, str) else array


_PICTURES, _TABLES = (".png", ".jpg", ".jpeg", ".svg"), (".json", ".jsonl", ".csv", ".html", ".txt", ".md")
_OTHERS = (*_PICTURES, *_TABLES, ".pt", ".pth", ".npz", ".npy", ".zip", ".safetensors", ".toml", ".py")


def check_suffix(path: str | Path, hint: str = "") -> None:
    """Raise UserError where an output's name is that of another format.

    Args:
        hint: ends the sentence.
    """
    if (suffix := Path(path).suffix.lower()) in _OTHERS:
        name = Path(path).with_suffix(".h5").name
        raise UserError(f"the output is HDF5, not a {suffix} file: name it {name}{hint}")


def check_attribute(name: str, value: Scalar) -> None:
    """Raise UserError where an attribute of a set cannot have this name or hold this value."""
    check_text("an attribute's name", name)
    if not name or name in RESERVED:
        raise UserError(f"the attribute name {name!r} is empty or the format's own; choose another")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UserError(f"attribute {name!r} must be text, an integer or a float, got {type(value).__name__}")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise UserError(f"attribute {name!r} must fit in 64 bits, got {value}")
    if isinstance(value, str):
        check_text(f"attribute {name!r}", value, LONGEST)


_LONGEST_NAME = 1000  # bytes


def check_names(classes: Sequence[str]) -> None:
    """Raise UserError where a file cannot hold the names of classes."""
    for name in classes:
        check_text("a class name", name)


def check_text(what: str, text: str, most: int = _LONGEST_NAME) -> None:
    """Raise UserError where HDF5 cannot hold a text, or it takes more than so many bytes."""
    if "\0" in text or not is_text(text):
        raise UserError(f"{what} holds a character that HDF5 cannot store: {text[:40]!r}; rename it")
    if (size := len(text.encode())) > most:
        raise UserError(f"{what} takes {size:,} bytes, and {most:,} at most are stored: {text[:40]!r}…")
