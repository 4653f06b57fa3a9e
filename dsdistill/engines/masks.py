"""Which pixels of recovered images are left as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Gt, Le
from torch import Tensor

from dsdistill.config.validation import forbid_extra
from dsdistill.errors import UserError
from dsdistill.supply.teachers import Teachers
from dsdistill.synthetic.multi_formation import MultiFormation
from dsdistill.synthetic.set import SyntheticSet


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """How much of each step a pixel takes, by where teachers see the class (NRR-DD).

    It is M = max(0, ε - C), where C is the class activation map of the image that the run starts from, the
    mean over all teachers. Pixels that matter most stay as they are.
    """

    of: Literal["none", "cam"] = "none"
    """cam: the class activation map; none takes whole steps everywhere."""
    threshold: Annotated[float, Gt(0), Le(1)] = 0.5
    """ε; pixels whose C is larger never move."""
    inverted: bool = False
    """Take 1 - C in place of C, so that the pixels that matter move."""

    def weights(self, activation: Tensor) -> Tensor:
        """Return M of class activation maps in [0, 1].

        >>> MaskConfig(of="cam").weights(torch.tensor([0.0, 0.4, 0.9]))
        tensor([0.5000, 0.1000, 0.0000])
        """
        return (self.threshold - (1 - activation if self.inverted else activation)).clamp(min=0)

    def check(self, formation: MultiFormation) -> None:
        """Check that stored images are the ones that teachers see.

        Raises:
            UserError: they are decoded into several.
        """
        if self.of != "none" and not formation.is_identity:
            raise UserError(
                "the mask is of whole images, and these are decoded into several: set "
                "multi_formation.factor=1 or engine.mask.of=none"
            )

    def register(self, synthetic: SyntheticSet, teachers: Teachers) -> None:
        """Set the mask of a set that no step has changed.

        Raises:
            UserError: as `check`; or a teacher has no class activation maps.
        """
        if self.of == "none":
            return
        self.check(synthetic.multi_formation)
        images = synthetic.of(torch.arange(len(synthetic.counts))).detach()
        labels = synthetic.labels
        maps = torch.stack([teachers.activation(number, images, labels) for number in range(teachers.count)])
        synthetic.update_mask = self.weights(maps.mean(0))[:, None].to(images)
