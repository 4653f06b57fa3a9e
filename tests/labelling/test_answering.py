"""A committee answers to views: in blocks, together or batch by batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dsdistill.labelling import answering
from dsdistill.labelling.answering import ViewAnswers, static_logits
from dsdistill.objectives.labels import label_distances
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.synthetic.views import Views
from dsdistill.teachers import Committee
from tests.helpers.labels import answers, committee, config, equal
from tests.helpers.storage import make

SET = make()
DATA = DistilledDataset(SET)


def all_of(labelling: ViewAnswers) -> Views:
    return Views.cat([labelling.block(epochs, lambda _: None) for epochs in labelling.blocks()])


class Watching(torch.nn.Module):
    """Passes images on to a network, and keeps them."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network, self.seen = network, []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images.clone())
        return self.network(images)


def watched(teachers: Committee) -> Watching:
    watching = Watching(teachers.teachers[0].network)
    object.__setattr__(teachers.teachers[0], "network", watching)
    return watching


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("mixing", ["none", "cutmix", "mixup"])
def test_a_replayed_batch_is_the_one_that_the_teacher_saw_bit_for_bit(mode: Any, mixing: Any) -> None:
    teachers = committee(mode=mode)
    watching = watched(teachers)
    views = all_of(answers(SET, config(mixing=mixing, encoding="float32"), teachers))
    replayed = [views.batch(number).images(DATA.images) for number in range(len(views))]
    assert torch.equal(torch.cat(watching.seen), torch.cat(replayed))
    sizes = {"eval": [36], "train": [5, 5, 2] * 3}[mode]
    assert [len(seen) for seen in watching.seen] == sizes
    for number, images in enumerate(replayed):
        expected = committee(mode=mode).logits(images)
        torch.testing.assert_close(views.answers[views.slice(number)], expected, rtol=1e-5, atol=1e-5)


def test_blocks_join_epochs_of_few_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answering, "_AT_ONCE", 30)
    labelling = answers(SET, config(views=5), committee())
    assert list(labelling.blocks()) == [range(2), range(2, 4), range(4, 5)]
    monkeypatch.setattr(answering, "_AT_ONCE", 7)
    assert list(labelling.blocks()) == [range(epoch, epoch + 1) for epoch in range(5)]
    teachers = committee()
    watching = watched(teachers)
    found = all_of(answers(SET, config(views=5), teachers))
    assert [len(seen) for seen in watching.seen] == [5, 7] * 5
    assert equal_but_for_rounding(found, all_of(labelling))


def equal_but_for_rounding(one: Views, other: Views) -> bool:
    ours, theirs = one.columns(), other.columns()
    answered = (ours.pop("answers/values") - theirs.pop("answers/values")).abs().max()
    return answered < 1e-2 and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_images_at_once_do_not_fill_the_memory() -> None:
    assert answering.images_at_once(torch.empty(1, 1, 28, 28)) == 512
    assert answering.images_at_once(torch.empty(1, 3, 512, 512)) == 42
    assert answering.images_at_once(torch.empty(1, 3, 1 << 12, 1 << 12)) == 1


def test_batches_that_are_not_kept_cost_nothing() -> None:
    teachers = committee()
    watching = watched(teachers)
    labelling = answers(SET, config(views=20, keep=0.1), teachers)
    views = all_of(labelling)
    assert views.pool
    assert len(views) == 6
    assert sum(map(len, watching.seen)) == len(views.rows) == labelling.total
    whole = all_of(answers(SET, config(views=20), committee()))
    kept = labelling.draws.kept().flatten().nonzero()[:, 0].tolist()
    for number, place in enumerate(kept):
        assert torch.equal(views.rows[views.slice(number)], whole.rows[whole.slice(place)])
        assert torch.equal(views.boxes[number], whole.boxes[place])


def test_progress_counts_views(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "_AT_ONCE", 10)
    labelling, told = answers(SET, config(), committee()), []
    labelling.block(range(1), told.append)
    assert told == [10, 12]
    assert (labelling.total, labelling.views_of(range(2))) == (36, 24)


def test_distances_are_those_to_both_labels() -> None:
    views = all_of(answers(SET, config(encoding="distances"), committee()))
    for number in range(len(views)):
        batch = views.batch(number)
        labels = DATA.labels[batch.rows]
        logits = committee().logits(batch.images(DATA.images))
        expected = label_distances(logits, labels, labels[batch.mix.partner])
        torch.testing.assert_close(views.answers[views.slice(number)], expected, rtol=2e-3, atol=2e-3)


def test_static_logits_are_the_committees_of_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "_AT_ONCE", 5)
    told: list[int] = []
    found = static_logits(DATA.images, committee(0, 1), config(), told.append)
    torch.testing.assert_close(found, committee(0, 1).logits(DATA.images), rtol=1e-5, atol=1e-5)
    assert told == [5, 10, 12]


def row_of(image: torch.Tensor) -> int:
    return int((DATA.images == image).flatten(1).all(1).nonzero())


def test_static_logits_by_the_statistics_of_batches_of_several_classes() -> None:
    teachers = committee(mode="train")
    watching = watched(teachers)
    found = static_logits(DATA.images, teachers, config(batch_size=6), lambda _: None)
    rows = [
        [int((DATA.images == image).flatten(1).all(1).nonzero()) for image in seen] for seen in watching.seen
    ]
    assert [len(each) for each in rows] == [6, 6]
    assert all(len(set(DATA.labels[each].tolist())) == 3 for each in rows)
    for each, seen in zip(rows, watching.seen, strict=True):
        torch.testing.assert_close(found[each], committee(mode="train").logits(seen))


def test_the_pace_is_measured_on_few_views() -> None:
    pace = answers(SET, config(), committee()).pace()
    assert 0 < pace.step < 1


def test_equal_draws_give_equal_views() -> None:
    assert equal(all_of(answers(SET, config(), committee())), all_of(answers(SET, config(), committee())))
