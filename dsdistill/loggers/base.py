"""What the writers for TensorBoard, Weights & Biases and MLflow have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dsdistill.distillation.summary import Summary
from dsdistill.errors import UserError
from dsdistill.evaluation.rows import Row
from dsdistill.runtime.callbacks import Callback
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.picture import grid

_PICTURES = 10
_TILE = 32  # pixels of a side that small images are enlarged to
_NOT_SCALARS = ("iteration", "discarded", "expert", "epoch", "done")


class Logger(Callback):
    """Writes the numbers of every entry, a picture of the set now and then, and the options of the run.

    Nothing is written before the first entry, so that a dry run leaves nothing.
    """

    def __init__(self, images_every: int = 0) -> None:
        """Prepare.

        Args:
            images_every: iterations between two pictures; 0 makes ten over the run. The last shows the
                finished set.
        """
        self._images_every = images_every
        self._start: Any = None
        self._opened = False
        self._every = 1
        self._step = 0

    @abstractmethod
    def open(self, title: str, options: Mapping[str, Any], first: int) -> None:
        """Begin to write.

        Args:
            title: of the run.
            options: by dotted keys.
            first: the first step that will be written; a stopped run may have written it and later ones.
        """

    @abstractmethod
    def write(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers of a step."""

    @abstractmethod
    def draw(self, pixels: Tensor, step: int) -> None:
        """Write a picture uint8 [3,h,w] of the set at a step."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left."""

    def on_start(self, start: Any) -> None:
        self._start, self._opened = start, False
        self._step = getattr(start, "iteration", getattr(start, "epochs_done", 0))
        iterations = getattr(getattr(start, "config", None), "iterations", 0)
        self._every = self._images_every or max(1, iterations // _PICTURES)

    def on_iteration(self, entry: dict[str, Any], set: Callable[[], DistilledSet]) -> None:
        self._write(entry, entry["iteration"])
        if self._step % self._every == 0:
            self._draw(set())

    def on_epoch(self, entry: dict[str, Any]) -> None:
        self._write(entry, entry["done"])

    def on_row(self, row: Row) -> None:
        name = f"{row.network}/{row.set}"
        self._write({f"accuracy/{name}": row.mean, f"deviation/{name}": row.std}, 0)

    def on_end(self, result: Any) -> None:
        if isinstance(result, Summary) and self._opened:
            self._draw(set_file.read(result.path))

    def on_close(self) -> None:
        if self._opened:
            self.close()
        self._opened = False

    def _write(self, entry: Mapping[str, Any], step: int) -> None:
        if not self._opened:
            self._opened = True
            self.open(self._start.title, self._start.options(), self._step + 1)
        self._step = step
        self.write({key: float(value) for key, value in entry.items() if key not in _NOT_SCALARS}, step)

    def _draw(self, distilled: DistilledSet) -> None:
        page = grid(distilled.images, distilled.labels)
        opaque = torch.where(page[-1:] == 255, page[:-1], 255).expand(3, -1, -1)
        scale = max(1, _TILE // distilled.images.shape[-1])
        self.draw(opaque.repeat_interleave(scale, 1).repeat_interleave(scale, 2), self._step)


def missing(name: str, package: str) -> UserError:
    """Return the error that a package is not installed."""
    return UserError(f'{name} is not installed: pip install {package}, or pip install "dsdistill[loggers]"')
