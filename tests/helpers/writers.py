"""Stand-ins for the packages that loggers write with: they keep what they are told."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class Wandb(ModuleType):
    """wandb, as far as a run is begun, logged and finished."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.begun: list[dict[str, Any]] = []
        self.logged: list[tuple[dict[str, Any], int]] = []
        self.finished: list[int] = []
        """Exit codes."""

    def init(self, **options: Any) -> Wandb:
        self.begun.append(options)
        return self

    def log(self, values: dict[str, Any], step: int) -> None:
        self.logged.append((values, step))

    def finish(self, exit_code: int) -> None:
        self.finished.append(exit_code)

    Image = staticmethod(lambda pixels: SimpleNamespace(pixels=pixels))


class Mlflow(ModuleType):
    """mlflow, as far as its client makes a run and fills it."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.entities = SimpleNamespace(
            Metric=lambda key, value, timestamp, step: (key, value, step),
            Param=lambda key, value: (key, value),
        )
        self.experiments: list[str] = []
        self.params: dict[str, str] = {}
        self.metrics: list[tuple[str, float, int]] = []
        self.images: list[str] = []
        self.names: list[str] = []
        self.ended: list[str] = []
        """How runs ended."""
        self.refuses: set[str] = set()
        """Of params and metrics, those for which the server does not answer."""

    def MlflowClient(self, uri: str | None) -> Mlflow:
        return self

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        self.experiments.append(name)
        return "1"

    def create_run(self, experiment: str, run_name: str) -> Any:
        self.names.append(run_name)
        return SimpleNamespace(info=SimpleNamespace(run_id="r"))

    def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
        assert len(params) <= 100
        assert len(metrics) <= 1000
        if (params and "params" in self.refuses) or (metrics and "metrics" in self.refuses):
            raise ConnectionError("no answer")
        self.params |= dict(params)
        self.metrics += metrics

    def log_image(self, run: str, image: Any, artifact_file: str) -> None:
        assert image.dtype.name == "uint8"
        assert image.shape[-1] == 3
        self.images.append(artifact_file)

    def set_terminated(self, run: str, status: str) -> None:
        self.ended.append(status)


def fail(entry: dict[str, Any]) -> None:
    """End a run as a callback."""
    raise ZeroDivisionError


def stand_in(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    monkeypatch.setitem(sys.modules, module.__name__, module)


def uninstall(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have a package not be there."""
    monkeypatch.setitem(sys.modules, name, None)


def events(folder: Path) -> Any:
    """Read event files of TensorBoard with TensorBoard itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        read = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
        read.Reload()
    return read
