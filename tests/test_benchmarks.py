"""The plain ways that speed is compared with compute the same as what they are compared with."""

from __future__ import annotations

import torch

from dsdistill.networks import build
from dsdistill.seeding import fenced
from tests.reference.ncfm import characteristic_discrepancy, plain_class_loss


def test_plain_ncfm_computes_the_discrepancy() -> None:
    with fenced(0, "test"):
        network = build("convnet2-w6", 1, 12, 3).double().requires_grad_(False)
        real, fake = (torch.randn(n, 1, 12, 12, dtype=torch.float64) for n in (5, 3))
        frequencies = torch.randn(7, network.feature_dim, dtype=torch.float64)
    features = [torch.nn.functional.normalize(network.embed(x), dim=1) for x in (real, fake)]
    expected = characteristic_discrepancy([features[0]], [features[1]], [frequencies])
    torch.testing.assert_close(plain_class_loss(network, real, fake, frequencies), 300 * expected[0])
