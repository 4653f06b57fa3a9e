"""The formats that are imported, and which one a path is of."""

from __future__ import annotations

import os
from pathlib import Path

from dsdistill.errors import UserError, unknown
from dsdistill.importing.condensations import CONDENSATIONS
from dsdistill.importing.ddranking import DDRANKING
from dsdistill.importing.files import is_tensor_file
from dsdistill.importing.formations import FORMATIONS
from dsdistill.importing.hdf5 import HDF5
from dsdistill.importing.pictures import PICTURES
from dsdistill.importing.source import Format
from dsdistill.importing.tensors import TENSORS
from dsdistill.importing.trajectories import TRAJECTORIES
from dsdistill.text import listing

SPECIFIC = (HDF5, TRAJECTORIES, FORMATIONS, CONDENSATIONS, DDRANKING, PICTURES)
"""Formats that names of files and folders tell apart."""
FORMATS = {each.name: each for each in (*SPECIFIC, TENSORS)}


def recognise(path: Path, name: str = "auto") -> tuple[Path, Format]:
    """Return the source and its format: the one that was named, else the only one that fits.

    A folder that holds a single file of tensors stands for that file.

    Raises:
        UserError: there is no such path, the name is unknown, no format fits, or several do.
    """
    if name not in ("auto", *FORMATS):
        raise unknown("import format", name, ("auto", *FORMATS))
    if not os.path.exists(path):  # unlike Path.exists, it takes any name
        raise UserError(f"no file or folder at {path}")
    if name != "auto":
        return path, FORMATS[name]
    fitting = [each for each in SPECIFIC if each.recognises(path)]
    if len(fitting) > 1:
        names = " and ".join(each.name for each in fitting)
        raise UserError(f"{path} looks like {names}; choose one with --format, or name a file in it")
    if fitting:
        return path, fitting[0]
    if path.is_dir():
        return _only_file(path), TENSORS
    if is_tensor_file(path):
        return path, TENSORS
    raise _unrecognised(path)


def _only_file(folder: Path) -> Path:
    files = sorted(each for each in folder.iterdir() if is_tensor_file(each))
    if not files:
        raise _unrecognised(folder)
    if len(files) > 1:
        names = listing([each.name for each in files], most=6)
        raise UserError(f"{folder} holds several files of tensors ({names}); name one of them")
    return files[0]


def _unrecognised(path: Path) -> UserError:
    formats = "; ".join(f"{each.name} ({each.about})" for each in FORMATS.values())
    return UserError(f"{path} is of no known format; known: {formats}")
