"""What a labelling keeps while it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsdistill.errors import UserError
from dsdistill.labelling.parts import LabelParts
from dsdistill.synthetic.views import Views
from tests.helpers.labels import answers, committee, config, equal
from tests.helpers.storage import make

LABELLING = answers(make(), config(views=4), committee())
EPOCHS = [LABELLING.block(range(epoch, epoch + 1), lambda _: None) for epoch in range(4)]


def views(*epochs: int) -> Views:
    return Views.cat([EPOCHS[epoch] for epoch in epochs])


def parts(folder: Path, **options: object) -> LabelParts:
    return LabelParts(folder / "out.h5", json.dumps({"views": 4, "images": "a", "committee": "b"} | options))


def silent(sentence: str) -> None:
    raise AssertionError(sentence)


@pytest.fixture
def two(tmp_path: Path) -> LabelParts:
    kept = parts(tmp_path)
    kept.begin(False, False, silent)
    kept.save(range(2), views(0, 1))
    kept.save(range(2, 3), views(2))
    return kept


def test_nothing_is_written_before_the_first_part(tmp_path: Path) -> None:
    parts(tmp_path).begin(False, False, silent)
    assert parts(tmp_path).read(silent) == []
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_is_read_in_order(two: LabelParts, tmp_path: Path) -> None:
    again = parts(tmp_path)
    again.begin(True, False, silent)
    found = again.read(silent)
    assert [epochs for epochs, _ in found] == [range(2), range(2, 3)]
    assert equal(Views.cat([each for _, each in found]), views(0, 1, 2))
    again.clear()
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_part_is_labelled_anew(two: LabelParts, tmp_path: Path) -> None:
    file = next(two.path.glob("000000-*"))
    file.write_bytes(file.read_bytes()[:-3] + b"abc")
    sentences: list[str] = []
    assert [epochs for epochs, _ in two.read(sentences.append)] == [range(2, 3)]
    assert sentences == ["000000-000002.safetensors is damaged; its epochs are labelled anew"]
    assert sorted(path.name for path in two.path.iterdir()) == [
        "000002-000003.safetensors",
        "labelling.json",
    ]


def test_a_missing_part_loses_nothing_else(two: LabelParts) -> None:
    next(two.path.glob("000000-*")).unlink()
    ((epochs, kept),) = two.read(silent)
    assert epochs == range(2, 3)
    assert equal(kept, views(2))


def test_epochs_that_were_labelled_twice_are_read_once(two: LabelParts) -> None:
    two.save(range(1, 2), views(1))
    assert [epochs for epochs, _ in two.read(silent)] == [range(2), range(2, 3)]
    assert len(list(two.path.glob("*.safetensors"))) == 2


def test_parts_of_other_labels_are_refused(two: LabelParts, tmp_path: Path) -> None:
    for options, words in (
        ({"views": 5}, "cannot resume out.h5.parts with views = 5: it was started with 4"),
        ({"images": "c"}, "cannot resume out.h5.parts with another set of images; leave"),
        ({"committee": "c"}, "cannot resume out.h5.parts with other teachers; leave"),
    ):
        with pytest.raises(UserError, match=words):
            parts(tmp_path, **options).begin(True, False, silent)
    with pytest.raises(UserError, match="holds unfinished labels; pass --resume to go on, or --overwrite"):
        parts(tmp_path).begin(False, False, silent)
    parts(tmp_path, views=5).begin(True, True, silent)
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_slipped_in_is_not_read(two: LabelParts, tmp_path: Path) -> None:
    (two.path / "labelling.json").write_text(json.dumps({"views": 6}))
    sentences: list[str] = []
    other = LabelParts(tmp_path / "out.h5", json.dumps({"views": 6}))
    other.begin(True, False, silent)
    assert other.read(sentences.append) == []
    assert "damaged" in sentences[0]


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "out.h5.parts"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    for resume, overwrite in ((False, False), (True, False), (False, True)):
        with pytest.raises(UserError, match="is in the way of unfinished labels; move it"):
            parts(tmp_path).begin(resume, overwrite, silent)
    parts(tmp_path).clear()
    assert (folder / "thesis.txt").exists()


def test_options_that_cannot_be_read(two: LabelParts, tmp_path: Path) -> None:
    (two.path / "labelling.json").write_text("{")
    with pytest.raises(UserError, match="start anew with --overwrite"):
        parts(tmp_path).begin(True, False, silent)
    parts(tmp_path).begin(True, True, silent)
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_resume_is_told(tmp_path: Path) -> None:
    sentences: list[str] = []
    parts(tmp_path).begin(True, False, sentences.append)
    assert "to resume: starting anew" in sentences[0]
