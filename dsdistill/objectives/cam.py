"""Where a network sees a class: class activation maps (Zhou et al., CVPR 2016).

A classifier with weights w that reads the mean of a map A over places gives a class y the logit Σ_k w_{y,k}
mean(A_k), up to a bias: so every place has a share of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.objectives.precision import at_least_float32

if TYPE_CHECKING:
    from jaxtyping import Float


def class_activation(
    maps: Float[Tensor, "B k h w"], weights: Float[Tensor, "B k"], size: int
) -> Float[Tensor, "B size size"]:
    """Return C = relu(Σ_k w_k A_k), scaled to [0, 1] in each image, then enlarged bilinearly to the image.

    Args:
        maps: A, any float dtype; what the classifier reads the mean of.
        weights: the classifier's, each row those of an image's class.
        size: height and width of the images.

    Returns:
        float32 or wider. The least place of an image is 0 and the largest 1 before it is enlarged; all are 0
        where the map is constant.

    >>> maps = torch.tensor([[[[1.0, 2.0], [3.0, -1.0]]]])
    >>> class_activation(maps, torch.tensor([[2.0]]), size=2)
    tensor([[[0.3333, 0.6667],
             [1.0000, 0.0000]]])
    """
    activation = torch.einsum("bkhw,bk->bhw", at_least_float32(maps), at_least_float32(weights)).relu()
    least, most = activation.amin((1, 2), keepdim=True), activation.amax((1, 2), keepdim=True)
    scaled = torch.where(most > least, (activation - least) / (most - least), 0.0)
    enlarged = F.interpolate(scaled[:, None], (size, size), mode="bilinear", align_corners=False)
    return enlarged[:, 0]
