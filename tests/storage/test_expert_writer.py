"""Writing an expert file that fails, or that a disk changes."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import pytest
import torch

from dsdistill.errors import UserError
from dsdistill.files import writing
from dsdistill.storage import expert_writer
from dsdistill.storage.expert_file import Expert, ExpertFile
from tests.helpers.expert_files import metadata, refused, states, training, written
from tests.helpers.faults import ERRORS, Fault, failing

COMMON = metadata(epochs=(0, 2))
SNAPSHOTS = [[COMMON.layout.pack(state) for state in states(expert)[:2]] for expert in range(2)]


def write(path: Path, count: int = 2) -> None:
    """Write experts that are made already: quick enough to be repeated for every operation."""
    experts: list[Expert] = [(training(expert), iter(SNAPSHOTS[expert])) for expert in range(count)]
    expert_writer.write(path, COMMON, experts, count)


def test_a_failure_leaves_the_old_file_and_no_other(pool: Path) -> None:
    before = pool.read_bytes()

    def fails() -> Iterator[Any]:
        yield training(0), map(metadata().layout.pack, states(0))
        raise UserError("a part is damaged")

    with pytest.raises(UserError, match="a part is damaged"):
        expert_writer.write(pool, metadata(), fails(), 2)
    for experts in ([], [(training(0), [])]):
        with pytest.raises(ValueError):  # noqa: PT011 - a defect of the caller
            expert_writer.write(pool, metadata(), experts, 1)
    assert pool.read_bytes() == before
    assert list(pool.parent.iterdir()) == [pool]


def test_scores_that_are_written_otherwise_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = [torch.tensor([0.5, 1.0])] * 2
    stack = torch.stack
    monkeypatch.setattr("dsdistill.storage.expert_schema.torch.stack", lambda parts: stack(parts) / 2)
    experts: list[Expert] = [(training(expert), iter(SNAPSHOTS[expert])) for expert in range(2)]
    refused(
        lambda: expert_writer.write(tmp_path / "pool.h5", COMMON, experts, 2, scores), "reads back otherwise"
    )
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_found_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    refused(lambda: written(tmp_path / "pool.h5"), "GB are free")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "lasts", "every"),
    [
        ("EIO", False, 9),
        pytest.param("ENOSPC", False, 1, marks=pytest.mark.slow),
        pytest.param("EROFS", True, 1, marks=pytest.mark.slow),
    ],
)
def test_an_error_of_any_operation_leaves_the_old_file_or_the_right_one(
    tmp_path: Path, name: str, lasts: bool, every: int
) -> None:
    path = tmp_path / "pool.h5"
    write(path)
    right = path.read_bytes()
    write(path, count=1)
    old, outcomes = path.read_bytes(), set[tuple[bool, str]]()
    for at in itertools.count(1, every):
        path.write_bytes(old)
        fault = Fault(at, failing(ERRORS[name]), lasts)
        said = ""
        with pytest.MonkeyPatch.context() as patch:
            fault.install(patch)
            try:
                write(path)
            except UserError as error:
                said = str(error)
        if at > fault.count:
            break
        assert "\n" not in said
        content = {old: "old", right: "right"}[path.read_bytes()]  # KeyError: neither
        assert said or content == "right"
        outcomes.add((bool(said), content))
    assert at > 50
    assert (True, "old") in outcomes


def damage_weights(path: Path) -> None:
    with h5py.File(path, "r+", locking=False) as file:
        file["weights"][1, 1, 0] += 1  # and HDF5 makes its checksums right again


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def rename_class(path: Path) -> None:
    with h5py.File(path, "r+", locking=False) as file:
        file["classes"][1] = b"door"


def change_record(path: Path) -> None:
    with h5py.File(path, "r+", locking=False) as file:
        file["training/loss"][1] += 1e-9


@pytest.mark.parametrize("change", [damage_weights, cut, rename_class, change_record])
def test_a_disk_that_changes_what_is_written_is_found_out(
    pool: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    before, forget = pool.read_bytes(), writing._forget

    def change_and_forget(file: Any) -> None:  # after all is written, before it is read back
        change(Path(file.name))
        forget(file)

    monkeypatch.setattr(writing, "_forget", change_and_forget)
    refused(lambda: write(pool), "cannot write", "it reads back otherwise")
    assert pool.read_bytes() == before
    assert list(pool.parent.iterdir()) == [pool]


def test_what_was_written_is_there(tmp_path: Path) -> None:
    write(tmp_path / "pool.h5")
    file = ExpertFile.open(tmp_path / "pool.h5")
    for expert in range(2):
        for position, epoch in enumerate((0, 2)):
            for found, given in zip(file.snapshot(expert, epoch), SNAPSHOTS[expert][position], strict=True):
                assert torch.equal(found, given)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the limit is set in a child process")
@pytest.mark.slow
def test_a_disk_that_is_full_for_real_crashes_no_process(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "pool.h5"
    write(path)
    size = path.stat().st_size
    for limit in range(0, size, size // 12):
        if (child := os.fork()) == 0:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                write(path)
                os._exit(0)
            except UserError:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert path.stat().st_size == size
