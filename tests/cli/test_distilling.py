"""The commands distill and experts."""

from __future__ import annotations

import json
import re
import signal
import warnings
from pathlib import Path

import pytest
import torch

from dsdistill.cli import main
from dsdistill.storage import set_file
from dsdistill.storage.expert_file import ExpertFile
from tests.conftest import THREADS
from tests.helpers.cli import FAST, TINY, Captured, pictures, refused, succeed
from tests.helpers.data import write_mnist
from tests.helpers.experts import PLAIN

EXPERTS = ("--recipe", "ncfm", "--network", "convnet2-w8", "--count", "1", "--epochs", "1", "--set", THREADS)
SHORT = ("--dataset", "digits", "--recipe", "mtt", "--epochs", "2", "--network", "convnet2-w6")
SET = [word for option in PLAIN for word in ("--set", option)]


def test_distill_writes_the_file_and_its_run(capsys: Captured, tmp_path: Path) -> None:
    output = tmp_path / "digits.h5"
    out, err = succeed(capsys, "distill", *TINY, "-o", output)
    assert str(output) in out
    assert "10 images" in out
    assert re.search(r"peak memory +[\d.]+ [MG]B \(the whole process\)", out)
    assert re.search(r"storage +8 bits, scaled by image, changed pixels by up to 0\.0", out)
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


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_a_folder_of_pictures_end_to_end(capsys: Captured, tmp_path: Path) -> None:
    name = f"folder:{pictures(tmp_path / 'pets', {'cat [b]': 6, 'dog': 5})}"
    output = tmp_path / "pets.h5"
    succeed(capsys, "distill", *TINY, "--dataset", name, "-o", output)
    out, _ = succeed(capsys, "info", output)
    assert "cat [b], dog" in out  # brackets are no markup
    succeed(capsys, "evaluate", output, *FAST)


def test_a_run_starts_from_the_file_of_a_set(capsys: Captured, tmp_path: Path, finished: Path) -> None:
    words = ["distill", "--dataset", "digits", "--network", "convnet2-w8", "--iterations", "0", "-o"]
    succeed(capsys, *words, tmp_path / "set.h5", "--init", finished, *SET)
    images = set_file.read(tmp_path / "set.h5").images
    torch.testing.assert_close(images, set_file.read(finished).images, atol=1e-6, rtol=0)
    assert "no file at" in refused(capsys, *words, tmp_path / "none.h5", "--init", tmp_path / "gone.h5")


@pytest.mark.slow
def test_no_warning_leaves_a_run(capsys: Captured, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        succeed(capsys, "distill", *TINY, "-o", tmp_path / "set.h5", "--set", "init=kmeans")


@pytest.mark.slow
def test_experts_are_trained_and_added_to(capsys: Captured, tmp_path: Path) -> None:
    output = tmp_path / "pool.h5"
    out, err = succeed(capsys, "experts", *SHORT, *SET, "--count", "2", "-o", output)
    assert "expert 1  accuracy" in out
    assert f"{output} (2 experts, 3 snapshots each" in out
    assert "estimated time" in err
    assert "file: 15.9 KB" in err
    assert "4/4 expert 1 loss" in err
    succeed(capsys, "experts", *SHORT, *SET, "--count", "3", "-o", output)
    assert ExpertFile.open(output).count == 3
    assert "--overwrite" in refused(capsys, "experts", *SHORT, *SET, "--count", "3", "-o", output)
    assert "--recipe ncfm" in refused(capsys, "experts", "--dataset", "digits", "-o", output)


@pytest.mark.slow
def test_stopped_training_of_experts_says_how_to_resume(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "pool.h5"
    monkeypatch.setattr(
        "dsdistill.loggers.progress.ProgressBar.on_epoch",
        lambda self, entry: signal.raise_signal(signal.SIGINT),
    )
    words = ["experts", *SHORT, *SET, "--count", "1", "-o", str(output)]
    assert main(words) == 128 + signal.SIGINT
    assert f"-o {output} --resume" in capsys.readouterr().err
    monkeypatch.undo()
    assert "resuming after 1 of 2 epochs" in succeed(capsys, *words, "--resume")[1]


@pytest.mark.slow
def test_several_networks_get_a_file_each(capsys: Captured, tmp_path: Path) -> None:
    words = ["experts", "--dataset", "digits", "--recipe", "teacher", "--epochs", "1", *SET, "-o"]
    both = [*words, tmp_path / "t.h5", "--network", "convnet2-w4-batch,mlp"]
    out, _ = succeed(capsys, *both)
    assert out.count("% on test images, ") == 2
    assert out.count("test accuracy  after epoch 0: ") == 2
    files = [tmp_path / f"t-{name}.h5" for name in ("convnet2-w4-batch", "mlp")]
    assert sorted(tmp_path.iterdir()) == files
    before = [file.read_bytes() for file in files]
    files[1].unlink()
    succeed(capsys, *both, "--resume")
    assert files[0].read_bytes() == before[0]
    assert ExpertFile.open(files[1]).metadata.network == "mlp"
    files[1].unlink()
    assert "did you mean" in refused(capsys, *both[:-1], "convnet2-w8-batch,shuflenetv2")
    assert sorted(tmp_path.iterdir()) == files[:1]


def test_experts_of_a_distillation_have_an_alias_that_help_leaves_out(
    capsys: Captured, tmp_path: Path
) -> None:
    out, _ = succeed(capsys, "distill", "--help")
    assert "--experts" in out
    assert "--pool" not in out
    for flag in ("--experts", "--pool"):
        line = refused(capsys, "distill", *TINY, "-o", tmp_path / "set.h5", flag, tmp_path / "experts.h5")
        assert "method 'dm' takes no networks trained beforehand" in line


def test_help_of_experts_names_what_matters(capsys: Captured) -> None:
    out, _ = succeed(capsys, "experts", "--help")
    for word in ("NCFM", "--recipe", "--count", "--resume", "momentum", "keep"):
        assert word in out
