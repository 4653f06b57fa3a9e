"""Runs that stand alone: what they begin with, and when they begin anew."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import dsdistill
from benchmarks import isolation


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DSDISTILL_CACHE", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.setenv(name, "elsewhere")


def test_each_task_has_a_process_of_its_own() -> None:
    with isolation.processes(1) as pool:
        numbers = [pool.submit(os.getpid).result() for _ in range(2)]
    assert len({*numbers, os.getpid()}) == 3


def test_a_cache_is_emptied_and_holds_compiled_code_too(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "experts").mkdir(parents=True)
    isolation.prepare(cache)
    assert not [path for path in cache.rglob("*") if path.name != "code"]
    assert os.environ["DSDISTILL_CACHE"] == str(cache)
    code = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert code.parent == cache
    code.mkdir(exist_ok=True)
    (cache / "experts").mkdir()
    isolation.remove_code(cache)
    assert list(cache.iterdir()) == [cache / "experts"]


def test_a_run_that_was_stopped_begins_anew_and_a_finished_one_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, begun = iter([100.0, 200.0, 212.5]), []

    def distill(output: Path, *, overwrite: bool, **options: Any) -> None:
        assert overwrite
        expert = Path(os.environ["DSDISTILL_CACHE"]) / "experts.h5"
        begun.append(expert.exists())
        expert.touch()
        output.touch()
        if len(begun) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(dsdistill, "distill", distill)
    monkeypatch.setattr(isolation, "processes", ThreadPoolExecutor)
    monkeypatch.setattr(isolation.time, "monotonic", lambda: next(clock))
    with pytest.raises(KeyboardInterrupt):
        isolation.distil(tmp_path / "set.h5", method="dm")
    assert [isolation.distil(tmp_path / "set.h5", method="dm") for _ in range(2)] == [12.5, 12.5]
    assert begun == [False, False]
