"""Names that a shell completes after options and commands. They are read from files, without torch.

A name that none of ours begins with is left to the shell, which completes paths.
"""

from __future__ import annotations

from collections.abc import Iterable

from dsdistill.cli import index
from dsdistill.config.presets import EXPERT_RECIPES, PROTOCOLS, RECIPES, SUITES


def methods(incomplete: str) -> list[str]:
    """Complete the name of a method."""
    return _beginning(incomplete, RECIPES.names())


def expert_recipes(incomplete: str) -> list[str]:
    """Complete the name of a recipe of experts."""
    return _beginning(incomplete, EXPERT_RECIPES.names())


def protocols(incomplete: str) -> list[str]:
    """Complete the name of a protocol."""
    return _beginning(incomplete, PROTOCOLS.names())


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
    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in _beginning(last, index.networks())]


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
