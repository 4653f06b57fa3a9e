"""How a distillation went."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsdistill.distillation.run_loop import RunLoop
from dsdistill.runtime import metrics
from dsdistill.storage.set_description import describe
from dsdistill.synthetic.distilled import DistilledSet


@dataclass(frozen=True)
class Summary:
    """How a run went.

    >>> summary = dsdistill.distill("digits.h5", dataset="digits", ipc=2, iterations=3)
    >>> summary.path.name, summary.images, summary.iterations
    ('digits.h5', 20, 3)
    """

    path: Path
    run_dir: Path
    images: int
    iterations: int
    seconds: float
    """In the loop, resumed parts and compiling included."""
    first_loss: float
    last_loss: float
    """Means over the first and last twentieth of the iterations of this call. Where it took none, because the
    run was finished, of those in the run's log; NaN where that holds none."""
    peak_memory_bytes: int
    """Of the whole process, as the system counts it; on a GPU, of its tensors there."""
    storage_error: float
    """The largest error that storing caused in a pixel; 0 for float32."""
    storage: str = ""
    """How pixels are stored, for people."""
    on_gpu: bool = False
    """Whether a GPU computed."""
    compensators: int = 0
    """How many of ``images`` are compensators, which all classes share."""


def summarise(
    output: Path, loop: RunLoop, distilled: DistilledSet, losses: Sequence[float], storage_error: float
) -> Summary:
    """Return the summary of a run.

    Args:
        output: its file.
        loop: finished.
        distilled: the set it made.
        losses: of the iterations of this call.
        storage_error: the largest error of a stored pixel.
    """
    losses = losses or [each["loss"] for each in metrics.read(loop.run.metrics_file) if _has_loss(each)]
    edge = max(1, len(losses) // 20)
    return Summary(
        path=output,
        run_dir=loop.run.path,
        images=distilled.stored_count,
        iterations=int(distilled.attributes["iterations"]),
        seconds=float(distilled.attributes["seconds"]),
        first_loss=sum(losses[:edge]) / edge if losses else math.nan,
        last_loss=sum(losses[-edge:]) / edge if losses else math.nan,
        peak_memory_bytes=loop.peak_memory,
        storage_error=storage_error,
        storage=describe(output).storage,
        on_gpu=loop.on_gpu,
        compensators=distilled.compensator_count,
    )


def _has_loss(entry: dict[str, Any]) -> bool:
    """Whether an entry of a log, which may be damaged, holds a loss."""
    return isinstance(entry.get("loss"), float)
