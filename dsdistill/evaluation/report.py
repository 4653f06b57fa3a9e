"""The report of an evaluation: as a table, as a JSON file, and as results in the set's own file."""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsdistill import files
from dsdistill.config.data_names import data_name
from dsdistill.config.regimes import Regime
from dsdistill.errors import UserError
from dsdistill.evaluation import scores
from dsdistill.evaluation.rows import DISTILLED, Row, canonical, labels_do_the_work, read_row
from dsdistill.runtime import provenance
from dsdistill.runtime.notice import Notify, silent
from dsdistill.storage import set_results
from dsdistill.text import byte_size, plain

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.table import Table

_COLUMNS = ("network", "trained on", "labels", "images", "accuracy %", "seconds")
_NUMBERS = _COLUMNS[3:]

MATRIX_BYTES = 10_000
"""A preprocessing of more bytes is a matrix, and tables show its size. A mean and a deviation are smaller."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Rows, and all that is needed to read them a year later.

    Attributes:
        rows: see ``Row``; accuracies in percent.
        file: the name of the distilled set's file.
        dataset: the data set it was evaluated on, without folders.
        protocol, epochs, repeats, lr, seed, precision, device: how students were trained.
        soft_labels: whether the rows "distilled" come from soft labels.
        regime, labels, temperature: of the rows "distilled": see `Row` and ``dsdistill.config.labels``; None
            for a temperature that hard labels have none of.
        teacher: that labelled batches or controls, or that students are compared with; None without one.
        conditions: a digest of the protocol's content, the data and this package's code. Names and versions
            alone do not identify them.
        cost: of the distilled set, as far as its file states it: file_bytes, image_bytes, label_bytes,
            preprocess_bytes, distil_seconds, distil_peak_bytes; and real_images, how many real images take
            the bytes of its images and labels.
        distil_machine: the machine that distilled the set, if its file names it.
        machine, date (ISO 8601, UTC), packages: of the evaluation.
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
    regime: Regime = "HL"
    labels: str = "hard"
    temperature: float | None = None
    teacher: str | None = None
    conditions: str = ""
    cost: Mapping[str, float] = field(default_factory=dict)
    distil_machine: str | None = None

    def scores(self) -> dict[str, Any]:
        """Return HLR, IOR, LRS and accuracies across networks: see ``scores.of_rows``."""
        return scores.of_rows(self.rows, self.soft_labels)

    @property
    def flags(self) -> list[str]:
        """Warnings about the accuracies, a sentence each: see `labels_do_the_work`."""
        return labels_do_the_work(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able values, rows first, ``scores`` and ``flags`` last."""
        return {**dataclasses.asdict(self), "scores": self.scores(), "flags": self.flags}

    def write_json(self, path: str | Path) -> None:
        """Write the report, at once or not at all.

        Raises:
            UserError: the file cannot be written.
        """
        files.replace(path, (json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n").encode())

    def append_to(self, path: str | Path, row: Row, expected: str = "", notify: Notify = silent) -> None:
        """Add a row, and how it came about, to the results in a distilled set's file.

        An equal result is not added again, whatever its date and seconds: an evaluation may be stopped and
        repeated.

        Args:
            expected: the digest of the set that the row is of.
            notify: receives a sentence if another process that changes the file has to be waited for.

        Raises:
            UserError: the file is not a distilled set, holds another set by now, or cannot be written.
        """
        result = json.loads(json.dumps({**self._circumstances(), **dataclasses.asdict(row)}))
        if _comparable(result) not in map(_comparable, set_results.results(path)):
            set_results.append_result(path, result, expected, notify)

    def earlier_rows(self, path: str | Path) -> list[Row]:
        """Return the rows in a set's file of an otherwise identical evaluation on the same machine.

        Raises:
            UserError: the file is not a distilled set.
        """
        keys = {field.name for field in dataclasses.fields(Row)}
        circumstances = json.loads(json.dumps(self._circumstances()))
        same = [key for key in circumstances if key not in ("date", "machine", *keys)]
        return [
            row
            for result in set_results.results(path)
            if (row := read_row(result))
            and all(_comparable(result).get(key) == circumstances[key] for key in same)
            and provenance.same_machine(str(result.get("machine", "")), self.machine)
        ]

    def _circumstances(self) -> dict[str, Any]:
        """Return how the rows came about, without what the set's file states itself."""
        omitted = ("rows", "file", "cost", "distil_machine")
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in omitted}

    def table(self) -> Table:
        """Return a table for ``rich.print``: a line per network and training set, costs and scores below."""
        from rich.table import Table

        table = Table(title=self._title(), caption=self._caption())
        for name in _COLUMNS[:4]:
            justify = "right" if name in _NUMBERS else "left"
            table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
        table.add_column(_COLUMNS[4], justify="right", no_wrap=True)
        table.add_column(_COLUMNS[5], justify="right")
        previous = None
        for row in self.rows:
            if previous not in (None, row.network):
                table.add_section()
            table.add_row(*self._cells(row))
            previous = row.network
        return table

    def _repr_html_(self) -> str:
        """Return the table as notebooks show it."""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in _COLUMNS)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in self._cells(row)) + "</tr>"
            for row in self.rows
        )
        below = html.escape(self._caption() or "").replace("\n", "<br>")
        return (
            f"<table><caption>{html.escape(self._title())}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table><p>{below}</p>"
        )

    def to_frame(self) -> DataFrame:
        """Return the rows as a pandas data frame: the fields of `Row`, and dataset, seed and precision.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise UserError(
                'to_frame needs pandas, which is not installed: pip install "dsdistill[hf]"'
            ) from error
        shared = {"dataset": self.dataset, "seed": self.seed, "precision": self.precision}
        columns = [field.name for field in dataclasses.fields(Row)] + list(shared)
        return pandas.DataFrame([dataclasses.asdict(row) | shared for row in self.rows], columns=columns)

    def _title(self) -> str:
        students = f"{self.repeats} student{'s' if self.repeats > 1 else ''}"
        where = f"{plain(self.dataset)}, protocol {plain(self.protocol)}"
        what = "after pre-training for" if any(row.transfer for row in self.rows) else "on"
        return f"Test accuracy {what} {where}, {self.epochs} epochs, {students}"

    def _cells(self, row: Row) -> list[str]:
        """Return a row of the table."""
        images = str(row.images) if row.decoded == row.images else f"{row.images} → {row.decoded} decoded"
        trained = row.set if row.epochs in (0, self.epochs) else f"{row.set}, {row.epochs} epochs"
        trained += f" → {row.transfer.words}" if row.transfer else ""
        cells = row.network, trained, row.regime, images, row.accuracy, f"{row.seconds:.1f}"
        return [*map(plain, cells)]

    def _caption(self) -> str | None:
        formats: dict[str, tuple[str, Callable[[float], str]]] = {
            "image_bytes": ("images {}", byte_size),
            "label_bytes": ("labels {}", byte_size),
            "preprocess_bytes": ("whitening {}", byte_size),
            "real_images": ("as many bytes as {} real images", "{:,.0f}".format),
            "coded_bits": ("these coded alike, in {} bits a pixel", "{:g}".format),
            "distil_seconds": ("distilled in {} s", "{:,.0f}".format),
            "distil_peak_bytes": ("peak memory {}", byte_size),
        }
        if self.cost.get("preprocess_bytes", 0) <= MATRIX_BYTES:
            del formats["preprocess_bytes"]
        costs = [
            text.format(write(self.cost[key])) for key, (text, write) in formats.items() if key in self.cost
        ]
        if self.distil_machine:
            costs.append(f"made on {plain(self.distil_machine)}")
        lines = [", ".join(costs), scores.sentence(self.scores()), *self._measures(), *self.flags]
        return "\n".join(filter(None, lines)) or None

    def _measures(self) -> Iterator[str]:
        """Yield a sentence on the students of the set for each network."""
        own = [row for row in self.rows if row.set == DISTILLED]
        for row in own:
            if words := measured(row):
                yield (f"{plain(row.network)}: " if len(own) > 1 else "") + words


def measured(row: Row) -> str:
    """Say in a line what was measured of a row's students besides their accuracy; "" where nothing was."""
    parts = []
    if calibration := row.calibration:
        text = f"ECE {calibration.scores.ece:.1f} %, NLL {calibration.scores.nll:.2f}"
        if calibration.scaled and calibration.temperature is not None:
            scaled = calibration.scaled
            text += f" (ECE {scaled.ece:.1f} %, NLL {scaled.nll:.2f} at T = {calibration.temperature:.2f})"
        parts.append(text)
    if row.disagreement is not None:
        parts.append(f"students disagree on {row.disagreement:.1f} %")
    if fidelity := row.fidelity:
        text = f"agrees with the teacher on {fidelity.agreement:.1f} %"
        if fidelity.agreement_on_errors is not None:
            text += f" ({fidelity.agreement_on_errors:.1f} % of its errors)"
        parts.append(f"{text}, KL {fidelity.divergence:.2f}")
    if leak := row.leak:
        parts.append(f"leak: AUC {leak.auc:.3f}, {leak.gap:+.1f} points on training images")
    return "; ".join(parts)


def _comparable(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a result that is the same when an evaluation is repeated on the same machine.

    Earlier versions called a data set of one's own by its path.
    """
    comparable = {key: value for key, value in result.items() if key not in ("date", "seconds")}
    for key, present in (("set", canonical), ("dataset", data_name)):
        if isinstance(name := comparable.get(key), str):
            comparable[key] = present(name)
    return comparable
