"""The pages of recipes and protocols: from their TOML files."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from dsdistill.config.options import flatten
from dsdistill.config.presets import Presets
from dsdistill.config.recipe import EXPERT_RECIPES, RECIPES, load_expert_recipe, load_recipe
from dsdistill.config.settings import Setting
from dsdistill.protocol import PROTOCOLS, load_protocol, protocol_settings
from reference.text import table

_RECIPES = """\
# Recipes

A recipe holds the settings of one published method: its defaults, and tables for data sets and IPC, each with
its source. Later tables win. `dsdistill methods NAME` prints one. How to write one: [adding a
recipe](extending.md#a-recipe).
"""
_EXPERTS = """\
## Recipes of experts {#experts}

`dsdistill experts --recipe NAME` trains by one of these.
"""
_PROTOCOLS = """\
# Protocols

A protocol fixes how students are trained: accuracies are comparable only under the same one. What the keys
mean: [options of a protocol](options.md#of-a-protocol).
"""


def recipes_page() -> str:
    """Return every recipe with its settings by data set and IPC."""
    parts = [_RECIPES]
    for name in RECIPES.names():
        recipe = load_recipe(name)
        protocol = f"[`{recipe.protocol}`](protocols.md#{recipe.protocol})"
        base = f" It begins from [`{recipe.base}`](#{recipe.base})." if recipe.base else ""
        about = f"{recipe.paper}. Follows the {recipe.follows}; protocol {protocol}.{base}"
        parts.append(_preset(RECIPES, name, recipe.title, about, _settings(recipe)))
    parts.append(_EXPERTS)
    for name in EXPERT_RECIPES.names():
        expert = load_expert_recipe(name)
        about = f"{expert.paper}. Follows the {expert.follows}."
        heading = f"### Experts: {name} {{#experts-{name}}}"
        parts.append(_preset(EXPERT_RECIPES, name, expert.title, about, _settings(expert), heading))
    return "\n".join(parts)


def _settings(recipe: Any) -> list[Setting]:
    return [Setting.read(table, recipe.name, recipe.conditions) for table in recipe.settings]


def protocols_page() -> str:
    """Return every protocol with its settings by data set and IPC."""
    parts = [_PROTOCOLS]
    for name in PROTOCOLS.names():
        protocol = load_protocol(name)
        settings = protocol_settings(name)
        parts.append(_preset(PROTOCOLS, name, protocol.title, f"{protocol.source}.", settings))
    return "\n".join(parts)


def _preset(
    presets: Presets, name: str, title: str, about: str, settings: Sequence[Setting], heading: str = ""
) -> str:
    """Write one preset: what it is, its settings in words, and its file to unfold."""
    rows = [_row(setting) for setting in settings]
    listed = table(("for", "options", "source"), rows) if rows else ""
    text = textwrap.indent(presets.find(name).read_text(encoding="utf-8"), "    ")
    unfold = f'??? note "{name}.toml: all options, and departures"\n\n    ```toml\n{text}    ```\n'
    return f"{heading or f'## {name}'}\n\n{title}.\n\n{about}\n\n{listed}\n{unfold}"


def _row(setting: Setting) -> tuple[str, str, str]:
    """Write one table of settings: its conditions, its options, its source."""
    condition, _, _ = str(setting).partition(": ")
    values = [f"`{key} = {_written(value)}`" for key, value in flatten(setting.set).items()]
    values += [f"`{key} = {_written(value)} x IPC`" for key, value in flatten(setting.per_ipc).items()]
    return condition, "<br>".join(values), setting.source


def _written(value: Any) -> str:
    """Write a value as TOML has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
