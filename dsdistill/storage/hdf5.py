"""HDF5 as a container of checksummed arrays and attributes: the mechanics under `storage`'s schema.

All text is of fixed length. HDF5 keeps text of variable length in heaps without a checksum, and a flipped bit
there sends it into an endless loop; everything else of a file in `LAYOUT` carries a checksum of HDF5's own.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from dsdistill.errors import UserError
from dsdistill.files import reason
from dsdistill.synthetic.distilled import Scalar

FORMAT = "dsdistill"
EXPERTS = "dsdistill-experts"
VERSION = 1

RESERVED = ("format", "version", "sha256")
_CHUNK_BYTES = 256 * 1024
# That of HDF5 1.10 (2016), the oldest in which all metadata of a data set carries checksums.
LAYOUT = ("v110", "v110")


@contextmanager
def opened(path: str | Path) -> Iterator[h5py.File]:
    """Open a file's bytes as a dsdistill file; whatever goes wrong inside says that it is damaged."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"no file at {path}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error
    if not h5py.is_hdf5(path):
        export = "; a distilled set is the .h5 itself, not its export" if Path(path).suffix == ".pt" else ""
        raise UserError(f"{path} is not an HDF5 file{export}")
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            kind = attribute(file, "format") if "format" in file.attrs else ""
            known = kind == FORMAT
            version = int(attribute(file, "version")) if known else 0
            if known and version <= VERSION:
                yield file
                return
    except UserError as error:  # sound, but not a set that this version knows
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # h5py meets damage with OSError, KeyError, RuntimeError, ValueError, …
        raise UserError(f"{path} is damaged: {reason(error)}; make it or fetch it again") from error
    if kind == EXPERTS:
        raise UserError(f"{path} holds experts, not a distilled set; dsdistill info says which")
    if not known:
        raise UserError(f"{path} is an HDF5 file, but not a dsdistill one")
    raise UserError(
        f"{path} was written by a newer dsdistill (format version {version}, this one reads {VERSION}); "
        "upgrade dsdistill"
    )


_DEFLATE, _SLACK = 1100, 1 << 20  # compression's best, and what may be left out of so little


def contents(file: h5py.File) -> tuple[dict[str, np.ndarray], dict[str, Scalar]]:
    """Read every data set by path and every attribute by ``path@name``, except checksum and results.

    Links to other files are not followed: what they point at is not part of the set.
    """
    arrays: dict[str, np.ndarray] = {}
    attributes: dict[str, Scalar] = {}

    def visit(path: str, node: h5py.Group | h5py.Dataset) -> None:
        if path == "results" or path.startswith("results/"):
            return
        if isinstance(node, h5py.Dataset):
            if node.dtype.hasobject or node.external or node.is_virtual:
                raise ValueError(f"/{path} has an unknown type or lies outside the file")
            if node.nbytes > _DEFLATE * node.id.get_storage_size() + _SLACK:
                raise ValueError(
                    f"/{path} claims {node.nbytes / 1e9:.3g} GB, of which next to nothing is there"
                )
            arrays[path] = np.asarray(node[()])
        for name in node.attrs:
            if (path, name) != ("", "sha256"):
                attributes[f"{path}@{name}"] = attribute(node, name)

    visit("", file)
    file.visititems(visit)
    return arrays, attributes


def attribute(node: h5py.Group | h5py.Dataset, name: str) -> Scalar:
    """Read one attribute: text of fixed length, an integer or a float.

    Raises:
        ValueError: it is of another type (among them text of variable length, which is not touched).
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
        check_text(f"attribute {name!r}", value)


def check_text(what: str, text: str) -> None:
    """Raise UserError where HDF5 cannot hold a text."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(f"{what} holds a character that HDF5 cannot store: {text[:40]!r}")
