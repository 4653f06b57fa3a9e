"""Networks that learn without labels: their views, loss and probe, and that a kill costs an epoch at most."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from dsdistill import UserError
from dsdistill.compute.probe import linear_probe
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.experts import config as expert_config
from dsdistill.experts.config import ExpertConfig
from dsdistill.experts.trainer import Trainer
from dsdistill.experts.twins import Twins
from dsdistill.networks import build_network
from dsdistill.objectives.twins import barlow_twins
from dsdistill.storage.expert_file import ExpertFile
from tests.helpers.experts import CPU, PLAIN, told, toys

SMALL = ["batch_size=256", "twins.projector=[16, 8]", "optimiser=adam", "lr=1e-3", "warmup_epochs=0"]
DIGITS: dict[str, Any] = {"dataset": "digits", "recipe": "barlow-twins", "network": "convnet2-w8-batch"}


def small(**options: Any) -> ExpertConfig:
    twins = {"projector": (16, 8)}
    return told("barlow-twins", "convnet2-w6-batch", batch_size=16, epochs=2, twins=twins, **options)


def trained(output: Path, *overrides: str, epochs: int = 2, **options: Any) -> ExpertFile:
    words = [*PLAIN, *SMALL, *overrides]
    return dsdistill.train_experts(output, overrides=words, epochs=epochs, **DIGITS, **options)


def test_a_batch_is_two_views_of_each_image_whose_draws_are_their_own() -> None:
    task, real = toys()
    trainer = Trainer(small(), task, real, CPU, print)
    rows = torch.arange(16)
    batch = trainer._batch(rows, expert=0, epoch=0, step=0)
    first, second = batch.images.chunk(2)
    assert first.shape == batch.plain.shape
    for one, other in ((first, second), (first, batch.plain), (second, batch.plain)):
        assert (one != other).flatten(1).any(1).all()
    assert torch.equal(trainer._batch(rows, 0, 0, 0).images, batch.images)
    for place in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert not torch.equal(trainer._batch(rows, *place).images, batch.images)


def test_views_are_not_mirrored_where_a_mirror_image_is_something_else() -> None:
    task, real = toys()
    config = dataclasses.replace(small(), crop_scale=None, augmentation=small().augmentation)
    config = dataclasses.replace(
        config, augmentation=dataclasses.replace(config.augmentation, operators="flip")
    )
    for mirror in (True, False):
        batch = Trainer(config, dataclasses.replace(task, mirror=mirror), real, CPU, print)._batch(
            torch.arange(50), 0, 0, 0
        )
        mirrored = [(view != batch.plain).flatten(1).any(1).sum() for view in batch.images.chunk(2)]
        assert all(mirrored) is mirror


def test_the_loss_is_that_of_the_projections_of_each_view_normalised_by_itself() -> None:
    task, real = toys()
    trainer = Trainer(small(), task, real, CPU, print)
    trainer.initialise(0)
    trained = trainer._trained
    assert isinstance(trained, Twins)
    batch = trainer._batch(torch.arange(16), 0, 0, 0)
    trained.train()
    expected = barlow_twins(*(trained(view) for view in batch.images.chunk(2)))
    found = trainer._objective.backward(batch, 0)
    torch.testing.assert_close(found, expected.detach())
    assert [name for name, each in trained.named_parameters() if each.grad is None] == [
        "network.classifier.weight",
        "network.classifier.bias",
    ]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> ExpertFile:
    return trained(tmp_path_factory.mktemp("twins") / "twins.h5")


def test_the_classifier_is_a_linear_probe_of_the_trained_features(file: ExpertFile) -> None:
    task, real = catalog.load(DataConfig(name="digits"), "train")
    network = build_network(file.metadata.network, 1, 8, 10)
    network.load_state_dict(file.state(0, 2))
    network.eval()
    with torch.no_grad():
        features = network.embed(task.preprocess(real.unit(slice(None))))
    weight, bias = linear_probe(features, real.labels, 10)
    accuracy = float(((features @ weight.T + bias).argmax(1) == real.labels).float().mean())
    assert file.training[0].accuracy == pytest.approx(accuracy, abs=0.01)
    assert file.training[0].accuracy > 0.75
    assert file.training[0].test_accuracy[-1] > 0.7
    assert file.metadata.self_supervised


def test_training_lowers_the_loss_and_the_projector_is_thrown_away(tmp_path: Path) -> None:
    losses: list[float] = []
    file = trained(tmp_path / "a.h5", epochs=3, callbacks=[lambda entry: losses.append(entry["loss"])])
    assert losses[-1] < losses[0]
    assert not any("projector" in name for name in file.state(0, 3))
    assert set(file.state(0, 3)) == set(build_network(file.metadata.network, 1, 8, 10).state_dict())


def test_a_resumed_training_is_that_of_one_go(file: ExpertFile, tmp_path: Path) -> None:
    def keep(entry: dict[str, Any]) -> None:
        if entry["epoch"] == 1:
            shutil.copytree(tmp_path / "whole.h5.parts", tmp_path / "killed.h5.parts")

    trained(tmp_path / "whole.h5", callbacks=[keep])
    resumed = trained(tmp_path / "killed.h5", resume=True)
    assert torch.equal(resumed.flat(0, 2), file.flat(0, 2))


def test_data_without_labels_will_do_and_make_the_same_features(file: ExpertFile, tmp_path: Path) -> None:
    bare = trained(tmp_path / "bare.h5", "data.unlabelled=true")
    assert bare.metadata.classes == ("unlabelled",)
    record = bare.training[0]
    assert (record.accuracy, record.test_accuracy) == (0, ())
    assert record.loss > 0
    for epoch in (0, 2):
        ours, theirs = file.state(0, epoch), bare.state(0, epoch)
        assert theirs.keys() == ours.keys()
        for name, value in theirs.items():
            assert torch.equal(value, ours[name]) is not name.startswith("classifier"), name


@pytest.mark.parametrize(
    "option", ["cutmix=0.5", "label_smoothing=0.1", "record_el2n=1", "sharpness.rho=0.1"]
)
def test_options_that_go_by_labels_are_refused(option: str, tmp_path: Path) -> None:
    name = option.partition("=")[0]
    with pytest.raises(UserError, match=f"objective=barlow-twins has no classes that {name} is of"):
        trained(tmp_path / "a.h5", option, "drop_last=false")


def test_a_network_whose_classifier_is_not_linear_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    class Deep(dsdistill.Network):
        def __init__(self, channels: int, size: int, num_classes: int) -> None:
            super().__init__()
            self.feature_dim = channels * size**2
            self.classifier = torch.nn.Sequential(torch.nn.Linear(self.feature_dim, num_classes))

        def embed(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)

        def trace(self, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
            return [x], x.flatten(1)

    options = {**DIGITS, "network": Deep}
    with pytest.raises(UserError, match="a linear probe takes the place of a linear classifier"):
        dsdistill.train_experts(tmp_path / "a.h5", overrides=[*PLAIN, *SMALL], epochs=1, **options)


def test_experts_of_earlier_versions_stay_those_of_the_cache() -> None:
    names = expert_config.weights(told("ncfm"))
    assert not {name for name in names if name.startswith(("objective", "twins"))}
    assert expert_config.weights(small())["objective"] == "barlow-twins"


def test_the_probe_is_of_the_last_epoch_also_where_its_weights_are_not_stored(tmp_path: Path) -> None:
    stored = trained(tmp_path / "all.h5", "keep=[1,2]").training[0]
    unstored = trained(tmp_path / "first.h5", "keep=[1]").training[0]
    assert (unstored.accuracy, unstored.loss) == (stored.accuracy, stored.loss)


def test_a_last_batch_of_one_image_is_refused() -> None:
    task, real = toys(49)
    Trainer(small(drop_last=True), task, real, CPU, print)
    with pytest.raises(UserError, match=r"the last batch of an epoch is a single image.*drop_last=true"):
        Trainer(small(drop_last=False), task, real, CPU, print)
