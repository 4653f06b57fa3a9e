"""The commands that look: at a file (``info``, ``show``), at what there is (``methods``, ``datasets``)."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated

import typer

from dsdistill.cli.arguments import File
from dsdistill.errors import UserError


def info(
    file: Annotated[Path, typer.Argument(help="A distilled set, or experts (.h5).", show_default=False)],
    config: Annotated[
        bool, typer.Option("--config", metavar="", help="Print the configuration it was made by (TOML).")
    ] = False,
) -> None:
    """Verify a file and say what is in it: content, origin and cost; of a distilled set, results too.

    Of experts, which may be many gigabytes, the structure is verified, and weights when they are read.

    `dsdistill info cifar10.h5 --config > again.toml` keeps what `distill --config again.toml` replays.
    """
    from dsdistill.cli import console
    from dsdistill.storage import expert_file, set_file

    if expert_file.holds_experts(file):
        experts = expert_file.ExpertFile.open(file)
        if config:
            console.print_text(experts.metadata.config)
        else:
            console.print_experts(experts)
        return
    about = set_file.describe(file)
    if config and "config" not in about.attributes:
        raise UserError(f"{file} does not hold the configuration it was made by")
    if config:
        console.print_text(str(about.attributes["config"]))
    else:
        console.print_description(file, about)


def show(
    file: File,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The PNG to write.", show_default="FILE with suffix .png"),
    ] = None,
) -> None:
    """Draw the images of a distilled set into one PNG, a row per class."""
    from dsdistill.cli import console
    from dsdistill.export import picture
    from dsdistill.storage import set_file

    found = set_file.read(file)
    about = found.attributes
    title = f"{about.get('dataset', file.stem)}, {about.get('method', '')}, {len(found.images)} images"
    target = output or file.with_suffix(".png")
    picture.grid(found.images, found.labels, found.classes, target, title=title)
    console.out.print(f"wrote {target}", highlight=False, markup=False)


def methods(
    name: Annotated[
        str, typer.Argument(help="Print this one's recipe instead (TOML).", show_default=False)
    ] = "",
) -> None:
    """List the methods and what they are; or show one's settings, where they come from and what is ours.

    A recipe that begins from another is followed by that one, as a comment.

    `dsdistill methods mtt`
    """
    from dsdistill.cli import console
    from dsdistill.config.recipe import RECIPES, load_recipe

    if name:
        bases = [each.base for each in load_recipe(name).lineage() if each.base]
        console.print_text(RECIPES.find(name).read_text(encoding="utf-8"))
        for base in bases:
            text = RECIPES.find(base).read_text(encoding="utf-8")
            console.print_text(f"\n# It begins from {base}:\n\n" + textwrap.indent(text, "# "))
        return
    recipes = [load_recipe(name) for name in RECIPES.names()]
    console.print_pairs(
        (each.name, f"{each.title}. {each.paper} (follows the {each.follows}; protocol {each.protocol})")
        for each in recipes
    )


def networks() -> None:
    """Tell how networks are named: families, depth, width, normalisation, activation and pooling."""
    import inspect

    from dsdistill.cli import console
    from dsdistill.networks import registry

    console.print_text(inspect.cleandoc(registry.__doc__ or ""))


def protocols() -> None:
    """List the protocols that --protocol takes, and whose training they are."""
    from dsdistill.cli import console
    from dsdistill.protocol import PROTOCOLS, load_protocol

    every = [load_protocol(name) for name in PROTOCOLS.names()]
    console.print_pairs((each.name, f"{each.title}. {each.source}") for each in every)


def datasets() -> None:
    """List the data sets that --dataset takes."""
    from dsdistill.cli import console
    from dsdistill.data import catalog

    console.print_pairs(catalog.names().items())
