"""How a teacher is named: ``FILE``, ``FILE@EPOCH``, ``FILE#EXPERT@EPOCH``, or
``torchvision:NAME@WEIGHTS``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

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

    def at(self, epoch: int) -> TeacherReference:
        """Return the same teacher after another number of epochs."""
        return TeacherReference(self.source, self.expert, epoch, self.weights)


def parse_references(teachers: str | Iterable[str]) -> tuple[TeacherReference, ...]:
    """Read the references of a committee, given as one text or several, each with commas between them.

    Raises:
        UserError: there is none, or one cannot be read.
    """
    texts = [teachers] if isinstance(teachers, str) else list(teachers)
    names = [name.strip() for text in texts for name in text.split(",")]
    references = tuple(TeacherReference.parse(name) for name in names if name)
    if not references:
        raise UserError("no teacher given; name a file of experts, for example --teacher teacher.h5")
    return references
