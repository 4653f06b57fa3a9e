"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsdistill.cli import completion

File = Annotated[Path, typer.Argument(help="A distilled set (.h5).", show_default=False)]
Output = Annotated[Path, typer.Option("--output", "-o", help="The HDF5 file to write.", show_default=False)]
Dataset = Annotated[
    str | None,
    typer.Option(
        help="A name (see `dsdistill datasets`), folder:PATH, npz:PATH, hf:NAME or hf:PATH.",
        show_default=False,
        autocompletion=completion.datasets,
    ),
]
Size = Annotated[int | None, typer.Option(help="Side of the images in pixels.", show_default="native")]
Channels = Annotated[int | None, typer.Option(help="1 (grey) or 3 (RGB).", show_default="native")]
Zca = Annotated[
    bool | None,
    typer.Option(
        "--zca/--no-zca", metavar="", help="Whiten instead of standardising.", show_default="recipe"
    ),
]
Seed = Annotated[int | None, typer.Option(help="Seed of every random draw.", show_default="0")]
Root = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the data sets.", show_default="$DSDISTILL_DATA, else ~/.cache/dsdistill/data"
    ),
]
Download = Annotated[
    bool, typer.Option("--download", metavar="", help="Download the data set if it is missing.")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", show_default="auto")]
Budget = Annotated[
    str | None,
    typer.Option(
        help="Scale of experts that are trained: paper, or laptop for fewer of fewer epochs.",
        show_default="paper",
        metavar="paper|laptop",
        autocompletion=completion.choices("--budget"),
    ),
]
TotalBudget = Annotated[
    str | None,
    typer.Option(
        help="The time that all may take, such as 10min: experts, where the method needs some, get a quarter "
        "of it at most, and the loop takes what is left. Or the scale of experts: paper, or laptop for fewer "
        "of fewer epochs.",
        show_default="paper on a GPU, else laptop",
        metavar="TIME|paper|laptop",
        autocompletion=completion.choices("--budget"),
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any option, such as compute.precision=fp32; repeatable."
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", metavar="", help="Say how long it takes and what it needs; write nothing."),
]
Log = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WRITER",
        help="Also write for tensorboard[:FOLDER], wandb[:PROJECT], mlflow[:EXPERIMENT]; repeatable.",
        show_default=False,
        autocompletion=completion.choices("--log"),
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", metavar="", help="Show results and errors only.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", metavar="", help="Show details too, such as what auto decided.")
]
