"""Runs in TensorBoard."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from dsdistill import files
from dsdistill.loggers.base import Logger, missing


class TensorBoard(Logger):
    """Writes event files, which ``tensorboard --logdir FOLDER`` shows; options are a text.

    Every stage has a folder of its own: experts, distillation, evaluation.

    ``callbacks=[dsdistill.loggers.TensorBoard("runs/digits")]``
    """

    def __init__(self, folder: str | Path = "runs", images_every: int = 0) -> None:
        """Prepare.

        Args:
            folder: of the stages.
            images_every: iterations between two pictures; 0 makes ten over the run.

        Raises:
            UserError: TensorBoard is not installed.
        """
        super().__init__(images_every)
        self._folder = files.expanded(folder)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise missing("TensorBoard", "tensorboard") from error
        self._make = SummaryWriter

    @property
    def place(self) -> str:
        """The folder."""
        return f"{self._folder}; to look at it: tensorboard --logdir {shlex.quote(str(self._folder))}"

    def open(self, stage: str, title: str, options: Mapping[str, Any], first: int) -> None:
        self._writer = self._make(str(self._folder / stage), purge_step=first)
        lines = [f"    {key} = {value}" for key, value in options.items()]
        self._writer.add_text("options", "\n".join([title, "", *lines]), first)

    def write(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def draw(self, pixels: Tensor, step: int) -> None:
        self._writer.add_image("set", pixels, step)

    def close(self, failed: bool) -> None:
        self._writer.close()
