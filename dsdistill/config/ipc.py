"""Images per class (IPC): one number for all classes, or one for each, by order or by name.

An option ``ipc`` is ``10``; ``[10, 10, 5]``, in the order of the classes; ``{ cat = 10, dog = 5 }``; or a
text, as a command line has them: ``"10,10,5"``, ``"cat=10,dog=5"``. Which classes there are is known once the
data are read. From then on it is an int where all classes have as many, else a tuple with an entry for each.
Data without labels are one class: their IPC is the number of images in all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dsdistill.errors import UserError, quoted, unknown

_LARGEST = 1_000_000

Ipc = int | tuple[int, ...] | dict[str, int]


def read_ipc(option: Any) -> Ipc:
    """Return an option's value in one of three forms: for all classes, by their order, or by their names.

    Raises:
        UserError: it is none of them, or a number is below 1 or too large for any set.

    >>> read_ipc("10"), read_ipc("10,5"), read_ipc("cat=10, dog=5")
    (10, (10, 5), {'cat': 10, 'dog': 5})
    """
    value = _parsed(option) if isinstance(option, str) else option
    if isinstance(value, Mapping) and value:
        return {str(name): _count(number, option) for name, number in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        return tuple(_count(number, option) for number in value)
    return _count(value, option)


def decided(ipc: Ipc, classes: Sequence[str]) -> int | tuple[int, ...]:
    """Return the images of each class in their order, or one number where all have as many.

    Raises:
        UserError: there are too few or too many numbers, or a name is unknown or missing.

    >>> decided({"dog": 5, "cat": 10}, ["cat", "dog"]), decided((7, 7), ["cat", "dog"])
    ((10, 5), 7)
    """
    if isinstance(ipc, int):
        return ipc
    if isinstance(ipc, dict):
        for name in ipc:
            if name not in classes:
                raise unknown("class in --ipc", name, list(classes))
        if missing := [name for name in classes if name not in ipc]:
            raise UserError(f"--ipc names no number of images for class {missing[0]!r}; name every class")
        ipc = tuple(ipc[name] for name in classes)
    if len(ipc) != len(classes):
        raise UserError(
            f"--ipc has {len(ipc)} numbers, and there are {len(classes)} classes; give one for each, or one "
            "for all"
        )
    return ipc[0] if len(set(ipc)) == 1 else ipc


def counts_of(ipc: Ipc | Sequence[int], classes: int) -> tuple[int, ...]:
    """Return the images of each class of an IPC that is `decided`."""
    return (ipc,) * classes if isinstance(ipc, int) else _numbers(ipc)


def typical(ipc: Ipc) -> int:
    """Return the IPC that settings of recipes and protocols go by: of unequal classes, the rounded mean."""
    return ipc if isinstance(ipc, int) else mean_ipc(_numbers(ipc))


def as_words(ipc: Ipc) -> str:
    """Return an IPC for people.

    >>> as_words(10), as_words((10, 5, 7))
    ('10', '5 to 10')
    """
    if isinstance(ipc, int):
        return str(ipc)
    numbers = _numbers(ipc)
    return f"{min(numbers)} to {max(numbers)}" if len(set(numbers)) > 1 else str(numbers[0])


def mean_ipc(counts: Sequence[int]) -> int:
    """Return the IPC that settings go by where classes have so many images: their mean, rounded; at least 1.

    >>> mean_ipc([10, 10, 5]), mean_ipc([1, 2])
    (8, 2)
    """
    return max(1, (2 * sum(counts) + len(counts)) // (2 * len(counts)))


def _numbers(ipc: Sequence[int] | Mapping[str, int]) -> tuple[int, ...]:
    return tuple(ipc.values() if isinstance(ipc, Mapping) else ipc)


def _parsed(text: str) -> Any:
    """Read a command line's text; what is no number stays text."""
    parts = [part.strip() for part in text.split(",")]
    if all("=" in part for part in parts):
        pairs = [part.rpartition("=") for part in parts]
        counts = {name.strip(): _number(count) for name, _, count in pairs}
        if len(counts) < len(pairs):
            raise UserError(f"--ipc {quoted(text)} names a class twice; name each once")
        return counts
    numbers = [_number(part) for part in parts]
    return numbers if len(numbers) > 1 else numbers[0]


def _number(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def _count(value: Any, option: Any) -> int:
    """Return one number of images.

    Raises:
        UserError: it is not a whole number, below 1, or too large for any set.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(
            f"option 'ipc' is {quoted(option)}: it takes a whole number, the images per class, "
            "or one for each class, such as 10,10,5 or cat=10,dog=5"
        )
    if value < 1:
        raise UserError(f"IPC must be at least 1, not {value}; pass --ipc 1 or more")
    if value > _LARGEST:
        raise UserError(f"IPC must be at most {_LARGEST:,}, and is larger; choose a smaller --ipc")
    return value
