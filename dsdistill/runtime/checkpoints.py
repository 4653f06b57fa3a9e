"""The run directory: config, metrics log, checkpoints, snapshots.

``config.toml``                every option of the run
``metrics.jsonl``              one line per logged iteration: iteration, terms, seconds
``checkpoint-<n>.safetensors`` the state after n iterations; the two latest are kept
``snapshot-<n>.h5``            the set after n iterations, if the config has snapshots
``real-<key>.safetensors``     what is computed once of real images, if the config keeps it in files

A checkpoint carries a digest of its content and one of ``config.toml``, which belongs to it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsdistill import files
from dsdistill.config.options import flatten
from dsdistill.errors import UserError
from dsdistill.runtime import metrics, tensors
from dsdistill.runtime.notice import Notify
from dsdistill.runtime.tensor_folder import TensorFolder

_NAME = re.compile(r"checkpoint-(\d{9,18})\.safetensors")

_REAL = "real-"

_MAY_CHANGE = ("compute.compile",)  # where the compiler fails, a run goes on without it


def iteration_of(checkpoint: Path) -> int:
    """Return after how many iterations a checkpoint was written, by its name."""
    return int(checkpoint.stem.removeprefix("checkpoint-"))


class NoCheckpoint(UserError):
    """None of a run's checkpoints can be gone on with: they are damaged, or another run's."""


class RunDirectory:
    """The files of one run."""

    def __init__(self, path: Path, config_file: Path | None = None) -> None:
        """Name the files; nothing is read or written.

        Args:
            path: of the directory.
            config_file: that its checkpoints belong to; default ``config.toml`` in it.
        """
        self.path = path
        self.config_file = config_file or path / "config.toml"
        self.metrics_file = path / "metrics.jsonl"

    def create(self, config: str, overwrite: bool) -> None:
        """Make the directory and write the config of a new run.

        Args:
            config: TOML.
            overwrite: replace an earlier run.

        Raises:
            UserError: the directory holds an earlier run or other files, or cannot be written.
        """
        if self.config_file.exists() and not overwrite:
            raise UserError(
                f"{self.path} holds an earlier run; pass --resume to go on with it, or --overwrite"
            )
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file, not a run directory; choose another --run-dir")
        if self.path.exists() and not self.config_file.exists() and not files.is_empty(self.path):
            raise UserError(f"{self.path} is not a run directory and not empty; choose another --run-dir")
        files.check_folder(self.path)
        for old in (*self.checkpoints(), *self.snapshots(), *self.path.glob(f"{_REAL}*.safetensors")):
            files.remove(old)
        files.make_folder(self.path)
        self.write_config(config)
        files.replace(self.metrics_file, b"")

    def config(self) -> dict[str, Any]:
        """Read the options of the run.

        Raises:
            UserError: the file is missing or damaged.
        """
        try:
            table = files.read_toml(self.config_file)
        except UserError as error:
            raise UserError(f"{error}; start anew with --overwrite") from error
        if not table:
            raise UserError(f"{self.config_file} is empty; start anew with --overwrite")
        return table

    def write_config(self, config: str) -> None:
        """Write the config, TOML, in place of an earlier one."""
        files.replace(self.config_file, config.encode())
        self.__dict__.pop("config_digest", None)

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints, latest first."""
        paths = [path for path in self.path.glob("checkpoint-*.safetensors") if _NAME.fullmatch(path.name)]
        return sorted(paths, key=iteration_of, reverse=True)

    def snapshot(self, iteration: int) -> Path:
        """Return the file of the set after so many iterations."""
        return self.path / f"snapshot-{iteration:09d}.h5"

    def snapshots(self) -> list[Path]:
        """Return the snapshots, earliest first."""
        return sorted(self.path.glob("snapshot-*.h5"))

    def real_side(self, device: torch.device) -> TensorFolder:
        """Return where what is computed once of real images is kept, in files."""
        return TensorFolder(self.path, _REAL, device)

    def log(self) -> metrics.MetricsLog:
        """Open the metrics log at its end.

        Raises:
            UserError: it cannot be written.
        """
        return metrics.MetricsLog(self.metrics_file)

    def save(self, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Write a checkpoint, then delete all but it and the one before.

        Args:
            state: named tensors with an int64 scalar ``iteration``.
            metadata: what else a resumed run needs, as text.

        Raises:
            UserError: it cannot be written.
        """
        path = self.path / f"checkpoint-{int(state['iteration']):09d}.safetensors"
        tensors.write(path, state, {**metadata, "config": self.config_digest})
        for old in self.checkpoints()[2:]:
            with contextlib.suppress(OSError):
                old.unlink()

    def restore(self, notify: Notify) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """Read the latest checkpoint that is not damaged.

        Returns:
            its state and metadata; None if there is no checkpoint yet.

        Raises:
            NoCheckpoint: all are damaged, or the run that made them had another configuration.
            UserError: one cannot be read, which may be otherwise next time.
        """
        checkpoints = self.checkpoints()
        for path in checkpoints:
            try:
                state, metadata = tensors.read(path)
            except OSError as error:
                raise UserError(f"cannot read {path}: {files.reason(error)}") from error
            except ValueError:
                notify(f"{path.name} is damaged; trying the one before it")
                continue
            if metadata.pop("config", "") != self.config_digest:
                raise NoCheckpoint(
                    f"{path.name} in {self.path} was not made with the configuration in "
                    f"{self.config_file.name}; start anew with --overwrite"
                )
            return state, metadata
        if checkpoints:
            raise NoCheckpoint(f"every checkpoint in {self.path} is damaged; start anew with --overwrite")
        return None

    @cached_property
    def config_digest(self) -> str:
        """What binds a checkpoint to its run: the SHA-256 of the options that stay as they are."""
        options = {key: value for key, value in flatten(self.config()).items() if key not in _MAY_CHANGE}
        return hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest()

    def discarded(self) -> int:
        """Count the logged iterations that changed nothing, those before a resume included."""
        return sum(entry.get("discarded") is True for entry in metrics.read(self.metrics_file))

    def trim(self, iteration: int) -> None:
        """Delete metrics and snapshots after a resumed checkpoint's iteration; the run writes them again.

        Raises:
            UserError: they cannot be deleted.
        """
        for path in self.snapshots():
            if path > self.snapshot(iteration):
                files.remove(path)
        metrics.trim(self.metrics_file, iteration)


class ReadOnlyRun(RunDirectory):
    """A run directory that another process of the run writes."""

    def create(self, config: str, overwrite: bool) -> None:
        """Write nothing."""

    def write_config(self, config: str) -> None:
        """Write nothing."""

    def log(self) -> metrics.MetricsLog:
        """Return a log that writes nothing."""
        return metrics.NoLog()

    def save(self, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Write nothing."""

    def trim(self, iteration: int) -> None:
        """Delete nothing."""
