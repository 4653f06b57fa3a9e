"""The commands that look: at a file (``info``, ``show``), at what there is (``methods``, ``datasets``)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsdistill.cli.options import File


def info(
    file: Annotated[Path, typer.Argument(help="A distilled set, or experts (.h5).", show_default=False)],
) -> None:
    """Verify a file and say what is in it: content, origin and cost; of a distilled set, results too.

    Of experts, which may be many gigabytes, the structure is verified, and weights when they are read.
    """
    from dsdistill import buffer, screen, storage

    if buffer.holds_experts(file):
        screen.print_buffer(buffer.Buffer.open(file))
    else:
        screen.print_description(file, storage.describe(file))


def show(
    file: File,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The PNG to write.", show_default="FILE with suffix .png"),
    ] = None,
) -> None:
    """Draw the images of a distilled set into one PNG, a row per class."""
    from dsdistill import picture, screen, storage

    found = storage.read(file)
    about = found.attributes
    title = f"{about.get('dataset', file.stem)}, {about.get('method', '')}, {len(found.images)} images"
    target = output or file.with_suffix(".png")
    picture.grid(found.images, found.labels, found.classes, target, title=title)
    screen.out.print(f"wrote {target}", highlight=False, markup=False)


def methods() -> None:
    """List the methods, what they are and where their settings come from."""
    from dsdistill import config, screen

    recipes = [config.load_recipe(name) for name in config.RECIPES.names()]
    screen.print_pairs(
        (each.name, f"{each.title}. {each.paper} (settings: the {each.follows}'s; protocol {each.protocol})")
        for each in recipes
    )


def networks() -> None:
    """Tell how networks are named: families, depth, width, normalisation, activation and pooling."""
    import inspect

    from dsdistill import screen
    from dsdistill.networks import registry

    screen.out.print(inspect.cleandoc(registry.__doc__ or ""), highlight=False, markup=False)


def protocols() -> None:
    """List the protocols that --protocol takes, and whose training they are."""
    from dsdistill import screen
    from dsdistill.evaluation.protocol import PROTOCOLS, load_protocol

    every = [load_protocol(name) for name in PROTOCOLS.names()]
    screen.print_pairs((each.name, f"{each.title}. {each.source}") for each in every)


def datasets() -> None:
    """List the data sets that --dataset takes."""
    from dsdistill import screen
    from dsdistill.data import catalog

    screen.print_pairs(catalog.names().items())
