"""Benchmarks compare like with like."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import cached_real, common, gpu_blocks, memory_estimates, speed, variants
from benchmarks.quantisation import unlike
from dsdistill.bench.suite import load_suite
from dsdistill.config.options import merge
from dsdistill.data import catalog
from dsdistill.distillation import config as configs
from dsdistill.experts import config as expert_config
from dsdistill.networks import build_network
from dsdistill.seeding import forked
from tests.helpers.engines import toy
from tests.helpers.stand_in import CUDA, stand_in
from tests.reference.ncfm import characteristic_discrepancy, plain_class_loss


def test_plain_ncfm_computes_the_discrepancy() -> None:
    with forked(0, "test"):
        network = build_network("convnet2-w6", 1, 12, 3).double().requires_grad_(False)
        real, fake = (torch.randn(n, 1, 12, 12, dtype=torch.float64) for n in (5, 3))
        frequencies = torch.randn(7, network.feature_dim, dtype=torch.float64)
    features = [torch.nn.functional.normalize(network.embed(x), dim=1) for x in (real, fake)]
    expected = characteristic_discrepancy([features[0]], [features[1]], [frequencies])
    torch.testing.assert_close(plain_class_loss(network, real, fake, frequencies), 300 * expected[0])


def test_forms_of_a_set_are_evaluated_alike(tmp_path: Path) -> None:
    reports = [tmp_path / name for name in ("float32.json", "float16.json", "uint8.json")]
    for date, (file, code) in enumerate(zip(reports, ("old", "new", "new"), strict=True)):
        assert unlike(reports) == reports[date:] if date < 2 else unlike(reports) == [reports[0], file]
        file.write_text(json.dumps({"conditions": code, "date": f"2026-01-0{date + 1}"}))
    assert unlike(reports) == reports[:1]


_CONVOLUTIONS = (torch.ops.aten.convolution.default, torch.ops.aten.conv2d.default)


class _Convolved(TorchDispatchMode):
    """Counts the images that enter networks: go forth through a convolution of one input channel."""

    def __init__(self) -> None:
        super().__init__()
        self.images = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in _CONVOLUTIONS and args[1].shape[1] == 1:
            self.images += len(args[0])
        return function(*args, **(kwargs or {}))


def _small(resolve: Callable[[dict[str, Any]], Any], options: dict[str, Any]) -> Any:
    return resolve({"network": "convnet3-w8", **options})


@pytest.fixture
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let benchmarks work on few images."""
    tiny = toy(size=28, counts=(4,) * 10)
    monkeypatch.setattr(catalog, "load", lambda *_: tiny)
    monkeypatch.setattr(variants, "quiet_allocator", lambda: True)


@pytest.fixture
def _small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (configs, expert_config):
        small = functools.partial(_small, module.resolve)
        monkeypatch.setattr(module, "resolve", small)


@pytest.mark.usefixtures("_tiny")
@pytest.mark.parametrize("what", ["gradient", "trajectory"])
def test_variants_can_be_run(what: str) -> None:
    for name, prepare in speed.compared(what, ipc=1, steps=2).items():
        if "compiled" not in name:
            prepare()()


@pytest.mark.slow
@pytest.mark.usefixtures("_tiny", "_small_networks")
@pytest.mark.parametrize("what", ["dm", "datadam", "idm", "ncfm", "kernel", "inner", "student", "expert"])
def test_variants_that_are_compared_do_the_same_work(what: str) -> None:
    worked = []
    for name, prepare in speed.compared(what, ipc=1).items():
        if "compiled" not in name:
            work = prepare()
            work()
            with _Convolved() as counted:
                work()
            worked.append(counted.images)
    plain, ours = worked
    if what == "student":  # a call of ours are two epochs
        plain *= 2
    if what == "idm":  # whose released code passes the synthetic images, four a class, twice
        plain -= 40
    assert plain == ours > 0


@pytest.mark.usefixtures("_tiny")
@pytest.mark.parametrize("method", ["means-classes", "tgdd", "ncfm"])
def test_an_iteration_that_finds_its_real_side_passes_no_real_images(tmp_path: Path, method: str) -> None:
    path = tmp_path / "experts.h5"
    cached_real.write_snapshots(path, cached_real.QUICK["network"])
    options = merge(cached_real.METHODS[method], {"engine": {"supply": {"path": str(path)}}})
    setting = cached_real.Setting({**options, "network": cached_real.QUICK["network"], "ipc": 1}, quick=True)
    images = {}
    for mode in ("live", "found", "computed"):
        step = cached_real.iteration(setting, mode)
        with _Convolved() as counted:
            step()
        images[mode] = counted.images
    assert images["live"] == images["computed"] == images["found"] + 40


def test_what_is_called_tgdd_is_its_recipe() -> None:
    suite = load_suite(common.SUITES / "cached-real-ipc10.toml")
    in_suite = [suite.method[name] for name in ("tgdd-live", "tgdd-cached")]
    assert {each.recipe for each in in_suite} == {"tgdd"}
    options: list[dict[str, Any]] = [cached_real.METHODS["tgdd"], *(dict(each.set) for each in in_suite)]
    for each in options:
        config = configs.resolve({**cached_real.BASE, "method": "tgdd", **each})
        engine = config.engine
        assert (engine.classifier, engine.classification, engine.supply.kind) == ("later", 1.0, "snapshots")
        assert config.multi_formation.factor == 2


def test_ten_minutes_are_spent_on_what_is_computed_and_found() -> None:
    row = cached_real.ten_minutes(live=2.0, found=0.5, computed=2.5, draws=150)
    assert row["iterations_live"] == 300
    assert row["cache_s"] == pytest.approx(150 * 2, rel=0.03)
    assert row["iterations_cached"] * 0.5 + row["cache_s"] == pytest.approx(600, rel=0.01)
    assert row["times_more_iterations"] == pytest.approx(row["iterations_cached"] / 300)


@pytest.mark.parametrize("ipc", [1, 10, 50])
@pytest.mark.parametrize("method", memory_estimates.METHODS)
def test_the_memory_of_every_matching_recipe_can_be_measured(method: str, ipc: int) -> None:
    plan = memory_estimates.configured(method, ipc, False, Path("experts.h5"))
    assert plan.method == method
    assert plan.ipc == ipc
    assert plan.iterations <= memory_estimates.ITERATIONS
    assert not plan.engine.supply.needs_experts


@pytest.mark.slow
@pytest.mark.usefixtures("_tiny")
@pytest.mark.parametrize("what", gpu_blocks.CASES)
def test_our_variants_run_on_a_device(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, what: str
) -> None:
    if what != "trajectory":  # which is of experts that it makes itself
        request.getfixturevalue("_small_networks")
    with stand_in():
        monkeypatch.setattr(variants, "DEVICE", CUDA)
        prepare, *_ = gpu_blocks.case(what, ipc=1, steps=2).values()
        prepare()()


@pytest.mark.usefixtures("_tiny", "_small_networks")
def test_students_and_experts_are_timed_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    with stand_in():
        monkeypatch.setattr(variants, "DEVICE", CUDA)
        variants.epochs_of_students("convnet2-w4", 2, False, ipc=1)()
        variants.part_of_expert("fp32", False, False, "convnet2-w4")()
