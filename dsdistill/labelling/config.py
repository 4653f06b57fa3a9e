"""Options of labelling: who answers, to what, and how the answers are stored."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Gt, Le
from pydantic import TypeAdapter

from dsdistill.augment.crops import RandomResizedCrop
from dsdistill.augment.mix import CutMix, Mixup
from dsdistill.config.options import known_keys
from dsdistill.config.sharing import file_name
from dsdistill.config.validation import forbid_extra, validate
from dsdistill.errors import UserError
from dsdistill.synthetic.answers import Encoding
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.views import Mixing, bytes_of_view
from dsdistill.teachers import TeacherReference
from dsdistill.teachers.committee import Mean, Mode
from dsdistill.teachers.reference import parse_references

Weights = Literal["equal", "accuracy"] | tuple[Annotated[float, Ge(0)], ...]
Kind = Literal["static", "views"]

_BETA = {"none": 1.0, "cutmix": 1.0, "mixup": 0.8}
"""β of SRe2L's code, by the mixing."""


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class LabellingConfig:
    """All options of labelling.

    Raises:
        UserError: options contradict one another.
    """

    teachers: tuple[str, ...] = ()
    """FILE, FILE@EPOCH, FILE#EXPERT@EPOCH or FILE#all@EPOCH; several are a committee."""
    weights: Weights = "equal"
    """Of the teachers in their mean: numbers, of which only proportions count; equal; or accuracy, in
    proportion to that on the images that they held out."""
    mean: Mean = "logits"
    """What is averaged over a committee: logits, or probabilities (stored as their logarithm)."""
    mode: Mode = "eval"
    """eval: teachers normalise by the statistics of their training; train: by those of each batch (CV-DD)."""
    parts: Annotated[int, Ge(1)] = 1
    """Of a batch, each normalised on its own in mode train: 2 for students that take a batch in halves
    (CV-DD)."""
    views: Annotated[int, Ge(0)] = 0
    """Views of each image, each in an epoch of its own; 0 labels the images themselves (static labels)."""
    batch_size: Annotated[int, Ge(1)] = 64
    """Views that are mixed with one another, and that a student takes in one step."""
    crop_scale: tuple[Annotated[float, Gt(0), Le(1)], Annotated[float, Gt(0), Le(1)]] = (0.08, 1.0)
    """Smallest and largest share of an image's area that a crop has; 1, 1 does not crop."""
    flip: bool | Literal["auto"] = "auto"
    """Mirror half of the views; auto: where a mirrored image of these data keeps its label."""
    mixing: Mixing = "cutmix"
    """cutmix, mixup or none; views are mixed with views of their own batch."""
    beta: Annotated[float, Gt(0)] | None = None
    """β of the mixing; 1 for cutmix and 0.8 for mixup if it is left out."""
    keep: Annotated[float, Gt(0), Le(1)] = 1.0
    """Share of the batches that are stored, chosen at random (LPLD); students draw from all of them."""
    encoding: Encoding = "float16"
    """How the answers to views are stored: float32, float16, uint8, top, or distances (NRR-DD)."""
    top: Annotated[int, Ge(1)] | None = None
    """k, the largest logits that the encoding top stores; the others share the rest."""
    seed: Annotated[int, Ge(0)] = 0
    """Of every random draw."""

    def __post_init__(self) -> None:
        if (self.encoding == "top") != (self.top is not None):
            raise UserError(
                "top is the number of logits that the encoding 'top' stores: give both, or neither"
            )
        if self.encoding == "distances" and self.mixing == "none":
            raise UserError(
                "two distances are those to the labels of an image and of its partner: choose a mixing, or "
                "another encoding"
            )
        if self.parts > 1 and self.mode != "train":
            raise UserError(
                "parts of a batch are normalised on their own in mode train: choose that, or 1 part"
            )
        self.crop  # noqa: B018 (raises if the range is empty)

    @property
    def kind(self) -> Kind:
        """What is labelled: the images, or views of them."""
        return "views" if self.views else "static"

    @property
    def crop(self) -> RandomResizedCrop:
        """How views are cropped."""
        return RandomResizedCrop(scale=self.crop_scale)

    @property
    def mix(self) -> CutMix | Mixup | None:
        """How views are mixed, every batch of them."""
        beta = self.beta or _BETA[self.mixing]
        if self.mixing == "none":
            return None
        return (CutMix if self.mixing == "cutmix" else Mixup)(probability=1.0, beta=beta)

    @property
    def references(self) -> tuple[TeacherReference, ...]:
        """The teachers."""
        return parse_references(self.teachers)

    @property
    def protocol(self) -> str | None:
        """The protocol that suits students of these labels; None for the set's own."""
        if self.kind == "static":
            return None
        if self.encoding == "distances":
            return "nrr-dd"
        return "cv-dd" if self.mode == "train" else "fkd"

    def bytes_of_view(self, classes: int) -> int:
        """Return the bytes that a view takes at most, before compression: what is drawn, and the answer."""
        return bytes_of_view(self.encoding, classes, self.top)

    def check(self, distilled: DistilledSet) -> None:
        """Check that a set can be labelled so.

        Raises:
            UserError: it cannot; the sentence says what to change.
        """
        classes, (height, width) = len(distilled.classes), distilled.images.shape[2:]
        if self.top is not None and self.top > classes:
            raise UserError(
                f"top is {self.top}, and there are {classes} classes: keep at most as many logits"
            )
        if self.kind == "views" and height != width:
            raise UserError(f"views are of square images, not of {height}×{width}; label them without views")
        last = (distilled.decoded_count - 1) % self.batch_size + 1
        if self.mode == "train" and last < 2 * self.parts:
            where = f", in {self.parts} parts," if self.parts > 1 else ""
            raise UserError(
                f"{distilled.decoded_count} images in batches of {self.batch_size}{where} leave one alone, "
                "with no statistics but its own: choose another batch size, or mode eval"
            )

    def shared(self) -> dict[str, Any]:
        """Return the options as a file tells them: those that matter, teachers without folders."""
        table: dict[str, Any] = TypeAdapter(LabellingConfig).dump_python(self, mode="json", exclude_none=True)
        if self.kind == "static":
            table = {key: value for key, value in table.items() if key not in _OF_VIEWS}
        return table | {"teachers": [file_name(each) for each in self.teachers]}

    def to_json(self) -> str:
        """Return the shared options as JSON."""
        return json.dumps(self.shared(), sort_keys=True)


_OF_VIEWS = ("crop_scale", "flip", "mixing", "beta", "keep", "encoding", "top")


def resolve(**options: Any) -> LabellingConfig:
    """Return validated options; those that are None have their defaults.

    Raises:
        UserError: a value is out of range, or options contradict one another.
    """
    known = known_keys(LabellingConfig)
    explicit = {key: value for key, value in options.items() if value is not None}
    config: LabellingConfig = validate(LabellingConfig, explicit, "option", known)
    view_options = [key for key in _OF_VIEWS if key in explicit and explicit[key] != _DEFAULTS[key]]
    if config.kind == "static" and view_options:
        raise UserError(f"{view_options[0]} is an option of views; ask for some (views=100, --views 100)")
    return config


_DEFAULTS = {each.name: each.default for each in dataclasses.fields(LabellingConfig)}
ENCODINGS = get_args(Encoding)
