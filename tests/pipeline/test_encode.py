"""The public call: from a set's file to one with coded images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import dsdistill
from dsdistill.errors import UserError
from dsdistill.pipeline.encode import encode
from dsdistill.storage import set_file
from dsdistill.storage.set_description import describe
from tests.helpers.labels import with_views
from tests.helpers.storage import make
from tests.newcomer.notices import Notices


def test_images_are_coded_and_all_else_stays(finished: Path, tmp_path: Path) -> None:
    output = tmp_path / "small.h5"
    summary = encode(finished, output, bits=3)
    before, after = set_file.read(finished), set_file.read(output)
    assert torch.equal(after.labels, before.labels)
    assert (after.classes, after.attributes) == (before.classes, before.attributes)
    difference = after.images - before.images
    assert summary.error == pytest.approx(float(difference.square().mean().sqrt()))
    assert summary.largest_error == pytest.approx(float(difference.abs().max()))
    assert summary.bytes_after == describe(output).image_bytes < summary.bytes_before
    assert [name for name, _ in summary.rows()] == ["file", "images", "labels", "error"]


def test_a_budget_is_of_images_and_labels(tmp_path: Path) -> None:
    source, output = tmp_path / "set.h5", tmp_path / "small.h5"
    set_file.write(source, make(soft_labels=make().images[:, :, 0, 0]))
    encode(source, output, budget="2 kB")
    about = describe(output)
    assert 1000 < about.image_bytes + about.label_bytes <= 2000
    encode(source, output, budget="1 images", overwrite=True)  # 3·8·8 pixels of 4 bytes
    about = describe(output)
    assert about.image_bytes + about.label_bytes <= 768


def test_refining_is_the_same_twice_and_keeps_the_budget(finished: Path, tmp_path: Path) -> None:
    done: list[tuple[str, int, int]] = []

    class Progress(dsdistill.Callback):
        def on_progress(self, what: str, done_: int, total: int) -> None:
            done.append((what, done_, total))

    one, other = tmp_path / "one.h5", tmp_path / "other.h5"
    options = {"bits": 2, "budget": "700 B", "network": "convnet2-w8", "refine": 4}
    encode(finished, one, **options, callbacks=[Progress()])
    encode(finished, other, **options)
    assert set_file.digest(one) == set_file.digest(other)
    assert set_file.read(one).attributes["refine"] == 4
    assert done[-1] == ("refining", 4, 4)
    about = describe(one)
    assert about.image_bytes + about.label_bytes <= 700


def test_refined_codes_that_do_not_fit_are_left_out(finished: Path, tmp_path: Path) -> None:
    plain = encode(finished, tmp_path / "plain.h5", bits=2, groups=8)
    notices = Notices()
    budget = f"{plain.bytes_after + plain.label_bytes}B"
    options = {"bits": 2, "groups": 8, "network": "convnet2-w8", "budget": budget}
    encode(finished, tmp_path / "tight.h5", **options, refine=20, callbacks=[notices])
    about = describe(tmp_path / "tight.h5")
    assert about.image_bytes <= plain.bytes_after
    left_out = "coded without refining" in " ".join(notices.sentences)
    assert left_out != ("refine" in about.attributes)


def test_an_earlier_refining_is_not_claimed(finished: Path, tmp_path: Path) -> None:
    encode(finished, tmp_path / "one.h5", bits=2, network="convnet2-w8", refine=2)
    encode(tmp_path / "one.h5", tmp_path / "two.h5", bits=2)
    assert "refine" not in set_file.read(tmp_path / "two.h5").attributes


def test_what_is_refused(finished: Path, tmp_path: Path) -> None:
    output = tmp_path / "small.h5"
    encode(finished, output)
    with pytest.raises(UserError, match=r"exists; choose another name, or pass overwrite=True"):
        encode(finished, output)
    with pytest.raises(UserError, match="is the set itself"):
        encode(finished, finished)
    with pytest.raises(UserError, match="a patch of 9×9 is larger than an image of 8×8"):
        encode(finished, tmp_path / "no.h5", patch=9)
    with pytest.raises(UserError, match="a network is for refining alone"):
        encode(finished, tmp_path / "no.h5", network="convnet2-w8")
    with pytest.raises(UserError, match="the budget leaves"):
        encode(finished, tmp_path / "no.h5", budget="50B")
    viewed = tmp_path / "viewed.h5"
    set_file.write(viewed, with_views())
    with pytest.raises(UserError, match="encode the set first, then label it"):
        encode(viewed, tmp_path / "no.h5")
    assert not (tmp_path / "no.h5").exists()


def test_a_coded_set_is_labelled_and_stays_coded(finished: Path, pool: Path, tmp_path: Path) -> None:
    encode(finished, tmp_path / "small.h5", bits=2)
    dsdistill.label(tmp_path / "small.h5", tmp_path / "labelled.h5", teachers=f"{pool}@1")
    before, after = set_file.read(tmp_path / "small.h5"), set_file.read(tmp_path / "labelled.h5")
    assert after.coded is not None
    assert torch.equal(after.images, before.images)
    assert after.soft_labels is not None
    encode(tmp_path / "labelled.h5", tmp_path / "again.h5", bits=8)
    assert torch.equal(set_file.read(tmp_path / "again.h5").soft_labels, after.soft_labels)
