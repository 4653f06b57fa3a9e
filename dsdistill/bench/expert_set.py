"""Networks that a suite trains first: their settings, their files, and the command that trains them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from dsdistill.config.options import flatten
from dsdistill.text import within


@dataclass(frozen=True)
class Environment:
    """On what and with which data a suite runs; none of it is part of a cell's settings."""

    root: Path | None = None
    download: bool = False
    device: str | None = None
    threads: int = 0
    """Of each command; 0 leaves them to it."""

    def words(self) -> list[str]:
        """Return the options of a command."""
        words = ["--root", str(self.root)] if self.root else []
        words += ["--download"] if self.download else []
        return words + (["--device", self.device] if self.device else [])


@dataclass(frozen=True)
class ExpertSet:
    """Networks that cells match with, or that label their sets; trained before them."""

    name: str
    """Their file below the results, without its suffix."""
    options: Mapping[str, Any]

    def file(self, results: Path) -> Path:
        """Return their file."""
        return results / f"{self.name}.h5"

    def settings(self) -> dict[str, Any]:
        """Return all that decides their weights."""
        return dict(self.options)

    def settings_file(self, results: Path) -> Path:
        """Return where the settings are written."""
        return results / f"{self.name}.toml"

    def log(self, results: Path) -> Path:
        """Return where the output of their command goes."""
        return results / f"{self.name}.log"

    def command(self, results: Path, environment: Environment) -> list[str]:
        """Return the words that train them, or go on with it."""
        options = flatten(self.options)
        words = ["experts", "-o", str(self.file(results)), "--resume"]
        words += ["--dataset", str(options.pop("data.name")), "--recipe", str(options.pop("recipe"))]
        return words + overrides(options) + environment.words()


_LONGEST = 120  # bytes of a part of a file's name


def slug(name: str) -> str:
    """Turn the name of a data set or a method into one for files."""
    kind, colon, path = name.partition(":")
    text = f"{kind}-{Path(path).name}" if colon else name
    return within(re.sub(r"[^\w.-]+", "-", text).strip("-."), _LONGEST).rstrip("-.") or "unnamed"


def overrides(options: Mapping[str, Any]) -> list[str]:
    """Write options as ``--set`` takes them."""
    words = []
    for key, value in options.items():
        written = tomli_w.dumps({"value": value}).partition("=")[2].strip()
        words += ["--set", f"{key}={' '.join(written.split()) if isinstance(value, list) else written}"]
    return words
