"""Students: one against a plain loop, and many trained together against one at a time."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from dsdistill.augment.dsa import Augmentation
from dsdistill.augment.mix import CutMix
from dsdistill.errors import UserError
from dsdistill.evaluation.ensembles import CPU, Ensembles, Execution, Single, Stacked, stackable
from dsdistill.evaluation.evaluate import judge
from dsdistill.evaluation.students import HeldOut, accuracies, fit, train_student, train_students
from dsdistill.protocol import Protocol, load_protocol
from dsdistill.seeding import generator
from tests.helpers.evaluation import (
    CLASSES,
    PREPROCESS,
    SIZE,
    distilled,
    fresh,
    held_out,
    real,
    task,
    tiny,
    training_set,
    weights,
)
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
    ours = train_student(fresh(0).double(), images, targets, protocol, augmentation, seed=7, repeat=1)
    assert rates == pytest.approx([0.05, 0.05, 0.05, 0.05, 0.005, 0.005])  # E + 1 epochs, drop after 5//2 + 1
    torch.testing.assert_close(weights(ours), weights(plain), rtol=0, atol=1e-11)


def test_momentum_restarts_at_the_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, float]] = []
    taken = itertools.count()
    steps = []

    class Counting(torch.optim.SGD):
        def __init__(self, *args: object, lr: float, **options: object) -> None:
            super().__init__(*args, lr=lr, **options)  # type: ignore[arg-type]
            made.append((len(steps), lr))

        def step(self, *args: object) -> None:  # type: ignore[override]
            steps.append(next(taken))
            super().step()

    monkeypatch.setattr(torch.optim, "SGD", Counting)
    protocol = tiny(epochs=6)
    train_student(fresh(0), *training_set(), protocol, protocol.augmentation_for(False), seed=0)
    per_epoch = 3  # 9 images in batches of 4: the short one is kept
    assert len(steps) == 7 * per_epoch
    assert made == [(0, 0.05), (5 * per_epoch, pytest.approx(0.005))]  # epochs 0 … 4 at the full rate


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
    train_student(fresh(0), *training_set(), protocol, protocol.augmentation_for(False), seed=0)
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
    augmentation = protocol.augmentation_for(mirror=True)
    ours = train_student(fresh(2).double(), images, labels, protocol, augmentation, seed=7, repeat=2)
    torch.testing.assert_close(weights(ours), expected, rtol=0, atol=CLOSE[optimiser])


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_stacked_idc_students_equal_the_plain_loop(optimiser: str) -> None:
    protocol, repeats = idc(optimiser=optimiser), [4, 5, 6]
    sets = [training_set(seed, torch.float64) for seed in range(3)]
    stacked = Stacked([fresh(repeat).double() for repeat in repeats], Execution())
    augmentation = protocol.augmentation_for(mirror=True)
    fit(stacked, sets, repeats, protocol, augmentation, 0, None, Execution(), lambda done, total: None)
    for i, (images, labels) in enumerate(sets):
        expected, _ = plain_idc(repeats[i], images, labels, protocol, seed=0)
        ours = torch.cat([p.detach()[i].flatten() for p in stacked.parameters])
        torch.testing.assert_close(ours, expected, rtol=0, atol=CLOSE[optimiser])


def test_soft_labels_are_mixed_as_probabilities() -> None:
    """Logits so far apart that they are one-hot train the student that their labels do."""
    protocol = idc(cutmix=1.0)
    images, labels = training_set(dtype=torch.float64)
    trained = [
        weights(
            train_student(fresh(0).double(), images, targets, protocol, Augmentation(operators=()), seed=0)
        )
        for targets in (labels, 1e4 * torch.nn.functional.one_hot(labels, CLASSES).double())
    ]
    torch.testing.assert_close(*trained, rtol=0, atol=1e-11)


def test_a_cohort_knows_its_classes() -> None:
    """Also where no image has the last label, and where the classifier is more than a linear layer."""
    network = fresh(0)
    assert Stacked([network, fresh(1)], Execution()).classes == CLASSES
    network.classifier = torch.nn.Sequential(torch.nn.Dropout(0.5), network.classifier)
    assert Single(network, Execution()).classes == CLASSES
    images, labels = training_set()
    some = labels < CLASSES - 1
    train_student(network, images[some], labels[some], idc(), Augmentation(operators=()), seed=0)
    assert weights(network).isfinite().all()


def test_accuracy_pads_the_last_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    test, network = real(5, split="test"), fresh(0)
    monkeypatch.setattr("dsdistill.evaluation.students._TEST_PIXELS", 4 * SIZE**2)  # chunks 4, 4, 4, 3
    shapes = [(x.shape[0], len(y)) for x, y in HeldOut(test, PREPROCESS, CPU)]
    assert shapes == [(4, 4), (4, 4), (4, 4), (4, 3)]
    predicted = network(PREPROCESS(test.unit(slice(None)))).argmax(1)
    expected = (predicted == test.labels).float().mean().item()
    found = accuracies(Single(network, Execution()), HeldOut(test, PREPROCESS, CPU), Execution())
    assert found == [pytest.approx(expected)]


def test_dropout_draws_from_the_seed_alone() -> None:
    def trained(disturb: int) -> Tensor:
        network = fresh(0)
        network.classifier = torch.nn.Sequential(torch.nn.Dropout(0.5), network.classifier)
        torch.rand(disturb)
        return weights(
            train_student(network, *training_set(), tiny(), tiny().augmentation_for(False), seed=0)
        )

    assert torch.equal(trained(1), trained(5))


# Many students ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-11)])
@pytest.mark.parametrize("own_sets", [False, True])
def test_stacked_students_equal_single_ones(dtype: torch.dtype, tolerance: float, own_sets: bool) -> None:
    protocol = tiny(epochs=3)
    augmentation = protocol.augmentation_for(mirror=True)
    common = training_set(dtype=dtype)
    sets = [training_set(seed, dtype) if own_sets else common for seed in range(3)]
    networks = [fresh(repeat).to(dtype) for repeat in range(3)]
    stacked = Stacked(networks, Execution())
    repeats = [4, 5, 6]
    fit(stacked, sets, repeats, protocol, augmentation, 0, None, Execution(), lambda done, total: None)
    for i, (network, (images, labels)) in enumerate(zip(networks, sets, strict=True)):
        train_student(network, images, labels, protocol, augmentation, seed=0, repeat=repeats[i])
        ours = torch.cat([p.detach()[i].flatten() for p in stacked.parameters])
        torch.testing.assert_close(ours, weights(network), rtol=0, atol=tolerance)


@pytest.mark.parametrize("together", [3, 2])
def test_stacking_keeps_accuracies(monkeypatch: pytest.MonkeyPatch, together: int) -> None:
    monkeypatch.setattr("dsdistill.evaluation.students._STACKED_PIXELS", together * 4 * SIZE**2)
    protocol = tiny(repeats=3, epochs=12, augmentation="color_crop_flip")
    augmentation = protocol.augmentation_for(mirror=False)
    common = training_set()
    seen: list[tuple[int, int]] = []
    found = [
        train_students(
            fresh,
            lambda repeat: common,
            held_out(),
            protocol,
            augmentation,
            Ensembles(Execution()),
            seed=0,
            stack=stack,
            tick=lambda done, total: seen.append((done, total)),
        )
        for stack in (False, True)
    ]
    assert found[0] == found[1]
    assert len(set(found[0])) > 1
    assert seen[-1] == (3 * 13 * 3, 3 * 13 * 3)


def test_what_can_be_stacked() -> None:
    assert stackable(fresh(0))
    assert not stackable(fresh(0, "convnet2-w8-batch"))
    with pytest.raises(UserError, match="cannot be stacked"):
        judge(distilled(), task(), real(9), real(9), tiny(), ["convnet2-w8-batch"], stack=True)


@pytest.mark.parametrize("cutmix", [0.0, 0.5])
def test_refilled_cohorts_never_recompile(cutmix: float) -> None:
    """Two sets, three students each, two batch shapes: each piece of code is compiled once per shape."""
    compiled: list[tuple[int, ...]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        compiled.append(tuple(x.shape[0] for x in inputs if x.dim() == 4 and x.shape[1] == 1))
        return graph.forward

    class Recording(Execution):
        def prepared(self, function):  # type: ignore[no-untyped-def]
            return torch.compile(function, dynamic=False, backend=backend)

    protocol = tiny(repeats=3, epochs=2, cutmix=cutmix)
    augmentation = protocol.augmentation_for(mirror=False)
    ensembles, plain = Ensembles(Recording()), Ensembles(Execution())
    for seed in (5, 6):
        common = training_set(seed)
        found, expected = (
            train_students(
                fresh, lambda repeat, s=common: s, held_out(), protocol, augmentation, c, seed=seed
            )
            for c in (ensembles, plain)
        )
        assert found == pytest.approx(expected, abs=0.02)
    assert len(compiled) == 3, compiled  # batches of 4 and of 1, and the test chunk
