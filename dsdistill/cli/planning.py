"""The commands ``plan distill``, ``experts``, ``label`` and ``evaluate``: dry runs of those commands."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from dsdistill.cli import distilling, evaluating, labelling

Json = Annotated[Path | None, typer.Option("--json", help="Write the plan here too.", show_default=False)]

app = typer.Typer(
    rich_markup_mode="markdown",
    help="Say how long a command takes and what memory, disk and labels it needs, before it begins.\n\n"
    "`dsdistill plan distill --dataset cifar10 --method dm --ipc 10 -o cifar10.h5`\n\n"
    "It takes the options of the command, takes a few warm steps, and writes nothing.",
)


def _planned(command: Callable[..., Any]) -> Callable[..., None]:
    """Return a command that plans another one: with its options, of which --json is for the plan."""
    hints = get_type_hints(command, include_extras=True)
    parameters = {
        name: each.replace(annotation=hints[name])
        for name, each in inspect.signature(command).parameters.items()
        if name not in ("dry_run", "json")
    }
    parameters["json"] = inspect.Parameter(
        "json", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Json
    )

    @functools.wraps(command)
    def plan(*, json: Path | None = None, **options: Any) -> None:
        estimates = command(**options, dry_run=True)
        if json is not None:
            _write(json, estimates if isinstance(estimates, list) else [estimates])

    plan.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    plan.__annotations__ = {name: each.annotation for name, each in parameters.items()}
    plan.__doc__ = (
        f"Say what `dsdistill {command.__name__}` takes with the same options: seconds, by a few warm steps, "
        "memory, disk and bytes of labels.\n\nNothing is written. What cannot be known before is named."
    )
    return plan


def _write(path: Path, estimates: list[Any]) -> None:
    """Write plans as JSON: one object, or a list for experts of several networks."""
    from json import dumps

    from dsdistill.files import replace

    plans = [each.to_dict() for each in estimates]
    replace(path, (dumps(plans[0] if len(plans) == 1 else plans, indent=1) + "\n").encode())


COMMANDS = (distilling.distill, distilling.experts, labelling.label, evaluating.evaluate)
for _command in COMMANDS:
    app.command(_command.__name__)(_planned(_command))
