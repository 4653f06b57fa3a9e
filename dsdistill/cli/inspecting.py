"""The commands that inspect a file (``info``, ``show``) or list names (``methods``, ``datasets``, …)."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated

import typer

from dsdistill import files
from dsdistill.cli.arguments import File
from dsdistill.errors import UserError


def info(
    file: Annotated[Path, typer.Argument(help="A distilled set, or experts (.h5).", show_default=False)],
    config: Annotated[
        bool, typer.Option("--config", metavar="", help="Print the configuration that made it (TOML).")
    ] = False,
) -> None:
    """Verify a file and describe it: content, origin and cost; of a distilled set, results too.

    Of experts, which may be many gigabytes, only the structure is verified; weights are verified when read.

    `dsdistill info cifar10.h5 --config > again.toml` keeps a run for `distill --config again.toml`.
    """
    from dsdistill.cli import console
    from dsdistill.storage import expert_file, set_file

    file = files.expanded(file)
    if expert_file.holds_experts(file):
        experts = expert_file.ExpertFile.open(file)
        if config:
            console.print_text(experts.metadata.config)
        else:
            console.print_experts(experts)
        return
    description = set_file.describe(file)
    if config and "config" not in description.attributes:
        raise UserError(f"{file} does not hold the configuration it was made by")
    if config:
        console.print_text(str(description.attributes["config"]))
    else:
        console.print_description(file, description)


def show(
    file: File,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The PNG to write.", show_default="FILE with suffix .png"),
    ] = None,
) -> None:
    """Draw the images of a distilled set into one PNG, a row per class."""
    from dsdistill.cli import console
    from dsdistill.config.data_names import data_name
    from dsdistill.export import picture
    from dsdistill.storage import set_file

    file = files.expanded(file)
    target = files.expanded(output) if output else file.with_suffix(".png")
    files.check_replaceable(target, ".png")
    distilled = set_file.read(file)
    dataset = data_name(str(distilled.attributes.get("dataset", file.stem)))
    method = distilled.attributes.get("method", "")
    title = f"{dataset}, {method}, {len(distilled.images)} images"
    picture.write_grid(distilled.images, distilled.labels, distilled.classes, target, title=title)
    console.say(f"wrote {target}")


def methods(
    name: Annotated[
        str, typer.Argument(help="Print the recipe of this method instead (TOML).", show_default=False)
    ] = "",
) -> None:
    """List the methods; or show one's settings, their sources and our departures from them.

    If a recipe extends another, that one follows as a comment.

    `dsdistill methods mtt`
    """
    from dsdistill.cli import console
    from dsdistill.config.recipe import RECIPES, load_recipe

    if name:
        bases = [recipe.base for recipe in load_recipe(name).lineage() if recipe.base]
        console.print_text(RECIPES.find(name).read_text(encoding="utf-8"))
        for base in bases:
            text = RECIPES.find(base).read_text(encoding="utf-8")
            console.print_text(f"\n# It begins from {base}:\n\n" + textwrap.indent(text, "# "))
        return
    recipes = [load_recipe(name) for name in RECIPES.names()]
    console.print_pairs(
        (
            recipe.name,
            f"{recipe.title}. {recipe.paper} (follows the {recipe.follows}; protocol {recipe.protocol})",
        )
        for recipe in recipes
    )


def networks() -> None:
    """Explain the names of networks: families, depth, width, normalisation, activation and pooling."""
    import inspect

    from dsdistill.cli import console
    from dsdistill.networks import registry

    console.print_text(inspect.cleandoc(registry.__doc__ or ""))


def protocols(
    name: Annotated[str, typer.Argument(help="Print this protocol instead (TOML).", show_default=False)] = "",
) -> None:
    """List the protocols that --protocol takes, with their sources and what depends on data set and IPC.

    `dsdistill protocols ncfm`
    """
    from dsdistill.cli import console
    from dsdistill.protocol import PROTOCOLS, load_protocol, protocol_settings

    if name:
        load_protocol(name)  # an own file is checked
        console.print_text(PROTOCOLS.find(name).read_text(encoding="utf-8"))
        return
    lines = []
    for each in PROTOCOLS.names():
        protocol = load_protocol(each)
        lines.append((each, f"{protocol.title}. {protocol.source}"))
        lines += [("", str(setting)) for setting in protocol_settings(each)]
    console.print_pairs(lines)


def datasets() -> None:
    """List the data sets that --dataset takes.

    In Python, `dataset=` also takes data in memory: arrays, a Dataset of torch or of Hugging Face.
    """
    from dsdistill.cli import console
    from dsdistill.data import catalog

    console.print_pairs(catalog.names().items())
    console.say("In Python, dataset= also takes (images, labels), and a Dataset of torch or of Hugging Face.")
