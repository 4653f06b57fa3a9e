"""What every writer gets: numbers of entries, pictures now and then, options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import dsdistill
from dsdistill.config.recipe import ExpertRecipe
from dsdistill.loggers.base import Logger
from dsdistill.storage import set_file
from dsdistill.synthetic.picture import to_uint8
from tests.conftest import THREADS, TINY
from tests.helpers.callbacks import Told
from tests.helpers.writers import fail

TWENTY: dict[str, Any] = TINY | {"iterations": 20, "overrides": [THREADS], "device": "cpu"}


class Kept(Logger):
    """Keeps what a writer is told."""

    def __init__(self, images_every: int = 0) -> None:
        super().__init__(images_every)
        self.opened: list[tuple[str, Mapping[str, Any], int]] = []
        self.numbers: list[tuple[Mapping[str, float], int]] = []
        self.pictures: list[tuple[Tensor, int]] = []
        self.stages: list[str] = []
        self.closed: list[bool] = []
        """Of every stage, whether it failed."""
        self.failing: dict[str, int] = {}
        """How often a method fails from now on."""

    def _answer(self, method: str) -> None:
        if self.failing.get(method):
            self.failing[method] -= 1
            raise ConnectionError(f"{method}: no answer\nfrom the server")

    def open(self, stage: str, title: str, options: Mapping[str, Any], first: int) -> None:
        self._answer("open")
        self.stages.append(stage)
        self.opened.append((title, options, first))

    def write(self, values: Mapping[str, float], step: int) -> None:
        self._answer("write")
        self.numbers.append((values, step))

    def draw(self, pixels: Tensor, step: int) -> None:
        self._answer("draw")
        self.pictures.append((pixels, step))

    def close(self, failed: bool) -> None:
        self._answer("close")
        self.closed.append(failed)


def test_a_distillation_is_written_with_its_pictures(tmp_path: Path) -> None:
    kept = Kept()
    dsdistill.distill(tmp_path / "set.h5", **TWENTY, callbacks=[kept])
    ((title, options, first),) = kept.opened
    assert (title, first, kept.closed) == ("dm digits IPC 1", 1, [False])
    assert options["data.name"] == "digits"
    assert options["iterations"] == 20
    assert [step for _, step in kept.numbers] == list(range(1, 21))
    assert kept.numbers[0][0].keys() == {"loss", "mean", "seconds"}
    assert [step for _, step in kept.pictures] == [*range(2, 21, 2), 20]
    pixels, _ = kept.pictures[-1]
    first_image = to_uint8(set_file.read(tmp_path / "set.h5").images[0])
    assert (pixels[:, ::4, ::4][:, :8, :8] == first_image).all()  # small images are enlarged


def test_pictures_come_as_often_as_asked(tmp_path: Path) -> None:
    kept = Kept(images_every=8)
    dsdistill.distill(tmp_path / "set.h5", **TWENTY, callbacks=[kept])
    assert [step for _, step in kept.pictures] == [8, 16, 20]


def test_no_folder_is_told(tmp_path: Path) -> None:
    kept = Kept()
    dsdistill.distill(tmp_path / "set.h5", **TWENTY, root=tmp_path, callbacks=[kept])
    assert not any(str(tmp_path) in str(value) for value in kept.opened[0][1].values())


def test_a_resumed_run_begins_where_it_was(tmp_path: Path) -> None:
    def stop(entry: dict[str, Any]) -> None:
        if entry["iteration"] == 6:
            raise dsdistill.StopRun

    dsdistill.distill(tmp_path / "set.h5", **TWENTY, callbacks=[stop])
    kept = Kept()
    dsdistill.distill(tmp_path / "set.h5", **TWENTY, resume=True, callbacks=[kept])
    assert kept.opened[0][2] == kept.numbers[0][1] == 7


def test_a_failed_run_is_closed(tmp_path: Path) -> None:
    kept = Kept()
    with pytest.raises(ZeroDivisionError):
        dsdistill.distill(tmp_path / "set.h5", **TWENTY, callbacks=[kept, fail])
    assert (len(kept.numbers), kept.closed) == (1, [True])


def test_experts_and_the_run_that_needs_them_are_two_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ExpertRecipe, "scale", {"count": 2, "epochs": 4})
    kept = Kept()
    told = TINY | {"method": "mtt", "budget": "laptop", "device": "cpu", "iterations": 2}
    dsdistill.distill(tmp_path / "set.h5", **told, callbacks=[kept])
    assert kept.stages == ["experts", "distillation"]
    assert [title for title, *_ in kept.opened] == ["mtt digits", "mtt digits IPC 1"]
    assert [step for _, step in kept.numbers] == [*range(1, 9), 1, 2]
    assert kept.closed == [False, False]


# Writers that fail ------------------------------------------------------------------------------------------


def failing(tmp_path: Path, **times: int) -> tuple[Kept, list[str]]:
    """Distil with a writer whose methods fail so often; return it and what was told."""
    kept = Kept()
    kept.failing = times
    notices: list[str] = []
    told = TWENTY | {"overrides": [THREADS, "engine.batch_real=32"]}
    callbacks = [kept, Told(notify=notices.append)]
    assert dsdistill.distill(tmp_path / "set.h5", **told, callbacks=callbacks).iterations == 20
    return kept, notices


@pytest.mark.parametrize("method", ["write", "draw"])
def test_a_writer_that_fails_for_a_while_is_told_of_once(tmp_path: Path, method: str) -> None:
    kept, notices = failing(tmp_path, **{method: 2})
    assert notices == [f"Kept could not write: {method}: no answer; that does not end the run"]
    assert len(kept.numbers) == 20 - 2 * (method == "write")
    assert len(kept.pictures) == 11 - 2 * (method == "draw")
    assert kept.closed == [False]


def test_a_writer_that_cannot_be_opened_is_left_out(tmp_path: Path) -> None:
    kept, notices = failing(tmp_path, open=1)
    assert notices == ["Kept could not write: open: no answer; that does not end the run"]
    assert (kept.opened, kept.numbers, kept.pictures, kept.closed) == ([], [], [], [])


def test_a_writer_that_cannot_be_closed_is_told_of(tmp_path: Path) -> None:
    _, notices = failing(tmp_path, close=1)
    assert notices == ["Kept could not write: close: no answer; that does not end the run"]


def test_a_dry_run_and_a_finished_one_write_nothing(made: Path) -> None:
    kept = Kept()
    dsdistill.dry_run(dsdistill.distill, made.with_name("other.h5"), **TINY, callbacks=[kept])
    dsdistill.distill(made, resume=True, callbacks=[kept])
    assert (kept.opened, kept.closed) == ([], [])


def test_experts_and_evaluations_are_written_too(made: Path, tmp_path: Path) -> None:
    kept = Kept()
    told: dict[str, Any] = {"dataset": "digits", "recipe": "ncfm", "network": "convnet2-w4", "device": "cpu"}
    dsdistill.train_experts(tmp_path / "e.h5", **told, count=2, epochs=1, callbacks=[kept])
    assert kept.opened[0][0] == "ncfm digits"
    assert [(values.keys(), step) for values, step in kept.numbers] == [({"loss", "seconds"}, 1)] * 1 + [
        ({"loss", "seconds"}, 2)
    ]
    kept = Kept()
    report = dsdistill.evaluate(made, epochs=1, repeats=2, networks="mlp", device="cpu", callbacks=[kept])
    assert kept.opened[0][1]["protocol"] == "dm"
    assert kept.numbers == [
        ({f"accuracy/mlp/{row.set}": row.mean, f"deviation/mlp/{row.set}": row.std}, 0) for row in report.rows
    ]
    assert kept.stages == ["evaluation"]
    assert kept.closed == [False]
