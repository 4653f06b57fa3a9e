"""A file of tensors: images and labels in a dict, a list or a tuple, or images alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from dsdistill.importing.content import find
from dsdistill.importing.files import is_tensor_file, read_file
from dsdistill.importing.source import Format, Request, Source


def _read(path: Path, request: Request) -> Source:
    source = find(read_file(path), path, request.labels)
    return dataclasses.replace(source, multi_formation=request.multi_formation)


TENSORS = Format(
    "tensors",
    "a .pt, .npy, .npz or .safetensors file with images, and labels or soft labels",
    is_tensor_file,
    _read,
)
