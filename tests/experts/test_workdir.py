"""Parts of experts: whole and of this training, or trained anew; deleted when the file holds them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dsdistill import files
from dsdistill.errors import UserError
from dsdistill.experts.config import ExpertConfig
from dsdistill.experts.workdir import WorkDir
from dsdistill.runtime.notice import silent
from dsdistill.storage.expert_file import TrainingRecord
from tests.helpers.experts import told

RECORD = TrainingRecord(0.5, 0.75, 2.0, "a machine", "2020-01-01T00:00:00+00:00")
STATE = {"weights": torch.arange(4.0)}


def config(**options: object) -> ExpertConfig:
    return told("mtt", epochs=2, count=3, **options)


def workdir(folder: Path, fingerprint: str = "f", **options: object) -> WorkDir:
    return WorkDir(folder / "pool.h5.parts", config(**options), fingerprint)


def snapshot(expert: int, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((3,), 10.0 * expert + epoch), torch.empty(0)


@pytest.fixture
def parts(tmp_path: Path) -> WorkDir:
    """Return a folder of two finished experts and one after its first epoch."""
    found = workdir(tmp_path)
    found.begin(resume=False, overwrite=False)
    for expert, epochs in ((0, 2), (1, 2), (2, 1)):
        found.save_snapshot(expert, 0, snapshot(expert, 0))
        for epoch in range(1, epochs + 1):
            found.save_snapshot(expert, epoch, snapshot(expert, epoch))
            found.save(expert, epoch, 1.5, STATE, RECORD if epoch == 2 else None)
    return found


def dropped(parts: WorkDir) -> list[str]:
    said: list[str] = []
    parts.drop_damaged(range(3), said.append)
    return said


def test_whole_parts_are_kept(parts: WorkDir, tmp_path: Path) -> None:
    again = workdir(tmp_path)
    again.begin(resume=True, overwrite=False)
    assert dropped(again) == []
    assert again.epochs_done(range(3)) == 5
    assert again.record(1) == RECORD
    found = list(again.snapshots(1))
    assert all(torch.equal(one[0], snapshot(1, epoch)[0]) for epoch, one in enumerate(found))
    restored = again.restore(2, silent)
    assert restored is not None
    assert (restored[1], restored[2]) == (1, 1.5)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "the last bit of a part": lambda folder: flip(folder / "00001/epoch-00000.safetensors"),
    "a part is gone": lambda folder: (folder / "00001/epoch-00001.safetensors").unlink(),
    "the part of another expert": lambda folder: shutil.copy(
        folder / "00000/epoch-00001.safetensors", folder / "00001/epoch-00001.safetensors"
    ),
    "the part of another epoch": lambda folder: shutil.copy(
        folder / "00001/epoch-00000.safetensors", folder / "00001/epoch-00001.safetensors"
    ),
    "all checkpoints": lambda folder: [flip(path) for path in (folder / "00001").glob("checkpoint-*")],
    "the checkpoint of another expert": lambda folder: shutil.copy(
        folder / "00000/checkpoint-000000002.safetensors", folder / "00001/checkpoint-000000002.safetensors"
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_expert_with_a_damaged_file_is_trained_anew_with_a_notice(parts: WorkDir, damage: str) -> None:
    DAMAGE[damage](parts.path)
    said = dropped(parts)
    assert said[-1].startswith("expert 1 is trained anew: ")
    assert not (parts.path / "00001").exists()
    assert parts.epochs_done(range(3)) == 3
    assert parts.restore(1, silent) is None


@pytest.mark.parametrize("name", ["epoch-00001.safetensors", "checkpoint-000000002.safetensors"])
def test_a_disk_that_cannot_be_read_costs_no_part(
    parts: WorkDir, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    read = files.read

    def failing(path: Path, most: int | None = None) -> bytes:
        if path == parts.path / "00001" / name:
            raise OSError(5, "Input/output error")
        return read(path, most)

    before = sorted(parts.path.rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(files, "read", failing)
        with pytest.raises(UserError, match=rf"cannot read .*{name}: Input/output error"):
            dropped(parts)
    assert sorted(parts.path.rglob("*")) == before
    assert dropped(parts) == []


def test_a_damaged_checkpoint_costs_an_epoch(parts: WorkDir) -> None:
    flip(parts.path / "00001/checkpoint-000000002.safetensors")
    assert dropped(parts) == ["checkpoint-000000002.safetensors is damaged; trying the one before it"]
    assert parts.epochs_done(range(3)) == 4
    restored = parts.restore(1, silent)
    assert restored is not None
    assert restored[1] == 1


def test_parts_of_another_seed_are_not_taken(parts: WorkDir, tmp_path: Path) -> None:
    other = WorkDir(tmp_path / "other.parts", config(seed=1), "f")
    other.begin(resume=False, overwrite=False)
    for name in ("00000", "00001"):
        shutil.copytree(parts.path / name, other.path / name)
    said = dropped(other)
    assert said == [
        f"expert {expert} is trained anew: no checkpoint of it is whole and of this training"
        for expert in (0, 1)
    ]


def test_parts_of_other_data_are_refused(parts: WorkDir, tmp_path: Path) -> None:
    again = workdir(tmp_path, fingerprint="g")
    again.begin(resume=True, overwrite=False)
    with pytest.raises(UserError, match=r"digits has changed since pool\.h5\.parts began"):
        dropped(again)


def test_a_part_that_is_damaged_later_is_found_when_it_is_written(parts: WorkDir) -> None:
    flip(parts.path / "00001/epoch-00002.safetensors")
    found = parts.snapshots(1)
    next(found)
    next(found)
    with pytest.raises(
        UserError, match=r"epoch-00002.* is missing or damaged; --resume trains its expert anew"
    ):
        next(found)


def test_a_half_begun_folder_is_begun_again(tmp_path: Path) -> None:
    found = workdir(tmp_path)
    for resume in (False, True):
        found.path.mkdir()
        (found.path / ".config.toml.0a1b2c3d.part").touch()
        found.begin(resume, overwrite=False)
        assert [path.name for path in found.path.iterdir()] == ["config.toml"]
        found.clear()
    (found.path).mkdir()
    (found.path / "mine.txt").touch()
    with pytest.raises(UserError, match="is in the way"):
        found.begin(resume=True, overwrite=True)


@pytest.mark.parametrize("content", [b"", b"lr = ", b"\xff", b"lr = 5\n[data"])
def test_a_damaged_config_is_one_line_and_can_be_overwritten(
    parts: WorkDir, tmp_path: Path, content: bytes
) -> None:
    (parts.path / "config.toml").write_bytes(content)
    again = workdir(tmp_path)
    with pytest.raises(UserError, match="start anew with --overwrite") as caught:
        again.begin(resume=True, overwrite=False)
    assert "\n" not in str(caught.value)
    again.begin(resume=True, overwrite=True)
    assert [path.name for path in parts.path.iterdir()] == ["config.toml"]


def test_other_options_are_refused_and_the_machine_may_change(parts: WorkDir, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"cannot resume pool.h5.parts with lr = 0.5: it was started with 0.01"
    ):
        workdir(tmp_path, lr=0.5).begin(resume=True, overwrite=False)
    moved = WorkDir(parts.path, told("mtt", epochs=2, count=9, compute={"device": "cuda"}), "f")
    moved.begin(resume=True, overwrite=False)
    assert dropped(moved) == []


def test_only_what_the_file_holds_is_deleted(parts: WorkDir, tmp_path: Path) -> None:
    workdir(tmp_path, lr=0.5).clear_written(2)  # of another training
    assert (parts.path / "00000").exists()
    parts.clear_written(2)
    assert sorted(path.name for path in parts.path.iterdir()) == ["00002", "config.toml"]
    parts.clear_written(3)
    assert not parts.path.exists()
    parts.clear_written(3)
