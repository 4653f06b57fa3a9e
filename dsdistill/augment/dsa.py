"""Differentiable siamese augmentation: draw parameters once, apply them to any batch.

Drawing and applying are separate because matching methods are *siamese*: the real and the synthetic images
of a class must get the same augmentation. Draw one row per class, gather rows by label, apply.

    parameters = augmentation.draw(num_classes, size, generator, shared_operator=False)
    real, synthetic = (augmentation(x, parameters[y]) for x, y in batches)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from dsdistill.augment import operators as ops
from dsdistill.errors import UserError, unknown

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float64, Int64

Rule = Literal["single", "idc", "fyi"]

OPERATORS = ("color", "crop", "cutout", "flip", "scale", "rotate")
"""Every operator, in the order of the columns of `Parameters.active`."""

_SPATIAL = ("crop", "scale", "rotate")  # the rule "idc" takes one of these

_RANGES = {
    "flip_prob": (0, 1),
    "brightness": (0, 100),
    "saturation": (0, 100),
    "contrast": (0, 100),
    "crop_ratio": (0, 1),
    "cutout_ratio": (0, 1),
    "scale": (1, 100),
    "rotate": (0, 180),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Parameters:
    """The parameters of n augmentations, one row for each image or class.

    Keep them on the CPU: rows are then selected there, without waiting for a CUDA device.
    """

    size: int  # height and width of the images
    active: Bool[Tensor, "n 6"]  # columns as in OPERATORS
    flip: Bool[Tensor, " n"]  # an active flip mirrors only these rows
    brightness: Float64[Tensor, " n"]
    saturation: Float64[Tensor, " n"]
    contrast: Float64[Tensor, " n"]
    shift: Int64[Tensor, "n 2"]  # rows, columns
    cutout: Int64[Tensor, "n 2"]  # centre row, centre column
    scale: Float64[Tensor, "n 2"]  # along x (the width), along y
    angle: Float64[Tensor, " n"]  # radians

    def __len__(self) -> int:
        return len(self.active)

    def __getitem__(self, index: Tensor | slice) -> Parameters:
        """Gather rows by an int64 index [m] (on the device of the parameters) or a slice."""
        return self._map(lambda tensor: tensor[index])

    def to(self, device: torch.device | str) -> Parameters:
        return self._map(lambda tensor: tensor.to(device))

    @staticmethod
    def cat(parts: Sequence[Parameters]) -> Parameters:
        """Join rows for images of one size.

        Raises:
            UserError: if there are no parts or the sizes differ.
        """
        if len(sizes := {part.size for part in parts}) != 1:
            raise UserError(f"joining augmentation parameters needs images of one size, got {sorted(sizes)}")
        names = [name for name in vars(parts[0]) if name != "size"]
        columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return Parameters(size=parts[0].size, **columns)

    def rows(self, *operators: str) -> Bool[Tensor, " n"]:
        """Boolean [n]: the rows where any of these operators is active."""
        return self.active[:, [OPERATORS.index(name) for name in operators]].any(1)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Parameters:
        columns = {name: function(value) for name, value in vars(self).items() if name != "size"}
        return Parameters(size=self.size, **columns)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """A DSA strategy: operators, composition rule and grid convention.

    Rules, where "listed" means named in ``operators``:
        ``single``: one listed operator, uniformly drawn (DSA, DM, IDM, DataDAM, MTT and successors).
        ``idc``: flip, color, one of crop, scale and rotate, cutout; each where listed (IDC, NCFM).
        ``fyi``: flip where listed, then one of the other listed operators (FYI).

    ``align_corners`` is False in DC, DSA, DM, IDM, DataDAM, IDC and NCFM; True in FYI, MTT and its
    successors. The constants below are those of every published variant.

    Raises:
        UserError: for an unknown or repeated operator, an unknown rule or a constant out of range.

    >>> augmentation = Augmentation.parse("color_crop")
    >>> rows = augmentation.draw(2, 8, torch.Generator().manual_seed(0), shared_operator=False)
    >>> augmentation(torch.zeros(2, 3, 8, 8), rows).shape
    torch.Size([2, 3, 8, 8])
    >>> augmentation.without("crop").operators
    ('color',)
    """

    operators: tuple[str, ...] = OPERATORS
    rule: Rule = "single"
    align_corners: bool = False
    flip_prob: float = 0.5
    brightness: float = 1.0  # added: uniform in ±brightness / 2
    saturation: float = 2.0  # factor: uniform in [0, saturation)
    contrast: float = 0.5  # factor: uniform in [contrast, contrast + 1)
    crop_ratio: float = 0.125  # of the image's size
    cutout_ratio: float = 0.5  # of the image's size
    scale: float = 1.2  # sampling coordinates times a uniform factor in [1 / scale, scale)
    rotate: float = 15.0  # degrees: uniform in ±rotate

    def __post_init__(self) -> None:
        for name in self.operators:
            if name not in OPERATORS:
                raise unknown("augmentation operator", name, OPERATORS)
        if len(set(self.operators)) < len(self.operators):
            raise UserError(f"augmentation operators repeat in {'_'.join(self.operators)!r}; name each once")
        if self.rule not in get_args(Rule):
            raise unknown("augmentation rule", self.rule, get_args(Rule))
        for name, (low, high) in _RANGES.items():
            if not low <= (value := getattr(self, name)) <= high:
                raise UserError(f"augmentation {name} must lie between {low} and {high}, got {value}")

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        rule: Rule = "single",
        align_corners: bool = False,
        constants: Mapping[str, float] | None = None,
    ) -> Augmentation:
        """Read a strategy such as ``"color_crop_cutout_flip_scale_rotate"``; "none" or "" is the identity.

        Raises:
            UserError: as the class does, and for an unknown constant.
        """
        constants = constants or {}
        for name in constants:
            if name not in _RANGES:
                raise unknown("constant of the augmentation", name, _RANGES)
        names = () if text in ("", "none") else tuple(text.split("_"))
        return cls(operators=names, rule=rule, align_corners=align_corners, **constants)

    def without(self, *operators: str) -> Augmentation:
        """Leave operators out, for example ``without("flip")`` where mirroring changes what a label means.

        Raises:
            UserError: for an unknown operator. Leaving out one that is not listed changes nothing.
        """
        for name in operators:
            if name not in OPERATORS:
                raise unknown("augmentation operator", name, OPERATORS)
        return dataclasses.replace(self, operators=tuple(x for x in self.operators if x not in operators))

    def shift(self, size: int) -> int:
        """The largest translation of a crop, in pixels: 4 at size 28 or 32."""
        return math.floor(self.crop_ratio * size + 0.5)

    def box(self, size: int) -> int:
        """The side of the cutout box, in pixels: 14 at size 28, 16 at size 32."""
        return math.floor(self.cutout_ratio * size + 0.5)

    def draw(self, count: int, size: int, generator: torch.Generator, *, shared_operator: bool) -> Parameters:
        """Draw ``count`` rows of parameters, on the generator's device, for images of ``size`` × ``size``.

        Every scalar is drawn for every row, whatever the operators: with equal generators all strategies draw
        equal scalars.

        Args:
            shared_operator: True draws the operator that the rule picks once for all rows, and its scalars
                per row, as in training; False draws it per row, as in siamese matching, where a row is a
                class.
        """
        # float64, so that scaling to integers never rounds up to the excluded end.
        u = torch.rand(count, 12, generator=generator, dtype=torch.float64, device=generator.device)
        choice, flip, brightness, saturation, contrast, row, column, top, left, x, y, angle = u.unbind(1)
        if shared_operator:
            choice = choice[:1].expand(count)
        shift, box = self.shift(size), self.box(size)
        centres = size + 1 if box % 2 == 0 else size  # as published: an even box may be centred past the edge
        return Parameters(
            size=size,
            active=self._active(choice),
            flip=flip < self.flip_prob,
            brightness=(brightness - 0.5) * self.brightness,
            saturation=saturation * self.saturation,
            contrast=contrast + self.contrast,
            shift=(torch.stack([row, column], 1) * (2 * shift + 1)).long() - shift,
            cutout=(torch.stack([top, left], 1) * centres).long(),
            scale=1 / self.scale + torch.stack([x, y], 1) * (self.scale - 1 / self.scale),
            angle=(angle - 0.5) * 2 * math.radians(self.rotate),
        )

    def _active(self, choice: Tensor) -> Tensor:
        """Return the operators that the rule applies, bool [n, 6], from one uniform number per row."""
        always, choices = {
            "single": ((), self.operators),
            "idc": (("flip", "color", "cutout"), tuple(x for x in self.operators if x in _SPATIAL)),
            "fyi": (("flip",), tuple(x for x in self.operators if x != "flip")),
        }[self.rule]
        active = torch.zeros(len(choice), len(OPERATORS), dtype=torch.bool, device=choice.device)
        for name in always:
            active[:, OPERATORS.index(name)] = name in self.operators
        pick = (choice * len(choices)).long()
        for position, name in enumerate(choices):
            active[:, OPERATORS.index(name)] = pick == position
        return active

    def __call__(self, images: Float[Tensor, "B C H W"], parameters: Parameters) -> Float[Tensor, "B C H W"]:
        """Augment images in preprocessed space, where the zero fill is the mean colour; differentiable.

        Each operator is one pass over the rows where it is active, in the order flip, color, crop, scale or
        rotate, cutout. Other rows stay bit-identical; if no operator is active, ``images`` is returned.

        Args:
            images: [B, C, H, W] of any float dtype, on any device; not changed.
            parameters: B rows that this augmentation drew for images of this size.

        Raises:
            UserError: if the parameters do not fit the images.
        """
        size = parameters.size
        if len(parameters) != len(images) or images.shape[-2:] != (size, size):
            raise UserError(
                f"augmentation parameters for {len(parameters)} images of {size}×{size} do not fit a batch "
                f"of shape {list(images.shape)}; draw them for its size and gather one row per image"
            )
        # Autocast would compute sampling grids in half precision.
        with torch.autocast(images.device.type, enabled=False):
            images = _apply(images, parameters, parameters.rows("flip") & parameters.flip, _flip)
            images = _apply(images, parameters, parameters.rows("color"), _color)
            images = _apply(images, parameters, parameters.rows("crop"), _crop)
            images = _apply(images, parameters, parameters.rows("scale", "rotate"), self._warp)
            images = _apply(images, parameters, parameters.rows("cutout"), self._cutout)
        return images

    def _warp(self, images: Tensor, p: Parameters) -> Tensor:
        scaled = p.rows("scale")[:, None, None]
        matrix = torch.where(scaled, ops.scaling(p.scale), ops.rotation(p.angle))
        return ops.warp(images, ops.to_device_of(images, matrix), self.align_corners)

    def _cutout(self, images: Tensor, p: Parameters) -> Tensor:
        return ops.cutout(images, ops.to_device_of(images, p.cutout), self.box(p.size))


def _flip(images: Tensor, _: Parameters) -> Tensor:
    return ops.flip(images)


def _color(images: Tensor, p: Parameters) -> Tensor:
    factors = ops.to_device_of(images, torch.stack([p.brightness, p.saturation, p.contrast]))
    return ops.color(images, *factors)


def _crop(images: Tensor, p: Parameters) -> Tensor:
    return ops.crop(images, ops.to_device_of(images, p.shift))


def _apply(
    images: Tensor, parameters: Parameters, mask: Tensor, operator: Callable[[Tensor, Parameters], Tensor]
) -> Tensor:
    """Apply an operator to the rows of a mask [B]; rows are selected on the device of the mask."""
    rows = mask.nonzero().squeeze(1)
    if len(rows) == 0:
        return images
    if len(rows) == len(images):
        return operator(images, parameters)
    index = ops.to_device_of(images, rows)
    return images.index_copy(0, index, operator(images.index_select(0, index), parameters[rows]))
