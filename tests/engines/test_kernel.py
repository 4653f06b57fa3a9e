"""The kernel engine against its equations, in float64."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from dsdistill.compute.config import OptimiserConfig
from dsdistill.data.preprocess import Standardise
from dsdistill.data.real import RealDataset, Task
from dsdistill.distillation.loop import Distiller
from dsdistill.engines import KernelEngine
from dsdistill.engines.kernel import RidgeConfig
from dsdistill.errors import UserError
from dsdistill.objectives.regression import centred_one_hot
from dsdistill.supply.fresh import FreshConfig
from dsdistill.supply.population import RegressionTraining
from dsdistill.supply.taught import TaughtConfig
from dsdistill.synthetic.multi_formation import MultiFormation
from tests.helpers.engines import iterations, toy, whole_and_resumed
from tests.helpers.regression import FREPO, LAMB, loop, population, real_batch
from tests.helpers.trajectories import written
from tests.reference.regression import adam_step, frepo_loss, krr_st_loss, lamb_steps

TIGHT = {"rtol": 1e-9, "atol": 1e-11}
SLOW = RegressionTraining(loss="mse", optimiser="sgd", lr=0.05, momentum=0.9, batch_size=0)


def losses_and_gradients(ours: Distiller) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the sum of the terms, and the gradients to all that is learned."""
    ours.synthetic.zero_grad()
    total = torch.stack(list(ours.engine.loss(ours.synthetic, ours.sources).values())).sum()
    total.backward()
    learned = ours.synthetic.named_parameters()
    return total.detach(), {name: each.grad for name, each in learned if each.grad is not None}


