"""The ``dsdistill`` command: thin, every subcommand is one call of the API."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from dsdistill import bench_cli, runtime
from dsdistill.errors import UserError, unknown
from dsdistill.runs import Interrupted

_EPILOG = "Options missing here are set with --set key=value: see the config.toml any run leaves behind."

app = typer.Typer(
    name="dsdistill",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Distil image datasets: turn thousands of training images into a handful of synthetic ones, "
    "in one HDF5 file that anyone can train on.\n\n"
    "`dsdistill distill --dataset digits --ipc 10 -o digits.h5`\n\n`dsdistill evaluate digits.h5`",
)

File = Annotated[Path, typer.Argument(help="A distilled set (.h5).", show_default=False)]
Output = Annotated[Path, typer.Option("--output", "-o", help="The HDF5 file to write.", show_default=False)]
Dataset = Annotated[
    str | None,
    typer.Option(help="A name (see `dsdistill datasets`), folder:PATH or npz:PATH.", show_default=False),
]
Size = Annotated[int | None, typer.Option(help="Side of the images in pixels.", show_default="native")]
Channels = Annotated[int | None, typer.Option(help="1 (grey) or 3 (RGB).", show_default="native")]
Zca = Annotated[bool | None, typer.Option("--zca", help="Whiten instead of standardising.")]
Seed = Annotated[int | None, typer.Option(help="Of every random draw.", show_default="0")]
Root = Annotated[Path | None, typer.Option(help="Where data sets lie.", show_default="$DSDISTILL_DATA")]
Download = Annotated[bool, typer.Option("--download", help="Fetch the data set if it is not there.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.", show_default="auto")]


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Take options that every subcommand shares; `main` reads them itself."""


def _data(download: bool, **said: object) -> dict[str, object]:
    """Return the options of the data that were given."""
    return {key: value for key, value in {**said, "download": download or None}.items() if value is not None}


@app.command(epilog=_EPILOG)
def distill(
    output: Output,
    dataset: Dataset = None,
    method: Annotated[str | None, typer.Option(help="See `dsdistill methods`.", show_default="dm")] = None,
    ipc: Annotated[int | None, typer.Option(help="Synthetic images per class.", show_default=False)] = None,
    network: Annotated[
        str | None, typer.Option(help="Network to match in, such as convnet3.", show_default="recipe")
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
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any option, such as optimiser.lr=0.5; repeatable."),
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(help="Where log and checkpoints go.", show_default="OUTPUT with suffix .run"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run of this output.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier file and run.")] = False,
) -> None:
    """Distil a data set into one HDF5 file.

    The method's recipe knows the published settings for the data set and IPC; options given here win over it.

    `dsdistill distill --dataset cifar10 --download --method dm --ipc 10 -o cifar10.h5`

    `dsdistill distill --dataset folder:~/pets --ipc 5 --size 64 -o pets.h5 --set optimiser.lr=0.5`

    Stopped by Ctrl-C or killed, a run goes on with the same `-o` and `--resume` (on a CPU bit for bit).
    """
    from dsdistill import api, screen

    runtime.quiet_allocator()
    data = _data(root=str(root) if root else None, size=size, channels=channels, zca=zca, download=download)
    with screen.Distillation() as show:
        summary = api.distill(
            output,
            dataset=dataset,
            method=method,
            ipc=ipc,
            network=network,
            iterations=iterations,
            seconds=seconds,
            seed=seed,
            device=device,
            options=({"data": data} if data else {})
            | ({"engine": {"supply": {"path": str(pool)}}} if pool else {}),
            overrides=overrides or [],
            config=config,
            run_dir=run_dir,
            resume=resume,
            overwrite=overwrite,
            notify=show.notify,
            started=show.started,
            progress=show.progress,
        )
    screen.print_summary(summary)


@app.command(
    epilog="Options missing here are set with --set key=value: keep (ends, all, or epochs: [0,20,40]), lr, "
    "momentum, weight_decay, batch_size, drop_last, drop_at, drop_factor, drop_restarts, sharpness.rho, "
    "sharpness.alpha, gradient_penalty, ramp_from, ramp_epochs, cutmix, augmentation.operators, "
    "augmentation.rule, augmentation.align_corners, compute.precision, compute.compile, compute.threads.",
)
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
    network: Annotated[str | None, typer.Option(help="Such as convnet3.", show_default="recipe")] = None,
    seed: Seed = None,
    device: Device = None,
    root: Root = None,
    size: Size = None,
    channels: Channels = None,
    zca: Zca = None,
    download: Download = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any option, such as lr=0.02; repeatable."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with unfinished experts.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier file and unfinished experts.")
    ] = False,
) -> None:
    """Train networks on real data and store them, for methods that match with them (NCFM, MTT).

    Their data set, preprocessing and network have to be those of the distillation.

    `dsdistill experts --dataset cifar10 --recipe ncfm -o pool.h5`

    `dsdistill experts --dataset fashion-mnist --recipe mtt --count 5 --epochs 20 -o trajectories.h5`

    The same command with a larger --count adds to a file. Stopped by Ctrl-C or killed, it goes on with
    --resume from the last finished epoch (on a CPU bit for bit); until then, experts lie in OUTPUT.parts.
    """
    from dsdistill import api, screen

    runtime.quiet_allocator()
    data = _data(root=str(root) if root else None, size=size, channels=channels, zca=zca, download=download)
    with screen.Experts() as show:
        made = api.train_experts(
            output,
            dataset=dataset,
            recipe=recipe,
            count=count,
            epochs=epochs,
            network=network,
            seed=seed,
            device=device,
            options={"data": data} if data else {},
            overrides=overrides or [],
            resume=resume,
            overwrite=overwrite,
            notify=show.notify,
            started=show.started,
            estimated=show.estimated,
            progress=show.progress,
        )
    screen.print_experts(made)


