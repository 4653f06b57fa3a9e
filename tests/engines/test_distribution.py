"""The distribution engine against its equations, in float64, class by class."""

from __future__ import annotations

import pytest
import torch

from dsdistill.engines import DistributionEngine
from dsdistill.engines.sources import Sources
from dsdistill.objectives.distributions import class_sums, mean_discrepancy
from dsdistill.synthetic.multi_formation import MultiFormation
from tests.helpers.engines import (
    decoded,
    drawn,
    iterations,
    loop,
    loss_and_gradient,
    naive,
    toy,
    whole_and_resumed,
)
from tests.reference.dm import distribution_matching_loss


@pytest.mark.parametrize(("channels", "ipc"), [(1, 2), (3, 2), (1, (1, 3, 2))])
@pytest.mark.parametrize("iteration", range(6))  # six draws of the augmentation
def test_loss_and_pixel_gradient_equal_a_naive_loop_over_classes(
    channels: int, ipc: int | tuple[int, ...], iteration: int
) -> None:
    distiller = loop(*toy(channels), "convnet2-w8", ipc=ipc)
    distiller.sources.iteration = iteration
    expected, gradient = naive(distiller)
    (loss,) = distiller.engine.loss(distiller.synthetic, distiller.sources).values()
    loss.backward()
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(distiller.synthetic.images.grad, gradient, rtol=1e-10, atol=1e-12)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("ipc", [2, (1, 3, 2)])
def test_taking_classes_in_turns_changes_nothing(ipc: int | tuple[int, ...]) -> None:
    whole, turns = (loop(*toy(), "convnet2-w8", class_chunk=chunk, ipc=ipc) for chunk in (0, 1))
    for one, other in zip(iterations(whole), iterations(turns), strict=True):
        torch.testing.assert_close(one.terms, other.terms, rtol=1e-10, atol=0)
    torch.testing.assert_close(whole.synthetic.images, turns.synthetic.images, rtol=1e-10, atol=1e-12)
    assert turns.classes_at_once == 1


def test_a_network_that_couples_samples_sees_one_batch_of_all_classes() -> None:
    distiller = loop(*toy(), "convnet2-w8-batch", class_chunk=1)
    assert distiller.classes_at_once == 3
    sources = distiller.sources
    network, rows = sources.network(), sources.siamese()
    ((images, _),) = list(sources.real(6, rows))
    torch.testing.assert_close(network.frozen(images), network.network.embed(images))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("chunk", [0, 1])
def test_a_random_part_of_each_class_is_matched_where_few_are_asked_for(flip: bool, chunk: int) -> None:
    """Three decoded images of each class, the same ones whatever classes are taken together."""
    distiller = loop(
        *toy(),
        "convnet2-w8",
        ipc=(1, 3, 2),
        class_chunk=chunk,
        engine=DistributionEngine(batch_real=6, batch_synthetic=3),
        multi_formation=MultiFormation(factor=2),
    )
    distiller.synthetic.flip = flip
    sources = distiller.sources
    seen = []
    for sources.iteration in range(24):
        sources.classes = torch.arange(3)
        real, augment = drawn(distiller)
        images = distiller.synthetic.images.detach().clone().requires_grad_()
        rows = [sources.synthetic_positions(label, 4 * count, 3) for label, count in enumerate((1, 3, 2))]
        chosen = [part[each] for part, each in zip(decoded(distiller, images), rows, strict=True)]
        if flip:
            chosen = [torch.cat([part, part.flip(-1)]) for part in chosen]
        expected = distribution_matching_loss(sources.supply.network.embed, real, chosen, augment)
        (gradient,) = torch.autograd.grad(expected, images)
        loss, distiller.synthetic.images.grad = torch.zeros_like(expected), None
        for sources.classes in torch.arange(3).split(chunk or 3):
            (term,) = distiller.engine.loss(distiller.synthetic, sources).values()
            term.backward()
            loss = loss + term.detach()
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-10, atol=0)
        torch.testing.assert_close(distiller.synthetic.images.grad, gradient, rtol=1e-9, atol=1e-12)
        seen.append(rows)
    for label, count in enumerate((4, 12, 8)):
        draws = torch.stack([each[label] for each in seen])
        assert all(len(draw.unique()) == 3 for draw in draws)
        assert draws.unique().tolist() == list(range(count)), "each comes in time"


def test_a_run_that_goes_on_draws_the_same_part() -> None:
    whole, resumed = whole_and_resumed(
        lambda: loop(
            *toy(), "convnet2-w8", ipc=3, engine=DistributionEngine(batch_real=6, batch_synthetic=2)
        ),
        stop=1,
    )
    assert torch.equal(whole.synthetic.images, resumed.synthetic.images)


def test_all_of_a_class_are_matched_where_there_are_no_more_than_asked_for() -> None:
    plain, few = (
        loop(*toy(), "convnet2-w8", ipc=2, engine=DistributionEngine(batch_real=6, batch_synthetic=most))
        for most in (0, 2)
    )
    (one, gradient), (other, same) = loss_and_gradient(plain), loss_and_gradient(few)
    assert torch.equal(one, other)
    assert torch.equal(gradient, same)


def test_small_classes_give_all_they_have() -> None:
    task, real = toy(counts=(9, 2, 7))
    sources = loop(task, real, "convnet2-w8").sources
    assert sources.counts(6).tolist() == [6, 2, 6]
    ((images, owner),) = list(sources.real(6, sources.siamese()))
    assert owner.bincount().tolist() == [6, 2, 6]
    assert len(images) == 14


def test_means_are_those_of_each_class_whatever_parts_its_images_come_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    distiller = loop(*toy(), "convnet2-w8")
    real, augment = drawn(distiller)
    sources = distiller.sources
    expected = [sources.supply.network.embed(augment[label](real[label])).mean(0) for label in (1, 2)]
    monkeypatch.setattr(Sources, "part_bytes", 4 * 12 * 12 * 4)
    sources.classes = torch.tensor([1, 2])
    rows = sources.siamese()
    assert [owner.tolist() for _, owner in sources.real(6, rows)] == [[0, 0, 0, 0], [0, 1, 1, 1], [1, 1, 1]]
    torch.testing.assert_close(sources.real_means(6, rows), torch.stack(expected))


def test_draws_depend_on_the_iteration_only() -> None:
    one, other = (loop(*toy(), "convnet2-w8").sources for _ in range(2))
    for sources, path in ((one, [0, 1, 5]), (other, [5])):
        for iteration in path:
            sources.iteration = iteration
            sources.network()
    for a, b in zip(one.supply.network.parameters(), other.supply.network.parameters(), strict=True):
        assert torch.equal(a, b)
    ((a, _),), ((b, _),) = (list(sources.real(4, sources.siamese())) for sources in (one, other))
    assert torch.equal(a, b)


def test_equal_distributions_have_no_discrepancy() -> None:
    features = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    owner = torch.tensor([0, 0, 1, 1, 1, 1])
    means = class_sums(features, owner, 2) / torch.tensor([[2.0], [4.0]])
    assert mean_discrepancy(means, torch.stack([features[:2].mean(0), features[2:].mean(0)])) < 1e-12
    assert mean_discrepancy(torch.zeros(3, 5), torch.ones(3, 5)) == 15  # a sum, not a mean
