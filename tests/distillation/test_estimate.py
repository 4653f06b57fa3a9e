"""What a distillation says beforehand: seconds, disk, and whose its iterations are."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from dsdistill.distillation import config as configs
from dsdistill.distillation import estimate as estimates_of
from dsdistill.distillation import work
from dsdistill.distillation.estimate import advice
from dsdistill.distillation.loop import Distiller, IterationReport
from dsdistill.distillation.run_loop import RunLoop
from dsdistill.runtime.estimate import RunEstimate
from dsdistill.runtime.pace import PaceMeter
from tests.conftest import THREADS, TINY
from tests.helpers.callbacks import Told

LONG = RunEstimate(amount=20_000, work="iterations", seconds=32_400.0)


def estimates(output: Path, **options: Any) -> tuple[list[RunEstimate], list[int]]:
    """Distil, and return the estimates and after which iterations they came."""
    seen: list[RunEstimate] = []
    steps: list[int] = []
    at: list[int] = []

    def estimated(estimate: RunEstimate) -> None:
        seen.append(estimate)
        at.append(len(steps) + 1)

    callbacks = [Told(estimated=estimated), lambda entry: steps.append(entry["iteration"])]
    told = TINY | {"overrides": [THREADS], "device": "cpu"} | options
    dsdistill.distill(output, **told, callbacks=callbacks)
    return seen, at


@pytest.fixture(autouse=True)
def _known_after_five(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the pace be known after five iterations, however busy this machine is."""
    monkeypatch.setattr(PaceMeter, "is_known", property(lambda self: len(self._steps) >= 5))


def test_it_comes_once_within_the_first_iterations(tmp_path: Path) -> None:
    seen, at = estimates(tmp_path / "set.h5", iterations=12)
    assert at == [5]
    assert (seen[0].amount, seen[0].work) == (7, "iterations")
    assert seen[0].seconds > 0


def test_a_run_of_few_steps_has_none(tmp_path: Path) -> None:
    assert estimates(tmp_path / "set.h5", iterations=4) == ([], [])
    assert estimates(tmp_path / "over.h5", iterations=5) == ([], [])  # it is over as its pace is known


def test_a_time_budget_is_what_is_left_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PaceMeter, "step", 0.01)
    monkeypatch.setattr(RunLoop, "seconds", property(lambda self: self._distiller.iteration * 0.01))
    seen, _ = estimates(tmp_path / "set.h5", iterations=None, seconds=0.12)
    assert seen[0].seconds == pytest.approx(0.12 - 0.05)
    assert seen[0].amount == 7


def test_disk_is_what_the_run_takes_at_most(tmp_path: Path) -> None:
    options = {"checkpoint": {"snapshots": 4, "iterations": 5}}
    seen, _ = estimates(tmp_path / "set.h5", iterations=12, options=options)
    run = tmp_path / "set.run"

    def sizes(pattern: str) -> int:
        return sum(path.stat().st_size for path in run.glob(pattern))

    disk = seen[0].disk
    assert set(disk) == {"set", "checkpoints", "log", "snapshots"}
    assert sizes("metrics.jsonl") <= disk["log"] <= 3 * sizes("metrics.jsonl")
    assert disk["checkpoints"] / 3 * 2 == pytest.approx(sizes("checkpoint-*"), rel=0.5)
    assert disk["snapshots"] == 3 * disk["set"]
    assert seen[0].disk_bytes == sum(disk.values())


def test_refining_is_said_not_to_be_estimated(tmp_path: Path) -> None:
    coded = {"storage": {"bits": 2, "refine": 3}}
    seen, _ = estimates(tmp_path / "set.h5", iterations=8, options=coded)
    assert seen[0].leaves_out == "the 3 steps of storage.refine, which come after the last iteration"
    seen, _ = estimates(tmp_path / "plain.h5", iterations=8)
    assert seen[0].leaves_out == ""


def dry(**options: Any) -> RunEstimate:
    told = TINY | {"overrides": [THREADS], "device": "cpu"} | options
    return dsdistill.dry_run(dsdistill.distill, "set.h5", **told)


