"""The ConvNets of kernel regression, written out by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from dsdistill.networks.names import with_norm
from tests.helpers.networks import build, check_contract, images


def normalised(x: Tensor, norm: nn.Module) -> Tensor:
    """What batch normalisation makes of a map in evaluation."""
    mean, var = (value[:, None, None] for value in (norm.running_mean, norm.running_var))  # type: ignore[union-attr,index]
    weight, bias = (value[:, None, None] for value in (norm.weight, norm.bias))  # type: ignore[union-attr,index]
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


@pytest.mark.parametrize("norm", ["none", "batch", "inputbatch"])
def test_blocks_by_hand(norm: str) -> None:
    network = build(f"wideconvnet2-w4-{norm}", 1, 28, 3).double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # other statistics than those of the start
            module.running_mean.copy_(torch.linspace(-1, 1, module.num_features))  # type: ignore[union-attr]
            module.running_var.copy_(torch.linspace(1, 2, module.num_features))  # type: ignore[union-attr]
    x = h = images(1, 28, dtype=torch.float64)
    for level, (block, padding) in enumerate(zip(network.blocks, (3, 1), strict=True)):  # type: ignore[call-overload]
        if norm == "inputbatch" and level:
            h = normalised(h, block.norm)
        h = F.conv2d(h, block.conv.weight, block.conv.bias, padding=padding)
        assert h.shape[1] == 4 * 2**level
        if norm == "batch":
            h = normalised(h, block.norm)
        h = F.avg_pool2d(h.clamp(min=0), 2)
    assert_close(network.embed(x), h.flatten(1))
    assert_close(network(x), F.linear(h.flatten(1), network.classifier.weight, network.classifier.bias))  # type: ignore[arg-type]
    check_contract(network, x)


@pytest.mark.parametrize(("norm", "kept"), [("batch", 0.1), ("inputbatch", 0.9)])
def test_running_statistics_keep_their_share_of_a_batch(norm: str, kept: float) -> None:
    layers = [each for each in build(f"wideconvnet3-w4-{norm}").modules() if isinstance(each, nn.BatchNorm2d)]
    assert [each.momentum for each in layers] == [kept] * len(layers)
    assert [each.num_features for each in layers] == ([4, 8, 16] if norm == "batch" else [4, 8])


def test_weights_begin_as_flax_has_them() -> None:
    """LeCun's: normal, cut off at two deviations, of variance 1 / (9 · channels), and no biases."""
    plain, torch_own = (build(f"wideconvnet2-w64-{norm}") for norm in ("none", "batch"))
    layers = [plain.blocks[1].conv, plain.classifier]
    for layer, inputs in zip(layers, (9 * 64, plain.feature_dim), strict=True):
        weight = layer.weight.detach()
        assert float(weight.std()) == pytest.approx(inputs**-0.5, rel=0.02)
        cut = 2 * inputs**-0.5 / 0.87962566103423978
        assert 0.98 * cut < float(weight.abs().max()) <= cut
        # Of a normal that is cut off at two deviations, the fourth moment is 2.366 times the squared second.
        assert float(weight.pow(4).mean() / weight.square().mean() ** 2) == pytest.approx(2.366, rel=0.05)
    biases = [value for name, value in plain.named_parameters() if name.endswith("bias")]
    assert not any(value.any() for value in biases)
    assert torch_own.blocks[1].conv.bias.any()
    assert float(torch_own.blocks[1].conv.weight.detach().abs().max()) <= (9 * 64) ** -0.5


@pytest.mark.parametrize("norm", ["none", "batch", "inputbatch"])
def test_features_begin_alike_whatever_the_number_of_classes(norm: str) -> None:
    few, many = (build(f"wideconvnet2-w4-{norm}", num_classes=classes) for classes in (3, 10))
    for name, value in few.blocks.state_dict().items():
        assert torch.equal(value, many.blocks.state_dict()[name])


@pytest.mark.parametrize(
    ("name", "norm", "expected"),
    [
        ("wideconvnet-inputbatch", "none", "wideconvnet-none"),
        ("wideconvnet3-inputbatch-w16", "none", "wideconvnet3-w16-none"),
        ("convnet", "none", "convnet-none"),
        ("resnet18-batch-w16", "none", "resnet18-batch-w16"),
        ("net.py:Net", "none", "net.py:Net"),
        ("timm:resnet18", "batch", "timm:resnet18"),
    ],
)
def test_a_name_with_another_normalisation(name: str, norm: str, expected: str) -> None:
    assert with_norm(name, norm) == expected
