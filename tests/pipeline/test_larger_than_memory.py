"""What a command takes in memory does not grow with the data."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.helpers.memory_use import peaks, write_images

SMALL, LARGE = 2400, 7200
"""Images; what passes through a network at once still grows below these.

Two equal runs differ by up to 9 MB, so what is allowed has to be more than that.
"""
DIFFERENCE = (LARGE - SMALL) * 3 * 64 * 64
"""Bytes of training images."""
LITTLE = DIFFERENCE // 4

CALLS = """
options = {"dataset": dataset, "network": "mlp", "device": "cpu", **quick}

def distil(name, **changed):
    return dsdistill.distill(f"{folder}/{name}.h5", ipc=1, iterations=2, **{**options, **changed})

peak_of("warm", lambda: distil("warm", dataset="digits"))
few = [*quick["overrides"], "engine.batch_real=16"]
peak_of("distill", lambda: distil("set", overrides=few))
training = {**options, "recipe": "teacher", "count": 1, "epochs": 1}
training["overrides"] = [*quick["overrides"], "test=validation", "batch_size=64"]
peak_of("experts", lambda: dsdistill.train_experts(folder + "/experts.h5", **training))
evaluation = {"dataset": dataset, "epochs": 1, "repeats": 1, "save": False, "device": "cpu"}
evaluation |= {"baselines": "random,full", "compile": False}  # the compiler is no data
peak_of("evaluate", lambda: dsdistill.evaluate(folder + "/set.h5", **evaluation))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    found = []
    for count in (SMALL, LARGE):
        folder = tmp_path / str(count)
        folder.mkdir()
        found.append(peaks(folder, write_images(folder / "data.npz", count), CALLS))
    small, large = found
    grown = {name: large[name] - small[name] for name in small}
    assert all(each < LITTLE for each in grown.values()), grown
