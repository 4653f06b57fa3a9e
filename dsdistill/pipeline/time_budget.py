"""The time that a whole run may take: a share of it trains experts, and the loop has what is left."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from dsdistill.errors import OutOfTime, UserError, quoted
from dsdistill.text import duration

_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}

_TIME = re.compile(rf"(\d+(?:\.\d+)?)\s*({'|'.join(_UNITS)})")

_EXPERTS = 0.25
"""Share of the time that the training of experts takes at most."""


class TimeBudget:
    """A time that begins now.

    Attributes:
        seconds: all of it.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._since = time.monotonic()

    @classmethod
    def read(cls, text: str) -> TimeBudget | None:
        """Read a time such as "90s", "10min" or "1.5h"; None if the text is a word.

        Raises:
            UserError: the time has no such unit, or is none.
        """
        match = _TIME.fullmatch(text.strip())
        if match is None:
            if text.strip()[:1].isdigit():
                raise UserError(f"a time is written 90s, 10min or 1.5h, not {quoted(text)}")
            return None
        if not (seconds := float(match[1]) * _UNITS[match[2]]):
            raise UserError(f"{quoted(text)} is no time to distil in: pass --budget 10min")
        return cls(seconds)

    @property
    def for_experts(self) -> float:
        """Seconds that the training of experts may take."""
        return _EXPERTS * self.seconds

    @property
    def left(self) -> float:
        """Seconds that are left for the loop, to a tenth; 0 or less if none are."""
        return round(self.seconds - (time.monotonic() - self._since), 1)

    def check(self, explicit: Mapping[str, Any]) -> None:
        """Check that nothing else says how long the run is.

        Args:
            explicit: nested options that the user has set, by name, in a file or as ``--set``.

        Raises:
            UserError: something does.
        """
        for option in ("seconds", "iterations"):
            if option in explicit:
                raise UserError(
                    f"--budget {duration(self.seconds)} and {option} both say how long the run is: set one"
                )

    def check_left(self) -> None:
        """Check that there is time for the loop.

        Raises:
            OutOfTime: there is none.
        """
        if self.left <= 0:
            raise OutOfTime(
                f"nothing is left of the {duration(self.seconds)} of --budget for the loop; experts that "
                "were trained are kept: pass a larger --budget"
            )

    def __repr__(self) -> str:
        return f"<TimeBudget of {duration(self.seconds)}>"
