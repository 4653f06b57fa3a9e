"""Choosing real images to train on: the plainest alternative to distilling."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dsdistill.data.real import RealDataset
from dsdistill.errors import UserError

Selection = Callable[[RealDataset, Tensor, torch.Generator], Tensor]


def random_selection(real: RealDataset, counts: Tensor, generator: torch.Generator) -> Tensor:
    """Draw images of each class uniformly, without replacement.

    Args:
        real: where to choose from.
        counts: int64 [K], how many of each class.
        generator: on the CPU.

    Returns:
        int64 [sum of counts] positions in ``real``, class-major.

    Raises:
        UserError: a class has fewer images than asked for.
    """
    chosen = []
    for label, count in enumerate(counts.tolist()):
        members = real.indices_of(label)
        if len(members) < count:
            raise UserError(
                f"class {real.classes[label]!r} of {real.name} has {len(members)} {real.split} images, "
                f"fewer than the {count} to select; ask for fewer images per class"
            )
        chosen.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(chosen)


SELECTIONS: dict[str, Selection] = {"random": random_selection}
