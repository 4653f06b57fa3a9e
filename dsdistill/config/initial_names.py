"""What the images of a run start from, by name: a word, or the path of a set's file."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError


def is_set_file(init: str) -> bool:
    """Whether this is a path, which has a suffix or a folder, and no word.

    >>> is_set_file("kmeans"), is_set_file("set.h5"), is_set_file("sets/dm")
    (False, True, True)
    """
    return "." in init or "/" in init


def _checked(init: str) -> str:
    if not is_set_file(init):
        raise PydanticCustomError("set_file", "a set's file, such as set.h5")
    return init


SetFile = Annotated[str, AfterValidator(_checked)]
"""The type of an option that holds such a path."""
