"""Training experts: what a step is, that nothing else matters, and that a kill costs an epoch at most."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import socket
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import dsdistill
from dsdistill import UserError
from dsdistill.augment.mix import CutMix
from dsdistill.config.presets import PRESETS
from dsdistill.data import catalog, packaged
from dsdistill.data.config import DataConfig
from dsdistill.data.real import Task
from dsdistill.data.selection import validation_split
from dsdistill.experts.run import committee
from dsdistill.experts.trainer import Pace, Trainer
from dsdistill.experts.workdir import WorkDir
from dsdistill.networks import build_network
from dsdistill.runtime.estimate import RunEstimate
from dsdistill.seeding import forked, generator
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.storage.hdf5 import set_attributes
from tests.helpers.callbacks import Told
from tests.helpers.compilers import NOTICE, break_compiler
from tests.helpers.data import pixels
from tests.helpers.experts import CPU, PLAIN, told, toys, trained

TINY: dict[str, Any] = {"dataset": "digits", "recipe": "ncfm", "network": "convnet2-w6", "epochs": 2}


def train(output: Path, count: int, overrides: tuple[str, ...] = (), **options: Any) -> ExpertFile:
    return dsdistill.train_experts(output, count=count, overrides=[*PLAIN, *overrides], **{**TINY, **options})


@pytest.fixture(autouse=True)
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a fifth of the digits: what a run does with its epochs is the same with short ones."""
    levels, targets, train, test = packaged._digits()
    monkeypatch.setattr(packaged, "_digits", lambda: (levels, targets, train[::5], test[::5]))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ExpertFile]:
    """Train without a stop, once for all tests that compare with the same training; not to be changed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    files: dict[str, Path] = {}

    def of(*told: Any, **options: Any) -> ExpertFile:
        key = repr((told, options))
        if key not in files:
            files[key] = folder / f"{len(files)}.h5"
            return train(files[key], *told, **options)
        return ExpertFile.open(files[key])

    return of


def same(one: ExpertFile, other: ExpertFile, experts: int) -> bool:
    return all(
        torch.equal(one.flat(expert, epoch), other.flat(expert, epoch))
        for expert in range(experts)
        for epoch in one.epochs
    )


# Training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["ncfm", "mtt"])
@pytest.mark.parametrize(
    ("options", "seen"), [({"drop_last": True}, 48), ({"drop_last": False}, 50), ({"epoch_batches": 2}, 32)]
)
def test_training_is_sgd_on_augmented_shuffled_batches(
    recipe: str, options: dict[str, Any], seen: int
) -> None:
    task, real = toys()
    config = told(recipe, epochs=4, batch_size=16, drop_at=(0.5,), seed=3, **options)
    expert = 2
    with forked(3, "experts-init", expert):
        network = build_network("convnet2-w6", 1, 8, 3)
    momentum = {name: torch.zeros_like(value) for name, value in network.named_parameters()}
    augmentation = config.augmentation.build(mirror=True)
    images = (real.images.float() / 255 - 0.5) / 0.25
    means = []
    for epoch in range(4):
        total = 0.0
        order = torch.randperm(50, generator=generator(3, "experts", expert, epoch))
        batches = [order[start : start + 16] for start in range(0, seen, 16)]
        lr = config.lr * (config.drop_factor if epoch >= 2 else 1)
        for batch, rows in enumerate(batches):
            stream = generator(3, "experts-augment", expert, epoch, batch)
            x = augmentation(images[rows], augmentation.draw(len(rows), 8, stream, shared_operator=True))
            y = F.one_hot(real.labels[rows], 3).float()
            if recipe == "ncfm":
                mix = CutMix(probability=0.5).draw(
                    len(rows), 8, generator(3, "experts-mix", expert, epoch, batch)
                )
                x, y = mix.images(x), mix.targets(y)
            loss = -(y * network(x).log_softmax(1)).sum(1).mean()
            total += float(loss.detach()) * len(rows)
            gradients = torch.autograd.grad(loss, list(network.parameters()))
            with torch.no_grad():
                for (name, value), gradient in zip(network.named_parameters(), gradients, strict=True):
                    momentum[name] *= config.momentum
                    momentum[name] += gradient + config.weight_decay * value
                    value -= lr * momentum[name]
        means.append(total / seen)
    expected = torch.nn.utils.parameters_to_vector(network.parameters()).detach()
    trainer = Trainer(config, task, real, CPU, print)
    assert trainer.batches == -(-seen // 16)
    trainer.initialise(expert)
    assert [trainer.train_epoch(expert, epoch, []) for epoch in range(4)] == pytest.approx(means, rel=1e-4)
    found = torch.nn.utils.parameters_to_vector(trainer.network.parameters()).detach()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


class Clock:
    """A clock that passes the seconds of each timed step: the next ones of a list, and then half a second."""

    def __init__(self, *first: float) -> None:
        self._seconds = itertools.chain(first, itertools.repeat(0.5))
        self._now, self._running = 0.0, False

    def monotonic(self) -> float:
        if self._running:
            self._now += next(self._seconds)
        self._running = not self._running
        return self._now


def pace_by(clock: Clock, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Pace:
    trainer = Trainer(told(batch_size=16, drop_last=False, **options), *toys(), CPU, print)
    monkeypatch.setattr("dsdistill.experts.trainer.time", clock)
    return trainer.pace()


def test_the_pace_is_that_of_steps_once_all_sizes_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 50 images, 16 at a time, three steps are full and one of two images; the first of both are slow."""
    usual = pace_by(Clock(), monkeypatch)
    last = 0.5 * 2 / 16
    assert usual.epoch == pytest.approx(3 * 0.5 + last)
    assert usual.metrics == pytest.approx(0.5)
    assert usual.warm_up == pytest.approx(0.5 - last)
    slow = pace_by(Clock(60.0, 90.0), monkeypatch)
    assert (slow.epoch, slow.metrics) == (usual.epoch, usual.metrics)
    assert slow.warm_up == pytest.approx(60.0 + 90.0 - 0.5 - last)


