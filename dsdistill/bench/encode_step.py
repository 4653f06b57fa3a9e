"""How copies of a cell's set in fewer bits come about, between its distillation and their evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dsdistill.bench.label_step import LabelStep
from dsdistill.config.storage import CodingConfig
from dsdistill.distillation.config import RunConfig
from dsdistill.errors import UserError


def coded_file(file: Path, bits: int) -> Path:
    """Return where the copy of a set lies that has so many bits a pixel.

    >>> coded_file(Path("set.h5"), 4).name
    'set-4bits.h5'
    """
    return file.with_name(f"{file.stem}-{bits}bits.h5")


def coded_files(file: Path) -> list[Path]:
    """Return the copies of a set that are there."""
    return sorted(file.parent.glob(coded_file(file, 0).name.replace("0", "*")))


def command(file: Path, bits: int) -> list[str]:
    """Return the words that encode a copy of a set."""
    return ["encode", str(file), "-o", str(coded_file(file, bits)), "--bits", str(bits)]


def check_possible(bits: Sequence[int], config: RunConfig, step: LabelStep | None) -> None:
    """Check that the sets of a method can be encoded.

    Args:
        bits: of the copies; none where nothing is to be encoded.
        step: how sets are labelled; None where they are not.

    Raises:
        UserError: they are coded already, or have views, of which a teacher has seen the images as they are.
    """
    if bits and isinstance(config.stored_as, CodingConfig):
        raise UserError("its storage codes its sets already: leave out bits, or storage")
    if bits and step and step.config.kind == "views":
        raise UserError(
            "a teacher answers to views of images as they are, which are not encoded afterwards: write "
            "bits = [32] for this method"
        )
