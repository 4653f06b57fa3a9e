"""How many training images the stored images of classes decode into, and which comes from which."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dsdistill.synthetic.multi_formation import MultiFormation


def decoded_counts(counts: Sequence[int], multi_formation: MultiFormation, compensators: int) -> list[int]:
    """Return how many training images each class has.

    Args:
        counts: stored images of each class, compensators aside.
        multi_formation: the identity where there are compensators.
        compensators: how many there are, 0 for none.

    >>> decoded_counts([7, 7], MultiFormation(), 28), decoded_counts([1, 2], MultiFormation(factor=2), 0)
    ([35, 35], [4, 8])
    """
    if compensators:  # K + K·M; of a class without images there are none
        return [count and count + compensators for count in counts]
    return [multi_formation.decoded_count(count) for count in counts]


def origins(counts: Sequence[int], multi_formation: MultiFormation, compensators: int) -> Tensor:
    """Return the stored image that each training image comes from, class by class, int64 [M].

    Args:
        counts, multi_formation, compensators: as for `decoded_counts`.

    >>> origins([2, 2], MultiFormation(), 2)
    tensor([0, 1, 0, 1, 2, 3, 2, 3])
    """
    rows = torch.arange(sum(counts)).split(list(counts))
    if compensators:
        return torch.cat([part.repeat(1 + compensators // len(part)) for part in rows])
    return torch.cat([part[multi_formation.origins(len(part))] for part in rows])
