"""The examples in docstrings run, and what is public has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import dsdistill

PURE = ("dsdistill.objectives", "dsdistill.text", "dsdistill.seeding", "dsdistill.augment.operators")
"""Whose public functions each have an example."""

OTHERS = ("dsdistill.compute", "dsdistill.augment", "dsdistill.errors", "dsdistill.supply")
"""Where examples run if there are any."""


def defined(name: str) -> dict[str, Any]:
    """Return the public functions and classes that a module, or the modules of a package, define."""
    package = importlib.import_module(name)
    modules = [package]
    for each in pkgutil.walk_packages(getattr(package, "__path__", []), f"{name}."):
        modules.append(importlib.import_module(each.name))
    return {
        f"{module.__name__}.{key}": value
        for module in modules
        for key, value in vars(module).items()
        if key[0] != "_"
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    }


PUBLIC = {f"dsdistill.{name}": getattr(dsdistill, name) for name in dsdistill.__all__}
del PUBLIC["dsdistill.__version__"], PUBLIC["dsdistill.loggers"]  # a text, and a package of others' writers
FUNCTIONS = {key: value for name in PURE for key, value in defined(name).items() if inspect.isfunction(value)}
ALL = PUBLIC | FUNCTIONS | {key: value for name in (*PURE, *OTHERS) for key, value in defined(name).items()}


def examples(name: str, documented: Any, names: dict[str, Any]) -> list[doctest.DocTest]:
    """Return the docstrings with examples of a function, or of a class and its methods."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = finder.find(documented, name, module=False, globs=names)  # type: ignore[arg-type]
    return [each for each in found if each.examples]


@pytest.mark.parametrize("name", [*PUBLIC, *FUNCTIONS])
def test_what_is_public_has_an_example(name: str) -> None:
    assert examples(name, ALL[name], {}), name


WITH_EXAMPLES = [name for name, value in ALL.items() if examples(name, value, {})]


@pytest.mark.usefixtures("plugs")
@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_an_example_shows_what_happens(
    name: str, finished: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(finished, tmp_path / "set.h5")
    shutil.copy(pool, tmp_path / "pool.h5")
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(ALL[name].__module__)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    for example in examples(name, ALL[name], vars(module) | {"dsdistill": dsdistill, "torch": torch}):
        script = ModuleType("script")  # what an example defines is looked up in a module of its own
        vars(script).update(example.globs, __name__="script")
        example.globs = vars(script)
        monkeypatch.setitem(sys.modules, "script", script)
        runner.run(example, out=report.append, clear_globs=False)
    assert runner.tries
    assert not runner.failures, "".join(report)
