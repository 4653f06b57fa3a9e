"""What is known of an evaluation before its first student."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from dsdistill.evaluation.execution import Execution
from dsdistill.evaluation.plan import PlannedRow
from dsdistill.protocol import Protocol
from dsdistill.text import listing, plain


@dataclass(frozen=True)
class Start(ABC):
    """What is known before the first step of any evaluation, for a display of the progress."""

    stage: ClassVar[str] = "evaluation"
    dataset: str
    protocol: Protocol

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {plain('; '.join(self.describe()))}>"

    @property
    def title(self) -> str:
        """What is evaluated, and how."""
        return f"{self.dataset}, protocol {self.protocol.name}"

    def options(self) -> dict[str, Any]:
        """Return what the students are trained on, and how."""
        return {"dataset": self.dataset, "protocol": self.protocol.name, **self.protocol.training}

    @abstractmethod
    def describe(self) -> list[str]:
        """Return the evaluation in a few sentences."""


@dataclass(frozen=True, repr=False)
class EvaluationStart(Start):
    """What is known before students learn the classes of a set."""

    plan: Sequence[PlannedRow]
    """Every row of the result, those that are reused among them."""
    execution: Execution
    steps: int
    """Of all students and of the networks that choose real images."""
    too_short: bool = False
    """Whether students are not compiled because that would not make up for the time that takes."""

    def describe(self) -> list[str]:
        """Return the evaluation in a few sentences."""
        new = [planned for planned in self.plan if planned.earlier is None and not planned.set.network]
        sets = listing(list(dict.fromkeys(planned.set.name for planned in new)))
        networks = listing(list(dict.fromkeys(planned.network for planned in new)))
        if not new:
            return [f"{self.title}: all rows are there already"]
        students = len(new) * self.protocol.repeats
        return [
            f"{self.title}: {students} students ({networks}) of {self.protocol.epochs} epochs on {sets}",
            f"{self.steps:,} steps on {self.execution.describe(self.too_short)}",
        ]