@app.command()
def evaluate(
    file: File,
    dataset: Annotated[
        str | None, typer.Option(help="Judge on this data set.", show_default="the one the file names")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="A name, such as dsa, or a TOML file.", show_default="the method's own")
    ] = None,
    networks: Annotated[
        str, typer.Option(help="Students, comma-separated.", show_default="the one it was distilled with")
    ] = "",
    repeats: Annotated[int | None, typer.Option(help="Fresh students each.", show_default="protocol")] = None,
    epochs: Annotated[int | None, typer.Option(help="Training epochs.", show_default="protocol")] = None,
    seed: Annotated[int, typer.Option(help="Of every random draw.")] = 0,
    baselines: Annotated[
        str,
        typer.Option(
            help="Real images to set beside it, comma-separated: random, herding, k-center, k-means, el2n, "
            "el2n-easy (append @bytes for as many as fit into the file's bytes), whole; '' for nothing."
        ),
    ] = "random",
    device: Device = None,
    scores: Annotated[
        bool,
        typer.Option(
            "--scores",
            help="Also train the students that DD-Ranking's scores compare: under hard labels where the set "
            "has soft ones, and without augmentation. LRS needs the baselines random and whole, ARS random.",
        ),
    ] = False,
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    root: Root = None,
    download: Download = False,
    json: Annotated[Path | None, typer.Option(help="Write the results here too.", show_default=False)] = None,
    save: Annotated[bool, typer.Option(help="Add the results to the file.")] = True,
) -> None:
    """Train fresh students on a distilled set, test them, and set random real images beside it.

    Accuracy is that of the last epoch on the test set, mean ± standard deviation over fresh students.

    `dsdistill evaluate digits.h5 --networks convnet,mlp --repeats 5 --json digits.json`
    """
    from dsdistill import screen
    from dsdistill.evaluation.run import evaluate as judge_file

    runtime.quiet_allocator()
    with screen.Evaluation() as show:
        report = judge_file(
            file,
            dataset=dataset,
            root=root,
            protocol=protocol,
            networks=networks,
            repeats=repeats,
            epochs=epochs,
            seed=seed,
            device=device or "auto",
            precision=precision,
            baselines=baselines,
            scores=scores,
            json=json,
            save=save,
            download=download,
            notify=show.notify,
            progress=show.progress,
        )
    screen.out.print(report.table())


@app.command()
def info(
    file: Annotated[Path, typer.Argument(help="A distilled set, or experts (.h5).", show_default=False)],
) -> None:
    """Verify a file and say what is in it: content, origin and cost; of a distilled set, results too.

    Of experts, which may be many gigabytes, the structure is verified, and weights when they are read.
    """
    from dsdistill import buffer, screen, storage

    if buffer.holds_experts(file):
        screen.print_buffer(buffer.Buffer.open(file))
    else:
        screen.print_description(file, storage.describe(file))


@app.command()
def show(
    file: File,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The PNG to write.", show_default="FILE with suffix .png"),
    ] = None,
) -> None:
    """Draw the images of a distilled set into one PNG, a row per class."""
    from dsdistill import picture, screen, storage

    found = storage.read(file)
    about = found.attributes
    title = f"{about.get('dataset', file.stem)}, {about.get('method', '')}, {len(found.images)} images"
    target = output or file.with_suffix(".png")
    picture.grid(found.images, found.labels, found.classes, target, title=title)
    screen.out.print(f"wrote {target}", highlight=False, markup=False)


