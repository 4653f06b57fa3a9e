"""The page of all options: read from the dataclasses that define them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import dsdistill
from dsdistill.bench.suite import EvaluationSettings, ExpertSettings, MethodSettings, Suite
from dsdistill.distillation.config import RunConfig
from dsdistill.experts.config import ExpertConfig
from dsdistill.protocol import Protocol
from reference.text import one_line, prose, table

REQUIRED = "set by the recipe or by you"
_MEANINGS = {"kind": "Which of these tables it is."}
"""Of options that go without saying in the code."""


@dataclass(frozen=True)
class Option:
    """One option: its dotted key, its type and default in words, and what it means."""

    key: str
    type: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Section:
    """The options of one dataclass.

    Attributes:
        title: where they stand in a config: ``engine, kind = gradient``.
        about: the first paragraph of the class's docstring.
    """

    title: str
    about: str
    options: Sequence[Option]


def sections(kind: type[Any], prefix: str = "", instance: Any = None) -> Iterator[Section]:
    """Yield the options of a dataclass, then those of the dataclasses in it.

    Args:
        prefix: of the keys, such as ``engine.``.
        instance: the default of the whole, from which the defaults of its options are read.
    """
    hints = get_type_hints(kind, include_extras=True)
    meanings = field_docs(kind)
    options: list[Option] = []
    inner: list[Section] = []
    for field in fields(kind):
        key, hint = prefix + field.name, hints[field.name]
        value = _default(field, instance)
        if choices := _dataclasses(hint):
            for choice in choices:
                inner += sections(choice, f"{key}.", value if isinstance(value, choice) else None)
        else:
            default = REQUIRED if value is dataclasses.MISSING else written_value(value)
            options.append(
                Option(
                    key, written_type(hint), default, meanings.get(field.name, _MEANINGS.get(field.name, ""))
                )
            )
    names = get_args(hints.get("kind"))  # one name, where a union is told apart by it
    title = prefix.rstrip(".") + (f", kind = {names[0]}" if prefix and len(names) == 1 else "")
    yield Section(title, inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0], options)
    yield from inner


def _default(field: dataclasses.Field[Any], instance: Any) -> Any:
    if instance is not None:
        return getattr(instance, field.name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _dataclasses(hint: Any) -> list[type[Any]]:
    """Return the dataclasses that a type consists of; none for other types."""
    if get_origin(hint) is Annotated:
        inner, *markers = get_args(hint)
        kinds = [marker.members() for marker in markers if hasattr(marker, "members")]
        return [each for each in kinds[0] if _is_ours(each)] if kinds else _dataclasses(inner)
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return [part for part in parts if isinstance(part, type) and is_dataclass(part)]


def _is_ours(kind: type[Any]) -> bool:
    """Whether a class is the package's, and not one that another program or package has registered."""
    return kind.__module__.startswith("dsdistill.")


