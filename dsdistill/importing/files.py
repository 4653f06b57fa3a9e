"""Read files of tensors that others made: torch's, numpy's and safetensors', none of which may run code."""

from __future__ import annotations

import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dsdistill import files
from dsdistill.data.archive import Archive
from dsdistill.errors import UserError
from dsdistill.files import reason
from dsdistill.runtime.device import available_memory, check_memory
from dsdistill.text import plain


def read_file(path: Path) -> Any:
    """Read a file of tensors by its suffix.

    Returns:
        what it holds: tensors on the CPU, texts and numbers, in lists, tuples and dicts.

    Raises:
        UserError: there is no such file, its suffix is unknown, it is damaged or larger than the free memory,
            or it is a pickle of more than plain values.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path} is no file of tensors; known suffixes: {', '.join(_READERS)}")
    data = _bytes(path)
    try:
        return reader(data, path)
    except UserError:
        raise
    except MemoryError as error:
        raise UserError(f"{path} does not fit into memory; free some") from error
    except Exception as error:  # torch, numpy and safetensors meet damage with errors of all kinds
        raise UserError(
            f"cannot read {path} as a {path.suffix} file ({plain(reason(error))}); save it again"
        ) from error


def _bytes(path: Path) -> bytes:
    try:
        data = files.read(path, most=available_memory(torch.device("cpu")))
    except FileNotFoundError as error:
        raise UserError(f"no file at {path}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error
    check_memory(f"{path} takes", 2 * len(data))
    return data


def _torch(data: bytes, path: Path) -> Any:
    if zipfile.is_zipfile(io.BytesIO(data)):
        _check_zip(data)
    try:
        with torch.serialization.safe_globals(_NUMBERS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        match = re.search(r"(?:GLOBAL|global|type) `?([\w.]+\.\w+)", str(error))
        what = f"{match[1]}, and reading that" if match else "more than tensors, and reading it"
        raise UserError(
            f"{path} is a pickle that holds {what} could run code; where you trust it, load it with torch "
            'and save {"images": ..., "labels": ...} of tensors'
        ) from error


def _check_zip(data: bytes) -> None:
    """Check that the parts of a torch file are as large as they claim; torch does not compress them.

    Raises:
        ValueError: they are not.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("it is compressed, which torch.save does not do")
    if sum(member.file_size for member in members) > len(data):
        raise ValueError("it claims to hold more than it does")


def _latin1(text: str, encoding: str) -> bytes:
    """Encode the bytes of a number in a pickle, as numpy writes them."""
    if encoding != "latin1":
        raise ValueError(f"the encoding {encoding} is none of numpy's")
    return text.encode("latin1")


_SCALAR: Any = np.float64(0).__reduce__()[0]  # private to numpy, which has moved it once
_NUMBERS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32")),
    (_latin1, "_codecs.encode"),
]
"""What single numbers of numpy take in a pickle: results of DC, DSA and DM hold accuracies beside images."""


def _npy(data: bytes, path: Path) -> Any:
    return _value(np.load(io.BytesIO(data), allow_pickle=False), path)


def _npz(data: bytes, path: Path) -> dict[str, Any]:
    archive = Archive(io.BytesIO(data), str(path))
    return {key: _value(archive.read(key), path) for key in archive.keys}


def _value(array: NDArray[Any], path: Path) -> Any:
    """Return an array as a tensor, or as a list where it holds texts."""
    kind = array.dtype.kind
    if kind in "US":
        return [each.decode() if isinstance(each, bytes) else str(each) for each in array.flatten().tolist()]
    if kind not in "biuf" or array.dtype.itemsize > 8:
        raise UserError(f"{path} holds {array.dtype}; save images and labels as floats or integers")
    if kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(np.ascontiguousarray(native).reshape(native.shape))


def _safetensors(data: bytes, path: Path) -> dict[str, Any]:
    from safetensors.torch import load

    return dict(load(data))


_READERS: dict[str, Callable[[bytes, Path], Any]] = {
    ".pt": _torch,
    ".pth": _torch,
    ".npy": _npy,
    ".npz": _npz,
    ".safetensors": _safetensors,
}
SUFFIXES = tuple(_READERS)
"""Of files of tensors."""


def is_tensor_file(path: Path) -> bool:
    """Whether a path is a file with the suffix of one of tensors."""
    return path.suffix.lower() in SUFFIXES and path.is_file()
