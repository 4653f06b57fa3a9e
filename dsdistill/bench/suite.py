"""What a suite runs, read from TOML: by name (``presets/suites/<name>.toml``) or from a file of one's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, MinLen
from pydantic import Field

from dsdistill.config.presets import RECIPES, SUITES
from dsdistill.config.validation import forbid_extra, validate
from dsdistill.errors import UserError, unknown
from dsdistill.files import expanded
from dsdistill.plugs import is_file_reference, names_in
from dsdistill.teachers.reference import TeacherReference, teacher_names

Count = Annotated[int, Ge(1)]
OrDefault = Annotated[int, Ge(0)]
"""0 leaves it to the recipe or the protocol."""
ByIpc = OrDefault | dict[Count, Count]
"""One number, or one for each IPC: ``{ 1 = 1000, 10 = 2000 }``."""
LabelSource = Literal["", "hard", "static", "views", "teacher"]
"""Where students' labels come from, in place of what the protocol says."""
OWN = "own"
"""As a protocol: that of the method's recipe."""
UNCODED = 32
"""Bits of a pixel of a set as it is distilled."""
_MOST_BITS = 8
TableName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
"""Part of a file's name."""


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """One method of a suite; its name is free if it names its recipe, so that recipes have variants."""

    recipe: str = ""
    """A recipe's name or TOML file; empty: the method's name is one."""
    experts: str = ""
    """The table of ``experts`` that it matches with, or recovers from; several, with commas between them, are
    a committee."""
    teacher: str = ""
    """In place of the suite's."""
    label: dict[str, Any] | Literal[False] | None = None
    """In place of the suite's; false: its sets are not labelled."""
    labels: LabelSource = ""
    """In place of the suite's."""
    protocol: str = ""
    """In place of the suite's; "own" is that of its recipe."""
    ipcs: tuple[Count, ...] = ()
    """In place of the suite's."""
    iterations: ByIpc | None = None
    """In place of the suite's; 0 takes its recipe's own."""
    bits: tuple[int, ...] = ()
    """In place of the suite's."""
    evaluations: tuple[str, ...] = ()
    """Tables of ``evaluation``, in place of all of them."""
    baselines: tuple[str, ...] = ()
    """Evaluated with its cells, in their first evaluation, besides the suite's."""
    gain_over: str = ""
    """Another method of the suite; tables state the gain over it, seed by seed."""
    set: dict[str, Any] = field(default_factory=dict)
    """Options over those of its recipe, nested or dotted, as in a config file."""


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """One evaluation of every set. What is not given is the suite's."""

    protocol: str = ""
    """A protocol's name or TOML file, or "own": the method's."""
    labels: LabelSource = ""
    """In place of the method's."""
    networks: tuple[str, ...] = ()
    """All of its students; empty: the network that the set is made for, then the suite's ``networks``."""
    students: OrDefault = 0
    """Fresh ones of each network."""
    epochs: ByIpc = 0
    """In place of the protocol's."""
    seeds: tuple[int, ...] = ()
    """The set is evaluated once with each; empty: with the cell's seed."""
    precision: Literal["", "auto", "fp32", "bf16"] = ""
    """Of the students' training."""
    baselines: tuple[str, ...] | None = None
    """Real images to compare with."""


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class ExpertSettings:
    """Networks trained first, once for every data set, network and whitening that its methods use."""

    recipe: str
    """Of experts: a name or a TOML file."""
    network: str = ""
    """Empty takes that of the cells which they are for; those that match with them take this one."""
    count: OrDefault = 0
    """Networks in the file."""
    epochs: OrDefault = 0
    """Of training each."""
    set: dict[str, Any] = field(default_factory=dict)
    """Options over those of the recipe, nested or dotted."""


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class Suite:
    """Data sets × methods × IPC × seeds, and how each cell is distilled and evaluated."""

    name: str
    """The stem of its file."""
    title: str
    """A line about it."""
    about: str = ""
    """A sentence or two, shown in the list of suites."""
    datasets: Annotated[tuple[str, ...], MinLen(1)]
    """As ``--dataset`` takes them."""
    methods: Annotated[tuple[str, ...], MinLen(1)]
    """Recipes, by name or as TOML files, or names of tables ``method`` that name their recipe."""
    ipcs: Annotated[tuple[Count, ...], MinLen(1)]
    """Images per class."""
    seeds: Annotated[tuple[int, ...], MinLen(1)] = (0,)
    """Of cells; each makes all of them once more."""
    iterations: OrDefault = 0
    """The budget of a cell; 0 takes each recipe's own."""
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """The budget as time in the loop instead, so that methods compare at equal cost."""
    network: str = ""
    """That features are matched in, and the first student; empty takes the recipe's."""
    networks: tuple[str, ...] = ()
    """Further students to evaluate with."""
    protocol: str = ""
    """Empty, or "own", takes that of each method's paper."""
    teacher: str = ""
    """Who labels sets, and batches where a protocol asks for that: a table of ``experts``, ``NAME@EPOCH``,
    ``NAME#EXPERT`` or ``NAME#all``; several, with commas between them, are a committee."""
    label: dict[str, Any] | None = None
    """Options of `dsdistill.label`, for sets that are evaluated with stored labels; an empty table stands for
    static labels. Without it sets are not labelled."""
    labels: LabelSource = ""
    """Where students' labels come from, in place of what the protocol says."""
    bits: tuple[int, ...] = (UNCODED,)
    """Of a pixel, in which every set is evaluated: 32, the set as it is distilled, and any of 1 to 8, copies
    of it that are encoded. Beside a copy are those baselines that fill bytes, coded alike."""
    students: OrDefault = 0
    """Fresh ones of each network."""
    epochs: ByIpc = 0
    """In place of the protocol's."""
    baselines: tuple[str, ...] = ("random",)
    """Evaluated once for the cells that share data set, IPC, seed and protocol, with the first of them; those
    that depend on a set's bytes, coding or labels with every cell. Controls of labels are left out where
    labels are hard, or where there is no teacher for them."""
    scores: bool = False
    """Also train the students that DD-Ranking's scores compare, and evaluate random and full, where they are
    among the baselines, with every cell."""
    curve: OrDefault = 0
    """Accuracy at so many equally spaced moments of the distillation, the end among them, in the first
    evaluation."""
    curve_students: Count = 1
    """Fresh students at each of them but the end."""
    set: dict[str, Any] = field(default_factory=dict)
    """Options over those of every recipe, nested or dotted."""
    method: dict[str, MethodSettings] = field(default_factory=dict)
    """Settings of single methods, by name."""
    evaluation: dict[TableName, EvaluationSettings] = field(default_factory=dict)
    """Evaluations of every set, by name; none: one, with the suite's settings."""
    experts: dict[str, ExpertSettings] = field(default_factory=dict)
    """Networks that methods match with, by name, trained first."""

    def __post_init__(self) -> None:
        subject = f"suite {self.name!r}"
        for key in ("datasets", "methods", "ipcs", "seeds"):
            values = getattr(self, key)
            if repeated := [value for value in values if values.count(value) > 1]:
                raise UserError(f"{subject} lists {repeated[0]!r} twice in {key}; drop one")
        if self.seconds and (self.iterations or any(each.iterations for each in self.method.values())):
            raise UserError(f"{subject} gives its cells both iterations and seconds; keep one of them")
        _check_bits(self.bits, subject)
        self._check_tables("experts", table_names(self.teacher), "the teacher", subject)
        for name, settings in self.method.items():
            self._check_method(name, settings, subject)
        for name in self.methods:
            self._check_epochs(name, subject)

    def _check_method(self, name: str, settings: MethodSettings, subject: str) -> None:
        if name not in self.methods:
            raise unknown(f"method in the tables of {subject}:", name, self.methods)
        if settings.recipe not in ("", name) and name in RECIPES.names():
            raise UserError(
                f"method {name!r} of {subject} has the recipe {settings.recipe!r}, but its name is another "
                "recipe's; rename it"
            )
        if settings.gain_over and (settings.gain_over == name or settings.gain_over not in self.methods):
            others = [each for each in self.methods if each != name]
            raise unknown(f"method that {name!r} of {subject} compares with:", settings.gain_over, others)
        self._check_ipcs(settings.iterations, settings.ipcs, f"method {name!r} of {subject}", "iterations")
        if settings.bits:
            _check_bits(settings.bits, f"method {name!r} of {subject}")
        experts = [*table_names(settings.experts), *table_names(settings.teacher)]
        self._check_tables("experts", experts, repr(name), subject)
        self._check_tables("evaluation", settings.evaluations, repr(name), subject)

    def _check_epochs(self, method: str, subject: str) -> None:
        """Raise a UserError where an evaluation of a method has no epochs for one of its IPCs."""
        settings = self.settings_of(method)
        for name in settings.evaluations or tuple(self.evaluation) or ("",):
            own = self.evaluation[name].epochs if name else 0
            where = f"evaluation {name!r} of {subject}" if own else subject
            self._check_ipcs(own or self.epochs, settings.ipcs, where, "epochs")

    def _check_ipcs(self, numbers: ByIpc | None, ipcs: Sequence[int], subject: str, what: str) -> None:
        """Raise a UserError where numbers by IPC leave out one that a suite has."""
        if isinstance(numbers, dict) and (missing := sorted({*(ipcs or self.ipcs)} - {*numbers})):
            raise UserError(f"{subject} has no {what} for IPC {missing[0]}; add them")

    def _check_tables(self, kind: str, names: Iterable[str], who: str, subject: str) -> None:
        """Raise a UserError, with the nearest name, where there is no such table of a kind."""
        tables = getattr(self, kind)
        for name in names:
            if name not in tables:
                raise unknown(f"table of {kind} for {who} in {subject}:", name, tables or ("none",))

    def settings_of(self, method: str) -> MethodSettings:
        """Return the settings of one method; defaults where it has no table."""
        return self.method.get(method, MethodSettings())

    def teacher_of(self, method: str) -> str:
        """Return who labels for one method; empty for nobody."""
        return self.settings_of(method).teacher or self.teacher

    def label_of(self, method: str) -> dict[str, Any] | None:
        """Return how the sets of one method are labelled; None where they are not."""
        own = self.settings_of(method).label
        if own is False:
            return None
        return self.label if own is None else own

    def coded_bits_of(self, method: str) -> tuple[int, ...]:
        """Return the bits of the encoded copies of a method's sets, most first."""
        bits = self.settings_of(method).bits or self.bits
        return tuple(sorted((each for each in bits if each != UNCODED), reverse=True))

    def recipe_of(self, method: str) -> str:
        """Return the recipe of one method: a name or a TOML file."""
        return self.settings_of(method).recipe or method


