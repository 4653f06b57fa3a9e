"""evaluate_set: which rows it returns, and what its students do and do not depend on."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from typing import Any

import pytest
import torch
from torch import Tensor

from dsdistill.data.real import Task
from dsdistill.errors import UserError
from dsdistill.evaluation.batches import TrainingSet
from dsdistill.evaluation.ensembles import Ensemble
from dsdistill.evaluation.rows import Row
from dsdistill.evaluation.students import fit
from dsdistill.runtime.callbacks import Observer
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.synthetic.multi_formation import MultiFormation
from tests.helpers.callbacks import Told
from tests.helpers.evaluation import (
    NETWORK,
    PREPROCESS,
    SIZE,
    distilled,
    evaluated,
    real,
    real_data,
    task,
    tiny,
)

METHODS = ["random", "herding", "k-center", "k-means", "el2n", "el2n-easy"]


class Ticks(list[tuple[str, int, int]]):
    """Every call of the progress callback."""

    @property
    def observer(self) -> Observer:
        return Observer([Told(progress=lambda what, done, total: self.append((what, done, total)))])

    def check(self) -> None:
        """Steps go up to a total that stays."""
        steps = [done for _, done, _ in self]
        assert steps == sorted(steps)
        assert {total for _, _, total in self} == {steps[-1]}


def decoded() -> DistilledDataset:
    """Return a set of nine images that are decoded into 36."""
    data, formation = real(3, seed=5), MultiFormation(factor=2)
    images = data.unit(slice(None))
    return DistilledDataset(
        DistilledSet(images, data.labels, data.classes, PREPROCESS, multi_formation=formation)
    )


# Rows -------------------------------------------------------------------------------------------------------


def test_rows_come_by_network_and_set() -> None:
    ticks = Ticks()
    rows = evaluated(tiny(repeats=3), [NETWORK, "mlp", NETWORK], observer=ticks.observer)
    assert [(row.network, row.set) for row in rows] == [
        (NETWORK, "distilled"),
        (NETWORK, "random"),
        ("mlp", "distilled"),
        ("mlp", "random"),
    ]
    for row in rows:
        assert (row.protocol, row.images, row.decoded, len(row.values)) == ("dm", 9, 9, 3)
        assert row.mean == pytest.approx(sum(row.values) / 3)
        assert row.std == pytest.approx(statistics.stdev(row.values))
        assert 0 <= min(row.values) <= max(row.values) <= 100
    ticks.check()
    assert ticks[-1][1] == 4 * 3 * 5 * 3


@pytest.mark.slow
def test_a_multi_formation_trains_on_decoded_images_and_its_baseline_on_as_many_as_are_stored() -> None:
    ticks, networks = Ticks(), [NETWORK, "mlp"]
    rows = evaluated(tiny(), networks, decoded(), baselines=None, observer=ticks.observer)
    assert [(row.set, row.images, row.decoded, row.epochs) for row in rows] == [
        ("distilled", 9, 36, 4),
        ("random", 9, 9, 4),
        ("random@steps", 9, 9, 14),
    ] * 2
    ticks.check()
    # batches of four, two students: five epochs of 9 decoded ones and of 3 real ones, 15 of 3; two networks
    assert ticks[-1][1] == 2 * (5 * 9 + 5 * 3 + 15 * 3) * 2
    assert rows[2].values != rows[1].values


def test_a_notice_says_that_decoded_images_are_more_steps() -> None:
    def told(*names: str, batch_size: int = 4) -> list[str]:
        notices: list[str] = []
        used, observer = tiny(repeats=1, batch_size=batch_size), Observer([Told(notify=notices.append)])
        evaluated(used, dataset=decoded(), baselines=names, observer=observer)
        return notices

    (sentence,) = told("random")
    assert sentence == (
        "students of the set take 3 times the steps of as many real images, because its 9 images are decoded "
        "into 36: the baseline random@steps takes as many steps"
    )
    assert told("random", "random@steps") == told() == []
    assert told("random", batch_size=64) == []  # an epoch is one step in either case


@pytest.mark.slow
@pytest.mark.usefixtures("brief_choice")
def test_every_baseline_has_its_size() -> None:
    ticks = Ticks()
    names = [*METHODS, *(f"{name}@bytes" for name in METHODS), "full"]
    protocol = tiny(epochs=1, repeats=1, student=NETWORK)
    rows = evaluated(protocol, baselines=names, real_images={"bytes": 16}, observer=ticks.observer)
    expected = {name: 16 if "@" in name else 90 if name == "full" else 9 for name in names}
    assert {row.set: row.images for row in rows} == {"distilled": 9} | expected
    assert [row.set for row in rows] == ["distilled", *names]
    assert ticks[0][0] == "choosing real images"
    ticks.check()


def test_the_cost_of_the_full_training_set_is_announced() -> None:
    notices: list[str] = []
    protocol, observer = tiny(epochs=12, repeats=1, batch_size=16), Observer([Told(notify=notices.append)])
    rows = evaluated(protocol, data=real_data(20), baselines=["full"], observer=observer)
    assert [(row.set, row.images, row.epochs) for row in rows] == [("distilled", 9, 12), ("full", 60, 10)]
    assert notices == [
        "full: 10 epochs of all 60 images, by 1 student, are 660 image passes, "
        "5.64 times those on the distilled set"
    ]


def test_hard_labels_are_evaluated_for_scores_where_a_set_has_soft_ones() -> None:
    def sets(soft: bool, scores: bool) -> list[Row]:
        protocol = tiny(epochs=4, repeats=1, augmentation="none")
        return evaluated(protocol, dataset=distilled(soft=soft), data=real_data(9), scores=scores)

    assert [row.set for row in sets(soft=True, scores=False)] == ["distilled", "random"]
    assert [row.set for row in sets(soft=False, scores=True)] == ["distilled", "random"]
    own, hard, _ = sets(soft=True, scores=True)
    assert (own.set, hard.set, hard.images, hard.decoded) == ("distilled", "distilled-hard", 9, 9)
    assert hard.values == sets(soft=False, scores=False)[0].values != own.values


@pytest.mark.slow
def test_students_without_augmentation_are_evaluated_for_scores_where_a_protocol_augments() -> None:
    def sets(**options: Any) -> list[Row]:
        return evaluated(tiny(epochs=4, repeats=1, **options), data=real_data(9), scores=True)

    augmented = sets(augmentation="scale_rotate", cutmix=0.5)
    assert [row.set for row in augmented] == ["distilled", "random", "distilled-plain", "random-plain"]
    unaugmented = sets(augmentation="none", cutmix=0.0)
    assert [row.set for row in unaugmented] == ["distilled", "random"]  # both would be the same
    assert [row.values for row in augmented[2:]] == [row.values for row in unaugmented]
    assert [row.values for row in augmented[:2]] != [row.values for row in unaugmented]
    assert [(row.images, row.decoded) for row in augmented] == [(9, 9)] * 4


# Students ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_students_are_the_same_whatever_other_networks_are_evaluated() -> None:
    protocol = tiny(augmentation="none", epochs=8)

    def values(networks: list[str], seed: int = 0) -> list[float]:
        rows = evaluated(protocol, networks, seed=seed)
        return [value for row in rows if row.network == NETWORK for value in row.values]

    alone = values([NETWORK])
    assert alone == values(["mlp", NETWORK])
    assert alone != values([NETWORK], seed=1)


@pytest.mark.slow
@pytest.mark.usefixtures("brief_choice")
def test_students_are_the_same_whatever_other_baselines_are_evaluated() -> None:
    protocol = tiny(augmentation="none", epochs=4, student=NETWORK)

    def values(names: list[str]) -> list[float]:
        return next(row.values for row in evaluated(protocol, baselines=names) if row.set == "k-center")

    assert values(["k-center"]) == values(["full", "herding", "k-center"])


@pytest.mark.parametrize("stack", [False, True])
def test_repeats_differ_in_weights_and_random_images_and_sets_in_images_alone(
    monkeypatch: pytest.MonkeyPatch, stack: bool
) -> None:
    order, weights, images = list[int](), list[Tensor](), list[Tensor]()

    def recording(ensemble: Ensemble, sets: list[TrainingSet], repeats: list[int], *rest: Any) -> None:
        for place, repeat in enumerate(repeats):
            own = [each[place] if stack else each for each in ensemble.parameters]
            order.append(repeat)
            weights.append(torch.cat([each.detach().flatten() for each in own]))
            images.append(sets[place].images)
        fit(ensemble, sets, repeats, *rest)

    monkeypatch.setattr("dsdistill.evaluation.students.fit", recording)
    evaluated(tiny(repeats=3, epochs=1), stack=stack)
    assert order == [0, 1, 2] * 2  # on distilled images, then on random ones
    assert all(torch.equal(weights[repeat], weights[3 + repeat]) for repeat in range(3))
    for one, other in itertools.combinations(range(3), 2):
        assert not torch.equal(weights[one], weights[other])
        assert torch.equal(images[one], images[other])
        assert not torch.equal(images[3 + one], images[3 + other])


def test_networks_that_cannot_be_stacked_are_an_error() -> None:
    with pytest.raises(UserError, match="cannot be stacked"):
        evaluated(tiny(), ["convnet2-w8-batch"], data=real_data(9, 9), stack=True)


@pytest.mark.slow
def test_images_are_not_mirrored_where_that_changes_the_label() -> None:
    def values(augmentation: str, mirror: bool) -> dict[str, list[float]]:
        rows = evaluated(
            tiny(augmentation=augmentation, epochs=8), data=real_data(mirror=mirror), scores=True
        )
        return {row.set: row.values for row in rows}

    never, plain, ever = values("flip", False), values("none", False), values("flip", True)
    assert never == plain
    assert ever.keys() - plain.keys() == {"distilled-plain", "random-plain"}
    assert ever["distilled"] != ever["distilled-plain"] == plain["distilled"]


def test_students_learn() -> None:
    (row,) = evaluated(tiny(epochs=30, augmentation="none"), data=real_data(3), baselines=())
    assert row.mean > 80
    (alone,) = evaluated(tiny(repeats=1), ["mlp"], data=real_data(3), baselines=())
    assert alone.std == 0


@pytest.mark.slow
def test_soft_labels_train_the_student() -> None:
    protocol = tiny(epochs=10, augmentation="none")
    soft, hard = (
        evaluated(protocol, dataset=distilled(soft=soft), data=real_data(9), baselines=())[0]
        for soft in (True, False)
    )
    assert soft.mean > 50
    assert soft.values != hard.values


# Errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "options", "message"),
    [
        (Task("two", ("a", "b"), 1, SIZE, PREPROCESS, True), {}, "3 classes but two has 2"),
        (Task("abc", ("flat", "b", "c"), 1, SIZE, PREPROCESS, True), {}, "class 1 is 'rows'"),
        (task(size=16), {}, "1×8×8 but stripes is loaded at 1×16×16"),
        (task(), {"networks": ["resnet8"]}, "unknown network 'resnet8'"),
        (task(), {"baselines": ["randon"]}, "did you mean 'random'"),
        (task(), {"baselines": ["whole@bytes"]}, "'full' takes no number of bytes"),
        (task(), {"baselines": ["random@bytes"]}, "'random@bytes' needs the bytes of a set's file"),
    ],
)
def test_misfits_are_one_sentence(other: Task, options: dict[str, list[str]], message: str) -> None:
    data = dataclasses.replace(real_data(9, 9), task=other)
    with pytest.raises(UserError, match=message) as caught:
        evaluated(tiny(), data=data, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["random", "herding"])
def test_of_a_class_with_fewer_images_than_the_set_baselines_take_all(name: str) -> None:
    notices: list[str] = []
    observer = Observer([Told(notify=notices.append)])
    own, baseline = evaluated(
        tiny(epochs=1), ["mlp"], data=real_data(2, 9), baselines=[name], observer=observer
    )
    assert (own.images, baseline.images) == (9, 6)
    assert notices == ["baselines take all 2 training images of class 'flat': the set stores 3"]


def test_cells_that_do_not_divide_the_images_are_refused_before_any_training() -> None:
    ticks = Ticks()
    three = tiny(cells=3, labels={"source": "hard"})
    with pytest.raises(UserError, match="grids of 3×3 cells, which do not divide 8×8 pixels"):
        evaluated(three, observer=ticks.observer)
    assert not ticks
    assert len(evaluated(dataclasses.replace(three, cells=4, epochs=1))) == 2


@pytest.mark.parametrize(("cells", "baselines", "said"), [(2, None, 1), (2, (), 0), (1, None, 0)])
def test_a_notice_says_that_cells_cut_baselines_up(
    cells: int, baselines: tuple[str, ...] | None, said: int
) -> None:
    notices: list[str] = []
    observer = Observer([Told(notify=notices.append)])
    protocol = tiny(cells=cells, labels={"source": "hard"}, epochs=1)
    evaluated(protocol, baselines=baselines, observer=observer)
    assert sum("one cell of an image at a time" in notice for notice in notices) == said
