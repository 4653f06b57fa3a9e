"""Which class of a data set each class of a source is: by name, by WordNet id, or by number."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from dsdistill.data.constants import SUBSETS, subset_wnids
from dsdistill.data.real import Task
from dsdistill.errors import UserError, quoted
from dsdistill.text import cell

_WNID = re.compile(r"n\d{8}")
_NUMBERED = re.compile(r"(?P<stem>\D*)(?P<number>[0-9]+)")
_LONGEST = 9
"""The digits of a number, without zeros before it."""


def match(names: Sequence[str], task: Task) -> tuple[list[int], str]:
    """Return the label of each name, and a sentence unless the names are those of the classes.

    >>> task = Task("pets", ("cat", "big dog"), 3, 32, Standardise.of((0.5,), (0.25,)), True)
    >>> match(["big_dog", "cat"], task)
    ([1, 0], 'classes were matched by name, without regard to case and punctuation')
    >>> match(["new000", "new001"], task)
    ([0, 1], "classes were matched by number: 'new000' is 'cat'")

    Raises:
        UserError: they are neither names of its classes, nor WordNet ids that are known, nor numbers.
    """
    for labels_by_name, how in _KEYS:
        labels = [labels_by_name(names, task).get(name, -1) for name in names]
        if min(labels) >= 0 and len(set(labels)) == len(labels):
            return labels, how.format(name=names[0], label=task.classes[labels[0]])
    strange = next((name for name in names if name not in task.classes), names[0])
    raise UserError(
        f"the class {quoted(strange)} is none of {task.name}'s; name classes as it does "
        f"({quoted(task.classes[0])}, …), by WordNet id, or by number from 0"
    )


def _exact(names: Sequence[str], task: Task) -> Mapping[str, int]:
    return {name: label for label, name in enumerate(task.classes)}


def _cells(names: Sequence[str], task: Task) -> Mapping[str, int]:
    """Return the names as labels.csv holds them."""
    return {cell(name): label for label, name in enumerate(task.classes)}


def _folded(names: Sequence[str], task: Task) -> Mapping[str, int]:
    labels = {_fold(name): label for label, name in enumerate(task.classes)}
    distinct = len(labels) == task.num_classes
    return {name: labels[_fold(name)] for name in names if distinct and _fold(name) in labels}


def _fold(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name).strip().casefold()


def _wnids(names: Sequence[str], task: Task) -> Mapping[str, int]:
    """Return the labels of WordNet ids: those of a subset, or of all classes in sorted order."""
    if not all(map(_WNID.fullmatch, names)):
        return {}
    if task.name in SUBSETS:
        return {name: label for label, name in enumerate(subset_wnids(task.name))}
    are_all = len(set(names)) == task.num_classes
    return {name: label for label, name in enumerate(sorted(names))} if are_all else {}


def _numbers(names: Sequence[str], task: Task) -> Mapping[str, int]:
    """Return the labels of numbers; without a 0 and with classes missing they may count from 1."""
    matches = {name: _NUMBERED.fullmatch(name) for name in names}
    stems = {each and each["stem"] for each in matches.values()}
    numbers = {name: each["number"].lstrip("0") for name, each in matches.items() if each}
    labels = {name: int(number or 0) for name, number in numbers.items() if len(number) <= _LONGEST}
    if len(stems) > 1 or not (0 in labels.values() or len(names) == task.num_classes):
        return {}
    return {name: label for name, label in labels.items() if label < task.num_classes}


_KEYS: tuple[tuple[Callable[[Sequence[str], Task], Mapping[str, int]], str], ...] = (
    (_exact, ""),
    (_cells, ""),
    (_folded, "classes were matched by name, without regard to case and punctuation"),
    (_wnids, "classes were matched by WordNet id: {name!r} is {label!r}"),
    (_numbers, "classes were matched by number: {name!r} is {label!r}"),
)
"""How names are understood, in this order, and the sentence that says so."""
