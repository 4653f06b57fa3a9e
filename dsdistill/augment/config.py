"""The options of a siamese augmentation."""

from __future__ import annotations

from dataclasses import dataclass

from dsdistill.augment.dsa import Augmentation, Rule
from dsdistill.config.validation import forbid_extra


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """The siamese augmentation of real and synthetic images."""

    operators: str = "none"
    """Names joined by underscores, as in papers; flip is left out if mirror images may change labels."""
    rule: Rule = "single"
    """Which operators a batch gets: see ``dsdistill.augment.dsa.Augmentation``."""
    align_corners: bool = False
    """As of torch's ``grid_sample``; the papers' codes differ."""

    def build(self, mirror: bool) -> Augmentation:
        """Return the augmentation; without flips unless ``mirror``: a mirror image may have another label."""
        augmentation = Augmentation.parse(self.operators, rule=self.rule, align_corners=self.align_corners)
        return augmentation if mirror else augmentation.without("flip")
