"""A report without rows: what was evaluated, under which conditions, and what the set costs."""

from __future__ import annotations

import datetime
import hashlib
import json as json_format
from collections.abc import Sequence
from typing import Any

from dsdistill.evaluation.execution import ExecutionConfig
from dsdistill.evaluation.report import Report
from dsdistill.protocol import Protocol
from dsdistill.runtime import provenance
from dsdistill.storage.set_description import Description
from dsdistill.synthetic.distilled_dataset import DistilledDataset


def cost_of(content: Description) -> dict[str, float]:
    """Return the bytes of a set's file and of its parts, and the cost of its distillation if stated."""
    sizes = {
        "file_bytes": content.file_bytes,
        "image_bytes": content.image_bytes,
        "label_bytes": content.label_bytes,
        "preprocess_bytes": content.preprocess_bytes,
    }
    names = {"seconds": "distil_seconds", "peak_memory_bytes": "distil_peak_bytes"}
    stated = {name: content.attributes[key] for key, name in names.items() if key in content.attributes}
    return {name: float(value) for name, value in (sizes | stated).items()}


def blank_report(
    distilled: DistilledDataset,
    dataset: str,
    protocol: Protocol,
    seed: int,
    execution: ExecutionConfig,
    conditions: Sequence[Any],
    **labels: Any,
) -> Report:
    """Return a report without rows, file and cost.

    Args:
        dataset: its name.
        conditions: what identifies code, data and training, beside names.
        labels: the fields that say what students learn from.
    """
    machine = distilled.attributes.get("machine")
    return Report(
        rows=[],
        file="",
        dataset=dataset,
        protocol=protocol.name,
        epochs=protocol.epochs,
        repeats=protocol.repeats,
        lr=protocol.learning_rate(distilled.lr),
        seed=seed,
        precision=execution.precision,
        device=str(execution.device),
        machine=provenance.machine_name(execution.device),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        packages=provenance.package_versions(),
        conditions=_digest(*conditions),
        distil_machine=str(machine) if machine else None,
        **labels,
    )


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json_format.dumps(parts, sort_keys=True).encode()).hexdigest()
