"""How much faster iterations are whose real side is cached, measured side by side on this machine.

    python benchmarks/cached_real.py              means (DM), means and cross-entropy, TGDD, NCFM
    python benchmarks/cached_real.py --only ncfm
    python benchmarks/cached_real.py --quick      small networks, few rounds: whether it works; writes nothing

Fashion-MNIST, ConvNet-3, ten images per class. Three variants of an iteration take turns, each in a
process of its own: live; found, whose real side is there; computed, which is the first to need it. A run
of 600 seconds has as many draws as compute.cache_real=auto chooses for it; the first iteration of each
computes it. Means and cross-entropy are the two terms of TGDD under one network. The recipe has its
second term under a later network, in another pass, and decodes each image into four; its synthetic side
is the larger one. The record says how many iterations such a run takes live and cached, compiling aside,
what the cache costs in seconds and bytes, and the ratio. It goes to artifacts/speed-cached-real.json.
Accuracy at equal seconds is another question:

    dsdistill bench benchmarks/suites/cached-real-ipc10.toml -o results/cached-real
    python benchmarks/record.py results/cached-real
"""

from __future__ import annotations

import argparse
import bisect
import dataclasses
import functools
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


from benchmarks import variants
from benchmarks.alternate import alternate, report
from benchmarks.common import speed_record, write_record
from dsdistill.config.options import merge
from dsdistill.data import catalog
from dsdistill.distillation import assembly
from dsdistill.distillation import config as configs
from dsdistill.networks import build_network
from dsdistill.networks.layout import Layout
from dsdistill.seeding import forked

SECONDS = 600.0
EPOCHS = 5
"""Snapshots of one expert; and the points of the pool."""

_ALONG_SNAPSHOTS = {"supply": {"kind": "snapshots"}}
METHODS: dict[str, dict[str, Any]] = {
    "dm": {"method": "dm", "engine": _ALONG_SNAPSHOTS},
    "means-classes": {
        "method": "dm",
        "engine": {**_ALONG_SNAPSHOTS, "batch_real": 128, "classification": 1.0},
    },
    "tgdd": {"method": "tgdd"},
    "ncfm": {"method": "ncfm", "engine": {"supply": {"points": EPOCHS}}},
}
"""What is matched: DM's means, with the cross-entropy of the matched network or without it, along snapshots;
and recipes as they are, the points of NCFM's pool aside."""

QUICK: dict[str, Any] = {"network": "convnet3-w8", "engine": {"batch_real": 16}}
BASE = {"data": {"name": "fashion-mnist"}, "ipc": 10}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One method with a file of networks."""

    options: dict[str, Any]
    quick: bool

    def resolved(self, **compute: Any) -> configs.RunConfig:
        """Return the config of a run of `SECONDS`, with some options of the computation."""
        fixed = {"compile": not self.quick, **compute}
        return configs.resolve({**BASE, **self.options, "seconds": SECONDS, "compute": fixed})


def iteration(setting: Setting, mode: str) -> Callable[[], Any]:
    """Prepare the iterations of one variant: live, found or computed."""
    variants.quiet_allocator()
    config = setting.resolved(cache_real=mode != "live", cache_draws=1)
    task, real = catalog.load(config.data, "train")
    loop = assembly.assemble(config, task, real, variants.DEVICE, print)
    if (cache := loop.sources.cache) is None:
        return loop.step

    def computed() -> None:
        cache.forget()
        loop.step()

    if mode == "computed":
        return computed
    while cache.seconds_to_come(1) or not cache.seconds:
        loop.step()
    return loop.step


def ten_minutes(live: float, found: float, computed: float, draws: int) -> dict[str, float]:
    """Return what runs of `SECONDS` come to, by the seconds of an iteration of each kind.

    A cached run of n iterations computes as many draws as n random ones of ``draws`` are expected to differ.
    """

    def computing(iterations: int) -> float:
        return draws * (1 - (1 - 1 / draws) ** iterations)

    def seconds(iterations: int) -> float:
        return iterations * found + computing(iterations) * (computed - found)

    of_cached = bisect.bisect_left(range(int(SECONDS / found) + 1), SECONDS, key=seconds)
    return {
        "iterations_live": round(SECONDS / live),
        "iterations_cached": of_cached,
        "cache_s": computing(of_cached) * (computed - found),
        "times_more_iterations": of_cached * live / SECONDS,
    }


def write_snapshots(path: Path, network: str) -> None:
    """Write an expert whose stored weights are random ones: they take as long as others."""
    config = configs.resolve({**BASE, "network": network})
    task, real = catalog.load(config.data, "train")
    walk = []
    for epoch in range(EPOCHS):
        with forked(epoch, "networks"):
            built = build_network(network, task.channels, task.size, task.num_classes)
        walk.append(Layout.of(built).pack(built.state_dict()))
    variants.write_experts(path, task, real, Layout.of(built), [walk], network)


def measured(name: str, path: Path, quick: bool, rounds: int) -> dict[str, Any]:
    """Time the variants of one method; return its row of the record."""
    options = merge(METHODS[name], QUICK if quick else {})
    setting = Setting(merge(options, {"engine": {"supply": {"path": str(path)}}}), quick)
    asked = setting.resolved()
    task, real = catalog.load(asked.data, "train")
    config = assembly.decide_auto(asked, task, real, variants.DEVICE, print)
    cache = assembly.assemble(config, task, real, variants.DEVICE, print).sources.cache
    if cache is None:
        raise SystemExit(f"{name}: compute.cache_real=auto does not cache a run of {SECONDS:g} seconds")
    modes = ("live", "found", "computed")
    chosen = {mode: functools.partial(iteration, setting, mode) for mode in modes}
    load = os.getloadavg()[0]
    print(f"{name}: {cache!r}")
    variants_of = report(alternate(chosen, rounds), "live", "iteration")
    seconds = {row["way"]: row["median_s"] for row in variants_of}
    row = ten_minutes(**seconds, draws=cache.size)
    print(f"{name}: {row['times_more_iterations']:.2f}x as many iterations in {SECONDS:g} s", flush=True)
    sizes = {"networks": cache.networks, "draws": cache.draws, "cache_bytes": cache.bytes}
    return {"method": name, **sizes, **row, "variants": variants_of, "load_before": load}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", choices=METHODS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    rounds = 2 if args.quick else args.rounds
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "experts.h5"
        write_snapshots(path, QUICK["network"] if args.quick else "convnet")
        names = [args.only] if args.only else list(METHODS)
        rows = [measured(name, path, args.quick, rounds) for name in names]
    if not args.quick:
        write_record(speed_record("cached-real"), rows, seconds=SECONDS)


if __name__ == "__main__":
    main()
