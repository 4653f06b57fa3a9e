"""The pages of the commands and of the networks: what the command line prints."""

from __future__ import annotations

import inspect
from typing import Any

import typer

import dsdistill
from dsdistill.cli import app, console, inspecting
from reference.text import one_line, table

_COMMANDS = """\
# Commands

Made from the code of version {version}; `dsdistill COMMAND --help` says the same.

"""
_NETWORKS = """\
# Networks by name

These names are taken by `--network`, `--networks`, and the keys `network` and `student`.

"""


def commands_page() -> str:
    """Return the help of every command."""
    group: Any = typer.main.get_command(app)
    parts = [_COMMANDS.format(version=dsdistill.__version__) + _parameters(group)]
    context = typer.Context(group, info_name="dsdistill")
    for name in group.list_commands(context):
        command: Any = group.get_command(context, name)
        if getattr(command, "hidden", False):
            continue
        about = inspect.cleandoc(command.help or "")
        epilog = f"\n{inspect.cleandoc(command.epilog)}\n" if command.epilog else ""
        inner = getattr(command, "commands", None)
        options = _members(name, inner) if inner else _parameters(command)
        parts.append(f"## {name}\n\n{about}\n\n{options}{epilog}")
    return "\n".join(parts)


def _members(name: str, commands: Any) -> str:
    """List the commands of a group, each of which has the options of another command."""
    lines = [
        f"- `dsdistill {name} {each}`: the options of [{each}](#{each}), and `--json`" for each in commands
    ]
    return "\n".join(lines) + "\n"


def _parameters(command: Any) -> str:
    """Write the arguments and options of a command as a table."""
    rows = [
        (_names(each), one_line(getattr(each, "help", None) or ""), _shown_default(each))
        for each in command.params
        if not getattr(each, "hidden", False)
    ]
    return table(("argument or option", "meaning", "default"), rows)


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`"
    return ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])


def _shown_default(parameter: Any) -> str:
    shown, default = getattr(parameter, "show_default", None), parameter.default
    if isinstance(shown, str):
        return shown
    if shown is False or default in (None, "", False, ...) or callable(default):
        return ""
    return f"`{default}`"


def networks_page() -> str:
    """Return how networks are named, as the command ``networks`` prints it."""
    with console.out.capture() as captured:
        inspecting.networks()
    return f"{_NETWORKS}```text\n{captured.get().rstrip()}\n```\n"
