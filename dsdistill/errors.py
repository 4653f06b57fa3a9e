"""Errors that are meant for the user."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator
from typing import Any


class UserError(Exception):
    """Bad input. The message is one line: what is wrong and how to mend it.

    The command line prints the message without a traceback and exits with code 2.

    >>> try:
    ...     dsdistill.load("missing.h5")
    ... except dsdistill.UserError as error:
    ...     print(error)
    no file at missing.h5
    """


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error for an unknown name, with the nearest known one.

    Args:
        kind: of the name, for example ``"data set"``.
        name: as the user wrote it.
        known: every accepted name.

    >>> print(unknown("data set", "cifar11", ["cifar10", "mnist"]))
    unknown data set 'cifar11'; did you mean 'cifar10'?
    """
    choices = sorted(set(known))
    name = name[:_LONGEST]
    near = equivalents(name, choices) or difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near[:4]))}?" if near else f"known: {_listed(choices)}"
    return UserError(f"unknown {kind} {quoted(name)}; {hint}")


def equivalents(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names that differ in case only; else the options whose last part is the name.

    >>> equivalents("lr", ["optimiser.lr", "lrs"]), equivalents("CIFAR10", ["cifar10"])
    (['optimiser.lr'], ['cifar10'])
    """
    choices = sorted(set(known), key=lambda each: (each.count("."), each))
    same = [each for each in choices if each.casefold() == name.casefold()]
    return same or [each for each in choices if each.rpartition(".")[2] == name]


def quoted(value: Any, most: int = 80) -> str:
    """Return how Python writes a value, cut where it is long.

    >>> quoted("dm"), quoted("x" * 1000, most=6)
    ("'dm'", "'xxxxx…")
    """
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"


_MANY = 40
_LONGEST = 1000


def _listed(choices: list[str]) -> str:
    few = ", ".join(choices[:_MANY])
    return few if len(choices) <= _MANY else f"{few}, … ({len(choices)} in all)"


_DEEPEST = 20


def causes(error: BaseException, implicit: bool = False) -> Iterator[BaseException]:
    """Yield an exception, the one it was raised from, and so on to the innermost.

    >>> outer = RuntimeError("no graph")
    >>> outer.__cause__ = OSError("no space")
    >>> [str(each) for each in causes(outer)]
    ['no graph', 'no space']

    Args:
        implicit: follow also what was being handled when an exception was raised.
    """
    each: BaseException | None = error
    for _ in range(_DEEPEST):  # an exception may be its own context
        if each is None:
            return
        yield each
        inner = getattr(each, "inner_exception", None) or each.__cause__  # the first is of torch's compiler
        each = inner or (each.__context__ if implicit else None)


_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""Parts of the messages of torch's RuntimeErrors that mean it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the machine or of a GPU was too small. This does not import torch.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(ValueError())
    (True, False)
    """
    types = {kind.__name__ for kind in type(error).__mro__}
    return (
        bool(types & {"OutOfMemoryError", "MemoryError"})
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or any(part in str(error) for part in _OUT_OF_MEMORY)
    )


class NonFiniteLoss(UserError):
    """The loss became infinite or NaN."""


class OutOfTime(UserError):
    """The time for a whole run is too short to train its experts in, or nothing of it is left after them."""
