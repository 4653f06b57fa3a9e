"""The commands ``distill`` and ``experts``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsdistill.cli.arguments import (
    Channels,
    Dataset,
    Device,
    Download,
    Output,
    Overrides,
    Root,
    Seed,
    Size,
    Zca,
)
from dsdistill.runtime.device import quiet_allocator


def distill(
    output: Output,
    dataset: Dataset = None,
    method: Annotated[str | None, typer.Option(help="See `dsdistill methods`.", show_default="dm")] = None,
    ipc: Annotated[int | None, typer.Option(help="Synthetic images per class.", show_default=False)] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="Network to match in, such as convnet3 (see `dsdistill networks`).", show_default="recipe"
        ),
    ] = None,
    iterations: Annotated[int | None, typer.Option(help="Steps to take.", show_default="recipe")] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            help="Stop after so many seconds in the loop, whatever the iterations.", show_default=False
        ),
    ] = None,
    seed: Seed = None,
    device: Device = None,
    root: Root = None,
    size: Size = None,
    channels: Channels = None,
    zca: Zca = None,
    pool: Annotated[
        Path | None,
        typer.Option(
            "--pool",
            "--experts",
            help="Trained networks (`dsdistill experts`), for methods that match with them or follow them.",
        ),
    ] = None,
    download: Download = False,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML with any options; a run's config.toml replays it.", show_default=False),
    ] = None,
    overrides: Overrides = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(help="Where log and checkpoints go.", show_default="OUTPUT with suffix .run"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", metavar="", help="Continue the run of this output.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", metavar="", help="Replace an earlier file and run.")
    ] = False,
) -> None:
    """Distil a data set into one HDF5 file.

    The method's recipe has the settings of the paper or its code for the data set and IPC, and says where it
    departs (`dsdistill methods NAME`); options given here win over it.

    `dsdistill distill --dataset cifar10 --download --method dm --ipc 10 -o cifar10.h5`

    `dsdistill distill --dataset folder:~/pets --ipc 5 --size 64 -o pets.h5 --set optimiser.lr=0.5`

    Stopped by Ctrl-C or killed, a run goes on with the same `-o` and `--resume` (on a CPU bit for bit).
    """
    from dsdistill.cli import console
    from dsdistill.distillation import run

    quiet_allocator()
    with console.DistillationProgress() as show:
        summary = run.distill(
            output,
            dataset=dataset,
            method=method,
            ipc=ipc,
            network=network,
            iterations=iterations,
            seconds=seconds,
            seed=seed,
            device=device,
            experts=pool,
            root=root,
            size=size,
            channels=channels,
            zca=zca,
            download=download,
            overrides=overrides or [],
            config=config,
            run_dir=run_dir,
            resume=resume,
            overwrite=overwrite,
            notify=show.notify,
            started=show.started,
            progress=show.progress,
            decoding=show.decoding,
        )
    console.print_summary(summary)


def experts(
    output: Output,
    dataset: Dataset = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="mtt, ftd, datm, ast (trajectories), ncfm (a pool), or a TOML file.", show_default=False
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option(help="Networks in the finished file.", show_default="recipe")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Of training each.", show_default="recipe")] = None,
    network: Annotated[
        str | None, typer.Option(help="Such as convnet3 (see `dsdistill networks`).", show_default="recipe")
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
        bool, typer.Option("--resume", metavar="", help="Go on with unfinished experts.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", metavar="", help="Replace an earlier file and unfinished experts.")
    ] = False,
) -> None:
    """Train networks on real data and store them, for methods that match with them (NCFM, MTT).

    Their data set, preprocessing and network have to be those of the distillation.

    `dsdistill experts --dataset cifar10 --recipe ncfm -o pool.h5`

    `dsdistill experts --dataset fashion-mnist --recipe mtt --count 5 --epochs 20 -o trajectories.h5`

    The same command with a larger --count adds to a file. Stopped by Ctrl-C or killed, it goes on with
    --resume from the last finished epoch (on a CPU bit for bit); until then, experts lie in OUTPUT.parts.
    """
    from dsdistill.cli import console
    from dsdistill.experts import run

    quiet_allocator()
    with console.ExpertsProgress() as show:
        made = run.train_experts(
            output,
            dataset=dataset,
            recipe=recipe,
            count=count,
            epochs=epochs,
            network=network,
            seed=seed,
            device=device,
            root=root,
            size=size,
            channels=channels,
            zca=zca,
            download=download,
            overrides=overrides or [],
            resume=resume,
            overwrite=overwrite,
            notify=show.notify,
            started=show.started,
            estimated=show.estimated,
            progress=show.progress,
            decoding=show.decoding,
        )
    console.print_experts(made)
