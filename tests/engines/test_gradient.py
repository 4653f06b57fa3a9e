"""The gradient engine against plain double backward in float64, and how its networks are trained."""

from __future__ import annotations

import itertools
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill.augment.dsa import Augmentation
from dsdistill.compute.config import OptimiserConfig
from dsdistill.distillation.loop import Distiller
from dsdistill.errors import UserError
from dsdistill.supply import TrainedConfig
from dsdistill.synthetic.multi_formation import MultiFormation
from tests.helpers.engines import iterations
from tests.helpers.gradients import CASES, loop, naive
from tests.helpers.marks import slow_but_first


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("iteration", slow_but_first(range(4)))  # four draws of the augmentation
def test_loss_and_pixel_gradient_equal_double_backward(case: str, iteration: int) -> None:
    distiller = loop(**CASES[case])
    distiller.sources.iteration = iteration
    expected, gradient = naive(distiller)
    (loss,) = distiller.engine.loss(distiller.synthetic, distiller.sources).values()
    loss.backward()
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-9, atol=0)
    found = distiller.synthetic.images.grad
    assert found is not None
    assert float(found.abs().max()) > 0
    torch.testing.assert_close(found, gradient, rtol=1e-9, atol=1e-10 * float(gradient.abs().max()))


def run(distiller: Distiller) -> Tensor:
    for _ in iterations(distiller):
        pass
    return distiller.synthetic.images.detach().clone()


