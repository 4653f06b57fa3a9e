"""The run loop: a `Distiller` taken through its iterations, logged and checkpointed.

Where several processes share a run, they agree on everything that a clock or a signal decides.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import torch

from dsdistill.distillation.config import CheckpointConfig
from dsdistill.distillation.loop import Distiller, IterationReport
from dsdistill.errors import NonFiniteLoss, UserError
from dsdistill.runtime.checkpoints import RunDirectory
from dsdistill.runtime.device import peak_memory
from dsdistill.runtime.metrics import MetricsLog
from dsdistill.runtime.pace import PaceMeter
from dsdistill.runtime.signals import Interrupted, deferred_signals

_READ_SECONDS = 2.0
"""Seconds after which losses are read, however few iterations they are of."""


class RunLoop:
    """Takes a `Distiller` through its iterations: logs, checkpoints, stops on signals and non-finite losses.

    Attributes:
        run: the directory that is written.
        seconds: spent in the loop, resumed parts included.
        peak_memory: bytes, the largest of all parts.
        pace: of the iterations of this part.
    """

    def __init__(
        self,
        distiller: Distiller,
        run: RunDirectory,
        cadence: CheckpointConfig,
        read_every: int,
        metadata: dict[str, str] | None = None,
        budget: float = 0.0,
        tick: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Prepare.

        Args:
            distiller: the loop.
            run: where to write.
            cadence: of the checkpoints.
            read_every: iterations between reads of the losses; reading waits for the device.
            metadata: what every checkpoint records besides the state; that of the checkpoint that is resumed.
            budget: seconds after which the loop ends, whatever its iterations; 0 leaves it to them.
            tick: is told how many steps of networks are done, and all there are, that come before the first
                iteration.
        """
        self._distiller = distiller
        self._ranks = distiller.sources.ranks
        self.run = run
        self._cadence = cadence
        self._read_every = read_every
        self._budget = budget
        self._tick = tick
        self._unread: list[IterationReport] = []
        self._metadata = metadata or {}
        self._earlier = float(self._metadata.get("seconds", 0.0))
        self._started = self._timed = time.monotonic()
        self._ends = False
        self.pace = PaceMeter()
        self.peak_memory = int(self._metadata.get("peak_memory_bytes", 0))

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU computes."""
        return self._distiller.synthetic.images.device.type == "cuda"

    @property
    def seconds(self) -> float:
        """Seconds spent in the loop so far, resumed parts included."""
        return self._earlier + time.monotonic() - self._started

    @property
    def iteration(self) -> int:
        """Steps taken, of which the last entries may not have been read yet."""
        return self._distiller.iteration

    @property
    def share(self) -> float:
        """How much of the run is done: 1 once its seconds, or else its iterations, are spent."""
        if not self._distiller.iterations:
            return 1.0
        if self._budget:
            return self.seconds / self._budget
        return self._distiller.iteration / self._distiller.iterations

    def end(self) -> None:
        """End the loop early: after the iterations that are taken, which are saved."""
        self._ends = True

    def __iter__(self) -> Generator[dict[str, Any]]:
        """Yield each iteration's logged entry: ``iteration``, ``loss``, its terms, learned scalars
        (``student_lr``), ``seconds``; and ``discarded`` where it left everything as it was.

        Raises:
            NonFiniteLoss: naming the iteration, the value and the last good checkpoint.
            Interrupted: after a checkpoint, on a signal that asks to stop.
            UserError: the disk is full; the state is saved if that is possible.
        """
        with deferred_signals() as received, self.run.log() as log:
            self._begin(received)
            saved_at = time.monotonic()
            finished = self.share >= 1 and (self._distiller.iteration > 0 or not self._distiller.iterations)
            finished, ends = self._ranks.any(finished, self._ends)
            while not finished and not ends:
                if not self._unread:
                    self._timed = time.monotonic()
                self._expect()
                report = self._distiller.step()
                self._unread.append(report)
                every = self._cadence.iterations
                due = bool(every and report.iteration % every == 0)
                due |= time.monotonic() - saved_at >= self._cadence.seconds
                due, finished, stopping, reads = self._ranks.any(
                    due, self.share >= 1, bool(received), self._is_time_to_read()
                )
                if due or finished or stopping or reads:
                    for entry in self._read():
                        self._log(log, entry)
                        yield entry
                    (ends,) = self._ranks.any(self._ends)
                if due or finished or stopping or ends:
                    self._save()
                    saved_at = time.monotonic()
                if stopping:
                    raise _stop(received)

    def _begin(self, received: Sequence[Interrupted]) -> None:
        """Have networks trained that the first iteration needs, and save them now and then.

        Raises:
            Interrupted: on a signal, once the state is saved.
        """
        saved_at = time.monotonic()
        for done, total in self._distiller.begin():
            self._tick(done, total)
            due = time.monotonic() - saved_at >= self._cadence.seconds
            due, stopping = self._ranks.any(due, bool(received))
            if due or stopping:
                self._save()
                saved_at = time.monotonic()
            if stopping:
                raise _stop(received)

    def _expect(self) -> None:
        """Where seconds end the loop, have schedules end with them: at the iterations that the pace gives."""
        done, share = self._distiller.iteration, self.share
        if not self._budget or not done or not share:
            return
        expected = max(done + 1, round(done / share))
        if self._ranks.count > 1:
            expected = int(self._ranks.of_first(str(expected)))
        self._distiller.expect(expected)

    def _is_time_to_read(self) -> bool:
        """Whether to wait for the device: now and then, and at once while the pace is unknown."""
        late = time.monotonic() - self._timed >= _READ_SECONDS
        return late or self.pace.is_new or len(self._unread) >= self._read_every

    def _log(self, log: MetricsLog, entry: dict[str, Any]) -> None:
        """Log an entry; if that fails, save the state.

        Raises:
            UserError: it failed.
        """
        try:
            log.add(entry)
        except UserError as error:
            # Of several processes one alone is here, and their state is that of all. An earlier one stays.
            with contextlib.suppress(UserError):
                if self._ranks.count == 1:
                    self._save()
            raise UserError(f"{error}; --resume goes on from the last checkpoint") from error

    def _read(self) -> Iterator[dict[str, Any]]:
        reports, self._unread = self._unread, []
        scalars = [report.terms | report.learned for report in reports]
        values = torch.stack([torch.stack(list(each.values())) for each in scalars]).tolist()  # waits once
        if not self.pace.is_known:
            caching = sum(report.caching for report in reports)  # which comes to an end
            self.pace.add(len(reports), time.monotonic() - self._timed - caching)
        for report, names, numbers in zip(reports, scalars, values, strict=True):
            by_name = dict(zip(names, numbers, strict=True))
            if bad := [name for name, value in by_name.items() if not math.isfinite(value)]:
                kind = "loss term" if bad[0] in report.terms else "learned value"
                last = next((f"last good state: {path}" for path in self.run.checkpoints()), None)
                raise NonFiniteLoss(
                    f"iteration {report.iteration}: the {kind} {bad[0]!r} is {by_name[bad[0]]}; start anew "
                    "with a lower optimiser.lr and --overwrite "
                    f"({last or 'no checkpoint had been written yet'})"
                )
            yield {
                "iteration": report.iteration,
                "loss": sum(by_name[name] for name in report.terms),
                **by_name,
                **({"discarded": True} if report.discarded else {}),
                "seconds": round(self.seconds, 3),
            }

    def _save(self) -> None:
        here = peak_memory(self._distiller.synthetic.images.device)
        self.peak_memory = max(self.peak_memory, here)
        progress = {"seconds": repr(self.seconds), "peak_memory_bytes": str(self.peak_memory)}
        self.run.save(self._distiller.state_dict(), self._metadata | progress)


def _stop(received: Sequence[Interrupted]) -> Interrupted:
    """Return what stops the loop: the signal of this process, or that of another one."""
    return (received or [Interrupted(signal.SIGTERM)])[0]
