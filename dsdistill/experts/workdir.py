"""The folder of unfinished experts, beside their file. A killed run loses one epoch at most.

``config.toml``                         the options that the training began with
``<expert>/epoch-<n>.safetensors``      ``weights`` [P] and ``buffers`` [Q] after an epoch that is stored
``<expert>/checkpoint-<n>.safetensors`` the training state after n epochs; the two latest are kept

Every file carries a digest of its content, the digest of the training images, and its expert. An expert of
which any file is damaged or missing is trained anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from dsdistill import files
from dsdistill.errors import UserError
from dsdistill.experts.config import ExpertConfig, difference, to_toml
from dsdistill.runtime import tensors
from dsdistill.runtime.checkpoints import NoCheckpoint, RunDirectory, iteration_of
from dsdistill.runtime.notice import Notify, silent
from dsdistill.storage.expert_file import ACCURACIES, Snapshot, TrainingRecord

Checkpoint = tuple[dict[str, Tensor], dict[str, str]]


class WorkDir:
    """The folder of experts that are not in a file yet.

    Attributes:
        path: of the folder.
        fingerprint: of the training images.
    """

    def __init__(self, path: Path, config: ExpertConfig, fingerprint: str) -> None:
        """Name the folder; nothing is read or written.

        Args:
            path, fingerprint: as the attributes.
            config: without any ``auto``.
        """
        self.path = path
        self._config = config
        self.fingerprint = fingerprint
        self._directory = RunDirectory(path)

    def begin(self, resume: bool, overwrite: bool) -> None:
        """Make the folder, or accept the one that an interrupted run has left.

        Raises:
            UserError: it holds something else, or experts with other options, or cannot be written.
        """
        if not self._goes_on(resume, overwrite):
            self.clear()
            files.make_folder(self.path)
            files.replace(self._directory.config_file, to_toml(self._config).encode())
        files.sweep(self.path)

    def _goes_on(self, resume: bool, overwrite: bool) -> bool:
        """Whether there are experts to go on with; raises as `begin`."""
        if not self._directory.config_file.exists():
            if self.path.exists() and not (self.path.is_dir() and files.is_empty(self.path)):
                raise UserError(
                    f"{self.path} is in the way of unfinished experts; move it, or name another output"
                )
            return False
        if not resume:
            if not overwrite:
                raise UserError(
                    f"{self.path} holds unfinished experts; pass --resume to go on, or --overwrite"
                )
            return False
        try:
            change = difference(self._directory.config(), self._config)
            if change is None:
                return True
            key, before, now = change
            raise UserError(
                f"cannot resume {self.path.name} with {key} = {now!r}: it was started with {before!r}; "
                "leave the option as it was, or start anew with --overwrite"
            )
        except UserError:
            if overwrite:
                return False
            raise

    def drop_damaged(self, experts: Iterable[int], notify: Notify) -> None:
        """Delete what is damaged: single checkpoints, and experts that have to be trained anew.

        Args:
            experts: those that are looked at.
            notify: receives a sentence for each.

        Raises:
            UserError: the training images have changed, or a file cannot be read, which may be otherwise
                next time.
        """
        for expert in experts:
            folder = self._folder(expert)
            if not folder.exists():
                continue
            files.sweep(folder)
            if problem := self._problem(expert, notify):
                notify(f"expert {expert} is trained anew: {problem}")
                files.remove(folder)

    def _problem(self, expert: int, notify: Notify) -> str:
        """Say why an expert cannot be gone on with; empty if it can."""
        run = self._run(expert)
        try:
            checkpoint = run.restore(notify)
        except NoCheckpoint:
            return "no checkpoint of it is whole and of this training"
        if checkpoint is None:
            return ""
        self._check_data(checkpoint)
        if checkpoint[1]["expert"] != str(expert):
            return "its checkpoint belongs to another expert"
        epoch = int(checkpoint[0]["iteration"])
        for damaged in [path for path in run.checkpoints() if iteration_of(path) > epoch]:
            files.remove(damaged)
        for number in (number for number in self._config.stored_epochs if number <= epoch):
            path = self._snapshot_file(expert, number)
            try:
                self._read_snapshot(expert, number)
            except (FileNotFoundError, ValueError):
                return f"{path.name} is missing or damaged"
            except OSError as error:
                raise UserError(f"cannot read {path}: {files.reason(error)}") from error
        return ""

    def epochs_done(self, experts: Iterable[int]) -> int:
        """Return the finished epochs of experts, summed, by the names of their latest checkpoints."""
        latest = [path for expert in experts for path in self._run(expert).checkpoints()[:1]]
        return sum(map(iteration_of, latest))

    def save_snapshot(self, expert: int, epoch: int, snapshot: Snapshot) -> None:
        """Store weights and buffers that the file will hold.

        Raises:
            UserError: they cannot be written.
        """
        files.make_folder(self._folder(expert))
        weights, buffers = snapshot
        content = {"weights": weights, "buffers": buffers}
        tensors.write(self._snapshot_file(expert, epoch), content, self._identity(expert, epoch))

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

        Raises:
            UserError: it cannot be written.
        """
        metadata = {"seconds": repr(seconds), "fingerprint": self.fingerprint, "expert": str(expert)}
        metadata |= {"training": json.dumps(dataclasses.asdict(record))} if record else {}
        files.make_folder(self._folder(expert))
        self._run(expert).save({**state, "iteration": torch.tensor(epoch)}, metadata)

    def seconds_of_saving(self, state: dict[str, Tensor]) -> float:
        """Write a state of the trainer, durably as a checkpoint is, delete it, and return the seconds."""
        trial = self.path / "trial.safetensors"
        since = time.monotonic()
        tensors.write(trial, state, {})
        trial.unlink()
        return time.monotonic() - since

    def restore(self, expert: int, notify: Notify) -> tuple[dict[str, Tensor], int, float] | None:
        """Return the latest state of an expert, its epoch and its seconds; None if it has to start anew.

        Raises:
            UserError: the training images have changed, or all its checkpoints are damaged.
        """
        checkpoint = self._run(expert).restore(notify)
        if checkpoint is None:
            return None
        self._check_data(checkpoint)
        state, metadata = checkpoint
        return state, int(state.pop("iteration")), float(metadata["seconds"])

    def _check_data(self, checkpoint: Checkpoint) -> None:
        if checkpoint[1]["fingerprint"] != self.fingerprint:
            raise UserError(
                f"{self._config.data.name} has changed since {self.path.name} began; "
                "start anew with --overwrite"
            )

    def record(self, expert: int) -> TrainingRecord:
        """Return the record of a finished expert's training.

        Raises:
            UserError: the expert is not finished, or all its checkpoints are damaged.
        """
        checkpoint = self._run(expert).restore(silent)
        if checkpoint is None or "training" not in checkpoint[1]:
            raise UserError(f"expert {expert} in {self.path} is not finished; train it with --resume")
        fields = json.loads(checkpoint[1]["training"])
        accuracies = {name: tuple(fields.get(name, ())) for name in ACCURACIES}
        return TrainingRecord(**{**fields, **accuracies})

    def tensor(self, expert: int, name: str) -> Tensor:
        """Return a tensor of the latest state of an expert; raises as `record`."""
        checkpoint = self._run(expert).restore(silent)
        if checkpoint is None or name not in checkpoint[0]:
            raise UserError(f"expert {expert} in {self.path} is not finished; train it with --resume")
        return checkpoint[0][name]

    def snapshots(self, expert: int) -> Iterator[Snapshot]:
        """Yield the weights and buffers of a finished expert at its stored epochs.

        Raises:
            UserError: a file is damaged.
        """
        for epoch in self._config.stored_epochs:
            try:
                yield self._read_snapshot(expert, epoch)
            except (OSError, ValueError) as error:
                path = self._snapshot_file(expert, epoch)
                raise UserError(f"{path} is missing or damaged; --resume trains its expert anew") from error

    def _read_snapshot(self, expert: int, epoch: int) -> Snapshot:
        """Read a stored snapshot; raise OSError or ValueError if it is damaged or another one."""
        content, identity = tensors.read(self._snapshot_file(expert, epoch))
        if identity != self._identity(expert, epoch):
            raise ValueError("it belongs to another expert")
        return content["weights"], content["buffers"]

    def _identity(self, expert: int, epoch: int) -> dict[str, str]:
        return {
            "config": self._directory.config_digest,
            "fingerprint": self.fingerprint,
            "expert": str(expert),
            "epoch": str(epoch),
        }

    def clear_written(self, count: int) -> None:
        """Delete the first experts, which a file holds; a kill may come between its writing and `clear`."""
        with contextlib.suppress(UserError):  # what is there belongs to another training, or to nobody
            if self._goes_on(resume=True, overwrite=False):
                for expert in range(count):
                    files.remove(self._folder(expert))
                if all(path == self._directory.config_file for path in self.path.iterdir()):
                    self.clear()

    def clear(self) -> None:
        """Delete the folder, if it is there; the options last, because they tell what it is.

        Raises:
            UserError: it cannot be deleted.
        """
        config_file = self._directory.config_file
        for path in self.path.iterdir() if self.path.is_dir() else ():
            if path != config_file:
                files.remove(path)
        files.remove(config_file)
        files.remove(self.path)
        self._directory = RunDirectory(self.path)

    def _run(self, expert: int) -> RunDirectory:
        return RunDirectory(self._folder(expert), self._directory.config_file)

    def _folder(self, expert: int) -> Path:
        return self.path / f"{expert:05d}"

    def _snapshot_file(self, expert: int, epoch: int) -> Path:
        return self._folder(expert) / f"epoch-{epoch:05d}.safetensors"
