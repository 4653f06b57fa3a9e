"""The command ``label``."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from dsdistill.cli.arguments import (
    Dataset,
    Device,
    Download,
    DryRun,
    File,
    Output,
    Quiet,
    Root,
    Seed,
    Verbose,
)
from dsdistill.errors import UserError
from dsdistill.runtime.signals import importing


def label(
    file: File,
    output: Output,
    teacher: Annotated[
        str,
        typer.Option(
            metavar="FILE[@EPOCH],...",
            help="A file of experts, after an epoch that it stores (the last); FILE#2@15 is expert 2 of it, "
            "FILE#all all of them. Several, comma-separated, are a committee.",
            show_default=False,
        ),
    ],
    weights: Annotated[
        str | None,
        typer.Option(
            help="Of a committee: equal, numbers such as 0.2,0.8, or accuracy on training images that "
            "teachers held out (dsdistill experts --set test=validation).",
            show_default="equal",
        ),
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="Of a committee: logits or probabilities.", show_default="logits")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="eval, or train: teachers normalise by the statistics of each batch (CV-DD).",
            show_default="eval",
        ),
    ] = None,
    parts: Annotated[
        int | None,
        typer.Option(
            help="Of a batch, each normalised on its own in mode train (CV-DD: 2).", show_default="1"
        ),
    ] = None,
    views: Annotated[
        int | None,
        typer.Option(
            help="Label so many augmented views of each image, and store them; without it, the images.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Views of a batch, at most.", show_default="64")
    ] = None,
    crop_scale: Annotated[
        str | None,
        typer.Option(help="Smallest and largest share of the area that is cropped.", show_default="0.08,1"),
    ] = None,
    flip: Annotated[
        bool | None,
        typer.Option(
            "--flip/--no-flip",
            metavar="",
            help="Mirror half of the views.",
            show_default="where a mirrored image keeps its label",
        ),
    ] = None,
    mixing: Annotated[str | None, typer.Option(help="cutmix, mixup or none.", show_default="cutmix")] = None,
    beta: Annotated[
        float | None,
        typer.Option(help="Of the mixing's Beta distribution.", show_default="1; of mixup 0.8"),
    ] = None,
    keep: Annotated[
        float | None,
        typer.Option(help="Share of the batches that are stored, at random (LPLD).", show_default="1"),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(
            help="Of the answers to views: float32, float16, uint8, top, or distances (NRR-DD).",
            show_default="float16",
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(help="With --encoding top: so many of the largest logits.", show_default=False),
    ] = None,
    stop: Annotated[
        str | None,
        typer.Option(
            help="auto: choose the teacher's epoch, by students on training images that it held out "
            "(dsdistill experts --set test=validation), else on a part of those it was trained on.",
            show_default=False,
        ),
    ] = None,
    dataset: Dataset = None,
    root: Root = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="With --stop: of the students.", show_default="the set's own"),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(help="With --stop: of the students.", show_default="the set's own"),
    ] = None,
    download: Download = False,
    seed: Seed = None,
    device: Device = None,
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", metavar="", help="Continue an interrupted labelling.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", metavar="", help="Replace an earlier output.")
    ] = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> Any:
    """Have trained networks label a distilled set, and write the set with their labels.

    Without --views every image gets one row of logits, and students learn from that in place of the class.
    With --views teachers answer to random crops, mirrored and mixed with one another; these are stored too,
    and students see exactly the same ones (FKD). Labels may take more bytes than images: both are printed.

    `dsdistill experts --recipe mtt --dataset digits --count 1 -o teacher.h5`

    `dsdistill label digits.h5 --teacher teacher.h5@10 -o labelled.h5`

    `dsdistill label digits.h5 --teacher a.h5,b.h5 --views 300 --encoding top --top 5 -o views.h5`

    `dsdistill label digits.h5 --teacher teacher.h5 --stop auto -o early.h5`

    `dsdistill evaluate views.h5`
    """
    with importing():
        from dsdistill.cli import console, progress
        from dsdistill.pipeline import label as labelling
        from dsdistill.runtime import estimate
        from dsdistill.runtime.device import quiet_allocator

    quiet_allocator()
    options: dict[str, Any] = {
        "teachers": teacher,
        "weights": _weights(weights),
        "mean": mean,
        "mode": mode,
        "parts": parts,
        "views": views,
        "batch_size": batch_size,
        "crop_scale": _range(crop_scale),
        "flip": flip,
        "mixing": mixing,
        "beta": beta,
        "keep": keep,
        "encoding": encoding,
        "top": top,
        "seed": seed,
        "stop": stop,
        "dataset": dataset,
        "root": root,
        "protocol": protocol,
        "network": network,
        "download": download,
        "device": device or "auto",
        "precision": precision,
        "resume": resume,
        "overwrite": overwrite,
        "callbacks": progress.callbacks_of(quiet, verbose, None, output.stem),
    }
    if dry_run:
        return console.print_estimate(estimate.dry_run(labelling.label, file, output, **options))
    summary = labelling.label(file, output, **options)
    command = shlex.join(["dsdistill", "evaluate", str(summary.path)])
    return console.print_pairs([*summary.rows(), ("next", command)])


def _weights(text: str | None) -> str | tuple[float, ...] | None:
    """Return numbers that are written with commas, or a name."""
    return text and (_numbers(text) or text)


def _range(text: str | None) -> tuple[float, float] | None:
    """Return two numbers that are written with a comma, such as 0.08,1.

    Raises:
        UserError: they are not.
    """
    if text is None:
        return None
    numbers = _numbers(text)
    if len(numbers) != 2:
        raise UserError(f"--crop-scale takes two shares of the area, such as 0.25,1, not {text!r}")
    return numbers[0], numbers[1]


def _numbers(text: str) -> tuple[float, ...]:
    """Return numbers that are written with commas; none where a word is no number."""
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        return ()
