"""Matching of characteristic functions by the engine, against its equations in float64."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dsdistill import seeding
from dsdistill.compute.config import OptimiserConfig
from dsdistill.compute.pixel_optimiser import Plateau
from dsdistill.distillation.loop import Distiller
from dsdistill.engines import DistributionEngine
from dsdistill.engines.discrepancies import Characteristic
from dsdistill.synthetic.multi_formation import IDENTITY, MultiFormation
from tests.helpers.engines import decoded, drawn, iterations, loop, toy, whole_and_resumed
from tests.helpers.marks import slow_but_first
from tests.reference.ncfm import characteristic_discrepancy


def distiller(sampler: Literal["gaussian", "learned"] = "gaussian", **told: float) -> Distiller:
    return matching(Characteristic(frequencies=12, sampler=sampler, sampler_lr=0.1), **told)


def matching(
    points: Characteristic,
    pixel_lr: float = 0.1,
    iterations: int = 6,
    seed: int = 0,
    multi_formation: MultiFormation = IDENTITY,
    ipc: tuple[int, ...] = (2, 2, 2),
    **told: float,
) -> Distiller:
    engine = DistributionEngine(batch_real=6, discrepancy=points, **told)  # type: ignore[arg-type]
    made = loop(*toy(), "convnet2-w6", engine=engine, multi_formation=multi_formation, ipc=ipc)
    made.sources.seed = seed
    engine.prepare(made.synthetic, made.sources)
    synthetic = made.synthetic.double()
    return Distiller(engine, synthetic, made.sources, OptimiserConfig(lr=pixel_lr), iterations)


@pytest.mark.parametrize("told", [{}, {"alpha": 0.2}, {"beta": 0.3}, {"scale": 20.0}], ids=str)
@pytest.mark.parametrize(
    ("iteration", "factor", "ipc"),
    slow_but_first([(1, 2, (1, 3, 2)), (0, 1, (2, 2, 2)), (1, 1, (2, 2, 2)), (1, 2, (2, 2, 2))]),
)
def test_loss_and_pixel_gradient_equal_complex_exponentials(
    told: dict[str, float], iteration: int, factor: int, ipc: tuple[int, ...]
) -> None:
    points_told = Characteristic(**{"frequencies": 12, **told})  # type: ignore[arg-type]
    ours = matching(points_told, multi_formation=MultiFormation(factor=factor), ipc=ipc)
    ours.sources.iteration = iteration
    network = ours.sources.network().network
    real, augment = drawn(ours)
    images = ours.synthetic.images.detach().clone().requires_grad_()
    points = [
        torch.randn(
            12,
            network.feature_dim,
            generator=seeding.generator(0, "frequencies", iteration, label),
            dtype=torch.float64,
        )
        for label in range(3)
    ]

    def unit(x: Tensor) -> Tensor:
        features = network.embed(x)
        return features / features.norm(dim=1, keepdim=True)

    each = list(zip(real, decoded(ours, images), augment, strict=True))
    expected = (
        told.get("scale", 300)
        * characteristic_discrepancy(
            [unit(change(r)) for r, _, change in each],
            [unit(change(s)) for _, s, change in each],
            points,
            told.get("alpha", 0.5),
            told.get("beta", 0.5),
        ).sum()
    )
    (slope,) = torch.autograd.grad(expected, images)
    (loss,) = ours.engine.loss(ours.synthetic, ours.sources).values()
    loss.backward()
    torch.testing.assert_close(loss.detach(), expected.detach(), rtol=1e-8, atol=0)
    torch.testing.assert_close(ours.synthetic.images.grad, slope, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("ipc", [(2, 2, 2), (1, 3, 2)])
def test_calibration_is_a_step_of_its_own(ipc: tuple[int, ...]) -> None:
    ours = matching(Characteristic(frequencies=12), calibration=2.0, ipc=ipc)
    assert ours.engine.updates_per_iteration == 2
    ours.sources.update = 1
    rows = ours.sources.siamese()
    network = ours.sources.network().network
    images = ours.synthetic.images.detach()
    expected = [
        F.cross_entropy(
            network(ours.sources.augmentation(part, rows[torch.full((len(part),), label)])),
            torch.full((len(part),), label),
        )
        for label, part in enumerate(images.split(ipc))
    ]
    terms = ours.engine.loss(ours.synthetic, ours.sources)
    assert list(terms) == ["calibration"]
    torch.testing.assert_close(terms["calibration"].detach(), 2 * torch.stack(expected).sum())
    ours.sources.update = 0
    assert list(ours.engine.loss(ours.synthetic, ours.sources)) == ["characteristic"]
    assert list(ours.step().terms) == ["characteristic", "calibration"]


def test_an_iteration_is_a_step_of_every_class_in_either_turn() -> None:
    """The published loops step after each class, and once more after each class's calibration."""
    ours, plain = distiller(calibration=1.0), distiller(calibration=1.0)
    descent = OptimiserConfig(kind="adamw", lr=0.05, weight_decay=0.1, updates="per-class")
    for _ in iterations(Distiller(ours.engine, ours.synthetic, ours.sources, descent, iterations=3)):
        pass
    images, sources = plain.synthetic.images, plain.sources
    images.grad = torch.zeros_like(images)
    optimiser = torch.optim.AdamW([images], lr=0.05, weight_decay=0.1)
    for sources.iteration in range(3):
        for sources.update in range(2):
            for label in range(3):
                sources.classes = torch.tensor([label])
                optimiser.zero_grad(set_to_none=False)
                torch.stack(list(plain.engine.loss(plain.synthetic, sources).values())).sum().backward()
                optimiser.step()
    torch.testing.assert_close(ours.synthetic.images, images, rtol=1e-9, atol=1e-10)


