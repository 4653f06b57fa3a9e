"""Faults of a disk: an operation on a file that fails."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from typing import Any

import pytest

from dsdistill.files import writing

CALLS = ("open", "mkdir", "replace", "rename", "unlink", "rmdir", "fsync", "fchmod")
"""The functions of ``os`` that count, besides what is done with a file that is being written."""


class Fault:
    """Strikes at one operation.

    Attributes:
        count: operations so far.
    """

    def __init__(self, at: int, act: Callable[[str], None], lasts: bool = False) -> None:
        """Arm it.

        Args:
            at: the operation, counted from 1, before which it strikes.
            act: called with the name of the operation.
            lasts: whether it strikes at every later operation too.
        """
        self._at, self._act, self._lasts = at, act, lasts
        self.count = 0

    def strike(self, operation: str) -> None:
        self.count += 1
        if self.count == self._at or (self._lasts and self.count > self._at):
            self._act(operation)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Put it below every file that is written."""
        patch.setattr(writing, "open", self._open, raising=False)
        for name in CALLS:
            patch.setattr(os, name, self._before(name, getattr(os, name)))

    def _before(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def struck(*arguments: Any, **options: Any) -> Any:
            self.strike(name)
            return call(*arguments, **options)

        return struck

    def _open(self, path: Any, mode: str, opener: Any = None) -> Any:
        fault = self

        class Raw(io.FileIO):
            def write(self, data: Any) -> int | None:
                fault.strike("write")
                return super().write(data)

            def truncate(self, size: int | None = None) -> int:
                fault.strike("truncate")
                return super().truncate(size)

            def readinto(self, buffer: Any) -> int | None:
                fault.strike("read")
                return super().readinto(buffer)

        self.strike("open")
        kinds = {"x+b": io.BufferedRandom, "xb": io.BufferedWriter, "rb": io.BufferedReader}
        return kinds[mode](Raw(path, mode, opener=opener))  # type: ignore[abstract]


def failing(number: int) -> Callable[[str], None]:
    """Return what raises an error of the system, such as ``errno.EIO``."""

    def fail(operation: str) -> None:
        raise OSError(number, os.strerror(number))

    return fail


ERRORS = {name: getattr(errno, name) for name in ("ENOSPC", "EIO", "EROFS")}
