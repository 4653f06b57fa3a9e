"""Classes of sources are matched by name, WordNet id or number."""

from __future__ import annotations

import doctest

import pytest

from dsdistill.data.constants import subset_wnids
from dsdistill.data.preprocess import Standardise
from dsdistill.data.real import Task
from dsdistill.errors import UserError
from dsdistill.importing import classes
from dsdistill.importing.classes import match


def task(*names: str, name: str = "pets") -> Task:
    return Task(name, names, 3, 8, Standardise.of((0.5,), (0.25,)), True)


def test_names_come_first() -> None:
    assert match(["b", "a"], task("a", "b")) == ([1, 0], "")
    assert match(["'=1", "b"], task("=1", "b"))[0] == [0, 1]
    assert match(["T-shirt_top", "BAG"], task("Bag", "T-shirt/top"))[0] == [1, 0]
    assert match(["1", "0"], task("1", "0")) == ([0, 1], "")  # names that are numbers


def test_numbers_of_any_width_and_stem() -> None:
    pets = task("cat", "dog", "owl")
    assert match(["00002", "00000"], pets) == ([2, 0], "classes were matched by number: '00002' is 'owl'")
    assert match(["new000", "new002"], pets)[0] == [0, 2]
    assert match(["class_0", "class_2"], pets)[0] == [0, 2]


def test_wordnet_ids_of_subsets_and_of_all_classes() -> None:
    wnids = subset_wnids("imagewoof")
    woof = task(*(f"dog {number}" for number in range(10)), name="imagewoof")
    assert match(sorted(wnids), woof)[0] == [wnids.index(wnid) for wnid in sorted(wnids)]
    tiny = task("goldfish", "shark", name="tiny-imagenet")
    labels, sentence = match(["n01484850", "n01443537"], tiny)
    assert labels == [1, 0]
    assert "'n01484850' is 'shark'" in sentence


@pytest.mark.parametrize(
    "names",
    [
        ["cat", "fish"],
        ["0", "3"],
        ["a0", "b1"],
        ["0", "00"],
        ["n01443537"],
        ["cat", "Cat"],
        ["1", "2"],  # may count from 1
        ["class1", "class2", "class3"],
        ["0", "7000000001"],
    ],
)
def test_what_cannot_be_matched_is_refused(names: list[str]) -> None:
    with pytest.raises(UserError, match=r"none of pets's; name classes as it does \('cat'"):
        match(names, task("cat", "dog", "owl"))


def test_names_that_differ_in_case_only_are_not_guessed() -> None:
    with pytest.raises(UserError, match="none of pets's"):
        match(["CAT"], task("cat", "Cat"))


def test_the_example_of_match() -> None:
    example = doctest.DocTestFinder().find(match, globs=vars(classes) | {"Standardise": Standardise})[0]
    assert not doctest.DocTestRunner(verbose=False).run(example).failed
