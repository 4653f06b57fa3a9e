"""What the writers for TensorBoard, Weights & Biases and MLflow have in common."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from dsdistill import files
from dsdistill.distillation.summary import Summary
from dsdistill.errors import UserError
from dsdistill.evaluation.rows import Row
from dsdistill.runtime.callbacks import Callback, Unwritten
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.picture import grid

_PICTURES = 10
_TILE = 32  # pixels of a side that small images are enlarged to
_NOT_SCALARS = ("iteration", "discarded", "expert", "epoch", "done")


class Logger(Callback):
    """Writes the numbers of every entry, a picture of the set now and then, and the options of the run.

    Nothing is written before the first entry, so that a dry run leaves nothing. A call that trains experts,
    and then distils, is written as two runs. What cannot be written never ends a run: the first failure of a
    stage is told, and later entries are tried; a stage that cannot be opened is left out.
    """

    def __init__(self, images_every: int = 0) -> None:
        """Prepare.

        Args:
            images_every: iterations between two pictures; 0 makes ten over the run. The last shows the
                finished set.
        """
        self._images_every = images_every
        self._start: Any = None
        self._has_begun = False  # opening; what cannot be opened is not tried again
        self._is_open = self._is_complete = self._has_failed = False
        self._every = 1
        self._step = 0

    @property
    @abstractmethod
    def place(self) -> str:
        """Where it writes, and how to look at it, in a few words."""

    @abstractmethod
    def open(self, stage: str, title: str, options: Mapping[str, Any], first: int) -> None:
        """Begin to write a stage.

        Args:
            stage: experts, distillation, labelling or evaluation.
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
    def close(self, failed: bool) -> None:
        """Write what is left of a stage, and whether it failed or was interrupted."""

    def on_start(self, start: Any) -> None:
        self._start, self._has_begun, self._has_failed = start, False, False
        self._step = getattr(start, "iteration", getattr(start, "epochs_done", 0))
        iterations = getattr(getattr(start, "config", None), "iterations", 0)
        self._every = self._images_every or max(1, iterations // _PICTURES)
        self._finish(failed=False)  # an earlier stage

    def on_iteration(self, entry: dict[str, Any], set: Callable[[], DistilledSet]) -> None:
        self._write(entry, entry["iteration"])
        if self._is_open and self._step % self._every == 0:
            self._draw(set())

    def on_epoch(self, entry: dict[str, Any]) -> None:
        self._write(entry, entry["done"])

    def on_row(self, row: Row) -> None:
        name = f"{row.network}/{row.set}"
        self._write({f"accuracy/{name}": row.mean, f"deviation/{name}": row.std}, 0)

    def on_end(self, result: Any) -> None:
        self._is_complete = True
        if isinstance(result, Summary) and self._is_open:
            self._draw(set_file.read(result.path))

    def on_close(self) -> None:
        self._finish(failed=not self._is_complete)
        self._is_complete = False

    def _finish(self, failed: bool) -> None:
        """Close what was opened."""
        was_open, self._is_open = self._is_open, False
        if was_open:
            with self._spared():
                self.close(failed)

    def _write(self, entry: Mapping[str, Any], step: int) -> None:
        first, self._step = self._step + 1, step
        if not self._has_begun:
            self._has_begun = True
            with self._spared():
                self.open(self._start.stage, self._start.title, self._start.options(), first)
                self._is_open = True
        if self._is_open:
            with self._spared():
                scalars = {key: float(value) for key, value in entry.items() if key not in _NOT_SCALARS}
                self.write(scalars, step)

    @contextlib.contextmanager
    def _spared(self) -> Iterator[None]:
        """Tell the first failure of a stage, and let the others pass.

        Raises:
            Unwritten: the first one.
        """
        try:
            yield
        except Exception as error:
            failed_before, self._has_failed = self._has_failed, True
            if not failed_before:
                sentence = f"{type(self).__name__} could not write: {files.reason(error)}"
                raise Unwritten(f"{sentence}; that does not end the run") from error

    def _draw(self, distilled: DistilledSet) -> None:
        page = grid(distilled.images, distilled.labels)
        opaque = torch.where(page[-1:] == 255, page[:-1], 255).expand(3, -1, -1)
        scale = max(1, _TILE // distilled.images.shape[-1])
        with self._spared():
            self.draw(opaque.repeat_interleave(scale, 1).repeat_interleave(scale, 2), self._step)


def missing(name: str, package: str) -> UserError:
    """Return the error that a package is not installed."""
    return UserError(f'{name} is not installed: pip install {package}, or pip install "dsdistill[loggers]"')