def field_docs(kind: type[Any]) -> dict[str, str]:
    """Return what a dataclass says of its fields, below each or in the section Args or Attributes."""
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not is_dataclass(base):
            continue
        docs |= _listed(base.__doc__ or "")
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(body, ast.ClassDef)
        for field, text in itertools.pairwise(body.body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(text):
                docs[field.target.id] = one_line(text.value.value)  # type: ignore[attr-defined]
    return docs


def _is_text(node: ast.stmt) -> bool:
    is_constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_constant and isinstance(node.value.value, str)  # type: ignore[attr-defined]


def _listed(docstring: str) -> dict[str, str]:
    """Return the entries of the sections Args and Attributes; one may be of several names."""
    docs: dict[str, str] = {}
    for section in re.findall(
        r"^(?:Args|Attributes):\n((?:    .*\n|\n)+)", inspect.cleandoc(docstring) + "\n", re.M
    ):
        for entry in re.split(r"\n(?=\S)", textwrap.dedent(section).strip()):
            names, _, text = entry.partition(":")
            docs |= {name.strip(): one_line(text) for name in names.split(",")}
    return docs


_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", Any: "any"}
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_HUGE = 2**62


def written_type(hint: Any) -> str:
    """Write a type in words.

    >>> written_type(Literal["sgd", "adamw"]), written_type(tuple[float, ...]), written_type(int | None)
    ('sgd or adamw', 'list of number', 'whole number')
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = " ".join(_bounds(parts[1:]))
        return f"{written_type(parts[0])} {bounds}".strip()
    if origin is Literal:
        return " or ".join(map(str, parts))
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(written_type(part) for part in parts if part is not types.NoneType))
    if origin in (tuple, list):
        return f"list of {written_type(parts[0])}"
    if origin in (dict, Mapping):
        return "table"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def _bounds(constraints: Sequence[Any]) -> Iterator[str]:
    """Yield the bounds of a number; those of a 64-bit integer go without saying."""
    for constraint in itertools.chain.from_iterable(
        getattr(each, "metadata", [each]) for each in constraints
    ):
        for name, sign in _BOUNDS.items():
            bound = getattr(constraint, name, None)
            if bound is not None and abs(bound) < _HUGE:
                yield f"{sign} {bound:g}" if isinstance(bound, float) else f"{sign} {bound}"


def written_value(value: Any) -> str:
    """Write a default as TOML has it.

    >>> written_value(True), written_value(()), written_value("real"), written_value(None)
    ('true', '[]', 'real', 'none')
    """
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, str):
        return value or '""'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(written_value, value))}]"
    if isinstance(value, Mapping):
        return "{}" if not value else str(dict(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


_OPTIONS = """\
# Options

Made from the code of version {version}.

An option is a dotted key. There are four ways to set one, and later ones win: the recipe of the method, a
file (`--config`), an option of the command line, and `--set KEY=VALUE`. In Python: the recipe, `config=`,
arguments and `options=`, `overrides=`. Every run writes all of them, as they were decided, into
`config.toml` in its run directory. A misspelt key is an error that names the nearest one.

Where a table has a `kind`, the kind says which other keys it has.
"""

_SUITE = (
    (Suite, ""),
    (MethodSettings, "method.NAME."),
    (EvaluationSettings, "evaluation.NAME."),
    (ExpertSettings, "experts.NAME."),
)


def options_page() -> str:
    """Return every option of distillation, of experts and of protocols, with its default."""
    parts = [_OPTIONS.format(version=dsdistill.__version__)]
    parts.append("## Of a distillation {#of-a-distillation}\n")
    run = list(sections(RunConfig))
    parts += map(_section, _distinct(run))
    parts.append("## Of the training of experts {#of-experts}\n")
    parts.append(
        "`data` and `augmentation` have the same keys as in a distillation; `compute` has one more.\n"
    )
    parts += map(_section, _further(sections(ExpertConfig), run))
    parts.append("## Of a protocol {#of-a-protocol}\n")
    parts.append("A protocol is a TOML file of its own: see [protocols](protocols.md).\n")
    parts += map(_section, sections(Protocol))
    parts.append("## Of a suite {#of-a-suite}\n")
    parts.append("A suite is a TOML file of its own, for `dsdistill bench`.\n")
    for kind, prefix in _SUITE:
        parts += map(_section, sections(kind, prefix))
    return "\n".join(parts)


def _further(found: Iterable[Section], known: Iterable[Section]) -> Iterator[Section]:
    """Yield sections without the options of known ones of the same title; those that lack nothing else go."""
    keys = {(each.title, option.key) for each in known if each.title for option in each.options}
    for each in found:
        options = [option for option in each.options if (each.title, option.key) not in keys]
        if options:
            yield dataclasses.replace(each, options=options)


def _distinct(found: Sequence[Section]) -> list[Section]:
    """Leave out repetitions: three engines have the same supplies."""
    return list({(each.title, tuple(each.options)): each for each in found}.values())


def _section(section: Section) -> str:
    heading = f"### {section.title}\n\n" if section.title else ""
    rows = [
        (f"`{o.key}`", o.type, f"`{o.default}`" if o.default != REQUIRED else REQUIRED, prose(o.meaning))
        for o in section.options
    ]
    listed = table(("key", "type", "default", "meaning"), rows) if rows else ""
    return f"{heading}{prose(section.about)}\n\n{listed}"
