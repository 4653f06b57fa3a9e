"""The pages of recipes and protocols: from their TOML files."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from dsdistill.config.presets import Presets
from dsdistill.config.recipe import EXPERT_RECIPES, RECIPES, load_expert_recipe, load_recipe
from dsdistill.config.settings import Setting
from dsdistill.protocol import PROTOCOLS, load_protocol, protocol_settings

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
    listed = "".join(f"- {_escaped(str(setting))}\n" for setting in settings)
    text = textwrap.indent(presets.find(name).read_text(encoding="utf-8"), "    ")
    unfold = f'??? note "{name}.toml: all options, and departures"\n\n    ```toml\n{text}    ```\n'
    return f"{heading or f'## {name}'}\n\n{title}.\n\n{about}\n\n{listed}\n{unfold}"


def _escaped(text: str) -> str:
    """Keep Markdown from taking underscores for emphasis."""
    return text.replace("_", "\\_")
