"""Files: read only if they are regular, parsed within bounds, written whole or not at all, and locked."""

from dsdistill.files.checks import check_folder, check_new_folder, check_replaceable, check_target, reason
from dsdistill.files.claims import Claims
from dsdistill.files.documents import is_text, parse_json, parse_toml, read_json, read_toml
from dsdistill.files.locks import exclusive, hold
from dsdistill.files.paths import cache_folder, expanded, lies_inside
from dsdistill.files.reading import INFLATION, LARGEST_TEXT, open_regular, read, read_text
from dsdistill.files.writing import (
    hold_outputs,
    is_empty,
    make_folder,
    mismatch,
    new_folder,
    remove,
    replace,
    replacing,
    set_aside,
    sweep,
    write_new,
)

__all__ = [
    "INFLATION",
    "LARGEST_TEXT",
    "Claims",
    "cache_folder",
    "check_folder",
    "check_new_folder",
    "check_replaceable",
    "check_target",
    "exclusive",
    "expanded",
    "hold",
    "hold_outputs",
    "is_empty",
    "is_text",
    "lies_inside",
    "make_folder",
    "mismatch",
    "new_folder",
    "open_regular",
    "parse_json",
    "parse_toml",
    "read",
    "read_json",
    "read_text",
    "read_toml",
    "reason",
    "remove",
    "replace",
    "replacing",
    "set_aside",
    "sweep",
    "write_new",
]
