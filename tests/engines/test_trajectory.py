"""The trajectory engine against unrolled steps in float64, and where its students start."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dsdistill.augment.dsa import Augmentation
from dsdistill.compute.embedder import Embedder
from dsdistill.compute.learner import Learner
from dsdistill.compute.pixel_optimiser import OptimiserConfig
from dsdistill.compute.unroll import UnrolledStudent
from dsdistill.data.real import RealDataset, Task
from dsdistill.distillation.loop import Distiller
from dsdistill.engines import TrajectoryEngine
from dsdistill.engines.sources import Sources
from dsdistill.engines.trajectory import LabelsConfig, StartConfig, StudentConfig
from dsdistill.errors import UserError
from dsdistill.networks import build_network
from dsdistill.networks.layout import Layout
from dsdistill.seeding import forked, generator
from dsdistill.storage import expert_writer
from dsdistill.storage.expert_file import ExpertMetadata, TrainingRecord
from dsdistill.supply.trajectories import Trajectories, TrajectoriesConfig
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.initial import initialise
from dsdistill.synthetic.multi_formation import MultiFormation, decode
from tests.engines.test_distribution import CPU, toy
from tests.reference.trajectory import matching_loss, unrolled

NETWORK = "convnet2-w4"
LAST = 7
"""Epochs of the experts."""


def written(
    path: Path, task: Task, real: RealDataset, network: str = NETWORK, epochs: Sequence[int] = range(LAST + 1)
) -> Path:
    """Write three experts whose weights walk at random, a step an epoch."""
    experts, snapshots = [], []
    for expert in range(3):
        with forked(expert, "networks"):
            built = build_network(network, task.channels, task.size, task.num_classes)
        layout = Layout.of(built)
        start, buffers = layout.pack(built.state_dict())
        noise = torch.randn(epochs[-1], len(start), generator=generator(expert, "walk"))
        walk = start + 0.05 * torch.cat([torch.zeros(1, len(start)), noise.cumsum(0)])
        snapshots.append([(walk[epoch], buffers) for epoch in epochs])
        experts.append(TrainingRecord(0.5, 0.5, 1.0, "a machine", "2020-01-01T00:00:00+00:00"))
    facts = ExpertMetadata(
        network=network,
        layout=layout,
        dataset=task.name,
        fingerprint=real.fingerprint,
        classes=task.classes,
        channels=task.channels,
        size=task.size,
        preprocess=task.preprocess,
        epochs=tuple(epochs),
        seed=0,
        config="",
    )
    expert_writer.write(path, facts, zip(experts, snapshots, strict=True), 3)
    return path


def buffers(folder: Path) -> Path:
    """Write experts for the toy task, a buffer for each of two networks."""
    for network in (NETWORK, f"{NETWORK}-batch"):
        written(folder / f"{network}.h5", *toy(1, 8), network)
    return folder


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return buffers(tmp_path_factory.mktemp("experts"))


def loop(experts: Path, network: str = NETWORK, **told: Any) -> Distiller:
    """Put a float64 loop of three classes together by hand: sets of six images, unless told otherwise."""
    task, real = toy(1, 8)
    multi_formation, space, ipc = (
        told.pop("multi_formation", MultiFormation()),
        told.pop("space", "network"),
        told.pop("ipc", 2),
    )
    init, seed, optimiser = told.pop("init", "real"), told.pop("seed", 0), told.pop("optimiser", PIXELS)
    path = TrajectoriesConfig(path=str(experts / f"{network}.h5"))
    engine = TrajectoryEngine(**{"supply": path, "steps": 5, "start": FIVE, "student": FAST, **told})
    supply = engine.networks(network, task, CPU)
    supply.verify(network, task, real)
    supply.network.double()
    synthetic = initialise(task, real, ipc, init, space, 0, multi_formation, supply).double()
    engine.prepare(synthetic, supply, seed)
    passes = (supply.network, task.size, CPU)
    learner = Learner(*passes, chunk=4)
    sources = Sources(task, real, supply, Embedder(*passes), learner, Augmentation(), seed, CPU)
    return Distiller(engine, synthetic, sources, optimiser, 6)


PIXELS = OptimiserConfig(lr=0.1)
FIVE = StartConfig(most=5)
FAST = StudentConfig(lr=0.2, learning=OptimiserConfig(lr=1e-3))
HEAVY = StudentConfig(lr=0.1, momentum=0.9)
SOFT = LabelsConfig(learned=True)


# Loss and gradients -----------------------------------------------------------------------------------------


def naive(distiller: Distiller, **more: Any) -> tuple[Tensor, list[Tensor]]:
    """Compute the loss and its gradients to `learned` by the reference, from the same draws."""
    engine, synthetic, sources = distiller.engine, distiller.synthetic, distiller.sources
    assert isinstance(engine, TrajectoryEngine)
    assert isinstance(sources.supply, Trajectories)
    seed, iteration = sources.seed, sources.iteration
    turn, place = divmod(iteration, 3)
    expert = int(torch.randperm(3, generator=generator(seed, "experts-order", turn))[place])
    stream = generator(seed, "starts", iteration)
    epoch = int(torch.randint(engine.start.least, engine.start.below(iteration), (), generator=stream))
    walk = [sources.supply.buffer.flat(expert, at).double() for at in range(LAST + 1)]

    start, offset = walk[epoch].clone(), 0
    for index, value in enumerate(sources.supply.network.parameters()):
        part = slice(offset, offset := offset + value.numel())
        if value.dim() == 4 and engine.perturbation:
            stream = generator(seed, "perturbation", iteration, index)
            noise = torch.randn(value.shape, generator=stream).double().flatten()
            start[part] += engine.perturbation * noise / noise.norm() * start[part]

    # What the file would be decoded into, and which stored image each training image comes from.
    stored = DistilledSet(
        synthetic.unit_images().float(), synthetic.labels, ("a", "b", "c"), synthetic.preprocess,
        multi_formation=synthetic.multi_formation,
    )  # fmt: skip
    origins = stored.decode()[1]
    images: Tensor = synthetic.images
    if not synthetic.multi_formation.is_identity:
        images = torch.cat([decode(each, synthetic.multi_formation) for each in images.split(synthetic.ipc)])
    if synthetic.space == "unit":
        images = synthetic.preprocess.to(CPU, torch.float64)(images)
    targets = (synthetic.labels if synthetic.label_logits is None else synthetic.label_logits)[origins]

    size, passes = engine.batch_synthetic or len(images), itertools.count()
    batches, left = list[Tensor](), list[Tensor]()
    for _ in range(engine.steps):
        if not left:
            stream = generator(seed, "student-batches", iteration, next(passes))
            left = list(torch.randperm(len(images), generator=stream).split(size))
        batches.append(left.pop())  # from the last on: the short one is the first

    def augment(step: int, batch: Tensor) -> Tensor:
        stream = generator(seed, "student-augment", iteration, step)
        return sources.augmentation(
            batch, sources.augmentation.draw(len(batch), 8, stream, shared_operator=True)
        )

    middle = engine.start.most // 2
    weight = math.log(abs(epoch - middle) + 8) / math.log(5)
    weight = 1.0 if not engine.balance else weight if epoch >= middle else 1 / weight
    assert synthetic.student_lr is not None
    lr, fixed = synthetic.student_lr, engine.steps - engine.last if engine.last else 0
    path = unrolled(
        sources.supply.network, start, images, targets, batches, augment, lr, engine.student.momentum,
        weight, fixed, **more,
    )  # fmt: skip
    epochs = engine.expert_epochs
    goals = {engine.steps: (1.0, walk[epoch + epochs])}
    for m in range(1, epochs) if engine.between != "none" else ():
        share = m / epochs if engine.between == "rising" else 1.0
        goals[m * (engine.steps // epochs)] = (share, walk[epoch + m])
    loss = matching_loss(path, goals)
    return loss.detach(), list(torch.autograd.grad(loss, learned(distiller)))


def learned(distiller: Distiller) -> list[Tensor]:
    """Return pixels, learning rate and, where they are learned, labels."""
    return list(dict(distiller.synthetic.named_parameters()).values())


def found(distiller: Distiller) -> tuple[Tensor, list[Tensor]]:
    """Compute the same by the engine."""
    (loss,) = distiller.engine.loss(distiller.synthetic, distiller.sources).values()
    return loss.detach(), list(torch.autograd.grad(loss, learned(distiller)))


def check(ours: tuple[Tensor, list[Tensor]], theirs: tuple[Tensor, list[Tensor]]) -> None:
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-9, atol=0)
    for one, other in zip(ours[1], theirs[1], strict=True):
        largest = float(other.abs().max())
        assert largest > 0
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * largest)


CASES: dict[str, dict[str, Any]] = {
    "all at once": {},
    "batches": {"batch_synthetic": 4},  # of six images: two, four, two, …
    "momentum": {"student": HEAVY, "batch_synthetic": 4},
    "between": {"between": "equal", "expert_epochs": 3, "steps": 7},
    "between rising": {"between": "rising", "expert_epochs": 3, "student": HEAVY},
    "balance": {"balance": True},
    "perturbation": {"perturbation": 3.0},
    "labels": {"labels": SOFT, "batch_synthetic": 5},
    "last": {"last": 2, "student": HEAVY, "labels": SOFT},
    "batch normalisation": {"network": f"{NETWORK}-batch"},
    "tiles": {
        "multi_formation": MultiFormation(factor=2),
        "space": "unit",
        "labels": SOFT,
        "batch_synthetic": 9,
    },
    "tiles, hard labels": {"multi_formation": MultiFormation(factor=2), "space": "unit"},
    "tiles and whole": {
        "multi_formation": MultiFormation(factor=2, mode="multi"),
        "space": "unit",
        "labels": SOFT,
    },
    "some tiles": {
        "multi_formation": MultiFormation(factor=2, mode="bound", bound=6),
        "space": "unit",
        "labels": SOFT,
    },
    "all together": {
        "between": "equal",
        "student": HEAVY,
        "batch_synthetic": 4,
        "balance": True,
        "perturbation": 1.0,
        "labels": SOFT,
        "last": 4,
        "start": StartConfig(least=1, most=5, widen_from=2, widen_until=3),
    },
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("iteration", range(4))
def test_loss_and_gradients_equal_unrolled_steps(experts: Path, case: str, iteration: int) -> None:
    distiller = loop(experts, **CASES[case])
    distiller.sources.iteration = iteration
    if distiller.synthetic.label_logits is not None:  # images of one class get labels that tell them apart
        logits = distiller.synthetic.label_logits.data
        logits += torch.randn(logits.shape, generator=generator(0, "labels"))
    check(found(distiller), naive(distiller))


@pytest.mark.parametrize("student", [FAST, HEAVY], ids=["plain", "momentum"])
def test_truncated_and_halved(experts: Path, student: StudentConfig) -> None:
    told: dict[str, Any] = {"student": student, "labels": SOFT, "batch_synthetic": 4}
    exact, truncated, halved = (
        found(loop(experts, gradient=kind, **told)) for kind in ("exact", "truncated", "halved")
    )
    check(truncated, naive(loop(experts, **told), truncated=True))
    assert not torch.allclose(truncated[1][0], exact[1][0], rtol=1e-3)
    assert exact[0] == truncated[0] == halved[0]
    torch.testing.assert_close(halved[1][0], truncated[1][0] / 2)
    assert all(torch.equal(*each) for each in zip(halved[1][1:], truncated[1][1:], strict=True))


# Where a student starts -------------------------------------------------------------------------------------

Walks = list[tuple[UnrolledStudent, list[Tensor]]]
Asked = list[tuple[int, int]]


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> Walks:
    """Return every student that has walked, with its path."""
    seen, walk = Walks(), UnrolledStudent.unroll

    def spy(student: UnrolledStudent, *told: Any) -> list[Tensor]:
        seen.append((student, walk(student, *told)))
        return seen[-1][1]

    monkeypatch.setattr(UnrolledStudent, "unroll", spy)
    return seen


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Return every expert and epoch whose weights were read."""
    seen, read = Asked(), Trajectories.weights

    def spy(supply: Trajectories, expert: int, epoch: int, like: Tensor) -> Tensor:
        seen.append((expert, epoch))
        return read(supply, expert, epoch, like)

    monkeypatch.setattr(Trajectories, "weights", spy)
    return seen


