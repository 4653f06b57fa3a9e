"""``python -m dsdistill``, also what torchrun launches."""

from dsdistill.cli import program

program()
