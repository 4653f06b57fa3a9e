"""The folder of unfinished experts, beside their file. A killed run loses one epoch at most.

``config.toml``                         the options of the training
``<expert>/epoch-<n>.safetensors``      ``weights`` [P] and ``buffers`` [Q] after an epoch that is stored
``<expert>/checkpoint-<n>.safetensors`` the training state after n epochs; the two latest are kept
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from dsdistill import files
from dsdistill.errors import UserError
from dsdistill.experts.config import ExpertConfig, difference, to_toml
from dsdistill.runtime.checkpoints import RunDirectory
from dsdistill.runtime.notice import Notify, silent
from dsdistill.storage.expert_file import Snapshot, TrainingRecord


class WorkDir:
    """The folder of experts that are not in a file yet."""

    def __init__(self, path: Path, config: ExpertConfig, fingerprint: str) -> None:
        """Name the folder; nothing is read or written.

        Args:
            path: of the folder.
            config: without any ``auto``.
            fingerprint: of the training images.
        """
        self.path = path
        self._config = config
        self._fingerprint = fingerprint
        self._config_file = path / "config.toml"

    def begin(self, resume: bool, overwrite: bool) -> None:
        """Make the folder, or accept the one that an interrupted run has left.

        Raises:
            UserError: it holds something else, or experts with other options.
        """
        if self.path.exists() and not self._config_file.exists():
            raise UserError(
                f"{self.path} is in the way of unfinished experts; move it, or name another output"
            )
        if self._config_file.exists() and resume:
            change = difference(self._config_file.read_text(), self._config)
            if change and not overwrite:
                key, before, now = change
                raise UserError(
                    f"cannot resume {self.path.name} with {key} = {now!r}: it was started with {before!r}; "
                    "leave the option as it was, or start anew with --overwrite"
                )
            if change:
                self.clear()
        elif self._config_file.exists():
            if not overwrite:
                raise UserError(
                    f"{self.path} holds unfinished experts; pass --resume to go on, or --overwrite"
                )
            self.clear()
        files.check_folder(self.path)
        self.path.mkdir(exist_ok=True)
        files.replace(self._config_file, to_toml(self._config).encode())

    def epochs_done(self, experts: Iterable[int]) -> int:
        """Return the finished epochs of experts, summed, by the names of their latest checkpoints."""
        latest = [path for expert in experts for path in self._run(expert).checkpoints()[:1]]
        return sum(int(path.stem.removeprefix("checkpoint-")) for path in latest)

    def save_snapshot(self, expert: int, epoch: int, snapshot: Snapshot) -> None:
        """Store weights and buffers that the file will hold."""
        self._folder(expert).mkdir(exist_ok=True)
        weights, buffers = snapshot
        tensors = {"weights": weights, "buffers": buffers}
        files.replace(self._snapshot_file(expert, epoch), save_tensors(tensors))

    def save(
        self,
        expert: int,
        epoch: int,
        seconds: float,
        state: dict[str, Tensor],
        record: TrainingRecord | None,
    ) -> None:
        """Write a checkpoint of an expert after an epoch.

        Args:
            expert: its number.
            epoch: finished epochs.
            seconds: that they took.
            state: of the trainer.
            record: of the whole training, after the last epoch.
        """
        metadata = {"seconds": repr(seconds), "fingerprint": self._fingerprint}
        metadata |= {"training": json.dumps(dataclasses.asdict(record))} if record else {}
        self._folder(expert).mkdir(exist_ok=True)
        self._run(expert).save({**state, "iteration": torch.tensor(epoch)}, metadata)

    def seconds_of_saving(self, state: dict[str, Tensor]) -> float:
        """Write a state of the trainer, durably as a checkpoint is, delete it, and return the seconds."""
        trial = self.path / "trial.safetensors"
        since = time.monotonic()
        files.replace(trial, save_tensors(state))
        trial.unlink()
        return time.monotonic() - since

    def restore(self, expert: int, notify: Notify) -> tuple[dict[str, Tensor], int, float] | None:
        """Return the latest state of an expert, its epoch and its seconds; None if it has to start anew.

        Raises:
            UserError: the data have changed, or all its checkpoints are damaged.
        """
        checkpoint = self._run(expert).restore(notify)
        if checkpoint is None:
            return None
        state, metadata = checkpoint
        if metadata["fingerprint"] != self._fingerprint:
            raise UserError(
                f"{self._config.data.name} has changed since {self.path.name} began; "
                "start anew with --overwrite"
            )
        epoch = int(state.pop("iteration"))
        stored = [number for number in self._config.stored_epochs if number <= epoch]
        if not all(self._snapshot_file(expert, number).exists() for number in stored):
            shutil.rmtree(self._folder(expert))
            return None
        return state, epoch, float(metadata["seconds"])

    def record(self, expert: int) -> TrainingRecord:
        """Return the record of a finished expert's training.

        Raises:
            UserError: the expert is not finished, or all its checkpoints are damaged.
        """
        checkpoint = self._run(expert).restore(silent)
        if checkpoint is None or "training" not in checkpoint[1]:
            raise UserError(f"expert {expert} in {self.path} is not finished; train it with --resume")
        return TrainingRecord(**json.loads(checkpoint[1]["training"]))

    def snapshots(self, expert: int) -> Iterator[Snapshot]:
        """Yield the weights and buffers of a finished expert at its stored epochs.

        Raises:
            UserError: a file is damaged.
        """
        for epoch in self._config.stored_epochs:
            path = self._snapshot_file(expert, epoch)
            try:
                tensors = load_tensors(path.read_bytes())
            except (OSError, SafetensorError) as error:
                raise UserError(
                    f"{path} is damaged: {files.reason(error)}; delete its folder and pass --resume"
                ) from error
            yield tensors["weights"], tensors["buffers"]

    def clear(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.path)

    def _run(self, expert: int) -> RunDirectory:
        return RunDirectory(self._folder(expert))

    def _folder(self, expert: int) -> Path:
        return self.path / f"{expert:05d}"

    def _snapshot_file(self, expert: int, epoch: int) -> Path:
        return self._folder(expert) / f"epoch-{epoch:05d}.safetensors"
