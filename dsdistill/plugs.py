"""Plugs: what programs, files and installed packages add to the package, each under a name.

A `Registry` holds those of one kind: networks, engines, discrepancies. A program adds one by a decorator, an
installed package by an entry point, and the user by naming a file, ``module.py:NAME``, or a module,
``package.module:NAME``. Code is run only where a user names it or has installed it: a name that was read from
someone's data file never loads any.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Generic, NoReturn, TypeVar

from dsdistill import files
from dsdistill.errors import UserError, is_out_of_memory, unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """The plugs of one kind, by name.

    Attributes:
        noun: what one of them is called in messages.
        group: of the entry points by which installed packages add theirs.
        generation: how often anything was added to any registry, so that caches of what follows from the
            content can tell whether they are up to date.
    """

    generation: ClassVar[int] = 0

    def __init__(self, noun: str, group: str, own: Mapping[str, T] | None = None) -> None:
        """Begin with the package's own ones, which nothing replaces."""
        self.noun, self.group = noun, group
        self._own = dict(own or {})
        self._additions: dict[str, T] = {}

    def add(self, name: str, value: T, replace: bool = False) -> None:
        """Add one. What is defined anew, as when a cell of a notebook is run again, replaces what it was.

        Args:
            name: see the class.
            value: the plug.
            replace: also replace another one of the name.

        Raises:
            UserError: the name is taken.
        """
        if name in self._own or (not replace and _differs(self._additions.get(name, value), value)):
            raise UserError(f"there is another {self.noun} named {name!r}; choose another name")
        self._additions[name] = value
        Registry.generation += 1

    def find(self, name: str) -> T | None:
        """Return the one of a name, loading the entry point of an installed package; None if there is none.

        Raises:
            UserError: the entry point cannot be loaded.
        """
        if name in self._own or name in self._additions:
            return self._own[name] if name in self._own else self._additions[name]
        point = self._entry_points().get(name)
        return None if point is None else self._load(point)

    def items(self) -> Iterator[tuple[str, T]]:
        """Yield names and plugs, those of installed packages only once they were loaded."""
        yield from [*self._own.items(), *self._additions.items()]

    def names(self) -> list[str]:
        """Return all names, sorted; nothing is loaded."""
        return sorted({*self._own, *self._additions, *self._entry_points()})

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Take back, at the end, what is added meanwhile."""
        before = dict(self._additions)
        Registry.generation += 1  # packages may have been installed
        try:
            yield
        finally:
            self._additions = before
            Registry.generation += 1

    def added(self) -> Iterator[tuple[str, str]]:
        """Yield the name and the origin of each that is not the package's own; nothing is loaded."""
        points = self._entry_points()
        for name in sorted({*self._additions, *points} - self._own.keys()):
            if name in points:
                package = points[name].dist
                yield name, f"of the installed package {package.name if package else points[name].value}"
            else:
                yield name, "of this program"

    def _entry_points(self) -> dict[str, metadata.EntryPoint]:
        return {point.name: point for point in metadata.entry_points(group=self.group)}

    def _load(self, point: metadata.EntryPoint) -> T:
        try:
            value = self._checked(point)
        except UserError:
            raise
        except Exception as error:  # whatever its module raises
            raise UserError(
                f"the {self.noun} {point.name!r} of an installed package ({point.value}) cannot be loaded: "
                f"{cause(error)}"
            ) from error
        if point.name not in self._additions:  # its module may have registered it
            self.add(point.name, value)
        return value

    def _checked(self, point: metadata.EntryPoint) -> T:
        """Load an entry point, and check what it is where that can be said."""
        value: T = point.load()
        return value


def cause(error: BaseException) -> str:
    """Say in one line what an exception of foreign code is.

    >>> cause(ValueError("no such layer"))
    'ValueError: no such layer'
    """
    reason = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


def passes_on(error: BaseException) -> bool:
    """Whether an exception of foreign code is to pass as it is: memory is full, or it is one sentence."""
    return isinstance(error, UserError) or is_out_of_memory(error)


def is_file_reference(name: str) -> bool:
    """Whether a name is that of something in a file of Python.

    >>> is_file_reference("models/net.py:MyNet"), is_file_reference("package.net:MyNet")
    (True, False)
    """
    return name.rpartition(":")[0].endswith(".py")


