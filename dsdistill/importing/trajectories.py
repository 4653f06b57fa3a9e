"""What the code of MTT, TESLA and DATM leaves: images_best.pt or images_5000.pt, labels_… and lr_… beside it.

Pixels are standardised or whitened; images_zca_5000.pt holds whitened ones brought back to unit space. Labels
are hard (MTT, TESLA) or logits (DATM). Only DATM stores the learning rate; its files lie in a folder Normal.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from dsdistill.errors import UserError
from dsdistill.importing.content import find, number, read_labels
from dsdistill.importing.files import read_file
from dsdistill.importing.source import CONSTANTS_IN_USE, Format, Request, Source
from dsdistill.text import listing

_IMAGES = re.compile(r"images_(?P<zca>zca_)?(?P<step>best|\d+)\.pt")
_BEST = "images_best.pt"


def _candidates(path: Path) -> list[Path]:
    """Return the files of images that a path names or that lie in a folder; one if there is a best one."""
    if path.is_file():
        return [path] if _IMAGES.fullmatch(path.name) else []
    for folder in (path, path / "Normal"):
        if (folder / _BEST).is_file():
            return [folder / _BEST]
        if files := sorted(each for each in folder.glob("images_*.pt") if _IMAGES.fullmatch(each.name)):
            return [each for each in files if "zca" not in each.name] or files
    return []


def _read(path: Path, request: Request) -> Source:
    candidates = _candidates(path)
    if not candidates:
        raise UserError(f"{path} holds no images_best.pt and no images_5000.pt; name another --format")
    if len(candidates) > 1:
        names = listing([each.name for each in candidates], most=6)
        raise UserError(f"{path} holds several sets ({names}); name one of the files instead of the folder")
    (images,) = candidates
    step = _IMAGES.fullmatch(images.name)
    assert step is not None  # of a candidate
    source = find(read_file(images), images)
    labels, rate = (images.with_name(f"{what}_{step['step']}.pt") for what in ("labels", "lr"))
    if request.labels or labels.is_file():
        source = dataclasses.replace(source, labels=read_labels(request.labels or labels))
    lr = number(read_file(rate), rate) if rate.is_file() else None
    is_soft = source.labels is not None and source.labels.is_floating_point() and source.labels.dim() == 2
    unwhitened = images.with_name(f"images_zca_{step['step']}.pt").is_file() or any(
        images.parent.glob("images_zca_*.pt")
    )
    return dataclasses.replace(
        source,
        space="unit" if step["zca"] else "zca" if unwhitened else None,
        by_class=True,
        multi_formation=request.multi_formation,
        constants=CONSTANTS_IN_USE.get(request.dataset),
        lr=lr,
        protocol="datm" if is_soft else "mtt",
        notices=(_CHOSEN,) if images.name == _BEST else (),
    )


_CHOSEN = f"{_BEST} was chosen among iterations by its accuracy on the test images, which is flattered so"

TRAJECTORIES = Format(
    "mtt",
    "a folder of MTT, TESLA or DATM with images_best.pt, or its file images_5000.pt",
    lambda path: bool(_candidates(path)),
    _read,
)
