"""Every network by its name: those of the papers, of libraries, and the user's own."""

from __future__ import annotations

import hashlib
import inspect
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from functools import partial
from typing import TypeVar

from torch import nn

from dsdistill import files
from dsdistill.errors import UserError
from dsdistill.networks import names
from dsdistill.networks.base import Network
from dsdistill.networks.division import own_network
from dsdistill.networks.factories import NetworkFactory
from dsdistill.plugs import Registry, absolute_reference, is_file_reference, load, names_in, without_folder

NETWORKS: Registry[NetworkFactory] = Registry("network", "dsdistill.networks")
"""The user's own, and those of installed packages."""

F = TypeVar("F", bound=NetworkFactory)


def register_network(name: str) -> Callable[[F], F]:
    """Give a network of your own a name, which files tell and every call takes: a decorator.

    An installed package adds one by an entry point of the group ``dsdistill.networks``.

    >>> @dsdistill.register_network("tiny")
    ... class Tiny(torch.nn.Module):
    ...     def __init__(self, channels, size, num_classes):
    ...         super().__init__()
    ...         self.conv = torch.nn.Conv2d(channels, 8, 3, padding=1)
    ...         self.head = torch.nn.Linear(8 * size**2, num_classes)
    ...
    ...     def forward(self, x):
    ...         return self.head(self.conv(x).relu().flatten(1))
    >>> dsdistill.distill("tiny.h5", dataset="digits", ipc=1, iterations=3, network="tiny").images
    10

    Args:
        name: letters, digits, ``_``, ``.`` and ``-``; no other network's.

    Returns:
        a decorator of a class derived from `torch.nn.Module`, or of a function that makes one. Called with
        channels, size and number of classes, by position or by such names (``in_channels``, ``image_size``,
        …), or with the last alone, it returns a network with fresh weights of torch's global generator. That
        maps images, float32 [B, C, H, W], standardised, to logits [B, K]. Its features are those of its own
        ``embed`` and ``classifier`` if it has these, else the input of its last linear layer.

    Raises:
        UserError: the name is taken or has other characters.
    """
    if not re.fullmatch(r"[A-Za-z_][\w.-]*", name) or names.is_known(name) or name.endswith(".py"):
        raise UserError(
            f"a network of your own cannot be named {name!r}: choose letters, digits, _, . and -, and not "
            "the name of another network"
        )

    def register(factory: F) -> F:
        _check_factory(factory)
        NETWORKS.add(name, factory)
        return factory

    return register


def add_network(network: str | NetworkFactory) -> str:
    """Return the name of a network that the user names or gives; code that it names is loaded.

    Args:
        network: a name; ``FILE.py:NAME``; ``package.module:NAME``; or a factory, which gets the name that
            `register_network` gave it, or else that of its module and itself, ``module:NAME``.

    Raises:
        UserError: there is no such network, its code cannot be loaded, or an object has no name.
    """
    if not isinstance(network, str):
        return _add_object(network)
    if network.endswith(".py"):
        raise UserError(
            f"say which network of {network}: {network}:NAME, the name of a class or a function in it"
        )
    if is_file_reference(network):
        place = network.rpartition(":")[0]
        if NETWORKS.find(network) and not files.expanded(place).exists():
            return network  # the name of one that was given before
        reference = absolute_reference(network)
        for name in (reference, without_folder(reference)):
            NETWORKS.add(name, _loaded(reference), replace=True)
        return reference
    if ":" in network and not names.is_known(network) and not NETWORKS.find(network):
        library = network.partition(":")[0]
        if library != "__main__" and not get_close_matches(library, names.LIBRARIES):  # misspelt
            NETWORKS.add(network, _loaded(network), replace=True)
    check_network(network)
    return network


def add_networks(networks: str | NetworkFactory) -> str:
    """Return the names of one network or several, with commas between them; see `add_network`.

    Raises:
        UserError: as `add_network`.
    """
    if not isinstance(networks, str):
        return add_network(networks)
    return ",".join(map(add_network, names_in(networks)))


