"""Options of the training of experts: recipe < options < ``--set``, validated once.

A recipe (``presets/experts/<name>.toml``) holds how a published method trains the networks it matches with.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import TypeAdapter

from dsdistill.augment.config import AugmentationConfig
from dsdistill.compute.optimiser import Kind
from dsdistill.config import options
from dsdistill.config.options import Change, as_toml, known_keys, merge, parse_override, with_absolute_paths
from dsdistill.config.presets import EXPERT_RECIPES
from dsdistill.config.recipe import Budget, load_expert_recipe
from dsdistill.config.sharing import shared
from dsdistill.config.validation import forbid_extra, validate
from dsdistill.data.config import DataConfig
from dsdistill.data.real import RealDataset
from dsdistill.errors import UserError, quoted
from dsdistill.files import expanded
from dsdistill.runtime.config import ComputeConfig

Epoch = Annotated[int, Ge(0)]

_SAME_EXPERTS = (
    "count",
    "data.root",
    "data.download",
    "compute.device",
    "compute.compile",
    "compute.cuda_graphs",
    "compute.chunk",
    "compute.class_chunk",
    "compute.threads",
)
"""Options that change no expert, up to rounding."""

_SAME_CODE = ("epochs", "keep", "seed", "compute.precision")
"""Further options from which compiled code does not follow; the precision is part of the digest already."""


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class Sharpness:
    """Adaptive GSAM, which moves towards flat minima (``objectives/sharpness.py``).

    A batch takes two passes, in float32 unless another precision is set.
    """

    rho: Annotated[float, Ge(0)] = 0.0
    """Radius ρ of the perturbation, relative to each weight; 0 makes it plain SGD."""
    alpha: Annotated[float, Ge(0)] = 0.0
    """Weight α of the gap between the two losses; 0 makes it ASAM."""


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class TwinsConfig:
    """Barlow Twins (``objectives/twins.py``); read where ``objective`` is "barlow-twins"."""

    off_diagonal: Annotated[float, Ge(0)] = 0.0051
    """λ, the weight of the correlations of different numbers."""
    projector: tuple[Annotated[int, Ge(1)], ...] = (2048, 2048, 2048)
    """Widths of the layers behind the features; batch normalisation and ReLU follow all but the last."""

    def __post_init__(self) -> None:
        if not self.projector:
            raise UserError(
                "twins.projector lists the widths of at least one layer, such as [2048, 2048, 2048]"
            )


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class ExpertCompute(ComputeConfig):
    """Options of the computation. ``auto`` of the precision is fp32 on a CUDA device."""

    cuda_graphs: Literal["auto"] | bool = "auto"
    """Replay loss and gradient of a step as a CUDA graph; auto times it at the first step both ways, and
    keeps what is faster. Not for steps of more than one pass, nor for weights or records that change by
    epoch."""


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """All options of the training of experts. Expert e is the same however many are trained.

    An expert minimises the cross-entropy over shuffled batches, or what ``objective`` says. E stands for
    ``epochs``, counted from 0.
    """

    recipe: str
    """A recipe's name, or the path of a recipe file."""
    data: DataConfig
    network: str = "convnet"
    """That is trained; see the command ``networks``."""
    count: Annotated[int, Ge(1)]
    """Networks in the finished file."""
    epochs: Annotated[int, Ge(1), Le(1_000_000)]
    """Of training each."""
    keep: Literal["ends", "last", "all", "doubling"] | tuple[Epoch, ...] = "all"
    """Epochs whose weights are stored: the first and last, the last alone, all, or those listed; 0 is the
    initial weights. "doubling" stores 0, 1, 2, 4, 8, … and the last."""
    seed: Annotated[int, Ge(-(2**63)), Lt(2**63)] = 0
    """Of every random draw."""
    optimiser: Kind = "sgd"
    """The rule of a step."""
    objective: Literal["classification", "barlow-twins"] = "classification"
    """What is learned: the classes of images; or, without labels, to embed two augmented views of an image
    alike. Of data with labels, the classifier is then a linear probe of the features."""
    twins: TwinsConfig = field(default_factory=TwinsConfig)
    lr: Annotated[float, Gt(0)] = 0.01
    """Learning rate, which warm-up and schedule multiply."""
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Of SGD. The other optimisers ignore it; their β is 0.9 and 0.999."""
    weight_decay: Annotated[float, Ge(0)] = 0.0
    """Times the weights, it is added to the gradient; "adamw" takes it from the weights instead."""
    batch_size: Annotated[int, Ge(1)] = 256
    """Images of a step."""
    drop_last: bool = False
    """Leave out the last batch of an epoch if it is smaller than the others."""
    epoch_batches: Annotated[int, Ge(0)] = 0
    """Most batches of an epoch, so that weights are stored more often than once in a pass; 0 for all."""
    schedule: Literal["steps", "cosine"] = "steps"
    """Of the learning rate: "steps" drops it at ``drop_at``. "cosine" multiplies it by ½(1 + cos(πe/E)) in
    epoch e; after W epochs of warm-up, e and E are counted from there."""
    warmup_epochs: Annotated[int, Ge(0)] = 0
    """W, the number of first epochs in which the learning rate is lower."""
    warmup_from: Annotated[float, Ge(0), Le(1)] = 0.01
    """What it is multiplied by in epoch 0. The factor grows by equal amounts and is 1 from epoch W on."""
    drop_at: tuple[Annotated[float, Ge(0), Le(1)], ...] = ()
    """Of "steps": the learning rate drops before epoch ⌊E·f⌋ for each share f (torch's ``MultiStepLR``)."""
    drop_factor: Annotated[float, Gt(0)] = 0.1
    """What it is multiplied by then."""
    drop_restarts: bool = False
    """Reset the momentum to zero at each drop, as code does that makes a new optimiser for the new rate."""
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of the uniform distribution in the targets."""
    ramp_epochs: Annotated[int, Ge(0)] = 0
    """First epochs in which the weight of the cross-entropy is below 1 (AST's clipping loss)."""
    ramp_from: Annotated[float, Ge(0), Le(1)] = 1.0
    """Its weight in epoch 0. It grows by equal amounts and is 1 from epoch ``ramp_epochs`` on."""
    gradient_penalty: Annotated[float, Ge(0)] = 0.0
    """Weight of AST's penalty on the input gradients of unaugmented images; 0 leaves it out."""
    sharpness: Sharpness = field(default_factory=Sharpness)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    """One draw of the operator per batch, its parameters per image."""
    crop_scale: tuple[Annotated[float, Gt(0), Le(1)], Annotated[float, Gt(0), Le(1)]] | None = None
    """Smallest and largest share of an image that a random crop enlarges, before the augmentation."""
    cutmix: Annotated[float, Ge(0), Le(1)] = 0.0
    """Probability that a batch is mixed after the augmentation."""
    record_el2n: Annotated[int, Ge(0)] = 0
    """First epochs, all if there are fewer, over which the EL2N score of each training image is averaged: the
    norm of softmax(logits) - one-hot label (Paul et al. 2021), from the passes of training themselves. 0
    stores no scores."""
    test: Literal["none", "stored", "validation"] = "none"
    """"stored" reads the test images, and stores the accuracy on them at every stored epoch; weights do not
    depend on it. "validation" stores the accuracy on a tenth of the training images, the same for every seed,
    which is held out of the training: choices are to be made by it, such as that of an epoch."""
    compute: ExpertCompute = field(default_factory=ExpertCompute)

    def __post_init__(self) -> None:
        if self.crop_scale and self.crop_scale[0] > self.crop_scale[1]:
            raise UserError(f"crop_scale is the smaller share first, not {list(self.crop_scale)}")
        epochs = self.stored_epochs
        if not epochs or epochs[-1] > self.epochs:
            raise UserError(
                f"keep lists epochs from 0 (initial weights) to epochs = {self.epochs}, not {list(epochs)}"
            )
        self._check_el2n()
        self._check_objective()

    @property
    def needs_labels(self) -> bool:
        """Whether images need labels."""
        return self.objective == "classification"

    def _check_objective(self) -> None:
        """Check that a training without labels has no option that goes by them."""
        if self.needs_labels:
            return
        of_labels = {
            "cutmix": self.cutmix,
            "label_smoothing": self.label_smoothing,
            "ramp_epochs": self.ramp_epochs,
            "gradient_penalty": self.gradient_penalty,
            "sharpness.rho": self.sharpness.rho,
            "record_el2n": self.record_el2n,
        }
        if names := [name for name, value in of_labels.items() if value]:
            raise UserError(
                f"objective={self.objective} has no classes that {names[0]} is of: set {names[0]}=0"
            )

    def _check_el2n(self) -> None:
        """Check that every image is seen by itself in each epoch whose scores are recorded."""
        if self.record_el2n and self.cutmix:
            raise UserError(
                "an image that CutMix mixes with another has no EL2N of its own: set cutmix=0 to record it"
            )
        if self.record_el2n and (self.drop_last or self.epoch_batches):
            raise UserError(
                "EL2N is recorded of all images in every epoch: set drop_last=false and epoch_batches=0, "
                "which leave none out"
            )
        if self.record_el2n and self.holds_out:
            raise UserError(
                "EL2N is recorded of all training images, and test=validation holds some out: set "
                "record_el2n=0, test=stored or test=none"
            )

    @property
    def holds_out(self) -> bool:
        """Whether a part of the training images is held out; see `validation_split`."""
        return self.test == "validation"

    @property
    def stored_epochs(self) -> tuple[int, ...]:
        """The epochs whose weights are stored, ascending."""
        match self.keep:
            case "ends":
                return (0, self.epochs)
            case "last":
                return (self.epochs,)
            case "all":
                return tuple(range(self.epochs + 1))
            case "doubling":
                return (0, *(1 << power for power in range((self.epochs - 1).bit_length())), self.epochs)
            case listed:
                return tuple(sorted(set(listed)))

    @property
    def drop_epochs(self) -> list[int]:
        """The epochs, counted from 0, at whose start the learning rate drops."""
        # Rounding undoes what a float loses: 60·(2 / 3) has to be 40 whatever the digits in the file.
        return [math.floor(round(self.epochs * fraction, 9)) for fraction in self.drop_at]

    def learning_rate(self, epoch: int) -> float:
        """Return the learning rate in an epoch counted from 0."""
        lr = self.lr
        if self.schedule == "steps":
            lr *= self.drop_factor ** sum(drop <= epoch for drop in self.drop_epochs)
        if epoch < self.warmup_epochs:
            lr *= self.warmup_from + (1 - self.warmup_from) * epoch / self.warmup_epochs
        elif self.schedule == "cosine":
            share = (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
            lr *= (1 + math.cos(math.pi * share)) / 2
        return lr

    def loss_weight(self, epoch: int) -> float:
        """Return the weight of the cross-entropy in an epoch counted from 0."""
        if epoch >= self.ramp_epochs:
            return 1.0
        return self.ramp_from + (1 - self.ramp_from) * epoch / self.ramp_epochs


def resolve(
    explicit: Mapping[str, Any], overrides: Iterable[str] = (), budget: Budget = "paper"
) -> ExpertConfig:
    """Merge recipe, options and overrides into one validated config; later ones win.

    Args:
        explicit: nested options, as in a config file.
        overrides: ``key=value`` texts, dotted keys, values in TOML (a bare word is a string).
        budget: the scale of the recipe.

    Raises:
        UserError: an unknown key, with the nearest one; a value out of range; something required is missing.
    """
    explicit = dict(explicit)
    for text in overrides:
        explicit = merge(explicit, parse_override(text))
    data = explicit.get("data", {})
    if not isinstance(data, Mapping):
        raise UserError(f"option 'data' is a table, not {quoted(data)}; give its keys, such as data.name")
    if not data.get("name"):
        raise UserError("no data set given; pass --dataset NAME (dsdistill datasets lists them)")
    recipe = str(explicit.get("recipe", ""))
    if not recipe:
        raise UserError(f"no recipe given; pass --recipe {' or --recipe '.join(EXPERT_RECIPES.names())}")
    if recipe.endswith(".toml"):
        explicit["recipe"] = recipe = str(expanded(recipe).absolute())
    explicit = with_absolute_paths(explicit)
    loaded = load_expert_recipe(recipe)
    loaded.load_plugins()
    table = merge(loaded.options(str(data["name"]), budget), explicit)
    return validate(ExpertConfig, table, "option", known_keys(ExpertConfig))


def compiled_options(config: ExpertConfig, real: RealDataset) -> dict[str, Any]:
    """Return what the compiled code of a training follows from, besides its options of ``compute``."""
    table = {key: value for key, value in weights(config).items() if key not in _SAME_CODE}
    return table | {"images": real.fingerprint}


def to_toml(config: ExpertConfig) -> str:
    """Write a config as TOML."""
    return as_toml(_table(config))


def for_sharing(config: ExpertConfig) -> str:
    """Write a config as TOML without folders, as the file of the experts tells it."""
    return as_toml(shared(_table(config)))


def _table(config: ExpertConfig) -> dict[str, Any]:
    return TypeAdapter(ExpertConfig).dump_python(config, mode="json", exclude_none=True)


def weights(config: ExpertConfig) -> dict[str, Any]:
    """Return the options that make the weights of experts: without their number, places and hardware."""
    flat = options.flatten(shared(_table(config)))
    if not config.record_el2n:  # experts of versions without it are the same
        del flat["record_el2n"]
    if config.needs_labels:
        flat = {key: value for key, value in flat.items() if key != "objective" and key[:6] != "twins."}
    if not config.holds_out:
        del flat["test"]
    return {key: value for key, value in flat.items() if key not in _SAME_EXPERTS}


def difference(before: Mapping[str, Any], after: ExpertConfig) -> Change | None:
    """Return the first option that makes other experts, with its value in both; None if there is none.

    The number of experts, the place of the data and the hardware make no other experts, up to rounding.

    Args:
        before: a config as `to_toml` wrote it. An older version may have written it: options that it lacks
            have their defaults.
    """
    defaults = _table(ExpertConfig(recipe="", data=DataConfig(name=""), count=1, epochs=1))
    complete = merge(defaults, before)
    return next(iter(options.difference(shared(complete), shared(_table(after)), _SAME_EXPERTS)), None)


def decisions(asked: ExpertConfig, config: ExpertConfig) -> str:
    """Say what `decide_auto` decided."""
    return options.decisions(_table(asked), _table(config))
