"""What the trajectory engine learns besides pixels, and how it steps, skips, averages and goes on."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dsdistill.compute.config import OptimiserConfig
from dsdistill.distillation.loop import Distiller
from dsdistill.engines.trajectory import StudentConfig
from dsdistill.errors import UserError
from dsdistill.networks import build_network
from dsdistill.supply.trajectories import Trajectories
from dsdistill.synthetic.multi_formation import MultiFormation
from tests.helpers.engines import CPU, iterations, toy
from tests.helpers.trajectories import LAST, NETWORK, PIXELS, SOFT, buffers, loop


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return buffers(tmp_path_factory.mktemp("experts"))


# Labels and first images ------------------------------------------------------------------------------------


def judged(distiller: Distiller, images: Tensor) -> Tensor:
    """Return the last logits [3, n, K] of every expert."""
    supply = distiller.sources.supply
    assert isinstance(supply, Trajectories)
    network, logits = build_network(NETWORK, 1, 8, 3).double(), []
    for expert in range(3):
        network.load_state_dict(supply.file.state(expert, LAST))
        with torch.no_grad():
            logits.append(network(images.double()))
    return torch.stack(logits)


@pytest.mark.parametrize("space", ["network", "unit"])
@pytest.mark.parametrize("tiles", [1, 4])
def test_labels_start_as_the_mean_of_the_experts_that_are_right(
    experts: Path, space: str, tiles: int
) -> None:
    """Of all that an image is decoded into, each expert is asked."""
    multi_formation = MultiFormation(factor=1 if tiles == 1 else 2)
    distiller = loop(experts, labels=SOFT, ipc=4, space=space, multi_formation=multi_formation)
    seen = judged(distiller, distiller.synthetic.of(torch.arange(3)).detach())
    logits = seen.view(3, 3, tiles, 4, 3).transpose(2, 3).reshape(3, 12, tiles, 3)  # tile by tile of a class
    expected, rights = [], []
    for image, label in enumerate(distiller.synthetic.labels.tolist()):
        answers = logits[:, image].flatten(0, 1)
        right = [each for each in answers if int(each.argmax()) == label]
        expected.append(torch.stack(right or list(answers)).mean(0))
        rights.append(len(right))
    assert {0, 1, 2} <= set(rights)
    assert distiller.synthetic.label_logits is not None
    torch.testing.assert_close(
        distiller.synthetic.label_logits.detach(), torch.stack(expected), rtol=1e-4, atol=1e-5
    )


def test_the_first_images_may_be_those_that_experts_know(experts: Path) -> None:
    distiller = loop(experts, init="correct")
    task, real = toy(1, 8)
    everything = task.preprocess(real.unit(slice(None)))
    right = judged(distiller, everything).argmax(2) == real.labels
    chosen = judged(distiller, distiller.synthetic.images.detach()).argmax(2) == distiller.synthetic.labels
    for label in range(3):
        of_class, of_chosen = right[:, real.labels == label], chosen[:, 2 * label : 2 * label + 2]
        assert int(of_chosen[0].sum()) == min(2, int(of_class[0].sum()))
        assert int(of_chosen.any(0).sum()) == min(2, int(of_class.any(0).sum()))


# Steps ------------------------------------------------------------------------------------------------------

EVERYTHING: dict[str, Any] = {
    "labels": SOFT,
    "batch_synthetic": 4,
    "student": StudentConfig(lr=0.05, momentum=0.9, learning=OptimiserConfig(lr=1e-3)),
    "perturbation": 1.0,
    "between": "rising",
    "optimiser": OptimiserConfig(lr=0.5, ema=0.9),
}


def taken(distiller: Distiller, count: int) -> dict[str, Tensor]:
    """Take some iterations; return a copy of the state."""
    list(itertools.islice(iterations(distiller), count))
    return {name: value.clone() for name, value in distiller.state_dict().items()}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
    assert one.keys() == other.keys()
    return {name for name, value in one.items() if not torch.equal(value, other[name])}


@pytest.mark.slow
def test_a_loss_above_the_threshold_changes_nothing(experts: Path) -> None:
    before = taken(loop(experts, **EVERYTHING), 2)
    assert {name.rpartition(".")[0] for name in before if "momentum" in name} == {
        "optimiser.images",
        "others/student_lr.student_lr",
        "others/label_logits.label_logits",
    }
    stepping = loop(experts, **EVERYTHING)
    stepping.load_state_dict(before)
    after = taken(stepping, 1)
    assert differing(before, after) == before.keys() - {"synthetic.labels"}

    skipping, reaching = (loop(experts, skip_above=limit, **EVERYTHING) for limit in (1e-6, 1e6))
    for each in (skipping, reaching):
        each.load_state_dict(before)
    assert differing(before, taken(skipping, 1)) == {"iteration"}
    assert skipping.iteration == 3
    assert not differing(after, taken(reaching, 1))


@pytest.mark.slow
def test_the_threshold_is_for_each_loss_alone(experts: Path) -> None:
    losses = [float(report.terms["trajectory"]) for report in iterations(loop(experts, steps=10))]
    limit = sorted(losses)[3]
    assert losses.index(max(losses)) < losses.index(min(losses))
    distiller = loop(experts, steps=10, skip_above=limit)
    images = distiller.synthetic.images.detach().clone()
    for report in iterations(distiller):
        stayed = torch.equal(images, distiller.synthetic.images)
        assert stayed == (float(report.terms["trajectory"]) > limit)
        images = distiller.synthetic.images.detach().clone()


@pytest.mark.slow
def test_the_average_follows_its_recursion(experts: Path) -> None:
    distiller, plain = loop(experts, **EVERYTHING), loop(experts, **EVERYTHING | {"optimiser": PIXELS})
    assert plain.synthetic.average is None
    expected = distiller.synthetic.images.detach().clone()
    for _ in iterations(distiller):
        expected = 0.9 * expected + 0.1 * distiller.synthetic.images.detach()
        average = distiller.synthetic.average
        assert average is not None
        torch.testing.assert_close(average, expected, rtol=1e-12, atol=1e-12)
    preprocess = distiller.synthetic.preprocess.to(CPU, torch.float64)
    torch.testing.assert_close(distiller.synthetic.unit_images(), preprocess.inverse(expected))
    assert not torch.allclose(expected, distiller.synthetic.images, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [0, 1, 4])
def test_a_resumed_loop_continues_bit_identically(experts: Path, stop: int) -> None:
    whole = taken(loop(experts, **EVERYTHING), 6)
    state = taken(loop(experts, **EVERYTHING), stop)
    again = loop(experts, **EVERYTHING)
    for _ in range(2):  # the second time it is taken back
        again.load_state_dict(state)
        assert again.iteration == stop
        assert not differing(whole, taken(again, 6 - stop))


def test_a_learning_rate_that_is_not_positive_is_named(experts: Path) -> None:
    distiller = loop(experts)
    assert distiller.synthetic.student_lr is not None
    for value, word in ((-0.25, "-0.25"), (0.0, "0")):
        distiller.synthetic.student_lr.data.fill_(value)
        with pytest.raises(UserError, match=f"has become {word} at iteration 0: start anew with a lower"):
            distiller.step()


def test_a_discarded_loss_does_not_wear_out_patience(experts: Path) -> None:
    made = loop(experts, skip_above=1e-9, optimiser=OptimiserConfig(lr=0.1, patience=1))
    rates = []
    for _ in iterations(made):
        rates.append(float(made.state_dict()["plateau"][0]))
    assert rates == [0.1] * 6


@pytest.mark.parametrize("key", ["ema=0.9", "patience=3", "clamp_every=2"])
def test_what_is_for_pixels_only_is_refused_elsewhere(key: str) -> None:
    name, _, value = key.partition("=")
    told = OptimiserConfig(**{name: float(value) if name == "ema" else int(value)})  # type: ignore[arg-type]
    with pytest.raises(UserError, match=f"engine.student.learning.{name} means something for pixels only"):
        StudentConfig(learning=told)