def test_the_adversary_climbs_while_the_images_descend() -> None:
    ours = distiller("learned")
    adversary = ours.synthetic.adversary
    assert adversary is not None
    for parameter in adversary.parameters():  # away from zero, so that every layer has a gradient
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=seeding.generator(0, "test")))
    names = [name for name, _ in adversary.named_parameters()]

    def loss() -> Tensor:
        return torch.stack(list(ours.engine.loss(ours.synthetic, ours.sources).values())).sum()

    loss().backward()
    images = ours.synthetic.images
    before = float(loss().detach())
    for parameters, rises in ((adversary.parameters(), True), ([images], False)):
        moved = [(parameter, parameter.detach().clone()) for parameter in parameters]
        for parameter, _ in moved:
            assert parameter.grad is not None
            assert float(parameter.grad.abs().max()) > 0
            parameter.data.sub_(1e-3 * parameter.grad / parameter.grad.norm())
        assert (float(loss().detach()) > before) == rises
        for parameter, value in moved:
            parameter.data.copy_(value)
    assert names == ["inner.weight", "inner.bias", "outer.weight", "outer.bias"]


def test_the_adversarys_gradient_is_that_of_all_classes_reversed() -> None:
    ours = distiller("learned")
    adversary, sources = ours.synthetic.adversary, ours.sources
    assert adversary is not None
    for parameter in adversary.parameters():  # away from zero, so that every layer has a gradient
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=seeding.generator(0, "test")))
    (loss,) = ours.engine.loss(ours.synthetic, sources).values()
    loss.backward()
    network, (real, augment) = sources.network().network, drawn(ours)

    def unit(x: Tensor) -> Tensor:
        return F.normalize(network.embed(x), dim=1).detach()

    total = torch.zeros((), dtype=torch.float64)
    for label, images in enumerate(ours.synthetic.images.detach().split(2)):
        stream = seeding.generator(0, "frequencies", 0, label)
        points = adversary.draw(torch.randn(12, network.feature_dim, generator=stream, dtype=torch.float64))
        features = [[unit(augment[label](each))] for each in (real[label], images)]
        total = total + 300 * characteristic_discrepancy(*features, [points], 0.5, 0.5).sum()
    slopes = torch.autograd.grad(total, list(adversary.parameters()))
    torch.testing.assert_close(loss.detach(), total.detach(), rtol=1e-9, atol=0)
    for parameter, slope in zip(adversary.parameters(), slopes, strict=True):
        torch.testing.assert_close(parameter.grad, -slope, rtol=1e-7, atol=1e-9)


