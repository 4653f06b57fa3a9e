"""Writers of runs: TensorBoard, Weights & Biases and MLflow, each imported when it is first used.

``callbacks=[dsdistill.loggers.TensorBoard("runs/digits")]``, or ``--log tensorboard:runs/digits``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsdistill.loggers.mlflow import MLflow
    from dsdistill.loggers.tensorboard import TensorBoard
    from dsdistill.loggers.wandb import WandB

__all__ = ["MLflow", "TensorBoard", "WandB"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"dsdistill.loggers.{name.lower()}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
