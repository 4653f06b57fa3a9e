"""The command ``evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dsdistill.cli import completion
from dsdistill.cli.arguments import Device, Download, DryRun, File, Log, Quiet, Root, Verbose
from dsdistill.runtime.signals import importing


def evaluate(
    file: File,
    ipc: Annotated[
        int | None,
        typer.Option(
            help="Evaluate the first N images of each class alone, of a set of several sizes (method mdc).",
            metavar="N",
            show_default="all",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Evaluate on this data set.",
            show_default="the one the file names",
            autocompletion=completion.datasets,
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="A name, such as dsa (see `dsdistill protocols`), or a TOML file.",
            show_default="the method's own",
            autocompletion=completion.protocols,
        ),
    ] = None,
    networks: Annotated[
        str,
        typer.Option(
            help="Students, comma-separated (see `dsdistill networks`).",
            show_default="the one it is made for",
            autocompletion=completion.networks,
        ),
    ] = "",
    repeats: Annotated[int | None, typer.Option(help="Fresh students each.", show_default="protocol")] = None,
    epochs: Annotated[int | None, typer.Option(help="Training epochs.", show_default="protocol")] = None,
    seed: Annotated[int, typer.Option(help="Of every random draw.")] = 0,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Train on these labels: hard; static, the stored logits of each image; views, the stored "
            "views; teacher, which labels every batch.",
            show_default="the protocol's",
            metavar="hard|static|views|teacher",
            autocompletion=completion.labels,
        ),
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            help="A file of experts, or FILE@EPOCH: it labels batches and controls, and students are "
            "compared with it. Several, comma-separated, are a committee.",
            metavar="FILE[@EPOCH],...",
            show_default=False,
        ),
    ] = None,
    baselines: Annotated[
        str | None,
        typer.Option(
            help="Real images to compare with, comma-separated: random, herding, k-center, k-means, el2n, "
            "el2n-easy (append @bytes for as many as fit into the file's bytes, @31kB or @10ipc for as "
            "many as fit into a size or into that of float32 images, @steps for as many steps as on a set "
            "that is decoded into more images, +labels for labels such as the set's, by --teacher), full "
            "(the full training set); coresets for all of these but random and full, all for every "
            "baseline at both sizes; noise+labels, distilled-hard, teacher; of pre-training: scratch, "
            "random+targets, k-means+targets, full+targets; '' for none.",
            show_default="random; random@steps where students of the set take more steps; with soft labels "
            "distilled-hard, and with --teacher all controls",
            autocompletion=completion.baselines,
        ),
    ] = None,
    transfer: Annotated[
        str | None,
        typer.Option(
            help="Data that students learn after they were pre-trained on the set, comma-separated; with a "
            "protocol such as krr-st. They are brought to the size and channels of the set.",
            metavar="DATA,...",
            show_default=False,
        ),
    ] = None,
    fractions: Annotated[
        str | None,
        typer.Option(
            help="Shares of their labels that students see, such as 0.01,0.1,1.",
            metavar="SHARE,...",
            show_default="all",
        ),
    ] = None,
    tuning: Annotated[
        str | None,
        typer.Option(
            help="fine-tune all weights on them, or fit a linear probe of the features.",
            metavar="fine-tune|probe",
            show_default="the protocol's",
            autocompletion=completion.choices("--tuning"),
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps of that fine-tuning.", show_default="protocol")
    ] = None,
    device: Device = None,
    scores: Annotated[
        bool,
        typer.Option(
            "--scores",
            metavar="",
            help="Also train the students that DD-Ranking's scores compare: under hard labels where the set "
            "has soft ones, and without augmentation. LRS needs the baselines random and full, ARS random.",
        ),
    ] = False,
    leak: Annotated[
        bool,
        typer.Option(
            "--leak",
            metavar="",
            help="Also test whether students know the training images that they never saw, by their labels.",
        ),
    ] = False,
    precision: Annotated[
        str, typer.Option(help="auto, fp32 or bf16.", autocompletion=completion.choices("--precision"))
    ] = "auto",
    root: Root = None,
    download: Download = False,
    json: Annotated[Path | None, typer.Option(help="Write the results here too.", show_default=False)] = None,
    save: Annotated[bool, typer.Option(help="Add the results to the file.")] = True,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", metavar="", help="Continue a stopped evaluation: reuse the results in the file."
        ),
    ] = False,
    dry_run: DryRun = False,
    log: Log = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> Any:
    """Train fresh students on a distilled set and on random real images, and compare their test accuracy.

    Accuracy is that after the last epoch on the test set, mean ± standard deviation over fresh students.
    Compare it only within one regime of labels: HL (hard), SL (stored soft labels), SL+KD (online teacher).

    `dsdistill evaluate digits.h5 --networks convnet,mlp --repeats 5 --json digits.json`

    `dsdistill evaluate digits.h5 --protocol rded --teacher teacher.h5@20` shows what labels alone are worth.

    `dsdistill evaluate set.h5 --protocol krr-st --transfer digits --teacher ssl.h5` pre-trains students.
    """
    with importing():
        from dsdistill.cli import console, progress
        from dsdistill.evaluation import run
        from dsdistill.runtime import estimate
        from dsdistill.runtime.device import quiet_allocator

    quiet_allocator()
    options: dict[str, Any] = {
        "ipc": ipc,
        "dataset": dataset,
        "root": root,
        "protocol": protocol,
        "networks": networks,
        "repeats": repeats,
        "epochs": epochs,
        "seed": seed,
        "device": device or "auto",
        "precision": precision,
        "labels": labels,
        "teacher": teacher,
        "baselines": baselines,
        "transfer": transfer,
        "fractions": fractions,
        "tuning": tuning,
        "steps": steps,
        "scores": scores,
        "leak": leak,
        "json": json,
        "save": save,
        "resume": resume,
        "download": download,
        "callbacks": progress.callbacks_of(quiet, verbose, log, f"{file.stem}-evaluation"),
    }
    if dry_run:
        return console.print_estimate(estimate.dry_run(run.evaluate, file, **options))
    return console.out.print(run.evaluate(file, **options).table())
