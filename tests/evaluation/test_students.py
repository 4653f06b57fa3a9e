"""Students: one against a plain loop, and many trained together against one at a time."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch import Tensor

from dsdistill.augment.dsa import Augmentation
from dsdistill.augment.mix import CutMix
from dsdistill.augment.training import Transform
from dsdistill.config.labels import LabelConfig
from dsdistill.evaluation.batches import TrainingSet
from dsdistill.evaluation.ensembles import Ensembles, SingleStudent, StackedStudents
from dsdistill.evaluation.execution import Execution
from dsdistill.evaluation.loss import StudentLoss
from dsdistill.evaluation.students import StudentTraining, _optimiser, fit
from dsdistill.protocol import Protocol, load_protocol
from dsdistill.seeding import generator
from tests.helpers.evaluation import (
    CLASSES,
    SIZE,
    fresh,
    student_accuracies,
    tiny,
    train_student,
    training_set,
    weights,
)
from tests.helpers.teachers import committee, views_of
from tests.reference import student as reference

# Training one student ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [False, True])
def test_student_equals_the_plain_loop(soft: bool) -> None:
    protocol = tiny(epochs=5)
    augmentation = protocol.augmentation_for(mirror=True)
    images, labels = training_set(dtype=torch.float64)
    targets = torch.randn(len(labels), CLASSES, dtype=torch.float64, generator=generator(3, "t"))
    targets = targets if soft else labels

    def augment(x: Tensor, epoch: int, batch: int) -> Tensor:
        source = generator(7, "student-augment", 1, epoch, batch)
        return augmentation(x, augmentation.draw(len(x), SIZE, source, shared_operator=True))

    plain = fresh(0).double()
    rates = reference.train(
        plain,
        images,
        targets,
        epochs=5,
        batch_size=4,
        lr=0.05,
        order=lambda epoch: torch.randperm(len(images), generator=generator(7, "students", 1, epoch)),
        augment=augment,
        soft=soft,
    )
    training = StudentTraining(protocol, Transform(augmentation), seed=7)
    ours = train_student(fresh(0).double(), images, targets, training, repeat=1)
    assert rates == pytest.approx([0.05, 0.05, 0.05, 0.05, 0.005, 0.005])  # E + 1 epochs, drop after 5//2 + 1
    torch.testing.assert_close(weights(ours), weights(plain), rtol=0, atol=1e-11)


def test_momentum_restarts_at_the_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    optimisers: list[tuple[int, float]] = []
    taken = itertools.count()
    steps = []

    class Counting(torch.optim.SGD):
        def __init__(self, *args: object, lr: float, **options: object) -> None:
            super().__init__(*args, lr=lr, **options)  # type: ignore[arg-type]
            optimisers.append((len(steps), lr))

        def step(self, *args: object) -> None:  # type: ignore[override]
            steps.append(next(taken))
            super().step()

    monkeypatch.setattr(torch.optim, "SGD", Counting)
    protocol = tiny(epochs=6)
    train_student(fresh(0), *training_set(), StudentTraining(protocol, protocol.transform_for(False)))
    per_epoch = 3  # 9 images in batches of 4: the short one is kept
    assert len(steps) == 7 * per_epoch
    assert optimisers == [(0, 0.05), (5 * per_epoch, pytest.approx(0.005))]  # epochs 0 … 4 at the full rate


@pytest.mark.parametrize(("schedule", "before"), [("restart", 5), ("steps", 3)])
def test_momentum_may_be_another_after_the_drop(
    monkeypatch: pytest.MonkeyPatch, schedule: str, before: int
) -> None:
    momenta: list[float] = []

    class Noting(torch.optim.SGD):
        def step(self, *args: object) -> None:  # type: ignore[override]
            momenta.append(self.param_groups[0]["momentum"])
            super().step()

    monkeypatch.setattr(torch.optim, "SGD", Noting)
    protocol = tiny(epochs=6, momentum_after_drop=0.8, schedule=schedule)
    train_student(fresh(0), *training_set(), StudentTraining(protocol, protocol.transform_for(False)))
    per_epoch = len(momenta) // protocol.epochs_run
    after = protocol.epochs_run - before
    assert momenta == [0.9] * before * per_epoch + [0.8] * after * per_epoch


def idc(**changes: object) -> Protocol:
    values = {"epochs": 7, "batch_size": 4, "lr": 0.05, "weight_decay": 0.01}
    return load_protocol("idc", **{**values, **changes})


# AdamW divides what is only rounding noise, the gradient of a bias before a normalisation, by its own size.
CLOSE = {"sgd": 1e-11, "adamw": 1e-7}


def plain_idc(
    repeat: int, images: Tensor, labels: Tensor, protocol: Protocol, seed: int
) -> tuple[Tensor, list[float]]:
    """Train ``fresh(repeat)`` by the reference loop; returns its weights and the rates it used."""
    augmentation = protocol.augmentation_for(mirror=True)
    cutmix = CutMix(probability=protocol.cutmix, beta=protocol.cutmix_beta)

    def augment(x: Tensor, epoch: int, batch: int) -> Tensor:
        source = generator(seed, "student-augment", repeat, epoch, batch)
        return augmentation(x, augmentation.draw(len(x), SIZE, source, shared_operator=True))

    def box(count: int, epoch: int, batch: int) -> tuple[slice, slice, Tensor, float]:
        mix = cutmix.draw(count, SIZE, generator(seed, "student-mix", repeat, epoch, batch))
        rows, columns = slice(*mix.rows[0].tolist()), slice(*mix.columns[0].tolist())
        return rows, columns, mix.partner, mix.own_share[0].item()

    network = fresh(repeat).double()
    options = {"lr": 0.05, "weight_decay": 0.01, "foreach": False}
    if protocol.optimiser == "adamw":
        optimiser: torch.optim.Optimizer = torch.optim.AdamW(network.parameters(), **options)
    else:
        optimiser = torch.optim.SGD(network.parameters(), momentum=0.9, **options)
    rates = reference.train_in_steps(
        network,
        images,
        labels,
        optimiser,
        epochs=7,
        batch_size=4,
        factor=0.2,
        order=lambda epoch: torch.randperm(len(images), generator=generator(seed, "students", repeat, epoch)),
        augment=augment,
        box=box,
    )
    return weights(network), rates


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_idc_student_equals_the_plain_loop(optimiser: str, beta: float) -> None:
    protocol = idc(optimiser=optimiser, cutmix_beta=beta)
    images, labels = training_set(dtype=torch.float64)
    expected, rates = plain_idc(2, images, labels, protocol, seed=7)
    assert rates == pytest.approx([0.05] * 4 + [0.01] + [0.002] * 2)  # 7 epochs, drops before 14//3 and 35//6
    training = StudentTraining(protocol, protocol.transform_for(mirror=True), seed=7)
    ours = train_student(fresh(2).double(), images, labels, training, repeat=2)
    torch.testing.assert_close(weights(ours), expected, rtol=0, atol=CLOSE[optimiser])


@pytest.mark.slow
@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_stacked_idc_students_equal_the_plain_loop(optimiser: str) -> None:
    protocol, repeats = idc(optimiser=optimiser), [4, 5, 6]
    sets = [training_set(seed, torch.float64) for seed in range(3)]
    stacked = StackedStudents([fresh(repeat).double() for repeat in repeats], Execution())
    training = StudentTraining(protocol, protocol.transform_for(mirror=True))
    fit(stacked, [TrainingSet(*each) for each in sets], repeats, training, Execution())
    for i, (images, labels) in enumerate(sets):
        expected, _ = plain_idc(repeats[i], images, labels, protocol, seed=0)
        ours = torch.cat([p.detach()[i].flatten() for p in stacked.parameters])
        torch.testing.assert_close(ours, expected, rtol=0, atol=CLOSE[optimiser])


def test_soft_labels_are_mixed_as_probabilities() -> None:
    """Logits so far apart that they are one-hot train the student that their labels do."""
    training = StudentTraining(idc(cutmix=1.0), Transform(Augmentation(operators=())))
    images, labels = training_set(dtype=torch.float64)
    trained = [
        weights(train_student(fresh(0).double(), images, targets, training))
        for targets in (labels, 1e4 * torch.nn.functional.one_hot(labels, CLASSES).double())
    ]
    torch.testing.assert_close(*trained, rtol=0, atol=1e-11)


def test_dropout_draws_from_the_seed_alone() -> None:
    def trained(disturb: int) -> Tensor:
        network = fresh(0)
        network.classifier = torch.nn.Sequential(torch.nn.Dropout(0.5), network.classifier)
        torch.rand(disturb)
        training = StudentTraining(tiny(), tiny().transform_for(False))
        return weights(train_student(network, *training_set(), training))

    assert torch.equal(trained(1), trained(5))


# Many students ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-11)])
@pytest.mark.parametrize("own_sets", [False, True])
def test_stacked_students_equal_single_ones(dtype: torch.dtype, tolerance: float, own_sets: bool) -> None:
    protocol = tiny(epochs=3)
    training = StudentTraining(protocol, protocol.transform_for(mirror=True))
    common = training_set(dtype=dtype)
    sets = [training_set(seed, dtype) if own_sets else common for seed in range(3)]
    networks = [fresh(repeat).to(dtype) for repeat in range(3)]
    stacked = StackedStudents(networks, Execution())
    repeats = [4, 5, 6]
    fit(stacked, [TrainingSet(*each) for each in sets], repeats, training, Execution())
    for i, (network, (images, labels)) in enumerate(zip(networks, sets, strict=True)):
        train_student(network, images, labels, training, repeat=repeats[i])
        ours = torch.cat([p.detach()[i].flatten() for p in stacked.parameters])
        torch.testing.assert_close(ours, weights(network), rtol=0, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("together", [3, 2])
def test_stacking_keeps_accuracies(monkeypatch: pytest.MonkeyPatch, together: int) -> None:
    monkeypatch.setattr("dsdistill.evaluation.students._STACKED_PIXELS", together * 4 * SIZE**2)
    protocol = tiny(repeats=3, epochs=12, augmentation="color_crop_flip")
    training = StudentTraining(protocol, protocol.transform_for(mirror=False))
    common = TrainingSet(*training_set())
    ticks: list[tuple[int, int]] = []
    accuracies = [
        student_accuracies(
            common,
            training,
            Ensembles(Execution()),
            stack=stack,
            tick=lambda done, total: ticks.append((done, total)),
        )
        for stack in (False, True)
    ]
    assert accuracies[0] == accuracies[1]
    assert len(set(accuracies[0])) > 1
    assert ticks[-1] == (3 * 13 * 3, 3 * 13 * 3)


# Labels, schedules and optimisers ---------------------------------------------------------------------------


def labelled(protocol: Protocol, **labels: object) -> Protocol:
    return dataclasses.replace(protocol, labels=LabelConfig(**labels))  # type: ignore[arg-type]


@pytest.mark.parametrize("source", ["static", "teacher"])
def test_stacked_students_learn_from_soft_labels_as_single_ones(source: str) -> None:
    protocol = labelled(
        tiny(epochs=2, cutmix=1.0, augmentation="color_flip"), source=source, loss="kl", temperature=4.0
    )
    transform, teacher = protocol.transform_for(mirror=True), committee()
    training = StudentTraining(protocol, transform, seed=3, teacher=teacher)
    images, labels = training_set()
    weights_of_images = torch.linspace(0.5, 1.5, len(labels))
    given = TrainingSet(
        images,
        labels,
        torch.randn(len(labels), CLASSES),
        weights_of_images,
        source=source,  # type: ignore[arg-type]
    )
    objective = StudentLoss(protocol.labels)
    together = StackedStudents([fresh(0), fresh(1)], Execution(), objective)
    fit(together, [given, given], [0, 1], training, Execution())
    for repeat in (0, 1):
        alone = SingleStudent(network := fresh(repeat), Execution(), objective)
        fit(alone, [given], [repeat], training, Execution())
        ours = torch.cat([p.detach()[repeat].flatten() for p in together.parameters])
        torch.testing.assert_close(ours, weights(network), rtol=0, atol=2e-5)


def test_phases_train_on_soft_then_hard_then_soft_labels() -> None:
    """HALD: views in the first and last quarter of the epochs, fresh hard labels between them."""
    protocol = labelled(
        tiny(epochs=8, schedule="steps"),
        source="views",
        loss="kl",
        smoothing=0.8,
        phases=(("soft", 0.25), ("hard", 0.5), ("soft", 0.25)),
    )
    images, labels = training_set()
    views = views_of(images, labels, committee(), epochs=3)
    given = TrainingSet(images, labels, views=views, source="views")
    seen: list[set[str]] = []

    class Noting(SingleStudent):
        def train(self, mode: bool) -> None:
            super().train(mode)
            plain = self.loss
            self.loss = lambda x, targets: seen.append(set(targets)) or plain(x, targets)  # type: ignore[func-returns-value]

    student = Noting(fresh(0), Execution(), StudentLoss(protocol.labels))
    fit(student, [given], [0], StudentTraining(protocol, protocol.transform_for(False)), Execution())
    batches = 3
    assert len(seen) == 8 * batches
    kinds = ["logits" in each for each in seen[::batches]]
    assert kinds == [True] * 2 + [False] * 4 + [True] * 2
    assert protocol.labels.part(74, 300) == "soft"
    assert [protocol.labels.part(epoch, 300) for epoch in (75, 224, 225)] == ["hard", "hard", "soft"]


def test_accumulated_parts_make_the_step_of_the_batch() -> None:
    """Without batch statistics, parts of equal size have the gradient of the whole batch."""
    steps = []
    images, labels = training_set(dtype=torch.float64)
    for accumulate in (1, 2):
        protocol = tiny(epochs=1, batch_size=4, accumulate=accumulate, augmentation="none", schedule="steps")
        training = StudentTraining(protocol, protocol.transform_for(mirror=False))
        steps.append(weights(train_student(fresh(0).double(), images[:8], labels[:8], training)))
    torch.testing.assert_close(steps[0], steps[1], rtol=0, atol=1e-12)


def test_a_short_last_batch_counts_as_the_released_code_has_it() -> None:
    """Of 5 images in batches of 4 in two parts, the last batch is one part, and its loss is halved."""
    images, labels = training_set(dtype=torch.float64)
    protocol = tiny(
        epochs=1, batch_size=4, accumulate=2, augmentation="none", schedule="steps", lr=0.1, momentum=0.0
    )
    protocol = dataclasses.replace(protocol, weight_decay=0.0, drop_at=())
    training = StudentTraining(protocol, protocol.transform_for(mirror=False))
    ours = train_student(fresh(0).double(), images[:5], labels[:5], training)
    plain = fresh(0).double()
    order = torch.randperm(5, generator=generator(0, "students", 0, 0))
    for rows, factor in ((order[:4], 1.0), (order[4:], 0.5)):
        loss = torch.nn.functional.cross_entropy(plain(images[rows]), labels[rows])
        for parameter, gradient in zip(
            plain.parameters(), torch.autograd.grad(loss, list(plain.parameters())), strict=True
        ):
            parameter.data -= 0.1 * factor * gradient
    torch.testing.assert_close(weights(ours), weights(plain), rtol=0, atol=1e-12)


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_only_matrices_decay_where_the_protocol_says_so(optimiser: str, stacked: bool) -> None:
    protocol = tiny(optimiser=optimiser, decays="matrices", weight_decay=0.25)
    networks = [fresh(0), fresh(1)]
    students = StackedStudents(networks, Execution()) if stacked else SingleStudent(networks[0], Execution())
    made = _optimiser(students, protocol, rate=0.1, epoch=0)
    decays = {id(p): group["weight_decay"] for group in made.param_groups for p in group["params"]}
    names = [each.dim() for each in networks[0].parameters()]
    assert [decays[id(p)] for p in students.parameters] == [0.25 if dim > 1 else 0.0 for dim in names]
    assert {0.25, 0.0} == set(decays.values())
    everything = _optimiser(students, dataclasses.replace(protocol, decays="all"), 0.1, 0)
    assert [group["weight_decay"] for group in everything.param_groups] == [0.25]
