"""Runs in MLflow."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dsdistill.loggers.base import Logger, missing

_AT_ONCE = 500  # metrics that are sent together; MLflow takes 1000
_PARAMS = 100  # options that it takes at once
_LONGEST = 500  # characters of an option's value
_UNSAFE = re.compile(r"[^\w\-. /]")


class MLflow(Logger):
    """Writes a run of an MLflow experiment, to ``MLFLOW_TRACKING_URI`` or the folder that MLflow chooses.

    ``callbacks=[dsdistill.loggers.MLflow("my-experiment")]``
    """

    def __init__(
        self, experiment: str = "dsdistill", images_every: int = 0, tracking_uri: str | None = None
    ) -> None:
        """Prepare.

        Args:
            experiment: its name; it is made if there is none.
            images_every: iterations between two pictures; 0 makes ten over the run.
            tracking_uri: of a server, or ``file:FOLDER``.

        Raises:
            UserError: MLflow is not installed.
        """
        super().__init__(images_every)
        self._experiment, self._uri = experiment, tracking_uri
        try:
            import mlflow
        except ImportError as error:
            raise missing("MLflow", "mlflow") from error
        self._mlflow = mlflow

    @property
    def place(self) -> str:
        """The experiment, and the server or folder if one is named."""
        uri = self._uri or os.environ.get("MLFLOW_TRACKING_URI", "")
        return f"experiment {self._experiment}" + f" at {uri}" * bool(uri) + "; to look at it: mlflow ui"

    def open(self, stage: str, title: str, options: Mapping[str, Any], first: int) -> None:
        entities = self._mlflow.entities
        self._client = self._mlflow.MlflowClient(self._uri)
        experiment = self._client.get_experiment_by_name(self._experiment)
        place = experiment.experiment_id if experiment else self._client.create_experiment(self._experiment)
        self._run = self._client.create_run(place, run_name=f"{title} ({stage})").info.run_id
        self._metric, self._waiting, self._unsent = entities.Metric, list[Any](), 0
        params = [entities.Param(key, str(value)[:_LONGEST]) for key, value in options.items()]
        try:
            for start in range(0, len(params), _PARAMS):
                self._client.log_batch(self._run, params=params[start : start + _PARAMS])
        except Exception:
            self.close(failed=True)
            raise

    def write(self, values: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        for name, value in values.items():
            self._waiting.append(self._metric(_UNSAFE.sub("-", name), value, now, step))
        self._unsent += len(values)
        if self._unsent >= _AT_ONCE:
            self._send()

    def draw(self, pixels: Tensor, step: int) -> None:
        self._send()
        image = pixels.permute(1, 2, 0).numpy()
        self._client.log_image(self._run, image, artifact_file=f"set-{step:09d}.png")

    def close(self, failed: bool) -> None:
        try:
            self._send()
        finally:
            self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")

    def _send(self) -> None:
        """Send what waits; what fails waits until as much again has come."""
        self._unsent = 0
        while self._waiting:
            self._client.log_batch(self._run, metrics=self._waiting[:_AT_ONCE])
            del self._waiting[:_AT_ONCE]
