"""Files of named tensors and texts that prove to be what was written: safetensors with a digest.

The metadata hold ``sha256``, over the other metadata and over name, dtype, shape and bytes of every tensor.
Texts bind a file to what it belongs to, such as the configuration of its run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dsdistill import files


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and texts; they replace at once any file at ``path``.

    Raises:
        UserError: the file cannot be written.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    files.replace(path, save(plain, {**metadata, "sha256": _digest(plain, metadata)}))


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


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
