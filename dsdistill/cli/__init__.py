"""The ``dsdistill`` command. Every subcommand is one call of the Python API; one file per group of them."""

from __future__ import annotations

import errno
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from dsdistill import files
from dsdistill.cli import (
    completion,
    distilling,
    encoding,
    evaluating,
    exporting,
    importing,
    index,
    inspecting,
    labelling,
    planning,
    suites,
)
from dsdistill.errors import UserError, equivalents, is_out_of_memory, unknown
from dsdistill.runtime import launch
from dsdistill.runtime.signals import Interrupted, Stopped
from dsdistill.runtime.streams import OutputLost
from dsdistill.text import plain, shortened

_EPILOG = (
    "Other options are set with --set key=value; the config.toml of a run lists all of them. The most "
    "common: init, optimiser.lr, optimiser.momentum, augmentation.operators, engine.batch_real, "
    "multi_formation.factor, synthetic.flip, storage, protocol, compute.precision, compute.compile."
)

app = typer.Typer(
    name="dsdistill",
    add_completion=completion.is_asked_for(),
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Distil image datasets: turn thousands of training images into a handful of synthetic ones, "
    "in one HDF5 file that anyone can train on.\n\n"
    "`dsdistill distill --dataset digits --ipc 10 -o digits.h5`\n\n`dsdistill evaluate digits.h5`",
)


def _version(requested: bool) -> None:
    if requested:
        from importlib import metadata

        print(f"dsdistill {metadata.version('dsdistill')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", metavar="", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", metavar="", help="Show tracebacks of errors.")] = False,
) -> None:
    """Declare the options of the command itself; `main` handles --debug."""


