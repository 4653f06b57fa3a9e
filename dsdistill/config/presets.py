"""Settings asked for by name that lie in TOML files: recipes, protocols, suites; shipped and your own."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsdistill.errors import UserError, unknown

_PRESETS = Path(__file__).parent.parent / "presets"


@dataclass(frozen=True)
class Presets:
    """One kind of settings.

    Attributes:
        folder: of the package, where those that ship lie as ``<name>.toml``.
        kind: what a name stands for, in sentences.
    """

    folder: str
    kind: str

    def names(self) -> list[str]:
        """Return the names of those that ship."""
        return sorted(file.stem for file in (_PRESETS / self.folder).glob("*.toml"))

    def find(self, name_or_path: str | Path) -> Path:
        """Return the file of a name ("dm"), or of a path to one's own ("mine.toml").

        Raises:
            UserError: nothing that ships has the name; the sentence has the nearest one.
        """
        text = str(name_or_path)
        if text.endswith(".toml"):
            return Path(text).expanduser()
        if text not in self.names():
            raise unknown(self.kind, text, self.names())
        return _PRESETS / self.folder / f"{text}.toml"

    def read(self, name_or_path: str | Path) -> dict[str, Any]:
        """Return the content of what `find` finds, and its name, which is that of its file.

        Raises:
            UserError: as `find`; or the file cannot be read or is not TOML.
        """
        file = self.find(name_or_path)
        return {"name": file.stem, **read_toml(file)}


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        UserError: it is missing or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from error
