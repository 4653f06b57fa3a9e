"""A new engine: an objective that is no distance between features of one class at a time.

Run it as a program, or name it in a recipe: ``plugin = "new_engine.py"``.
"""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

import dsdistill


@dsdistill.register_engine
@dataclass(frozen=True, kw_only=True)
class Nearer(dsdistill.MatchingEngine):
    """Move the mean features of all classes, by a power of their distance."""

    kind: Literal["nearer"] = "nearer"
    power: float = 1.5
    """2 is the method DM."""

    def loss(self, synthetic: Any, sources: Any) -> dict[str, Tensor]:
        augmentation = sources.siamese()  # the same draw for real and synthetic images
        real = sources.real_means(self.batch_real, augmentation)  # [classes, D]
        fake = sources.synthetic_features(synthetic, augmentation).means()
        return {"nearer": (real - fake).abs().pow(self.power).sum()}


if __name__ == "__main__":
    options = {"engine": {"kind": "nearer", "power": 1.5}}
    dsdistill.distill("nearer.h5", dataset="digits", ipc=2, iterations=20, options=options)
