"""What compiled and bf16 runs compute: other paths than those of plain runs. Nothing is compiled here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dsdistill.compute import fused_jvp
from dsdistill.compute.embedder import Embedder
from dsdistill.compute.learner import Learner
from dsdistill.compute.unroll import UnrolledStudent
from dsdistill.engines import AttentionEngine
from dsdistill.evaluation.ensembles import Execution
from dsdistill.evaluation.students import StudentTraining
from dsdistill.networks import build_network
from dsdistill.networks.layout import Layout
from dsdistill.runtime import compiler
from dsdistill.seeding import forked, generator
from tests.helpers import engines, gradients, trajectories
from tests.helpers.engines import CPU, loss_and_gradient, toy
from tests.helpers.evaluation import fresh, tiny, train_student, training_set, weights
from tests.helpers.marks import slow_but_first


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trajectories.buffers(tmp_path_factory.mktemp("experts"))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Compile nothing: record what would be compiled and is called, on how many images."""
    called: list[tuple[str, int]] = []

    def compiled(function: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            images = [each for each in given if isinstance(each, Tensor) and each.dim() == 4]
            called.append((function.__name__, len(images[0]) if images else 0))
            return function(*given)

        return call

    monkeypatch.setattr(compiler, "why_unavailable", lambda device: None)
    monkeypatch.setattr(compiler, "compile_or_eager", compiled)
    monkeypatch.setattr(fused_jvp, "_compiled", compiled)
    monkeypatch.setattr(torch, "compile", compiled)
    return called


@pytest.mark.parametrize("case", gradients.CASES)
def test_gradient_matching_compiled(calls: list[tuple[str, int]], case: str) -> None:
    distiller = gradients.loop(compile=True, **gradients.CASES[case])
    expected, slope = gradients.naive(distiller)
    calls.clear()
    (loss,) = distiller.engine.loss(distiller.synthetic, distiller.sources).values()
    loss.backward()
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-9, atol=0)
    found = distiller.synthetic.images.grad
    torch.testing.assert_close(found, slope, rtol=1e-9, atol=1e-10 * float(slope.abs().max()))
    assert {"loss", "dual" if "network" not in gradients.CASES[case] else "loss"} <= {
        name for name, _ in calls
    }


def test_classes_of_all_sizes_are_served_by_code_for_one(calls: list[tuple[str, int]]) -> None:
    distiller = gradients.loop(compile=True, counts=(9, 4, 7))
    distiller.engine.loss(distiller.synthetic, distiller.sources)
    synthetic = len(distiller.synthetic.images) // 3
    assert {size for name, size in calls if name == "loss"} == {synthetic, 3}  # real: 6 or 4, by threes


@pytest.mark.parametrize("case", slow_but_first(trajectories.CASES))
def test_trajectory_matching_compiled(experts: Path, calls: list[tuple[str, int]], case: str) -> None:
    distiller = trajectories.loop(experts, compile=True, **trajectories.CASES[case])
    expected = trajectories.naive(distiller)
    calls.clear()
    trajectories.check(trajectories.found(distiller), expected)
    assert "loss" in {name for name, _ in calls}


@pytest.mark.parametrize("network", ["convnet2-w6", "convnet2-w6-batch"])
def test_attention_matching_compiled(calls: list[tuple[str, int]], network: str) -> None:
    """Its features are not those that the fused path has."""
    distiller = engines.loop(
        *toy(), compile=True, network=network, engine=AttentionEngine(batch_real=6, power=4.0)
    )
    loss, slope = loss_and_gradient(distiller)
    assert calls
    distiller.sources.embedder = Embedder(
        distiller.sources.supply.network,
        12,
        CPU,
        features=distiller.engine.features(distiller.sources.supply.network),
    )
    distiller.synthetic.images.grad = None
    expected, exact = loss_and_gradient(distiller)
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(slope, exact, rtol=1e-9, atol=1e-12)


def test_distribution_matching_compiled(calls: list[tuple[str, int]]) -> None:
    distiller = engines.loop(*toy(), compile=True, network="convnet2-w8")
    expected, slope = engines.naive(distiller)
    calls.clear()
    (loss,) = distiller.engine.loss(distiller.synthetic, distiller.sources).values()
    loss.backward()
    assert "head_loop" in {name for name, _ in calls}
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-4, atol=0)  # real features are float32 there
    found = distiller.synthetic.images.grad
    torch.testing.assert_close(found, slope, rtol=1e-3, atol=1e-3 * float(slope.abs().max()))


