"""A pool of trained networks of the digits."""

from __future__ import annotations

from pathlib import Path

import dsdistill
from tests.conftest import THREADS

NETWORK = "convnet2-w6"


def train_pool(path: Path) -> Path:
    """Train two networks of ``NETWORK`` for an epoch; the fixture ``pool`` is their file."""
    dsdistill.train_experts(
        path,
        dataset="digits",
        recipe="ncfm",
        network=NETWORK,
        count=2,
        epochs=1,
        device="cpu",
        overrides=["compute.compile=false", THREADS],
    )
    return path
