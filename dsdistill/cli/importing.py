"""The command ``import``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from dsdistill.cli import completion
from dsdistill.cli.arguments import Channels, Dataset, Download, Output, Quiet, Root, Size, Verbose
from dsdistill.errors import UserError
from dsdistill.runtime.signals import importing


def import_(
    source: Annotated[
        Path, typer.Argument(help="What another program left: a file or a folder.", show_default=False)
    ],
    output: Output,
    dataset: Dataset = None,
    format: Annotated[
        str,
        typer.Option(
            help="auto, tensors, mtt, idc, dc, ddranking, pictures or h5.",
            autocompletion=completion.choices("--format"),
        ),
    ] = "auto",
    space: Annotated[
        str,
        typer.Option(
            help="Of the pixels: auto, unit (0 to 1), standardised or zca.",
            autocompletion=completion.choices("import --space"),
        ),
    ] = "auto",
    labels: Annotated[
        Path | None, typer.Option(help="A file of labels, if the source has none.", show_default=False)
    ] = None,
    factor: Annotated[
        int | None,
        typer.Option(
            help="A stored image is decoded into FACTOR x FACTOR (IDC, IDM, NCFM).", show_default="1"
        ),
    ] = None,
    which: Annotated[
        int | None, typer.Option(help="Of several sets in a file, from 0.", show_default=False)
    ] = None,
    constants: Annotated[
        str | None,
        typer.Option(
            help="Data set whose mean and deviation standardised the pixels.", show_default="its own"
        ),
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate that was learned with the set.", show_default=False)
    ] = None,
    method: Annotated[str | None, typer.Option(help="Its name in results.", show_default="imported")] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="By which it is evaluated.",
            show_default="of the format's paper, else dm",
            autocompletion=completion.protocols,
        ),
    ] = None,
    root: Root = None,
    size: Size = None,
    channels: Channels = None,
    download: Download = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", metavar="", help="Replace an earlier set.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make a distilled set of what another program left, to evaluate it like any other.

    The sources: tensors (.pt, .npy, .npz, .safetensors), result folders of MTT, TESLA and DATM, data.pt of
    IDC and NCFM, res_….pt of DC, DSA and DM, folders of pictures, DD-Ranking's tensors, dsdistill's exports.

    `dsdistill import logged_files/CIFAR10/run/ -o mtt.h5 --dataset cifar10`

    `dsdistill import results/data.pt -o idc.h5 --dataset cifar10 --factor 2 --method idc`

    `dsdistill import rded/ -o rded.h5 --dataset imagenette --size 224`
    """
    with importing():
        from dsdistill.cli import console, progress
        from dsdistill.importing.run import import_set

    if dataset is None:
        raise UserError("name the data set that the source was distilled from: --dataset NAME")
    summary = import_set(
        source,
        output,
        dataset=dataset,
        format=format,
        space=space,
        labels=labels,
        factor=factor,
        which=which,
        constants=constants,
        lr=lr,
        method=method,
        protocol=protocol,
        root=root,
        size=size,
        channels=channels,
        download=download,
        overwrite=overwrite,
        callbacks=progress.callbacks_of(quiet, verbose, log=None, name=output.stem),
    )
    content = f"{summary.images} images, read as {summary.format}, {summary.space} space"
    own = f" --dataset {shlex.quote(dataset)}" * (":" in dataset)  # the file does not tell where it lies
    console.print_pairs(
        [
            ("file", f"{summary.path} ({content})"),
            ("next", f"dsdistill evaluate {shlex.quote(str(summary.path))}{own}"),
        ]
    )
