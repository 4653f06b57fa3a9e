"""A population with a teacher: which one it is, and that it is trained for runs that name none."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from dsdistill.distillation.config import resolve
from dsdistill.errors import UserError
from dsdistill.pipeline import experts
from dsdistill.pipeline.experts import Scale
from dsdistill.supply.base import NetworkRequest, PassOptions, bytes_of
from dsdistill.supply.taught import TaughtConfig, TaughtPopulation
from tests.helpers.engines import CPU, toy
from tests.helpers.trajectories import written

TEACHER = "convnet2-w3-batch"


@pytest.fixture
def request_of(tmp_path: Path) -> NetworkRequest:
    task, real = toy()
    written(tmp_path / "experts.h5", task, real, network=TEACHER)
    return NetworkRequest("wideconvnet2-w4-batch", task, CPU, 0, real.fingerprint, real=real)


def config(tmp_path: Path, name: str = "experts.h5", **options: object) -> TaughtConfig:
    return TaughtConfig(path=str(tmp_path / name), size=2, **options)  # type: ignore[arg-type]


def test_networks_answer_with_as_many_numbers_as_the_teacher_has_features(
    tmp_path: Path, request_of: NetworkRequest
) -> None:
    supply = config(tmp_path).build(request_of)
    assert isinstance(supply, TaughtPopulation)
    images = torch.randn(5, 1, 12, 12)
    assert supply.network(images).shape == supply.target_network.frozen(images).shape == (5, 27)
    assert supply.targets_are == f"features of {TEACHER}, expert 0, epoch 7 of experts.h5"
    before = supply.target_network.frozen(images)
    supply.ready(PassOptions(1, 12, "bf16"))
    assert not torch.equal(supply.target_network.frozen(images), before)
    torch.testing.assert_close(supply.target_network.frozen(images), before, rtol=0.1, atol=0.05)


def test_the_teacher_counts(tmp_path: Path, request_of: NetworkRequest) -> None:
    supply = config(tmp_path).build(request_of)
    teacher = bytes_of(supply.target_network.network.state_dict())
    state, weights = (bytes_of(dict(each)) for each in (supply.network.state_dict(), _named(supply)))
    assert supply.network_bytes(9) == 3 * (state + 2 * weights) + weights + teacher


def _named(supply: TaughtPopulation) -> dict[str, torch.Tensor]:
    return dict(supply.network.named_parameters())


def test_one_of_several_teachers_is_named(tmp_path: Path, request_of: NetworkRequest) -> None:
    second = config(tmp_path, "experts.h5#1@3").build(request_of)
    assert second.targets_are == f"features of {TEACHER}, expert 1, epoch 3 of experts.h5"


def test_labels_and_classes_of_the_teacher_do_not_matter(tmp_path: Path, request_of: NetworkRequest) -> None:
    task, real = toy()
    bare = real.without_labels()
    unlabelled = dataclasses.replace(task, classes=bare.classes)
    written(tmp_path / "unlabelled.h5", unlabelled, bare, network=TEACHER)
    for known, images in ((task, real), (unlabelled, bare)):
        request = dataclasses.replace(request_of, task=known, fingerprint=images.fingerprint, real=images)
        for name in ("experts.h5", "unlabelled.h5"):
            assert name in config(tmp_path, name).build(request).targets_are
    others = dataclasses.replace(real, images=255 - real.images)
    request = dataclasses.replace(request_of, fingerprint=others.fingerprint, real=others)
    for name in ("experts.h5", "unlabelled.h5"):
        with pytest.raises(UserError, match=r"was trained with the images of .*, and this run has"):
            config(tmp_path, name).build(request)


def test_which_teacher_it_is_is_written_down(tmp_path: Path, request_of: NetworkRequest) -> None:
    resolved = config(tmp_path).resolved()
    assert len(resolved.digest) == 16
    task, real = toy()
    written(tmp_path / "experts.h5", task, real, network="convnet2-w4-batch")
    with pytest.raises(UserError, match=r"are others .* than those this run was started with"):
        dataclasses.replace(resolved).resolved()


def test_a_run_that_names_no_teacher_has_one_trained() -> None:
    run = resolve({"method": "krr-st", "data": {"name": "fashion-mnist"}, "ipc": 10})
    assert experts.lacks(run)
    for scale, network in ((Scale("laptop"), "resnet10-batch-w16"), (Scale("paper"), "resnet18-batch")):
        (planned,) = experts.plans(run, scale)
        assert Path(planned.config.recipe).stem == "barlow-twins"
        assert (planned.config.network, planned.config.count) == (network, 1)
    supply = {"supply": {"teacher_network": "convnet2-w8-batch"}}
    named = resolve({"method": "krr-st", "data": {"name": "digits"}, "ipc": 1, "engine": supply})
    assert [each.config.network for each in experts.plans(named, Scale("laptop"))] == ["convnet2-w8-batch"]
    with pytest.raises(UserError, match="this method needs trained networks, and none are named"):
        run.engine.supply.build(NetworkRequest(run.network, toy()[0], CPU, 0, ""))
