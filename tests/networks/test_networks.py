"""Networks: published parameter counts, agreement with torchvision, and the contract every name keeps."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from dsdistill import networks, seeding
from dsdistill.errors import UserError
from dsdistill.networks.convnet import ConvNet
from dsdistill.networks.layers import ConvBlock
from tests.helpers.networks import build, check_contract, images

FACTORS = ("mobilenetv2", "shufflenetv2", "efficientnet-b0", "densenet121")
"""Families of torchvision, which are batch-normalised without saying so."""

GREY_28 = (1, 28)
SMALL = [GREY_28, (3, 32), (3, 64)]


@pytest.mark.parametrize(
    ("name", "channels", "size", "num_classes", "parameters", "feature_dim"),
    [
        ("convnet", 1, 28, 10, 317_706, 2048),
        ("convnet", 3, 32, 10, 320_010, 2048),
        ("convnet", 3, 32, 100, 504_420, 2048),
        ("convnet3", 3, 64, 200, 1_938_120, 8192),
        ("convnet", 3, 64, 200, 857_160, 2048),
        ("convnet4", 3, 64, 1000, 2_496_360, 2048),
        ("convnet", 3, 128, 10, 615_690, 2048),
        ("convnet6", 3, 128, 10, 748_170, 512),
        ("convnet", 3, 224, 100, 858_340, 1152),
        ("convnet-w256", 3, 32, 10, 1_229_834, 4096),
        ("wideconvnet", 1, 28, 10, 1_558_538, 8192),
        ("wideconvnet-inputbatch", 3, 32, 10, 1_561_610, 8192),
        ("wideconvnet-batch", 3, 32, 512, 5_675_520, 8192),
        ("wideconvnet-w64-batch", 3, 64, 512, 5_747_712, 8192),
        ("mlp", 3, 32, 10, 411_146, 128),
        ("lenet", 3, 32, 10, 62_006, 84),
        ("alexnet", 3, 32, 10, 1_872_202, 3072),
        ("alexnet-batch", 3, 32, 10, 1_874_122, 3072),
        ("vgg11", 3, 32, 10, 9_231_114, 512),
        ("vgg11-batch", 3, 32, 10, 9_231_114, 512),
        ("resnet18", 3, 32, 10, 11_173_962, 512),
        ("resnet18-batch", 3, 32, 10, 11_173_962, 512),
        ("resnet18", 3, 64, 10, 11_173_962, 512),
        ("resnet18-ap", 3, 32, 10, 11_250_762, 8192),
        ("resnet18-batch-ap", 3, 32, 10, 11_250_762, 8192),
        ("resnet10-w32-batch", 3, 32, 10, 1_228_970, 256),
        ("resnet50-batch", 3, 32, 10, 23_520_842, 2048),
        ("resnet50", 3, 64, 200, 23_910_152, 2048),
        ("resnetap10", 3, 224, 10, 4_910_922, 512),
        ("resnetap10", 3, 224, 100, 4_957_092, 512),
    ],
)
def test_published_sizes(name, channels, size, num_classes, parameters, feature_dim):
    with torch.device("meta"):
        network = networks.build_network(name, channels, size, num_classes)
        logits = network(torch.empty(2, channels, size, size))
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert network.feature_dim == feature_dim
    assert logits.shape == (2, num_classes)


def narrow(name: str) -> str:
    """Return the name with a small width where its family has one."""
    if name.startswith(("convnet", "wideconvnet", "resnet")):
        return f"{name}-w8"
    return f"{name}-x0.25" if name in FACTORS else name


@pytest.mark.parametrize(("channels", "size"), SMALL)
@pytest.mark.parametrize("name", networks.network_names())
def test_contract(name, channels, size):
    if name == "convnet6" and size < 64:
        pytest.skip("six poolings need 64 pixels")
    check_contract(build(narrow(name), channels, size, 3), images(channels, size))


@pytest.mark.parametrize(
    "name",
    [
        "convnet",
        "convnet-batch",
        "alexnet",
        "mlp",
        "resnet18-batch-w8",
        *(f"{each}-x0.25" for each in FACTORS),
    ],
)
def test_digits(name):
    check_contract(build(name, 1, 8), images(1, 8))


@pytest.mark.parametrize("norm", ["instance", "batch", "group", "layer", "none"])
@pytest.mark.parametrize("activation", ["relu", "leakyrelu", "sigmoid", "swish"])
@pytest.mark.parametrize("pool", ["avgpool", "maxpool", "nopool"])
def test_convnet_options(norm, activation, pool):
    network = build(f"convnet2-{pool}-w8-{norm}-{activation}", size=16)
    x = images(3, 16)
    assert network.couples_samples == (norm == "batch")
    check_contract(network, x)
    side = 16 if pool == "nopool" else 4
    assert network.feature_dim == 8 * side**2
    expected = {
        "relu": torch.relu,
        "leakyrelu": nn.functional.leaky_relu,
        "sigmoid": torch.sigmoid,
        "swish": nn.functional.silu,
    }[activation]
    v = torch.linspace(-3, 3, 7)
    assert torch.equal(network.blocks[0].activation(v), expected(v))


def test_convnet_by_hand():
    """The definition, written out for one network in float64."""
    network = build("convnet2-w4", 1, 28).double()
    x = h = images(1, 28, dtype=torch.float64)
    maps = []
    for block, padding in zip(network.blocks, (3, 1), strict=True):
        h = nn.functional.conv2d(h, block.conv.weight, block.conv.bias, padding=padding)
        centred = h - h.mean((2, 3), keepdim=True)
        h = centred / (centred.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
        h = (h * block.norm.weight[:, None, None] + block.norm.bias[:, None, None]).clamp(min=0)
        maps.append(h)
        h = h.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).mean((3, 5))
    torch.testing.assert_close(network.embed(x), h.flatten(1))
    torch.testing.assert_close(network.trace(x)[0], maps)
    assert [m.shape[-1] for m in maps] == [32, 16]


def test_group_has_four_groups_and_layer_one_weight_per_position():
    assert build("convnet-w8-group").blocks[1].norm.num_groups == 4
    assert build("convnet-w8-layer").blocks[1].norm.weight.shape == (8, 16, 16)
    with pytest.raises(UserError, match="divisible by 4, not 6"):
        build("convnet-w6-group")


def test_convnet_blocks_are_walkable():
    network = build("convnet-w8")
    assert isinstance(network, ConvNet)
    assert isinstance(network.blocks, nn.ModuleList)
    for block in network.blocks:
        assert isinstance(block, ConvBlock)
        assert [name for name, _ in block.named_children()] == ["conv", "norm", "activation", "pool"]


@pytest.mark.parametrize(("size", "depth"), [(8, 2), (16, 2), (28, 3), (32, 3), (64, 4), (128, 5), (224, 6)])
def test_convnet_depth_follows_size(size, depth):
    with torch.device("meta"):
        assert len(networks.build_network("convnet-w4", 3, size, 10).blocks) == depth


def test_only_28_pixel_grey_images_are_widened():
    assert build("convnet-w4", 1, 28).blocks[0].conv.padding == (3, 3)
    assert build("convnet-w4", 1, 32).blocks[0].conv.padding == (1, 1)
    assert build("convnet-w4", 3, 28).blocks[0].conv.padding == (1, 1)


def copied(network: networks.Network, reference: nn.Module) -> None:
    """Load the reference's weights by order; only a shared structure lets every shape agree."""
    weights, own = list(reference.state_dict().values()), network.state_dict()
    assert len(weights) == len(own)
    network.load_state_dict(dict(zip(own, weights, strict=True)))


