"""The public call: from names of files to a file with labels."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from dsdistill.errors import UserError
from dsdistill.labelling import answering, run
from dsdistill.labelling.committee import load_committee
from dsdistill.labelling.config import resolve
from dsdistill.labelling.labelled import labelled
from dsdistill.pipeline.label import label
from dsdistill.runtime.signals import Interrupted
from dsdistill.storage import set_file, set_results
from dsdistill.storage.set_description import describe
from tests.helpers.labels import equal
from tests.helpers.storage import make, same
from tests.newcomer.notices import Notices

VIEWS: dict[str, Any] = {"views": 4, "batch_size": 4}


def read(path: Path) -> Any:
    return set_file.read(path)


def test_a_set_is_labelled(finished: Path, pool: Path, tmp_path: Path) -> None:
    output = tmp_path / "labelled.h5"
    found = label(finished, output, teachers=f"{pool}#all@1", mean="probabilities")
    before, after = read(finished), read(output)
    assert same(dataclasses.replace(after, soft_labels=None, attributes=before.attributes), before)
    assert after.attributes["teacher_epochs"] == "1, 1"
    assert (found.kind, found.images, found.views, found.path) == ("static", 10, 0, output)
    assert found.agreement == float((after.soft_labels.argmax(1) == after.labels).double().mean())
    described = describe(output)
    assert (found.image_bytes, found.label_bytes) == (described.image_bytes, described.label_bytes)
    assert [name for name, _ in found.rows()] == [
        "file",
        "labels",
        "agreement",
        "bytes of images",
        "bytes of labels",
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"labelled.h5"}


def test_views_are_those_of_the_core(finished: Path, pool: Path, tmp_path: Path) -> None:
    found = label(
        finished, tmp_path / "views.h5", teachers=pool, **VIEWS, encoding="float32", precision="fp32"
    )
    assert (found.kind, found.views) == ("views", 40)
    again = read(tmp_path / "views.h5")
    assert not again.views.flips.any()  # a mirrored digit is another one, or none
    assert label(finished, tmp_path / "flipped.h5", teachers=pool, **VIEWS, flip=True)
    assert read(tmp_path / "flipped.h5").views.flips.any()
    config = resolve(teachers=(str(pool),), **VIEWS, encoding="float32")
    teachers = load_committee(read(finished), config, torch.device("cpu"))
    core = labelled(read(finished), teachers, config, mirror=False)
    assert equal(core.views, again.views)  # type: ignore[arg-type]


def test_pixels_are_stored_as_they_are(finished: Path, pool: Path, tmp_path: Path) -> None:
    small = dsdistill.export_set(finished, tmp_path / "small.h5", dtype="uint8")
    label(small, tmp_path / "views.h5", teachers=pool, **VIEWS)
    assert describe(tmp_path / "views.h5").dtype == "uint8"
    assert torch.equal(read(tmp_path / "views.h5").images, read(small).images)


# Outputs ----------------------------------------------------------------------------------------------------


def test_an_output_is_replaced_only_if_asked_for(made: Path, pool: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    label(made, output, teachers=pool)
    with pytest.raises(UserError, match=r"out\.h5 exists; choose another name, or pass --overwrite"):
        label(made, output, teachers=pool, **VIEWS)
    label(made, output, teachers=pool, **VIEWS, overwrite=True)
    assert read(output).views is not None
    before = made.read_bytes()
    with pytest.raises(
        UserError, match=r"set\.h5 is the set itself; choose another name, or pass --overwrite"
    ):
        label(made, made, teachers=pool)
    assert made.read_bytes() == before


def test_a_set_is_labelled_in_place_if_asked_for(made: Path, pool: Path) -> None:
    set_results.append_result(made, {"mean": 1})
    notices = Notices()
    label(made, made, teachers=pool, overwrite=True, callbacks=[notices])
    assert read(made).soft_labels is not None
    assert "are of its earlier labels and go with them" in notices.sentences[0]
    assert set_results.results(made) == []


def test_labels_that_are_replaced_are_told(made: Path, pool: Path, tmp_path: Path) -> None:
    label(made, tmp_path / "views.h5", teachers=pool, **VIEWS)
    notices = Notices()
    label(tmp_path / "views.h5", tmp_path / "static.h5", teachers=pool, callbacks=[notices])
    assert notices.sentences == ["the views that views.h5 has are replaced"]


# Bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"teachers": "none.h5"}, r"no file at none\.h5"),
        ({"teachers": []}, "no teacher given"),
        ({"teachers": "{pool}@9"}, r"does not hold epoch 9; it holds 0 to 1"),
        ({"teachers": "{pool}#7"}, "holds experts 0 to 1, not expert 7"),
        ({"teachers": "{pool}", "weights": "accuracy"}, "has no accuracy on held-out training images"),
        (
            {"teachers": "{pool}", "views": 2, "encoding": "top", "top": 11},
            "top is 11, and there are 10 classes",
        ),
        ({"teachers": "{pool}", "device": "tpu"}, "unknown device 'tpu'|not supported"),
        ({"teachers": "{pool}", "precision": "fp8"}, "unknown precision 'fp8'"),
        ({"teachers": "{pool}", "mode": "train", "batch_size": 9}, "leave one alone"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    finished: Path, pool: Path, tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    teachers = options.pop("teachers")
    teachers = teachers.format(pool=pool) if isinstance(teachers, str) else teachers
    with pytest.raises(UserError, match=sentence) as caught:
        label(finished, tmp_path / "out.h5", teachers=teachers, **options)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_whether_images_may_be_mirrored_is_known_without_the_data() -> None:
    def mirrors(**attributes: str) -> tuple[bool, list[str]]:
        sentences: list[str] = []
        return run.mirrors(make(attributes=attributes), sentences.append), sentences

    assert mirrors(dataset="digits") == (False, [])
    assert mirrors(dataset="cifar10") == (True, [])
    assert mirrors(data='{"name": "folder:pets"}') == (True, [])
    assert mirrors(data='{"name": "folder:pets", "mirror": false}') == (False, [])
    assert mirrors(data="{", dataset="cifar10") == (True, [])
    for attributes in ({}, {"dataset": "toys"}):
        flip, sentences = mirrors(**attributes)
        assert not flip
        assert "keep their labels: none are" in sentences[0]


# Estimates, stops and resuming ------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "amount", "work"), [(VIEWS, 40, "views"), ({}, 10, "images")])
def test_a_dry_run_writes_nothing(
    finished: Path, pool: Path, tmp_path: Path, options: dict[str, Any], amount: int, work: str
) -> None:
    estimate = dsdistill.dry_run(label, finished, tmp_path / "out.h5", teachers=pool, **options)
    assert (estimate.amount, estimate.work) == (amount, work)
    assert 0 < estimate.seconds < 10
    assert estimate.disk_bytes == estimate.label_bytes == (40 * (17 + 20) if options else 4 * 10 * 10)
    assert estimate.memory_bytes
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_chooses_no_epoch_and_says_so(finished: Path, pool: Path, tmp_path: Path) -> None:
    estimate = dsdistill.dry_run(label, finished, tmp_path / "out.h5", teachers=pool, stop="auto")
    assert estimate.amount == 10
    assert "the choice of the teacher's epoch" in str(estimate)


class Signalled(dsdistill.Callback):
    """Sends the process a signal after so many views."""

    def __init__(self, after: int) -> None:
        self._after = after

    def on_progress(self, what: str, done: int, total: int) -> None:
        if done >= self._after:
            self._after = 1 << 30
            signal.raise_signal(signal.SIGINT)


def test_an_interrupted_labelling_goes_on_to_the_same_file(
    finished: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "_AT_ONCE", 10)
    output, options = tmp_path / "out.h5", {"teachers": pool, **VIEWS}
    with pytest.raises(Interrupted):
        label(finished, output, **options, callbacks=[Signalled(15)])
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5.parts"]
    with pytest.raises(UserError, match="holds unfinished labels; pass --resume to go on, or --overwrite"):
        label(finished, output, **options)
    with pytest.raises(UserError, match="with views = 5: it was started with 4"):
        label(finished, output, teachers=pool, **VIEWS | {"views": 5}, resume=True)
    label(finished, output, **options, resume=True)
    label(finished, tmp_path / "again.h5", **options)
    assert output.read_bytes() == (tmp_path / "again.h5").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"out.h5", "again.h5"}


def test_a_signal_after_the_last_view_loses_nothing(
    finished: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, options = tmp_path / "out.h5", {"teachers": pool, **VIEWS}
    with pytest.raises(Interrupted):
        label(finished, output, **options, callbacks=[Signalled(40)])
    assert sorted(path.name for path in (tmp_path / "out.h5.parts").iterdir()) == [
        "000000-000004.safetensors",
        "labelling.json",
    ]
    monkeypatch.setattr(answering.ViewAnswers, "block", None)  # nothing is left to do
    label(finished, output, **options, resume=True)
    assert {path.name for path in tmp_path.iterdir()} == {"out.h5"}


def test_what_is_there_already_is_not_labelled_again(
    finished: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.h5"
    first = label(finished, output, teachers=pool, **VIEWS)
    monkeypatch.setattr(run, "labelled", None)
    assert label(finished, output, teachers=pool, **VIEWS, resume=True) == first
    with pytest.raises(UserError, match="exists; choose another name"):
        label(finished, output, teachers=pool, **VIEWS | {"views": 5}, resume=True)
