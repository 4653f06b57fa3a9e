"""README, the pages of the site and the notebooks: their code, their commands and their links."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in one language, without those that show a file."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.M | re.S)


def shown_files(page: Path) -> list[Path]:
    """Return the files that a page shows."""
    return [ROOT / name for name in re.findall(r'^--8<-- "(.+)"$', page.read_text(), re.M)]


def commands(page: Path) -> list[list[str]]:
    """Return the words of every dsdistill command in the shell blocks of a page."""
    lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    parts = [part for line in lines for part in line.partition(" #")[0].split(";")]
    return [words[1:] for part in parts if (words := shlex.split(part))[:1] == ["dsdistill"]]


def links(page: Path) -> list[str]:
    """Return the targets of a page's links into the repository or the site, without anchors."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", page.read_text())
    return [str(target) for target in targets]


def cells(notebook: Path) -> list[dict[str, Any]]:
    """Return the code cells of a notebook."""
    content = json.loads(notebook.read_text())["cells"]
    return [cell for cell in content if cell["cell_type"] == "code"]


def run(codes: list[str], name: str) -> dict[str, Any]:
    """Run pieces of code in order, as one module; return its names."""
    module = ModuleType("page")
    sys.modules["page"] = module  # where dataclasses and annotations look for their names
    for number, code in enumerate(codes, 1):
        exec(compile(code, f"{name}, block {number}", "exec"), vars(module))
    return vars(module)


def builder(name: str) -> ModuleType:
    """Import a module that builds the site, from docs/."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def generated_pages() -> dict[str, str]:
    """Return the pages that are made from the code, by their path in the site."""
    pages: dict[str, str] = builder("reference").pages(ROOT / "docs")
    return pages
