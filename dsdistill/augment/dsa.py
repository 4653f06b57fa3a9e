"""Differentiable siamese augmentation: draw parameters once, apply them to any batch.

Drawing and applying are apart because matching methods are *siamese*: the real and the synthetic images of
a class must meet the same augmentation. Draw one row per class, gather rows by label, apply.

    parameters = augmentation.draw(num_classes, size, generator, shared_operator=False)
    real, synthetic = (augmentation(x, parameters[y]) for x, y in batches)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from dsdistill.augment import operators as ops
from dsdistill.errors import UserError, unknown

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
    """What to do to n images: one row for each, on the CPU unless drawn or moved elsewhere.

    Keep them on the CPU: rows are then selected there, and a CUDA device is never waited for.
    """

    size: int  # height and width of the images they were drawn for
    active: Tensor  # bool [n, 6], columns as in OPERATORS
    flip: Tensor  # bool [n]: an active flip mirrors only these rows
    brightness: Tensor  # float64 [n], like all real parameters
    saturation: Tensor  # [n]
    contrast: Tensor  # [n]
    shift: Tensor  # int64 [n, 2]: rows, columns
    cutout: Tensor  # int64 [n, 2]: centre row, centre column
    scale: Tensor  # [n, 2]: along x (the width), along y
    angle: Tensor  # [n], radians

    def __len__(self) -> int:
        return len(self.active)

    def __getitem__(self, index: Tensor | slice) -> Parameters:
        """Gather rows by an int64 index [m] (on the device of the parameters) or a slice."""
        return self._each(lambda tensor: tensor[index])

    def to(self, device: torch.device | str) -> Parameters:
        return self._each(lambda tensor: tensor.to(device))

    @staticmethod
    def cat(parts: Sequence[Parameters]) -> Parameters:
        """Join rows drawn for images of one size.

        Raises:
            UserError: if there are no parts or the sizes differ.
        """
        if len(sizes := {part.size for part in parts}) != 1:
            raise UserError(f"joining augmentation parameters needs images of one size, got {sorted(sizes)}")
        names = [name for name in vars(parts[0]) if name != "size"]
        columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return Parameters(size=parts[0].size, **columns)

    def rows(self, *operators: str) -> Tensor:
        """Boolean [n]: the rows where any of these operators is active."""
        return self.active[:, [OPERATORS.index(name) for name in operators]].any(1)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Parameters:
        columns = {name: change(value) for name, value in vars(self).items() if name != "size"}
        return Parameters(size=self.size, **columns)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """A DSA strategy: which operators, which composition rule, which grid convention.

    Rules, with "listed" meaning named in ``operators``:
        ``single``: one listed operator, uniformly drawn (DSA, DM, IDM, DataDAM, MTT and successors).
        ``idc``: flip, color, one of crop, scale and rotate, cutout; each where listed (IDC, NCFM).
        ``fyi``: flip where listed, then one of the other listed operators (FYI).

    ``align_corners`` is False in DC, DSA, DM, IDM, DataDAM, IDC and NCFM; True in FYI, MTT and its
    successors. The constants below are those of every published variant.

    Raises:
        UserError: for an unknown or repeated operator, an unknown rule or a constant out of range.
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
        cls, text: str, *, rule: Rule = "single", align_corners: bool = False, **constants: float
    ) -> Augmentation:
        """Read a strategy such as ``"color_crop_cutout_flip_scale_rotate"``; "none" or "" is the identity.

        Raises:
            UserError: as the class does.
        """
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

        Every scalar is drawn for every row whatever the operators, so that strategies given equal generators
        draw equal scalars.

        Args:
            shared_operator: True draws the one operator that the rule picks once for all rows and its scalars
                per row, as students are trained; False draws it per row, as in siamese matching, where a row
                is a class.
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
        """Which operators the rule applies [n, 6], given one uniform number per row for the one it picks."""
        always, picked = {
            "single": ((), self.operators),
            "idc": (("flip", "color", "cutout"), tuple(x for x in self.operators if x in _SPATIAL)),
            "fyi": (("flip",), tuple(x for x in self.operators if x != "flip")),
        }[self.rule]
        active = torch.zeros(len(choice), len(OPERATORS), dtype=torch.bool, device=choice.device)
        for name in always:
            active[:, OPERATORS.index(name)] = name in self.operators
        pick = (choice * len(picked)).long()
        for position, name in enumerate(picked):
            active[:, OPERATORS.index(name)] = pick == position
        return active

    def __call__(self, images: Tensor, parameters: Parameters) -> Tensor:
        """Augment images in preprocessed space, where the zero fill is the mean colour; differentiable.

        Each operator is one pass over the rows where it is active, in the order flip, color, crop, scale or
        rotate, cutout. Other rows stay bit-identical; with nothing to do, ``images`` itself is returned.

        Args:
            images: [B, C, H, W] of any float dtype, on any device; not changed.
            parameters: B rows drawn by this augmentation for images of this size.

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
            images = _on(images, parameters, parameters.rows("flip") & parameters.flip, _flip)
            images = _on(images, parameters, parameters.rows("color"), _color)
            images = _on(images, parameters, parameters.rows("crop"), _crop)
            images = _on(images, parameters, parameters.rows("scale", "rotate"), self._warp)
            images = _on(images, parameters, parameters.rows("cutout"), self._cutout)
        return images

    def _warp(self, images: Tensor, p: Parameters) -> Tensor:
        scaled = p.rows("scale")[:, None, None]
        matrix = torch.where(scaled, ops.scaling(p.scale), ops.rotation(p.angle))
        return ops.warp(images, _sent(matrix, images), self.align_corners)

    def _cutout(self, images: Tensor, p: Parameters) -> Tensor:
        return ops.cutout(images, _sent(p.cutout, images), self.box(p.size))


def _flip(images: Tensor, _: Parameters) -> Tensor:
    return ops.flip(images)


def _color(images: Tensor, p: Parameters) -> Tensor:
    factors = _sent(torch.stack([p.brightness, p.saturation, p.contrast]), images)
    return ops.color(images, *factors)


def _crop(images: Tensor, p: Parameters) -> Tensor:
    return ops.crop(images, _sent(p.shift, images))


def _on(
    images: Tensor, parameters: Parameters, mask: Tensor, operator: Callable[[Tensor, Parameters], Tensor]
) -> Tensor:
    """Apply an operator to the rows of a mask [B]; the mask's device decides where rows are selected."""
    rows = mask.nonzero().squeeze(1)
    if len(rows) == 0:
        return images
    if len(rows) == len(images):
        return operator(images, parameters)
    index = _sent(rows, images)
    return images.index_copy(0, index, operator(images.index_select(0, index), parameters[rows]))


def _sent(tensor: Tensor, images: Tensor) -> Tensor:
    """Bring a small tensor of parameters to the images without waiting for their device."""
    return tensor.to(images.device, non_blocking=images.is_cuda)
