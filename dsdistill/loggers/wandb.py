"""Runs in Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dsdistill.loggers.base import Logger, missing


class WandB(Logger):
    """Writes a run of Weights & Biases; ``WANDB_MODE=offline`` keeps it on this machine.

    ``callbacks=[dsdistill.loggers.WandB("my-project", name="digits")]``
    """

    def __init__(self, project: str = "dsdistill", images_every: int = 0, **options: Any) -> None:
        """Prepare.

        Args:
            project: the name of one.
            images_every: iterations between two pictures; 0 makes ten over the run.
            options: further ones of ``wandb.init``, such as ``tags``; the stage is added to a ``name``:
                experts, distillation or evaluation.

        Raises:
            UserError: wandb is not installed.
        """
        super().__init__(images_every)
        self._options = {"project": project, **options}
        try:
            import wandb
        except ImportError as error:
            raise missing("Weights & Biases", "wandb") from error
        self._wandb = wandb

    @property
    def place(self) -> str:
        """The project."""
        return f"project {self._options['project']}"

    def open(self, stage: str, title: str, options: Mapping[str, Any], first: int) -> None:
        arguments = {"name": title, "config": dict(options), "job_type": stage} | self._options
        if "name" in self._options:
            arguments["name"] = f"{self._options['name']} ({stage})"
        self._run = self._wandb.init(**arguments)

    def write(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def draw(self, pixels: Tensor, step: int) -> None:
        self._run.log({"set": self._wandb.Image(pixels.permute(1, 2, 0).numpy())}, step=step)

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
