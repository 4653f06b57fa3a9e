"""Precision of sums and losses: float32, or wider where the input is."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def working_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """Return the dtype that all of these promote to, at least float32.

    >>> working_dtype(torch.bfloat16), working_dtype(torch.float32, torch.float64)
    (torch.float32, torch.float64)
    """
    return reduce(torch.promote_types, dtypes, torch.float32)


def at_least_float32(tensor: Float[Tensor, "*_"]) -> Float[Tensor, "*_"]:
    """Promote half precision to float32; a wider tensor is returned as it is.

    >>> at_least_float32(torch.ones(2, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return tensor.to(working_dtype(tensor.dtype))
