"""``python -m dsdistill``."""

from dsdistill.cli import program

program()