def starts(asked: Asked, distiller: Distiller, iterations: int) -> Asked:
    """Return the expert and the epoch that each iteration starts from."""
    asked.clear()
    for iteration in range(iterations):
        distiller.sources.iteration = iteration
        distiller.engine.loss(distiller.synthetic, distiller.sources)
    pairs = list(zip(asked[::2], asked[1::2], strict=True))
    assert all(goal == (expert, epoch + 2) for (expert, epoch), goal in pairs)
    return asked[::2]


def test_students_start_all_over_the_range(experts: Path, asked: Asked) -> None:
    distiller = loop(experts, steps=1, start=StartConfig(least=1, most=5))
    counts = Counter(epoch for _, epoch in starts(asked, distiller, 80))
    assert set(counts) == {1, 2, 3, 4}
    assert min(counts.values()) > 10


def test_the_range_widens(experts: Path, asked: Asked) -> None:
    start = StartConfig(least=1, most=6, widen_from=2, widen_until=40)
    bounds = [start.below(iteration) for iteration in range(60)]
    assert bounds[:41:10] == [2, 3, 4, 5, 6]
    assert bounds == sorted(bounds)
    assert bounds[39:] == [5] + 20 * [6]
    epochs = [epoch for _, epoch in starts(asked, loop(experts, steps=1, start=start), 60)]
    assert all(1 <= epoch < bound for epoch, bound in zip(epochs, bounds, strict=True))
    assert set(epochs[40:]) == {1, 2, 3, 4, 5}
    assert StartConfig(most=7).below(0) == StartConfig(most=7).below(10**6) == 7
    assert StartConfig(most=3, widen_from=5, widen_until=9).below(0) == 3


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"least": 3, "most": 3}, r"start\.least = 3 has to lie below engine\.start\.most = 3"),
        ({"least": 2, "most": 9, "widen_from": 2, "widen_until": 5}, r"below engine\.start\.widen_from = 2"),
        ({"most": 9, "widen_until": 5}, r"below engine\.start\.widen_from = 0"),
    ],
)
def test_a_range_of_nothing_is_refused(told: dict[str, int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        StartConfig(**told)


def test_every_expert_is_followed_once_a_round(experts: Path, asked: Asked) -> None:
    def rounds(seed: int) -> list[tuple[int, ...]]:
        followed = [expert for expert, _ in starts(asked, loop(experts, steps=1, seed=seed), 18)]
        return [tuple(followed[at : at + 3]) for at in range(0, 18, 3)]

    first = rounds(0)
    assert all(sorted(each) == [0, 1, 2] for each in first)
    assert len(set(first)) > 2
    assert rounds(1) != first


def test_fewer_experts_may_be_followed_but_not_more(experts: Path, asked: Asked) -> None:
    path = str(experts / f"{NETWORK}.h5")
    two = loop(experts, steps=1, supply=TrajectoriesConfig(path=path, experts=2))
    assert {expert for expert, _ in starts(asked, two, 12)} == {0, 1}
    with pytest.raises(UserError, match="holds 3 experts, not 4"):
        loop(experts, supply=TrajectoriesConfig(path=path, experts=4))


def test_only_convolutions_are_perturbed(experts: Path, walks: Walks, asked: Asked) -> None:
    distiller = loop(experts, perturbation=0.5)
    losses = []
    for iteration in range(3):
        distiller.sources.iteration = iteration
        losses.append(float(found(distiller)[0]))
    supply = distiller.sources.supply
    assert isinstance(supply, Trajectories)
    noises = []
    for (_, path), before, after, loss in zip(walks, asked[::2], asked[1::2], losses, strict=True):
        plain, goal = (supply.buffer.flat(*each).double() for each in (before, after))
        changed = supply.layout.views(path[0])
        for name, value in supply.layout.views(plain).items():
            if value.dim() == 4:
                noises.append((changed[name] - value) / value)
                torch.testing.assert_close(noises[-1].norm().item(), 0.5)
            else:
                assert torch.equal(changed[name], value)
        distance = (path[0] - goal).square().sum()
        torch.testing.assert_close(loss, ((path[-1] - goal).square().sum() / distance).item())
    assert len(noises) == 6
    assert len({float(noise.flatten()[0]) for noise in noises}) == 6


def test_the_loss_is_balanced_by_where_a_student_starts(experts: Path, walks: Walks, asked: Asked) -> None:
    epochs = [epoch for _, epoch in starts(asked, loop(experts, steps=1, balance=True), 40)]
    factors = {epoch: student.weight for epoch, (student, _) in zip(epochs, walks, strict=True)}
    log5 = {distance: math.log(8 + distance) / math.log(5) for distance in range(3)}
    expected = {0: 1 / log5[2], 1: 1 / log5[1], 2: log5[0], 3: log5[1], 4: log5[2]}
    assert factors == pytest.approx(expected)
