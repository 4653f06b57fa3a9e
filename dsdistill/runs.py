"""A run directory: resolved config, metrics log, checkpoints; and the watch over a loop that fills it.

``config.toml``               every option the run was told, resolved
``metrics.jsonl``             one line per logged iteration: iteration, terms, seconds
``checkpoint-<n>.safetensors`` the state after n iterations; the two latest are kept
``snapshot-<n>.h5``           the set after n iterations, where snapshots are asked for
"""

from __future__ import annotations

import hashlib
import json
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from dsdistill import files
from dsdistill.distiller import Distiller, Report
from dsdistill.errors import UserError
from dsdistill.runtime import Notify, peak_memory


class Interrupted(Exception):
    """A signal asked the run to stop; its state is saved.

    Attributes:
        signal: its number, so that a program can exit with 128 + signal as shells expect.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


class NonFiniteLoss(UserError):
    """The loss became infinite or NaN."""


class RunDirectory:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.toml"
        self.metrics_file = path / "metrics.jsonl"

    def create(self, config: str, overwrite: bool) -> None:
        """Start a run: make the directory and write its config.

        Raises:
            UserError: it holds an earlier run and may not be replaced, or cannot be written.
        """
        if self.config_file.exists() and not overwrite:
            raise UserError(
                f"{self.path} holds an earlier run; pass --resume to go on with it, or --overwrite"
            )
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file, not a run directory; choose another --run-dir")
        if self.path.exists() and not self.config_file.exists() and any(self.path.iterdir()):
            raise UserError(f"{self.path} is not a run directory and not empty; choose another --run-dir")
        files.check_folder(self.path)
        for old in (*self.checkpoints(), *self.snapshots()):  # and nothing else that may lie here
            old.unlink()
        self.path.mkdir(exist_ok=True)
        files.replace(self.config_file, config.encode())
        files.replace(self.metrics_file, b"")

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints, latest first."""
        return sorted(self.path.glob("checkpoint-*.safetensors"), reverse=True)

    def snapshot(self, iteration: int) -> Path:
        """Return where the set is kept as it was after so many iterations."""
        return self.path / f"snapshot-{iteration:09d}.h5"

    def snapshots(self) -> list[Path]:
        """Return the snapshots, earliest first."""
        return sorted(self.path.glob("snapshot-*.h5"))

    def save(self, state: dict[str, Tensor], facts: dict[str, str]) -> None:
        """Write a checkpoint, then drop all but it and the one before.

        Args:
            state: named tensors with an int64 scalar ``iteration``.
            facts: what else a resumed run must know, as text.
        """
        tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
        metadata = facts | {"sha256": _digest(tensors, facts)}
        path = self.path / f"checkpoint-{int(state['iteration']):09d}.safetensors"
        files.replace(path, save_tensors(tensors, metadata))
        for old in self.checkpoints()[2:]:
            old.unlink()

    def restore(self, notify: Notify) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """Read the latest whole checkpoint; None where there is none yet.

        Raises:
            UserError: there are checkpoints and all are damaged.
        """
        for path in self.checkpoints():
            try:
                with safe_open(path, "pt") as file:
                    facts = dict(file.metadata() or {})
                    state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
                if facts.pop("sha256", "") == _digest(state, facts):
                    return state, facts
            except (SafetensorError, OSError):
                pass
            notify(f"{path.name} is damaged; trying the one before it")
        if self.checkpoints():
            raise UserError(f"every checkpoint in {self.path} is damaged; start anew with --overwrite")
        return None

    def discarded(self) -> int:
        """Count the logged iterations that left everything as it was, before a resume and since."""
        if not self.metrics_file.exists():
            return 0
        return sum('"discarded": true' in line for line in self.metrics_file.read_text().splitlines())

    def trim(self, iteration: int) -> None:
        """Forget metrics and snapshots later than a checkpoint that is being resumed: they come again."""
        for path in self.snapshots():
            if path > self.snapshot(iteration):
                path.unlink()
        kept = []
        for line in self.metrics_file.read_text().splitlines() if self.metrics_file.exists() else []:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                break  # a line cut short by a kill; nothing after it was logged
            if entry["iteration"] <= iteration:
                kept.append(line + "\n")
        files.replace(self.metrics_file, "".join(kept).encode())


