"""The layers of the package: which room may import which, and that the tests mirror the rooms."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import dsdistill

PACKAGE = Path(dsdistill.__file__).parent
TESTS = Path(__file__).parent

LINES = """
    cli
    report
    bench export importing loggers pipeline
    experts distillation labelling evaluation
    engines
    supply
    teachers encoding
    storage
    compute synthetic
    data protocol
    runtime augment
    config networks objectives
    plugs
    files text
    errors seeding
"""
"""A file imports from rooms on lower lines only. Rooms are folders, or files at the top of the package."""

LEVELS = {room: level for level, line in enumerate(LINES.strip().splitlines()) for room in line.split()}
TOP = {"__init__", "__main__"}  # above all lines: they may import every room, and no room imports them
DATA = {"presets"}  # no code


def modules(package: Path) -> dict[str, Path]:
    """Return the files of a package by their dotted names below it; a folder's __init__ has the folder's."""
    paths = {file.relative_to(package).with_suffix("").parts: file for file in package.rglob("*.py")}
    return {".".join(parts[:-1] if parts[1:] and parts[-1] == "__init__" else parts): file
            for parts, file in paths.items()}  # fmt: skip


def imports(file: Path, known: dict[str, Path]) -> set[str]:
    """Return the modules of dsdistill that a file imports anywhere: at the top, lazily, for types only."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} has a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    below = {name.partition(".")[2] or "__init__" for name in names if name.split(".")[0] == "dsdistill"}
    # A name of a module is no module: from a.b import function.
    return {name if name in known else name.rpartition(".")[0] or "__init__" for name in below}


def room(module: str) -> str:
    return module.partition(".")[0]


def violations(package: Path) -> list[str]:
    """Return what breaks the rule in a package, a sentence each."""
    known = modules(package)
    graph = {name: imports(file, known) - {name} for name, file in known.items()}
    rooms = {room(name) for name in graph} - TOP
    found = [f"{name} has no line" for name in sorted(rooms - LEVELS.keys())]
    for name, targets in graph.items():
        for target in targets:
            low, high = LEVELS.get(room(target), -1), LEVELS.get(room(name), -1)
            if room(name) != room(target) and low <= high:
                found.append(f"{name} imports {target}")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append(f"circle: {' <- '.join(error.args[1])}")
    return found


def test_files_import_from_lower_lines_only_and_in_no_circle() -> None:
    assert violations(PACKAGE) == []


SOUND = {
    "__init__.py": "from dsdistill.cli import main",
    "cli/__init__.py": "from dsdistill.experts.run import train",
    "experts/run.py": "from dsdistill.experts.config import Config\nimport dsdistill.data.real",
    "experts/config.py": "def f():\n    from dsdistill.augment import dsa",
    "evaluation/run.py": "",
    "data/real.py": "from dsdistill.errors import UserError",
    "augment/dsa.py": "import torch",
    "errors.py": "",
}
"""A package that keeps the rule."""


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("cli/__init__.py", "from dsdistill.experts import run", ""),
        ("augment/dsa.py", "from dsdistill.data.real import Task", "augment.dsa imports data.real"),
        ("augment/dsa.py", "def f():\n    import dsdistill.cli", "augment.dsa imports cli"),
        ("errors.py", "if TYPE_CHECKING:\n    from dsdistill.text import x", "errors imports text"),
        ("experts/run.py", "from dsdistill.evaluation import run", "experts.run imports evaluation.run"),
        ("data/real.py", "from dsdistill import UserError", "data.real imports __init__"),
        ("experts/config.py", "from dsdistill.experts import run", "circle: experts."),
        ("extras.py", "", "extras has no line"),
        ("extras/more.py", "", "extras has no line"),
    ],
)
def test_a_violation_is_found(tmp_path: Path, file: str, text: str, complaint: str) -> None:
    for path, content in (SOUND | {"text.py": "x = 1", file: text}).items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(content)
    found = violations(tmp_path)
    assert found[0].startswith(complaint) if complaint else not found


def test_folders_of_tests_mirror_the_rooms() -> None:
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and path.name != "__pycache__"}
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"} - DATA
    assert folders - rooms == {"benchmarks", "faults", "golden", "helpers", "newcomer", "reference"}
