"""Checks the shapes in the package's annotations while tests run; in use nothing is checked or imported.

The package writes ``Float[Tensor, "B C H W"]`` and imports ``Float`` for type checkers only. As soon as such
a module is loaded here, it gets jaxtyping's names, and a wrapper around each public function and method with
shapes in its annotations: beartype checks arguments and results. That happens before any other module can
import from it.

Not checked: code that ``torch.compile`` traces, as the tracer cannot follow the checks; functions whose names
begin with an underscore; nested functions.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

import jaxtyping
import torch
from beartype import BeartypeConf, beartype

CHECKED = ("dsdistill.objectives", "dsdistill.compute", "dsdistill.augment")
"""Packages whose annotations are checked."""

NAMES = {name: getattr(jaxtyping, name) for name in ("Bool", "Float", "Float64", "Int64", "Shaped")}

SPECIAL = {"__init__", "__call__", "__getitem__"}

typed = functools.partial(
    jaxtyping.jaxtyped, typechecker=beartype(conf=BeartypeConf(is_pep484_tower=True))
)  # an int is a float


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that checks its annotations, or the function itself if no shapes are among them."""
    if not any("[Tensor, " in str(annotation) for annotation in inspect.get_annotations(function).values()):
        return function
    checking = typed(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)
        return checking(*args, **kwargs)

    return call


def check(module: ModuleType) -> None:
    """Let a module check its public functions, and the methods of its public classes."""
    vars(module).update(NAMES)
    for name, value in list(vars(module).items()):
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value):
            setattr(module, name, checked(value))
        elif inspect.isclass(value):
            for key, method in list(vars(value).items()):
                if not key.startswith("_") or key in SPECIAL:
                    setattr(value, key, _checked_attribute(method))


def _checked_attribute(attribute: Any) -> Any:
    if isinstance(attribute, staticmethod | classmethod):
        return type(attribute)(checked(attribute.__func__))
    if isinstance(attribute, property) and attribute.fget is not None:
        return property(checked(attribute.fget), attribute.fset, attribute.fdel, attribute.__doc__)
    return checked(attribute) if inspect.isfunction(attribute) else attribute


class Finder(MetaPathFinder):
    """Finds the modules of ``CHECKED``, and has them checked once they are loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not f"{fullname}.".startswith(tuple(f"{package}." for package in CHECKED)):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            check(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Check what is imported from now on; nothing of the package may have been imported before."""
    early = [name for name in sys.modules if name.startswith(CHECKED)]
    assert not early, f"imported before they could be checked: {early}"
    sys.meta_path.insert(0, Finder())