@pytest.mark.slow
def test_resnet18_agrees_with_torchvision():
    models = pytest.importorskip("torchvision.models")
    network = build("resnet18-batch").eval()
    reference = models.resnet18(weights=None, num_classes=10).eval()
    reference.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    reference.maxpool = nn.Identity()
    copied(network, reference)
    x = images(3, 32)
    with torch.no_grad():
        torch.testing.assert_close(network(x), reference(x))


@pytest.mark.slow
def test_vgg11_agrees_with_torchvision():
    models = pytest.importorskip("torchvision.models")
    network = build("vgg11-batch").eval()
    reference = models.vgg11_bn(weights=None, init_weights=False).features.eval()
    copied(network, nn.Sequential(reference, network.classifier))
    x = images(3, 32)
    with torch.no_grad():
        torch.testing.assert_close(network.embed(x), reference(x).flatten(1))


@pytest.mark.parametrize(("size", "sides"), [(32, [32, 32, 16, 8, 4]), (96, [96, 48, 24, 12, 6])])
def test_resnetap10_stem_follows_size(size, sides):
    maps = build("resnetap10-w4", size=size).trace(images(3, size))[0]
    assert [m.shape[-1] for m in maps] == sides


def test_resnetap10_starts_from_its_papers_distribution():
    conv = build("resnetap10").blocks[-1].layers[0].conv2
    assert conv.weight.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.01)


@pytest.mark.parametrize("name", networks.network_names())
def test_batch_norm_couples_samples_unless_it_keeps_its_statistics(name):
    with torch.device("meta"):
        network = networks.build_network(narrow(name), 3, 64, 10)
    normalised = "batch" in name or name.startswith(FACTORS)
    assert network.couples_samples == network.has_batch_norm == normalised
    network.eval()
    assert not network.couples_samples
    assert network.has_batch_norm == normalised


@pytest.mark.parametrize("name", ["convnet-w8", "mlp", "lenet", "alexnet", "vgg11", "resnet18-w8"])
def test_uncoupled_networks_treat_samples_alone(name):
    network, x = build(name).double(), images(3, 32, 3, torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(x), torch.cat([network(x[:1]), network(x[1:])]))


