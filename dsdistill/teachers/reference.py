"""How a teacher is named: ``FILE``, ``FILE@EPOCH``, ``FILE#EXPERT@EPOCH``, or
``torchvision:NAME@WEIGHTS``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from dsdistill.errors import UserError

ALL = "all"
LIBRARIES = ("torchvision", "timm")


@dataclass(frozen=True)
class TeacherReference:
    """One teacher, or all experts of a file.

    Attributes:
        source: the path of a file of experts, or ``torchvision:NAME`` or ``timm:NAME``.
        expert: its number in the file, counted from 0; None for all of them.
        epoch: of its training; None for the last one that is stored.
        weights: the name of a library's pretrained weights; empty for a file.
    """

    source: str
    expert: int | None = 0
    epoch: int | None = None
    weights: str = ""

    @classmethod
    def parse(cls, text: str) -> TeacherReference:
        """Read a reference.

        >>> TeacherReference.parse("pool.h5#2@15")
        TeacherReference(source='pool.h5', expert=2, epoch=15, weights='')
        >>> TeacherReference.parse("torchvision:resnet18@DEFAULT").weights
        'DEFAULT'

        Raises:
            UserError: there is no source, or what follows ``#`` or ``@`` is no number.
        """
        library, colon, _ = text.partition(":")
        if colon and library in LIBRARIES:
            source, at, weights = text.partition("@")
            if at and not weights:
                raise UserError(f"teacher {text!r} names no weights after @; write for example @DEFAULT")
            return cls(source, 0, None, weights or "DEFAULT")
        match = re.fullmatch(r"(.+?)(?:#([^#@]*))?(?:@([^#@/]*))?", text, re.DOTALL)
        if match is None:
            raise UserError("a teacher needs a name: FILE, FILE@EPOCH or FILE#EXPERT@EPOCH")
        source, expert, epoch = match.groups()
        for what, number in (("an expert's number", expert), ("an epoch", epoch)):
            if number is not None and not number.isdecimal() and (number, what[:4]) != (ALL, "an e"):
                raise UserError(f"teacher {text!r}: {number!r} is not {what}; write FILE#EXPERT@EPOCH")
        if epoch == ALL:
            raise UserError(f"teacher {text!r}: name one epoch")
        chosen = 0 if expert is None else None if expert == ALL else int(expert)
        return cls(source, chosen, None if epoch is None else int(epoch))

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        if self.weights:
            return f"{self.source}@{self.weights}"
        epoch = "" if self.epoch is None else f"@{self.epoch}"
        return f"{self.source}#{ALL if self.expert is None else self.expert}{epoch}"

    def at(self, epoch: int) -> TeacherReference:
        """Return the same teacher after another number of epochs."""
        return TeacherReference(self.source, self.expert, epoch, self.weights)


Teachers: TypeAlias = str | Path | Iterable[str | Path]
"""The names of a committee, as one text or several, each with commas between them."""


def teacher_names(teachers: Teachers) -> list[str]:
    """Return the names of a committee, one by one."""
    texts = [teachers] if isinstance(teachers, str | Path) else teachers
    return [name.strip() for text in texts for name in str(text).split(",") if name.strip()]


def parse_references(teachers: Teachers) -> tuple[TeacherReference, ...]:
    """Read the references of a committee.

    Raises:
        UserError: there is none, or one cannot be read.
    """
    references = tuple(map(TeacherReference.parse, teacher_names(teachers)))
    if not references:
        raise UserError("no teacher given; name a file of experts, for example --teacher teacher.h5")
    return references
