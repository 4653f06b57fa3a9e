"""Data without labels: all images are of one class, whose name says that it is none."""

from __future__ import annotations

from collections.abc import Sequence

from dsdistill.errors import UserError

UNLABELLED = ("unlabelled",)
"""The classes of data without labels; every image has label 0, and their IPC is their number in all."""


def is_labelled(classes: Sequence[str]) -> bool:
    """Whether the classes of data are such, and not the one of data without labels.

    >>> is_labelled(("cat", "dog")), is_labelled(UNLABELLED)
    (True, False)
    """
    return tuple(classes) != UNLABELLED


def classes_words(classes: Sequence[str]) -> str:
    """Say how many classes there are: "10 classes", or "without labels"."""
    return f"{len(classes)} classes" if is_labelled(classes) else "without labels"


def check_labelled(classes: Sequence[str], name: str, need: str, remedy: str) -> None:
    """Refuse data or a set without labels where these are needed.

    Args:
        classes, name: of the data or of the set.
        need: a clause that says what needs labels.
        remedy: a clause that says what to do.

    Raises:
        UserError: there are no labels.
    """
    if not is_labelled(classes):
        raise UserError(f"{name} has no labels, and {need}; {remedy}")
