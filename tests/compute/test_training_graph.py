"""Networks whose steps a graph would not repeat are told apart."""

from __future__ import annotations

import pytest
from torch import nn

from dsdistill.compute.training_graph import why_not_captured
from dsdistill.networks import build_network
from dsdistill.networks.base import Network


def test_a_network_of_the_package_is_captured() -> None:
    assert why_not_captured(build_network("convnet2-w4-batch", 1, 8, 3)) == ""


@pytest.mark.parametrize(("share", "words"), [(0.5, "the network has dropout"), (0.0, "")])
def test_a_network_with_dropout_is_not(share: float, words: str) -> None:
    network: Network = build_network("convnet2-w4", 1, 8, 3)
    network.add_module("dropout", nn.Dropout(share))
    assert why_not_captured(network) == words
