"""What a run will take, and the call that finds it out without the run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ParamSpec

from dsdistill.errors import UserError
from dsdistill.runtime.callbacks import DryRun, DryRunEnd, Observer
from dsdistill.text import byte_size, clock

_Parameters = ParamSpec("_Parameters")

_CALLS = "dry_run takes dsdistill.distill, train_experts, label or evaluate"
_WORTH_SAYING = 1.0
"""Seconds of warming up below which nothing is said of them."""


@dataclass(frozen=True, kw_only=True)
class RunEstimate:
    """Seconds, memory and disk of a run, measured in its first steps.

    >>> estimate = dsdistill.dry_run(dsdistill.distill, "digits.h5", dataset="digits", ipc=1, iterations=500)
    >>> estimate.amount, estimate.work, estimate.seconds > 0, sorted(estimate.disk)
    (500, 'iterations', True, ['checkpoints', 'log', 'set'])
    """

    amount: int
    """How much is left to do."""
    work: str
    """The unit of it: iterations, epochs, views, images, or steps of a student."""
    seconds: float | None
    """That it takes at the pace measured, without compiling; None where nothing was timed, as the run needs
    more memory than is free."""
    share: float = 1.0
    """Of a step that was timed: less than 1 where a step is long, whose other parts are taken to last as
    long as those that were timed."""
    warm_up: float = 0.0
    """Seconds that the first steps took above that pace: compiling, mostly."""
    memory_bytes: int | None = None
    """That the run adds to the process, or takes on the GPU; None where it is not known."""
    cached_bytes: int = 0
    """Of these, what is computed of real images once and kept for later iterations."""
    process_bytes: int | None = None
    """That the process has as it is estimated, part of the run among it; None on a GPU."""
    disk: Mapping[str, int] = field(default_factory=dict)
    """Bytes on disk by what they are for, at most."""
    label_bytes: int = 0
    """Bytes of stored labels: of those that are written, or that students of the set's protocol replay."""
    later: Mapping[str, str] = field(default_factory=dict)
    """What comes after the run and its file will need, in words, by what it is."""
    covers: str = ""
    """What is estimated: experts, distillation, or evaluation."""
    before: RunEstimate | None = None
    """Of what comes first and is not among the other numbers: experts that a distillation lacks."""
    leaves_out: str = ""
    """What follows and is not estimated, with the reason; empty if nothing does."""

    @property
    def total_seconds(self) -> float | None:
        """Seconds of all that is estimated, what comes first and warming up included; None if not known."""
        before = self.before.total_seconds if self.before else 0.0
        return None if self.seconds is None or before is None else self.seconds + self.warm_up + before

    @property
    def disk_bytes(self) -> int:
        """Bytes on disk, at most."""
        return sum(self.disk.values())

    def to_dict(self) -> dict[str, Any]:
        """Return what is estimated as JSON takes it: every attribute, and the sums.

        >>> options = {"dataset": "digits", "ipc": 1, "iterations": 500}
        >>> estimate = dsdistill.dry_run(dsdistill.distill, "digits.h5", **options).to_dict()
        >>> estimate["amount"], estimate["before"], estimate["total_seconds"] >= estimate["seconds"]
        (500, None, True)
        """
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        before = self.before.to_dict() if self.before else None
        sums = {"total_seconds": self.total_seconds, "disk_bytes": self.disk_bytes}
        return own | {"disk": dict(self.disk), "later": dict(self.later), "before": before} | sums

    def rows(self) -> list[tuple[str, str]]:
        """Return what is estimated and how much, as displays show it."""
        left_out = [("not estimated", self.leaves_out)] if self.leaves_out else []
        if self.before is None:
            return self._own_rows() + left_out
        stages = [self]
        while stages[0].before is not None:
            stages.insert(0, stages[0].before)
        parts = [(f"{part.covers}: {name}", words) for part in stages for name, words in part._own_rows()]
        seconds = self.total_seconds
        return [*parts, *left_out, *([] if seconds is None else [("in all", clock(seconds))])]

    def _own_rows(self) -> list[tuple[str, str]]:
        rows = [("estimated time", self._time())]
        if self.memory_bytes is not None:
            rows.append(("memory", self._memory(self.memory_bytes)))
        if self.disk:
            parts = ", ".join(f"{name} {byte_size(count)}" for name, count in self.disk.items())
            rows.append(("disk", f"{byte_size(self.disk_bytes)} ({parts})"))
        return [*rows, *self.later.items()]

    def _time(self) -> str:
        if self.seconds is None:
            return "not known: the run needs more memory than is free"
        part = f", by {100 * self.share:.2g} % of one" if self.share < 1 else ""
        each = f" ({_seconds(self.seconds / self.amount)} each{part})" if self.amount else ""
        time = f"{clock(self.seconds)} for {self.amount:,} {self.work}{each}"
        if self.warm_up >= _WORTH_SAYING:
            time += f", besides {clock(self.warm_up)} of compiling and warming up"
        return time

    def _memory(self, own: int) -> str:
        cached = f", {byte_size(self.cached_bytes)} of it the cached real side" if self.cached_bytes else ""
        if self.process_bytes is None:
            return byte_size(own) + cached
        process = byte_size(self.process_bytes)
        return f"{byte_size(own)} for the run itself{cached} (the whole process has {process} now)"

    def __str__(self) -> str:
        """Return the estimate in one line."""
        return "; ".join(f"{name} {words}" for name, words in self.rows())


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def dry_run(
    call: Callable[_Parameters, Any], *args: _Parameters.args, **kwargs: _Parameters.kwargs
) -> RunEstimate:
    """Find out what a run takes: take a few of its steps, and write nothing.

    >>> estimate = dsdistill.dry_run(dsdistill.distill, "digits.h5", dataset="digits", ipc=1)
    >>> estimate.amount
    300

    Data are read as for the run, so they may be downloaded or cached. Options are checked as for the run.

    Args:
        call: `distill`, `train_experts`, `label` or `evaluate`.
        args, kwargs: as for the call.

    Returns:
        the estimate.

    Raises:
        UserError: as the call does; or it is none of these.
    """
    options: dict[str, Any] = dict(kwargs)
    options["callbacks"] = [*options.get("callbacks", ()), DryRun()]
    run: Callable[..., Any] = call
    if not _takes_callbacks(run):
        raise UserError(_CALLS)
    try:
        run(*args, **options)
    except DryRunEnd as end:
        estimate: RunEstimate = end.estimate
        return estimate
    raise UserError(_CALLS)


def refuse_dry_run(observer: Observer) -> None:
    """Keep a call that cannot be estimated from doing its work.

    Raises:
        UserError: it is a dry run.
    """
    if observer.dry:
        raise UserError(_CALLS)


def _takes_callbacks(call: Callable[..., Any]) -> bool:
    """Return whether a call can be told that its run is dry."""
    try:
        inspect.signature(call).bind_partial(callbacks=[])
    except (TypeError, ValueError):
        return False
    return True
