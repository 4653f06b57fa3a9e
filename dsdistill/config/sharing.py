"""What is passed on says what was used, not where it lay: files and data by name, without folders."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsdistill.config.data_names import data_name, path_of
from dsdistill.config.options import as_toml, merge, table_at
from dsdistill.files import parse_toml
from dsdistill.plugs import names_in

_HERE = ("root", "download")
"""Options of the data that concern one machine."""


def file_name(name: str) -> str:
    """Return the name of a preset or a network, of a file of one's own without its folders.

    >>> file_name("/home/anna/mine.toml"), file_name("/home/anna/net.py:MyNet"), file_name("dm")
    ('mine.toml', 'net.py:MyNet', 'dm')
    """
    return Path(name).name


def network_names(names: str) -> str:
    """Return the names of networks, with commas between them, those of one's own without their folders.

    >>> network_names("convnet3,/home/anna/net.py:MyNet")
    'convnet3,net.py:MyNet'
    """
    return ",".join(map(file_name, names_in(names)))


def shared(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a run or of experts as their file tells them; sharing twice changes nothing."""
    replacements: dict[str, Any] = {
        key: file_name(str(table[key])) for key in ("method", "protocol", "recipe", "init") if key in table
    }
    for key in ("network", "student"):
        if table.get(key):
            replacements[key] = network_names(str(table[key]))
    if path := table_at(table, "engine", "supply").get("path"):
        replacements["engine"] = {"supply": {"path": ",".join(map(file_name, str(path).split(",")))}}
    result = merge(table, replacements)
    if data := table_at(table, "data"):
        result["data"] = {key: value for key, value in data.items() if key not in _HERE}
        if "name" in data:
            result["data"]["name"] = data_name(str(data["name"]))
    return result


def values_without_folders(value: Any) -> Any:
    """Return values as JSON has them, in which every text is without folders.

    >>> told(["folder:/home/anna/pets", "/home/anna/my set.h5", {"seed": 0}])
    ['folder:pets', 'my set.h5', {'seed': 0}]
    """
    if isinstance(value, Mapping):
        return {key: values_without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [values_without_folders(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if path_of(value) and "\n" not in value:
        return data_name(value)
    if value.startswith("/") and "\n" not in value and without_folders(value) != "~":
        return file_name(value)
    return without_folders(value)


def toml_without_folders(text: str) -> str:
    """Return a config, which an earlier version may have written with folders, as `shared` tells it."""
    try:
        return as_toml(shared(parse_toml(text)))
    except (ValueError, TypeError, AttributeError):  # it is no config
        return str(values_without_folders(text))


_HOMES = re.compile(r"(?<![\w.~/-])/(?:home|Users)/[^\s/'\",;:]+")
_FOLDERS = re.compile(r"(?<![\w.~/-])/(?:[^\s/'\",;:]+/)+")


def without_folders(text: str) -> str:
    """Return a sentence in which absolute paths are cut to their last part, and home folders to ``~``.

    >>> without_folders("no such folder: /data/anna/pets; /home/anna is full")
    'no such folder: pets; ~ is full'
    """
    home = os.path.expanduser("~")
    if len(home) > 1:
        text = re.sub(rf"(?<![\w.]){re.escape(home)}(?![\w.-])", "~", text)
    return _FOLDERS.sub("", _HOMES.sub("~", text))