def plainly(
    ours: Distiller, loss: Callable[..., Tensor], goals: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the same by the plain version, with the network that the iteration has drawn."""
    synthetic = copy.deepcopy(ours.synthetic)
    images, positions = real_batch(ours)
    seen = synthetic.of(torch.arange(3))
    answers = synthetic.answers()
    if synthetic.flip:
        seen, answers = torch.cat([seen, seen.flip(-1)]), torch.cat([answers, answers])
    total = loss(ours.sources.supply.network, seen, answers, images, goals(images, positions))
    synthetic.zero_grad()
    total.backward()
    learned = synthetic.named_parameters()
    return total.detach(), {name: each.grad for name, each in learned if each.grad is not None}


def classes(ours: Distiller) -> Callable[[Tensor, Tensor], Tensor]:
    labels = ours.sources.data.labels
    return lambda _, positions: centred_one_hot(labels[positions], 3, torch.float64)


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("ipc", [1, 4])
@pytest.mark.parametrize("network", ["wideconvnet2-w4-inputbatch", "wideconvnet2-w2-batch", "convnet2-w4"])
def test_frepo_equals_the_plain_version(network: str, ipc: int, factor: int) -> None:
    """Of 36 features, 48 images are solved in primal form; the plain version's kernel is nearly singular."""
    ours = loop(network=network, ipc=ipc, multi_formation=MultiFormation(factor=factor))
    for _ in range(3):
        ours.step()  # some networks have been trained by now
    ours.sources.iteration = 3
    found = losses_and_gradients(ours)
    expected = plainly(ours, frepo_loss, classes(ours))
    assert found[1].keys() == {"images", "label_logits"}
    primal = 3 * ipc * factor**2 > ours.sources.supply.network.feature_dim
    assert_close(found, expected, **({"rtol": 1e-5, "atol": 1e-7} if primal else TIGHT))
    assert all(gradient.abs().max() > 0 for gradient in found[1].values())


def test_mirror_images_are_regressed_on_too() -> None:
    ours = loop(flip=True)
    found = losses_and_gradients(ours)

    def doubled(network: nn.Module, seen: Tensor, answers: Tensor, *real: Tensor) -> Tensor:
        half = len(answers) // 2
        whole = frepo_loss(network, seen, answers, *real)  # type: ignore[arg-type]
        assert torch.equal(answers[:half], answers[half:])
        return whole

    assert_close(found, plainly(ours, doubled, classes(ours)), **TIGHT)
    ours.synthetic.flip = False
    assert not torch.equal(losses_and_gradients(ours)[0], found[0])


@pytest.fixture
def taught(tmp_path: Path) -> KernelEngine:
    """KRR-ST with a random teacher."""
    path = written(tmp_path / "experts.h5", *toy(), network="convnet2-w3-batch")
    supply = TaughtConfig(
        path=str(path), size=2, max_age=3, first_ages="random", pretrain=True, training=SLOW
    )
    ridge = RidgeConfig(of="sum", constant=True)
    return KernelEngine(batch_real=12, supply=supply, loss_of="mse", bias=True, ridge=ridge)


def test_krr_st_equals_the_plain_version(taught: KernelEngine) -> None:
    ours = loop(taught, "wideconvnet2-w4-batch", augmentation="crop_flip", optimiser=OptimiserConfig(lr=0.1))
    teacher = ours.sources.supply.target_network
    assert teacher is not None
    features = teacher.network.embed
    starts = features(ours.synthetic.of(torch.arange(3))).detach()
    assert_close(ours.synthetic.targets, starts, check_dtype=True)  # type: ignore[arg-type]
    assert ours.synthetic.targets_are.startswith("features of convnet2-w3-batch, expert 0, epoch 7")
    assert ours.synthetic.label_logits is None
    for _ in range(2):
        ours.step()
    ours.sources.iteration = 2
    found = losses_and_gradients(ours)
    assert_close(found, plainly(ours, krr_st_loss, lambda images, _: features(images).detach()), **TIGHT)
    assert found[1].keys() == {"images", "targets"}
    answers = ours.sources.supply.network(ours.synthetic.images)
    assert answers.shape == starts.shape  # as many numbers as the teacher has features


def test_data_without_labels_are_distilled(taught: KernelEngine, tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (30, 1, 12, 12), generator=torch.Generator().manual_seed(1)).to(
        torch.uint8
    )
    names = ("unlabelled",)
    task = Task("pictures", names, 1, 12, Standardise.of((0.4,), (0.3,)), mirror=True)
    real = RealDataset("pictures", "train", pixels, torch.zeros(30, dtype=torch.int64), names)
    path = written(tmp_path / "pictures.h5", task, real, network="convnet2-w3-batch")
    still = dataclasses.replace(SLOW, lr=0.0)
    supply = dataclasses.replace(taught.supply, path=str(path), size=1, max_age=99, training=still)
    ours = loop(
        dataclasses.replace(taught, supply=supply, batch_real=30),
        data=(task, real),
        ipc=5,
        optimiser=OptimiserConfig(kind="adamw", lr=0.01),
        iterations=30,
    )
    losses = [float(report.terms["regression"]) for report in iterations(ours)]
    assert losses[-1] < 0.8 * losses[0]
    assert ours.synthetic.targets is not None
    assert len(ours.synthetic.targets) == 5


def test_targets_of_an_image_that_decodes_into_several_are_their_mean(taught: KernelEngine) -> None:
    ours = loop(taught, multi_formation=MultiFormation(factor=2))
    teacher = ours.sources.supply.target_network
    assert teacher is not None
    features, origins = teacher.network.embed(ours.synthetic.of(torch.arange(3))), ours.synthetic.origins()
    means = torch.stack([features[origins == image].mean(0) for image in range(6)])
    assert_close(ours.synthetic.targets.detach(), means.detach())  # type: ignore[union-attr]


def test_labels_begin_centred_and_step_with_the_pixels() -> None:
    ours = loop()
    first = (torch.eye(3, dtype=torch.float64).repeat_interleave(2, 0) - 1 / 3) / (3 / 10) ** 0.5
    assert_close(ours.synthetic.label_logits.detach(), first)  # type: ignore[union-attr]
    starts = {name: value.detach().clone() for name, value in ours.synthetic.named_parameters()}
    _, gradients = losses_and_gradients(ours)
    ours.step()
    for name, value in ours.synthetic.named_parameters():
        expected = lamb_steps(starts[name], [gradients[name]], [LAMB.lr], LAMB.eps)
        assert_close(value.detach(), expected, rtol=1e-8, atol=1e-10)
        moved = (value.detach() - starts[name]).norm() / starts[name].norm()
        assert float(moved) == pytest.approx(0.01)  # one ratio of each whole tensor


def test_an_outer_step_is_that_of_the_plain_version() -> None:
    """Two iterations: loss, LAMB on images and labels, Adam on the network that was drawn, and so on."""
    ours = loop()
    synthetic = copy.deepcopy(ours.synthetic)
    engine_population = population(ours)
    plain: dict[int, tuple[nn.Module, torch.optim.Optimizer]] = {}
    slopes: dict[str, list[Tensor]] = {name: [] for name, _ in synthetic.named_parameters()}
    starts = {name: value.detach().clone() for name, value in synthetic.named_parameters()}
    for iteration in range(2):
        ours.sources.iteration = iteration
        images, positions = real_batch(ours)
        goals = classes(ours)(images, positions)
        ours.sources.drawn(ours.synthetic)
        place = engine_population.position
        if place not in plain:
            network = copy.deepcopy(engine_population.network).requires_grad_(True)
            plain[place] = network, torch.optim.Adam(network.parameters(), 0.01)
        network, adam = plain[place]
        synthetic.zero_grad()
        frepo_loss(network, synthetic.images, synthetic.answers(), images, goals).backward()  # type: ignore[arg-type]
        rates = [LAMB.rate(taken, ours.iterations) for taken in range(iteration + 1)]
        for name, value in synthetic.named_parameters():
            assert value.grad is not None
            slopes[name].append(value.grad.clone())
            value.data = lamb_steps(starts[name], slopes[name], rates, LAMB.eps)
        adam_step(network, synthetic.images.detach(), synthetic.answers().detach(), adam)  # type: ignore[arg-type]
        ours.step()
    for name, value in synthetic.named_parameters():
        assert_close(dict(ours.synthetic.named_parameters())[name].detach(), value.detach(), **TIGHT)
    for place, (network, _) in plain.items():
        state = engine_population.individuals[place].state
        for name, value in network.state_dict().items():
            assert_close(state[f"network.{name}"], value, **TIGHT)


def test_parts_of_real_images_change_nothing() -> None:
    whole, parts = loop(), loop()
    whole.sources.embedder.chunk, parts.sources.embedder.chunk = 100, 1
    whole.sources.learner.chunk, parts.sources.learner.chunk = 100, 1
    assert_close(losses_and_gradients(whole), losses_and_gradients(parts), rtol=1e-9, atol=1e-12)


def test_a_real_batch_has_no_image_twice_and_no_more_than_there_are() -> None:
    ours = loop(dataclasses.replace(FREPO, batch_real=15))
    labels = torch.cat([labels for _, labels in ours.sources.of_all_classes(15)])
    assert len(labels) == 15
    drawn = [torch.cat([images for images, _ in ours.sources.of_all_classes(1000)]) for _ in range(2)]
    assert torch.equal(*drawn)
    assert len(drawn[0].flatten(1).unique(dim=0)) == len(drawn[0]) == 21
    ours.sources.iteration = 1
    assert not torch.equal(torch.cat([images for images, _ in ours.sources.of_all_classes(1000)]), drawn[0])


@pytest.mark.parametrize("network", ["convnet2-w4-batch", "convnet2-w4"])
def test_any_other_supply_will_do(network: str) -> None:
    """A fresh network normalises by the batch at hand, which is then not split."""
    ours = loop(dataclasses.replace(FREPO, supply=FreshConfig()), network)
    ours.sources.iteration = 4
    ours.sources.drawn(ours.synthetic)
    found = losses_and_gradients(ours)
    assert_close(found, plainly(ours, frepo_loss, classes(ours)), **TIGHT)


def test_losses_fall() -> None:
    losses = [float(report.terms["regression"]) for report in iterations(loop(iterations=40))]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


@pytest.mark.parametrize("stop", [1, 4])
def test_a_resumed_run_continues_bit_identically(taught: KernelEngine, stop: int) -> None:
    for engine, network in ((FREPO, "wideconvnet2-w4-inputbatch"), (taught, "wideconvnet2-w4-batch")):
        whole, second = whole_and_resumed(partial(loop, engine, network), stop)
        state = second.state_dict()
        assert state.keys() == whole.state_dict().keys()
        assert all(torch.equal(state[name], value) for name, value in whole.state_dict().items())


def test_separation_is_of_labels(taught: KernelEngine) -> None:
    with pytest.raises(UserError, match=r"engine\.separation is of labels.*set engine\.separation=0"):
        loop(dataclasses.replace(taught, separation=1.0))


def test_separation_compares_classes() -> None:
    task, real = toy(counts=(9,))
    with pytest.raises(UserError, match=r"engine\.separation compares classes, and there is one alone"):
        loop(data=(task, real))
