"""What every writer gets: numbers of entries, pictures now and then, options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import dsdistill
from dsdistill.loggers.base import Logger
from dsdistill.storage import set_file
from dsdistill.synthetic.picture import to_uint8
from tests.conftest import THREADS, TINY

TWENTY: dict[str, Any] = TINY | {"iterations": 20, "overrides": [THREADS], "device": "cpu"}


class Kept(Logger):
    """Keeps what a writer is told."""

    def __init__(self, images_every: int = 0) -> None:
        super().__init__(images_every)
        self.opened: list[tuple[str, Mapping[str, Any], int]] = []
        self.numbers: list[tuple[Mapping[str, float], int]] = []
        self.pictures: list[tuple[Tensor, int]] = []
        self.closed = 0

    def open(self, title: str, options: Mapping[str, Any], first: int) -> None:
        self.opened.append((title, options, first))

    def write(self, values: Mapping[str, float], step: int) -> None:
        self.numbers.append((values, step))

    def draw(self, pixels: Tensor, step: int) -> None:
        self.pictures.append((pixels, step))

    def close(self) -> None:
        self.closed += 1


def test_a_distillation_is_written_with_its_pictures(tmp_path: Path) -> None:
    kept = Kept()
    dsdistill.distill(tmp_path / "set.h5", **TWENTY, callbacks=[kept])
    ((title, options, first),) = kept.opened
    assert (title, first, kept.closed) == ("dm digits IPC 1", 1, 1)
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
    def fail(entry: dict[str, Any]) -> None:
        raise ZeroDivisionError

    kept = Kept()
    with pytest.raises(ZeroDivisionError):
        dsdistill.distill(tmp_path / "set.h5", **TWENTY, callbacks=[kept, fail])
    assert (len(kept.numbers), kept.closed) == (1, 1)


def test_a_dry_run_and_a_finished_one_write_nothing(made: Path) -> None:
    kept = Kept()
    dsdistill.dry_run(dsdistill.distill, made.with_name("other.h5"), **TINY, callbacks=[kept])
    dsdistill.distill(made, resume=True, callbacks=[kept])
    assert (kept.opened, kept.closed) == ([], 0)


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
    assert kept.closed == 1
