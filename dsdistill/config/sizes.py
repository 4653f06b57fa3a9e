"""Sizes: one set whose first 1, 2, 5, … images of each class are good sets themselves.

An option ``sizes`` is ``[1, 2, 5, 10]``, or a text, ``"1,2,5,10"``: ascending, and the last is the IPC.
``auto`` takes 1, 2, 5, 10, 20, 50 and so on below the IPC, and the IPC; ``[]`` is a set that is good as a
whole only.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from dsdistill.config.ipc import Ipc, typical
from dsdistill.errors import UserError

_STEPS = (1, 2, 5)


def _read(option: Any) -> Any:
    """Return an option's value as "auto" or a tuple.

    Raises:
        PydanticCustomError: it is neither.
    """
    if isinstance(option, str) and option != "auto":
        option = [int(part) if part.strip().isdecimal() else part for part in option.split(",")]
    if option == "auto":
        return option
    if not isinstance(option, Sequence) or any(type(size) is not int for size in option):
        raise PydanticCustomError("sizes", "sizes are auto, or whole numbers such as [1, 2, 5, 10]")
    return tuple(option)


Sizes = Annotated[Literal["auto"] | tuple[int, ...], BeforeValidator(_read)]
"""The type of the option."""


def check_sizes(sizes: Sizes, ipc: Ipc) -> None:
    """Check sizes against an IPC.

    Raises:
        UserError: one is below 1 or not above the one before, the last is not the IPC, or that is not the
            same for all classes.
    """
    if not sizes:
        return
    numbers = [ipc] if isinstance(ipc, int) else list(ipc.values() if isinstance(ipc, dict) else ipc)
    if len(set(numbers)) > 1:
        raise UserError("sizes are those of every class, so all have one IPC: pass --ipc N, or set sizes=[]")
    if sizes == "auto":
        return
    if sizes[0] < 1:
        raise UserError(f"sizes={list(sizes)}: a set has at least 1 image of a class; begin with 1 or more")
    if any(later <= earlier for earlier, later in itertools.pairwise(sizes)):
        raise UserError(f"sizes={list(sizes)} do not ascend; name each once, the smallest first")
    if sizes[-1] != numbers[0]:
        raise UserError(
            f"sizes={list(sizes)} end with {sizes[-1]}, and the IPC is {numbers[0]}: the last is the whole "
            f"set, so pass --ipc {sizes[-1]}, or end with {numbers[0]}"
        )


def decided_sizes(sizes: Sizes, ipc: Ipc) -> tuple[int, ...]:
    """Return sizes that are checked, with "auto" decided.

    >>> decided_sizes("auto", 20), decided_sizes("auto", 7), decided_sizes((1, 4), 4)
    ((1, 2, 5, 10, 20), (1, 2, 5, 7), (1, 4))
    """
    if sizes != "auto":
        return sizes
    whole = typical(ipc)
    powers = (10**power for power in range(len(str(whole))))
    below = [step * power for power in powers for step in _STEPS if step * power < whole]
    return (*below, whole)


def as_attribute(sizes: Sequence[int]) -> str:
    """Return the text that the file of a set holds.

    >>> as_attribute((1, 2, 5))
    '1,2,5'
    """
    return ",".join(map(str, sizes))


def of_attribute(text: object) -> tuple[int, ...]:
    """Return the sizes in a file's text; none where it is something else.

    >>> of_attribute("1,2,5"), of_attribute(""), of_attribute("many")
    ((1, 2, 5), (), ())
    """
    parts = str(text).split(",")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()
