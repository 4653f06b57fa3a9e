"""Randomness: every draw is a function of (seed, stream, index), never of earlier draws.

So a resumed run equals an uninterrupted one, and a result does not depend on how the work was split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, stream: str, *index: int) -> int:
    """Hash (seed, stream, index…) to an integer in [0, 2^63), independent across streams and indices.

    >>> derive(0, "batches", 7) == derive(0, "batches", 7) != derive(0, "batches", 8)
    True
    """
    text = "/".join([str(seed), stream, *map(str, index)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, stream: str, *index: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator for one draw.

    >>> torch.randperm(5, generator=generator(0, "batches", 7))
    tensor([3, 0, 2, 4, 1])
    """
    return torch.Generator(device=device).manual_seed(derive(seed, stream, *index))


@contextmanager
def forked(seed: int, stream: str, *index: int) -> Iterator[None]:
    """Seed torch's global generators for code that cannot use another one, and restore them afterwards.

    Layer constructors draw their initial weights from the CPU's generator: build networks on the CPU inside
    this context, then move them. Dropout on a CUDA device draws from the generator of that device.

    >>> with forked(0, "networks"):
    ...     one = torch.nn.Linear(2, 2)
    >>> with forked(0, "networks"):
    ...     other = torch.nn.Linear(2, 2)
    >>> torch.equal(one.weight, other.weight)
    True
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(derive(seed, stream, *index))
        if devices:
            torch.cuda.manual_seed_all(derive(seed, stream, *index))
        yield
