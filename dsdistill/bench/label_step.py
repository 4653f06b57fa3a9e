"""How a cell's set gets labels, between its distillation and its evaluations."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsdistill.bench.expert_set import ExpertSet
from dsdistill.errors import UserError
from dsdistill.labelling import config as label_config
from dsdistill.labelling.config import LabellingConfig
from dsdistill.teachers import TeacherReference
from dsdistill.text import byte_size


@dataclass(frozen=True)
class CellTeacher:
    """Networks that a suite trains, and which of them label.

    Attributes:
        reference: an expert and an epoch of a table of experts, whose name is its source.
    """

    experts: ExpertSet
    reference: TeacherReference

    def name(self, results: Path) -> str:
        """Return what ``--teacher`` takes."""
        return str(dataclasses.replace(self.reference, source=str(self.experts.file(results))))


def teacher_words(teachers: Sequence[CellTeacher], results: Path) -> list[str]:
    """Return the option that names teachers; nothing where there are none."""
    return ["--teacher", ",".join(each.name(results) for each in teachers)] if teachers else []


@dataclass(frozen=True)
class LabelStep:
    """A labelling.

    Attributes:
        options: those of `dsdistill.label`, as a suite has them, and the seed.
        teachers: who answers; at least one.
        images: training images per class that are labelled, decoded ones.
    """

    options: Mapping[str, Any]
    teachers: tuple[CellTeacher, ...]
    images: int

    @property
    def config(self) -> LabellingConfig:
        """The options, checked.

        Raises:
            UserError: an option is unknown or its value cannot be, or options contradict one another.
        """
        if option := next((key for key in ("teachers", "teacher") if key in self.options), None):
            raise UserError(f"label has no option {option!r}: write teacher = NAME beside it")
        if self.options.get("stop", "auto") != "auto":
            raise UserError(f"label.stop is 'auto', not {self.options['stop']!r}; an epoch is NAME@EPOCH")
        options = {key: value for key, value in self.options.items() if key != "stop"}
        return label_config.resolve(**options)

    def settings(self) -> dict[str, Any]:
        """Return all that decides the labels but the weights of the teachers."""
        return {"teacher": ",".join(str(each.reference) for each in self.teachers), **self.options}

    def command(self, file: Path, output: Path, results: Path) -> list[str]:
        """Return the words that label a set's file, or go on with it."""
        words = ["label", str(file), "-o", str(output), "--resume", *teacher_words(self.teachers, results)]
        return words + [word for key, value in self.options.items() for word in _flag(key, value)]

    def about(self, classes: int | None) -> str:
        """Say what is labelled, and how many bytes it takes at most.

        Args:
            classes: of the data; None where nobody knows before they are read.
        """
        config = self.config
        who = ", ".join(each.reference.source for each in self.teachers)
        views = f"{config.views} views of each image" if config.views else "each image"
        if classes is None:
            return f"labels for {views} by {who}"
        images = classes * self.images
        each = config.views * config.keep * config.bytes_of_view(classes) if config.views else 4 * classes
        return f"labels for {views} by {who}, {byte_size(round(images * each))} at most"


def _flag(key: str, value: Any) -> Iterator[str]:
    """Yield an option as the command takes it."""
    name = key.replace("_", "-")
    if value is True or value is False:
        yield f"--{'' if value else 'no-'}{name}"
    elif not (key == "flip" and value == "auto"):  # its default, which the command has no word for
        yield f"--{name}"
        yield ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