@pytest.mark.parametrize("name", ["convnet1-w4", "lenet", "resnet10-w4", "resnet10-ap-w4"])
def test_second_order_gradients(name):
    """The derivative of a squared weight gradient with respect to the pixels, against differences."""
    network = build(name, size=16, num_classes=3).double()
    weight = next(network.parameters())

    def norm_of_gradient(x: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(network(x), torch.tensor([0, 1]))
        return torch.autograd.grad(loss, weight, create_graph=True)[0].square().sum()

    x = images(3, 16, dtype=torch.float64).requires_grad_()
    direction = torch.randn(x.shape, generator=seeding.generator(1, "images"), dtype=x.dtype)
    (gradient,) = torch.autograd.grad(norm_of_gradient(x), x)
    step = 1e-7 * direction
    difference = (norm_of_gradient(x + step) - norm_of_gradient(x - step)) / 2e-7
    torch.testing.assert_close((gradient * direction).sum(), difference.detach(), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", ["convnet-w8-batch", "resnetap10-w8", "mlp"])
def test_build_depends_on_the_seed_alone(name):
    first, state = build(name).state_dict(), torch.get_rng_state()
    second = build(name).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[key], second[key]) for key in first)
    with seeding.forked(1, "networks"):
        other = networks.build_network(name, 3, 32, 10)
    assert not torch.equal(other.classifier.weight, first["classifier.weight"])


@pytest.mark.parametrize(
    ("name", "channels", "size", "message"),
    [
        ("convnet5", 1, 8, "convnet5 cannot take 8x8 images.*at least 32x32"),
        ("wideconvnet5", 1, 8, "wideconvnet5 cannot take 8x8 images.*at least 32x32"),
        ("vgg11", 3, 28, "vgg11 cannot take 28x28 images.*at least 32x32"),
        ("alexnet", 3, 4, "alexnet cannot take 4x4 images.*at least 8x8"),
        ("lenet", 1, 8, "lenet cannot take 8x8 images.*at least 16x16"),
        ("resnet18", 1, 8, "resnet18 cannot take 8x8 images.*use resnet18-batch"),
        ("resnet18-ap-batch", 3, 7, "resnet18-ap cannot take 7x7 images.*at least 8x8"),
        ("densenet121-x0.25", 3, 7, "densenet121 cannot take 7x7 images.*at least 8x8"),
        ("resnet50", 1, 8, "resnet50 cannot take 8x8 images.*use resnet50-batch"),
    ],
)
def test_sizes_refused(name, channels, size, message):
    with pytest.raises(UserError, match=message):
        networks.build_network(name, channels, size, 10)


@pytest.mark.parametrize(("name", "least"), [("convnet4", 16), ("vgg11", 32), ("alexnet", 8), ("lenet", 16)])
def test_least_size_is_taken_and_one_less_refused(name, least):
    build(name, 3, least).embed(images(3, least))
    with pytest.raises(UserError, match=f"at least {least}x{least}"):
        build(name, 3, least - 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ConvNet", "unknown network 'ConvNet'; did you mean 'convnet'?"),
        ("convnet-bach", "unknown option of convnet 'bach'; did you mean 'batch'?"),
        ("convnet-w0", "unknown option of convnet 'w0'"),
        ("convnet-", "unknown option of convnet ''"),
        ("resnet-18", "unknown network 'resnet'; did you mean 'resnet"),
        ("resnet18-swish", "unknown option of resnet18 'swish'"),
        ("mlp-batch", "mlp takes no options, so drop 'batch'"),
        ("convnet-batch-instance", "gives two values for its norm"),
        ("wideconvnet3-instance", "unknown option of wideconvnet 'instance'"),
        ("wideconvnet-3", "unknown option of wideconvnet '3'"),
        ("convnet-w8-w16", "gives two values for its width"),
        ("resnet50-ap", "unknown option of resnet50 'ap'"),
        ("efficientnet", "unknown network 'efficientnet'; did you mean 'efficientnet-b0'?"),
        ("efficientnet-b1", "unknown network 'efficientnet'; did you mean 'efficientnet-b0'?"),
        ("efficientnet-b0-w64", "unknown option of efficientnet-b0 'w64'"),
        ("mobilenetv2-x0", "unknown option of mobilenetv2 'x0'"),
        ("mobilenetv2-x.25", "unknown option of mobilenetv2 'x.25'; did you mean 'x0.5'?"),
        ("mobilenetv2-x0.5-x0.25", "gives two values for its width"),
        ("mobilenetv2-batch", "unknown option of mobilenetv2 'batch'"),
        ("convnet3x", "unknown network 'convnet3x'"),
        ("torchvison:resnet18", "did you mean 'torchvision'?"),
        ("torchvision:resnet19", "unknown torchvision model 'resnet19'; did you mean 'resnet1"),
    ],
)
def test_unknown_names(name, message):
    if "torchvision:" in name:
        pytest.importorskip("torchvision.models")
    with pytest.raises(UserError, match=re.escape(message)):
        networks.check_network(name)
    with pytest.raises(UserError, match=re.escape(message)):
        networks.build_network(name, 3, 32, 10)


def test_check_accepts_every_listed_name():
    for name in networks.network_names():
        networks.check_network(name)
    assert networks.network_names() == sorted(set(networks.network_names()))
