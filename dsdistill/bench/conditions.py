"""Which evaluations can share their baselines: those of equal conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dsdistill.config.options import table_at
from dsdistill.distillation import config as configs
from dsdistill.files import parse_toml
from dsdistill.protocol import load_protocol

if TYPE_CHECKING:
    from dsdistill.bench.cells import Cell, Evaluation
    from dsdistill.bench.results import CellResult, EvaluationResult


@dataclass(frozen=True)
class Conditions:
    """All that the accuracy of as many real images depends on, but for the student's network.

    Baselines that fill bytes depend on more, and are never shared; nor is ``full`` where it would train for
    fewer steps.

    Attributes:
        data: the options of the data, without where they lie.
        lr: of the students; before a set is distilled, one that it learns is known by its method alone.
        labels: chosen in place of the protocol's; and the batches of stored views, which all students have.
    """

    dataset: str
    data: str
    ipc: int
    seed: int
    protocol: str
    epochs: str
    students: str
    precision: str
    lr: str
    labels: str = ""

    @classmethod
    def of_plan(cls, cell: Cell, evaluation: Evaluation) -> Conditions:
        """Return those of an evaluation to be made."""
        rate = load_protocol(evaluation.protocol, cell.dataset, cell.ipc).lr
        return cls(
            dataset=cell.dataset,
            data=_data(configs.as_table(configs.resolve(cell.options))["data"]),
            ipc=cell.ipc,
            seed=evaluation.seed,
            protocol=evaluation.protocol,
            epochs=str(evaluation.epochs),
            students=str(evaluation.students),
            precision=evaluation.precision,
            lr=f"learned by {cell.method}, seed {cell.seed}" if rate == "learned" else str(rate),
            labels=_labels(evaluation.labels, cell.settings().get("label", {}), evaluation.labelled),
        )

    @classmethod
    def of_result(cls, result: CellResult, evaluation: EvaluationResult) -> Conditions:
        """Return those of an evaluation, as its report has them."""
        report = evaluation.report
        try:
            data = table_at(parse_toml(result.config), "data")
        except ValueError:
            data = {}
        return cls(
            dataset=result.dataset,
            data=_data(data),
            ipc=result.ipc,
            seed=int(report.get("seed", result.seed)),
            protocol=str(report.get("protocol")),
            epochs=str(report.get("epochs")),
            students=str(report.get("repeats")),
            precision=str(report.get("precision")),
            lr=str(report.get("lr")),
            labels=_labels(
                str(result.settings_of(evaluation).get("labels", "")),
                table_at(result.settings, "label"),
                report.get("labels") == "views",
            ),
        )


def _labels(chosen: str, label: Mapping[str, Any], labelled: bool) -> str:
    batches = f"batches of {label.get('batch_size')}" if labelled and label.get("views") else ""
    return f"{chosen} {batches}".strip()


def _data(options: Mapping[str, Any]) -> str:
    return str({key: value for key, value in sorted(options.items()) if key not in ("root", "download")})