TRAINED = {
    "synthetic": TrainedConfig(updates_per_network=3, epochs=2, batch_size=2, lr=0.1),
    "real": TrainedConfig(
        on="real", updates_per_network=4, samples=10, batch_size=4, momentum=0.9, cutmix=0.5, warm_up=1
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("training", TRAINED.values(), ids=TRAINED)
@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_a_resumed_loop_continues_bit_identically(training: TrainedConfig, stop: int) -> None:
    optimiser = OptimiserConfig(lr=0.1, updates="per-class")
    whole = run(loop(supply=training, optimiser=optimiser))
    first = loop(supply=training, optimiser=optimiser)
    for report in iterations(first):
        if report.iteration == stop:
            break
    state = {name: value.clone() for name, value in first.state_dict().items()}
    second = loop(supply=training, optimiser=optimiser)
    second.load_state_dict(state)
    assert torch.equal(run(second), whole)


@pytest.mark.slow
@pytest.mark.parametrize("training", TRAINED.values(), ids=TRAINED)
@pytest.mark.parametrize("network", ["convnet3-w6", "convnet2-w6-batch"])
@pytest.mark.parametrize("stop", [0, 2, 3])
def test_a_loop_may_be_taken_back(training: TrainedConfig, network: str, stop: int) -> None:
    distiller = loop(network, supply=training)
    losses = [float(report.terms["gradient"]) for report in itertools.islice(iterations(distiller), stop)]
    state = {name: value.clone() for name, value in distiller.state_dict().items()}
    losses += [float(report.terms["gradient"]) for report in iterations(distiller)]
    whole = distiller.synthetic.images.detach().clone()
    for _ in range(2):
        distiller.load_state_dict(state)
        assert distiller.iteration == stop
        again = [float(report.terms["gradient"]) for report in iterations(distiller)]
        assert again == losses[stop:]
        assert torch.equal(distiller.synthetic.images.detach(), whole)


@pytest.mark.slow
@pytest.mark.parametrize("stepping", ["joint", "per-class"])
def test_pixels_are_clamped_every_so_many_iterations(stepping: Literal["joint", "per-class"]) -> None:
    def wild(clamp_every: int) -> Distiller:
        optimiser = OptimiserConfig(lr=30, updates=stepping, clamp_every=clamp_every)
        return loop(space="unit", optimiser=optimiser)

    clamped, by_hand = wild(2), wild(0)
    for iteration, _ in enumerate(iterations(clamped)):
        pixels = by_hand.synthetic.images.data
        if iteration:
            assert float(pixels.min()) < 0
            assert float(pixels.max()) > 1
        if iteration % 2 == 0:
            pixels.clamp_(0, 1)
        by_hand.step()
        assert torch.equal(clamped.synthetic.images, by_hand.synthetic.images)


@pytest.mark.slow
@pytest.mark.parametrize("training", TRAINED.values(), ids=TRAINED)
def test_class_chunks_change_nothing(training: TrainedConfig) -> None:
    torch.testing.assert_close(run(loop(supply=training, class_chunk=2)), run(loop(supply=training)))


def weights(distiller: Distiller) -> Tensor:
    return torch.cat([p.detach().flatten() for p in distiller.sources.supply.network.parameters()])


def test_a_network_is_trained_and_then_drawn_anew() -> None:
    distiller = loop(supply=TRAINED["synthetic"])
    seen = []
    for iteration in range(6):
        distiller.sources.iteration = iteration
        distiller.sources.classifier()
        seen.append(weights(distiller))
        distiller.sources.advance(distiller.synthetic)
    assert len({float(each.sum()) for each in seen}) == 6
    distiller.sources.iteration = 3
    batches = distiller.sources.training_batches()
    distiller.sources.supply.draw(3, batches)
    assert torch.equal(weights(distiller), seen[3])
    distiller.sources.supply.draw(4, batches)
    assert torch.equal(weights(distiller), seen[3])  # it keeps what it has within its time


def test_training_on_the_synthetic_set_is_plain_sgd() -> None:
    from tests.reference.gradient import inner_epochs

    distiller = loop(supply=TRAINED["synthetic"], augmentation=Augmentation(operators=()))
    sources = distiller.sources
    network = sources.classifier().network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = distiller.synthetic.of(torch.arange(3))
    orders = [
        torch.cat([labels for _, labels in batches])
        for batches in (
            list(sources.supply.batches(0, sources.training_batches(distiller.synthetic)))[i * 2 : i * 2 + 2]
            for i in (0, 1)
        )
    ]  # one image a class: its label is its position
    sources.advance(distiller.synthetic)
    trained = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(before)
    network.requires_grad_(True)
    inner_epochs(
        network, images, torch.arange(3), epochs=2, order=lambda epoch: orders[epoch], lr=0.1, batch_size=2
    )
    torch.testing.assert_close(trained, dict(network.state_dict()))


def test_real_batches_go_through_every_image_before_any_comes_twice() -> None:
    distiller = loop(supply=TrainedConfig(on="real", samples=6, batch_size=3, updates_per_network=99))
    sources = distiller.sources
    sources.augmentation = Augmentation(operators=())
    seen: list[Tensor] = []
    for iteration in range(3):  # six batches of three: an epoch of 21 images is seven of them
        seen += [images for images, _ in sources.supply.batches(iteration, sources.training_batches())]
    assert len(torch.cat(seen).flatten(1).unique(dim=0)) == 18


@pytest.mark.slow
def test_few_synthetic_images_are_drawn_where_many_are_decoded() -> None:
    plain = Augmentation(operators=())
    distiller = loop(
        batch_synthetic=3, multi_formation=MultiFormation(factor=2), space="unit", augmentation=plain
    )
    left_out = []
    for distiller.sources.iteration in range(12):
        (loss,) = distiller.engine.loss(distiller.synthetic, distiller.sources).values()
        (gradient,) = torch.autograd.grad(loss, distiller.synthetic.images)
        without = F.avg_pool2d(gradient.abs(), 8).flatten(1) == 0
        assert without.sum(1).tolist() == [1, 1, 1]
        left_out.append(without.long().argmax(1))
    each = torch.stack(left_out)  # [iteration, class], a quarter each
    assert all(set(quarters) == {0, 1, 2, 3} for quarters in each.T.tolist())
    assert (each[:, :1] != each).any(0).tolist() == [False, True, True]


def test_what_cannot_be_matched_is_refused() -> None:
    with pytest.raises(UserError, match="no convolutions"):
        loop("mlp", matched="convolutions")
    by_batch = TrainedConfig(batch_norm="batch")
    single, double = (
        loop("convnet2-w6-batch", ipc=3, batch_synthetic=most, supply=by_batch) for most in (1, 2)
    )
    with pytest.raises(UserError, match="one image of a class is no batch"):
        single.engine.prepare(single.synthetic, single.sources)
    single.synthetic.flip = True
    for each in (single, double):
        each.engine.prepare(each.synthetic, each.sources)
