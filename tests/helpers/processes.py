"""Processes of their own: the command line, held until a test has sent what it sends, and ranks of a run."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch.distributed import TCPStore

from tests.conftest import THREADS

ROOT = Path(__file__).parents[2]

DISTIL = ["distill", "--dataset", "digits", "--ipc", "1", "--network", "convnet2-w8", "--iterations", "400"]
DISTIL += ["--set", THREADS]
TRAIN = ["experts", "--recipe", "mtt", "--dataset", "digits", "--network", "convnet2-w8", "--count", "1"]
TRAIN += ["--epochs", "50", "--set", THREADS]

# Loaded by every interpreter that finds it on its path: holds the process at ``HOLD_AT``, "module" while it
# is imported or "module:function" at the given call, and says so by a file.
_SITE = """
import importlib.abc, importlib.machinery, os, sys, time

module, _, path = os.environ.get("HOLD_AT", "").partition(":")
calls = 0

def hold(seconds):
    open(os.environ["HELD"], "w").close()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)

def held(function):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls >= int(os.environ["HOLD_CALL"]):
            hold(float(os.environ["HOLD_SECONDS"]))
        return function(*args, **kwargs)
    return call

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, where, target=None):
        if name != module:
            return None
        sys.meta_path.remove(self)
        if not path:
            hold(60)
        spec = importlib.machinery.PathFinder.find_spec(name, where)
        execute = spec.loader.exec_module
        def exec_module(loaded):
            execute(loaded)
            *owners, last = path.split(".")
            for owner in owners:
                loaded = getattr(loaded, owner)
            setattr(loaded, last, held(getattr(loaded, last)))
        spec.loader.exec_module = exec_module
        return spec

if module:
    sys.meta_path.insert(0, Finder())
"""


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    out: str
    err: str


class Process:
    """A running command."""

    def __init__(self, process: subprocess.Popen[str], held: Path) -> None:
        self._process, self._held = process, held

    def reach(self) -> None:
        """Wait until the process is at the place where it is held."""
        deadline = time.monotonic() + 120
        while not self._held.exists():
            assert self._process.poll() is None, self._process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def send(self, number: int, group: bool = False) -> None:
        """Send a signal, as a terminal does to the whole group or as ``kill`` does to the process."""
        (os.killpg if group else os.kill)(self._process.pid, number)

    def read_error(self, text: str) -> str:
        """Read stderr up to a line that contains a text."""
        assert self._process.stderr
        lines = ""
        while text not in lines:
            line = self._process.stderr.readline()
            assert line, lines
            lines += line
        return lines

    def close_error(self) -> None:
        """Read stderr no longer, as ``head`` does after its lines."""
        assert self._process.stderr
        self._process.stderr.close()
        self._process.stderr = None

    def end(self) -> Ended:
        """Wait for the end."""
        out, err = self._process.communicate(timeout=60)
        return Ended(self._process.returncode, out, err or "")


@contextmanager
def command(
    tmp_path: Path,
    words: list[str],
    at: str = "",
    call: int = 1,
    seconds: float = 60,
    ignored: tuple[int, ...] = (),
    **environment: str,
) -> Iterator[Process]:
    """Start a command in a process group of its own; whatever is left of it is killed at the end.

    Args:
        tmp_path: for the helper's files; also the process's working directory.
        words: after ``dsdistill``.
        at: where to hold it: ``module`` or ``module:function``.
        call: of the function, at which and after which to hold.
        seconds: that each of these calls is held.
        ignored: signals that the process ignores from the beginning, as under nohup.
        environment: variables.
    """
    site, held = tmp_path / "site", tmp_path / "held"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(_SITE)
    variables = os.environ | {
        "PYTHONPATH": f"{site}{os.pathsep}{ROOT}",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "HOLD_AT": at,
        "HOLD_CALL": str(call),
        "HOLD_SECONDS": str(seconds),
        "HELD": str(held),
        **environment,
    }

    def ignore() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    process = subprocess.Popen(
        [sys.executable, "-m", "dsdistill", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=variables,
        start_new_session=True,
        preexec_fn=ignore,
    )
    try:
        yield Process(process, held)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def run(tmp_path: Path, *words: str, redirected: str = "") -> Ended:
    """Run a command to its end, with redirections as a shell writes them."""
    variables = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    line = shlex.join([sys.executable, "-m", "dsdistill", *words])
    done = subprocess.run(
        ["sh", "-c", f"{line} {redirected}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=variables,
        timeout=120,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@contextmanager
def started(program: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a program, with a path as its argument, up to where it prints "started" and reads; it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout
        assert process.stdout.readline() == "started\n"
        yield process
        process.kill()


_RANK = """
import importlib, sys
import tests.conftest

module, name, *arguments = sys.argv[1:]
getattr(importlib.import_module(module), name)(*arguments)
"""


def together(count: int, work: Callable[..., None], *arguments: object, **environment: str) -> list[Ended]:
    """Run a function in several processes at once, which know of one another as those of torchrun do.

    Starting them takes seconds, so that one start should serve several checks. They compute with one thread
    each, on the CPU.

    Args:
        count: of processes.
        work: a function at the top of a module, which every process imports.
        arguments: of the function, passed as text.
        environment: further variables.

    Returns:
        how each process ended, in the order of their ranks.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # which torchrun keeps as well
    shared = os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    shared |= {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    shared |= {"TORCHELASTIC_USE_AGENT_STORE": "True", **environment}
    words = [sys.executable, "-c", _RANK, work.__module__, work.__name__, *map(str, arguments)]
    processes = [
        subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(count)
    ]
    try:
        with ThreadPoolExecutor(count) as pool:
            written = list(pool.map(lambda process: process.communicate(timeout=240), processes))
    finally:
        for process in processes:
            process.kill()
    codes = [process.returncode for process in processes]
    return [Ended(code, *texts) for code, texts in zip(codes, written, strict=True)]