app.command(epilog=_EPILOG)(distilling.distill)
app.command(
    epilog="Other options are set with --set key=value: keep (ends, last, all, doubling, or epochs: "
    "[0,20,40]), test (none, stored, or validation, which holds out a tenth of the training images to "
    "choose by), optimiser, lr, momentum, weight_decay, batch_size, drop_last, epoch_batches, schedule, "
    "warmup_epochs, warmup_from, drop_at, drop_factor, drop_restarts, label_smoothing, sharpness.rho, "
    "sharpness.alpha, gradient_penalty, ramp_from, ramp_epochs, crop_scale, cutmix, record_el2n, "
    "augmentation.operators, augmentation.rule, augmentation.align_corners, compute.precision, "
    "compute.compile, compute.threads.",
)(distilling.experts)
app.command(name="import")(importing.import_)
for _command in (
    encoding.encode,
    labelling.label,
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
app.add_typer(planning.app, name="plan")
app.command("completion")(completion.print_script)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: the words after ``dsdistill``; default: those of the process.

    Returns:
        the exit code: 0, 1 for a defect, 2 for bad input or an output that cannot be written, 128 + signal if
        a signal stopped it.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        _check_command(words)
        _check_launch(words)
        code = app(args=_or_help(words), prog_name="dsdistill", standalone_mode=False)
    except Interrupted as stop:
        return _interrupted(stop, words)
    except Stopped as stop:
        return _stopped(stop.cause, words)
    except (typer.Abort, KeyboardInterrupt):
        return _stopped(Interrupted(signal.SIGINT), words)
    except Exception as error:
        if debug:
            raise
        return _failed(error, words)
    if code == 128 + signal.SIGINT:  # how newer typers tell of a KeyboardInterrupt
        return _stopped(Interrupted(signal.SIGINT), words)
    return code if isinstance(code, int) else 0


def _or_help(words: list[str]) -> list[str]:
    """Return the words; where they name no command, those that ask for help."""
    return [*words, "--help"] if words in ([], ["plan"]) else words


def _check_command(words: Sequence[str]) -> None:
    """Check the name of the subcommand.

    Raises:
        UserError: there is no such command; the message suggests the nearest one.
    """
    planned = [command.__name__ for command in planning.COMMANDS]
    known = [
        *(
            command.name or command.callback.__name__
            for command in app.registered_commands
            if command.callback
        ),
        "plan",
    ]
    for word, names in zip(words, (known, planned if words[:1] == ["plan"] else ()), strict=False):
        if names and not word.startswith("-") and word not in names:
            raise unknown("command", word, names)


def _command_of(words: Sequence[str]) -> str:
    """Return the command that is run or planned; empty if none is named."""
    return next(iter(words[words[:1] == ["plan"] :]), "")


_SHARED = ("distill", "experts", "evaluate", "label")
"""Commands whose work several processes can share."""


def _check_launch(words: Sequence[str]) -> None:
    """Check that a command that torchrun started in several processes is one that they can share.

    Raises:
        UserError: each would do all of its work.
    """
    if launch.is_several() and words and not words[0].startswith("-") and words[0] not in _SHARED:
        hint = "; bench --shard shares a suite" if words[0] == "bench" else ""
        raise UserError(f"{words[0]} runs in one process: leave torchrun out{hint}")


def _speaks() -> bool:
    """Whether this process is the one that tells how the command ended."""
    if not launch.is_several():
        return True
    from dsdistill.runtime import ranks

    try:
        return ranks.current().speaks()
    except UserError:  # the processes cannot reach one another
        return launch.is_first()


def _interrupted(stop: Interrupted, words: list[str]) -> int:
    """Print the command that continues a stopped run."""
    if not _speaks():
        return stop.code
    resumes = "--resume" in words or words[:1] == ["bench"]  # bench always resumes
    command = shlex.join(["dsdistill", *words, *([] if resumes else ["--resume"])])
    print(f"\ndsdistill: {stop}; state saved. Continue with:\n  {command}", file=sys.stderr)
    return stop.code


_KEPT = {
    "distill": "--resume goes on from the last checkpoint",
    "experts": "--resume goes on from the last finished epoch",
    "evaluate": "finished rows are kept, --resume goes on",
    "bench": "the same command goes on",
}
"""What a command that is stopped at once leaves."""


def _stopped(stop: Interrupted, words: Sequence[str]) -> int:
    """Print that a command was stopped at once, and what it leaves."""
    if isinstance(stop, OutputLost) and stop.is_closed_pipe:
        return stop.code  # nobody wants to read more
    remark = _KEPT.get(words[0] if words else "", "") if {"--no-save", "--dry-run"}.isdisjoint(words) else ""
    return _fail("; ".join(filter(None, (str(stop), remark))), stop.code)


def _failed(error: Exception, words: Sequence[str]) -> int:
    """Print what went wrong, and how to mend it."""
    if isinstance(error, UserError):
        return _fail(str(error))
    if hasattr(error, "format_message"):  # a usage error of click, or of the copy of click in newer typers
        return _fail(_without_flag(error, words) or error.format_message())
    if is_out_of_memory(error):
        hint = _LESS_MEMORY.get(_command_of(words), "free some, or choose another machine")
        return _fail(f"out of memory ({str(error) or type(error).__name__}); {hint}")
    if isinstance(error, OSError) and error.errno in _SYSTEM_ERRORS:
        return _fail(": ".join(filter(None, (str(error.filename or ""), files.reason(error)))))
    return _fail(f"{type(error).__name__}: {error} (a defect; --debug shows where)", code=1)


def _fail(message: str, code: int = 2) -> int:
    """Print one line of at most `_LONGEST` characters, and return the exit code."""
    line = shortened(plain(" ".join(message.split()), None), _LONGEST, "all of it with --debug")
    if not _speaks():
        return code
    print(f"dsdistill: {line}", file=sys.stderr)
    return code


_LONGEST = 1000

_SYSTEM_ERRORS = {
    getattr(errno, name)
    for name in ("EACCES", "EDQUOT", "EFBIG", "EIO", "EMFILE", "ENFILE", "ENOSPC", "EPERM", "EROFS", "ESTALE")
    if hasattr(errno, name)
}
"""Numbers of errors for which the system is to blame: permissions, and disks that are full or broken."""


_LESS_MEMORY = {
    "distill": "less is needed with --set compute.class_chunk=1 --set compute.chunk=8, or a smaller --size, "
    "--ipc or network",
    "experts": "less is needed with --set batch_size=64, or a smaller --size or network",
    "label": "less is needed with smaller teachers, or in mode train with smaller batches",
    "evaluate": "less is needed with smaller --networks, or without baselines that take many images",
}


def _without_flag(error: Any, words: Sequence[str]) -> str:
    """Return how to set an option that has no flag, if that is the error; otherwise an empty text."""
    option = getattr(error, "option_name", "")
    if type(error).__name__ != "NoSuchOption":
        return ""
    keys = equivalents(option.lstrip("-").replace("-", "_"), index.option_keys(_command_of(words)))
    settings = " or ".join(f"{key}=VALUE" for key in keys[:3])
    return f"no such option: {option}; say --set {settings}" if keys else ""
