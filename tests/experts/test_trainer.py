"""Training images that are held out: no step sees them, and nothing else changes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from dsdistill.data.real import RealDataset
from dsdistill.data.selection import validation_split
from dsdistill.errors import UserError
from dsdistill.experts import images as images_module
from dsdistill.experts import trainer as trainer_module
from dsdistill.experts.images import NetworkImages
from dsdistill.experts.objective import Objective, TrainingBatch
from dsdistill.experts.trainer import Trainer
from dsdistill.runtime.cuda_graphs import Backward, Batch
from tests.helpers.experts import CPU, told, toys, trained


@pytest.mark.parametrize("drop_last", [True, False])
def test_an_image_held_out_is_in_no_batch_and_every_other_once_an_epoch(
    drop_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, real = toys()
    kept, held_out = (rows.tolist() for rows in validation_split(real))
    place = {task.preprocess(real.unit(slice(None)))[row].numpy().tobytes(): row for row in range(len(real))}
    drawn: Counter[int] = Counter()
    backward = Objective.backward

    def count(self: Objective, batch: TrainingBatch, *rest: Any) -> torch.Tensor:
        rows = [place[image.numpy().tobytes()] for image in batch.plain]
        assert torch.equal(batch.targets, real.labels[rows])
        drawn.update(rows)
        return backward(self, batch, *rest)

    monkeypatch.setattr(Objective, "backward", count)
    trainer = Trainer(
        told("mtt", test="validation", batch_size=15, drop_last=drop_last), task, real, CPU, print
    )
    trainer.initialise(0)
    for epoch in range(3):
        trainer.train_epoch(0, epoch, [])
    assert not drawn.keys() & set(held_out)
    assert (trainer.images, trainer.batches, len(kept), len(held_out)) == (44, 2 if drop_last else 3, 44, 6)
    if drop_last:
        assert drawn.total() == 3 * 30
    else:
        assert drawn == dict.fromkeys(kept, 3)


@pytest.mark.parametrize("resident", [1 << 30, 0])
def test_weights_are_those_of_a_training_on_the_others(
    resident: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images_module, "_RESIDENT_BYTES", resident)
    task, real = toys()
    options: dict[str, Any] = {"epochs": 2, "batch_size": 16}
    apart = trained(told(test="validation", **options), 1, task, real)
    alone = trained(told(**options), 1, task, real.part(validation_split(real)[0]))
    assert torch.equal(apart, alone)
    assert not torch.equal(apart, trained(told(**options), 1, task, real))


def test_accuracies_are_of_either_part_alone() -> None:
    task, real = toys()
    trainer = Trainer(told(test="validation"), task, real, CPU, print)
    trainer.initialise(0)
    trainer.network.eval()
    with torch.no_grad():
        right = trainer.network(task.preprocess(real.unit(slice(None)))).argmax(1) == real.labels
    kept, held_out = (right[rows].double().mean().item() for rows in validation_split(real))
    assert (trainer.training_metrics()[1], trainer.unseen_accuracy()) == pytest.approx((kept, held_out))
    assert kept != held_out


def test_of_many_images_some_tell_the_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    task, real = toys()
    tested: list[int] = []

    def count(self: Trainer, images: NetworkImages, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tested.extend(rows.tolist())
        return torch.tensor(2.0 * len(rows)), torch.tensor(len(rows) - 1)

    monkeypatch.setattr(trainer_module, "_MEASURED", 20)
    monkeypatch.setattr(Trainer, "_tested", count)
    of_all = Trainer(told(batch_size=16), task, real, CPU, print)
    assert of_all.training_metrics() == (2.0, 19 / 20)
    assert len(set(tested)) == 20
    assert len({int(real.labels[row]) for row in tested}) == 3
    first = [*tested]
    Trainer(told(batch_size=16), task, real, CPU, print).training_metrics()
    assert tested == [*first, *first]


def test_data_of_one_image_a_class_hold_none_out() -> None:
    task, real = toys(3)
    with pytest.raises(UserError, match="no class of toys has two training images") as caught:
        Trainer(told(test="validation"), task, real, CPU, print)
    assert "\n" not in str(caught.value)


def test_images_held_out_take_no_further_memory() -> None:
    task, real = toys()

    def found(test: str, extra: RealDataset | None = None) -> int:
        return Trainer(told(test=test, batch_size=4), task, real, CPU, print, extra).memory_bytes()

    assert found("validation") == found("none") < found("stored", real)


def test_steps_that_are_replayed_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake graph takes the place of CUDA's."""
    replayed: list[int] = []

    def capture(backward: Backward, batch: Batch, parameters: Sequence[torch.Tensor]) -> Backward:
        return lambda batch: replayed.append(len(batch["images"])) or backward(batch)  # type: ignore[func-returns-value]

    monkeypatch.setattr("dsdistill.runtime.cuda_graphs.capture_graph", capture)
    task, real = toys()
    config = told("mtt", network="convnet2-w6-batch", batch_size=20, epochs=2)
    compute = dataclasses.replace(config.compute, cuda_graphs=True)
    plain = trained(config, 0, task, real)
    assert not replayed
    assert torch.equal(trained(dataclasses.replace(config, compute=compute), 0, task, real), plain)
    assert replayed == [20, 20, 10] * 2
