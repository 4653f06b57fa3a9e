"""How a set is judged: everything about training a student that can move its accuracy, read from TOML."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from dsdistill.augment.dsa import Augmentation, Rule
from dsdistill.config.presets import Presets
from dsdistill.config.validation import forbid_extra, validated
from dsdistill.errors import UserError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way to train and count students. Results are comparable only under the same one.

    A student minimises the cross-entropy over ``epochs_run`` epochs of shuffled batches, the last short one
    included, and is tested once, at the end. Every epoch of ``milestones`` starts by multiplying the learning
    rate by ``drop_factor``. With E = ``epochs``, each share f of ``drop_at`` stands for:

        schedule "restart" (DC, DSA, DM and their successors): epochs 0 … E, one more than the name says; the
            rate drops, and the optimiser starts anew, once epoch ⌊E·f⌋ + 1 is done.
        schedule "steps" (IDC, NCFM; torch's ``MultiStepLR``): epochs 0 … E - 1; the rate drops before epoch
            ⌊E·f⌋, and the optimiser keeps its momentum.

    Attributes:
        name: what results carry.
        title, source: for people: what it is and where it comes from.
        student: the network judged with where none is asked for and the set does not name its own.
        lr: learning rate, or "learned": the one stored with the set.
        optimiser: "sgd", or "adamw" with torch's betas, for which momentum means nothing.
        momentum_after_drop: SGD's momentum from the first drop on (AST); None keeps it.
        weight_decay: of SGD added to the gradient, of AdamW decoupled from it.
        drop_at: shares of the epochs before each drop.
        augmentation: operators joined by ``_``, or "none"; one draw per batch, its scalars per image.
        augmentation_rule, align_corners: see ``dsdistill.augment.dsa.Augmentation``.
        cutmix, cutmix_beta: probability per batch of CutMix after the augmentation, and its β; see
            ``dsdistill.augment.mix.CutMix``.
        repeats: fresh students per set.
    """

    name: str
    title: str
    source: str
    student: str = "convnet"
    lr: Positive | Literal["learned"] = 0.01
    optimiser: Literal["sgd", "adamw"] = "sgd"
    momentum: Fraction = 0.9
    momentum_after_drop: Fraction | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    epochs: Count
    schedule: Literal["restart", "steps"] = "restart"
    drop_at: tuple[Fraction, ...] = (0.5,)
    drop_factor: Positive = 0.1
    batch_size: Count = 256
    augmentation: str = "none"
    augmentation_rule: Rule = "single"
    align_corners: bool = False
    cutmix: Fraction = 0.0
    cutmix_beta: Positive = 1.0
    repeats: Count = 5

    def __post_init__(self) -> None:
        self.augmentation_for(mirror=True)  # an unknown operator is found now, not after the first student

    @property
    def epochs_run(self) -> int:
        """How often a student sees every image: the schedule "restart" counts from 0 to ``epochs``."""
        return self.epochs + 1 if self.schedule == "restart" else self.epochs

    @property
    def milestones(self) -> tuple[int, ...]:
        """The first epochs at each lower rate, ascending, counted from 0; 502 for DSA's 1000 epochs."""
        # Rounding undoes what a float loses: 300·(2 / 3) has to be 200 whatever the digits in the file.
        done = sorted(math.floor(round(self.epochs * share, 9)) for share in self.drop_at)
        return tuple(epoch + 2 for epoch in done) if self.schedule == "restart" else tuple(done)

    def decay(self, epoch: int) -> float:
        """Return the factor on the initial learning rate in an epoch counted from 0."""
        return self.drop_factor ** sum(milestone <= epoch for milestone in self.milestones)

    def momentum_in(self, epoch: int) -> float:
        """Return SGD's momentum in an epoch counted from 0."""
        dropped = any(milestone <= epoch for milestone in self.milestones)
        return self.momentum_after_drop if dropped and self.momentum_after_drop is not None else self.momentum

    def augmentation_for(self, mirror: bool) -> Augmentation:
        """Return the augmentation of the students, without flip where a mirrored image changes its label."""
        augmentation = Augmentation.parse(
            self.augmentation, rule=self.augmentation_rule, align_corners=self.align_corners
        )
        return augmentation if mirror else augmentation.without("flip")

    @property
    def training(self) -> dict[str, Any]:
        """All that decides how students are trained; not how the protocol is called and where it is from."""
        told = dataclasses.asdict(self)
        return {key: value for key, value in told.items() if key not in ("name", "title", "source")}

    def plain(self) -> Protocol:
        """Return the same training without augmentation and CutMix."""
        return dataclasses.replace(self, augmentation="none", cutmix=0.0)

    def learning_rate(self, learned: float | None) -> float:
        """Return the rate students start at, given the one stored with the set.

        Raises:
            UserError: the protocol asks for a learned rate and the set has none, or one that is not positive.
        """
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

PROTOCOLS = Presets("protocols", "protocol")


def load_protocol(name_or_path: str | Path, **overrides: Any) -> Protocol:
    """Read a protocol by name ("dm") or from a TOML file ("mine.toml"), whose stem becomes its name.

    Args:
        overrides: fields to replace, for example ``epochs=100``; None leaves a field as it is.

    Raises:
        UserError: no such protocol or file, or a key or value that a protocol cannot have.
    """
    given = {key: value for key, value in overrides.items() if value is not None}
    known = [field.name for field in dataclasses.fields(Protocol)]
    return validated(Protocol, PROTOCOLS.read(name_or_path) | given, f"protocol {name_or_path}: key", known)
