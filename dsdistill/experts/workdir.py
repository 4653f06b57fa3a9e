"""Experts in the making: a folder beside the file they will be in, so that a kill loses one epoch at most.

``config.toml``                        what they are trained with
``<expert>/epoch-<n>.safetensors``     ``weights`` [P] and ``buffers`` [Q] after a kept epoch
``<expert>/checkpoint-<n>.safetensors`` the state after n epochs; the two latest are kept
"""

from __future__ import annotations

import dataclasses
import json
import shutil
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
from dsdistill.runtime.notice import Notify
from dsdistill.storage.expert_file import Snapshot, TrainingRecord


class WorkDir:
    """The folder of experts that are not in a file yet."""

    def __init__(self, path: Path, config: ExpertConfig, fingerprint: str) -> None:
        """Name it; nothing is read or written.

        Args:
            path: of the folder.
            config: resolved.
            fingerprint: of the training images.
        """
        self.path = path
        self._config = config
        self._fingerprint = fingerprint
        self._told = path / "config.toml"

    def begin(self, resume: bool, overwrite: bool) -> None:
        """Make the folder, or enter it where it holds what a run to be resumed has left.

        Raises:
            UserError: it holds something else, or experts with other options.
        """
        if self.path.exists() and not self._told.exists():
            raise UserError(
                f"{self.path} is in the way of unfinished experts; move it, or name another output"
            )
        if self._told.exists() and resume:
            differs = difference(self._told.read_text(), self._config)
            if differs and not overwrite:
                key, before, now = differs
                raise UserError(
                    f"cannot resume {self.path.name} with {key} = {now!r}: it was started with {before!r}; "
                    "leave the option as it was, or start anew with --overwrite"
                )
            if differs:
                self.clear()
        elif self._told.exists():
            if not overwrite:
                raise UserError(
                    f"{self.path} holds unfinished experts; pass --resume to go on, or --overwrite"
                )
            self.clear()
        files.check_folder(self.path)
        self.path.mkdir(exist_ok=True)
        files.replace(self._told, to_toml(self._config).encode())

    def epochs_done(self, experts: Iterable[int]) -> int:
        """Return how many epochs experts have behind them together, going by the names of checkpoints."""
        latest = [self._run(expert).checkpoints()[:1] for expert in experts]
        return sum(int(path.stem.removeprefix("checkpoint-")) for found in latest for path in found)

    def keep(self, expert: int, epoch: int, snapshot: Snapshot) -> None:
        """Store a snapshot that the file will hold."""
        self._folder(expert).mkdir(exist_ok=True)
        weights, buffers = snapshot
        files.replace(self._kept(expert, epoch), save_tensors({"weights": weights, "buffers": buffers}))

    def save(
        self,
        expert: int,
        epoch: int,
        seconds: float,
        state: dict[str, Tensor],
        training: TrainingRecord | None,
    ) -> None:
        """Store what an expert needs to go on after an epoch, and after its last how the training went."""
        facts = {"seconds": repr(seconds), "fingerprint": self._fingerprint}
        facts |= {"training": json.dumps(dataclasses.asdict(training))} if training else {}
        self._folder(expert).mkdir(exist_ok=True)
        self._run(expert).save({**state, "iteration": torch.tensor(epoch)}, facts)

    def restore(self, expert: int, notify: Notify) -> tuple[dict[str, Tensor], int, float] | None:
        """Return the latest state of an expert, its epoch and its seconds; None where it has to begin.

        Raises:
            UserError: the data have changed, or all its checkpoints are damaged.
        """
        found = self._run(expert).restore(notify)
        if found is None:
            return None
        state, facts = found
        if facts["fingerprint"] != self._fingerprint:
            raise UserError(
                f"{self._config.data.name} has changed since {self.path.name} began; "
                "start anew with --overwrite"
            )
        epoch = int(state.pop("iteration"))
        kept = [self._kept(expert, each) for each in self._config.kept if each <= epoch]
        if not all(path.exists() for path in kept):
            shutil.rmtree(self._folder(expert))
            return None
        return state, epoch, float(facts["seconds"])

    def training(self, expert: int) -> TrainingRecord:
        """Return how the training of a finished expert went."""
        found = self._run(expert).restore(lambda sentence: None)
        if found is None or "training" not in found[1]:
            raise UserError(f"expert {expert} in {self.path} is not finished; train it with --resume")
        return TrainingRecord(**json.loads(found[1]["training"]))

    def snapshots(self, expert: int) -> Iterator[Snapshot]:
        """Yield what the file will hold of a finished expert.

        Raises:
            UserError: a part is damaged.
        """
        for epoch in self._config.kept:
            path = self._kept(expert, epoch)
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

    def _kept(self, expert: int, epoch: int) -> Path:
        return self._folder(expert) / f"epoch-{epoch:05d}.safetensors"
