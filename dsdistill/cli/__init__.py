"""The ``dsdistill`` command: thin, every subcommand is one call of the API; the modules here hold them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from dsdistill.cli import exporting, judging, looking, making, suites
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


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Take options that every subcommand shares; `main` reads them itself."""


app.command(epilog=_EPILOG)(making.distill)
app.command(
    epilog="Options missing here are set with --set key=value: keep (ends, all, or epochs: [0,20,40]), lr, "
    "momentum, weight_decay, batch_size, drop_last, drop_at, drop_factor, drop_restarts, sharpness.rho, "
    "sharpness.alpha, gradient_penalty, ramp_from, ramp_epochs, cutmix, augmentation.operators, "
    "augmentation.rule, augmentation.align_corners, compute.precision, compute.compile, compute.threads."
)(making.experts)
for _command in (
    judging.evaluate,
    looking.info,
    looking.show,
    exporting.export,
    looking.methods,
    looking.datasets,
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
