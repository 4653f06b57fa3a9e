"""Evaluation protocols: how students are trained on a distilled set, and how many. Read from TOML.

A distilled set is evaluated by training fresh networks ("students") on it and testing them on real images.
Their accuracy depends on the set, and as much on how they are trained. A protocol fixes the training:
optimiser, learning rate and its schedule, epochs, batch size, augmentation, and the number of students. The
protocols of the published methods are in ``presets/protocols``. What depends on data set and IPC is in tables
of ``settings``: see `dsdistill.config.settings`. Accuracies are comparable only under the same protocol.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from dsdistill.augment.crops import RandomResizedCrop
from dsdistill.augment.dsa import Augmentation, Rule
from dsdistill.augment.mix import CutMix, Mixup
from dsdistill.augment.training import Transform
from dsdistill.config.labels import LabelConfig, Source
from dsdistill.config.options import known_keys, merge
from dsdistill.config.presets import PROTOCOLS
from dsdistill.config.settings import Setting
from dsdistill.config.transfer import TransferConfig
from dsdistill.config.validation import forbid_extra, validate
from dsdistill.errors import UserError, unknown
from dsdistill.networks.names import with_norm
from dsdistill.plugs import names_in

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How students are trained and how many there are.

    A student minimises the loss of ``labels`` over ``epochs_run`` epochs of shuffled batches; the last batch
    of an epoch may be smaller. It is tested once, after the last epoch. The learning rate is multiplied by
    ``drop_factor`` at the start of each epoch in ``milestones``. A share f in ``drop_at`` sets a milestone,
    with E = ``epochs`` and epochs counted from 0:

        schedule "restart" (DC, DSA, DM and their successors): epochs 0 … E are run, one more than the name
            says. The rate drops after epoch ⌊E·f⌋ + 1, and the optimiser starts anew, without momentum.
        schedule "steps" (IDC, NCFM; torch's ``MultiStepLR``): epochs 0 … E - 1 are run. The rate drops before
            epoch ⌊E·f⌋, and the optimiser keeps its momentum.
        schedule "cosine" (SRe2L, RDED and their successors): epochs 0 … E - 1 are run, number e of them with
            ½·(1 + cos(π·e / (E·η))) of the first rate, η = ``stretch``; it ends at 0 for η = 1 and at a half
            for η = 2. With ``final`` f the factor is f + (1 - f) times that. In the first ``warmup_epochs`` W
            the rate grows in equal parts from ``warmup_from`` of it; the cosine is that of the E - W epochs
            after them.

    Attributes:
        name: the name in results.
        title, source: a description and a citation, for people.
        student: the architecture of the students, unless the user or the distilled set names one.
        student_norm: the normalisation that the network of a set is given where its students have it, if
            there is such a one; empty leaves it as it is.
        lr: learning rate in the first epoch, or "learned": the one stored with the distilled set.
        lr_of: learning rates of other architectures, by the first part of their names.
        momentum: of SGD.
        optimiser: "sgd", or "adam" and "adamw" with torch's betas, which ignore the momentum.
        momentum_after_drop: SGD's momentum from the first drop on (AST); None keeps it.
        weight_decay: added to the gradient for SGD and Adam, decoupled from it for AdamW.
        decays: the parameters that decay: "all", or "matrices", those of more than one dimension.
        epochs: of training a student.
        schedule: see above.
        drop_at: shares of the epochs, in [0, 1], at which the rate drops.
        drop_factor: what it is multiplied by then.
        stretch, final, warmup_epochs, warmup_from: of the schedule "cosine".
        batch_size: images of a step.
        accumulate: equal parts that a batch is split into. Their gradients are averaged before a step; a
            network with batch statistics sees one part at a time.
        crop_scale: smallest and largest share of an image that a random crop takes and enlarges, before the
            augmentation; None, or (1, 1), for no crop.
        patches: before the crop, columns and then rows of F×F patches are permuted, the same way in all
            images of a batch (RDED); 1 for none.
        cells: an image is a grid of g×g smaller ones of its class. One of them is drawn, and the crop is
            taken inside it and enlarged to the whole (PCA); 1 for none. Labels are hard then.
        augmentation: operators joined by ``_``, or "none". A batch gets one draw, its scalars per image.
        augmentation_constants: constants of the operators that are not DSA's.
        augmentation_rule, align_corners: see ``dsdistill.augment.dsa.Augmentation``.
        cutmix, cutmix_beta: the probability per batch of CutMix after the augmentation, and its β; see
            ``dsdistill.augment.mix.CutMix``.
        mixup, mixup_beta: the same of mixup, in place of CutMix.
        test_zoom: test images are enlarged to ⌊size / 7⌋·8 pixels and cropped at the centre, as RDED does.
        labels: which labels, and the loss; see ``dsdistill.config.labels``.
        transfer: what follows, where students are pre-trained on a set's targets and then learn other data;
            None where they are classifiers of the data that the set was distilled from.
        repeats: students per set, each from its own initial weights.
    """

    name: str
    title: str
    source: str
    student: str = "convnet"
    student_norm: str = ""
    lr: Positive | Literal["learned"] = 0.01
    lr_of: Mapping[str, Positive] = field(default_factory=dict)
    optimiser: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: Fraction = 0.9
    momentum_after_drop: Fraction | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    decays: Literal["all", "matrices"] = "all"
    epochs: Count
    schedule: Literal["restart", "steps", "cosine"] = "restart"
    stretch: Positive = 1.0
    final: Fraction = 0.0
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    warmup_from: Fraction = 0.01
    drop_at: tuple[Fraction, ...] = (0.5,)
    drop_factor: Positive = 0.1
    batch_size: Count = 256
    accumulate: Count = 1
    crop_scale: tuple[Fraction, Fraction] | None = None
    patches: Count = 1
    cells: Count = 1
    augmentation: str = "none"
    augmentation_constants: Mapping[str, float] = field(default_factory=dict)
    augmentation_rule: Rule = "single"
    align_corners: bool = False
    cutmix: Fraction = 0.0
    cutmix_beta: Positive = 1.0
    mixup: Fraction = 0.0
    mixup_beta: Positive = 1.0
    test_zoom: bool = False
    labels: LabelConfig = field(default_factory=LabelConfig)
    transfer: TransferConfig | None = None
    repeats: Annotated[int, Field(ge=1, le=10_000)] = 5

    def __post_init__(self) -> None:
        self.transform_for(mirror=True)  # raises if an operator is unknown or a range is empty
        if self.transfer:
            Augmentation.parse(self.transfer.augmentation)  # likewise
        if self.cutmix and self.mixup:
            raise UserError("a batch is mixed in one way: set cutmix or mixup to 0")
        if self.schedule == "cosine" and self.warmup_epochs >= self.epochs:
            raise UserError(f"warmup_epochs is below epochs = {self.epochs}, not {self.warmup_epochs}")
        if self.cells > 1 and self.labels.source != "hard":
            raise UserError(
                f"students see one cell of an image at a time (cells = {self.cells}), and labels of another "
                'source than "hard" are of whole images: use hard labels, or a protocol with cells = 1'
            )

    @property
    def epochs_run(self) -> int:
        """Epochs that a student trains: ``epochs``, and one more with the schedule "restart"."""
        return self.epochs + 1 if self.schedule == "restart" else self.epochs

    def batches(self, images: int) -> int:
        """Return the batches of an epoch of so many images, the last of which may be smaller."""
        return -(-images // self.batch_size)

    def steps(self, images: int) -> int:
        """Return the optimiser steps that one student takes on so many images."""
        return self.epochs_run * self.batches(images)

    @property
    def milestones(self) -> tuple[int, ...]:
        """The first epoch at each lower rate, ascending, counted from 0: 502 for DSA's 1000 epochs."""
        if self.schedule == "cosine":
            return ()
        # Rounded first, because floats are inexact: 300·(2 / 3) must be 200 however many digits the file has.
        drops = sorted(math.floor(round(self.epochs * share, 9)) for share in self.drop_at)
        return tuple(epoch + 2 for epoch in drops) if self.schedule == "restart" else tuple(drops)

    def decay(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0, as a multiple of the initial one."""
        if self.schedule == "cosine":
            if epoch < self.warmup_epochs:
                return self.warmup_from + (1 - self.warmup_from) * epoch / self.warmup_epochs
            past = (epoch - self.warmup_epochs) / ((self.epochs - self.warmup_epochs) * self.stretch)
            return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * past))
        return self.drop_factor ** sum(milestone <= epoch for milestone in self.milestones)

    def momentum_in(self, epoch: int) -> float:
        """Return SGD's momentum in an epoch, counted from 0."""
        dropped = any(milestone <= epoch for milestone in self.milestones)
        return self.momentum_after_drop if dropped and self.momentum_after_drop is not None else self.momentum

    def augmentation_for(self, mirror: bool) -> Augmentation:
        """Return the augmentation of the students.

        Args:
            mirror: whether a mirrored image keeps its label; if not, flip is left out.
        """
        augmentation = Augmentation.parse(
            self.augmentation,
            rule=self.augmentation_rule,
            align_corners=self.align_corners,
            constants=self.augmentation_constants,
        )
        return augmentation if mirror else augmentation.without("flip")

    def transform_for(self, mirror: bool) -> Transform:
        """Return what happens to the students' images before they are mixed; ``mirror`` as above."""
        scale = self.crop_scale
        crop = RandomResizedCrop(scale=scale) if scale and scale != (1.0, 1.0) else None
        return Transform(self.augmentation_for(mirror), crop, self.patches, self.cells)

    def check_size(self, size: int) -> None:
        """Check that students can be trained on images of ``size`` × ``size``.

        Raises:
            UserError: the cells do not divide the image.
        """
        if size % self.cells:
            raise UserError(
                f"protocol {self.name!r} takes images for grids of {self.cells}×{self.cells} cells, which "
                f"do not divide {size}×{size} pixels: use a protocol whose cells do, or one without cells"
            )

    def student_for(self, network: str) -> str:
        """Return the network of the students of a set, unless the user names another.

        Args:
            network: that the set is made for, the first of several counts; empty if it is not known.
        """
        name = names_in(network or self.student)[0]
        return with_norm(name, self.student_norm) if self.student_norm else name

    @property
    def views_wanted(self) -> int:
        """Views of each image that students replay, if their labels come from stored views."""
        return self.labels.views or self.epochs

    @property
    def mixing(self) -> CutMix | Mixup | None:
        """How batches are mixed; None if they are not."""
        if self.mixup:
            return Mixup(probability=self.mixup, beta=self.mixup_beta)
        return CutMix(probability=self.cutmix, beta=self.cutmix_beta) if self.cutmix else None

    def augments_for(self, mirror: bool) -> bool:
        """Whether students see images other than those of the set; ``mirror`` as above."""
        plain = Transform(dataclasses.replace(self.augmentation_for(mirror), operators=()))
        return self.transform_for(mirror) != plain or self.mixing is not None

    @property
    def training(self) -> dict[str, Any]:
        """All fields that determine how students are trained: all but name, title and source."""
        fields = dataclasses.asdict(self)
        return {key: value for key, value in fields.items() if key not in ("name", "title", "source")}

    def unaugmented(self) -> Protocol:
        """Return the same protocol without crops, augmentation and mixing."""
        return dataclasses.replace(
            self, augmentation="none", cutmix=0.0, mixup=0.0, crop_scale=None, patches=1, cells=1
        )

    def lasting(self, epochs: int) -> Protocol:
        """Return the same protocol with other epochs; all parts of its schedule keep their shares."""
        warmup = self.warmup_epochs * epochs // self.epochs
        return dataclasses.replace(self, epochs=epochs, warmup_epochs=warmup)

    def with_labels(self, source: Source | None) -> Protocol:
        """Return the same protocol with labels from another source; None keeps it as it is.

        Raises:
            UserError: there is no such source.
        """
        if source is None:
            return self
        if source not in get_args(Source):
            raise unknown("source of labels", source, get_args(Source))
        return dataclasses.replace(self, labels=self.labels.of(source))

    def learning_rate(self, learned: float | None, network: str = "") -> float:
        """Return the learning rate of the first epoch.

        Args:
            learned: the rate stored with the distilled set, or None.
            network: whose it is; the longest key of ``lr_of`` that its name begins with decides.

        Raises:
            UserError: the protocol takes a learned rate, and the set has none or one that is not positive.
        """
        prefix = max((key for key in self.lr_of if network.startswith(key)), key=len, default=None)
        if prefix is not None:
            return self.lr_of[prefix]
        if self.lr != "learned":
            return self.lr
        if learned is None:
            raise UserError(
                f"protocol {self.name!r} takes the learned lr, but the set stores none; {_ANOTHER}"
            )
        if not learned > 0:
            raise UserError(
                f"protocol {self.name!r} takes the learned lr, which is {learned:.3g}; {_ANOTHER}"
            )
        return learned


_ANOTHER = "choose one that names its lr, such as --protocol dm"


def load_protocol(
    name_or_path: str | Path, dataset: str | None = None, ipc: int | None = None, **overrides: Any
) -> Protocol:
    """Read a protocol by name ("dm") or from a TOML file ("mine.toml"), whose stem becomes the name.

    Args:
        dataset, ipc: what is evaluated, for settings that depend on it; without them the defaults are read.
            Of classes with unequal numbers of images, `dsdistill.config.ipc.mean_ipc`.
        overrides: fields to replace, for example ``epochs=100``; None leaves a field as it is. A warm-up
            that fewer epochs have no room for is shortened as they are.

    Raises:
        UserError: the protocol or file does not exist, or has an unknown key or an invalid value.
    """
    table, settings = _read(name_or_path)
    for setting in settings:
        if setting.holds(dataset, ipc):
            table = _with(table, setting, ipc)
    explicit = {key: value for key, value in overrides.items() if value is not None}
    return _validated(name_or_path, _with_room(table, explicit))


def protocol_settings(name_or_path: str | Path) -> tuple[Setting, ...]:
    """Return a protocol's settings by data set and IPC.

    Raises:
        UserError: as `load_protocol`.
    """
    return _read(name_or_path)[1]


def _read(name_or_path: str | Path) -> tuple[dict[str, Any], tuple[Setting, ...]]:
    """Read a protocol's defaults and its settings, and check each of them, whether it holds or not."""
    table = PROTOCOLS.read(name_or_path)
    owner, tables = f"protocol {table['name']!r}", table.pop("settings", [])
    if not isinstance(tables, list):
        raise UserError(f"{owner}: settings is a list of tables, [[settings]], not {tables!r}")
    settings = tuple(Setting.read(each, owner) for each in tables)
    for setting in settings:
        _validated(name_or_path, _with(table, setting, 1))
    return table, settings


def _with(table: Mapping[str, Any], setting: Setting, ipc: int | None) -> dict[str, Any]:
    """Lay a setting over a protocol's table."""
    for part in setting.options(ipc):
        table = merge(table, part)
    return dict(table)


def _with_room(table: Mapping[str, Any], explicit: Mapping[str, Any]) -> dict[str, Any]:
    """Lay overrides over a protocol's table; a warm-up that no longer fits keeps its share of the epochs."""
    epochs, before, warmup = explicit.get("epochs"), table.get("epochs"), table.get("warmup_epochs", 0)
    shortened: dict[str, Any] = {}
    if not (isinstance(epochs, int) and isinstance(before, int) and isinstance(warmup, int)):
        return {**table, **explicit}  # whatever is wrong is refused when the table is read
    if epochs <= warmup < before:
        shortened = {"warmup_epochs": epochs * warmup // before}
    return {**table, **shortened, **explicit}


def _validated(name_or_path: str | Path, table: Mapping[str, Any]) -> Protocol:
    protocol: Protocol = validate(Protocol, table, f"protocol {name_or_path}: key", known_keys(Protocol))
    return protocol
