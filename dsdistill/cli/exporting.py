"""The command ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsdistill.cli import completion
from dsdistill.cli.arguments import File, Quiet, Verbose
from dsdistill.errors import UserError
from dsdistill.runtime.signals import importing


def export(
    file: File,
    target: Annotated[
        Path | None,
        typer.Argument(metavar="OUTPUT", help="The output, in place of -o.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="A folder, or a .pt, .h5, .parquet or .tar file.", show_default=False
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            help="png, pt, h5, ddranking, hf, parquet or webdataset.",
            show_default="by the suffix; png for a folder",
            autocompletion=completion.choices("--to"),
        ),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            help="Of a .pt: network (preprocessed) or unit (0 to 1).",
            show_default="network",
            autocompletion=completion.choices("export --space"),
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Of the pixels in a .h5: float32, float16 or uint8.",
            show_default="uint8",
            autocompletion=completion.choices("--dtype"),
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="For ddranking: how students are trained.",
            show_default="the method's own",
            autocompletion=completion.protocols,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", metavar="", help="Replace what an earlier export wrote.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a distilled set in a format that other programs read, or in fewer bytes.

    The formats: a folder of PNGs; a .pt that torch.load(weights_only=True) reads; another .h5 with smaller
    pixels; a folder for DD-Ranking's evaluators with images.pt, labels.pt, lr.pt and ddranking.yaml; a folder
    with a card for Hugging Face's datasets, or its parquet file alone; a .tar or a folder for WebDataset.

    `dsdistill export digits.h5 digits-png/`

    `dsdistill export digits.h5 digits.pt`

    `dsdistill export digits.h5 small.h5 --dtype uint8`

    `dsdistill export cifar10.h5 --to ddranking -o cifar10-ddranking/`

    `dsdistill export digits.h5 --to hf -o digits-hf/`
    """
    with importing():
        from dsdistill.cli import console, progress
        from dsdistill.export.run import export_set

    path = output or target
    if path is None or (output and target):
        raise UserError("name one output: a folder, or a .pt, .h5, .parquet or .tar file")
    callbacks = progress.callbacks_of(quiet, verbose, log=None, name=path.stem)
    export_set(
        file,
        path,
        to=to,
        space=space,
        dtype=dtype,
        protocol=protocol,
        overwrite=overwrite,
        callbacks=callbacks,
    )
    console.say(f"wrote {path}")
