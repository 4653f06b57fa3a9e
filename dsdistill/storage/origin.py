"""Where the data and the protocol of a distilled set lie on this machine.

The file of a set is passed on, so it names the user's own files without their folders. The run that made it
stays, and its ``config.toml`` tells the folders. It lies beside the set, or the set is a snapshot inside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsdistill.config.data_names import gone, is_memory, path_of
from dsdistill.config.options import table_at
from dsdistill.config.sharing import shared
from dsdistill.errors import UserError
from dsdistill.files import expanded, parse_json, parse_toml, read_toml, reason
from dsdistill.runtime.checkpoints import RunDirectory
from dsdistill.synthetic.distilled import Scalar


def is_of_run(attributes: Mapping[str, Scalar], run: Mapping[str, Any]) -> bool:
    """Whether a set was made with the options of a run.

    Args:
        attributes: of the set.
        run: the content of the run's ``config.toml``.
    """
    try:
        config = parse_toml(str(attributes.get("config", "")))
    except ValueError:
        return False
    config, options = shared(config), shared(run)  # which lacks those that came later
    return bool(config) and {key: config.get(key) for key in options} == options


def options_of_run(path: Path, attributes: Mapping[str, Scalar]) -> dict[str, Any]:
    """Return the options of the run that made a set, with folders; empty where it is not to be found.

    Args:
        path, attributes: of the set.
    """
    for folder in (path.with_suffix(".run"), path.absolute().parent):
        try:
            options = read_toml(RunDirectory(folder).config_file)
        except UserError:
            continue
        if is_of_run(attributes, options):
            return options
    return {}


def stored_data(attributes: Mapping[str, Scalar]) -> dict[str, Any]:
    """Return the options of the data that a set names.

    Raises:
        UserError: its attribute is no JSON object.
    """
    try:
        options = parse_json(str(attributes.get("data", "{}")))
    except ValueError as error:
        raise UserError(
            f"the file's attribute 'data' is not JSON ({reason(error)}); name the data set"
        ) from error
    if not isinstance(options, dict):
        raise UserError("the file's attribute 'data' holds no options; name the data set")
    return options


def data_of(path: Path, attributes: Mapping[str, Scalar], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the data that a set was distilled from, with the folders that are known here.

    Args:
        path, attributes: of the set.
        stored: the options in its file.

    Raises:
        UserError: they are the user's own, and nothing says where they lie, or they are no longer there; or
            they were in memory.
    """
    options = dict(stored) | {"name": stored.get("name") or attributes.get("dataset")}
    if not options["name"]:
        raise UserError("the file does not say what it was distilled from; name the data set")
    options |= table_at(options_of_run(path, attributes), "data")
    name = str(options["name"])
    if is_memory(name):
        raise gone(name)
    if not (place := path_of(name)):
        return options
    kind = name.partition(":")[0]
    if not expanded(place).is_absolute():  # an earlier version wrote absolute paths into the file
        raise UserError(
            f"the set was distilled from {name}, and no run beside it tells where that lies; "
            f"pass --dataset {kind}:PATH"
        )
    if not expanded(place).exists():
        raise UserError(
            f"the data that the set was distilled from are no longer at {place}; pass --dataset {kind}:PATH "
            "where they lie now"
        )
    return options


def protocol_of(path: Path, attributes: Mapping[str, Scalar]) -> str:
    """Return the protocol of the method that made a set: a name, or the user's own file.

    Raises:
        UserError: it is a file, and nothing says where that lies.
    """
    name = str(attributes.get("protocol", "dm"))
    if not name.endswith(".toml") or Path(name).is_absolute():
        return name
    if placed := options_of_run(path, attributes).get("protocol"):
        return str(placed)
    raise UserError(
        f"the set names the protocol {name}, and no run beside it tells where that lies; pass --protocol"
    )
