"""What the code of DC, DSA, DM, DataDAM and IDM leaves: res_DM_CIFAR10_ConvNet_10ipc.pt.

It holds the sets of all experiments of a run, as lists of standardised images and labels, and accuracies.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsdistill.errors import UserError
from dsdistill.importing.content import find
from dsdistill.importing.files import read_file
from dsdistill.importing.source import Format, Request, Source
from dsdistill.protocol import PROTOCOLS

_NAME = re.compile(r"(.*_)?res_(?P<method>[^_]+)_.*\.pth?")


def _read(path: Path, request: Request) -> Source:
    content = read_file(path)
    sets = content.get("data") if isinstance(content, Mapping) else None
    if not isinstance(sets, list | tuple) or not sets:
        raise UserError(
            f"{path} holds no list 'data' of images and labels; leave out --format, or name another"
        )
    source = find(_chosen(sets, path, request.which), path, request.labels)
    name = _NAME.fullmatch(path.name)
    method = name["method"].lower() if name else ""
    plain = request.factor is None
    return dataclasses.replace(
        source,
        multi_formation=request.multi_formation,
        protocol=method if method in PROTOCOLS.names() else "dm",
        notices=("each stored image is taken as one training image; for IDM pass --factor 2",)
        if plain
        else (),
    )


def _chosen(sets: Any, path: Path, which: int | None) -> Any:
    """Return one of the sets: the only one, or the one that was asked for."""
    if which is None and len(sets) > 1 and not hasattr(sets[0], "shape"):
        raise UserError(f"{path} holds {len(sets)} sets; choose one with --which 0 to {len(sets) - 1}")
    if hasattr(sets[0], "shape"):  # images and labels themselves, without a list around them
        return sets
    if not 0 <= (number := which or 0) < len(sets):
        raise UserError(f"there is no set {number} in {path}: it holds {len(sets)}, counted from 0")
    return sets[number]


CONDENSATIONS = Format(
    "dc",
    "res_DM_….pt of DC, DSA, DM, DataDAM or IDM",
    lambda path: path.is_file() and bool(_NAME.fullmatch(path.name)),
    _read,
    options=("labels", "factor", "which", "constants"),
)
