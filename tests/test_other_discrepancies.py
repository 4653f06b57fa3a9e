"""Attention matching and kernel discrepancies by the engines, against plain versions in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dsdistill.data.real import RealDataset, Task
from dsdistill.distiller import Distiller
from dsdistill.engines import AttentionEngine, DistributionEngine
from dsdistill.engines.discrepancies import Kernels
from dsdistill.errors import UserError
from tests.reference.datadam import attention_matching_loss
from tests.reference.ncfm import squared_mmd
from tests.test_distribution import drawn, loop, toy

EVEN = (7, 7, 7)  # the plain version of attention matching wants equal classes


def found(distiller: Distiller) -> tuple[Tensor, Tensor]:
    """Return loss and pixel gradient as the engine has them."""
    distiller.synthetic.images.grad = None
    terms = distiller.engine.loss(distiller.synthetic, distiller.sources)
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    assert distiller.synthetic.images.grad is not None
    return loss.detach(), distiller.synthetic.images.grad


def learnable(distiller: Distiller) -> tuple[Tensor, list[Tensor]]:
    images = distiller.synthetic.images.detach().clone().requires_grad_()
    return images, list(images.split(distiller.synthetic.ipc))


@pytest.mark.parametrize("network", ["convnet2-w6", "convnet2-w6-batch", "resnet10-w8"])
@pytest.mark.parametrize("power", [1.0, 4.0])
@pytest.mark.parametrize("iteration", range(3))
def test_attention_equals_the_plain_version(network: str, power: float, iteration: int) -> None:
    engine = AttentionEngine(batch_real=6, power=power, balance=0.02)
    distiller = loop(*toy(counts=EVEN), network, engine=engine)
    distiller.sources.iteration = iteration
    real, augment = drawn(distiller)
    images, classes = learnable(distiller)
    expected = attention_matching_loss(
        distiller.sources.supply.network, real, classes, augment, power, balance=0.02
    )
    slope = torch.autograd.grad(expected, images)[0]
    loss, gradient = found(distiller)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-9, atol=0)
    torch.testing.assert_close(gradient, slope, rtol=1e-9, atol=1e-12)


def test_classes_of_any_size_have_their_own_means() -> None:
    engine = AttentionEngine(batch_real=100)
    task, real = toy(counts=(5, 5, 5))
    doubled = RealDataset(
        "toy",
        "train",
        torch.cat([real.images, real.images[real.labels == 1]]),
        torch.cat([real.labels, torch.ones(5, dtype=torch.int64)]),
        real.classes,
    )  # every image of class 1 twice: the same means
    losses = []
    for data in (real, doubled):
        distiller = loop(task, data, "convnet2-w6", engine=engine)
        distiller.synthetic.images.data = loop(task, real, "convnet2-w6").synthetic.images.data.clone()
        losses.append(found(distiller)[0])
    torch.testing.assert_close(*losses)


def test_attention_needs_layers_to_look_at() -> None:
    with pytest.raises(UserError, match="convnet1-w6 has no layer"):
        loop(*toy(), "convnet1-w6", engine=AttentionEngine())


@pytest.mark.parametrize("kernel", ["linear", "polynomial", "gaussian"])
@pytest.mark.parametrize("iteration", range(3))
def test_mmd_equals_double_loops_over_classes_of_any_size(kernel: str, iteration: int) -> None:
    engine = DistributionEngine(batch_real=6, discrepancy=Kernels(kernel=kernel, bandwidth=2.5))  # type: ignore[arg-type]
    distiller = loop(*toy(), "convnet2-w6", engine=engine)
    distiller.sources.iteration = iteration
    network = distiller.sources.network().network
    real, augment = drawn(distiller)
    images, classes = learnable(distiller)
    kernels = {
        "linear": lambda x, y: x @ y,
        "polynomial": lambda x, y: (x @ y / len(x) + 1) ** 3,
        "gaussian": lambda x, y: 2.5**2 * (-(x - y).square().sum() / (2 * 2.5**2)).exp(),
    }
    each = zip(real, classes, augment, strict=True)
    expected = sum(
        squared_mmd(network.embed(change(r)), network.embed(change(s)), kernels[kernel])
        for r, s, change in each
    )
    assert isinstance(expected, Tensor)
    slope = torch.autograd.grad(expected, images)[0]
    loss, gradient = found(distiller)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(gradient, slope, rtol=1e-7, atol=1e-9)


def test_a_wide_kernel_is_distribution_matching() -> None:
    data: tuple[Task, RealDataset] = toy()
    wide = DistributionEngine(batch_real=6, discrepancy=Kernels(bandwidth=1e4))
    loss, gradient = found(loop(*data, "convnet2-w6", engine=wide))
    plain, slope = found(loop(*data, "convnet2-w6", engine=DistributionEngine(batch_real=6)))
    torch.testing.assert_close(loss, plain, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-6)
