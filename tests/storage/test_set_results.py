"""The evaluations in files of sets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import pytest

from dsdistill.errors import UserError
from dsdistill.storage import set_file, set_results
from tests.helpers.storage import make, same


def test_results_are_kept_in_order_and_leave_the_set_alone(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    set_file.write(path, make())
    assert set_results.results(path) == []
    with h5py.File(path) as file:
        before = file.attrs["sha256"]
    added = [{"protocol": f"p{i}", "mean": i / 7, "values": [0.1, i], "student": "μ"} for i in range(12)]
    for result in added:
        set_results.append_result(path, result)
    assert set_results.results(path) == added
    assert same(set_file.read(path), make())
    with h5py.File(path) as file:
        assert file.attrs["sha256"] == before


def test_results_added_at_once_are_all_kept(tmp_path: Path) -> None:
    set_file.write(tmp_path / "set.h5", make())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: set_results.append_result(tmp_path / "set.h5", {"n": i}), range(12)))
    assert sorted(result["n"] for result in set_results.results(tmp_path / "set.h5")) == list(range(12))


@pytest.mark.parametrize("damage", ["set", "results", "bytes"])
def test_a_result_is_added_only_to_what_reads_back_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    path = tmp_path / "set.h5"
    set_file.write(path, make())
    set_results.append_result(path, {"n": 1})
    before, add = path.read_bytes(), set_results.add_result

    def adding(file: h5py.File, number: int, text: str) -> None:
        add(file, number, text)
        if damage == "set":
            file["labels"][0] += 1
        elif damage == "results":
            del file["results/0"]
        else:
            file["results"].create_dataset("x", data=1)

    monkeypatch.setattr(set_results, "add_result", adding)
    with pytest.raises(UserError, match=r"set\.h5 stays as it is: with the result it"):
        set_results.append_result(path, {"n": 2})
    assert path.read_bytes() == before
    monkeypatch.undo()
    set_results.append_result(path, {"n": 2})
    assert set_results.results(path) == [{"n": 1}, {"n": 2}]
