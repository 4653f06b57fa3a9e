"""Files of named tensors and texts that prove to be what was written: safetensors with a digest.

The metadata hold ``sha256``, over the other metadata and over name, dtype, shape and bytes of every tensor.
Texts bind a file to what it belongs to, such as the configuration of its run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from dsdistill import files
from dsdistill.errors import UserError

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
_ALIGNMENT = 8


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and texts; they replace at once any file at ``path``.

    Raises:
        UserError: the file cannot be written, or cannot hold the dtype of a tensor.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    plain = dict(sorted(plain.items(), key=lambda pair: (-pair[1].itemsize, pair[0])))  # which aligns them
    header = _header(plain, {**metadata, "sha256": _digest(plain, metadata)})
    files.replace(path, header, *map(_bytes, plain.values()))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the texts of a file.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError: it is damaged.
    """
    content = files.read(path)  # a map of the file would end the process where the disk fails
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {files.reason(error)}") from error
    metadata: dict[str, str] = header.get("__metadata__", {})
    if metadata.pop("sha256", "") != _digest(tensors, metadata):
        raise ValueError(f"{path} is damaged: its content does not match its digest")
    return tensors, metadata


def _header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return how a file of tensors begins, whose bytes follow in their order.

    The library would return the whole file, twice over, beside the tensors themselves.
    """
    table: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, value in tensors.items():
        if value.dtype not in _DTYPES:
            raise UserError(f"a state cannot hold {name!r}, which is {value.dtype}: keep it as float32")
        begin, end = end, end + value.nbytes
        table[name] = {
            "dtype": _DTYPES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _bytes(value: Tensor) -> memoryview:
    return value.reshape(-1).view(torch.uint8).numpy().data


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(_bytes(value))
    return digest.hexdigest()
