"""Callbacks: what a run tells those who listen, and how they stop it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

from dsdistill.errors import UserError
from dsdistill.runtime.notice import warn

if TYPE_CHECKING:
    from dsdistill.runtime.ranks import Ranks

_log = logging.getLogger("dsdistill")
_log.addHandler(logging.NullHandler())  # a library prints nothing unasked


class StopRun(Exception):
    """Raised in a callback, this ends the run early and in good order.

    A distillation saves its state and writes its file, which says how many iterations were taken. Training of
    experts writes those that are finished; an evaluation reports the rows that are. ``resume=True`` goes on
    from there.

    >>> def enough(entry):
    ...     if entry["loss"] < 1e6:
    ...         raise dsdistill.StopRun("the loss is small enough")
    >>> options = {"dataset": "digits", "ipc": 1, "iterations": 50, "callbacks": [enough]}
    >>> dsdistill.distill("digits.h5", **options).iterations
    1
    """


class Unwritten(Exception):
    """Raised in a callback, this becomes a notice, and the run goes on.

    It is for what the run can do without, such as a server that does not answer.
    """


class Callback:
    """Listens to `distill`, `train_experts`, `label` or `evaluate`; each method does nothing by default.

    >>> class Losses(dsdistill.Callback):
    ...     def on_start(self, start):
    ...         self.losses = []
    ...     def on_iteration(self, entry, set):
    ...         self.losses.append(entry["loss"])
    >>> seen = Losses()
    >>> options = {"dataset": "digits", "ipc": 1, "iterations": 3, "callbacks": [seen]}
    >>> summary = dsdistill.distill("digits.h5", **options)
    >>> len(seen.losses)
    3

    A method may raise `StopRun`. Any other exception ends the run too, once its state is saved, and reaches
    the caller. The time that a method takes is part of the run's seconds.
    """

    def on_notice(self, sentence: str) -> None:
        """Receive a sentence worth reading; the logger ``dsdistill`` has it as a warning.

        Where no callback has this method and the logger no handler, it is a `Notice`, by Python's `warnings`.
        """

    def on_info(self, sentence: str) -> None:
        """Receive a detail: what was decided by ``auto``, the estimate; the logger has it as information."""

    def on_read(self, what: str, done: int, total: int) -> None:
        """See how many picture files are read: before the first one, and after every batch."""

    def on_start(self, start: Any) -> None:
        """See what is known before the first step.

        Args:
            start: a `RunStart`, a `TrainingStart`, a `LabellingStart` or an `EvaluationStart`.
        """

    def on_estimate(self, estimate: Any) -> None:
        """Receive the `RunEstimate`: once, as soon as a few steps are timed. Runs of few steps have none."""

    def on_iteration(self, entry: dict[str, Any], set: Callable[[], Any]) -> None:
        """See an iteration of a distillation.

        Args:
            entry: ``iteration``, ``loss``, its terms, learned scalars (``student_lr``), ``seconds``; and
                ``discarded`` where the iteration changed nothing.
            set: call it for the `DistilledSet` as it is now; not called, it costs nothing. On a GPU it may be
                some iterations ahead of the entry; its attribute ``iterations`` says where it is.
        """

    def on_epoch(self, entry: dict[str, Any]) -> None:
        """See an epoch of an expert, once it is saved.

        Args:
            entry: ``expert``, ``epoch``, ``loss`` (mean over augmented images), ``seconds`` of this expert,
                and ``done``, the finished epochs of all experts.
        """

    def on_progress(self, what: str, done: int, total: int) -> None:
        """See how far an evaluation is: steps of all students, after every epoch; or a labelling: images."""

    def on_row(self, row: Any) -> None:
        """See a finished row of an evaluation: a `Row`, once it is saved."""

    def on_end(self, result: Any) -> None:
        """See the result that the call returns: a `Summary`, an `ExpertFile`, a `LabelSummary` or a
        `Report`."""

    def on_close(self) -> None:
        """Release what was opened. It comes last, whether or not the run succeeded."""


Listener = Callback | Callable[[Any], object]
"""A callback, or a function that is called with every entry: of an iteration, an epoch, or a row."""


class _Function(Callback):
    """A function as a callback."""

    def __init__(self, function: Callable[[Any], object]) -> None:
        self._function = function

    def on_iteration(self, entry: dict[str, Any], set: Callable[[], Any]) -> None:
        self._function(entry)

    def on_epoch(self, entry: dict[str, Any]) -> None:
        self._function(entry)

    def on_row(self, row: Any) -> None:
        self._function(row)


class Observer(Callback):
    """Passes what happens on to the callbacks of a call, in their order. As a context it closes them.

    Attributes:
        stop: what a callback raised to stop the run, if one did.
        dry: whether the run is only to be estimated (`dry_run`), so that nothing may be written.
        silent: whether another process of the run speaks: nothing is passed on.
    """

    def __init__(self, callbacks: Sequence[Listener] = (), silent: bool = False) -> None:
        """Take the callbacks.

        Args:
            callbacks: in the order in which they hear of what happens.
            silent: as the attribute.

        Raises:
            UserError: one of them is none.
        """
        self.stop: StopRun | None = None
        self.silent = silent
        self._callbacks = [_as_callback(each) for each in _as_list(callbacks)]
        self.dry = any(isinstance(each, DryRun) for each in self._callbacks)

    @classmethod
    def of_rank(cls, callbacks: Sequence[Listener], ranks: Ranks) -> Observer:
        """Return the observer of one of the processes that share a run: that of the first alone tells.

        Raises:
            UserError: a callback is none; or several processes are to estimate a run.
        """
        observer = cls(callbacks, silent=not ranks.is_first)
        if observer.dry and ranks.count > 1:
            raise UserError("an estimate takes one process: leave torchrun out, or --dry-run")
        return observer

    @property
    def writes_nothing(self) -> bool:
        """Whether this process writes no file: of an estimate, or of a run that another process writes."""
        return self.dry or self.silent

    def add_first(self, callback: Callback) -> None:
        """Add a callback that comes before the others."""
        self._callbacks.insert(0, callback)

    def of_stage(self) -> Observer:
        """Return an observer of a stage that comes before the run itself.

        Functions do not hear of it, because they expect entries of the run. Who stops it stops the stage.
        """
        heard = [each for each in self._callbacks if not isinstance(each, _Function)]
        stage = Observer(heard, self.silent)
        stage.dry = self.dry
        return stage

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Close every callback, whatever becomes of the others.

        Raises:
            Exception: the first that a callback raised, unless the run fails of something else. Other
                failures go to the logger.
        """
        failures = [failure for callback in self._callbacks if (failure := self._close(callback))]
        for failure in failures[error is None :]:
            _log.error("a callback could not be closed: %s", failure, exc_info=failure)
        if failures and error is None:
            raise failures[0]

    def _close(self, callback: Callback) -> Exception | None:
        """Close a callback, and return what it raised."""
        try:
            callback.on_close()
        except StopRun:  # nothing is left to stop
            return None
        except Unwritten as unwritten:
            self.on_notice(str(unwritten))
        except Exception as failure:
            return failure
        return None

    def on_notice(self, sentence: str) -> None:
        """Pass a sentence on; one that nobody listens for is a warning of Python."""
        if self.silent:
            return
        if not _logged() and not any(map(_listens, self._callbacks)):
            warn(sentence)
        _log.warning("%s", sentence)
        self._tell("on_notice", sentence)

    def on_info(self, sentence: str) -> None:
        self._note(sentence)
        self._tell("on_info", sentence)

    def on_read(self, what: str, done: int, total: int) -> None:
        self._tell("on_read", what, done, total)

    def on_start(self, start: Any) -> None:
        for sentence in start.describe():
            self._note(sentence)
        self._tell("on_start", start)

    def on_estimate(self, estimate: Any) -> None:
        """Pass the estimate on.

        Raises:
            DryRunEnd: of a dry run, that is all.
        """
        self._note(estimate)
        if self.dry:
            raise DryRunEnd(estimate)
        self._tell("on_estimate", estimate)

    def on_iteration(self, entry: dict[str, Any], set: Callable[[], Any]) -> None:
        self._tell("on_iteration", entry, set)

    def on_epoch(self, entry: dict[str, Any]) -> None:
        self._tell("on_epoch", entry)

    def on_progress(self, what: str, done: int, total: int) -> None:
        self._tell("on_progress", what, done, total)

    def on_row(self, row: Any) -> None:
        self._tell("on_row", row)

    def on_end(self, result: Any) -> None:
        self._tell("on_end", result)

    def _note(self, what: object) -> None:
        """Have the logger take a detail."""
        if not self.silent:
            _log.info("%s", what)

    def _tell(self, method: str, *arguments: Any) -> None:
        """Call a method of every callback; a request to stop does not keep it from the others."""
        for callback in [] if self.silent else self._callbacks:
            try:
                getattr(callback, method)(*arguments)
            except StopRun as stop:
                self.stop = self.stop or stop
            except Unwritten as unwritten:
                self.on_notice(str(unwritten))