@pytest.mark.parametrize("slow", range(6))
def test_a_slow_step_among_those_that_are_timed_changes_nothing(
    slow: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = pace_by(Clock(), monkeypatch)
    assert pace_by(Clock(*[0.5] * (2 + slow), 500.0), monkeypatch).epoch == pytest.approx(usual.epoch)


def test_steps_that_differ_as_operators_do_are_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [0.02, 0.04] * 8
    assert pace_by(Clock(0.5, 0.5, *steps), monkeypatch).epoch == pytest.approx((3 + 2 / 16) * 0.03)


def timed_sizes(steps: int | None, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the sizes of the batches that are timed, where each step takes 1000 s."""
    taken: list[int] = []

    def step(self: Trainer, rows: torch.Tensor, turn: int) -> float:
        taken.append(len(rows))
        return 1000.0

    monkeypatch.setattr(Trainer, "_timed_step", step)
    trainer = Trainer(told(batch_size=16, drop_last=False), *toys(), CPU, print)
    assert trainer.pace(steps).epoch == 3125.0
    return taken


def test_timing_ends_after_a_few_steps_where_they_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timed_sizes(None, monkeypatch) == [16, 2, *[16] * 5]


@pytest.mark.parametrize(("steps", "timed"), [(4, 3), (200, 4), (10_000, 5)])
def test_little_is_timed_before_a_short_training(
    steps: int, timed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert timed_sizes(steps, monkeypatch) == [16, 2, *[16] * timed]


def test_the_estimate_counts_what_is_left_saving_and_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two experts of two epochs: four epochs, two of them stored besides the checkpoint, and two ends."""
    monkeypatch.setattr(Trainer, "pace", lambda self, steps: Pace(epoch=100.0, metrics=10.0))
    monkeypatch.setattr(WorkDir, "seconds_of_saving", lambda self, state: 1.0)
    seen: list[RunEstimate] = []
    train(tmp_path / "pool.h5", 2, callbacks=[Told(estimated=seen.append)])
    train(tmp_path / "pool.h5", 3, callbacks=[Told(estimated=seen.append)])
    assert [each.seconds for each in seen] == [
        4 * 101.0 + 2 * 1.0 + 2 * 10.0,
        2 * 101.0 + 1 * 1.0 + 1 * 10.0,
    ]
    assert [(each.amount, each.work) for each in seen] == [(4, "epochs"), (2, "epochs")]


def test_a_trial_of_saving_leaves_nothing_behind(tmp_path: Path) -> None:
    workdir = WorkDir(tmp_path / "parts", told(), "fingerprint")
    workdir.begin(resume=False, overwrite=False)
    before = sorted(workdir.path.iterdir())
    assert workdir.seconds_of_saving({"a": torch.zeros(3)}) > 0
    assert sorted(workdir.path.iterdir()) == before


def test_experts_of_what_cannot_be_mirrored_see_no_mirror_images() -> None:
    task, real = toys()
    never = dataclasses.replace(task, mirror=False)

    def weights(operators: str, task: Task) -> torch.Tensor:
        return trained(told(epochs=1, augmentation={"operators": operators}), 0, task, real)

    plain = weights("none", never)
    assert torch.equal(weights("flip", never), plain)
    assert not torch.equal(weights("flip", task), plain)


def test_preprocessing_once_or_by_the_batch_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    task, real = toys()
    config = told(epochs=1)
    resident = trained(config, 0, task, real)
    monkeypatch.setattr("dsdistill.experts.images._RESIDENT_BYTES", 0)
    assert torch.equal(trained(config, 0, task, real), resident)


@pytest.mark.slow
def test_an_expert_does_not_depend_on_the_others(undisturbed: Callable[..., ExpertFile]) -> None:
    two, three = undisturbed(2), undisturbed(3)
    assert same(two, three, 2)
    assert not torch.equal(two.flat(0, 0), two.flat(1, 0))
    task, real = catalog.load(DataConfig(name="digits"), "train")
    config = told(epochs=2)
    torch.testing.assert_close(trained(config, 2, task, real), three.flat(2, 2))


@pytest.mark.slow
def test_the_initial_weights_and_the_chosen_epochs_are_kept(tmp_path: Path) -> None:
    options = ("keep=[3,0,1]",)
    found = train(tmp_path / "pool.h5", 1, options, epochs=3, seed=5)
    everything = train(tmp_path / "all.h5", 1, ("keep=all",), epochs=3, seed=5)
    assert (found.epochs, everything.epochs) == ((0, 1, 3), (0, 1, 2, 3))
    assert same(found, everything, 1)
    with forked(5, "experts-init", 0):
        fresh = build_network("convnet2-w6", 1, 8, 10)
    assert torch.equal(found.flat(0, 0), torch.nn.utils.parameters_to_vector(fresh.parameters()))


@pytest.mark.slow
def test_what_is_said_of_an_expert_holds_for_what_is_stored(tmp_path: Path) -> None:
    found = train(tmp_path / "pool.h5", 1, network="convnet2-w6-batch")
    task, real = catalog.load(DataConfig(name="digits"), "train")
    found.check(task, "convnet2-w6-batch", real.fingerprint)
    network = build_network("convnet2-w6-batch", 1, 8, 10).eval()
    network.load_state_dict(found.state(0, 2))
    with torch.no_grad():
        logits = network(task.preprocess(real.unit(slice(None))))
    assert float((logits.argmax(1) == real.labels).float().mean()) == pytest.approx(
        found.training[0].accuracy
    )
    assert float(F.cross_entropy(logits, real.labels)) == pytest.approx(found.training[0].loss, rel=1e-4)
    assert found.training[0].seconds > 0


def test_the_accuracy_on_test_images_is_that_of_the_stored_weights(tmp_path: Path) -> None:
    network, options = "convnet2-w6-batch", ("test=stored", "keep=[0,2]")
    entries: list[dict[str, Any]] = []
    found = train(tmp_path / "pool.h5", 2, options, network=network, callbacks=[entries.append])
    task, test = catalog.load(DataConfig(name="digits"), "test")
    for expert, epoch in itertools.product(range(2), (0, 2)):
        model = build_network(network, 1, 8, 10).eval()
        model.load_state_dict(found.state(expert, epoch))
        with torch.no_grad():
            correct = model(task.preprocess(test.unit(slice(None)))).argmax(1) == test.labels
        assert found.test_accuracy(expert, epoch) == pytest.approx(float(correct.float().mean()))
    assert [each.get("test_accuracy") for each in entries] == [
        None,
        found.test_accuracy(0, 2),
        None,
        found.test_accuracy(1, 2),
    ]
    assert same(train(tmp_path / "blind.h5", 2, options[1:], network=network), found, 2)


def test_experts_with_and_without_accuracies_on_test_images_are_not_joined(tmp_path: Path) -> None:
    train(tmp_path / "pool.h5", 1, epochs=1)
    with pytest.raises(
        UserError, match="holds experts with test = 'none', and those asked for have 'stored'"
    ):
        train(tmp_path / "pool.h5", 2, ("test=stored",), epochs=1)
    first = train(tmp_path / "tested.h5", 1, ("test=stored",), epochs=1)
    both = train(tmp_path / "tested.h5", 2, ("test=stored",), epochs=1)
    assert both.test_accuracy(0, 1) == first.test_accuracy(0, 1)
    assert both.test_accuracy(1, 1) > 0


def test_the_accuracy_on_images_held_out_is_that_of_the_stored_weights(tmp_path: Path) -> None:
    network, options = "convnet2-w6-batch", ("test=validation", "keep=[0,2]")
    entries: list[dict[str, Any]] = []
    found = train(tmp_path / "pool.h5", 2, options, network=network, callbacks=[entries.append])
    task, real = catalog.load(DataConfig(name="digits"), "train")
    held_out = real.part(validation_split(real)[1])
    for expert, epoch in itertools.product(range(2), (0, 2)):
        model = build_network(network, 1, 8, 10).eval()
        model.load_state_dict(found.state(expert, epoch))
        with torch.no_grad():
            correct = model(task.preprocess(held_out.unit(slice(None)))).argmax(1) == held_out.labels
        assert found.validation_accuracy(expert, epoch) == pytest.approx(float(correct.float().mean()))
    assert found.holds_out
    assert found.training[0].test_accuracy == ()
    assert found.metadata.fingerprint == real.fingerprint
    assert [each.get("validation_accuracy") for each in entries if each["epoch"] == 2] == [
        found.validation_accuracy(0, 2),
        found.validation_accuracy(1, 2),
    ]
    assert not any("test_accuracy" in each for each in entries)


def test_test_images_are_read_for_their_accuracies_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, splits = catalog.read, list[str]()

    def note(config: DataConfig, split: Any, *rest: Any) -> Any:
        splits.append(split)
        return read(config, split, *rest)

    monkeypatch.setattr(catalog, "read", note)
    train(tmp_path / "pool.h5", 1, epochs=1)
    train(tmp_path / "apart.h5", 1, ("test=validation",), epochs=1)
    assert splits == []
    train(tmp_path / "tested.h5", 1, ("test=stored",), epochs=1)
    assert splits == ["test"]


def test_the_estimate_counts_the_accuracies_on_test_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 270 training and 90 test images, or a tenth of the former held out, after each of two epochs."""
    monkeypatch.setattr(Trainer, "pace", lambda self, steps: Pace(epoch=100.0, metrics=float(self.images)))
    monkeypatch.setattr(WorkDir, "seconds_of_saving", lambda self, state: 0.0)
    seen: list[RunEstimate] = []
    starts: list[str] = []
    for test in ("none", "stored", "validation"):
        options = (f"test={test}", "keep=all")
        callback = Told(estimated=seen.append, started=lambda start: starts.append(start.describe()[0]))
        train(tmp_path / f"{test}.h5", 1, options, callbacks=[callback])
    blind, tested, apart = (each.seconds for each in seen)
    assert tested - blind == pytest.approx(2 * 90)
    held_out = int(starts[2].rpartition("; ")[2].split()[0])
    assert 20 <= held_out <= 30
    assert apart - blind == pytest.approx(2 * held_out - held_out)
    assert [line.endswith(" held out") for line in starts] == [False, False, True]
    assert seen[1].memory_bytes > seen[0].memory_bytes


def test_a_committee_has_a_file_for_each_network(tmp_path: Path) -> None:
    output = tmp_path / "NAME.h5"
    assert committee(output, None) == [(output, None)]
    assert committee(output, "convnet3,") == [(output, "convnet3")]
    assert committee(output, "resnet18-batch, mobilenetv2-x0.25,torchvision:vit_b_16,mobilenetv2-x0.25") == [
        (tmp_path / "NAME-resnet18-batch.h5", "resnet18-batch"),
        (tmp_path / "NAME-mobilenetv2-x0.25.h5", "mobilenetv2-x0.25"),
        (tmp_path / "NAME-torchvision-vit_b_16.h5", "torchvision:vit_b_16"),
    ]
    assert committee(tmp_path / "NAME", "mlp,lenet")[1] == (tmp_path / "NAME-lenet", "lenet")
    with pytest.raises(UserError, match="did you mean 'mobilenetv2'"):
        committee(output, "convnet3,mobilenet")


def test_dropout_draws_neither_from_nor_into_the_global_generator() -> None:
    task, real = toys()
    config = told(epochs=1, network="convnet2-w6")

    def run() -> torch.Tensor:
        trainer = Trainer(config, task, real, CPU, print)
        trainer.initialise(0)
        trainer.network.classifier = torch.nn.Sequential(torch.nn.Dropout(0.5), trainer.network.classifier)
        trainer.train_epoch(0, 0, [])
        return torch.nn.utils.parameters_to_vector(trainer.network.parameters()).detach()

    torch.manual_seed(1)
    one, after = run(), torch.rand(())
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(()))
    assert torch.equal(run(), one)


# Interrupted and resumed ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["signal", "kill"])
@pytest.mark.parametrize("stop_after", [1, 3, 4])
def test_a_resumed_run_is_bit_identical(
    tmp_path: Path, kind: str, stop_after: int, undisturbed: Callable[..., ExpertFile]
) -> None:
    output = tmp_path / "pool.h5"

    def stop(entry: dict[str, Any]) -> None:
        if entry["done"] == stop_after:
            if kind == "kill":
                raise RuntimeError("killed")
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(dsdistill.Interrupted if kind == "signal" else RuntimeError):
        train(output, 2, ("keep=all",), epochs=3, callbacks=[stop])
    assert not output.exists()
    with pytest.raises(UserError, match="--resume"):
        train(output, 2, ("keep=all",), epochs=3)
    with pytest.raises(UserError, match=r"cannot resume .* lr = 0\.5: it was started with 0\.01"):
        train(output, 2, ("keep=all", "lr=0.5"), epochs=3, resume=True)
    entries: list[dict[str, Any]] = []
    found = train(output, 2, ("keep=all",), epochs=3, resume=True, callbacks=[entries.append])
    assert [entry["done"] for entry in entries] == list(range(stop_after + 1, 7))
    assert same(found, undisturbed(2, ("keep=all",), epochs=3), 2)
    assert [path.name for path in tmp_path.iterdir()] == ["pool.h5"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["ftd", "ast"])
@pytest.mark.parametrize("stop_after", [2, 3])
def test_flat_and_smooth_experts_are_resumed_bit_identically(
    tmp_path: Path, recipe: str, stop_after: int, undisturbed: Callable[..., ExpertFile]
) -> None:
    options = ("drop_at=[0.5]", "momentum=0.9", "ramp_epochs=3")

    def stop(entry: dict[str, Any]) -> None:
        if entry["done"] == stop_after:
            raise RuntimeError("killed")

    told: dict[str, Any] = {"recipe": recipe, "network": "convnet2-w4-batch", "epochs": 4}
    with pytest.raises(RuntimeError, match="killed"):
        train(tmp_path / "stopped.h5", 1, options, **told, callbacks=[stop])
    resumed = train(tmp_path / "stopped.h5", 1, options, **told, resume=True)
    assert same(resumed, undisturbed(1, options, **told), 1)


def test_a_training_that_holds_images_out_is_resumed_bit_identically(tmp_path: Path) -> None:
    options = ("test=validation", "keep=all")

    def stop(entry: dict[str, Any]) -> None:
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train(tmp_path / "stopped.h5", 1, options, callbacks=[stop])
    resumed = train(tmp_path / "stopped.h5", 1, options, resume=True)
    whole = train(tmp_path / "whole.h5", 1, options)
    assert same(resumed, whole, 1)
    assert resumed.training[0].validation_accuracy == whole.training[0].validation_accuracy
    assert len(whole.training[0].validation_accuracy) == 3


@pytest.mark.slow
@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("stop_after", [1, 3])
def test_teachers_are_resumed_bit_identically_with_their_accuracies(
    tmp_path: Path, optimiser: str, stop_after: int, undisturbed: Callable[..., ExpertFile]
) -> None:
    options = (f"optimiser={optimiser}", "warmup_epochs=2", "label_smoothing=0.1", "keep=all")

    def stop(entry: dict[str, Any]) -> None:
        if entry["done"] == stop_after:
            raise RuntimeError("killed")

    told: dict[str, Any] = {"recipe": "teacher", "network": "convnet2-w4-batch", "epochs": 4}
    with pytest.raises(RuntimeError, match="killed"):
        train(tmp_path / "stopped.h5", 1, options, **told, callbacks=[stop])
    resumed = train(tmp_path / "stopped.h5", 1, options, **told, resume=True)
    whole = undisturbed(1, options, **told)
    assert same(resumed, whole, 1)
    assert resumed.training[0].test_accuracy == whole.training[0].test_accuracy
    assert len(set(whole.training[0].test_accuracy)) > 1


@pytest.mark.slow
def test_a_lost_part_is_trained_again(tmp_path: Path) -> None:
    output = tmp_path / "pool.h5"

    def stop(entry: dict[str, Any]) -> None:
        if entry["done"] == 2:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train(output, 1, epochs=3, callbacks=[stop])
    (tmp_path / "pool.h5.parts/00000/epoch-00000.safetensors").unlink()
    assert same(train(output, 1, epochs=3, resume=True), train(tmp_path / "b.h5", 1, epochs=3), 1)


@pytest.mark.slow
def test_unfinished_experts_can_be_given_up(tmp_path: Path) -> None:
    def stop(entry: dict[str, Any]) -> None:
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train(tmp_path / "pool.h5", 1, callbacks=[stop])
    found = train(tmp_path / "pool.h5", 1, ("lr=0.02",), overwrite=True)
    assert same(found, train(tmp_path / "b.h5", 1, ("lr=0.02",)), 1)


@pytest.mark.slow
def test_a_damaged_part_is_trained_anew_with_a_notice(
    tmp_path: Path, undisturbed: Callable[..., ExpertFile]
) -> None:
    output = tmp_path / "pool.h5"

    def stop(entry: dict[str, Any]) -> None:
        if entry["done"] == 3:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train(output, 2, callbacks=[stop])
    part = tmp_path / "pool.h5.parts/00000/epoch-00002.safetensors"
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    said: list[str] = []
    entries: list[dict[str, Any]] = []
    found = train(output, 2, resume=True, callbacks=[Told(notify=said.append), entries.append])
    assert said == ["expert 0 is trained anew: epoch-00002.safetensors is missing or damaged"]
    assert [entry["done"] for entry in entries] == [2, 3, 4]
    assert same(found, undisturbed(2), 2)


def test_a_failing_write_keeps_the_parts_and_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "pool.h5"
    train(output, 1, epochs=1)
    before = output.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("dsdistill.storage.expert_writer._Passed._agrees", lambda self, file: False)
        with pytest.raises(UserError, match="it reads back otherwise than it was written"):
            train(output, 2, epochs=1)
    assert output.read_bytes() == before
    assert (tmp_path / "pool.h5.parts/00001/epoch-00001.safetensors").exists()
    entries: list[dict[str, Any]] = []
    assert train(output, 2, epochs=1, resume=True, callbacks=[entries.append]).count == 2
    assert entries == []
    assert [path.name for path in tmp_path.iterdir()] == ["pool.h5"]


def test_a_final_file_that_cannot_be_opened_keeps_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> ExpertFile:
        raise UserError("it is damaged")

    with monkeypatch.context() as patch:
        patch.setattr(ExpertFile, "open", refuse)
        with pytest.raises(UserError, match="it is damaged"):
            train(tmp_path / "pool.h5", 1, epochs=1)
    assert (tmp_path / "pool.h5.parts/00000/epoch-00001.safetensors").exists()


def test_parts_that_a_kill_left_beside_the_finished_file_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "pool.h5"
    with monkeypatch.context() as patch:
        patch.setattr("dsdistill.experts.workdir.WorkDir.clear", lambda self: None)
        train(output, 1, epochs=1)
    (tmp_path / ".pool.h5.0a1b2c3d.part").touch()
    assert len(list(tmp_path.iterdir())) == 3
    train(output, 1, epochs=1, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["pool.h5"]


def test_a_second_training_of_one_file_is_refused(tmp_path: Path) -> None:
    output, said = tmp_path / "pool.h5", list[str]()

    def again(entry: dict[str, Any]) -> None:
        for options in ({"resume": True}, {"overwrite": True}, {"seed": 1}):
            with pytest.raises(UserError) as caught:
                train(output, 1, epochs=1, **options)
            said.append(str(caught.value))

    train(output, 1, epochs=1, callbacks=[again])
    host = f"process {os.getpid()} on {socket.gethostname()}"
    assert (
        said
        == [
            f"a training of {output} is running already ({host}); "
            "wait for it, stop it, or choose another output"
        ]
        * 3
    )


@pytest.mark.parametrize("text", ["lr = ", "\x7f", "[" * 5000])
def test_a_file_whose_config_is_damaged_is_not_added_to(tmp_path: Path, text: str) -> None:
    train(tmp_path / "pool.h5", 1, epochs=1)
    with h5py.File(tmp_path / "pool.h5", "r+") as file:
        set_attributes(file, config=text)
    with pytest.raises(UserError, match=r"would not be replaced \(.*pool.h5 is damaged: .*; make it again\)"):
        train(tmp_path / "pool.h5", 2, epochs=1)


# Adding to a file -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_larger_count_adds_to_the_file(tmp_path: Path, undisturbed: Callable[..., ExpertFile]) -> None:
    output = tmp_path / "pool.h5"
    first = train(output, 1)
    before, accuracy = first.flat(0, 2), first.training[0]
    entries: list[dict[str, Any]] = []
    found = train(output, 3, callbacks=[entries.append])
    assert {entry["expert"] for entry in entries} == {1, 2}
    assert found.count == 3
    assert torch.equal(found.flat(0, 2), before)
    assert found.training[0] == accuracy
    assert same(found, undisturbed(3), 3)


@pytest.mark.slow
def test_a_file_is_not_changed_into_another(tmp_path: Path) -> None:
    output = tmp_path / "pool.h5"
    train(output, 2)
    content = output.read_bytes()
    with pytest.raises(UserError, match="holds these 2 experts already"):
        train(output, 2)
    assert train(output, 2, resume=True).count == 2
    with pytest.raises(UserError, match="holds 2 experts, more than the 1"):
        train(output, 1)
    with pytest.raises(UserError, match=r"cutmix = 0\.5, and those asked for have 0\.0"):
        train(output, 3, ("cutmix=0.0",))
    with pytest.raises(UserError, match=r"data\.zca = False"):
        train(output, 3, ("data.zca=true",))
    assert output.read_bytes() == content
    assert not (tmp_path / "pool.h5.parts").exists()
    assert train(output, 1, ("cutmix=0.0",), overwrite=True).count == 1


def test_other_files_are_never_replaced(tmp_path: Path, made: Path) -> None:
    with pytest.raises(UserError, match="would not be replaced"):
        train(made, 1, overwrite=True)
    parts = tmp_path / "pool.h5.parts"
    parts.mkdir()
    (parts / "mine.txt").touch()
    with pytest.raises(UserError, match="in the way"):
        train(tmp_path / "pool.h5", 1, overwrite=True)
    with pytest.raises(UserError, match="is a folder"):
        train(tmp_path, 1)
    with pytest.raises(UserError, match="does not exist"):
        train(tmp_path / "none" / "pool.h5", 1)


def test_a_loss_that_is_not_finite_stops(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expert 0, epoch 1: the mean loss is .*; .*lower lr"):
        train(tmp_path / "pool.h5", 1, ("lr=1e30",))


def test_a_file_says_whether_its_experts_were_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notices: list[str] = []
    for good, compiled in ((10**6, True), (1, False)):
        break_compiler(monkeypatch, good)
        output = tmp_path / f"experts-{good}.h5"
        file = train(output, 1, ("compute.compile=true",), callbacks=[Told(notify=notices.append)])
        assert tomllib.loads(file.metadata.config)["compute"]["compile"] is compiled
    assert notices == [NOTICE]


def test_experts_tell_no_folder_and_are_added_to(tmp_path: Path) -> None:
    for folder in ("anna", "ben"):
        (tmp_path / folder).mkdir()
        recipe = (PRESETS / "experts" / "ncfm.toml").read_text()
        (tmp_path / folder / "mine.toml").write_text(recipe)
        np.savez(tmp_path / folder / "data.npz", images=pixels(40, 8, 8), labels=np.arange(40) % 2)
    output, notices = tmp_path / "pool.h5", []
    for count, folder in enumerate(("anna", "ben"), 1):
        told = {
            "dataset": f"npz:{tmp_path / folder / 'data.npz'}",
            "recipe": str(tmp_path / folder / "mine.toml"),
            "root": tmp_path / folder,
        }
        experts = train(output, count, **told, resume=True, callbacks=[Told(notify=notices.append)])
        assert experts.count == count
        assert experts.metadata.dataset == "npz:data.npz"
        assert b"anna" not in output.read_bytes()
    resumed = [sentence for sentence in notices if "to resume: starting anew" in sentence]
    assert resumed == [f"there are no experts in {output}.parts to resume: starting anew"]


def test_experts_are_compiled_sooner_where_ones_like_them_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "code"))
    monkeypatch.setattr("dsdistill.runtime.compiler.compiles", lambda device, notify: True)
    monkeypatch.setattr("dsdistill.runtime.compiler.compiled", lambda function, options=None: function)
    small: dict[str, Any] = {"dataset": "digits", "recipe": "mtt", "network": "convnet2-w4", "device": "cpu"}

    def words(count: int) -> str:
        starts: list[Any] = []
        options = {**small, "count": count, "epochs": 10, "callbacks": [Told(started=starts.append)]}
        dsdistill.dry_run(dsdistill.train_experts, tmp_path / "other.h5", **options)
        return str(starts[0])

    assert "not compiled (too short" in words(count=500)
    once = ["compute.compile=true"]
    dsdistill.train_experts(tmp_path / "experts.h5", **small, count=1, epochs=1, overrides=once)
    assert ", compiled (" in words(count=500)
    assert "not compiled" in words(count=1)


def test_a_training_goes_on_compiled_or_not_as_it_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(entry: dict[str, Any]) -> None:
        raise RuntimeError("killed")

    starts: list[str] = []
    small: dict[str, Any] = {"dataset": "digits", "recipe": "mtt", "network": "convnet2-w4", "device": "cpu"}
    options: dict[str, Any] = {**small, "count": 1, "epochs": 2, "overrides": ["compute.threads=1"]}
    with pytest.raises(RuntimeError, match="killed"):
        dsdistill.train_experts(tmp_path / "experts.h5", **options, callbacks=[stop])
    monkeypatch.setattr("dsdistill.runtime.config.is_long", lambda *told: True)
    heard = Told(started=lambda start: starts.append(str(start)))
    dsdistill.train_experts(tmp_path / "experts.h5", **options, resume=True, callbacks=[heard])
    assert ", compiled" not in starts[0]
