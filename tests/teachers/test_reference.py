"""How teachers are named."""

from __future__ import annotations

import pytest

from dsdistill.errors import UserError
from dsdistill.teachers.reference import TeacherReference, parse_references


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pool.h5", TeacherReference("pool.h5", 0, None)),
        ("pool.h5@15", TeacherReference("pool.h5", 0, 15)),
        ("pool.h5#2", TeacherReference("pool.h5", 2, None)),
        ("a/b@c/pool.h5#2@0", TeacherReference("a/b@c/pool.h5", 2, 0)),
        ("pool.h5#all@3", TeacherReference("pool.h5", None, 3)),
        ("torchvision:resnet18@DEFAULT", TeacherReference("torchvision:resnet18", 0, None, "DEFAULT")),
        ("timm:resnet18", TeacherReference("timm:resnet18", 0, None, "DEFAULT")),
        ("C:\\pool.h5@1", TeacherReference("C:\\pool.h5", 0, 1)),
    ],
)
def test_references(text: str, expected: TeacherReference) -> None:
    assert TeacherReference.parse(text) == expected


def test_several_are_a_committee() -> None:
    both = (TeacherReference("a.h5", 0, 1), TeacherReference("b.h5", None, None))
    assert parse_references("a.h5@1, b.h5#all,") == parse_references(["a.h5@1", "b.h5#all"]) == both
    assert parse_references(["a.h5@1,b.h5#all"]) == both  # as `evaluate --teacher` gives it
    assert both[0].at(7) == TeacherReference("a.h5", 0, 7)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("pool.h5@last", "'last' is not an epoch; write FILE#EXPERT@EPOCH"),
        ("pool.h5@", "'' is not an epoch"),
        ("pool.h5@all", "'all' is not an epoch|name one epoch"),
        ("pool.h5#first", "'first' is not an expert's number"),
        ("pool.h5#-1@2", "'-1' is not an expert's number"),
        ("torchvision:resnet18@", "names no weights after @"),
        ("", "no teacher given"),
        (" , ", "no teacher given"),
    ],
)
def test_what_is_no_reference(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        parse_references(text)


@pytest.mark.parametrize(
    "text", ["pool.h5#0", "pool.h5#2@15", "pool.h5#all@3", "torchvision:resnet18@DEFAULT"]
)
def test_a_reference_is_written_as_it_is_read(text: str) -> None:
    assert str(TeacherReference.parse(text)) == text
