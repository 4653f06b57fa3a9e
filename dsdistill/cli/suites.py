"""The commands ``bench`` and ``report``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsdistill import files
from dsdistill.cli import completion
from dsdistill.cli.arguments import Device, Download, Quiet, Root
from dsdistill.errors import UserError
from dsdistill.runtime.signals import importing

if TYPE_CHECKING:
    from dsdistill.bench.cells import Cell
    from dsdistill.bench.suite import Suite


def bench(
    name: Annotated[
        str,
        typer.Argument(
            metavar="SUITE",
            help="A suite's name, or a TOML file.",
            show_default=False,
            autocompletion=completion.suites,
        ),
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The folder of the results.", show_default="results/SUITE"),
    ] = None,
    workers: Annotated[str, typer.Option(help="Cells that run at once: auto or a number.")] = "auto",
    only: Annotated[str, typer.Option(help="Cells whose names contain this; commas, * and ?.")] = "",
    shared: Annotated[
        bool,
        typer.Option(
            "--shared", metavar="", help="Work beside other processes or machines on the same folder."
        ),
    ] = False,
    shard: Annotated[
        str,
        typer.Option(
            help="Run a part of the cells beside others, such as 2/4: every fourth, from the second on.",
            metavar="I/N",
        ),
    ] = "",
    slurm: Annotated[
        str | None,
        typer.Option(
            help="Queue jobs of SLURM that share the work, with options: partition=gpu,timeout_min=240.",
            metavar="NAME=VALUE,…",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(help="How many jobs --slurm queues.", min=1)] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", metavar="", help="List the cells and the state of each.")
    ] = False,
    device: Device = None,
    root: Root = None,
    download: Download = False,
    quiet: Quiet = False,
) -> None:
    """Run a suite: data sets × methods × IPC × seeds, each distilled, evaluated and collected.

    After a stop or a kill, the same command continues; finished cells are kept. Without an argument, list the
    suites that ship.

    `dsdistill bench digits -o results/digits`

    `dsdistill bench fashion-mnist --only "/dm-ipc1-*,/dsa-*" --dry-run`

    Several machines share the work where each runs `dsdistill bench SUITE -o FOLDER --shared` on one shared
    folder: a cell is claimed by one, and taken over five minutes after that one has died. On a cluster,
    `--slurm partition=gpu,timeout_min=240 --jobs 8` queues them.
    """
    with importing():
        from dsdistill.bench import tables
        from dsdistill.bench.planning import matching, plan
        from dsdistill.bench.sharing import part_of
        from dsdistill.bench.suite import load_suite
        from dsdistill.cli import console
        from dsdistill.config.presets import SUITES

    console.err.quiet = quiet
    if not name:
        suites = [load_suite(name) for name in SUITES.names()]
        console.print_pairs((suite.name, f"{suite.title}. {suite.about}") for suite in suites)
        return
    suite = load_suite(name)
    planned = plan(suite)
    selected = matching(planned, only)
    cells = part_of(selected, shard) if shard else selected
    folder = files.expanded(output or Path("results") / suite.name)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder for the results with -o")
    tables.check_replaceable(folder)
    if dry_run:
        console.print_pairs((cell.name, _state(cell, folder)) for cell in cells)
        return
    _warn_of_baselines(planned, cells, folder)
    if slurm is not None:
        if shard:
            raise UserError("jobs of --slurm divide the cells among themselves: leave out --shard")
        others = {"--only": only, "--workers": workers, "--root": root, "--device": device}
        _queue(name, folder, slurm, jobs, others, download)
        return
    shared_by = planned if shared or shard else None
    failed = _run(suite, cells, folder, workers, root, download, device, shared_by)
    _write(suite, folder)
    if failed:
        cell, reason = next(iter(failed.items()))
        raise UserError(
            f"{len(failed)} of {len(cells)} cells failed, the first of them {cell}: {reason}; "
            "the others are kept, and the same command tries again"
        )
    console.print_pairs([("next", f"dsdistill report {folder} -o report.html")])


def _queue(
    suite: str, folder: Path, options: str, jobs: int, others: Mapping[str, object], download: bool
) -> None:
    """Queue jobs that work on a suite together.

    Args:
        suite: its name, or its file.
        folder: of the results.
        options, jobs: as for `submit`.
        others: further options of the command, those of value None or "" left out.
        download: whether missing data are fetched.
    """
    from dsdistill.bench.cluster import submit
    from dsdistill.cli import console

    file = files.expanded(suite)
    words = ["bench", str(file.absolute() if file.suffix == ".toml" else suite), "--shared", "--quiet"]
    words += ["-o", str(folder.absolute())]
    words += [word for option, value in others.items() if value for word in (option, str(value))]
    numbers = submit(words + ["--download"] * download, folder.absolute(), options, jobs)
    console.print_pairs(
        [
            ("jobs", ", ".join(numbers)),
            ("logs", str(folder / "jobs")),
            ("state", f"dsdistill bench {suite} -o {folder} --dry-run"),
        ]
    )


def _state(cell: Cell, folder: Path) -> str:
    """Say how far a cell is, and what is to be labelled for it."""
    from dsdistill.bench import cell_files

    state = cell_files.state(cell, folder)
    labels = "" if state in ("finished", "labelled", "to be evaluated again") else cell.about_labels()
    return f"{state}; {labels}" if labels else state


def _warn_of_baselines(planned: Sequence[Cell], cells: Sequence[Cell], folder: Path) -> None:
    """Say which cells would evaluate shared baselines, if --only leaves them out."""
    from dsdistill.bench.cell_files import read_result
    from dsdistill.cli import console

    needed = {name for cell in cells for each in cell.evaluations for name in each.baselines_from}
    absent = [cell for cell in planned if cell.name in needed and cell not in cells]
    if missing := sorted(cell.name for cell in absent if not read_result(cell, folder)):
        names = ", ".join(missing)
        console.notify(f"some baselines are evaluated with {names}, which --only leaves out")


def _run(
    suite: Suite,
    cells: Sequence[Cell],
    folder: Path,
    workers: str,
    root: Path | None,
    download: bool,
    device: str | None,
    shared_by: Sequence[Cell] | None,
) -> dict[str, str]:
    """Run the cells that are not finished; return why cells failed, by their names."""
    import torch

    from dsdistill.bench import cell_files, runner
    from dsdistill.bench.expert_set import Environment
    from dsdistill.cli import progress
    from dsdistill.runtime.device import available_memory, resolve_device

    count, threads = runner.workers_for(
        workers,
        sum(cell_files.read_result(cell, folder) is None for cell in cells),
        cores=torch.get_num_threads(),
        memory=available_memory(torch.device("cpu")),
        timed=bool(suite.seconds),
        on_gpu=resolve_device(device or "auto").type == "cuda",
    )
    environment = Environment(files.expanded(root).absolute() if root else None, download, device, threads)
    with progress.SuiteProgress(suite.name, len(cells)) as bar:
        return runner.run(suite.name, cells, folder, environment, count, bar.happened, shared_by=shared_by)


def _write(suite: Suite, folder: Path) -> None:
    """Collect all results of a folder, print them, and write tables and plots."""
    from dsdistill.bench import tables
    from dsdistill.bench.collection import collect
    from dsdistill.bench.lines import lines
    from dsdistill.cli import console
    from dsdistill.report import plots

    results, problems = collect(folder)
    for problem in problems:
        if problem.startswith("left out"):
            console.notify(problem)
    paths = tables.write(folder, suite.name, results, problems) if results else []
    paths += plots.write(folder / "plots", results) if results else []
    if results:
        console.print_lines(lines(results))
    names = ", ".join(str(path.relative_to(folder)) for path in paths)
    console.print_pairs([("results", f"{names} in {folder}")])


def report(
    results: Annotated[Path, typer.Argument(help="A folder of results of bench.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file to write.")] = Path(
        "report.html"
    ),
) -> None:
    """Make one self-contained HTML page of results: tables, curves, images, and the commands behind them.

    `dsdistill report results/digits -o report.html`
    """
    with importing():
        from dsdistill.cli import console
        from dsdistill.report import page

    written = page.write(results, output, console.notify)
    console.say(f"wrote {written}")
