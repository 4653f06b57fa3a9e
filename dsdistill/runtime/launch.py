"""Whether torchrun, or what sets the variables that it sets, started this process as one of several.

Nothing here imports torch: the command line asks before it has anything to import it for.
"""

from __future__ import annotations

import os


def process_count() -> int:
    """Return how many processes were started together."""
    return _number("WORLD_SIZE", 1) if "RANK" in os.environ else 1


def is_several() -> bool:
    """Whether there is more than this one."""
    return process_count() > 1


def is_first() -> bool:
    """Whether this is the process that writes files and speaks."""
    return not is_several() or _number("RANK", 0) == 0


def local_index() -> int:
    """Return the number of this process on its machine."""
    return _number("LOCAL_RANK", 0)


def local_count() -> int:
    """Return how many of the processes are on this machine; 1 where nothing says so."""
    return _number("LOCAL_WORLD_SIZE", 1) if is_several() else 1


def attempt() -> int:
    """Return how often the processes were started again because one of them had failed."""
    return _number("TORCHELASTIC_RESTART_COUNT", 0) if is_several() else 0


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else default
