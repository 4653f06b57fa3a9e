"""The tensors that DD-Ranking's evaluators read: images.pt, labels.pt, lr.pt and a configuration."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from dsdistill.errors import UserError
from dsdistill.files import read_text, reason
from dsdistill.importing.content import find, number, read_labels
from dsdistill.importing.files import read_file
from dsdistill.importing.source import CONSTANTS_IN_USE, Format, Request, Source

_IMAGES, _LABELS, _RATE, _CONFIG = "images.pt", "labels.pt", "lr.pt", "ddranking.yaml"
_WHITENED = re.compile(r"^use_zca:\s*(\w+)", re.MULTILINE)


def _read(path: Path, request: Request) -> Source:
    images, rate = path / _IMAGES, path / _RATE
    labels = request.labels or path / _LABELS
    source = find(read_file(images), images)
    config = _config(path / _CONFIG)
    whitened = _WHITENED.search(config)
    return dataclasses.replace(
        source,
        labels=read_labels(labels) if labels.exists() else None,
        are_logits="dsdistill" in config.partition("\n")[0],
        by_class=True,
        multi_formation=request.multi_formation,
        space=None if whitened is None else "zca" if whitened[1].lower() == "true" else "standardised",
        states_space=whitened is not None,
        constants=CONSTANTS_IN_USE.get(request.dataset),
        lr=number(read_file(rate), rate) if rate.exists() else None,
    )


def _config(path: Path) -> str:
    if not path.exists():
        return ""
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error


DDRANKING = Format(
    "ddranking",
    "a folder for DD-Ranking with images.pt, labels.pt and lr.pt",
    lambda path: (path / _IMAGES).is_file(),
    _read,
)
