"""The command ``encode``."""

from __future__ import annotations

from typing import Annotated

import typer

from dsdistill.cli.arguments import Device, File, Output, Quiet, Seed, Verbose
from dsdistill.errors import UserError
from dsdistill.runtime.signals import importing


def encode(
    file: File,
    output: Output,
    bits: Annotated[
        str | None,
        typer.Option(help="Of a pixel, 1 to 8.", show_default="8; with --budget those with the least error"),
    ] = None,
    patch: Annotated[
        str | None,
        typer.Option(
            help="Side of the patches that have a scale each, in pixels; 0 for whole images.",
            show_default="0 from 6 bits on, else 4",
        ),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            help="Scales that patches share; 0 for one each.",
            show_default="64; with --budget as many as fit; whole images have their own",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="BYTES",
            help='Bytes of images and labels: 7840B, "31 kB", or of float32 images: "10 images", "10 ipc".',
            show_default=False,
        ),
    ] = None,
    refine: Annotated[
        int | None,
        typer.Option(
            help="Steps that move codes so that images keep their features in networks.", show_default="0"
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(help="With --refine: whose features.", show_default="that of the distillation"),
    ] = None,
    seed: Seed = None,
    device: Device = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", metavar="", help="Replace an earlier output.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a copy of a set whose images take a few bits a pixel.

    An image is divided into patches, and the pixels of each become integers between its darkest and its
    lightest one; patches of similar ranges share both. Labels stay as they are: label a set after this.

    `dsdistill encode digits.h5 -o small.h5 --bits 2`

    `dsdistill encode digits.h5 -o small.h5 --budget "1 ipc" --refine 500`

    `dsdistill evaluate small.h5 --baselines random@bytes`
    """
    with importing():
        from dsdistill.cli import console, progress
        from dsdistill.pipeline.encode import encode as encode_set

    summary = encode_set(
        file,
        output,
        bits=_number("bits", bits),  # type: ignore[arg-type]  # which is checked with the other options
        patch=_number("patch", patch),  # type: ignore[arg-type]
        groups=_number("groups", groups),  # type: ignore[arg-type]
        budget=budget,
        refine=refine,
        network=network,
        seed=seed or 0,
        device=device or "auto",
        overwrite=overwrite,
        callbacks=progress.callbacks_of(quiet, verbose, log=None, name=output.stem),
    )
    console.print_pairs(summary.rows())


_DIGITS = 9


def _number(name: str, text: str | None) -> int | str | None:
    """Read a number, or auto.

    Raises:
        UserError: it is neither.
    """
    if text is None or text == "auto":
        return text
    if not text.isdecimal() or len(text) > _DIGITS:
        raise UserError(f"--{name} takes a whole number from 0, or auto, not {text!r}")
    return int(text)