def at_ipc(numbers: ByIpc, ipc: int) -> int:
    """Return the number for one IPC."""
    return numbers[ipc] if isinstance(numbers, dict) else numbers


def _check_bits(bits: tuple[int, ...], subject: str) -> None:
    """Raise a UserError where bits of a pixel cannot be, are repeated, or leave out the set as it is."""
    if wrong := [each for each in bits if each != UNCODED and not 1 <= each <= _MOST_BITS]:
        raise UserError(
            f"{subject} has bits of {wrong[0]}: a pixel is encoded in 1 to {_MOST_BITS}, and {UNCODED} is "
            "the set as it is distilled"
        )
    if repeated := [each for each in bits if bits.count(each) > 1]:
        raise UserError(f"{subject} lists {repeated[0]} twice in bits; drop one")
    if UNCODED not in bits:
        choices = ", ".join(map(str, (UNCODED, *bits)))
        raise UserError(
            f"{subject} leaves {UNCODED} out of bits, the set as it is distilled: write bits = [{choices}]"
        )


def references(names: str) -> list[TeacherReference]:
    """Read names of tables of experts, each as a file of experts is named: ``NAME#EXPERT@EPOCH``.

    Raises:
        UserError: what follows a name is no number.
    """
    return [TeacherReference.parse(name) for name in teacher_names(names)]


