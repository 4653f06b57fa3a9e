"""A new objective: match mean and spread of each class's features.

Run it as a program, or name it in a recipe: ``plugin = "new_discrepancy.py"``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

import dsdistill


@dsdistill.register_discrepancy
@dataclass(frozen=True, kw_only=True)
class Moments(dsdistill.Discrepancy):
    """The squared distances of means and of standard deviations."""

    kind: Literal["moments"] = "moments"
    spread: float = 0.5
    """Weight of the standard deviations beside the means."""

    def distance(self, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
        total = torch.zeros(())
        for r, f in zip(real, fake, strict=True):  # [n, D] and [m, D] of one class
            total = total + (r.mean(0) - f.mean(0)).square().sum()
            total = total + self.spread * (r.std(0) - f.std(0, correction=0)).square().sum()
        return total


if __name__ == "__main__":
    options = {"engine": {"discrepancy": {"kind": "moments", "spread": 0.25}}}
    dsdistill.distill("moments.h5", dataset="digits", ipc=2, iterations=20, options=options)
