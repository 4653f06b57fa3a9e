"""The commands ``bench`` and ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsdistill.cli.arguments import Device, Download, Root
from dsdistill.errors import UserError
from dsdistill.runtime.device import available_memory, resolve_device


def bench(
    suite: Annotated[str, typer.Argument(help="A suite's name, or a TOML file.", show_default=False)] = "",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The folder of results.", show_default="results/SUITE"),
    ] = None,
    workers: Annotated[str, typer.Option(help="Cells side by side: auto or a number.")] = "auto",
    only: Annotated[str, typer.Option(help="Cells whose names hold this; commas, * and ?.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", metavar="", help="List the cells and how far they are.")
    ] = False,
    device: Device = None,
    root: Root = None,
    download: Download = False,
) -> None:
    """Run a suite: data sets × methods × IPC × seeds, each distilled, evaluated and collected.

    Killed or stopped, the same command goes on where it was; finished cells are kept. Without a suite, those
    that ship are listed.

    `dsdistill bench digits -o results/digits`

    `dsdistill bench fashion-mnist --only "/dm-ipc1-*,/dsa-*" --dry-run`
    """
    from dsdistill.bench import cell_files, planning, runner, tables
    from dsdistill.bench.cells import Environment
    from dsdistill.bench.collection import collect
    from dsdistill.bench.lines import lines
    from dsdistill.bench.suite import SUITES, load_suite
    from dsdistill.cli import console
    from dsdistill.report import plots

    if not suite:
        known = [load_suite(name) for name in SUITES.names()]
        console.print_pairs((each.name, f"{each.title}. {each.about}") for each in known)
        return
    told = load_suite(suite)
    every = planning.plan(told)
    cells = planning.matching(every, only)
    folder = (output or Path("results") / told.name).expanduser()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder for the results with -o")
    tables.check_replaceable(folder)
    if dry_run:
        console.print_pairs((cell.name, cell_files.state(cell, folder)) for cell in cells)
        return
    needed = {name for cell in cells for each in cell.evaluations for name in each.baselines_from}
    absent = [cell for cell in every if cell.name in needed and cell not in cells]
    if missing := [cell.name for cell in absent if not cell_files.read_result(cell, folder)]:
        names = ", ".join(sorted(missing))
        console.notify(f"some baselines are evaluated with {names}, which --only leaves out")
    on = resolve_device(device or "auto")
    import torch

    count, threads = runner.workers_for(
        workers,
        sum(cell_files.read_result(cell, folder) is None for cell in cells),
        cores=torch.get_num_threads(),
        memory=available_memory(torch.device("cpu")),
        timed=bool(told.seconds),
        on_gpu=on.type == "cuda",
    )
    with console.SuiteProgress(told.name, len(cells)) as show:
        environment = Environment(root.expanduser().absolute() if root else None, download, device, threads)
        failed = runner.run(told.name, cells, folder, environment, count, show.happened)
    results, problems = collect(folder)
    for problem in problems:
        if problem.startswith("left out"):
            console.notify(problem)
    written = tables.write(folder, told.name, results, problems) if results else []
    written += plots.write(folder / "plots", results) if results else []
    if results:
        console.print_lines(lines(results))
    console.print_pairs(
        [("results", ", ".join(str(path.relative_to(folder)) for path in written) + f" in {folder}")]
    )
    if failed:
        name, why = next(iter(failed.items()))
        raise UserError(
            f"{len(failed)} of {len(cells)} cells failed, the first of them {name}: {why}; "
            "the others are kept, and the same command tries again"
        )
    console.print_pairs([("next", f"dsdistill report {folder} -o report.html")])


def report(
    results: Annotated[Path, typer.Argument(help="A folder that bench filled.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file to write.")] = Path(
        "report.html"
    ),
) -> None:
    """Make one HTML page of results, that needs no network: tables, curves, images, and how each was made.

    `dsdistill report results/digits -o report.html`
    """
    from dsdistill.cli import console
    from dsdistill.report import page

    written = page.write(results.expanduser(), output.expanduser(), console.notify)
    console.out.print(f"wrote {written}", highlight=False, markup=False)
