"""A file of tensors: images and labels in a dict, a list or a tuple; or images, with labels.* beside them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from dsdistill.importing.content import find
from dsdistill.importing.files import SUFFIXES, is_tensor_file, read_file
from dsdistill.importing.source import Format, Request, Source
from dsdistill.text import plain


def _read(path: Path, request: Request) -> Source:
    content = read_file(path)
    source = find(content, path, request.labels)
    if source.labels is None and source.soft_labels is None and (labels := _beside(path)):
        notice = f"the labels are those of {plain(labels.name)} beside it"
        source = dataclasses.replace(find(content, path, labels), notices=(notice,))
    return dataclasses.replace(source, multi_formation=request.multi_formation)


def _beside(path: Path) -> Path | None:
    """Return the file of labels beside one of images, preferably of the same suffix."""
    candidates = (path.with_name(f"labels{suffix}") for suffix in (path.suffix, *SUFFIXES))
    return next((each for each in candidates if each != path and is_tensor_file(each)), None)


TENSORS = Format(
    "tensors",
    "a .pt, .npy, .npz or .safetensors file with images, and labels or soft labels",
    is_tensor_file,
    _read,
)