def table_names(names: str) -> list[str]:
    """Return the tables of experts in a text with commas between them."""
    return [each.source for each in references(names)]


def load_suite(name_or_path: str | Path) -> Suite:
    """Read a suite by name ("digits") or from a TOML file ("mine.toml"), whose stem becomes its name.

    A network of the user's own, ``net.py:NAME``, is looked for from the folder of the suite's file.

    Raises:
        UserError: no such suite or file, or a key or value that a suite cannot have.
    """
    table = _with_places(SUITES.read(name_or_path), SUITES.find(name_or_path).parent)
    return validate(Suite, table, f"suite {str(name_or_path)!r}: key", _known_keys(table))


def _with_places(table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a table whose networks in files of Python are named from a folder."""

    def placed(key: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return _with_places(value, folder)
        if key == "networks" and isinstance(value, list):
            return [placed("network", each) for each in value]
        if key in ("network", "student") and isinstance(value, str):
            names = names_in(value)
            return ",".join(
                str(folder / expanded(each)) if is_file_reference(each) else each for each in names
            )
        return value

    return {key: placed(key, value) for key, value in table.items()}


def _known_keys(table: dict[str, Any]) -> Iterator[str]:
    """Yield every dotted key that a suite with the tables of this one can have."""
    yield from (each.name for each in dataclasses.fields(Suite))
    kinds = {"method": MethodSettings, "evaluation": EvaluationSettings, "experts": ExpertSettings}
    for key, kind in kinds.items():
        tables = table.get(key)
        for name in tables if isinstance(tables, dict) else ():
            yield from (f"{key}.{name}.{each.name}" for each in dataclasses.fields(kind))
