"""Names of data sets: of the catalogue, with a path (``folder:PATH``, ``npz:PATH``, ``hf:PATH``), or of data
in memory (``memory:NAME``)."""

from __future__ import annotations

import os

from dsdistill.errors import UserError

_PATHS = ("folder", "npz")


def path_of(name: str) -> str:
    """Return the path in the name of a data set; empty where there is none.

    What follows ``hf:`` is a path if it begins like one, and the name of a data set on a server otherwise.

    >>> path_of("folder:pets"), path_of("hf:./pets"), path_of("hf:ylecun/mnist"), path_of("memory:pets")
    ('pets', './pets', '', '')
    """
    kind, _, place = name.partition(":")
    if kind in _PATHS or (kind == "hf" and (place.startswith((".", "~")) or os.path.isabs(place))):
        return place
    return ""


def data_name(name: str) -> str:
    """Return the name of a data set, of one's own the last part of its path.

    >>> data_name("folder:/home/anna/pets"), data_name("hf:/home/anna/pets"), data_name("cifar10")
    ('folder:pets', 'hf:./pets', 'cifar10')
    """
    path = path_of(name)
    if not path:
        return name
    kind = name.partition(":")[0]
    mark = "./" if kind == "hf" else ""  # that it is a path
    return f"{kind}:{mark}{os.path.basename(os.path.abspath(path)) or path}"


def is_memory(name: str) -> bool:
    """Whether data of this name were in memory, in no file that can be read again."""
    return name.startswith("memory:")


def gone(name: str) -> UserError:
    """Return the error for data that were in memory, where none are given."""
    return UserError(
        f"{name} was data in memory, which no file holds: in Python, give the same data again as dataset=…"
    )
