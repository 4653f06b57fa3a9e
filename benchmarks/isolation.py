"""Runs that stand alone: each in a process and with a cache of its own, as the first on its machine.

Where methods or settings have the same seconds, all must pay alike. An earlier run would leave others its
experts, the data as it decoded them, and the code that torch compiled, which takes a minute. That code stays
on disk and in the process, where torch also gives up compiling what it has compiled eight times. So every run
begins with nothing, and its seconds hold all that it makes. Modules alone are imported before the clock
starts: some methods would import them with their experts, and others before their time is counted.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import dsdistill
from dsdistill.files import read_json, replace

_CODE = "code"
"""The folder of a cache in which torch keeps what it compiles."""


def processes(count: int) -> ProcessPoolExecutor:
    """Return so many workers, which do each of their tasks in a new process."""
    return ProcessPoolExecutor(count, get_context("spawn"), max_tasks_per_child=1)


def prepare(folder: Path) -> None:
    """Empty a folder, have this process cache there, also what torch compiles, and import what runs need.

    The process must not have compiled before.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["DSDISTILL_CACHE"] = str(folder)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / _CODE)
    importlib.import_module("torch._dynamo")  # which every optimiser of torch imports
    getattr(dsdistill, "distill")  # noqa: B009  # which is imported when it is first named


def remove_code(folder: Path) -> None:
    """Remove from a cache what torch compiled, which is the larger part; experts stay."""
    shutil.rmtree(folder / _CODE, ignore_errors=True)


def distil(output: Path, **options: Any) -> float:
    """Distil in a process of its own, unless that is done, and return the seconds from call to file.

    A run that was stopped begins anew. Cache and seconds lie beside the set: ``NAME.cache``, ``NAME.json``.

    Args:
        output: the file of the set.
        options: of `dsdistill.distill`.
    """
    note = output.with_suffix(".json")
    if not (note.exists() and output.exists()):
        with processes(1) as pool:
            seconds = pool.submit(_timed, output, options).result()
        replace(note, json.dumps({"wall_seconds": seconds}).encode())
    return float(read_json(note)["wall_seconds"])


def _timed(output: Path, options: Mapping[str, Any]) -> float:
    cache = output.with_suffix(".cache")
    prepare(cache)
    began = time.monotonic()
    dsdistill.distill(output, overwrite=True, **options)
    seconds = time.monotonic() - began
    remove_code(cache)
    return seconds
