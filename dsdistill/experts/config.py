"""What the training of experts is told: recipe < options < ``--set``, validated once.

A recipe (``presets/experts/<name>.toml``) holds how a published method trains the networks it matches with.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
import torch
from annotated_types import Ge, Gt, Le, Lt
from pydantic import TypeAdapter

from dsdistill.augment.config import AugmentationConfig
from dsdistill.config.options import known_keys, merged, parsed_override, with_absolute_paths
from dsdistill.config.recipe import EXPERT_RECIPES, load_expert_recipe
from dsdistill.config.validation import dotted, forbid_extra, validated
from dsdistill.data.config import DataConfig
from dsdistill.data.real import RealDataset, Task
from dsdistill.errors import UserError
from dsdistill.runtime.config import ComputeConfig
from dsdistill.runtime.notice import Notify

Epoch = Annotated[int, Ge(0)]

_INDIFFERENT = (
    "count",
    "data.root",
    "data.download",
    "compute.device",
    "compute.compile",
    "compute.chunk",
    "compute.class_chunk",
    "compute.threads",
)


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class Sharpness:
    """Adaptive GSAM, which steps towards flat minima (``objectives/sharpness.py``).

    A batch takes two passes, in float32 unless told otherwise.
    """

    rho: Annotated[float, Ge(0)] = 0.0
    """How far from the weights, relative to each, the loss is looked at; 0 makes it plain SGD."""
    alpha: Annotated[float, Ge(0)] = 0.0
    """How strongly the gap between the two losses is pushed down; 0 makes it ASAM."""


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """Everything the training of experts is told. Expert e is the same however many are trained.

    An expert minimises the cross-entropy by SGD over shuffled batches. With E = ``epochs``, the learning rate
    is multiplied by ``drop_factor`` before epoch ⌊E·f⌋, counted from 0, for each share f of ``drop_at``
    (torch's ``MultiStepLR``).
    """

    recipe: str
    data: DataConfig
    network: str = "convnet"
    count: Annotated[int, Ge(1)]
    epochs: Annotated[int, Ge(1)]
    keep: Literal["ends", "all"] | tuple[Epoch, ...] = "all"
    """Epochs whose weights are stored: the first and last, all, or those listed; 0 is the initial weights."""
    seed: Annotated[int, Ge(-(2**63)), Lt(2**63)] = 0
    lr: Annotated[float, Gt(0)] = 0.01
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.0
    weight_decay: Annotated[float, Ge(0)] = 0.0
    batch_size: Annotated[int, Ge(1)] = 256
    drop_last: bool = False
    """Leave out an epoch's last batch where it is smaller than the others."""
    drop_at: tuple[Annotated[float, Ge(0), Le(1)], ...] = ()
    drop_factor: Annotated[float, Gt(0)] = 0.1
    drop_restarts: bool = False
    """At a drop the momentum begins from zero, as it does where a new optimiser is made for the new rate."""
    ramp_epochs: Annotated[int, Ge(0)] = 0
    """Epochs in which the cross-entropy counts less than fully (AST's clipping loss)."""
    ramp_from: Annotated[float, Ge(0), Le(1)] = 1.0
    """How much it counts in the first of them; it grows by equal amounts, to 1 in the first epoch after."""
    gradient_penalty: Annotated[float, Ge(0)] = 0.0
    """Weight of AST's penalty on the input gradients of images not augmented; 0 leaves it out."""
    sharpness: Sharpness = field(default_factory=Sharpness)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    """One draw of the operator per batch, its parameters per image."""
    cutmix: Annotated[float, Ge(0), Le(1)] = 0.0
    """Probability that a batch is mixed after the augmentation."""
    compute: ComputeConfig = field(default_factory=ComputeConfig)

    def __post_init__(self) -> None:
        if not self.kept or self.kept[-1] > self.epochs:
            raise UserError(
                f"keep lists epochs from 0 (initial weights) to epochs = {self.epochs}, not {list(self.kept)}"
            )

    @property
    def kept(self) -> tuple[int, ...]:
        """The epochs whose weights are stored, ascending."""
        if self.keep == "ends":
            return (0, self.epochs)
        return tuple(range(self.epochs + 1)) if self.keep == "all" else tuple(sorted(set(self.keep)))

    @property
    def drops(self) -> list[int]:
        """The epochs, counted from 0, that are the first with a lower learning rate."""
        # Rounding undoes what a float loses: 60·(2 / 3) has to be 40 whatever the digits in the file.
        return [math.floor(round(self.epochs * share, 9)) for share in self.drop_at]

    def rate(self, epoch: int) -> float:
        """Return the learning rate in an epoch counted from 0."""
        return self.lr * self.drop_factor ** sum(drop <= epoch for drop in self.drops)

    def factor(self, epoch: int) -> float:
        """Return what the cross-entropy is multiplied by in an epoch counted from 0."""
        if epoch >= self.ramp_epochs:
            return 1.0
        return self.ramp_from + (1 - self.ramp_from) * epoch / self.ramp_epochs


def resolve(explicit: Mapping[str, Any], overrides: Iterable[str] = ()) -> ExpertConfig:
    """Join recipe, options and overrides into one validated config; later ones win.

    Args:
        explicit: nested options that were given by name.
        overrides: ``key=value`` texts, dotted keys, values in TOML (a bare word is a string).

    Raises:
        UserError: an unknown key, with the nearest one; a value out of range; something required is missing.
    """
    given = dict(explicit)
    for text in overrides:
        given = merged(given, parsed_override(text))
    data = given.get("data", {})
    if not isinstance(data, Mapping):
        raise UserError(f"option 'data' is a table, not {data!r}; give its keys, such as data.name")
    if not data.get("name"):
        raise UserError("no data set given; pass --dataset NAME (dsdistill datasets lists them)")
    recipe = str(given.get("recipe", ""))
    if not recipe:
        raise UserError(f"no recipe given; pass --recipe {' or --recipe '.join(EXPERT_RECIPES.names())}")
    if recipe.endswith(".toml"):
        given["recipe"] = recipe = str(Path(recipe).expanduser().absolute())
    given = with_absolute_paths(given)
    options = merged(load_expert_recipe(recipe).options(str(data["name"])), given)
    return validated(ExpertConfig, options, "option", known_keys(ExpertConfig))


def resolved(
    config: ExpertConfig, task: Task, real: RealDataset, device: torch.device, notify: Notify
) -> ExpertConfig:
    """Decide every ``auto`` from the machine, data and work, so that the written config repeats the work."""
    told, pixels = config.compute, real.images.numel() * config.epochs * config.count
    if config.sharpness.rho:
        pixels *= 2
        if told.precision == "auto":  # a ρ of 0.01 moves most weights by less than bfloat16 can tell apart
            told = dataclasses.replace(told, precision="fp32")
    decided = told.decided(device, pixels, notify)
    seen = dataclasses.replace(config.data, size=task.size, channels=task.channels)
    return dataclasses.replace(config, compute=decided, data=seen)


def to_toml(config: ExpertConfig) -> str:
    """Write a config as TOML."""
    return tomli_w.dumps(_table(config))


def _table(config: ExpertConfig) -> dict[str, Any]:
    return TypeAdapter(ExpertConfig).dump_python(config, mode="json", exclude_none=True)


def difference(before: str, now: ExpertConfig) -> tuple[str, Any, Any] | None:
    """Return the first option that makes other experts, with its value in both; None where there is none.

    How many are trained, where the data lie and what computes them make no others, up to rounding.

    Args:
        before: a config as `to_toml` wrote it, perhaps before there were all options of today: those it lacks
            had their defaults.
    """
    defaults = _table(ExpertConfig(recipe="", data=DataConfig(name=""), count=1, epochs=1))
    one = dotted(merged(defaults, tomllib.loads(before)))
    other = dotted(_table(now))
    for key in sorted(one.keys() | other.keys()):
        if one.get(key) != other.get(key) and key not in _INDIFFERENT:
            return key, one.get(key), other.get(key)
    return None
