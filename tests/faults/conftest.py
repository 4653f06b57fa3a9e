"""How much is disturbed: a sample in every test run, everything in a campaign, and the count of it."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from dsdistill.runtime.provenance import machine_name
from tests.faults.injector import Injector
from tests.faults.scenarios import REHEARSAL

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
    """Return a process that disturbs commands, where there is a C compiler on Linux; it has run each once."""
    try:
        started = Injector(tmp_path_factory.mktemp("injector"))
    except OSError:
        pytest.skip("no C compiler to build the injector with")
    folder = tmp_path_factory.mktemp("rehearsal")
    with started:
        for words in REHEARSAL:
            shutil.rmtree(folder / "out", ignore_errors=True)
            outcome = started.run(folder, words, forked=False)
            assert outcome.code == 0, outcome.text
        yield started


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """Count what a test disturbs and what comes of it; a campaign writes that down, and can be resumed."""
    record = _recorded()
    if request.node.nodeid in record["tests"]:
        pytest.skip("done by an earlier part of the campaign")
    counts: Counter[str] = Counter()
    failed = request.session.testsfailed
    yield counts
    if CAMPAIGN and request.session.testsfailed == failed:
        record["tests"][request.node.nodeid] = dict(counts)
        record["counts"] = dict(sorted(sum(map(Counter, record["tests"].values()), Counter()).items()))
        Path(CAMPAIGN).write_text(json.dumps(record, indent=2) + "\n")


def _recorded() -> dict[str, Any]:
    """Return what the campaign has found so far."""
    if CAMPAIGN and Path(CAMPAIGN).exists():
        record: dict[str, Any] = json.loads(Path(CAMPAIGN).read_text())
        return record
    return {
        "command": "make campaign",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine_name(torch.device("cpu")),
        "counts": {},
        "tests": {},
    }
