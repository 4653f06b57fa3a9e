"""Run directories as other versions have left them."""

from __future__ import annotations

from pathlib import Path

from dsdistill.runtime import tensors
from dsdistill.runtime.checkpoints import RunDirectory


def begin_with(path: Path, config: str) -> None:
    """Make a run one that was begun with another config, to which its checkpoints belong."""
    run = RunDirectory(path)
    kept = [tensors.read(checkpoint) for checkpoint in reversed(run.checkpoints())]
    run.config_file.write_text(config)
    for state, metadata in kept:
        run.save(state, metadata)
