"""What is known of a training of experts before its first step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from dsdistill.config.options import flatten
from dsdistill.data.real import RealDataset, Task
from dsdistill.experts.config import ExpertConfig, for_sharing
from dsdistill.files import parse_toml
from dsdistill.text import byte_size, plain


@dataclass(frozen=True)
class TrainingStart:
    """What is known before the first step, for a display of the progress."""

    stage: ClassVar[str] = "experts"
    config: ExpertConfig
    task: Task
    real: RealDataset
    parameters: int
    file_bytes: int
    """Of the finished file."""
    existing: int
    """Experts that the file holds already."""
    epochs_done: int
    """Epochs that the resumed run had finished."""
    epochs: int
    """Epochs of all experts that the file does not hold yet."""
    held_out: int = 0
    """Training images that no expert is trained on."""
    too_short: bool = False
    """Whether the training is not compiled because it would not make up for the time that takes."""

    def __repr__(self) -> str:
        return f"<TrainingStart {plain('; '.join(self.describe()))}>"

    @property
    def title(self) -> str:
        """What is trained, and how."""
        return f"{Path(self.config.recipe).stem} {self.task.name}"

    def options(self) -> dict[str, Any]:
        """Return every option of the training by its dotted key, without folders, as its file tells them."""
        return flatten(parse_toml(for_sharing(self.config)))

    def describe(self) -> list[str]:
        """Return the training, and the size of its file, in a few sentences."""
        config = self.config
        existing = f", {self.existing} of them there already" if self.existing else ""
        lines = [
            self.task.describe(len(self.real)) + (f"; {self.held_out} held out" if self.held_out else ""),
            f"{config.count} x {config.network} ({self.parameters} parameters) for {config.epochs} epochs"
            f"{existing}; on {config.compute.describe(self.too_short)}",
            f"file: {byte_size(self.file_bytes)}, {len(config.stored_epochs)} snapshots of each",
        ]
        if self.epochs_done:
            lines.append(f"resuming after {self.epochs_done} of {self.epochs} epochs")
        return lines
