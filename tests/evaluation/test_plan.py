"""The plan of an evaluation: its sets in order, and the rows that are reused."""

from __future__ import annotations

import dataclasses

import pytest

from dsdistill.evaluation.config import EvaluationConfig
from dsdistill.evaluation.plan import PlannedSet, plan_rows, plan_sets
from dsdistill.evaluation.rows import Row
from tests.helpers.evaluation import distilled, real_data, tiny

SETS = [PlannedSet("distilled", tiny(), 9, 36), PlannedSet("full", tiny(epochs=2), 90, 90)]


def row(planned: PlannedSet, network: str = "mlp") -> Row:
    name, protocol = planned.name, planned.protocol
    images, decoded = planned.images, planned.decoded
    return Row(name, network, protocol.name, protocol.epochs, 50.0, 0.0, [50.0], images, decoded, 1.0)


def test_sets_come_in_the_order_of_their_rows() -> None:
    config = EvaluationConfig(baselines=["whole", "random"], scores=True)
    sets = plan_sets(distilled(soft=True), real_data(), tiny(epochs=30), config)
    assert [(planned.name, planned.images, planned.protocol.epochs) for planned in sets] == [
        ("distilled", 9, 30),
        ("distilled-hard", 9, 30),
        ("full", 90, 10),
        ("random", 9, 30),
        ("distilled-plain", 9, 30),
        ("random-plain", 9, 30),
    ]
    assert [planned.protocol.augmentation for planned in sets[-2:]] == ["none"] * 2
    assert [planned.source for planned in sets[-2:]] == ["distilled", "random"]


def test_rows_of_an_earlier_evaluation_are_reused_by_network_and_set() -> None:
    earlier = [row(planned) for planned in SETS]
    plan = plan_rows(["convnet", "mlp"], SETS, earlier)
    assert [(planned.network, planned.set.name, planned.earlier) for planned in plan] == [
        ("convnet", "distilled", None),
        ("convnet", "full", None),
        ("mlp", "distilled", earlier[0]),
        ("mlp", "full", earlier[1]),
    ]


@pytest.mark.parametrize("change", [{"protocol": "idc"}, {"epochs": 7}, {"images": 8}, {"decoded": 9}])
def test_rows_of_other_protocols_epochs_or_sizes_are_not_reused(change: dict[str, str | int]) -> None:
    other = dataclasses.replace(row(SETS[0]), **change)  # type: ignore[arg-type]
    assert all(planned.earlier is None for planned in plan_rows(["mlp"], SETS, [other]))
