"""Runs whose real side is cached: the decision, the bytes, the estimate, and going on after a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from dsdistill.data import catalog
from dsdistill.distillation import assembly, caching
from dsdistill.distillation import config as configs
from dsdistill.distillation.caching import caching_words
from dsdistill.distillation.config import RunConfig
from dsdistill.distillation.memory import estimate
from dsdistill.distillation.output import written_options
from dsdistill.distillation.start import RunStart
from dsdistill.distillation.work import pixels_of_run
from dsdistill.errors import UserError
from dsdistill.runtime.checkpoints import RunDirectory
from tests.conftest import THREADS
from tests.helpers.callbacks import Told
from tests.helpers.supply import NETWORK

CPU = torch.device("cpu")
SNAPSHOTS = "engine.supply.kind=snapshots"
POOL = "engine.supply.kind=pool"
CHARACTERISTIC = "engine.discrepancy.kind=characteristic"
FEW = "engine.batch_real=8"
NETWORKS = 4
"""The pool has two networks at two epochs."""


@pytest.fixture(autouse=True)
def _much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "available_memory", lambda device: 10**9)


def planned(pool: Path, *overrides: str, **options: Any) -> RunConfig:
    told: dict[str, Any] = {"data": {"name": "digits"}, "ipc": 1, "network": NETWORK}
    if {SNAPSHOTS, POOL} & set(overrides):
        told["engine"] = {"supply": {"path": str(pool)}}
    return configs.resolve(told | options, (FEW, "compute.compile=false", *overrides))


def decided(pool: Path, *overrides: str, **options: Any) -> tuple[bool, int]:
    """Return whether the real side is cached, and the draws of each network."""
    config = planned(pool, *overrides, **options)
    compute = assembly.decide_auto(config, *catalog.load(config.data, "train"), CPU, print).compute
    assert isinstance(compute.cache_real, bool)
    return compute.cache_real, compute.cache_draws


def test_auto_caches_what_is_used_often_enough(pool: Path) -> None:
    assert decided(pool) == (False, 0)  # fresh networks have no end
    assert decided(pool, SNAPSHOTS, iterations=10_000) == (True, 32)
    assert decided(pool, SNAPSHOTS, iterations=8 * NETWORKS * 5) == (True, 5)
    assert decided(pool, SNAPSHOTS, iterations=8 * NETWORKS * 4 - 1) == (False, 0)
    assert decided(pool, SNAPSHOTS, "engine.supply.networks=1", iterations=8 * NETWORKS * 4 - 1) == (True, 7)
    assert decided(pool, SNAPSHOTS, "compute.cache_draws=10", iterations=80) == (True, 10)
    assert decided(pool, SNAPSHOTS, "compute.cache_draws=10", iterations=79) == (False, 10)
    assert decided(pool, SNAPSHOTS, "compute.cache_real=false", iterations=10_000) == (False, 0)
    assert decided(pool, SNAPSHOTS, "compute.cache_real=true", iterations=1) == (True, 1)
    assert decided(pool, SNAPSHOTS, "compute.cache_real=true", iterations=2000) == (True, 32)
    assert decided(pool, POOL, iterations=10_000) == (False, 0)
    assert decided(pool, POOL, "engine.supply.points=10", iterations=10_000) == (True, 32)
    assert decided(pool, method="dc", iterations=10_000) == (False, 0)


def test_a_budget_of_seconds_counts_as_the_iterations_that_it_allows(pool: Path) -> None:
    """As fast as with a cache: 30 passes for synthetic images, and an eighth of those for 80 real ones."""
    seconds = 8 * NETWORKS * 6.5 * 64 * (3 * 10 + 80 / 8) / 1.25e6
    assert decided(pool, SNAPSHOTS, iterations=10**9, seconds=seconds) == (True, 6)
    assert decided(pool, SNAPSHOTS, iterations=5, seconds=seconds) == (True, 6)  # they do not end it


def test_what_memory_does_not_hold_is_refused_with_what_it_holds(
    pool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_draw = 4 * 10 * 6 * 4  # class means of features, float32
    monkeypatch.setattr(caching, "available_memory", lambda device: int(NETWORKS * of_draw * 3.1 / 0.8))
    fits = (SNAPSHOTS, "compute.cache_real=true", "compute.cache_draws=3")
    assert decided(pool, *fits, iterations=10_000) == (True, 3)
    with pytest.raises(UserError, match=r"takes 15.4 KB for 4 networks x 4 draws.*compute.cache_draws=3$"):
        decided(pool, *fits[:2], "compute.cache_draws=4", iterations=10_000)
    assert decided(pool, *fits[:2], iterations=10_000) == (True, 3)
    assert decided(pool, SNAPSHOTS, iterations=10_000) == (False, 0)  # fewer than are worth it
    assert decided(pool, SNAPSHOTS, "compute.cache_draws=4", iterations=10_000) == (False, 4)
    monkeypatch.setattr(caching, "available_memory", lambda device: 1000)
    with pytest.raises(UserError, match=r"compute\.cache_real=false$"):
        decided(pool, *fits, iterations=10_000)


def test_where_there_is_nothing_to_cache_a_sentence_says_why(pool: Path) -> None:
    true = "compute.cache_real=true"
    with pytest.raises(UserError, match=r"needs finitely many networks.*engine\.supply\.kind=snapshots"):
        decided(pool, true)
    with pytest.raises(UserError, match=r"engine\.supply\.points=20"):
        decided(pool, true, POOL)
    with pytest.raises(UserError, match=r"compare features.*dc is none.*cache_real=false"):
        decided(pool, true, method="dc")
    clusters = ("engine.real_batches.kind=kmeans", "engine.real_batches.every=5")
    with pytest.raises(UserError, match=r"clusters choose them: set engine\.real_batches\.kind=random"):
        decided(pool, true, SNAPSHOTS, *clusters)


def words(pool: Path, *overrides: str, iterations: int = 10_000) -> str:
    asked = planned(pool, *overrides, iterations=iterations)
    data = catalog.load(asked.data, "train")
    return caching_words(asked, assembly.decide_auto(asked, *data, CPU, print), *data, CPU)


def test_the_start_of_a_run_says_what_was_decided(pool: Path) -> None:
    assert words(pool) == ""
    assert words(pool, SNAPSHOTS, "compute.cache_real=false") == ""
    cached = words(pool, SNAPSHOTS)
    assert cached.startswith("real side cached: 123 KB for 4 networks x 32 draws of real images, 960 B each")
    assert "100 iterations are too few for 4 networks x 3 draws" in words(pool, SNAPSHOTS, iterations=100)


@pytest.mark.parametrize(
    "overrides",
    [(), (CHARACTERISTIC, "engine.discrepancy.frequencies=16"), ("engine.discrepancy.kind=mmd",)],
    ids=["means", "characteristic", "features"],
)
def test_bytes_are_those_of_a_full_cache(pool: Path, overrides: tuple[str, ...]) -> None:
    given = (SNAPSHOTS, "compute.cache_real=true", "compute.cache_draws=2", *overrides)
    asked = planned(pool, *given, iterations=60)
    task, real = catalog.load(asked.data, "train")
    config = assembly.decide_auto(asked, task, real, CPU, print)
    distiller = assembly.assemble(config, task, real, CPU, print)
    cache = distiller.sources.cache
    assert cache is not None
    memory = estimate(distiller, real)
    assert memory.cached == cache.bytes > 0
    for _ in range(60):
        distiller.step()
    kept = [part for each in cache._kept.values() for part in (each if isinstance(each, tuple) else (each,))]
    assert sum(part.nbytes for part in kept) == cache.bytes
    live = assembly.assemble(
        planned(pool, SNAPSHOTS, *overrides, "compute.cache_real=false"), task, real, CPU, print
    )
    assert memory.total - estimate(live, real).total == cache.bytes
    start = RunStart(config, task, real, memory, 0, None, "", caching="real side cached")
    assert "cached real side" in start.describe()[2]
    assert start.describe()[3] == "real side cached"


def test_a_cached_run_passes_fewer_pixels(pool: Path) -> None:
    live, cached = (
        planned(pool, SNAPSHOTS, f"compute.cache_real={word}", "compute.cache_draws=2", iterations=100)
        for word in ("false", "true")
    )
    real = catalog.load(live.data, "train")[1]
    assert pixels_of_run(live, real) == 64 * (80 + 3 * 10) * 100
    assert pixels_of_run(cached, real) == 64 * (80 * 2 * NETWORKS + 3 * 10 * 100)


def run(output: Path, pool: Path, *overrides: str, **options: Any) -> torch.Tensor:
    """Distil digits along snapshots with a cached real side; return the pixels."""
    fixed = (THREADS, "compute.compile=false", FEW, SNAPSHOTS, "compute.cache_real=true", *overrides)
    told: dict[str, Any] = {"dataset": "digits", "ipc": 1, "network": NETWORK, "experts": pool}
    dsdistill.distill(output, **told, **{"iterations": 10, "overrides": fixed, **options})
    return dsdistill.load(output, space="unit").images


def killed(entry: dict[str, Any]) -> None:
    if entry["iteration"] == 7:
        raise RuntimeError("killed")


@pytest.mark.parametrize("overrides", [(), (CHARACTERISTIC, "engine.discrepancy.frequencies=16")])
def test_a_run_that_was_stopped_goes_on_to_the_same_pixels(
    tmp_path: Path, pool: Path, overrides: tuple[str, ...]
) -> None:
    whole = run(tmp_path / "whole.h5", pool, "compute.cache_draws=2", *overrides)

    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path / "set.h5", pool, "compute.cache_draws=2", *overrides, callbacks=[killed])
    resumed = run(tmp_path / "set.h5", pool, "compute.cache_draws=2", *overrides, resume=True)
    assert torch.equal(resumed, whole)
    live = run(tmp_path / "live.h5", pool, "compute.cache_real=false", *overrides)
    assert not torch.equal(live, whole)


@pytest.mark.parametrize("overrides", [(), (CHARACTERISTIC, "engine.discrepancy.frequencies=16")])
def test_what_is_kept_in_files_is_found_again(tmp_path: Path, pool: Path, overrides: tuple[str, ...]) -> None:
    fixed = ("compute.cache_draws=2", *overrides)
    whole = run(tmp_path / "whole.h5", pool, *fixed)
    fixed = (*fixed, "compute.cache_real=file")
    output = tmp_path / "set.h5"
    with pytest.raises(RuntimeError, match="killed"):
        run(output, pool, *fixed, callbacks=[killed])
    kept = {file: file.stat().st_mtime_ns for file in output.with_suffix(".run").glob("real-*")}
    assert kept
    assert torch.equal(run(output, pool, *fixed, resume=True), whole)
    assert all(file.stat().st_mtime_ns == written for file, written in kept.items())  # none is made anew
    run(output, pool, *fixed, iterations=1, overwrite=True)
    assert len(list(output.with_suffix(".run").glob("real-*"))) < len(kept)


def test_a_dry_run_counts_files_of_the_cache_as_disk(tmp_path: Path, pool: Path) -> None:
    fixed = (THREADS, "compute.compile=false", FEW, SNAPSHOTS, "compute.cache_real=file")
    told: dict[str, Any] = {"dataset": "digits", "ipc": 1, "network": NETWORK, "experts": pool}
    output = tmp_path / "set.h5"
    estimated = dsdistill.dry_run(dsdistill.distill, output, **told, iterations=10_000, overrides=fixed)
    assert estimated.cached_bytes == 0
    assert estimated.disk["real side"] == NETWORKS * 32 * 960
    assert not list(tmp_path.iterdir())


def test_a_dry_run_tells_the_bytes_of_the_cache(tmp_path: Path, pool: Path) -> None:
    starts: list[RunStart] = []
    fixed = (THREADS, "compute.compile=false", FEW, SNAPSHOTS)
    told: dict[str, Any] = {"dataset": "digits", "ipc": 1, "network": NETWORK, "experts": pool}
    estimated = dsdistill.dry_run(
        dsdistill.distill,
        tmp_path / "set.h5",
        **told,
        iterations=10_000,
        overrides=fixed,
        callbacks=[Told(started=starts.append)],
    )
    assert estimated.cached_bytes == NETWORKS * 32 * 960
    assert "123 KB of it the cached real side" in str(estimated)
    assert starts[0].caching.startswith("real side cached: 123 KB")


def test_a_run_begun_before_there_was_the_option_goes_on_without(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for text, expected in (("[compute]\nthreads = 1\n", False), ("[compute]\ncache_real = true\n", True)):
        run.write_config(text)
        assert written_options(run)["compute"]["cache_real"] is expected


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ('kind = "distribution"', 0),
        ('kind = "distribution"\nbatch_synthetic = 40', 40),
        ('kind = "attention"', None),
    ],
)
def test_a_run_begun_before_images_were_drawn_goes_on_with_all_of_them(
    tmp_path: Path, engine: str, expected: int | None
) -> None:
    run = RunDirectory(tmp_path)
    run.write_config(f"[engine]\n{engine}\n")
    assert written_options(run)["engine"].get("batch_synthetic") == expected
