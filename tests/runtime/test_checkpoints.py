"""The run directory: what it replaces, and what it gives back after damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from dsdistill.errors import UserError
from dsdistill.runtime.checkpoints import RunDirectory, iteration_of


def state(iteration: int) -> dict[str, torch.Tensor]:
    return {"iteration": torch.tensor(iteration), "x": torch.arange(4.0) * iteration}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "set.run")
    run.create("seed = 1\n", overwrite=False)
    return run


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def test_the_two_latest_checkpoints_are_kept_and_the_latest_is_restored(run: RunDirectory) -> None:
    assert run.restore(print) is None
    for iteration in (1, 2, 10):
        run.save(state(iteration), {"seconds": str(iteration)})
    names = ["checkpoint-000000010.safetensors", "checkpoint-000000002.safetensors"]
    assert [path.name for path in run.checkpoints()] == names
    restored = run.restore(print)
    assert restored is not None
    tensors, metadata = restored
    assert metadata == {"seconds": "10"}
    assert tensors.keys() == {"iteration", "x"}
    assert torch.equal(tensors["x"], state(10)["x"])


def test_damaged_checkpoints_are_skipped_with_a_notice(run: RunDirectory) -> None:
    for iteration in (1, 2):
        run.save(state(iteration), {})
    latest, earlier = run.checkpoints()
    damage(latest)
    notices: list[str] = []
    restored = run.restore(notices.append)
    assert restored is not None
    assert int(restored[0]["iteration"]) == 1
    assert notices == [f"{latest.name} is damaged; trying the one before it"]
    damage(earlier)
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged; start anew with --overwrite"):
        run.restore(notices.append)


def test_metadata_is_part_of_the_digest(run: RunDirectory) -> None:
    run.save(state(1), {"seconds": "5"})
    (path,) = run.checkpoints()
    path.write_bytes(path.read_bytes().replace(b'"seconds":"5"', b'"seconds":"6"'))
    with pytest.raises(UserError, match="every checkpoint"):
        run.restore(lambda sentence: None)


def test_an_earlier_run_is_replaced_only_where_asked(run: RunDirectory) -> None:
    run.save(state(1), {})
    run.snapshot(1).touch()
    (run.path / "mine.txt").touch()
    with pytest.raises(UserError, match="holds an earlier run; pass --resume to go on with it"):
        run.create("seed = 2\n", overwrite=False)
    assert run.config_file.read_text() == "seed = 1\n"
    run.create("seed = 2\n", overwrite=True)
    assert run.config_file.read_text() == "seed = 2\n"
    assert sorted(path.name for path in run.path.iterdir()) == ["config.toml", "metrics.jsonl", "mine.txt"]


def test_other_files_and_folders_are_never_taken_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    for name, message in (("file", "is a file, not a run"), ("full", "is not a run directory and not empty")):
        with pytest.raises(UserError, match=message):
            RunDirectory(tmp_path / name).create("", overwrite=True)


def test_a_resumed_run_drops_what_came_after_its_checkpoint(run: RunDirectory) -> None:
    lines = [json.dumps({"iteration": iteration}) for iteration in (1, 2, 3)]
    run.metrics_file.write_text("\n".join(lines) + '\n{"iterat')  # a kill cut the last line short
    for iteration in (1, 2, 3):
        run.snapshot(iteration).touch()
    run.trim(2)
    assert run.metrics_file.read_text() == "\n".join(lines[:2]) + "\n"
    assert run.snapshots() == [run.snapshot(1), run.snapshot(2)]


def test_discarded_iterations_are_counted(run: RunDirectory, tmp_path: Path) -> None:
    entries = [{"iteration": 1, "discarded": True}, {"iteration": 2}, {"iteration": 3, "discarded": True}]
    run.metrics_file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert run.discarded() == 2
    assert RunDirectory(tmp_path / "none").discarded() == 0


def test_a_checkpoint_of_another_configuration_is_refused(run: RunDirectory, tmp_path: Path) -> None:
    run.save(state(1), {})
    other = RunDirectory(tmp_path / "other.run")
    other.create("seed = 2\n", overwrite=False)
    (path,) = run.checkpoints()
    shutil.copy(path, other.path)
    with pytest.raises(UserError, match=r"was not made with the configuration in config.toml; start anew"):
        other.restore(print)
    other.config_file.write_text("seed = 1\n")
    assert RunDirectory(other.path).restore(print) is not None


def test_an_overwritten_run_has_a_new_configuration(run: RunDirectory) -> None:
    run.save(state(1), {})
    run.create("seed = 2\n", overwrite=True)
    run.save(state(1), {})
    assert RunDirectory(run.path).restore(print) is not None


def test_a_folder_with_nothing_but_temporary_files_becomes_a_run(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "set.run")
    run.path.mkdir()
    (run.path / ".config.toml.0a1b2c3d.part").touch()
    run.create("seed = 1\n", overwrite=False)
    assert run.config() == {"seed": 1}


@pytest.mark.parametrize("content", [b"", b"seed = ", b"\xff\x00", b"seed = 1\nseed = 2"])
def test_a_damaged_config_is_one_line(run: RunDirectory, content: bytes) -> None:
    run.config_file.write_bytes(content)
    with pytest.raises(UserError, match=r"config\.toml .*; start anew with --overwrite") as caught:
        run.config()
    assert "\n" not in str(caught.value)


def test_names_that_are_no_checkpoints_are_left_alone(run: RunDirectory) -> None:
    for name in ("checkpoint-x.safetensors", "checkpoint-.safetensors", "checkpoint-1.safetensors"):
        (run.path / name).touch()
    for iteration in (1, 2, 3):
        run.save(state(iteration), {})
    assert [iteration_of(path) for path in run.checkpoints()] == [3, 2]
    assert (run.path / "checkpoint-x.safetensors").exists()