@app.command()
def export(
    file: File,
    target: Annotated[
        Path | None,
        typer.Argument(metavar="OUTPUT", help="What to write, if not given by -o.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder, a .pt or a .h5 file.", show_default=False)
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(help="png, pt, h5 or ddranking.", show_default="by the suffix; png for a folder"),
    ] = None,
    space: Annotated[
        str, typer.Option(help="Of a .pt: network (preprocessed) or unit (0 to 1).")
    ] = "network",
    dtype: Annotated[str, typer.Option(help="Of the pixels in a .h5: float32, float16 or uint8.")] = "uint8",
    protocol: Annotated[
        str | None,
        typer.Option(help="For ddranking: how students are trained.", show_default="the method's own"),
    ] = None,
) -> None:
    """Write a distilled set in a format that other programs read, or in fewer bytes.

    A folder of PNGs, a .pt that torch.load(weights_only=True) reads, another .h5 with smaller pixels, or a
    folder of what DD-Ranking's evaluators read: images.pt, labels.pt, lr.pt and ddranking.yaml.

    `dsdistill export digits.h5 digits-png/`

    `dsdistill export digits.h5 digits.pt`

    `dsdistill export digits.h5 small.h5 --dtype uint8`

    `dsdistill export cifar10.h5 --to ddranking -o cifar10-ddranking/`
    """
    from dsdistill import ddranking, screen
    from dsdistill import export as exports

    where = output or target
    if where is None or (output and target):
        raise UserError("name one output: a folder, a .pt or a .h5 file")
    kinds = ("png", "pt", "h5", "ddranking")
    kind = to or (suffix if (suffix := where.suffix[1:]) in ("pt", "h5") else "png")
    if kind not in kinds:
        raise unknown("export format", kind, kinds)
    if space not in ("network", "unit"):
        raise unknown("space", space, ("network", "unit"))
    if kind == "pt":
        exports.export_pt(file, where, space)  # type: ignore[arg-type]
    elif kind == "h5":
        screen.notify(exports.export_h5(file, where, dtype))  # type: ignore[arg-type]
    elif kind == "png":
        screen.notify(exports.export_png(file, where))
    else:
        for sentence in ddranking.export_ddranking(file, where, protocol):
            screen.notify(sentence)
    screen.out.print(f"wrote {where}", highlight=False, markup=False)


@app.command()
def methods() -> None:
    """List the methods, what they are and where their settings come from."""
    from dsdistill import config, screen

    recipes = [config.load_recipe(name) for name in config.RECIPES.names()]
    screen.print_pairs(
        (each.name, f"{each.title}. {each.paper} (settings: the {each.follows}'s; protocol {each.protocol})")
        for each in recipes
    )


@app.command()
def datasets() -> None:
    """List the data sets that --dataset takes."""
    from dsdistill import screen
    from dsdistill.data import catalog

    screen.print_pairs(catalog.names().items())


bench_cli.register(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 2 for bad input, 128 + signal when stopped."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        _check_command(words)
        app(args=words or ["--help"], prog_name="dsdistill", standalone_mode=False)
    except Interrupted as stop:
        return _stopped(stop, words)
    except (typer.Abort, KeyboardInterrupt):
        return _refused("stopped", code=130)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, UserError):
            return _refused(str(error))
        if hasattr(error, "format_message"):  # a usage error of click's, or of the copy newer typers bring
            return _refused(error.format_message())
        return _refused(f"{type(error).__name__}: {error} (a defect; --debug shows where)", code=1)
    return 0


def _check_command(words: Sequence[str]) -> None:
    known = [
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    ]
    if words and not words[0].startswith("-") and words[0] not in known:
        raise unknown("command", words[0], known)


def _refused(message: str, code: int = 2) -> int:
    print(f"dsdistill: {' '.join(message.split())}", file=sys.stderr)
    return code


def _stopped(stop: Interrupted, words: list[str]) -> int:
    goes_on = "--resume" in words or words[:1] == ["bench"]  # which always does
    again = words if goes_on else [*words, "--resume"]
    command = shlex.join(["dsdistill", *again])
    print(f"\ndsdistill: {stop}; state saved. Continue with:\n  {command}", file=sys.stderr)
    return 128 + stop.signal


def program() -> None:
    """Entry point of the console script."""
    sys.exit(main())
