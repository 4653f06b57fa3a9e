"""Attention matching and kernel discrepancies by the engines, against plain versions in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dsdistill.data.real import RealDataset, Task
from dsdistill.distillation.loop import Distiller
from dsdistill.engines import AttentionEngine, DistributionEngine
from dsdistill.engines.discrepancies import Kernels
from dsdistill.errors import UserError
from tests.helpers.engines import drawn, loop, loss_and_gradient, toy
from tests.helpers.marks import slow_but_first
from tests.reference.datadam import attention_matching_loss, looped_terms
from tests.reference.ncfm import squared_mmd

EVEN = (7, 7, 7)  # the plain version of attention matching wants equal classes


def learnable(distiller: Distiller) -> tuple[Tensor, list[Tensor]]:
    images = distiller.synthetic.images.detach().clone().requires_grad_()
    return images, list(images.split(distiller.synthetic.counts))


@pytest.mark.parametrize("network", ["convnet2-w6", "convnet2-w6-batch", "resnet10-w8"])
@pytest.mark.parametrize("power", [1.0, 4.0])
@pytest.mark.parametrize("iteration", slow_but_first(range(3)))
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
    loss, gradient = loss_and_gradient(distiller)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-9, atol=0)
    torch.testing.assert_close(gradient, slope, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("network", ["convnet2-w6", "convnet2-w6-batch", "convnet3-w4-swish"])
@pytest.mark.parametrize("power", slow_but_first([4.0, 1.0, 2.0]))
@pytest.mark.parametrize("ipc", [(2, 2, 2), (1, 3, 2)])
def test_attention_of_classes_of_any_size_equals_loops_over_positions(
    network: str, power: float, ipc: tuple[int, ...]
) -> None:
    engine = AttentionEngine(batch_real=6, power=power, balance=0.02)
    distiller = loop(*toy(3, 8, counts=(4, 2, 7)), network, engine=engine, ipc=ipc)
    real, augment = drawn(distiller)
    images, classes = learnable(distiller)
    both = [
        torch.cat([change(each) for change, each in zip(augment, side, strict=True)])
        for side in (real, classes)
    ]
    owners = [0] * 4 + [1] * 2 + [2] * 6, [label for label, count in enumerate(ipc) for _ in range(count)]
    traced = [distiller.sources.supply.network.trace(each) for each in both]
    expected = looped_terms(*traced, *owners, power, 0.02)
    slopes = [torch.autograd.grad(term, images, retain_graph=True)[0] for term in expected]
    terms = distiller.engine.loss(distiller.synthetic, distiller.sources)
    for name, wanted, slope in zip(("attention", "output"), expected, slopes, strict=True):
        torch.testing.assert_close(terms[name].detach(), wanted.detach(), rtol=1e-9, atol=0)
        (gradient,) = torch.autograd.grad(terms[name], distiller.synthetic.images, retain_graph=True)
        torch.testing.assert_close(gradient, slope, rtol=1e-9, atol=1e-12)
        assert gradient.abs().max() > 0


def test_attention_needs_layers_to_look_at() -> None:
    with pytest.raises(UserError, match="convnet1-w6 has no layer"):
        loop(*toy(), "convnet1-w6", engine=AttentionEngine())


def median(features: Tensor) -> float:
    gaps = sorted(float((x - y).norm().detach()) for i, x in enumerate(features) for y in features[:i])
    return gaps[(len(gaps) - 1) // 2]


@pytest.mark.parametrize(
    "told",
    [
        Kernels(kernel="linear"),
        Kernels(kernel="polynomial"),
        Kernels(kernel="polynomial", degree=2),
        Kernels(),
        Kernels(bandwidth=2.5),
    ],
    ids=["linear", "polynomial", "degree", "median", "bandwidth"],
)
@pytest.mark.parametrize(
    ("iteration", "ipc"), slow_but_first([(0, (1, 3, 2)), (0, (2, 2, 2)), (1, (2, 2, 2)), (2, (2, 2, 2))])
)
def test_mmd_equals_double_loops_over_classes_of_any_size(
    told: Kernels, iteration: int, ipc: tuple[int, ...]
) -> None:
    engine = DistributionEngine(batch_real=6, discrepancy=told)
    distiller = loop(*toy(), "convnet2-w6", engine=engine, ipc=ipc)
    distiller.sources.iteration = iteration
    network = distiller.sources.network().network
    real, augment = drawn(distiller)
    images, classes = learnable(distiller)
    expected = torch.zeros((), dtype=torch.float64)
    for r, s, change in zip(real, classes, augment, strict=True):
        theirs, ours = network.embed(change(r)), network.embed(change(s))
        width = told.bandwidth or median(theirs)
        kernel = {
            "linear": lambda x, y: x @ y,
            "polynomial": lambda x, y: (x @ y / len(x) + 1) ** told.degree,
            "gaussian": lambda x, y, s=width: s**2 * (-(x - y).square().sum() / (2 * s**2)).exp(),
        }[told.kernel]
        expected = expected + squared_mmd(theirs, ours, kernel)
    slope = torch.autograd.grad(expected, images)[0]
    loss, gradient = loss_and_gradient(distiller)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(gradient, slope, rtol=1e-7, atol=1e-9)


def test_a_wide_kernel_is_distribution_matching() -> None:
    data: tuple[Task, RealDataset] = toy()
    wide = DistributionEngine(batch_real=6, discrepancy=Kernels(bandwidth=1e4))
    loss, gradient = loss_and_gradient(loop(*data, "convnet2-w6", engine=wide))
    plain, slope = loss_and_gradient(loop(*data, "convnet2-w6", engine=DistributionEngine(batch_real=6)))
    torch.testing.assert_close(loss, plain, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient, slope, rtol=1e-4, atol=1e-6)
