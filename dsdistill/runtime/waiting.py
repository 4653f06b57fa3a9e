"""How OpenMP's threads wait for one another: a setting of the process that counts before torch is loaded.

By default a thread that waits spins for long, and keeps a core busy that another program may need: two
threads can then be slower than one. A thread that sleeps at once has to be woken, which costs a little on a
machine that does nothing else. To spin a short time and then sleep costs neither; ``benchmarks/waiting.py``
measures all three.
"""

from __future__ import annotations

import os

SPINS = "1000"
"""Turns of a thread before it sleeps, for GNU's OpenMP, with which torch is built on Linux."""

_CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables by which a user has chosen himself."""


def choose_waiting() -> None:
    """Set how the threads of this process and of those that it starts wait, unless the user has.

    Call this from the entry point of a program, not on import: it changes the whole process.
    """
    if not any(name in os.environ for name in _CHOICES):
        os.environ["GOMP_SPINCOUNT"] = SPINS
