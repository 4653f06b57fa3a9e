"""The commands ``distill`` and ``experts``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dsdistill.cli import completion
from dsdistill.cli.arguments import (
    Budget,
    Channels,
    Dataset,
    Device,
    Download,
    DryRun,
    Log,
    Output,
    Overrides,
    Quiet,
    Root,
    Seed,
    Size,
    TotalBudget,
    Verbose,
    Zca,
)
from dsdistill.runtime.signals import importing


def distill(
    output: Output,
    dataset: Dataset = None,
    method: Annotated[
        str | None,
        typer.Option(help="See `dsdistill methods`.", show_default="dm", autocompletion=completion.methods),
    ] = None,
    ipc: Annotated[
        str | None,
        typer.Option(
            help="Synthetic images per class: N, or one for each class, N,N,… or NAME=N,NAME=N,…; of data "
            "without labels, in all.",
            show_default=False,
            metavar="N",
        ),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="Network to match in or recover from, such as convnet3 or FILE.py:NAME (see `dsdistill "
            "networks`); a committee's several, with commas between them.",
            show_default="recipe",
            autocompletion=completion.networks,
        ),
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(help="Steps of the optimisation.", show_default="recipe")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            help="Time budget of the loop in seconds, in place of a number of iterations.", show_default=False
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="What the images start from: real, noise, patches, … or the file of a set, to refine it.",
            show_default="recipe",
            metavar="NAME|FILE",
        ),
    ] = None,
    seed: Seed = None,
    device: Device = None,
    root: Root = None,
    size: Size = None,
    channels: Channels = None,
    zca: Zca = None,
    experts: Annotated[
        str | None,
        typer.Option(
            help="A file of trained networks (`dsdistill experts`), for methods that match with them, follow "
            "them or recover images from them; a committee's, with commas between them; or published "
            "weights, torchvision:NAME@WEIGHTS; auto: trained first, and kept for later runs.",
            show_default="auto",
            metavar="FILE",
        ),
    ] = None,
    budget: TotalBudget = None,
    pool: Annotated[str | None, typer.Option(hidden=True)] = None,  # the earlier name of --experts
    download: Download = False,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML with any options; a run's config.toml replays it.", show_default=False),
    ] = None,
    overrides: Overrides = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of the log and the checkpoints.", show_default="OUTPUT with suffix .run"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", metavar="", help="Continue the run of this output.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", metavar="", help="Replace an earlier file and run.")
    ] = False,
    dry_run: DryRun = False,
    log: Log = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> Any:
    """Distil a data set into one HDF5 file.

    The method's recipe has the settings of the paper or of its code for the data set and IPC, and says where
    it departs from them (`dsdistill methods NAME`). Options of the command override the recipe.

    `dsdistill distill --dataset folder:~/pets --ipc 5 --size 64 --seconds 600 -o pets.h5`

    `dsdistill distill --dataset cifar10 --download --method dm --ipc 10 -o cifar10.h5`

    How long it takes is said within the first iterations, and by --dry-run. After Ctrl-C or a kill, the same
    `-o` and `--resume` continue the run (on a CPU bit for bit).
    """
    with importing():
        from dsdistill.cli import console, progress
        from dsdistill.pipeline.distill import distill as call
        from dsdistill.runtime import estimate
        from dsdistill.runtime.device import quiet_allocator

    quiet_allocator()
    options: dict[str, Any] = {
        "dataset": dataset,
        "method": method,
        "ipc": ipc,
        "network": network,
        "iterations": iterations,
        "seconds": seconds,
        "init": init,
        "seed": seed,
        "device": device,
        "experts": pool if experts is None else experts,
        "budget": budget,
        "root": root,
        "size": size,
        "channels": channels,
        "zca": zca,
        "download": download,
        "overrides": overrides or [],
        "config": config,
        "run_dir": run_dir,
        "resume": resume,
        "overwrite": overwrite,
        "callbacks": progress.callbacks_of(quiet, verbose, log, output.stem),
    }
    if dry_run:
        return console.print_estimate(estimate.dry_run(call, output, **options))
    return console.print_summary(call(output, **options))


def experts(
    output: Output,
    dataset: Dataset = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="mtt, ftd, datm, ast (trajectories), ncfm, teacher, early-teacher, el2n, or a TOML file.",
            show_default=False,
            autocompletion=completion.expert_recipes,
        ),
    ] = None,
    budget: Budget = None,
    count: Annotated[
        int | None, typer.Option(help="Number of networks in the finished file.", show_default="recipe")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Training epochs of each network.", show_default="recipe")
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="Such as convnet3 or FILE.py:NAME (see `dsdistill networks`); several, with commas between "
            "them, get a file each.",
            show_default="recipe",
            autocompletion=completion.networks,
        ),
    ] = None,
    seed: Seed = None,
    device: Device = None,
    root: Root = None,
    size: Size = None,
    channels: Channels = None,
    zca: Zca = None,
    download: Download = False,
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", metavar="", help="Continue with unfinished experts.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", metavar="", help="Replace an earlier file and unfinished experts.")
    ] = False,
    dry_run: DryRun = False,
    log: Log = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> Any:
    """Train networks on real data and store them: teachers, and those that methods match with (NCFM, MTT).

    The distillation must use the same data set, preprocessing and network.

    `dsdistill experts --dataset cifar10 --recipe ncfm -o ncfm-experts.h5`

    `dsdistill experts --dataset fashion-mnist --recipe mtt --count 5 --epochs 20 -o mtt-experts.h5`

    `dsdistill experts --dataset cifar10 --recipe teacher --network resnet18-batch,mobilenetv2 -o teacher.h5`

    The last one writes teacher-resnet18-batch.h5 and teacher-mobilenetv2.h5.

    The same command with a larger --count adds experts to a file. After Ctrl-C or a kill, --resume continues
    from the last finished epoch (on a CPU bit for bit). Unfinished experts are in OUTPUT.parts.
    """
    with importing():
        from dsdistill.cli import console, progress
        from dsdistill.experts import run
        from dsdistill.runtime import estimate
        from dsdistill.runtime.device import quiet_allocator

    quiet_allocator()
    options: dict[str, Any] = {
        "dataset": dataset,
        "recipe": recipe,
        "budget": budget or "paper",
        "count": count,
        "epochs": epochs,
        "seed": seed,
        "device": device,
        "root": root,
        "size": size,
        "channels": channels,
        "zca": zca,
        "download": download,
        "overrides": overrides or [],
        "resume": resume,
        "overwrite": overwrite,
    }
    estimates = []
    for file, member in run.committee(output, network):
        options |= {"network": member, "callbacks": progress.callbacks_of(quiet, verbose, log, file.stem)}
        if dry_run:
            estimates.append(console.print_estimate(estimate.dry_run(run.train_experts, file, **options)))
        else:
            console.print_training(run.train_experts(file, **options))
    return estimates
