"""How much is disturbed: a sample in every test run, everything in a campaign, and the count of it."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest
import torch

from dsdistill.runtime.provenance import machine_name
from tests.faults.injector import Injector

CAMPAIGN = os.environ.get("DSDISTILL_CAMPAIGN", "")
"""A file for the figures of a campaign; empty for a sample."""

T = TypeVar("T")


def chosen(places: Sequence[T], count: int) -> list[T]:
    """Return all places in a campaign; else the first, the last and some at random, always the same."""
    if CAMPAIGN or len(places) <= count:
        return list(places)
    inner = random.Random(0).sample(range(1, len(places) - 1), count - 2)
    return [places[position] for position in (0, *sorted(inner), len(places) - 1)]


@pytest.fixture(scope="session")
def injector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Injector]:
    """Return a process that disturbs commands, where there is a C compiler on Linux."""
    try:
        started = Injector(tmp_path_factory.mktemp("injector"))
    except OSError:
        pytest.skip("no C compiler to build the injector with")
    with started:
        yield started


@pytest.fixture(scope="session")
def tally() -> Iterator[Counter[str]]:
    """Count what was disturbed and what came of it; a campaign writes it down."""
    counts: Counter[str] = Counter()
    yield counts
    if CAMPAIGN:
        report = {
            "command": "make campaign",
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine_name(torch.device("cpu")),
            "counts": dict(sorted(counts.items())),
        }
        Path(CAMPAIGN).write_text(json.dumps(report, indent=2) + "\n")
