"""Files: read only if they are regular, written whole or not at all, locked against other processes."""

from dsdistill.files.checks import check_folder, check_new_folder, check_replaceable, check_target, reason
from dsdistill.files.locks import exclusive, hold
from dsdistill.files.paths import expanded
from dsdistill.files.reading import open_regular, read, read_text
from dsdistill.files.writing import new_folder, replace, replacing, sweep

__all__ = [
    "check_folder",
    "check_new_folder",
    "check_replaceable",
    "check_target",
    "exclusive",
    "expanded",
    "hold",
    "new_folder",
    "open_regular",
    "read",
    "read_text",
    "reason",
    "replace",
    "replacing",
    "sweep",
]
