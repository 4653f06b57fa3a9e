"""A time for all of a run: the experts get a share of it, and the loop what is left."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import dsdistill
from dsdistill.distillation import assembly
from dsdistill.distillation import config as configs
from dsdistill.errors import OutOfTime
from dsdistill.experts.trainer import Pace
from dsdistill.pipeline import experts
from dsdistill.pipeline.time_budget import TimeBudget
from dsdistill.runtime.callbacks import Observer
from dsdistill.storage.expert_file import ExpertFile
from tests.helpers.callbacks import Told

SMALL: dict[str, Any] = {"dataset": "digits", "ipc": 1, "network": "convnet2-w4", "device": "cpu"}


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90.0), ("10min", 600.0), (" 1.5 h ", 5400.0), ("laptop", None)]
)
def test_a_time_has_a_unit(text: str, seconds: float | None) -> None:
    available = TimeBudget.read(text)
    assert (available and available.seconds) == seconds


def test_the_loop_takes_the_time_where_no_experts_are_needed(tmp_path: Path) -> None:
    starts: list[Any] = []
    summary = dsdistill.distill(
        tmp_path / "set.h5", **SMALL, method="dm", budget="2s", callbacks=[Told(started=starts.append)]
    )
    assert 1 < starts[0].config.seconds <= 2
    assert summary.iterations > 3


def test_what_comes_before_the_loop_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(*arguments: Any) -> Any:
        time.sleep(1.5)
        return assemble(*arguments)

    assemble = assembly.assemble
    monkeypatch.setattr(assembly, "assemble", slowly)
    starts: list[Any] = []
    output = tmp_path / "set.h5"
    dsdistill.distill(output, **SMALL, method="dm", budget="2s", callbacks=[Told(started=starts.append)])
    assert starts[0].config.seconds <= 0.5
    assert f"seconds = {starts[0].config.seconds}" in (tmp_path / "set.run" / "config.toml").read_text()


@pytest.mark.parametrize(("seconds", "epochs"), [(22.0, 2), (41.0, 3), (42.0, 4), (1e6, 48)])
def test_experts_get_as_many_epochs_as_fit_and_the_paper_has(
    monkeypatch: pytest.MonkeyPatch, seconds: float, epochs: int
) -> None:
    pace = Pace(epoch=2.0, metrics=0.1, warm_up=1.0)  # 5 experts: 10 s an epoch, and 1.5 s once
    monkeypatch.setattr(experts, "pace_of", lambda config, observer, source: pace)
    config = configs.resolve({"method": "mtt", "ipc": 1, "data": {"name": "digits"}})
    with Observer(()) as observer:
        scale = experts.scale_within(config, seconds, observer, None)
    assert scale.epochs == epochs


def test_the_loop_takes_what_the_experts_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSDISTILL_CACHE", str(tmp_path / "cache"))
    pace = Pace(epoch=3.0, metrics=0.0)
    monkeypatch.setattr(experts, "pace_of", lambda config, observer, source: pace)
    monkeypatch.setattr(TimeBudget, "left", 0.5)
    notices: list[str] = []
    starts: list[Any] = []
    heard = Told(notify=notices.append, started=starts.append)
    dsdistill.distill(tmp_path / "set.h5", **SMALL, method="mtt", budget="2min", callbacks=[heard])
    config = starts[-1].config
    assert ExpertFile.open(config.engine.supply.path).epochs == (0, 1, 2)
    assert config.engine.epochs_read == 2
    assert config.seconds == 0.5
    assert any(
        "2 epochs each (what fits into 30 s; the recipe has 100 of 50 epochs" in each for each in notices
    )


def test_a_resumed_run_keeps_its_own_time(tmp_path: Path) -> None:
    def stop(entry: dict[str, Any]) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        dsdistill.distill(tmp_path / "set.h5", **SMALL, budget="3s", callbacks=[stop])
    starts: list[Any] = []
    second = dsdistill.distill(
        tmp_path / "set.h5", **SMALL, budget="1h", resume=True, callbacks=[Told(started=starts.append)]
    )
    assert starts[0].config.seconds <= 3
    assert second.iterations > 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"budget": "10minutes"}, "a time is written 90s, 10min or 1.5h, not '10minutes'"),
        ({"budget": "0s"}, "'0s' is no time to distil in: pass --budget 10min"),
        ({"budget": "1min", "seconds": 30.0}, "--budget 1 min and seconds both say how long"),
        ({"budget": "1min", "iterations": 30}, "--budget 1 min and iterations both say how long"),
        ({"budget": "1min", "overrides": ["seconds=20"]}, "--budget 1 min and seconds both say how long"),
        ({"budget": "0.04s"}, "nothing is left of the 0.04 s of --budget"),
        (
            {"budget": "0.01s", "method": "mtt"},
            "one epoch of the experts of mtt takes .* pass a larger --budget",
        ),
        ({"budget": "laptp"}, "unknown budget 'laptp'; did you mean 'laptop'"),
    ],
)
def test_what_is_no_time_is_refused(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(dsdistill.UserError, match=said):
        dsdistill.distill(tmp_path / "set.h5", **SMALL, **options)
    assert not list(tmp_path.glob("*"))


@pytest.mark.parametrize("options", [{"budget": "0.04s"}, {"budget": "0.01s", "method": "mtt"}])
def test_a_time_that_is_too_short_is_told_from_other_errors(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(OutOfTime):
        dsdistill.distill(tmp_path / "set.h5", **SMALL, **options)
