"""The commands that inspect a file (``info``, ``show``) or list names (``methods``, ``datasets``, …)."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated

import typer

from dsdistill import files
from dsdistill.cli import completion, index
from dsdistill.cli.arguments import File
from dsdistill.config.presets import RECIPES
from dsdistill.errors import UserError
from dsdistill.runtime.signals import importing


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
    with importing():
        from dsdistill.cli import console
        from dsdistill.storage import expert_file
        from dsdistill.storage.set_description import describe

    if str(file) in RECIPES.names() and not file.exists():
        raise UserError(f"info describes files, and {file} is a method: see dsdistill methods {file}")
    file = files.expanded(file)
    if expert_file.holds_experts(file):
        experts = expert_file.ExpertFile.open(file)
        if config:
            console.print_text(experts.metadata.config)
        else:
            console.print_experts(experts)
        return
    description = describe(file)
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
    """Draw the images of a distilled set into one PNG, a row per class; without labels, row by row."""
    with importing():
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
    added = f" and {count} compensators" if (count := distilled.compensator_count) else ""
    labels = "".join(f", {words}" for words in picture.titled_labels(distilled))
    title = f"{dataset}, {method}, {len(distilled.images)} images{added}{labels}"
    rows, names = picture.rows_of(distilled)
    picture.write_grid(distilled.images[: len(rows)], rows, names, target, title=title)
    console.say(f"wrote {target}")


def methods(
    name: Annotated[
        str,
        typer.Argument(
            help="Print the recipe of this method instead (TOML).",
            show_default=False,
            autocompletion=completion.methods,
        ),
    ] = "",
) -> None:
    """List the methods; or show one's settings, their sources and our departures from them.

    If a recipe extends another, that one follows as a comment, as do the experts that are trained first.

    `dsdistill methods mtt`
    """
    with importing():
        from dsdistill.cli import console
        from dsdistill.config.recipe import load_recipe

    if name:
        recipe = load_recipe(name)
        bases = [each.base for each in recipe.lineage() if each.base]
        console.print_text(RECIPES.find(name).read_text(encoding="utf-8"))
        for base in bases:
            text = RECIPES.find(base).read_text(encoding="utf-8")
            console.print_text(f"\n# It begins from {base}:\n\n" + textwrap.indent(text, "# "))
        if experts := recipe.about_experts():
            console.print_text(f"\n# Experts: {experts}.")
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

    with importing():
        from dsdistill.cli import console
        from dsdistill.networks import names, registry

    console.print_text(inspect.cleandoc(names.__doc__ or ""))
    if added := list(registry.added_networks()):
        console.print_text("\nAdded by installed packages:")
        console.print_pairs(added)


def protocols(
    name: Annotated[
        str,
        typer.Argument(
            help="Print this protocol instead (TOML).",
            show_default=False,
            autocompletion=completion.protocols,
        ),
    ] = "",
) -> None:
    """List the protocols that --protocol takes, with regime, source and what depends on data set and IPC.

    Regimes of labels: HL (hard), SL (stored soft labels), SL+KD (online teacher).

    `dsdistill protocols ncfm`
    """
    from dsdistill.cli import console
    from dsdistill.config.presets import PROTOCOLS
    from dsdistill.config.regimes import regimes_of
    from dsdistill.config.settings import Setting

    if name:
        file = PROTOCOLS.find(name)
        if name not in PROTOCOLS.names():
            _check_protocol(file)
        console.print_text(file.read_text(encoding="utf-8"))
        return
    lines = []
    for each in PROTOCOLS.names():
        protocol = PROTOCOLS.read(each)
        source = protocol.get("labels", {}).get("source", "file")
        regime = regimes_of("hard" if "transfer" in protocol else source)  # other data have hard labels
        lines.append((each, f"[{regime}] {protocol['title']}. {protocol['source']}"))
        lines += [("", str(Setting.read(table, each))) for table in protocol.get("settings", [])]
    console.print_pairs(lines)


def _check_protocol(file: Path) -> None:
    """Check a protocol of one's own; those that ship need no check, and so no torch.

    Raises:
        UserError: it cannot be read, or has an unknown key or an invalid value.
    """
    with importing():
        from dsdistill.protocol import load_protocol

    load_protocol(file)


def datasets() -> None:
    """List the data sets that --dataset takes.

    In Python, `dataset=` also takes data in memory: arrays, a Dataset of torch or of Hugging Face.
    """
    from dsdistill.cli import console

    console.print_pairs(index.datasets().items())
    console.say("In Python, dataset= also takes (images, labels), and a Dataset of torch or of Hugging Face.")
