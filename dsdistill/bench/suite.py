"""What a suite runs, read from TOML: by name (``suites/<name>.toml``) or from a file of one's own."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, MinLen
from pydantic import Field

from dsdistill.config.presets import Presets
from dsdistill.config.validation import forbid_extra, validate
from dsdistill.errors import UserError, unknown

Count = Annotated[int, Ge(1)]
OrDefault = Annotated[int, Ge(0)]
"""0 leaves it to the recipe or the protocol."""


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """What one method of a suite is told besides."""

    experts: str = ""
    """The table of ``experts`` that it matches with."""
    ipcs: tuple[Count, ...] = ()
    """In place of the suite's."""
    baselines: tuple[str, ...] = ()
    """Judged with its cells, besides the suite's."""
    set: dict[str, Any] = field(default_factory=dict)
    """Options over those of its recipe, nested or dotted, as in a config file."""


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class ExpertSettings:
    """Networks trained first, once for every data set, network and whitening that its methods use."""

    recipe: str
    count: OrDefault = 0
    epochs: OrDefault = 0
    set: dict[str, Any] = field(default_factory=dict)


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class Suite:
    """Data sets × methods × IPC × seeds, and how each cell is made and judged."""

    name: str
    title: str
    about: str = ""
    datasets: Annotated[tuple[str, ...], MinLen(1)]
    methods: Annotated[tuple[str, ...], MinLen(1)]
    """Recipes, by name or as TOML files."""
    ipcs: Annotated[tuple[Count, ...], MinLen(1)]
    seeds: Annotated[tuple[int, ...], MinLen(1)] = (0,)
    iterations: OrDefault = 0
    """The budget of a cell; 0 takes each recipe's own."""
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """The budget as time in the loop instead, so that methods compare at equal cost."""
    network: str = ""
    """That features are matched in, and the first student; empty takes the recipe's."""
    networks: tuple[str, ...] = ()
    """Further students to judge with."""
    protocol: str = ""
    """Empty takes that of each method's paper."""
    students: OrDefault = 0
    epochs: OrDefault = 0
    baselines: tuple[str, ...] = ("random",)
    """Judged once for the cells that share data set, IPC, seed and protocol, with the first of them; those
    that depend on a set's bytes with every cell."""
    scores: bool = False
    """Also train the students that DD-Ranking's scores compare, and judge random and whole, where they are
    among the baselines, with every cell."""
    curve: OrDefault = 0
    """Accuracy at so many equally spaced moments of the distillation, the end among them."""
    curve_students: Count = 1
    """Fresh students at each of them but the end."""
    set: dict[str, Any] = field(default_factory=dict)
    """Options over those of every recipe, nested or dotted."""
    method: dict[str, MethodSettings] = field(default_factory=dict)
    """What single methods are told besides, by name."""
    experts: dict[str, ExpertSettings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        what = f"suite {self.name!r}"
        if self.iterations and self.seconds:
            raise UserError(f"{what} gives its cells both iterations and seconds; keep one of them")
        for key in ("datasets", "methods", "ipcs", "seeds"):
            values = getattr(self, key)
            if repeated := [value for value in values if values.count(value) > 1]:
                raise UserError(f"{what} lists {repeated[0]!r} twice in {key}; drop one")
        for name in self.method:
            if name not in self.methods:
                raise unknown(f"method in the tables of {what}:", name, self.methods)
        for name, told in self.method.items():
            if told.experts and told.experts not in self.experts:
                raise unknown(
                    f"table of experts for {name!r} in {what}:", told.experts, self.experts or ("none",)
                )


SUITES = Presets("suites", "suite")


def load_suite(name_or_path: str | Path) -> Suite:
    """Read a suite by name ("digits") or from a TOML file ("mine.toml"), whose stem becomes its name.

    Raises:
        UserError: no such suite or file, or a key or value that a suite cannot have.
    """
    table = SUITES.read(name_or_path)
    known = [each.name for each in dataclasses.fields(Suite)]
    for key, kind in (("method", MethodSettings), ("experts", ExpertSettings)):
        inside = table.get(key)
        for each in inside if isinstance(inside, dict) else ():
            known += [f"{key}.{each}.{part.name}" for part in dataclasses.fields(kind)]
    return validate(Suite, table, f"suite {str(name_or_path)!r}: key", known)
