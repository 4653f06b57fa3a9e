"""The students of an evaluation dealt to the processes that share it, and rows joined of what these found.

A process trains whole students. It leaves what it found of them on a board and goes on, so that nobody waits
for anybody but in the end.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from dsdistill.evaluation.calibration import CalibrationSums
from dsdistill.evaluation.exam import Examined
from dsdistill.evaluation.fidelity import FidelitySums
from dsdistill.evaluation.plan import PlannedRow
from dsdistill.evaluation.rows import Row
from dsdistill.runtime.ranks import Ranks
from dsdistill.teachers import Committee

Part = tuple[Examined, float]
"""What was found of a row's students that one process trained, and the seconds it took."""


class RowParts:
    """The rows of an evaluation, while the parts of their students come in.

    Attributes:
        board: on which processes leave their parts.
    """

    def __init__(self, plan: Sequence[PlannedRow], ranks: Ranks, teacher: Committee | None) -> None:
        """Deal the students.

        Args:
            plan: the rows in order, those of an earlier evaluation among them.
            ranks: the processes.
            teacher: that students are compared with, and that a row may be of.
        """
        self.board = ranks.board()
        self._plan, self._ranks, self._teacher = plan, ranks, teacher
        self._parts: dict[tuple[int, int], Part] = {}
        self._next = 0
        students = [place for place, planned in enumerate(plan) for _ in range(_students(planned))]
        costs = [plan[place].set.image_passes for place in students]
        owners = ranks.deal(costs)
        self._counts = [[0] * ranks.count for _ in plan]
        loads = [0] * ranks.count
        for place, cost, owner in zip(students, costs, owners, strict=True):
            self._counts[place][owner] += 1
            loads[owner] += cost
        self.share = max(loads) / sum(loads) if sum(loads) else 1.0
        """Of the work of all students, that of the process that has most."""

    def own(self, place: int) -> range:
        """Return the repeats of a row whose students this process trains."""
        counts, index = self._counts[place], self._ranks.index
        first = sum(counts[:index])
        return range(first, first + counts[index])

    def add(self, place: int, part: Part) -> None:
        """Take what was found of this process's students of a row.

        Raises:
            RankLost: a rank has ended.
        """
        self._parts[place, self._ranks.index] = part
        if self._ranks.count > 1:
            self.board.post(_name(place, self._ranks.index), encode(part))

    def complete(self) -> Iterator[tuple[PlannedRow, Row]]:
        """Yield the rows of which all parts are there, in order, each once, up to the first that lacks one.

        Raises:
            RankLost: a rank has ended.
        """
        while self._next < len(self._plan) and (row := self._row(self._next)):
            self._next += 1
            yield self._plan[self._next - 1], row

    def _row(self, place: int) -> Row | None:
        planned = self._plan[place]
        if planned.earlier is not None:
            return planned.earlier
        parts = [self._part(place, rank) for rank, count in enumerate(self._counts[place]) if count]
        ready_parts = [part for part in parts if part is not None]
        if len(ready_parts) < len(parts):
            return None
        for rank in range(self._ranks.count):
            self._parts.pop((place, rank), None)
        examined = Examined.cat([each for each, _ in ready_parts])
        return _row(planned, examined, sum(seconds for _, seconds in ready_parts), self._teacher)

    def _part(self, place: int, rank: int) -> Part | None:
        key = place, rank
        if key not in self._parts and (word := self.board.read(_name(*key))) is not None:
            self._parts[key] = decode(word)
        return self._parts.get(key)


def _students(planned: PlannedRow) -> int:
    """Return how many students of a row are to be examined; a teacher counts as one."""
    if planned.earlier is not None:
        return 0
    return 1 if planned.set.network else planned.set.protocol.repeats


def _name(place: int, rank: int) -> str:
    return f"row {place} of {rank}"


def _row(planned: PlannedRow, examined: Examined, seconds: float, teacher: Committee | None) -> Row:
    values = [100 * fraction for fraction in examined.fractions]
    epochs = planned.set.protocol.epochs
    if planned.set.network and teacher:
        epochs = max(each.epoch or 0 for each in teacher.teachers)
    return Row(
        set=planned.set.name,
        network=planned.network,
        protocol=planned.set.protocol.name,
        epochs=epochs,
        mean=statistics.mean(values),
        std=statistics.stdev(values) if len(values) > 1 else 0.0,
        values=values,
        images=planned.set.images,
        decoded=planned.set.decoded,
        seconds=seconds,
        regime=planned.set.regime,
        calibration=examined.calibration,
        disagreement=examined.disagreement,
        fidelity=examined.fidelity_to(teacher.name) if teacher else None,
        leak=examined.leak,
        image_bytes=statistics.mean(examined.image_bytes) if examined.image_bytes else None,
    )


# Between processes ------------------------------------------------------------------------------------------

_SUMS: dict[str, type[CalibrationSums | FidelitySums]] = {
    "plain": CalibrationSums,
    "scaled": CalibrationSums,
    "fidelity": FidelitySums,
}
_LOSSES = ("members", "fresh")


def encode(part: Part) -> bytes:
    """Return a part as bytes, numbers to the last bit."""
    examined, seconds = part
    tensors = {
        "seconds": _numbers([seconds]),
        "fractions": _numbers(examined.fractions),
        "temperatures": _numbers(examined.temperatures),
        "predictions": examined.predictions,
        "validation": torch.tensor(examined.validation),
        "image_bytes": _numbers(examined.image_bytes),
    }
    for name in _SUMS:
        if sums := getattr(examined, name):
            tensors |= {f"{name} {key}": torch.as_tensor(value) for key, value in vars(sums).items()}
    for name in _LOSSES:
        for student, (losses, right) in enumerate(getattr(examined, name)):
            tensors |= {f"{name} losses {student:06d}": losses, f"{name} right {student:06d}": right}
    # Students that were stacked share memory, which is not written so.
    return save(
        {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    )


def decode(data: bytes) -> Part:
    """Return the part that `encode` wrote."""
    tensors = load(data)
    fields: dict[str, Any] = {name: _sums(tensors, name) for name in _SUMS}
    for name in _LOSSES:
        losses = [tensors[key] for key in _keys(tensors, f"{name} losses ")]
        right = [tensors[key] for key in _keys(tensors, f"{name} right ")]
        fields[name] = list(zip(losses, right, strict=True))
    examined = Examined(
        fractions=tensors["fractions"].tolist(),
        predictions=tensors["predictions"],
        temperatures=tensors["temperatures"].tolist(),
        validation=int(tensors["validation"]),
        image_bytes=tensors["image_bytes"].tolist(),
        **fields,
    )
    return examined, float(tensors["seconds"])


def _numbers(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _keys(tensors: Mapping[str, Tensor], beginning: str) -> list[str]:
    """Return the names with a beginning, in order."""
    return sorted(name for name in tensors if name.startswith(beginning))


def _sums(tensors: Mapping[str, Tensor], name: str) -> CalibrationSums | FidelitySums | None:
    """Return the sums of a name, if they were written; a tensor without dimensions was a number."""
    fields: dict[str, Any] = {
        key.removeprefix(f"{name} "): value if value.dim() else int(value)
        for key, value in tensors.items()
        if key.startswith(f"{name} ")
    }
    return _SUMS[name](**fields) if fields else None
