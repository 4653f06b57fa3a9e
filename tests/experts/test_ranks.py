"""Experts that several processes train are those of one process alone."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from dsdistill.cli import main
from dsdistill.errors import UserError
from dsdistill.experts import run, training
from dsdistill.experts.config import ExpertConfig
from dsdistill.experts.images import ExpertData
from dsdistill.experts.training import ExpertRun
from dsdistill.experts.workdir import WorkDir
from dsdistill.runtime import ranks as ranks_module
from dsdistill.runtime.callbacks import Observer, StopRun
from dsdistill.runtime.ranks import ALONE, Ranks
from dsdistill.storage.expert_file import ExpertFile
from tests.helpers.callbacks import Told
from tests.helpers.experts import CPU, told, toys
from tests.helpers.processes import together
from tests.helpers.ranks import side_by_side

EPOCHS = 3


def config(count: int = 3) -> ExpertConfig:
    return told(
        count=count,
        epochs=EPOCHS,
        batch_size=25,
        cutmix=0,
        record_el2n=1,
        compute={"device": "cpu"},
    )


def train(
    output: Path, asked: ExpertConfig, ranks: Ranks = ALONE, callback: Any = print, resume: bool = False
) -> ExpertFile:
    observer = Observer([callback], silent=not ranks.is_first)
    return ExpertRun(output, asked, ExpertData(*toys()), CPU, observer, ranks=ranks).run(resume, False)


def same(one: ExpertFile, other: ExpertFile) -> bool:
    return one.count == other.count and all(
        torch.equal(one.flat(expert, epoch), other.flat(expert, epoch))
        and torch.equal(one.el2n(expert), other.el2n(expert))
        for expert in range(one.count)
        for epoch in one.epochs
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> ExpertFile:
    return train(tmp_path_factory.mktemp("alone") / "experts.h5", config())


@pytest.mark.parametrize(
    ("count", "notices"), [(2, []), (4, ["3 experts and 4 processes: 1 has nothing to do"])]
)
def test_experts_do_not_depend_on_the_number_of_processes(
    count: int, notices: list[str], alone: ExpertFile, tmp_path: Path
) -> None:
    output, heard = tmp_path / "experts.h5", list[str]()
    files = side_by_side(count, lambda ranks: train(output, config(), ranks, Told(notify=heard.append)))
    assert all(same(each, alone) for each in files)
    assert heard == notices
    assert list(tmp_path.iterdir()) == [output]


def test_each_process_trains_its_share(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trained: dict[int, list[int]] = {0: [], 1: []}
    original = ExpertRun._train

    def seen(run: ExpertRun, trainer: Any, expert: int, signals: Any) -> Any:
        trained[run._ranks.index].append(expert)
        return original(run, trainer, expert, signals)

    monkeypatch.setattr(ExpertRun, "_train", seen)
    side_by_side(2, lambda ranks: train(tmp_path / "experts.h5", config(4), ranks))
    assert trained == {0: [0, 2], 1: [1, 3]}


def test_a_callback_stops_all_and_any_number_of_processes_goes_on(alone: ExpertFile, tmp_path: Path) -> None:
    output, done = tmp_path / "experts.h5", list[int]()

    def stop(entry: dict[str, Any]) -> None:
        if entry["expert"] == 0 and entry["epoch"] == EPOCHS:
            raise StopRun("enough")

    first, _ = side_by_side(2, lambda ranks: train(output, config(), ranks, stop))
    assert first.count == 1  # the second expert was begun, and stopped as well
    assert WorkDir(training.parts(output), config(), toys()[1].fingerprint).epochs_done([1]) == 1
    files = side_by_side(
        3, lambda ranks: train(output, config(), ranks, lambda entry: done.append(entry["done"]), True)
    )
    assert all(same(each, alone) for each in files)
    # Of six epochs one was done, and the second process takes two, before or after the first takes three.
    assert done in ([2, 3, 4], [4, 5, 6])


def test_processes_that_share_no_disk_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks_module, "_SEEN_WITHIN", 0.0)

    def elsewhere(ranks: Ranks) -> ExpertFile:
        (folder := tmp_path / str(ranks.index)).mkdir()
        return train(folder / "experts.h5", config(), ranks)

    with pytest.raises(UserError, match=r"not every process of this run sees .*experts.h5.parts"):
        side_by_side(2, elsewhere)


def test_processes_with_other_options_are_refused(tmp_path: Path) -> None:
    def other(ranks: Ranks) -> ExpertFile:
        asked = dataclasses.replace(config(), seed=ranks.index)
        return run.train(tmp_path / "experts.h5", asked, Observer(), ranks=ranks)

    with pytest.raises(UserError, match="process 1 has other options than process 0"):
        side_by_side(2, other)


# Processes --------------------------------------------------------------------------------------------------

SET = ("compute.threads=1", "compute.compile=false")
WORDS = ("--recipe", "ncfm", "--dataset", "digits", "--network", "convnet2-w6", "--count", "2")
PLAIN = ("--epochs", "2", "--set", SET[0], "--set", SET[1])


def commands(folder: str) -> None:
    """Train experts, then others in processes of which the second is killed after an epoch."""
    print(main(["experts", *WORDS, *PLAIN, "-o", str(Path(folder) / "experts.h5")]))
    save, rank = WorkDir.save, os.environ["RANK"]

    def killed(*arguments: Any) -> None:
        save(*arguments)
        if rank == "1":
            os.kill(os.getpid(), signal.SIGKILL)

    WorkDir.save = killed  # type: ignore[method-assign]
    sys.stdout.flush()
    print(main(["experts", *WORDS, *PLAIN, "-o", str(Path(folder) / "killed.h5")]))


def test_torchruns_processes_train_experts_together(tmp_path: Path) -> None:
    first, second = together(2, commands, tmp_path)
    assert (first.code, second.code) == (0, -signal.SIGKILL), (first, second)
    assert first.out.split()[-2:] == ["0", "2"]
    assert (second.out, second.err) == ("0\n", "")  # the first alone speaks
    assert first.err.count("another process of this run has ended") == 1
    assert "Traceback" not in first.err
    whole = ExpertFile.open(tmp_path / "experts.h5")
    options: dict[str, Any] = {"recipe": "ncfm", "dataset": "digits", "network": "convnet2-w6"}
    resumed = dsdistill.train_experts(
        tmp_path / "killed.h5", **options, count=2, epochs=2, device="cpu", overrides=SET, resume=True
    )
    assert all(torch.equal(whole.flat(each, 2), resumed.flat(each, 2)) for each in range(2))
