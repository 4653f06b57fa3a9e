"""Files: read only if they are regular, parsed within bounds, written whole or not at all, and locked."""

from dsdistill.files.checks import check_folder, check_replaceable, check_target, reason
from dsdistill.files.documents import is_text, parse_json, parse_toml, read_json, read_toml
from dsdistill.files.locks import exclusive, hold
from dsdistill.files.reading import open_regular, read, read_text
from dsdistill.files.writing import new_folder, replace, replacing, sweep

__all__ = [
    "check_folder",
    "check_replaceable",
    "check_target",
    "exclusive",
    "hold",
    "is_text",
    "new_folder",
    "open_regular",
    "parse_json",
    "parse_toml",
    "read",
    "read_json",
    "read_text",
    "read_toml",
    "reason",
    "replace",
    "replacing",
    "sweep",
]
