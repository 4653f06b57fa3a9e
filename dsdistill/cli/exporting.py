"""The command ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsdistill.cli import completion
from dsdistill.cli.arguments import File
from dsdistill.errors import UserError, unknown
from dsdistill.runtime.signals import importing


def export(
    file: File,
    target: Annotated[
        Path | None,
        typer.Argument(metavar="OUTPUT", help="The output, in place of -o.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder, a .pt or a .h5 file.", show_default=False)
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(help="png, pt, h5 or ddranking.", show_default="by the suffix; png for a folder"),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(help="Of a .pt: network (preprocessed) or unit (0 to 1).", show_default="network"),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="Of the pixels in a .h5: float32, float16 or uint8.", show_default="uint8"),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="For ddranking: how students are trained.",
            show_default="the method's own",
            autocompletion=completion.protocols,
        ),
    ] = None,
) -> None:
    """Write a distilled set in a format that other programs read, or in fewer bytes.

    The formats: a folder of PNGs; a .pt that torch.load(weights_only=True) reads; another .h5 with smaller
    pixels; a folder for DD-Ranking's evaluators with images.pt, labels.pt, lr.pt and ddranking.yaml.

    `dsdistill export digits.h5 digits-png/`

    `dsdistill export digits.h5 digits.pt`

    `dsdistill export digits.h5 small.h5 --dtype uint8`

    `dsdistill export cifar10.h5 --to ddranking -o cifar10-ddranking/`
    """
    with importing():
        from dsdistill.cli import console
        from dsdistill.export.ddranking import export_ddranking
        from dsdistill.export.hdf5 import export_h5
        from dsdistill.export.png import export_png
        from dsdistill.export.pt import export_pt

    path = output or target
    if path is None or (output and target):
        raise UserError("name one output: a folder, a .pt or a .h5 file")
    kind = _kind(to, path)
    for name, value, only in (
        ("space", space, "pt"),
        ("dtype", dtype, "h5"),
        ("protocol", protocol, "ddranking"),
    ):
        if value is not None and kind != only:
            raise UserError(f"--{name} is for {only}, not for {kind}; leave it out")
    if kind == "pt":
        if (space := space or "network") not in ("network", "unit"):
            raise unknown("space", space, ("network", "unit"))
        export_pt(file, path, space)  # type: ignore[arg-type]
    elif kind == "h5":
        console.notify(export_h5(file, path, dtype or "uint8"))  # type: ignore[arg-type]
    elif kind == "png":
        console.notify(export_png(file, path))
    else:
        for sentence in export_ddranking(file, path, protocol):
            console.notify(sentence)
    console.say(f"wrote {path}")


_KINDS = ("png", "pt", "h5", "ddranking")
_SUFFIXES = {"": "png", ".pt": "pt", ".pth": "pt", ".h5": "h5", ".hdf5": "h5"}


def _kind(to: str | None, path: Path) -> str:
    """Return the format of --to or, without it, of the output's suffix."""
    suffix = path.suffix.lower()
    if to is None and suffix not in _SUFFIXES:
        raise UserError(
            f"no format goes by the suffix {suffix!r}: end the output in .pt or .h5, name a folder, or "
            f"choose with --to {', '.join(_KINDS)}"
        )
    kind = to or _SUFFIXES[suffix]
    if kind not in _KINDS:
        raise unknown("export format", kind, _KINDS)
    return kind
