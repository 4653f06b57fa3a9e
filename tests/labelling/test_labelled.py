"""The core of labelling: a set in memory and a committee."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dsdistill.errors import UserError
from dsdistill.labelling import answering, view_run
from dsdistill.labelling.labelled import identity, labelled
from dsdistill.labelling.parts import LabelParts
from dsdistill.labelling.start import LabellingStart
from dsdistill.runtime.callbacks import Callback, Observer, StopRun
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.synthetic.multi_formation import MultiFormation
from dsdistill.teachers import Committee
from tests.helpers.labels import committee, config, equal, teacher, with_views
from tests.helpers.storage import make, same, zca

STATIC = config(views=0)


def test_static_labels_are_the_logits_of_each_image() -> None:
    found = labelled(make(), committee(), STATIC)
    assert found.soft_labels is not None
    torch.testing.assert_close(found.soft_labels, committee().logits(DistilledDataset(make()).images))
    assert same(dataclasses.replace(found, soft_labels=None, attributes=make().attributes), make())


@pytest.mark.parametrize("views", [0, 2])
def test_decoded_images_of_a_multi_formation_are_labelled(views: int) -> None:
    stored = make(multi_formation=MultiFormation(factor=2))
    found = labelled(stored, committee(), config(views=views))
    images = DistilledDataset(stored).images
    if views:
        assert found.views is not None
        assert found.views.images == len(images) == 48
        assert DistilledDataset(found).views is found.views
    else:
        assert found.soft_labels is not None
        torch.testing.assert_close(found.soft_labels, committee().logits(images))


def test_what_was_there_is_replaced_and_weights_stay() -> None:
    weights = torch.rand(12)
    before = dataclasses.replace(with_views(), soft_labels=torch.zeros(12, 3), sample_weights=weights)
    after = labelled(before, committee(), STATIC)
    assert after.views is None
    assert after.soft_labels is not None
    assert after.soft_labels.abs().max() > 0
    assert after.sample_weights is weights
    assert labelled(after, committee(), config()).soft_labels is None


def test_attributes_say_who_answered_and_how() -> None:
    teachers = [
        teacher(0, test_accuracy=0.5, validation_accuracy=0.125, epoch=3),
        teacher(1, test_accuracy=0.25, epoch=7),
    ]
    options = config(teachers=("a.h5@3", "b.h5@7"))
    both = Committee(teachers, mean="probabilities", mode="train")
    found = labelled(make(), both, options).attributes
    assert {key: found[key] for key in found if key not in ("labelling", "seconds", "seed", "method")} == {
        "labels": "views",
        "teacher": "teacher 0; teacher 1",
        "teacher_digest": both.digest,
        "teacher_epochs": "3, 7",
        "teacher_test_accuracies": "0.5000, 0.2500",
        "teacher_mean": "probabilities",
        "teacher_mode": "train",
        "teacher_precision": "fp32",
        "protocol": "fkd",
        "own_protocol": "dm",
    }
    told = json.loads(str(found["labelling"]))
    assert told["teachers"] == ["a.h5@3", "b.h5@7"]
    both = Committee([teachers[0], teacher(1, validation_accuracy=0.75)])
    again = labelled(make(attributes={**found, "teacher_accuracies": "1, 1"}), both, options).attributes
    assert again["teacher_validation_accuracies"] == "0.1250, 0.7500"
    assert not again.keys() & {"teacher_accuracies", "teacher_test_accuracies", "teacher_epochs"}
    assert told["images"] == make().digest


def test_the_sets_own_protocol_comes_back_with_static_labels() -> None:
    own = make(attributes={"protocol": "idc"})
    views = labelled(own, committee(), config())
    assert (views.attributes["protocol"], views.attributes["own_protocol"]) == ("fkd", "idc")
    again = labelled(views, committee(), config(mode="train"))
    assert (again.attributes["protocol"], again.attributes["own_protocol"]) == ("cv-dd", "idc")
    static = labelled(again, committee(), STATIC)
    assert static.attributes["protocol"] == "idc"
    assert "own_protocol" not in static.attributes
    assert "protocol" not in labelled(make(), committee(), STATIC).attributes


def test_labels_are_told_apart_by_all_that_makes_them() -> None:
    sets = [make(), make(images=make().images + 1), make(preprocess=zca(3 * 8 * 8))]
    identities = [identity(each, committee(), config()) for each in sets]
    identities += [identity(make(), committee(1), config()), identity(make(), committee(), config(seed=1))]
    assert len(set(identities)) == 5
    assert identity(with_views(), committee(), config()) == identities[0]


@pytest.mark.parametrize(
    ("mirror", "flip", "expected"), [(True, "auto", True), (False, "auto", False), (False, True, True)]
)
def test_views_are_mirrored_where_that_is_allowed_or_asked_for(
    mirror: bool, flip: Any, expected: bool
) -> None:
    found = labelled(make(), committee(), config(flip=flip), mirror=mirror).views
    assert found is not None
    assert bool(found.flips.any()) == expected


def test_a_set_that_cannot_be_labelled_so_is_refused_before_anything_is_computed() -> None:
    with pytest.raises(UserError, match="top is 4, and there are 3 classes"):
        labelled(make(), committee(), config(encoding="top", top=4))


def test_an_answer_that_cannot_be_stored_is_refused() -> None:
    huge = teacher()
    for weight in huge.network.parameters():
        weight.mul_(1e4)
    with pytest.raises(UserError, match="float16 cannot hold logits as large as these"):
        labelled(make(), Committee([huge]), config())


class Watch(Callback):
    """Keeps what is told, and stops after so many views."""

    def __init__(self, stop: int | None = None) -> None:
        self.starts: list[LabellingStart] = []
        self.told: list[int] = []
        self.stop = stop

    def on_start(self, start: LabellingStart) -> None:
        self.starts.append(start)

    def on_progress(self, what: str, done: int, total: int) -> None:
        assert (what, total) == ("labelling", self.starts[-1].total)
        self.told.append(done)
        if self.stop is not None and done >= self.stop:
            raise StopRun("enough")


@pytest.mark.parametrize("views", [0, 3])
def test_progress_is_told_and_changes_nothing(views: int) -> None:
    watch = Watch()
    found = labelled(make(), committee(), config(views=views), observer=Observer([watch]))
    again = labelled(make(), committee(), config(views=views))
    assert same(found, again)
    assert watch.told[-1] == watch.starts[0].total == 12 * max(1, views)
    assert "12 images" in watch.starts[0].describe()[0]


def test_a_stopped_labelling_goes_on_from_finished_epochs_to_the_same_views(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "_AT_ONCE", 12)  # a block is an epoch
    options = config(views=5, mixing="mixup", encoding="top", top=2)

    def run(stop: int | None) -> tuple[Any, Watch]:
        parts = LabelParts(tmp_path / "out.h5", identity(make(), committee(), options))
        parts.begin(True, False, lambda _: None)
        watch = Watch(stop)
        return labelled(make(), committee(), options, observer=Observer([watch]), parts=parts), watch

    for stop in (20, 40):
        with pytest.raises(UserError, match=f"with {stop // 12} of 5 epochs of views: enough; resume=True"):
            run(stop)
    found, watch = run(None)
    assert (watch.starts[0].done, watch.told[0]) == (36, 48)
    assert "resuming after 36 of 60 views" in watch.starts[0].describe()
    assert equal(found.views, labelled(make(), committee(), options).views)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="enough; nothing is kept"):
        labelled(make(), committee(), options, observer=Observer([Watch(1)]))


def test_long_work_is_kept_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "_AT_ONCE", 12)
    parts = LabelParts(tmp_path / "out.h5", identity(make(), committee(), config()))
    monkeypatch.setattr(view_run, "_EVERY", 1e9)
    labelled(make(), committee(), config(), parts=parts)
    assert not parts.path.exists()
    monkeypatch.setattr(view_run, "_EVERY", 0.0)
    labelled(make(), committee(), config(), parts=parts)
    names = sorted(path.name for path in parts.path.glob("*.safetensors"))
    assert names == ["000000-000001.safetensors", "000001-000002.safetensors"]  # the last is in the set
