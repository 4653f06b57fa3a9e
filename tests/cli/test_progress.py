"""What commands show of a run, and where they write it: --quiet, --verbose, --log, --dry-run."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest

from dsdistill.cli import main
from tests.helpers.callbacks import unhandled
from tests.helpers.cli import FAST, TINY, Captured, refused, succeed
from tests.helpers.writers import Wandb, stand_in, uninstall


def test_quiet_shows_results_only_and_verbose_details_too(capsys: Captured, tmp_path: Path) -> None:
    words = ["distill", *TINY, "-o", tmp_path / "set.h5", "--overwrite"]
    out, err = succeed(capsys, *words)
    assert "10 images" in out
    assert "3/3" in err
    assert "decided:" not in err
    quiet_out, quiet_err = succeed(capsys, *words, "-q")
    assert quiet_err == ""
    assert [line.split()[0] for line in quiet_out.splitlines()] == [
        line.split()[0] for line in out.splitlines()
    ]
    assert "decided: compute." in succeed(capsys, *words, "--verbose")[1]
    assert "exclude each other" in refused(capsys, *words, "-q", "-v")


def test_quiet_warns_of_nothing_and_otherwise_a_notice_is_said_once(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unhandled(monkeypatch)
    words = ["distill", *TINY, "-o", tmp_path / "set.h5", "--resume"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert succeed(capsys, *words, "-q")[1] == ""
        shutil.rmtree(tmp_path / "set.run")
        (tmp_path / "set.h5").unlink()
        assert succeed(capsys, *words)[1].count("to resume: starting anew") == 1
    assert not caught


def test_quiet_evaluations_and_errors(capsys: Captured, made: Path) -> None:
    out, err = succeed(capsys, "evaluate", made, *FAST, "-q")
    assert "distilled" in out
    assert err == ""
    assert "unknown protocol" in refused(capsys, "evaluate", made, *FAST, "-q", "--protocol", "nonsense")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["distill", *TINY], "3 iterations"),
        (["experts", "--dataset", "digits", "--recipe", "ncfm", "--count", "2", "--epochs", "3"], "6 epochs"),
    ],
)
def test_a_dry_run_prints_what_it_takes(
    capsys: Captured, tmp_path: Path, words: list[str], expected: str
) -> None:
    network = ["--network", "convnet2-w4"]
    out, err = succeed(capsys, *words, *network, "-o", tmp_path / "out.h5", "--dry-run")
    assert "estimated time" not in err
    time, memory, disk = out.splitlines()
    assert time.startswith("estimated time")
    assert expected in time
    assert memory.startswith("memory")
    assert disk.startswith("disk")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [["distill", *TINY], ["experts", "--dataset", "digits", "--recipe", "ncfm", "--network", "convnet2-w8"]],
)
def test_a_dry_run_replaces_nothing_so_the_output_may_exist(
    capsys: Captured, made: Path, pool: Path, words: list[str]
) -> None:
    output = made if words[0] == "distill" else pool
    before = output.read_bytes()
    assert succeed(capsys, *words, "-o", output, "--dry-run")[0].startswith("estimated time")
    assert output.read_bytes() == before


def test_experts_of_no_name_are_refused(capsys: Captured, tmp_path: Path) -> None:
    words = ["distill", *TINY, "-o", tmp_path / "set.h5", "--dry-run"]
    assert "--experts is empty: name a file" in refused(capsys, *words, "--experts", "")


def test_a_dry_run_of_an_evaluation(capsys: Captured, made: Path) -> None:
    before = made.read_bytes()
    out, _ = succeed(capsys, "evaluate", made, *FAST, "--dry-run")
    assert "steps of students" in out
    assert made.read_bytes() == before


def test_a_run_is_written_where_it_is_said(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = Wandb()
    stand_in(monkeypatch, wandb)
    _, err = succeed(capsys, "distill", *TINY, "-o", tmp_path / "digits.h5", "--log", "wandb:mine")
    assert "--log: WandB writes to project mine\n" in err
    assert [(begun["project"], begun["name"]) for begun in wandb.begun] == [("mine", "digits (distillation)")]
    assert wandb.finished == [0]


def test_a_writer_that_is_not_installed_is_named_before_the_run(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninstall(monkeypatch, "wandb")
    line = refused(capsys, "distill", *TINY, "-o", tmp_path / "set.h5", "--log", "wandb")
    assert line == (
        "dsdistill: Weights & Biases is not installed: pip install wandb, or pip install "
        '"dsdistill[loggers]"\n'
    )
    assert list(tmp_path.iterdir()) == []


def test_help_names_the_first_thing_to_try_on_data_of_ones_own(capsys: Captured) -> None:
    assert main(["distill", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    example = out.index("dsdistill distill --dataset")
    assert "folder:~/pets --ipc 5 --size 64 --seconds 600" in out[example:]
    assert out[example:].index("folder:") < out[example:].index("cifar10")
