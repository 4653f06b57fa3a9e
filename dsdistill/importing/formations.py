"""What the code of IDC and NCFM leaves: data.pt or data_20000.pt, a list of images and labels.

Pixels are in unit space and may exceed it by one step of the optimiser. A stored image is decoded into
factor × factor training images, and the file does not say into how many.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from dsdistill.errors import UserError
from dsdistill.importing.content import find
from dsdistill.importing.files import read_file
from dsdistill.importing.source import Format, Request, Source
from dsdistill.synthetic.multi_formation import MultiFormation
from dsdistill.text import listing

_NAME = re.compile(r"data(_best|_(?P<step>\d+))?\.pt")
_FACTOR = re.compile(r"factor[_=-]?(\d+)")
"""In the name of a folder, as IDC's code calls it."""


def _candidates(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if _NAME.fullmatch(path.name) else []
    folders = (path, path / "distilled_data")
    return [
        each for folder in folders for each in sorted(folder.glob("data*.pt")) if _NAME.fullmatch(each.name)
    ]


def _read(path: Path, request: Request) -> Source:
    candidates = _candidates(path)
    if not candidates and path.is_file():
        candidates = [path]  # the user named the format, so that the file may have any name
    if not candidates:
        raise UserError(f"{path} holds no data.pt; name the file, or another --format")
    if len(candidates) > 1:
        names = listing([each.name for each in candidates], most=6)
        raise UserError(f"{path} holds several sets ({names}); name one of the files instead of the folder")
    (file,) = candidates
    factor, notices = _factor(file, request.factor)
    step = _NAME.fullmatch(file.name)
    return dataclasses.replace(
        find(read_file(file), file, request.labels),
        space="unit",
        multi_formation=MultiFormation(factor=factor),
        protocol="ncfm" if step and step["step"] else "idc",
        notices=notices,
    )


def _factor(file: Path, option: int | None) -> tuple[int, tuple[str, ...]]:
    if option is not None:
        return option, ()
    names = [match[1] for name in file.absolute().parts if (match := _FACTOR.search(name))]
    if not names or not 1 <= (factor := int(names[-1][:4])) <= 64:
        raise UserError(
            f"{file} does not say into how many images a stored one is decoded; pass --factor: 2 for most of "
            "IDC and NCFM (3 for ImageNet), 1 for plain images"
        )
    return factor, (f"factor {factor}, as the name of its folder says",)


FORMATIONS = Format(
    "idc",
    "data.pt of IDC or data_20000.pt of NCFM, or the folder that holds it; needs --factor",
    lambda path: bool(_candidates(path)),
    _read,
)
