"""A population of networks in training on the synthetic set: its schedule, and its steps."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from dsdistill.distillation.loop import Distiller
from dsdistill.runtime.device import Precision
from dsdistill.seeding import generator
from dsdistill.supply.base import PassOptions
from dsdistill.supply.cost import Sizes
from dsdistill.supply.population import Population, PopulationConfig, RegressionTraining
from tests.helpers.engines import iterations
from tests.helpers.regression import FEW, FREPO, loop, population
from tests.reference.regression import adam_step


def with_supply(network: str = "wideconvnet2-w4-inputbatch", **options: object) -> Distiller:
    supply = dataclasses.replace(FEW, **options)  # type: ignore[arg-type]
    return loop(dataclasses.replace(FREPO, supply=supply), network, iterations=40)


def first_weights(state: dict[str, Tensor]) -> Tensor:
    return state["network.blocks.0.conv.weight"]


@pytest.mark.parametrize(
    ("options", "ages"),
    [
        ({"first_ages": "zero"}, [0, 0, 0]),
        ({"first_ages": "staggered", "max_age": 101, "size": 10}, list(range(0, 100, 10))),
        ({"first_ages": "staggered", "max_age": 5}, [0, 1, 3]),
    ],
)
def test_first_ages(options: dict[str, object], ages: list[int]) -> None:
    ours = with_supply(**options)
    ours.sources.drawn(ours.synthetic)
    assert [each.age for each in population(ours).individuals] == ages
    assert [each.steps for each in population(ours).individuals] == [0] * len(ages)


def test_random_ages_are_all_there_and_of_the_seed() -> None:
    config = PopulationConfig(size=2000, max_age=5, first_ages="random")
    ages = config.ages(0)
    assert set(ages) == {1, 2, 3, 4, 5}
    assert ages == config.ages(0) != config.ages(1)


def test_networks_are_replaced_by_age() -> None:
    """Each iteration: the one that was drawn takes a step, or there is a new one in its place."""
    ours = with_supply(max_age=2)
    ours.sources.drawn(ours.synthetic)
    supply = population(ours)
    ages, numbers, made = [each.age for each in supply.individuals], [0, 1, 2], 3
    for iteration in range(30):
        before = [each.state for each in supply.individuals]
        ours.step()
        stream = generator(0, "population", iteration)
        place = int(torch.randint(3, (), generator=stream))
        assert supply.position == place
        if ages[place] < 2:
            ages[place] += 1
        else:
            ages[place], numbers[place], made = 0, made, made + 1
        assert [each.age for each in supply.individuals] == ages
        assert [each.number for each in supply.individuals] == numbers
        for other in range(3):
            same = torch.equal(first_weights(supply.individuals[other].state), first_weights(before[other]))
            assert same == (other != place)
    assert made > 6


def test_the_released_codes_error_is_reproduced_on_demand() -> None:
    """A network that keeps the age of the one before it is replaced whenever it is drawn."""
    counts = {}
    for reset in (True, False):
        ours = with_supply(max_age=2, reset_age=reset)
        for _ in iterations(ours):
            pass
        counts[reset] = population(ours)
    wrong = counts[False]
    assert [each.age for each in wrong.individuals] == [2, 2, 2]
    assert [each.steps for each in wrong.individuals] == [0, 0, 0]  # all random in the end
    assert any(each.steps for each in counts[True].individuals)
    assert max(each.number for each in wrong.individuals) > max(
        each.number for each in counts[True].individuals
    )


def trained_plainly(ours: Distiller, network: nn.Module, steps: int) -> None:
    """Train a network on the synthetic set as it is."""
    adam = torch.optim.Adam(network.requires_grad_(True).parameters(), 0.01)
    for _ in range(steps):
        adam_step(network, ours.synthetic.images.detach(), ours.synthetic.answers().detach(), adam)  # type: ignore[arg-type]


def test_a_network_is_trained_on_what_the_set_has_learned() -> None:
    ours = with_supply(size=1, max_age=9)
    ours.sources.drawn(ours.synthetic)
    network = copy.deepcopy(population(ours).network)
    for _ in range(3):
        ours.sources.advance(ours.synthetic)
        ours.sources.drawn(ours.synthetic)
    trained_plainly(ours, network, steps=3)
    state = population(ours).individuals[0].state
    for name, value in network.state_dict().items():
        assert_close(state[f"network.{name}"], value, rtol=1e-9, atol=1e-12)
    assert not any(parameter.requires_grad for parameter in population(ours).network.parameters())
    assert not any(module.training for module in population(ours).network.modules() if _is_norm(module))


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d)


def test_running_statistics_keep_nine_tenths_of_a_batch() -> None:
    ours = with_supply(size=1, max_age=9)
    ours.sources.drawn(ours.synthetic)
    first = ours.sources.supply.network.blocks[0]  # type: ignore[index]
    maps = first(ours.synthetic.images).detach()  # type: ignore[operator]
    ours.sources.advance(ours.synthetic)
    state = population(ours).individuals[0].state
    assert_close(state["network.blocks.1.norm.running_mean"], 0.9 * maps.mean((0, 2, 3)))


def test_first_networks_may_be_trained_for_their_age() -> None:
    ours = with_supply(size=2, max_age=5, pretrain=True)
    untrained = with_supply(size=2, max_age=5)
    for each in (ours, untrained):
        each.sources.drawn(each.synthetic)
    assert [each.steps for each in population(ours).individuals] == [0, 2]
    network = copy.deepcopy(population(untrained).network)
    start = population(untrained).individuals[1].state
    network.load_state_dict({name: start[f"network.{name}"] for name in network.state_dict()})
    trained_plainly(ours, network, steps=2)
    state = population(ours).individuals[1].state
    for name, value in network.state_dict().items():
        assert_close(state[f"network.{name}"], value, rtol=1e-9, atol=1e-12)


def test_training_before_the_first_iteration_goes_on_where_it_was_left() -> None:
    options = {"size": 2, "max_age": 60, "pretrain": True}
    whole, ours, resumed = (with_supply(**options) for _ in range(3))
    whole.sources.drawn(whole.synthetic)
    assert list(with_supply(**options).begin()) == [(20, 30), (30, 30)]
    assert next(ours.begin()) == (20, 30)
    resumed.load_state_dict(ours.state_dict())
    assert list(resumed.begin()) == [(30, 30)]
    for each, other in zip(population(whole).individuals, population(resumed).individuals, strict=True):
        assert (each.number, each.age, each.steps) == (other.number, other.age, other.steps)
        assert all(torch.equal(each.state[name], other.state[name]) for name in each.state)
    assert not list(resumed.begin())


def test_a_trial_leaves_the_first_networks_untrained() -> None:
    ours = with_supply(size=2, max_age=60, pretrain=True)
    next(ours.begin())
    population(ours).leave_untrained()
    ours.step()
    assert sum(each.steps for each in population(ours).individuals) == 21


def test_batches_of_large_sets_are_random_and_of_the_network_and_step() -> None:
    ours = with_supply(training=RegressionTraining(batch_size=4))
    ours.sources.drawn(ours.synthetic)
    supply, one = population(ours), population(ours).individuals[1]
    images = [batch for batch, _ in supply._batches(one, ours.synthetic, 3)]
    assert all(len(batch) == 4 == len(batch.flatten(1).unique(dim=0)) for batch in images)
    assert not torch.equal(images[0], images[1])
    one.steps = 1
    again = [batch for batch, _ in supply._batches(one, ours.synthetic, 2)]
    assert_close(again, images[1:])
    rows = torch.randperm(6, generator=generator(0, "population-batches", 1, 0))[:4]
    assert torch.equal(images[0], ours.synthetic.images.detach()[rows])


@pytest.mark.parametrize(("batch_size", "expected"), [(0, 6), (4, 4), (1000, 6)])
def test_steps_count_their_images(batch_size: int, expected: int) -> None:
    config = PopulationConfig(training=RegressionTraining(batch_size=batch_size))
    sizes = Sizes(counts=torch.tensor([9, 9, 9]), decoded=torch.tensor([2, 2, 2]))
    assert (config.training_images(sizes), config.training_graph(sizes)) == (expected, expected)


def test_mean_squared_error_counts_every_number() -> None:
    ours = with_supply(training=RegressionTraining(loss="mse"))
    supply, answers = population(ours), ours.synthetic.answers().detach()
    supply.network.eval()
    expected = (supply.network(ours.synthetic.images) - answers).square().mean()
    assert_close(supply._loss(ours.synthetic.images, answers, 9), expected)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_steps_are_computed_as_the_run_says(precision: Precision) -> None:
    ours = with_supply()
    supply = population(ours)
    supply.network.float().eval()
    supply.ready(PassOptions(1, 12, precision))
    images, answers = ours.synthetic.images.detach().float(), ours.synthetic.answers().detach().float()
    exact = 0.5 * (supply.network(images) - answers).square().sum(1).mean()
    found = supply._loss(images, answers, 9)
    assert found.dtype == torch.float32
    assert torch.equal(found, exact) == (precision == "fp32")
    assert_close(found, exact, rtol=0.05, atol=0)


def test_what_is_held_counts() -> None:
    supply = population(with_supply(size=4))
    assert isinstance(supply, Population)
    weights = sum(value.nbytes for value in supply.network.parameters())
    state = sum(value.nbytes for value in supply.network.state_dict().values())
    assert supply.network_bytes(100) == 5 * (state + 2 * weights) + weights
    plain = population(with_supply(size=4, training=RegressionTraining(optimiser="sgd")))
    assert plain.network_bytes(100) == 5 * state + weights
