"""Writers by the name that a command line gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from dsdistill.errors import UserError, unknown
from dsdistill.loggers.base import Logger
from dsdistill.loggers.mlflow import MLflow
from dsdistill.loggers.tensorboard import TensorBoard
from dsdistill.loggers.wandb import WandB

_MAKERS: dict[str, Callable[[str, str], Logger]] = {
    "tensorboard": lambda where, name: TensorBoard(where or Path("runs") / name),
    "wandb": lambda where, name: WandB(where or "dsdistill", name=name),
    "mlflow": lambda where, name: MLflow(where or "dsdistill"),
}

NAMES = tuple(_MAKERS)
"""Of all writers."""


def loggers_of(options: Sequence[str], name: str) -> list[Logger]:
    """Return writers.

    Args:
        options: ``tensorboard:FOLDER``, ``wandb:PROJECT``, ``mlflow:EXPERIMENT``, or a name alone.
        name: of the run, such as the stem of its file.

    Raises:
        UserError: a name is unknown, or its package is not installed.
    """
    loggers = []
    for option in options:
        kind, colon, where = option.partition(":")
        if kind not in _MAKERS:
            raise unknown("logger", kind, list(_MAKERS))
        if colon and not where:
            raise UserError(f"--log {option} names no place after the colon; write {kind}:NAME, or {kind}")
        loggers.append(_MAKERS[kind](where, name))
    return loggers
