"""The command ``completion``, and the names that a shell completes: read from files, without torch.

A word that none of our names begins with is left to the shell, which completes paths.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Annotated

import typer

from dsdistill.cli import index
from dsdistill.config.presets import EXPERT_RECIPES, PROTOCOLS, RECIPES, SUITES
from dsdistill.errors import unknown

VARIABLE = "_DSDISTILL_COMPLETE"
"""The variable by which a shell's script asks."""

SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")


def is_asked_for() -> bool:
    """Whether a shell asks this process; typer is not to prepare completion otherwise, which takes long."""
    return VARIABLE in os.environ


def _shells(incomplete: str) -> list[str]:
    return _beginning(incomplete, SHELLS)


def print_script(
    shell: Annotated[
        str,
        typer.Argument(
            help="bash, zsh, fish, powershell or pwsh.", show_default=False, autocompletion=_shells
        ),
    ],
) -> None:
    """Print the script by which a shell completes commands, options and names.

    `eval "$(dsdistill completion bash)"` in ~/.bashrc, or with zsh in ~/.zshrc after compinit.

    `dsdistill completion fish > ~/.config/fish/completions/dsdistill.fish`
    """
    from typer.completion import get_completion_script

    if shell not in SHELLS:
        raise unknown("shell", shell, SHELLS)
    print(get_completion_script(prog_name="dsdistill", complete_var=VARIABLE, shell=shell))


def methods(incomplete: str) -> list[str]:
    """Complete the name of a method."""
    return _beginning(incomplete, RECIPES.names())


def expert_recipes(incomplete: str) -> list[str]:
    """Complete the name of a recipe of experts."""
    return _beginning(incomplete, EXPERT_RECIPES.names())


def protocols(incomplete: str) -> list[str]:
    """Complete the name of a protocol."""
    return _beginning(incomplete, PROTOCOLS.names())


def labels(incomplete: str) -> list[str]:
    """Complete a source of labels."""
    from dsdistill.config.regimes import REGIMES

    return _beginning(incomplete, REGIMES)


def suites(incomplete: str) -> list[str]:
    """Complete the name of a suite."""
    return _beginning(incomplete, SUITES.names())


def datasets(incomplete: str) -> list[str]:
    """Complete the name of a data set; those of one's own begin with a kind and a colon, and are left out."""
    return _beginning(incomplete, (name for name in index.datasets() if ":" not in name))


def networks(incomplete: str) -> list[str]:
    """Complete the name of a network, or the last of several that commas separate.

    >>> networks("convnet3,resnet18-ap-")
    ['convnet3,resnet18-ap-batch']
    """
    return _last_beginning(incomplete, index.networks())


def baselines(incomplete: str) -> list[str]:
    """Complete the name of a baseline, or the last of several that commas separate."""
    return _last_beginning(incomplete, index.choices("--baselines"))


def choices(option: str) -> Callable[[str], list[str]]:
    """Return what completes the value of an option that takes one of a few.

    Args:
        option: its name in `index.choices`.
    """

    def complete(incomplete: str) -> list[str]:
        return _beginning(incomplete, index.choices(option))

    return complete


def _last_beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in _beginning(last, names)]


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
