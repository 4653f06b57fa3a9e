"""``python -m dsdistill``, and the console script."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from dsdistill.runtime.program import run


def _load() -> Callable[[], int]:
    from dsdistill.cli import main

    return main


def program() -> NoReturn:
    """Run as the console script."""
    run(_load)


if __name__ == "__main__":
    program()
