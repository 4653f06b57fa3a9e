"""Short command lines, and how the tests run them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsdistill.cli import main
from tests.conftest import THREADS

Captured = pytest.CaptureFixture[str]

TINY = (
    "--dataset",
    "digits",
    "--ipc",
    "1",
    "--network",
    "convnet2-w8",
    "--iterations",
    "3",
    "--set",
    THREADS,
)
FAST = ("--epochs", "2", "--repeats", "2", "--networks", "convnet2-w8")


def succeed(capsys: Captured, *words: object) -> tuple[str, str]:
    """Run a command that must work; return what it wrote to stdout and stderr."""
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out, captured.err


def refused(capsys: Captured, *words: object) -> str:
    """Run a command that must be refused with one line; return that line."""
    assert main([str(word) for word in words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("dsdistill: ")
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


def pictures(folder: Path, classes: dict[str, int]) -> Path:
    noise = np.random.default_rng(0)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = noise.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder
