"""Named settings in TOML files, shipped with the package or a user's own: recipes, protocols, suites."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsdistill.errors import unknown
from dsdistill.files import expanded, read_toml

PRESETS = Path(__file__).parent.parent / "presets"


@dataclass(frozen=True)
class Presets:
    """One kind of settings.

    Attributes:
        folder: below ``dsdistill/presets``, with a file ``<name>.toml`` for each that ships.
        kind: what one of them is called in error messages.
    """

    folder: str
    kind: str

    def names(self) -> list[str]:
        """Return the names of the presets that ship, sorted."""
        return sorted(file.stem for file in (PRESETS / self.folder).glob("*.toml"))

    def find(self, name_or_path: str | Path) -> Path:
        """Return the file of a preset by name ("dm"), or a user's own file by its path ("mine.toml").

        Raises:
            UserError: no preset has the name; the message suggests the nearest one.
        """
        text = str(name_or_path)
        if text.endswith(".toml"):
            return expanded(text)
        if text not in self.names():
            raise unknown(self.kind, text, self.names())
        return PRESETS / self.folder / f"{text}.toml"

    def read(self, name_or_path: str | Path) -> dict[str, Any]:
        """Return the content of the file that `find` returns, with its stem as ``name``.

        Raises:
            UserError: as `find`; or the file cannot be read or is not TOML.
        """
        file = self.find(name_or_path)
        return {"name": file.stem, **read_toml(file)}


RECIPES = Presets("recipes", "method")
EXPERT_RECIPES = Presets("experts", "recipe of experts")
PROTOCOLS = Presets("protocols", "protocol")
SUITES = Presets("suites", "suite")
