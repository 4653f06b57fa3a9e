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
    """Names joined by underscores, as papers write strategies; flip is left out where it changes labels."""
    rule: Rule = "single"
    align_corners: bool = False

    def build(self, mirror: bool) -> Augmentation:
        """Return the augmentation, without flips where a mirror image has another label."""
        chosen = Augmentation.parse(self.operators, rule=self.rule, align_corners=self.align_corners)
        return chosen if mirror else chosen.without("flip")