# bf16 -------------------------------------------------------------------------------------------------------


def learners(name: str = "convnet2-w8") -> tuple[Learner, Learner, Tensor, Tensor]:
    """Return learners of one network in fp32 and in bf16, images and labels."""
    with forked(0, "test"):
        network = build_network(name, 1, 12, 3)
    images = torch.randn(6, 1, 12, 12, generator=generator(0, "images"))
    one, other = (Learner(network, 12, CPU, precision) for precision in ("fp32", "bf16"))  # type: ignore[arg-type]
    return one, other, images, torch.arange(6) % 3


def near(found: Tensor, expected: Tensor, share: float = 0.03) -> None:
    """Check that something was computed in bf16, and well."""
    assert 0 < (found - expected).norm() < share * expected.norm()


def test_training_and_real_gradients_are_in_bf16_and_exact_ones_are_not() -> None:
    fp32, bf16, *batch = learners()
    names = [name for name, _ in fp32.network.named_parameters()]
    near(bf16.loss(*batch).detach()[None], fp32.loss(*batch).detach()[None])
    gradients = [way.gradient(*batch, names) for way in (bf16, fp32)]
    near(*(torch.cat([each.flatten() for each in found]) for found in gradients))
    assert all(map(torch.equal, bf16.gradient(*batch, names, exact=True), gradients[1]))


def test_second_derivatives_and_students_that_are_followed_are_not_in_bf16() -> None:
    fp32, bf16, images, labels = learners()
    tangents = dict(fp32.weights(()))
    assert torch.equal(*(way.image_grad(images, labels, tangents) for way in (fp32, bf16)))
    layout = Layout.of(fp32.network)
    start, _ = layout.pack(fp32.network.state_dict())
    paths = [followed(way, layout, images, labels).unroll(start, torch.tensor(0.1)) for way in (fp32, bf16)]
    assert all(map(torch.equal, *paths))


FORWARD_MODE = ["convnet2-w8-none", "convnet2-w8-group-swish-maxpool", "mlp"]


@pytest.mark.parametrize("name", ["convnet2-w8", "convnet2-w8-batch", *FORWARD_MODE])
def test_second_derivatives_and_students_that_are_followed_are_in_bf16_where_they_are_told_so(
    name: str,
) -> None:
    fp32, _, images, labels = learners(name)
    bf16 = Learner(fp32.network, 12, CPU, second_order="bf16")
    names = [each for each, _ in fp32.network.named_parameters()]
    assert all(map(torch.equal, bf16.gradient(images, labels, names), fp32.gradient(images, labels, names)))
    tangents = dict(fp32.weights(()))
    gradients = tuple(way.image_grad(images, labels, tangents) for way in (bf16, fp32))
    layout = Layout.of(fp32.network)
    start, _ = layout.pack(fp32.network.state_dict())
    students = [followed(way, layout, images, labels) for way in (bf16, fp32)]
    paths = [each.unroll(start, torch.tensor(0.1)) for each in students]
    near(*(path[-1] - start for path in paths), share=0.1)
    way_back = {3: paths[1][-1] - start}
    found, expected = (each.adjoint(paths[1], way_back, torch.tensor(0.1)) for each in students)
    assert {each.dtype for each in (found.images, found.lr, paths[0][-1])} == {torch.float32}
    pairs = [gradients, (found.images, expected.images), (found.lr[None], expected.lr[None])]
    for pair in pairs:
        if name in FORWARD_MODE:
            assert torch.equal(*pair)
        else:
            near(*pair, share=0.1)


def followed(learner: Learner, layout: Layout, images: Tensor, labels: Tensor) -> UnrolledStudent:
    """Return a student of three steps, with all images in each."""
    return UnrolledStudent(learner, layout, images, labels, [torch.arange(6)] * 3, lambda _, batch: batch)


def test_students_are_trained_in_the_precision_they_are_told() -> None:
    protocol, moved, start = tiny(epochs=2), [], weights(fresh(0))
    transform = protocol.transform_for(mirror=True)
    for precision in ("fp32", "bf16"):
        execution = Execution(precision=precision)  # type: ignore[arg-type]
        training = StudentTraining(protocol, transform)
        student = train_student(fresh(0), *training_set(), training, execution=execution)
        moved.append(weights(student) - start)
    near(moved[1], moved[0], 0.1)
