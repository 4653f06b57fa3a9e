"""Settings that depend on data set and IPC: the tables of recipes and of protocols.

A recipe or a protocol has ``settings``, a list of tables::

    [[settings]]
    when = { dataset = ["cifar10"], ipc_min = 10 }  # all of these conditions; none of them always hold
    set = { iterations = 5000 }                     # options as they are
    per_ipc = { optimiser = { lr = 0.1 } }          # options proportional to the IPC
    source = "the paper's table 3"

Every table whose conditions hold is laid over the options before it: later tables win. Where classes have
unequal numbers of images, settings go by the mean: see `dsdistill.config.ipc`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dsdistill.config.options import flatten
from dsdistill.errors import UserError

CONDITIONS = ("dataset", "ipc_min", "ipc_max")
"""The keys that ``when`` may have."""


@dataclass(frozen=True)
class Setting:
    """One table of settings.

    Attributes:
        when: its conditions.
        set, per_ipc: nested options, as they are and to be multiplied by the IPC.
        source: where they come from.
    """

    when: Mapping[str, Any]
    set: Mapping[str, Any]
    per_ipc: Mapping[str, Any]
    source: str

    @classmethod
    def read(cls, table: Any, owner: str, conditions: Collection[str] = CONDITIONS) -> Setting:
        """Read one table.

        Args:
            table: as TOML has it.
            owner: whose it is, for error messages: ``"recipe 'dm'"``.
            conditions: that its ``when`` may have.

        Raises:
            UserError: naming what is wrong and what the table may hold.
        """
        if not isinstance(table, Mapping):
            raise UserError(f"{owner}: settings is a list of tables, [[settings]], not of {table!r}")
        parts = table.keys() - {"source"}
        known = {"when", "set", "per_ipc"}
        if not {"when"} < parts <= known or not all(isinstance(table[part], Mapping) for part in parts):
            raise UserError(
                f"{owner}: a table of settings takes when, set or per_ipc, and source; "
                "the first three are tables"
            )
        when, per_ipc = table["when"], table.get("per_ipc", {})
        _check_conditions(when, owner, conditions)
        if per_ipc and "ipc_min" not in conditions:
            raise UserError(f"{owner}: nothing here depends on the IPC; put per_ipc into set")
        if not all(isinstance(value, (int, float)) for value in flatten(per_ipc).values()):
            raise UserError(f"{owner}: per_ipc holds numbers, to be multiplied by the IPC")
        return cls(when, table.get("set", {}), per_ipc, str(table.get("source", "")))

    def holds(self, dataset: str | None, ipc: int | None) -> bool:
        """Whether all conditions hold; one of a data set or an IPC that is not known (None) does not."""
        if "dataset" in self.when and dataset not in self.when["dataset"]:
            return False
        if not self.when.keys() & {"ipc_min", "ipc_max"}:
            return True
        return ipc is not None and self.when.get("ipc_min", ipc) <= ipc <= self.when.get("ipc_max", ipc)

    def options(self, ipc: int | None) -> Iterator[dict[str, Any]]:
        """Yield the nested options at an IPC, to be laid over one another."""
        yield dict(self.set)
        if ipc is not None:
            yield _times(self.per_ipc, ipc)

    def __str__(self) -> str:
        """Return the table in words.

        >>> print(Setting({"dataset": ["cifar10"], "ipc_min": 5}, {"epochs": 300}, {}, "table 3"))
        cifar10 from IPC 5: epochs = 300 (table 3)
        """
        bounds = {"ipc_min": "from IPC", "ipc_max": "up to IPC"}
        words = [", ".join(self.when.get("dataset", ["every data set"]))]
        words += [f"{word} {self.when[key]}" for key, word in bounds.items() if key in self.when]
        values = [f"{key} = {value}" for key, value in flatten(self.set).items()]
        values += [f"{key} = {value} x IPC" for key, value in flatten(self.per_ipc).items()]
        source = f" ({self.source})" if self.source else ""
        return f"{' '.join(words)}: {', '.join(values)}{source}"


def _check_conditions(when: Mapping[str, Any], owner: str, conditions: Collection[str]) -> None:
    """Check the conditions of a table.

    Raises:
        UserError: naming the first that is wrong.
    """
    if unsupported := when.keys() - set(conditions):
        raise UserError(f"{owner}: no such condition: {', '.join(sorted(unsupported))}")
    names = when.get("dataset", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{owner}: dataset is a list of names, not {names!r}")
    bounds = [when.get(bound, 0) for bound in ("ipc_min", "ipc_max")]
    if not all(isinstance(number, int) for number in bounds):
        raise UserError(f"{owner}: ipc_min and ipc_max are whole numbers")


def _times(options: Mapping[str, Any], ipc: int) -> dict[str, Any]:
    """Multiply every number in nested options by the IPC."""
    return {
        key: _times(value, ipc) if isinstance(value, Mapping) else value * ipc
        for key, value in options.items()
    }
