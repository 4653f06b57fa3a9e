"""How OpenMP's threads wait for one another: a setting of the process that counts before torch is loaded.

By default a thread that waits spins, and keeps a core busy that another program may need: two threads can
then be slower than one. ``benchmarks/waiting.py`` measures what each way costs.
"""

from __future__ import annotations

import os

POLICY = "PASSIVE"
"""Sleep instead of spinning."""

_CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables by which a user has chosen himself."""


def choose_waiting() -> None:
    """Set how the threads of this process and of those that it starts wait, unless the user has.

    Call this from the entry point of a program, not on import: it changes the whole process.
    """
    if not any(name in os.environ for name in _CHOICES):
        os.environ["OMP_WAIT_POLICY"] = POLICY
