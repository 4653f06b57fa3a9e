"""Claims in a shared folder: one owner at a time, who loses what it does not renew."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dsdistill import UserError
from dsdistill.files import Claims


def age(folder: Path, seconds: float) -> None:
    """Make every claim look as if it was renewed so long ago."""
    for path in folder.iterdir():
        then = path.stat().st_mtime - seconds
        os.utime(path, (then, then))


def test_one_process_has_what_it_has_claimed_until_it_frees_it(tmp_path: Path) -> None:
    one, other = Claims(tmp_path / "c"), Claims(tmp_path / "c")
    assert one.take("digits/dm-ipc1", "a note")
    assert one.take("digits/dm-ipc1")  # it has it already
    assert not other.take("digits/dm-ipc1")
    assert other.take("digits/mmd-ipc1")
    assert [(name, note) for name, _, note in other.others()] == [("digits/dm-ipc1", "a note")]
    assert other.owner("digits/dm-ipc1").startswith(f"process {os.getpid()} on ")
    one.free("digits/dm-ipc1")
    assert other.owner("digits/dm-ipc1") == ""
    assert other.take("digits/dm-ipc1")


def test_what_is_not_renewed_is_taken_over_and_its_owner_learns_of_it(tmp_path: Path) -> None:
    dead, alive = Claims(tmp_path, expires=60.0), Claims(tmp_path, expires=60.0)
    assert dead.take("one")
    assert dead.take("two")
    age(tmp_path, 50.0)
    assert not alive.take("one")
    assert dead.renew() == []
    age(tmp_path, 50.0)
    assert not alive.take("one")  # it was renewed
    age(tmp_path, 20.0)
    assert alive.take("one")
    assert dead.renew() == ["one"]
    assert not dead.take("one")
    dead.free("one")  # which is not its own any more
    assert alive.owner("one")
    assert alive.renew() == []
    assert dead.owner("two")


def test_free_all_leaves_nothing(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    assert claims.take("a/b %.c")
    assert claims.take("d")
    claims.free_all()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_at_once_one_gets_it(tmp_path: Path, stale: bool) -> None:
    if stale:
        assert Claims(tmp_path).take("cell")
        age(tmp_path, 1e6)
    everyone = [Claims(tmp_path) for _ in range(16)]
    with ThreadPoolExecutor(16) as pool:
        got = list(pool.map(lambda claims: claims.take("cell"), everyone))
    assert sum(got) == 1
    assert [claims.renew() for claims, mine in zip(everyone, got, strict=True) if mine] == [[]]


def test_a_folder_that_cannot_be_written_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("a file")
    with pytest.raises(UserError, match="is a file, not a folder"):
        Claims(tmp_path / "c").take("cell")


def test_a_network_that_is_down_for_a_moment_costs_no_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = Claims(tmp_path)
    assert claims.take("cell")
    for broken in ("iterdir", "open"):
        with monkeypatch.context() as patch:

            def fail(*told: object, **options: object) -> None:
                raise OSError(116, "Stale file handle")

            patch.setattr(Path if broken == "iterdir" else os, broken, fail)
            assert claims.renew() == []
    assert claims.renew() == []
    assert Claims(tmp_path).owner("cell")
