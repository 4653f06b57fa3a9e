"""Randomness: every draw is a function of (seed, stream, index), never of what was drawn before.

That makes a resumed run equal an unbroken one, and a result independent of how the work was split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, stream: str, *index: int) -> int:
    """Hash (seed, stream, index…) to an integer in [0, 2^63), independent across streams and indices."""
    text = "/".join([str(seed), stream, *map(str, index)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, stream: str, *index: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator for one draw, e.g. ``generator(0, "batches", iteration)``."""
    return torch.Generator(device=device).manual_seed(derive(seed, stream, *index))


@contextmanager
def forked(seed: int, stream: str, *index: int) -> Iterator[None]:
    """Seed torch's global generators for code that can use no other, and restore them afterwards.

    Layer constructors draw their initial weights from the CPU's; build them on the CPU inside this fence,
    then move them. Dropout on a CUDA device draws from that device's.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(derive(seed, stream, *index))
        if devices:
            torch.cuda.manual_seed_all(derive(seed, stream, *index))
        yield
