"""A folder of pictures by class, as SRe2L, RDED and diffusion methods leave it, and dsdistill's export.

Folders are named by classes, WordNet ids or numbers. The export also writes labels.csv: file, label, class.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from dsdistill.data.listing import class_folders, list_classes
from dsdistill.data.pictures import GREY, Decoding, Header, pixels, probe, suffixes
from dsdistill.errors import UserError, quoted
from dsdistill.files import lies_inside, read_text, reason
from dsdistill.importing.source import Format, Request, Source
from dsdistill.runtime.device import check_memory

_TABLE = "labels.csv"


def _read(path: Path, request: Request) -> Source:
    notices: tuple[str, ...] = ()
    if (path / _TABLE).is_file():
        files, names = _table(path)
    else:
        listing = list_classes(path, path.name, "train")
        files, notices = list(listing.paths), listing.notices
        names = [listing.classes[label] for label in listing.labels.tolist()]
    classes = tuple(dict.fromkeys(names))
    side, changes = _side([probe(file) for file in files], request, path)
    decoding = Decoding(side, request.channels)
    check_memory(f"{len(files)} pictures take", 8 * len(files) * request.channels * side**2)
    return Source(
        images=torch.from_numpy(np.stack([pixels(file, decoding) for file in files])),
        labels=torch.tensor([classes.index(name) for name in names]),
        classes=classes,
        space="unit",
        multi_formation=request.multi_formation,
        notices=(*notices, *changes),
    )


def _table(folder: Path) -> tuple[list[Path], list[str]]:
    """Read labels.csv: the pictures and the class of each."""
    table = folder / _TABLE
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(table), newline="")))
        pairs = [(row["file"], row["class"]) for row in rows]
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UserError(
            f"cannot read {table} as a table of file, label and class ({reason(error)}); delete or mend it"
        ) from error
    if not pairs:
        raise UserError(f"{table} lists no pictures; delete or mend it")
    for name, _ in pairs:
        if not name or not lies_inside(name):
            raise UserError(f"{table} lists {quoted(name)}, which does not lie in the folder; mend it")
    return [folder / name for name, _ in pairs], [name or "" for _, name in pairs]


def _side(headers: Sequence[Header], request: Request, path: Path) -> tuple[int, list[str]]:
    """Return the side that pictures are decoded at, and sentences on what that changes.

    Raises:
        UserError: they are of different sizes or not square, and no size was asked for.
    """
    shapes = Counter((header.width, header.height) for header in headers)
    (width, height), _ = shapes.most_common(1)[0]
    if request.size is None and (len(shapes) > 1 or width != height):
        sizes = f"{len(shapes)} sizes" if len(shapes) > 1 else f"{width}x{height} pixels"
        raise UserError(f"the pictures in {path} have {sizes}; pass --size to make them square of one size")
    side, changes = request.size or width, []
    if resized := sum(count for shape, count in shapes.items() if shape != (side, side)):
        changes.append(f"{resized} pictures were resized to {side}x{side}")
    grey = request.channels == 1
    if recoloured := sum((header.kind in GREY) != grey for header in headers):
        changes.append(
            f"{recoloured} pictures were {'reduced to luma' if grey else 'repeated to 3 channels'}"
        )
    return side, changes


def _recognises(path: Path) -> bool:
    """Whether a folder has labels.csv, or several folders of pictures: a single one may hold figures."""
    if not path.is_dir():
        return False
    folders = [path / name for name in class_folders(path)]
    holding = itertools.islice(filter(_holds_pictures, folders), 2)
    return (path / _TABLE).is_file() or len(list(holding)) == 2


def _holds_pictures(folder: Path) -> bool:
    try:
        return any(file.suffix.lower() in suffixes() for file in folder.iterdir())
    except OSError:  # it cannot be read; whoever reads it says so
        return False


PICTURES = Format(
    "pictures", "a folder CLASS/picture.png, of any kind of picture", _recognises, _read, options=("factor",)
)
