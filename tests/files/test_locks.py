"""Locks between processes: the second one is refused, or waits and says so; a kill leaves no lock."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dsdistill.errors import UserError
from dsdistill.files import exclusive, hold, locks
from tests.helpers.processes import started

HOLDING = """
import sys
from dsdistill.files import hold
with hold(sys.argv[1], "a run"):
    print("started", flush=True)
    sys.stdin.read()
"""


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught, hold(path, "a run"):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    with started(HOLDING, tmp_path / "set.h5") as process:
        said = refusal(tmp_path / "set.h5")
        assert f"a run of {tmp_path / 'set.h5'} is running already" in said
        assert f"(process {process.pid} on {socket.gethostname()})" in said
        with hold(tmp_path / "other.h5", "a run"):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with hold(tmp_path / "set.h5", "a run"):
            assert f"(process {os.getpid()} on" in refusal(tmp_path / "set.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_link_and_its_target_are_one(tmp_path: Path) -> None:
    (tmp_path / "link.h5").symlink_to("set.h5")
    with hold(tmp_path / "link.h5", "a run"):
        refusal(tmp_path / "set.h5")


@pytest.mark.parametrize("name", ["x" * 240, "x" * 255, "ü" * 127])
def test_long_names_are_locked(tmp_path: Path, name: str) -> None:
    with hold(tmp_path / name, "a run"), exclusive(tmp_path / name):
        refusal(tmp_path / name)
        assert len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_lock_inside_a_folder_needs_nothing_beside_it(tmp_path: Path) -> None:
    with hold(tmp_path, "a suite", inside=True):
        assert [path.name for path in tmp_path.iterdir()] == [".running"]
        with pytest.raises(UserError, match="a suite of"), hold(tmp_path, "a suite", inside=True):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_outlives_its_parent_keeps_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "r"
    starter = f"""
import os, subprocess
from dsdistill.files import hold
with hold({str(path)!r}, "a suite") as lock:
    child = subprocess.Popen(["sleep", "60"], pass_fds=[lock], stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL)
    print(child.pid, flush=True)
    os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", starter], capture_output=True, text=True, check=True)
    child = int(done.stdout)
    try:
        assert "a command that process" in refusal(path)
        assert "left running" in refusal(path)
    finally:
        os.kill(child, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with hold(path, "a suite"):
                return
        except UserError:
            time.sleep(0.01)
    raise AssertionError("the lock outlived the command")


def test_where_no_lock_can_be_written_the_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist; make it first"), hold(tmp_path / "a" / "b", "a run"):
        pass


def test_a_file_system_without_locks_locks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(handle: int) -> bool:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks, "try_lock", cannot)
    with hold(tmp_path / "a", "a run") as one, hold(tmp_path / "a", "a run") as other:
        assert one < 0 > other


def test_a_disk_that_fails_at_the_end_takes_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = os.close

    def failing(handle: int) -> None:
        close(handle)
        raise OSError(5, "Input/output error")

    with hold(tmp_path / "a", "a run"):
        monkeypatch.setattr(os, "close", failing)
    monkeypatch.undo()
    with hold(tmp_path / "a", "a run"):
        pass


def test_changes_wait_for_one_another_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_NOTICE_AFTER", 0.05)
    told, order = list[str](), list[str]()
    begun, go_on = threading.Event(), threading.Event()

    def change() -> None:
        with exclusive(tmp_path / "set.h5"):
            begun.set()
            assert go_on.wait(10)
            order.append("first")

    def tell(sentence: str) -> None:
        told.append(sentence)
        go_on.set()

    thread = threading.Thread(target=change)
    thread.start()
    assert begun.wait(10)
    with exclusive(tmp_path / "set.h5", tell):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
    host = socket.gethostname()
    assert told == [f"waiting for process {os.getpid()} on {host}, which changes {tmp_path / 'set.h5'}"]
    assert list(tmp_path.iterdir()) == []


def test_a_change_that_does_not_end_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "WAIT", 0.05)
    with (
        exclusive(tmp_path / "a"),
        pytest.raises(UserError, match="is being changed by another process"),
        exclusive(tmp_path / "a"),
    ):
        pass


def test_threads_take_turns(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with exclusive(tmp_path / "a"):
                inside += 1
                most = max(most, inside)
                time.sleep(0)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (inside, most) == (0, 1)


def test_who_waits_goes_on_when_the_other_has_ended(tmp_path: Path) -> None:
    told: list[str] = []
    order: list[str] = []

    def second() -> None:
        with hold(tmp_path / "x.h5", "a training", wait=told.append):
            order.append("second")

    with hold(tmp_path / "x.h5", "a training"):
        thread = threading.Thread(target=second)
        thread.start()
        while not told:
            time.sleep(0.01)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert told[0].startswith(
        f"waiting for a training of {tmp_path / 'x.h5'} that is running already (process "
    )
