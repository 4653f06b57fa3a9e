"""The ``dsdistill`` command: thin, every subcommand is one call of the API; the modules here hold them."""

from __future__ import annotations

import errno
import io
import shlex
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated, Any

import typer

from dsdistill.cli import distilling, evaluating, exporting, inspecting, suites
from dsdistill.errors import UserError, meanings, unknown
from dsdistill.runtime.signals import Interrupted

_EPILOG = (
    "Options missing here are set with --set key=value; any run leaves a config.toml with all of them. Those "
    "most asked for: init, optimiser.lr, optimiser.momentum, augmentation.operators, engine.batch_real, "
    "formation.factor, synthetic.flip, storage, protocol, compute.precision, compute.compile."
)

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


def _version(asked: bool) -> None:
    if asked:
        print(f"dsdistill {metadata.version('dsdistill')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", metavar="", help="Say which version this is.", callback=_version, is_eager=True
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", metavar="", help="Show tracebacks of errors.")] = False,
) -> None:
    """Take options that every subcommand shares; `main` reads them itself."""


app.command(epilog=_EPILOG)(distilling.distill)
app.command(
    epilog="Options missing here are set with --set key=value: keep (ends, all, or epochs: [0,20,40]), lr, "
    "momentum, weight_decay, batch_size, drop_last, drop_at, drop_factor, drop_restarts, sharpness.rho, "
    "sharpness.alpha, gradient_penalty, ramp_from, ramp_epochs, cutmix, augmentation.operators, "
    "augmentation.rule, augmentation.align_corners, compute.precision, compute.compile, compute.threads."
)(distilling.experts)
for _command in (
    evaluating.evaluate,
    inspecting.info,
    inspecting.show,
    exporting.export,
    inspecting.methods,
    inspecting.datasets,
    inspecting.networks,
    inspecting.protocols,
    suites.bench,
    suites.report,
):
    app.command()(_command)


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
        kept = words[:1] == ["evaluate"] and "--no-save" not in words
        return _refused("stopped" + "; finished rows are kept, --resume goes on" * kept, code=130)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, UserError):
            return _refused(str(error))
        if hasattr(error, "format_message"):  # a usage error of click's, or of the copy newer typers bring
            return _refused(_set_instead(error, words) or error.format_message())
        if _out_of_memory(error):
            hint = _LESS.get(words[0] if words else "", "free some, or choose another machine")
            return _refused(f"out of memory ({str(error) or type(error).__name__}); {hint}")
        return _refused(f"{type(error).__name__}: {error} (a defect; --debug shows where)", code=1)
    return 0


_LESS = {
    "distill": "less is needed with --set compute.class_chunk=1 --set compute.chunk=8, or a smaller --size, "
    "--ipc or network",
    "experts": "less is needed with --set batch_size=64, or a smaller --size or network",
    "evaluate": "less is needed with smaller --networks, or without baselines that take many images",
}
_EXHAUSTED = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def _out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, on a GPU or here; torch is not imported to ask."""
    kinds = {each.__name__ for each in type(error).__mro__}
    by_number = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return (
        bool(kinds & {"OutOfMemoryError", "MemoryError"})
        or by_number
        or any(said in str(error) for said in _EXHAUSTED)
    )


def _set_instead(error: Any, words: Sequence[str]) -> str:
    """Say how an option without a flag is given, if that is what is wrong."""
    option = getattr(error, "option_name", "")
    if type(error).__name__ != "NoSuchOption" or words[0] not in ("distill", "experts"):
        return ""
    from dsdistill.config.options import known_keys
    from dsdistill.distillation import config as configs
    from dsdistill.experts import config as expert_config

    kind = configs.RunConfig if words[0] == "distill" else expert_config.ExpertConfig
    keys = meanings(option.lstrip("-").replace("-", "_"), known_keys(kind))
    return (
        f"no such option: {option}; say --set {' or '.join(f'{key}=VALUE' for key in keys[:3])}"
        if keys
        else ""
    )


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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # no result is lost to a terminal that has no ±
            stream.reconfigure(errors="replace")
    sys.exit(main())