class Stepped:
    """Takes the place of a step: notes what it is about, and passes the seconds of a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fixed: float = 0.0, each: float = 1.0) -> None:
        self.parts: list[int] = []
        self._now, self._fixed, self._each = 0.0, fixed, each
        monkeypatch.setattr(work, "_TRIAL_PIXELS", {"cpu": 1})
        monkeypatch.setattr(Distiller, "step", lambda distiller: self._step(distiller))
        monkeypatch.setattr("dsdistill.distillation.estimate.time", self)

    def monotonic(self) -> float:
        return self._now

    def _step(self, distiller: Distiller) -> IterationReport:
        ranks, passes = distiller.sources.ranks, distiller._passes
        own = ranks.part(distiller.engine.parts(distiller.synthetic))
        separable = distiller.engine.separable(distiller.sources.supply.network)
        self.parts.append(sum(map(len, passes)) if separable else own.stop - own.start)
        self._now += self._fixed + self._each * self.parts[-1]
        return IterationReport(distiller.iteration, {"loss": torch.zeros(())})


@pytest.mark.parametrize("chunk", [0, 3])
@pytest.mark.parametrize("method", ["dm", "datadam"])
def test_parts_of_a_long_step_are_timed(method: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stepped = Stepped(monkeypatch, fixed=5.0, each=2.0)
    estimate = dry(method=method, iterations=40, overrides=[THREADS, f"compute.class_chunk={chunk}"])
    assert stepped.parts == [1] * 5 + [2] * 5
    assert estimate.share == 0.2
    assert estimate.seconds == pytest.approx(40 * (5.0 + 10 * 2.0))
    assert "for 40 iterations (25 s each, by 20 % of one)" in str(estimate)


def test_a_part_may_be_several_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    stepped = Stepped(monkeypatch, fixed=5.0, each=2.0)
    monkeypatch.setattr(estimates_of, "trial_parts", lambda *_: 3)
    estimate = dry(iterations=40)
    assert stepped.parts == [4] * 5 + [8] * 5
    assert estimate.seconds == pytest.approx(40 * (5.0 + 10 * 2.0))


RESNET = "resnet10-batch-w4"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("teachers") / "teacher.h5"
    options: dict[str, Any] = {"dataset": "digits", "network": RESNET, "device": "cpu", "recipe": "teacher"}
    dsdistill.train_experts(file, **options, count=1, epochs=1, overrides=["epoch_batches=2"])
    return file


@pytest.mark.parametrize(("more", "batches"), [([], 3), (["engine.batches=per-class"], 10)])
def test_a_step_of_recovery_falls_into_batches(
    teacher: Path, more: list[str], batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped = Stepped(monkeypatch)
    options: dict[str, Any] = {"method": "sre2l", "network": RESNET, "experts": teacher, "ipc": 3}
    estimate = dry(**options, iterations=10, overrides=[THREADS, *more])
    assert stepped.parts == [1] * 5 + [2] * 5
    assert estimate.seconds == pytest.approx(10 * batches)


def test_steps_whose_parts_are_not_alike_are_timed_whole(
    teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks of IDM are trained on the way, and natural images of INFER have no teacher."""
    stepped = Stepped(monkeypatch)
    assert dry(method="idm").share == 1.0
    assert dry(method="infer", network=RESNET, experts=teacher, ipc=2).share == 1.0
    assert set(stepped.parts) == {10, 1}


def test_what_does_not_fit_into_memory_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsdistill.distillation.run.available_memory", lambda device: 1000)
    monkeypatch.setattr(Distiller, "step", lambda self: pytest.fail("a step was taken"))
    starts: list[Any] = []
    estimate = dry(callbacks=[Told(started=starts.append)])
    assert (estimate.seconds, estimate.total_seconds, estimate.amount) == (None, None, 3)
    assert estimate.rows()[0] == ("estimated time", "not known: the run needs more memory than is free")
    assert estimate.memory_bytes
    assert json.loads(json.dumps(estimate.to_dict()))["seconds"] is None
    assert "class_chunk=1" in starts[0].describe()[-1]