def test_the_adversary_has_its_reach_and_steps_by_adamw() -> None:
    points = Characteristic(frequencies=12, sampler="learned", sampler_lr=0.03, sampler_reach=0.7)
    ours, plain = matching(points, pixel_lr=0.0), matching(points)
    for _ in iterations(ours):
        pass
    learned, adversary = ours.synthetic.adversary, plain.synthetic.adversary
    assert learned is not None
    assert adversary is not None
    assert learned.reach == 0.7
    optimiser = torch.optim.AdamW(adversary.parameters(), lr=0.03, betas=(0.5, 0.999), weight_decay=0.0)
    for plain.sources.iteration in range(6):
        optimiser.zero_grad()
        plain.engine.loss(plain.synthetic, plain.sources)["characteristic"].backward()
        optimiser.step()
    for value, expected in zip(learned.parameters(), adversary.parameters(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.slow
def test_an_adversary_trained_alone_finds_where_the_images_still_differ() -> None:
    points = Characteristic(frequencies=64, sampler="learned")
    ours = matching(points, pixel_lr=0.0, iterations=80)
    for _ in iterations(ours):
        pass
    synthetic, rises = ours.synthetic, []
    for iteration in range(100, 110):  # of networks, real images and noise that it has not seen
        ours.sources.iteration = iteration
        with torch.no_grad():
            learned = ours.engine.loss(synthetic, ours.sources)["characteristic"]
            adversary, synthetic.adversary = synthetic.adversary, None
            rises.append(float(learned / ours.engine.loss(synthetic, ours.sources)["characteristic"]))
            synthetic.adversary = adversary
    assert min(rises) > 1.02


def test_a_run_trains_and_resumes_the_adversary() -> None:
    start = {name: value.clone() for name, value in distiller("learned").synthetic.state_dict().items()}
    whole, second = whole_and_resumed(lambda: distiller("learned"), 3)
    for name, value in whole.synthetic.state_dict().items():
        assert torch.equal(value, second.synthetic.state_dict()[name])
        assert name == "labels" or not torch.equal(value, start[name])


def test_an_adversary_is_drawn_from_the_seed_of_the_run() -> None:
    points = Characteristic(frequencies=8, sampler="learned")
    first, again, other = (matching(points, seed=seed).synthetic.adversary for seed in (0, 0, 1))
    assert first is not None
    assert again is not None
    assert other is not None
    assert torch.equal(first.inner.weight, again.inner.weight)
    assert not torch.equal(first.inner.weight, other.inner.weight)


def test_a_plateau_is_that_of_torch() -> None:
    parameter = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.5, patience=2)
    ours, resumed = Plateau(1.0, 2), Plateau(1.0, 2)
    for loss in [5, 4, 4, 4, 4, 4, 3, 3.5, 3.4, 2.99999, 3.2, 3.1, 3.3, 1, 1, 1, 1, 1, 1, 1]:
        theirs.step(loss)
        resumed.load_state_dict(ours.state_dict())
        ours.update(loss)
        resumed.update(loss)
        assert ours.lr == resumed.lr == optimiser.param_groups[0]["lr"]
    assert ours.lr < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("stepping", ["joint", "per-class"])
def test_steps_shrink_with_torchs_plateau_and_stay_small_when_resumed(
    kind: Literal["sgd", "adamw"], stepping: Literal["joint", "per-class"]
) -> None:
    told = OptimiserConfig(kind=kind, lr=0.008, updates=stepping, patience=1)

    def patient() -> Distiller:
        made = distiller(calibration=300.0)  # so that either turn's loss matters
        return Distiller(made.engine, made.synthetic, made.sources, told, iterations=7)

    plain = patient()
    images, sources = plain.synthetic.images, plain.sources
    optimiser: torch.optim.Optimizer = torch.optim.SGD([images], lr=0.008, momentum=0.5)
    if kind == "adamw":
        optimiser = torch.optim.AdamW([images], lr=0.008, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.5, patience=1)
    images.grad = torch.zeros_like(images)
    paths, rates = [], []
    for sources.iteration in range(7):
        total = 0.0
        for sources.update in range(2):
            for sources.classes in torch.arange(3).split(3 if stepping == "joint" else 1):
                optimiser.zero_grad(set_to_none=False)
                (loss,) = plain.engine.loss(plain.synthetic, sources).values()
                loss.backward()
                total += float(loss.detach())
                optimiser.step()
        scheduler.step(total)
        paths.append(images.detach().clone())
        rates.append(optimiser.param_groups[0]["lr"])
    assert rates == [0.008, 0.008, 0.004, 0.004, 0.004, 0.002, 0.002]

    ours, states = patient(), []
    for _, expected in zip(iterations(ours), paths, strict=True):
        torch.testing.assert_close(ours.synthetic.images.detach(), expected, rtol=1e-9, atol=1e-10)
        states.append({name: value.clone() for name, value in ours.state_dict().items()})
    for state in (states[2], states[4]):  # when just halved, and about to be halved again
        resumed = patient()
        resumed.load_state_dict(state)
        for _ in iterations(resumed):
            pass
        assert torch.equal(resumed.synthetic.images, ours.synthetic.images)