class DryRun(Callback):
    """Marks a run that is only to be estimated."""


class DryRunEnd(Exception):
    """Ends a dry run, once it is estimated.

    Attributes:
        estimate: a `RunEstimate`.
    """

    def __init__(self, estimate: Any) -> None:
        super().__init__()
        self.estimate = estimate


def _listens(callback: Callback) -> bool:
    """Whether a callback takes notices."""
    return getattr(callback.on_notice, "__func__", None) is not Callback.on_notice


def _logged() -> bool:
    """Whether the logger's warnings are handled, or switched off: the user has seen to them."""
    logger: logging.Logger | None = _log
    while logger:
        for handler in logger.handlers:
            if handler.level <= logging.WARNING and not isinstance(handler, logging.NullHandler):
                return True
        logger = logger.parent if logger.propagate else None
    return not _log.isEnabledFor(logging.WARNING)


def _as_list(callbacks: Any) -> list[Any]:
    if not isinstance(callbacks, Iterable):
        raise UserError("callbacks is a list: write callbacks=[…] around the one")
    return list(callbacks)


def _as_callback(listener: Any) -> Callback:
    """Return a callback, or a function as one.

    Raises:
        UserError: it is neither.
    """
    name = getattr(listener, "__name__", type(listener).__name__)
    if isinstance(listener, type):
        raise UserError(f"callbacks has the class {name}: pass an instance, {name}()")
    if isinstance(listener, Callback):
        return listener
    if not callable(listener):
        raise UserError(f"callbacks has a {name}: pass instances of dsdistill.Callback, or functions")
    return _Function(listener)