def network_list(networks: str | NetworkFactory | Iterable[str | NetworkFactory]) -> list[str]:
    """Return the names by which results tell networks, without folders; code that is named is loaded.

    Args:
        networks: names, one text of names with commas, or what else `add_network` takes, one or several.

    Raises:
        UserError: as `add_network`; or two different ones have the same name.
    """
    if isinstance(networks, str):
        networks = networks.split(",")
    elif callable(networks):
        networks = [networks]
    entries: list[str | NetworkFactory] = [
        each.strip() if isinstance(each, str) else each for each in networks
    ]
    added: dict[str, NetworkFactory | None] = {}
    for each in (each for each in entries if each):
        name = without_folder(add_network(each))
        factory = _own(name)
        if added.setdefault(name, factory) is not factory:
            raise UserError(
                f"two networks are called {name}: give one another name, by dsdistill.register_network"
            )
    return list(added)


def build_network(name: str, channels: int, size: int, num_classes: int) -> Network:
    """Make a network with fresh weights for [B, channels, size, size] images.

    Weights are drawn from torch's global generator: call this inside `seeding.forked`.

    Args:
        name: see `dsdistill.networks.names`; of the user's own, what `add_network` returned.
        channels: image channels.
        size: image height and width.
        num_classes: number of logits.

    Raises:
        UserError: if the name is unknown, or the network cannot take images of this size.
    """
    return _factory(name)(channels, size, num_classes)


def network_names() -> list[str]:
    """Return the names of the networks of the papers; options and libraries give many more."""
    return names.network_names()


def check_network(name: str) -> None:
    """Raise a UserError, with the nearest name, unless ``name`` names a network. No code is loaded."""
    _factory(name)


def source_digest(networks: Iterable[str]) -> str:
    """Return a digest of the code of those networks that are the user's own; empty if none is.

    Where the code cannot be read, every digest is another one.
    """
    sources = [f"{name}\n{_source(factory)}" for name in networks if (factory := _own(name))]
    return hashlib.sha256("\n".join(sources).encode()).hexdigest() if sources else ""


def added_networks() -> Iterator[tuple[str, str]]:
    """Yield the names of networks that programs and installed packages add, and where they come from."""
    return NETWORKS.added()


def _own(name: str) -> NetworkFactory | None:
    """Return the factory of the user's own network, or of an installed package's; None of all others."""
    return None if names.is_known(name) else NETWORKS.find(name)


def _factory(name: str) -> names.Factory:
    if factory := _own(name):
        return partial(own_network, name, factory)
    if is_file_reference(name) or name.startswith("__main__:"):
        raise _absent(name)
    return names.factory_of(name, (each for each, _ in added_networks() if ":" not in each))


def _absent(name: str) -> UserError:
    """Return the error for the name of code that nobody has given here."""
    place = without_folder(name)
    way = f"name its file, PATH/{place}" if is_file_reference(name) else "name a file, FILE.py:NAME"
    return UserError(
        f"network {place!r} is code of the program that used it, which is never run unasked: give it again, "
        f"network={name.rpartition(':')[2]}, or {way}"
    )


def _add_object(factory: NetworkFactory) -> str:
    """File an object under a readable name, and return that."""
    _check_factory(factory)
    registered = [name for name, each in NETWORKS.items() if each is factory]
    if registered:
        return registered[0]
    if not str(getattr(factory, "__name__", "<")).isidentifier():  # a lambda or a partial
        raise UserError(
            "files tell a network by its name, and a lambda or a partial has none: write a def that returns "
            'what it does, or pass network=dsdistill.register_network("NAME")(…) with it in place of …'
        )
    name = f"{factory.__module__}:{factory.__name__}"
    NETWORKS.add(name, factory, replace=True)
    return name


def _check_factory(factory: object) -> None:
    """Check that an object can make networks.

    Raises:
        UserError: saying what to give instead.
    """
    if isinstance(factory, nn.Module):
        kind = type(factory).__name__
        raise UserError(
            f"a {kind} that is made already serves once only: give its class, network={kind}, or a function "
            "that makes a new one"
        )
    if not callable(factory):
        raise UserError(f"a network is a name, a class or a function, not {factory!r}")


def _loaded(reference: str) -> NetworkFactory:
    """Load what a reference names.

    Raises:
        UserError: as `load`; or it is no factory.
    """
    factory: NetworkFactory = load(reference, "network")
    _check_factory(factory)
    return factory


def _source(factory: NetworkFactory) -> str:
    """Return the file that a factory is defined in, or its own lines."""
    try:
        return files.read_text(inspect.getsourcefile(factory) or "")
    except (OSError, TypeError, ValueError):
        pass
    try:
        return inspect.getsource(factory)
    except (OSError, TypeError):
        return uuid.uuid4().hex
