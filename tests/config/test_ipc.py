"""Images per class: the forms of the option, and what does not fit the classes."""

from __future__ import annotations

from typing import Any

import pytest

from dsdistill.config.ipc import Ipc, as_words, counts_of, decided, mean_ipc, read_ipc, typical
from dsdistill.errors import UserError

PETS = ("cat", "dog", "a=b")


@pytest.mark.parametrize(
    ("option", "ipc"),
    [
        (10, 10),
        ("10", 10),
        (" 10 ", 10),
        ([10, 10, 5], (10, 10, 5)),
        ((10, 5), (10, 5)),
        ("10,10, 5", (10, 10, 5)),
        ({"cat": 10, "dog": 5}, {"cat": 10, "dog": 5}),
        ("cat=10, dog=5", {"cat": 10, "dog": 5}),
        ("a=b=3,cat=1", {"a=b": 3, "cat": 1}),
        ([7], (7,)),
    ],
)
def test_the_forms_of_the_option(option: Any, ipc: Ipc) -> None:
    assert read_ipc(option) == ipc


@pytest.mark.parametrize(
    "option",
    [
        "many",
        "",
        "10,",
        "1.5",
        "10,x",
        "cat=",
        "cat=x",
        "cat=1,2",
        True,
        1.5,
        [],
        {},
        [[1]],
        {"cat": {"a": 1}},
    ],
)
def test_other_forms_are_refused(option: Any) -> None:
    with pytest.raises(
        UserError, match="it takes a whole number, the images per class, or one for"
    ) as caught:
        read_ipc(option)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", [0, -1, "0", "-3", [3, 0], "3,-1", {"cat": 0}, "cat=3,dog=0"])
def test_a_class_has_at_least_one_image(option: Any) -> None:
    with pytest.raises(UserError, match="IPC must be at least 1, not"):
        read_ipc(option)


@pytest.mark.parametrize(
    ("ipc", "counts"),
    [
        (3, 3),
        ((3, 3, 3), 3),
        ((3, 1, 2), (3, 1, 2)),
        ({"dog": 1, "cat": 3, "a=b": 2}, (3, 1, 2)),
        ({"dog": 4, "cat": 4, "a=b": 4}, 4),
    ],
)
def test_equal_numbers_are_one_number(ipc: Ipc, counts: int | tuple[int, ...]) -> None:
    assert decided(ipc, PETS) == counts
    assert decided(decided(ipc, PETS), PETS) == counts


@pytest.mark.parametrize(
    ("ipc", "message"),
    [
        ((3, 1), "--ipc has 2 numbers, and there are 3 classes; give one for each, or one for all"),
        ((3,) * 4, "--ipc has 4 numbers, and there are 3 classes"),
        ({"cat": 1, "dog": 1}, "no number of images for class 'a=b'; name every class"),
        ({"cat": 1, "dgo": 1, "a=b": 1}, "unknown class in --ipc 'dgo'; did you mean 'dog'"),
    ],
)
def test_numbers_that_do_not_fit_the_classes(ipc: Ipc, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        decided(ipc, PETS)
    assert "\n" not in str(caught.value)


def test_settings_go_by_the_rounded_mean() -> None:
    assert [mean_ipc(counts) for counts in ([1], [1, 2], [1, 1, 2], [9, 10], [0, 0, 1])] == [1, 2, 1, 10, 1]
    assert [typical(ipc) for ipc in (7, (10, 10, 5), {"cat": 1, "dog": 2})] == [7, 8, 2]
    assert [as_words(ipc) for ipc in (7, (10, 10, 5), {"cat": 1, "dog": 2}, (3, 3))] == [
        "7",
        "5 to 10",
        "1 to 2",
        "3",
    ]
    assert (counts_of(2, 3), counts_of((1, 2), 2)) == ((2, 2, 2), (1, 2))


def test_a_class_is_named_once() -> None:
    with pytest.raises(UserError, match="names a class twice"):
        read_ipc("cat=1,cat=2")
