"""What an evaluation found, for a screen, for a JSON file and for the set's own file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsdistill import files
from dsdistill.evaluation import scores
from dsdistill.evaluation.rows import Row
from dsdistill.runtime import provenance
from dsdistill.storage import set_file

if TYPE_CHECKING:
    from rich.table import Table

MATRIX_BYTES = 10_000
"""A preprocessing of more bytes is a matrix and worth a word; a mean and a deviation are not."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Rows and all that is needed to read them a year later.

    Attributes:
        rows: see ``Row``; accuracies in percent.
        file: the distilled set's file. dataset: what it was judged on.
        protocol, epochs, repeats, lr, seed, precision, device: how.
        soft_labels: whether the rows "distilled" come from soft labels.
        conditions: a digest of the protocol's content, the data and this package's code, which names and
            versions alone do not settle.
        cost: what the distilled set cost where its file says so: file_bytes, image_bytes, label_bytes,
            distil_seconds, distil_peak_bytes; and real_images, as many as are stored in the bytes of its
            images and labels.
        distil_machine: where the set was made, as its file says.
        machine, date (ISO 8601, UTC), packages: where, when and with what.
    """

    rows: list[Row]
    file: str
    dataset: str
    protocol: str
    epochs: int
    repeats: int
    lr: float
    seed: int
    precision: str
    device: str
    machine: str
    date: str
    packages: Mapping[str, str]
    soft_labels: bool = False
    conditions: str = ""
    cost: Mapping[str, float] = field(default_factory=dict)
    distil_machine: str | None = None

    def scores(self) -> dict[str, Any]:
        """Return what the rows tell of HLR, IOR, LRS and other networks: see ``scores.of_rows``."""
        return scores.of_rows(self.rows, self.soft_labels)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able values, rows first, ``scores`` last."""
        return {**dataclasses.asdict(self), "scores": self.scores()}

    def write_json(self, path: str | Path) -> None:
        """Write the report, at once or not at all.

        Raises:
            UserError: the file cannot be written.
        """
        files.replace(path, (json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n").encode())

    def append_to(self, path: str | Path, row: Row) -> None:
        """Add a row, with how it came about, to the results in a distilled set's file.

        One that is there already but for its date and time is left: an evaluation was stopped and repeated.

        Raises:
            UserError: the file is not a distilled set or cannot be written.
        """
        result = json.loads(json.dumps({**self._about(), **dataclasses.asdict(row)}))
        if _lasting(result) not in map(_lasting, set_file.results(path)):
            set_file.append_result(path, result)

    def recorded(self, path: str | Path) -> list[Row]:
        """Return the rows in a set's file that such an evaluation found before, on the same machine.

        Raises:
            UserError: the file is not a distilled set.
        """
        of_row = [field.name for field in dataclasses.fields(Row)]
        about = json.loads(json.dumps(self._about()))
        same = [key for key in about if key not in ("date", "machine", *of_row)]
        return [
            Row(**{key: result[key] for key in of_row})
            for result in set_file.results(path)
            if set(of_row) <= result.keys()
            and all(result.get(key) == about[key] for key in same)
            and provenance.same_machine(result.get("machine", ""), self.machine)
        ]

    def _about(self) -> dict[str, Any]:
        """Return how the rows came about, without what a set's file knows itself."""
        left_out = ("rows", "file", "cost", "distil_machine")
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in left_out}

    def table(self) -> Table:
        """Return a table for ``rich.print``: a line per network and training set, costs and scores below."""
        from rich.table import Table

        table = Table(
            title=f"Test accuracy on {self.dataset}, protocol {self.protocol}, {self.epochs} epochs, "
            f"{self.repeats} student{'s' if self.repeats > 1 else ''}",
            caption=self._caption(),
        )
        for name, justify in (("network", "left"), ("trained on", "left"), ("images", "right")):
            table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
        table.add_column("accuracy %", justify="right", no_wrap=True)
        table.add_column("seconds", justify="right")
        previous = None
        for row in self.rows:
            if previous not in (None, row.network):
                table.add_section()
            images = str(row.images) if row.decoded == row.images else f"{row.images} → {row.decoded} decoded"
            trained = row.set if row.epochs == self.epochs else f"{row.set}, {row.epochs} epochs"
            table.add_row(row.network, trained, images, row.accuracy, f"{row.seconds:.1f}")
            previous = row.network
        return table

    def _caption(self) -> str | None:
        words = {
            "image_bytes": ("images {:,.1f} kB", 1e3),
            "label_bytes": ("labels {:,.1f} kB", 1e3),
            "preprocess_bytes": ("whitening {:,.1f} kB", 1e3),
            "real_images": ("as many bytes as {:,.0f} real images", 1),
            "distil_seconds": ("distilled in {:,.0f} s", 1),
            "distil_peak_bytes": ("peak memory {:,.2f} GB", 1e9),
        }
        if self.cost.get("preprocess_bytes", 0) <= MATRIX_BYTES:
            del words["preprocess_bytes"]
        said = [text.format(self.cost[key] / unit) for key, (text, unit) in words.items() if key in self.cost]
        if self.distil_machine:
            said.append(f"made on {self.distil_machine}")
        return "\n".join(filter(None, [", ".join(said), scores.told(self.scores())])) or None


def _lasting(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is the same when an evaluation is repeated on the same machine."""
    return {key: value for key, value in result.items() if key not in ("date", "seconds")}
