"""The run directory: config, metrics log, checkpoints, snapshots.

``config.toml``                every option of the run
``metrics.jsonl``              one line per logged iteration: iteration, terms, seconds
``checkpoint-<n>.safetensors`` the state after n iterations; the two latest are kept
``snapshot-<n>.h5``            the set after n iterations, if the config has snapshots
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from dsdistill import files
from dsdistill.errors import UserError
from dsdistill.runtime.notice import Notify


class MetricsLog:
    """A run's metrics.jsonl, open for new lines. Each is written at once, so that closing cannot fail."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            UserError: it cannot be written.
        """
        self._path = path
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise UserError(f"cannot write {path}: {files.reason(error)}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, entry: dict[str, Any]) -> None:
        """Write a line.

        Raises:
            UserError: the disk is full or has failed.
        """
        line = json.dumps(entry).encode() + b"\n"
        try:
            while line:  # a disk that gets full takes a part of it first
                line = line[self._file.write(line) :]
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {files.reason(error)}") from error


class RunDirectory:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.toml"
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
        if self.path.exists() and not self.config_file.exists() and any(self.path.iterdir()):
            raise UserError(f"{self.path} is not a run directory and not empty; choose another --run-dir")
        files.check_folder(self.path)
        for old in (*self.checkpoints(), *self.snapshots()):  # and no other file
            old.unlink()
        self.path.mkdir(exist_ok=True)
        self.write_config(config)
        files.replace(self.metrics_file, b"")

    def write_config(self, config: str) -> None:
        """Write the config, TOML, in place of an earlier one."""
        files.replace(self.config_file, config.encode())

    def log(self) -> MetricsLog:
        """Open the log of metrics for new lines.

        Raises:
            UserError: it cannot be written.
        """
        return MetricsLog(self.metrics_file)

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints, latest first."""
        return sorted(self.path.glob("checkpoint-*.safetensors"), reverse=True)

    def snapshot(self, iteration: int) -> Path:
        """Return the file of the set after so many iterations."""
        return self.path / f"snapshot-{iteration:09d}.h5"

    def snapshots(self) -> list[Path]:
        """Return the snapshots, earliest first."""
        return sorted(self.path.glob("snapshot-*.h5"))

    def save(self, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
        """Write a checkpoint, then delete all but it and the one before.

        Args:
            state: named tensors with an int64 scalar ``iteration``.
            metadata: what else a resumed run needs, as text.
        """
        tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
        path = self.path / f"checkpoint-{int(state['iteration']):09d}.safetensors"
        files.replace(path, save_tensors(tensors, metadata | {"sha256": _digest(tensors, metadata)}))
        for old in self.checkpoints()[2:]:
            old.unlink()

    def restore(self, notify: Notify) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """Read the latest checkpoint that is not damaged.

        Returns:
            its state and metadata; None if there is no checkpoint yet.

        Raises:
            UserError: all checkpoints are damaged.
        """
        for path in self.checkpoints():
            try:
                with safe_open(path, "pt") as file:
                    metadata = dict(file.metadata() or {})
                    state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
                if metadata.pop("sha256", "") == _digest(state, metadata):
                    return state, metadata
            except (SafetensorError, OSError):
                pass
            notify(f"{path.name} is damaged; trying the one before it")
        if self.checkpoints():
            raise UserError(f"every checkpoint in {self.path} is damaged; start anew with --overwrite")
        return None

    def discarded(self) -> int:
        """Count the logged iterations that changed nothing, those before a resume included."""
        if not self.metrics_file.exists():
            return 0
        return sum('"discarded": true' in line for line in self.metrics_file.read_text().splitlines())

    def trim(self, iteration: int) -> None:
        """Delete metrics and snapshots after a resumed checkpoint's iteration; the run writes them again."""
        for path in self.snapshots():
            if path > self.snapshot(iteration):
                path.unlink()
        earlier = []
        for line in self.metrics_file.read_text().splitlines() if self.metrics_file.exists() else []:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                break  # a line cut short by a kill; nothing after it was logged
            if entry["iteration"] <= iteration:
                earlier.append(line + "\n")
        files.replace(self.metrics_file, "".join(earlier).encode())


def _digest(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
