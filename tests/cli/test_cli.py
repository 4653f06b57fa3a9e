"""The command line: what works, the exit codes of a process, and what the screen shows."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

import dsdistill
from dsdistill.cli import main, progress
from dsdistill.storage import set_file
from dsdistill.storage.expert_file import ExpertFile
from tests.conftest import THREADS
from tests.helpers.cli import FAST, TINY, Captured, pictures, refused, succeed
from tests.helpers.data import write_mnist

# What works -------------------------------------------------------------------------------------------------


def test_distill_writes_the_file_and_its_run(capsys: Captured, tmp_path: Path) -> None:
    output = tmp_path / "digits.h5"
    out, err = succeed(capsys, "distill", *TINY, "-o", output)
    assert str(output) in out
    assert "10 images" in out
    assert "changed pixels" not in out
    assert "1/3" in err
    assert "networks " in next(line for line in err.splitlines() if line.startswith("memory estimate"))
    run = tmp_path / "digits.run"
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [entry["iteration"] for entry in entries] == [1, 2, 3]
    assert {"loss", "mean", "seconds"} <= entries[0].keys()
    assert 'name = "digits"' in (run / "config.toml").read_text()

    other = tmp_path / "other.h5"
    succeed(capsys, "distill", "--config", run / "config.toml", "-o", other)
    assert torch.equal(set_file.read(output).images, set_file.read(other).images)
    assert (tmp_path / "other.run/config.toml").read_text() == (run / "config.toml").read_text()


def test_evaluate_judges_and_keeps_the_results(capsys: Captured, made: Path) -> None:
    results = made.with_suffix(".json")
    out, _ = succeed(capsys, "evaluate", made, *FAST, "--json", results)
    assert "distilled" in out
    assert "random" in out
    assert [row["set"] for row in json.loads(results.read_text())["rows"]] == ["distilled", "random"]
    out, _ = succeed(capsys, "info", made)
    assert out.count("2 students") == 2
    assert out.count(" epochs: ") == 2
    succeed(capsys, "evaluate", made, *FAST, "--no-save", "--baselines", "")
    assert len(set_file.results(made)) == 2


def test_evaluate_takes_a_seed_a_precision_and_scores(
    capsys: Captured, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsdistill.runtime.device._multiplies_bf16", lambda device: True)
    results = made.with_suffix(".json")
    words = ["evaluate", made, *FAST, "--json", results, "--no-save"]
    succeed(capsys, *words, "--seed", "3", "--precision", "fp32", "--scores")
    found = json.loads(results.read_text())
    assert (found["seed"], found["precision"]) == (3, "fp32")
    plain = ["distilled-plain", "random-plain"]
    assert [row["set"] for row in found["rows"]] == ["distilled", "random", *plain]
    report = dsdistill.evaluate(
        made, epochs=2, repeats=2, networks="convnet2-w8", seed=3, precision="fp32", save=False
    )
    assert [row.values for row in report.rows] == [row["values"] for row in found["rows"][:2]]


EXPERTS = ("--recipe", "ncfm", "--network", "convnet2-w8", "--count", "1", "--epochs", "1", "--set", THREADS)


def test_data_are_whitened_where_that_is_said(capsys: Captured, tmp_path: Path, data_home: None) -> None:
    output, pool, config = tmp_path / "set.h5", tmp_path / "pool.h5", tmp_path / "my.toml"
    out, _ = succeed(capsys, "distill", *TINY, "--zca", "-o", output, "--set", "storage=uint8")
    assert set_file.read(output).preprocess.kind == "zca"
    assert "changed pixels by up to" in out
    config.write_text("data.zca = true")
    words = ["distill", *TINY, "-o", output, "--overwrite", "--config", config]
    for word, kind in (("", "zca"), ("--no-zca", "standardise")):
        succeed(capsys, *words, *word.split())
        assert set_file.read(output).preprocess.kind == kind
    succeed(capsys, "experts", "--dataset", "digits", *EXPERTS, "--zca", "-o", pool)
    assert ExpertFile.open(pool).metadata.preprocess.kind == "zca"


def test_data_are_read_from_where_they_are_said_to_lie(
    capsys: Captured, tmp_path: Path, data_home: None
) -> None:
    there, moved = tmp_path / "there", tmp_path / "moved"
    write_mnist(there)
    output, pool = tmp_path / "set.h5", tmp_path / "pool.h5"
    for words in (["distill", *TINY, "-o", output], ["experts", *EXPERTS, "-o", pool]):
        words = [*words, "--dataset", "mnist"]
        assert "--root" in refused(capsys, *words)
        succeed(capsys, *words, "--root", there)
    succeed(capsys, "evaluate", output, *FAST)  # where they lay
    there.rename(moved)
    assert "--root" in refused(capsys, "evaluate", output, *FAST)
    succeed(capsys, "evaluate", output, *FAST, "--root", moved)


def test_info_show_and_export(capsys: Captured, made: Path) -> None:
    out, _ = succeed(capsys, "info", made)
    assert "verified" in out
    assert "10 of 1x8x8 float32" in out
    out, _ = succeed(capsys, "show", made)
    assert str(made.with_suffix(".png")) in out
    with Image.open(made.with_suffix(".png")) as picture:
        assert picture.width > 8
    pngs, tensors = made.parent / "pngs", made.parent / "set.pt"
    succeed(capsys, "export", made, pngs)
    assert len(list(pngs.rglob("*.png"))) == 10
    succeed(capsys, "export", made, tensors, "--space", "unit")
    assert tensors.exists()


def test_info_prints_the_configuration_that_replays_a_set(capsys: Captured, made: Path) -> None:
    out, _ = succeed(capsys, "info", made, "--config")
    again, config = made.parent / "again.h5", made.parent / "again.toml"
    config.write_text(out)
    succeed(capsys, "distill", "--config", config, "-o", again)
    assert torch.equal(set_file.read(again).images, set_file.read(made).images)


def test_methods_and_datasets_are_listed(capsys: Captured) -> None:
    out, _ = succeed(capsys, "methods")
    assert "Zhao & Bilen" in out
    out, _ = succeed(capsys, "methods", "mtt")
    assert tomllib.loads(out)["title"].startswith("MTT")
    out, _ = succeed(capsys, "methods", "ncfm-minmax")
    assert tomllib.loads(out)["title"].startswith("NCFM with its minmax")  # what follows is a comment
    assert "# It begins from ncfm:" in out
    assert "# batch_real = 1024\n" in out
    assert "did you mean 'mtt'" in refused(capsys, "methods", "mttt")
    out, _ = succeed(capsys, "datasets")
    assert "cifar10 " in out
    assert "folder:PATH" in out


def test_networks_protocols_and_the_version_are_told(capsys: Captured) -> None:
    out, _ = succeed(capsys, "networks")
    assert "convnet4-w64-batch" in out
    out, _ = succeed(capsys, "protocols")
    assert "DSA" in out
    out, _ = succeed(capsys, "--version")
    assert out.startswith("dsdistill 0.")


def test_python_calls_do_the_same(tmp_path: Path) -> None:
    output = tmp_path / "digits.h5"
    summary = dsdistill.distill(output, dataset="digits", ipc=1, network="convnet2-w8", iterations=2)
    assert (summary.path, summary.images, summary.iterations) == (output, 10, 2)
    report = dsdistill.evaluate(output, epochs=1, repeats=1, baselines="", save=False)
    assert len(report.rows) == 1
    assert len(dsdistill.load(output)) == 10


def test_help_and_no_words_at_all(capsys: Captured) -> None:
    for words in ([], ["--help"], ["--debug"], ["distill", "-h"]):
        out, err = succeed(capsys, *words)
        assert "Usage: dsdistill" in out
        assert not err
    command = [sys.executable, "-m", "dsdistill", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "evaluate" in done.stdout


def test_a_process_exits_with_2_and_no_traceback() -> None:
    command = [sys.executable, "-m", "dsdistill", "info", "no-such-file.h5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr == "dsdistill: no file at no-such-file.h5\n"


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 17 GB")]
)
def test_running_out_of_memory_is_said(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("dsdistill.distillation.run.distill", exhausted)
    monkeypatch.setattr("dsdistill.evaluation.run.evaluate", exhausted)
    line = refused(capsys, "distill", *TINY, "-o", tmp_path / "set.h5")
    assert "out of memory" in line
    assert "compute.class_chunk=1" in line
    assert "--set" not in refused(capsys, "evaluate", tmp_path / "set.h5")


def test_debug_shows_where(tmp_path: Path) -> None:
    with pytest.raises(dsdistill.UserError, match="no file at"):
        main(["--debug", "info", str(tmp_path / "none.h5")])


# Folders of pictures ----------------------------------------------------------------------------------------


def test_a_folder_of_pictures_end_to_end(capsys: Captured, tmp_path: Path) -> None:
    name = f"folder:{pictures(tmp_path / 'pets', {'cat [b]': 6, 'dog': 5})}"
    output = tmp_path / "pets.h5"
    succeed(capsys, "distill", *TINY, "--dataset", name, "-o", output)
    out, _ = succeed(capsys, "info", output)
    assert "cat [b], dog" in out  # brackets are no markup
    succeed(capsys, "evaluate", output, *FAST)


# The screen -------------------------------------------------------------------------------------------------


def test_lines_give_an_eta_once_there_is_a_pace(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress.EvaluationProgress, "LINE_EVERY", 0.0)
    with progress.EvaluationProgress() as show:
        for done in (10, 20, 40):
            show.progress("students", done, 40)
    first, second, last = capsys.readouterr().err.splitlines()
    assert first == "students 10/40"
    assert second == "students 20/40 ETA 0 min 00 s"
    assert last == "students 40/40"


def test_no_warning_leaves_a_run(capsys: Captured, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        succeed(capsys, "distill", *TINY, "-o", tmp_path / "set.h5", "--set", "init=kmeans")
