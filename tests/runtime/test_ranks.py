"""What the processes of a run tell one another."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from dsdistill.errors import UserError
from dsdistill.runtime import launch, ranks
from dsdistill.runtime.board import RankLost
from dsdistill.runtime.callbacks import DryRun, Observer
from dsdistill.runtime.ranks import ALONE, Ranks
from tests.helpers.ranks import side_by_side


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("items", [0, 1, 3, 10, 11])
def test_parts_are_even_and_hold_every_item_once(count: int, items: int) -> None:
    parts = [range(items)[Ranks(index, count).part(items)] for index in range(count)]
    assert [item for part in parts for item in part] == list(range(items))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert len(parts[0]) == max(map(len, parts))


@pytest.mark.parametrize(
    ("costs", "owners"),
    [
        ([1, 1, 1, 1, 1], [0, 1, 0, 1, 0]),
        ([1, 1, 1, 4], [1, 1, 1, 0]),
        ([0, 3, 2, 2], [0, 0, 1, 1]),
        ([], []),
    ],
)
def test_the_dearest_item_is_dealt_first(costs: list[float], owners: list[int]) -> None:
    assert [Ranks(index, 2).deal(costs) for index in range(2)] == [owners] * 2


def test_texts_of_any_length_arrive_in_order() -> None:
    texts = ["", "ä" * 1000, "x"]
    assert side_by_side(3, lambda ranks: ranks.texts(texts[ranks.index])) == [texts] * 3
    assert side_by_side(3, lambda ranks: ranks.of_first(str(ranks.index))) == ["0"] * 3


def test_a_union_keeps_what_the_lowest_has() -> None:
    def shared(ranks: Ranks) -> dict[str, torch.Tensor]:
        return ranks.union({"both": torch.tensor(ranks.index), f"own {ranks.index}": torch.arange(3)})

    for merged in side_by_side(2, shared):
        assert merged.keys() == {"both", "own 0", "own 1"}
        assert merged["both"] == 0


def test_what_differs_is_named_in_every_process() -> None:
    def check(ranks: Ranks) -> str:
        with pytest.raises(UserError) as caught:
            ranks.check_same({"code": "a", "options": str(min(ranks.index, 1))})
        return str(caught.value)

    first, *others = side_by_side(3, check)
    assert first.startswith("process 1 has other options than process 0")
    assert others == [first, first]
    side_by_side(3, lambda ranks: ranks.check_same({"code": "a"}))


def test_the_first_goes_before_the_others() -> None:
    order: list[int] = []

    def enter(ranks: Ranks) -> None:
        with ranks.first_before_others():
            order.append(ranks.index)

    side_by_side(3, enter)
    assert order[0] == 0
    assert sorted(order) == [0, 1, 2]


def test_a_file_may_be_seen_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "set.h5"
    monkeypatch.setattr(ranks.time, "sleep", lambda _: file.touch())
    side_by_side(2, lambda each: each.check_shared(file))
    assert file.exists()


def test_processes_that_cannot_be_joined_are_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def fail(url: str, **_: object) -> None:
        tried.append(url)
        raise RuntimeError("no route to host")

    monkeypatch.setattr(ranks, "_failures", [])
    monkeypatch.setattr(ranks.launch, "is_several", lambda: True)
    monkeypatch.setattr(ranks.distributed, "rendezvous", fail)
    for _ in range(2):
        with pytest.raises(UserError, match="cannot reach one another: no route to host"):
            ranks.current()
    assert len(tried) == 1


@pytest.mark.parametrize(
    ("backends", "fits"), [("cuda:nccl", False), ("cpu:gloo,cuda:nccl", True), ("cpu:gloo,cuda:gloo", True)]
)
def test_a_script_that_has_joined_its_processes_agrees_on_the_cpu(
    backends: str, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"is_initialized": True, "get_world_size": 2, "get_rank": 1, "get_backend_config": backends}
    for name, value in told.items():
        monkeypatch.setattr(ranks.distributed, name, lambda value=value: value)
    with nullcontext() if fits else pytest.raises(UserError, match="cpu:gloo,cuda:nccl"):
        assert (ranks.current().index, ranks.current().count) == (1, 2)


def test_one_process_is_left_alone() -> None:
    tensor = torch.ones(2)
    ALONE.sum_(tensor)
    assert tensor.tolist() == [1, 1]
    assert ALONE.any(True, False) == (True, False)
    assert ALONE.texts("a") == ["a"]
    assert ALONE.speaks()
    ALONE.check_same({"code": "a"})


def test_a_failed_collective_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(ranks.distributed, "all_reduce", fail)
    with pytest.raises(RankLost, match="--resume goes on"):
        Ranks(0, 2).sum_(torch.ones(1))
    with pytest.raises(RankLost, match="--resume goes on"):
        Ranks(0, 2).wait()


@pytest.mark.parametrize(
    ("variables", "several", "first", "attempt"),
    [
        ({}, False, True, 0),
        ({"RANK": "0", "WORLD_SIZE": "1", "TORCHELASTIC_RESTART_COUNT": "2"}, False, True, 0),
        ({"RANK": "0", "WORLD_SIZE": "2"}, True, True, 0),
        ({"RANK": "1", "WORLD_SIZE": "2", "TORCHELASTIC_RESTART_COUNT": "2"}, True, False, 2),
        ({"WORLD_SIZE": "4"}, False, True, 0),  # of a scheduler that starts one process
    ],
)
def test_the_environment_of_torchrun(
    variables: dict[str, str], several: bool, first: bool, attempt: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (launch.is_several(), launch.is_first(), launch.attempt()) == (several, first, attempt)


def test_ranks_wait_for_long_work_of_others() -> None:
    assert timedelta(days=7) <= ranks._PATIENCE


def test_an_estimate_takes_one_process() -> None:
    assert Observer.of_rank([DryRun()], ALONE).writes_nothing
    assert not Observer.of_rank([], Ranks(0, 2)).writes_nothing
    assert Observer.of_rank([], Ranks(1, 2)).writes_nothing
    with pytest.raises(UserError, match="an estimate takes one process"):
        Observer.of_rank([DryRun()], Ranks(0, 2))