def absolute_reference(name: str) -> str:
    """Return the name of something in a file with the file's whole path; other names as they are."""
    return str(files.expanded(name).absolute()) if is_file_reference(name) else name


def without_folder(name: str) -> str:
    """Return the name of something in a file without the folders of the file; other names as they are.

    >>> without_folder("/home/anna/net.py:MyNet"), without_folder("convnet3")
    ('net.py:MyNet', 'convnet3')
    """
    return Path(name).name if is_file_reference(name) else name


def names_in(text: str) -> list[str]:
    """Return the names in a text, with commas between them. The path of a file that exists may have commas.

    >>> names_in("resnet18-batch, mobilenetv2"), names_in("net.py:MyNet,convnet3")
    (['resnet18-batch', 'mobilenetv2'], ['net.py:MyNet', 'convnet3'])
    """
    file, _, name = text.rpartition(":")
    if is_file_reference(text) and "," not in name and files.expanded(file).exists():
        return [text]
    names = (name.strip(" ") for name in text.split(","))
    return list(dict.fromkeys(name for name in names if name)) or [text]


def load(reference: str, noun: str) -> Any:
    """Load what ``module.py:NAME`` or ``package.module:NAME`` names.

    Args:
        reference: the name, which the user has given.
        noun: what it should be, for messages.

    Raises:
        UserError: there is no such file, module or name, or the code raises an exception.
    """
    place, _, name = reference.rpartition(":")
    module = load_file(place) if place.endswith(".py") else _load_module(place, reference, noun)
    if not hasattr(module, name):
        mine = [
            key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__
        ]
        if not mine:
            raise UserError(f"{place} defines no {noun} {name!r}, nor any other")
        raise unknown(f"{noun} in {place}:", name, mine)
    return getattr(module, name)


def load_file(path: str | Path) -> ModuleType:
    """Run a file of Python, once as long as it does not change; modules beside it can be imported meanwhile.

    Raises:
        UserError: it cannot be read, or it raises an exception.
    """
    place = files.expanded(path).absolute()
    try:
        source = files.read(place, files.LARGEST_TEXT)
    except OSError as error:
        raise UserError(f"cannot read {path}: {files.reason(error)}") from error
    digest = hashlib.sha256(source).hexdigest()
    name = f"{place.stem}_{hashlib.sha256(str(place).encode()).hexdigest()[:8]}"
    loaded = sys.modules.get(name)
    if loaded is not None and vars(loaded).get("__digest__") == digest:
        return loaded
    module = ModuleType(name)
    vars(module).update(__file__=str(place), __digest__=digest, __builtins__=builtins)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        with _importable(place.parent):
            exec(compile(source, str(place), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        _refuse(str(path), error)
    return module


def _load_module(name: str, reference: str, noun: str) -> ModuleType:
    """Import a module.

    Raises:
        UserError: there is none, or it raises an exception.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not error.name or not f"{name}.".startswith(f"{error.name}."):
            _refuse(name, error)
        raise UserError(
            f"{noun} {reference!r}: there is no module {name!r}; install it, or name a file, FILE.py:NAME"
        ) from error
    except (Exception, SystemExit) as error:
        _refuse(name, error)


def _refuse(place: str, error: BaseException) -> NoReturn:
    """Raise the error for code that cannot be loaded."""
    if passes_on(error):
        raise error
    raise UserError(f"{place} cannot be loaded: {cause(error)}") from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let the modules of a folder be imported; those that are installed come before them."""
    entry = str(folder)
    if entry in sys.path:
        yield
        return
    sys.path.append(entry)
    try:
        yield
    finally:
        if entry in sys.path:  # the code may have removed it
            sys.path.remove(entry)


def _differs(one: Any, other: Any) -> bool:
    """Whether two objects were defined in two places."""
    return one is not other and _definition(one) != _definition(other)


def _definition(value: Any) -> tuple[str, str | int]:
    """Return where an object was defined: its file, or else its module, and its name there.

    A file may be imported and also named, ``net.py:NAME``: then it is two modules. For a partial stands what
    it calls. Objects without a name differ from all others.
    """
    function = getattr(value, "func", value)
    module, name = (getattr(function, key, None) for key in ("__module__", "__qualname__"))
    if module is None or name is None:
        return "", id(value)
    file = getattr(sys.modules.get(module), "__file__", None)
    return (os.path.realpath(file) if file else module), name
