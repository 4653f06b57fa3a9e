"""Networks of torchvision and timm: the contract, the originals' function, and refusals."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from dsdistill import networks, seeding
from dsdistill.errors import UserError
from tests.helpers.networks import build, check_contract, images


@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "mnasnet0_5"])
@pytest.mark.parametrize("channels", [1, 3])
def test_torchvision_contract(model, channels):
    pytest.importorskip("torchvision.models")
    network = build(f"torchvision:{model}", channels, 64, 7)
    assert network.training
    assert network.couples_samples
    check_contract(network, images(channels, 64))
    assert network(images(channels, 64)).shape == (2, 7)


@pytest.mark.slow
def test_torchvision_weights_and_function_are_the_originals():
    models = pytest.importorskip("torchvision.models")
    network = build("torchvision:resnet18", num_classes=7).eval()
    with seeding.forked(0, "networks"):
        reference = models.resnet18(weights=None, num_classes=7).eval()
    x = images(3, 32)
    with torch.no_grad():
        torch.testing.assert_close(network(x), reference(x))
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in reference.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        ("resnet18", [(64, 32), (64, 16), (128, 8), (256, 4), (512, 2)]),
        ("resnet50", [(64, 32), (256, 16), (512, 8), (1024, 4), (2048, 2)]),
        ("vgg11", [(64, 64), (128, 32), (256, 16), (512, 8), (512, 4)]),
        ("mobilenet_v2", [(16, 32), (24, 16), (32, 8), (96, 4), (1280, 2)]),
    ],
)
def test_torchvision_activations_end_the_stages(model, shapes):
    pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        network = networks.build_network(f"torchvision:{model}", 3, 64, 10)
        maps = network.trace(torch.empty(2, 3, 64, 64))[0]
    assert [tuple(m.shape[1:3]) for m in maps] == shapes
    assert not any(module._forward_hooks for module in network.modules())


def test_torchvision_transformer_takes_its_size():
    pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        network = networks.build_network("torchvision:vit_b_16", 3, 32, 10)
    assert network.feature_dim == 768
    with pytest.raises(UserError, match=r"torchvision:vit_b_16 cannot take 3x28x28 images: .*patch size"):
        networks.build_network("torchvision:vit_b_16", 3, 28, 10)


@pytest.mark.parametrize(
    ("model", "size", "message"),
    [
        ("squeezenet1_0", 64, "does not end in a linear layer"),
        ("inception_v3", 32, "torchvision:inception_v3 cannot take 3x32x32 images"),
    ],
)
def test_torchvision_models_refused(model, size, message):
    pytest.importorskip("torchvision.models")
    with torch.device("meta"), pytest.raises(UserError, match=message):
        networks.build_network(f"torchvision:{model}", 3, size, 10)


@pytest.mark.parametrize("model", ["resnet10t", "test_vit", "test_efficientnet"])
def test_timm_contract(model):
    timm = pytest.importorskip("timm")
    network = build(f"timm:{model}", 1, 64, 7)
    check_contract(network, images(1, 64))
    options = {"img_size": 64} if "vit" in model else {}
    with seeding.forked(0, "networks"):
        reference = timm.create_model(model, num_classes=7, in_chans=1, **options).eval()
    x = images(1, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(x), reference(x))


def test_timm_unknown_model():
    pytest.importorskip("timm")
    with pytest.raises(UserError, match="unknown timm model 'resnet81'; did you mean 'resnet"):
        networks.check_network("timm:resnet81")


def test_timm_missing_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install .dsdistill\[timm\]"):
        networks.check_network("timm:resnet18")


@pytest.mark.slow
def test_import_does_not_need_torchvision():
    code = "import sys, dsdistill.networks; sys.exit('torchvision' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