@pytest.mark.parametrize("optimiser", ["kind=adamw", "kind=sgd", "momentum=0.0"])
def test_disk_is_known_before_the_first_step(optimiser: str, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [THREADS, f"optimiser.{optimiser}", "optimiser.updates=joint"]
    fits = dry(overrides=overrides)
    monkeypatch.setattr("dsdistill.distillation.run.available_memory", lambda device: 1000)
    found = dry(overrides=overrides)
    assert found.seconds is None
    assert found.disk["checkpoints"] == pytest.approx(fits.disk["checkpoints"], rel=0.01)


def test_a_method_without_iterations_fits_always(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsdistill.distillation.run.available_memory", lambda device: 1000)
    assert dry(method="rded", network=RESNET, experts=teacher, iterations=0).seconds == 0.0


def config(**options: Any) -> configs.RunConfig:
    given: dict[str, Any] = {"data": {"name": "cifar10"}, "ipc": 10, "method": "dm"}
    return configs.resolve(given | options)


def test_iterations_of_a_recipe_are_said_to_be_its_own() -> None:
    assert advice(config(), LONG) == (
        "the 20,000 iterations of dm are those of its authors' code, and take about 9 h 00 min here; "
        "--seconds 600 or --iterations N (seconds=600, iterations=N) makes a shorter run"
    )
    assert "are those of its paper" in advice(config(method="mmd"), LONG)
    assert advice(config(), RunEstimate(amount=20_000, work="iterations", seconds=600.0)) == ""
    assert advice(config(seconds=3600.0), LONG) == ""


def test_it_is_said_where_nobody_has_set_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PaceMeter, "step", 100.0)
    told = {key: value for key, value in TINY.items() if key != "iterations"} | {"device": "cpu"}
    file = tmp_path / "some.toml"
    file.write_text("iterations = 400")
    for options, said in (
        ({}, True),
        ({"iterations": 400}, False),
        ({"overrides": ["iterations=400"]}, False),
        ({"options": {"iterations": 400}}, False),
        ({"config": file}, False),
    ):
        notices: list[str] = []
        callbacks = [Told(notify=notices.append)]
        dsdistill.dry_run(dsdistill.distill, tmp_path / "set.h5", **told, **options, callbacks=callbacks)
        assert [notice.startswith("the 300 iterations of dm are") for notice in notices] == [True] * said


def test_a_short_run_is_said_to_be_too_short_to_compile(tmp_path: Path) -> None:
    starts: list[Any] = []
    for overrides in ([], ["compute.compile=false"]):
        callbacks = [Told(started=starts.append)]
        dsdistill.dry_run(
            dsdistill.distill,
            tmp_path / "set.h5",
            **TINY,
            device="cpu",
            overrides=overrides,
            callbacks=callbacks,
        )
    short, asked = ("not compiled (too short" in start.describe()[1] for start in starts)
    assert short
    assert not asked
    assert math.isfinite(starts[0].memory.total)


def test_no_steps_take_no_time(tmp_path: Path) -> None:
    told = TINY | {"iterations": 0, "device": "cpu"}
    estimate = dsdistill.dry_run(dsdistill.distill, tmp_path / "set.h5", **told)
    assert (estimate.amount, estimate.seconds) == (0, 0.0)


def test_a_run_is_compiled_sooner_where_one_like_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "code"))
    monkeypatch.setattr("dsdistill.runtime.compiler.compiles", lambda device, notify: True)
    monkeypatch.setattr("dsdistill.runtime.compiler.compiled", lambda function, options=None: function)

    def words(**options: Any) -> str:
        starts: list[Any] = []
        dsdistill.dry_run(
            dsdistill.distill,
            tmp_path / "other.h5",
            **TINY | options,
            device="cpu",
            callbacks=[Told(started=starts.append)],
        )
        return str(starts[0].describe()[1])

    half_a_minute = {"options": {"seconds": 30.0}}
    assert "not compiled (too short" in words(**half_a_minute)
    dsdistill.distill(tmp_path / "set.h5", **TINY, device="cpu", overrides=["compute.compile=true"])
    assert ", compiled (" in words(**half_a_minute, seed=1)
    assert "not compiled" in words(**half_a_minute, ipc=2)
    assert "not compiled" in words(options={"seconds": 5.0})
