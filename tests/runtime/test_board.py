"""Where processes leave word for one another without waiting."""

from __future__ import annotations

import pytest
from torch.distributed import HashStore

from dsdistill.runtime import board
from dsdistill.runtime.board import Board, RankLost, SharedBoard, Tally
from dsdistill.runtime.ranks import ALONE


def boards() -> list[Board]:
    """Return boards of two ranks, and the same one of one process twice."""
    store = HashStore()
    return [SharedBoard(store), SharedBoard(store)]


@pytest.mark.parametrize("here_and_there", [boards(), [ALONE.board()] * 2], ids=["ranks", "alone"])
def test_word_on_a_board_reaches_the_others(
    here_and_there: list[Board], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "_PIECE", 3)
    here, there = here_and_there
    assert there.read("row") is None
    here.post("row", b"eight by")
    here.post("empty", b"")
    assert (there.read("row"), there.read("empty")) == (b"eight by", b"")
    assert (here.add("steps", 3), there.add("steps", 4), here.add("other", 1)) == (3, 7, 1)
    assert not there.is_stopped
    with pytest.raises(KeyError), here.stops_others():
        raise KeyError
    assert there.is_stopped


def test_a_tally_adds_up_what_ranks_have_done() -> None:
    first, second = map(Tally, boards())
    assert [first.total(2), second.total(5), first.total(4), second.total(5)] == [2, 7, 9, 9]


def test_a_board_whose_keeper_is_gone_says_so() -> None:
    class Gone(HashStore):
        def add(self, *_: object) -> int:
            raise RuntimeError("connection reset")

        def set(self, *_: object) -> None:
            raise RuntimeError("connection reset")

    board = SharedBoard(Gone())
    with pytest.raises(RankLost, match="another process of this run has ended"):
        board.add("steps", 1)
    with pytest.raises(KeyError), board.stops_others():  # what happened first is told
        raise KeyError