class Watch:
    """Takes a `Distiller` through its iterations: logs, checkpoints, stops on signals and non-finite losses.

    Attributes:
        seconds: spent in the loop, resumed parts included.
        peak_memory: bytes, the largest of all parts.
    """

    def __init__(
        self,
        distiller: Distiller,
        run: RunDirectory,
        every_seconds: float,
        every_iterations: int,
        read_every: int,
        facts: dict[str, str] | None = None,
        budget: float = 0.0,
    ) -> None:
        """Prepare.

        Args:
            distiller: the loop.
            run: where to write.
            every_seconds, every_iterations: checkpoint cadence; 0 iterations leaves it to the clock.
            read_every: iterations between reads of the losses; reading waits for the device.
            facts: what every checkpoint records besides; those of the checkpoint that is resumed.
            budget: seconds after which the loop ends, whatever its iterations; 0 leaves it to them.
        """
        self._distiller = distiller
        self._run = run
        self._every_seconds = every_seconds
        self._every_iterations = every_iterations
        self._read_every = read_every
        self._budget = budget
        self._unread: list[Report] = []
        self._facts = facts or {}
        self._earlier = float(self._facts.get("seconds", 0.0))
        self._started = time.monotonic()
        self.peak_memory = int(self._facts.get("peak_memory_bytes", 0))

    @property
    def seconds(self) -> float:
        """Seconds spent in the loop so far, resumed parts included."""
        return self._earlier + time.monotonic() - self._started

    @property
    def share(self) -> float:
        """How much of the run is done: 1 once its seconds, or else its iterations, are spent."""
        if self._budget:
            return self.seconds / self._budget
        return self._distiller.iteration / self._distiller.iterations

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each iteration's logged entry: ``iteration``, ``loss``, its terms, learned scalars
        (``student_lr``), ``seconds``; and ``discarded`` where it left everything as it was.

        Raises:
            NonFiniteLoss: naming the iteration, the value and the last good checkpoint.
            Interrupted: after a checkpoint, on SIGINT or SIGTERM.
        """
        saved_at = time.monotonic()
        with signals_noted() as received, self._run.metrics_file.open("a") as log:
            finished = self.share >= 1 and self._distiller.iteration > 0
            while not finished:
                report = self._distiller.step()
                self._unread.append(report)
                finished = self.share >= 1
                cadence = self._every_iterations
                due = bool(cadence and report.iteration % cadence == 0)
                due |= time.monotonic() - saved_at >= self._every_seconds
                stopping = bool(received)
                if due or finished or stopping or len(self._unread) >= self._read_every:
                    for entry in self._read():
                        log.write(json.dumps(entry) + "\n")
                        yield entry
                if due or finished or stopping:
                    log.flush()  # so that metrics reach as far as the checkpoint does
                    self._save()
                    saved_at = time.monotonic()
                if stopping and not finished:
                    raise Interrupted(received[0])

    def _read(self) -> Iterator[dict[str, Any]]:
        reports, self._unread = self._unread, []
        scalars = [report.terms | report.learned for report in reports]
        values = torch.stack([torch.stack(list(each.values())) for each in scalars]).tolist()  # waits once
        for report, names, numbers in zip(reports, scalars, values, strict=True):
            named = dict(zip(names, numbers, strict=True))
            if bad := [name for name, value in named.items() if not math.isfinite(value)]:
                kind = "loss term" if bad[0] in report.terms else "learned value"
                last = next((f"last good state: {path}" for path in self._run.checkpoints()), None)
                raise NonFiniteLoss(
                    f"iteration {report.iteration}: the {kind} {bad[0]!r} is {named[bad[0]]}; start anew "
                    "with a lower optimiser.lr and --overwrite "
                    f"({last or 'no checkpoint had been written yet'})"
                )
            yield {
                "iteration": report.iteration,
                "loss": sum(named[name] for name in report.terms),
                **named,
                **({"discarded": True} if report.discarded else {}),
                "seconds": round(self.seconds, 3),
            }

    def _save(self) -> None:
        here = peak_memory(self._distiller.synthetic.images.device)
        self.peak_memory = max(self.peak_memory, here)
        spent = {"seconds": repr(self.seconds), "peak_memory_bytes": str(self.peak_memory)}
        self._run.save(self._distiller.state_dict(), self._facts | spent)


@contextmanager
def signals_noted() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them; a second one of either kills as usual."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may take signals; others are stopped with their process
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, before[number] or signal.SIG_DFL)

    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _digest(tensors: dict[str, Tensor], facts: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
