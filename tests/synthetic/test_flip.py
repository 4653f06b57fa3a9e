"""Mirror images beside the synthetic ones (FYI), against what duplicating them by hand gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import dsdistill
from dsdistill.compute.config import OptimiserConfig
from dsdistill.compute.unroll import UnrolledStudent
from dsdistill.distillation import config as configs
from dsdistill.distillation.loop import Distiller
from dsdistill.engines import AttentionEngine, DistributionEngine, Engine, GradientEngine
from dsdistill.engines.discrepancies import Characteristic, Kernels
from dsdistill.errors import UserError
from dsdistill.synthetic.set import SyntheticSet
from tests.conftest import THREADS
from tests.helpers.engines import loop, toy
from tests.helpers.trajectories import buffers
from tests.helpers.trajectories import loop as trajectory_loop
from tests.helpers.unroll import Case, augment, noise

ENGINES: dict[str, tuple[Engine, str]] = {
    "dm": (DistributionEngine(batch_real=6), "convnet2-w4"),
    "mmd": (DistributionEngine(batch_real=6, discrepancy=Kernels()), "convnet2-w4"),
    "ncfm": (
        DistributionEngine(batch_real=6, discrepancy=Characteristic(frequencies=8), calibration=1.0),
        "convnet2-w4",
    ),
    "classification": (DistributionEngine(batch_real=6, classification=2.0), "convnet2-w4"),
    "datadam": (AttentionEngine(batch_real=6), "convnet2-w4-batch"),
    "dsa": (GradientEngine(batch_real=6), "convnet2-w4"),
    "idc": (GradientEngine(batch_real=6, metric="squared", matched="convolutions"), "convnet2-w4"),
}


def gradient(distiller: Distiller, turn: int) -> tuple[float, Tensor]:
    distiller.synthetic.images.grad = None
    distiller.sources.update = turn
    loss = torch.stack(list(distiller.engine.loss(distiller.synthetic, distiller.sources).values())).sum()
    loss.backward()
    assert distiller.synthetic.images.grad is not None
    return float(loss.detach()), distiller.synthetic.images.grad


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("iteration", range(3))
def test_matching_sees_what_a_doubled_set_would_show(name: str, iteration: int) -> None:
    engine, network = ENGINES[name]
    made = loop(*toy(), network, engine=engine)
    flipped = made.synthetic
    flipped.flip = True
    by_class = flipped.images.detach().unflatten(0, (3, -1))
    images = torch.cat([by_class, by_class.flip(-1)], 1).flatten(0, 1)
    doubled = SyntheticSet(images, (4, 4, 4), "network", flipped.preprocess).double()
    by_hand = Distiller(engine, doubled, made.sources, OptimiserConfig(), 3)
    made.sources.iteration = iteration
    for turn in range(engine.updates_per_iteration):
        (ours, found), (theirs, both) = gradient(made, turn), gradient(by_hand, turn)
        assert ours == pytest.approx(theirs, rel=1e-10)
        own, mirrored = both.unflatten(0, (3, 2, -1)).unbind(1)
        expected = (own + mirrored.flip(-1)).flatten(0, 1)
        assert float(expected.abs().max()) > 0
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12 * float(expected.abs().max()))


@pytest.mark.parametrize("soft", [False, True])
def test_the_gradient_of_a_student_stays_exact(soft: bool) -> None:
    """Two copies of every image, each augmented on its own, and the targets of both."""
    case = Case(4, soft)
    synthetic = SyntheticSet(noise(3, 1, 8, 8), (1, 1, 1), "network", toy()[0].preprocess)
    synthetic.flip = True

    def doubled(step: int, images: Tensor) -> Tensor:
        return augment(step, synthetic.batch(images))

    student = case.student
    ours = type(student)(
        student.learner, student.layout, student.images, student.targets, case.batches, doubled
    )
    path = ours.unroll(case.start, case.lr, 0.5)
    slopes = ours.adjoint(path, {4: 2 * (path[4] - case.goal)}, case.lr, 0.5)

    images, targets, count = case.images, case.targets, len(case.images)
    case.images = torch.cat([images, images.flip(-1)])
    case.targets = torch.cat([targets, targets])
    case.batches = [torch.cat([rows, rows + count]) for rows in case.batches]
    loss = (case.unrolled(0.5)[4] - case.goal).square().sum()
    learned = [images, case.lr, *([targets] if soft else [])]
    found = [slopes.images, slopes.lr, *([slopes.labels] if slopes.labels is not None else [])]
    for mine, theirs in zip(found, torch.autograd.grad(loss, learned), strict=True):
        assert float(theirs.abs().max()) > 0
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9 * float(theirs.abs().max()))


@pytest.mark.parametrize(("batch", "expected"), [(0, 3), (4, 2), (1, 1)])
def test_a_student_takes_half_as_many_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, expected: int
) -> None:
    distiller = trajectory_loop(buffers(tmp_path), steps=4, batch_synthetic=batch)
    distiller.synthetic.flip = True
    students, unroll = list[UnrolledStudent](), UnrolledStudent.unroll

    def spy(student: UnrolledStudent, *arguments: Any) -> list[Tensor]:
        students.append(student)
        return unroll(student, *arguments)

    monkeypatch.setattr(UnrolledStudent, "unroll", spy)
    distiller.step()
    (student,) = students
    assert [len(rows) for rows in student.batches] == [expected] * 4
    assert len(student.augment(0, distiller.synthetic.images[:expected])) == 2 * expected


def test_a_network_in_training_sees_both_too() -> None:
    made = loop(*toy(), "convnet2-w4", engine=GradientEngine(batch_real=6))
    made.synthetic.flip = True
    (images, labels), *rest = made.sources.supply.batches(0, made.sources.training_batches(made.synthetic))
    assert not rest
    assert len(images) == len(labels) == 2 * len(made.synthetic.images)
    assert torch.bincount(labels).tolist() == [4, 4, 4]


def test_off_is_the_batch_itself() -> None:
    synthetic = SyntheticSet(noise(3, 1, 8, 8), (1, 1, 1), "network", toy()[0].preprocess)
    images = noise(2, 1, 8, 8)
    assert synthetic.batch(images) is images
    synthetic.flip = True
    assert torch.equal(synthetic.batch(images), torch.cat([images, images.flip(-1)]))


TINY: dict[str, Any] = {
    "dataset": "digits",
    "ipc": 2,
    "network": "convnet2-w4",
    "iterations": 2,
    "device": "cpu",
}


def test_the_set_stores_no_more_images(tmp_path: Path) -> None:
    told = ["synthetic.flip=force", "compute.compile=false", THREADS]
    made = dsdistill.distill(tmp_path / "set.h5", method="dm", overrides=told, **TINY)
    assert made.images == 20
    plain = dsdistill.distill(tmp_path / "plain.h5", method="dm", overrides=told[1:], **TINY)
    one, other = (dsdistill.load(each.path).images for each in (made, plain))
    assert one.shape == other.shape
    assert not torch.equal(one, other)


def test_digits_are_refused_unless_forced(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mirror image of digits may have another label.*flip=force"):
        dsdistill.distill(tmp_path / "set.h5", method="fyi-dm", **TINY)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "base"), [("fyi-dm", "dm"), ("fyi-dsa", "dsa"), ("fyi-mtt", "mtt")])
def test_recipes_are_those_of_the_host(name: str, base: str) -> None:
    ours, host = (
        configs.as_table(configs.resolve({"method": each, "data": {"name": "cifar10"}, "ipc": 10}))
        for each in (name, base)
    )
    differing = {key for key in ours if ours[key] != host[key]}
    allowed = {"method", "protocol", "augmentation", "synthetic"}
    assert differing == (allowed | {"engine", "iterations"} if base == "mtt" else allowed)
    assert ours["augmentation"] == host["augmentation"] | {"rule": "fyi", "align_corners": True}
    if base == "mtt":
        assert ours["engine"] == host["engine"] | {"gradient": "truncated"}
        assert ours["iterations"] == 10000
