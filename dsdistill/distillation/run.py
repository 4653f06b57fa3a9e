"""The public call `distill`: from options to a file."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dsdistill import files
from dsdistill.config.ipc import typical
from dsdistill.config.options import data_options, difference, explicit_options, merge, table_at
from dsdistill.data import catalog
from dsdistill.data.memory import InMemory, opened
from dsdistill.data.real import RealDataset, Task
from dsdistill.data.sources import DataSource
from dsdistill.distillation import assembly
from dsdistill.distillation import config as configs
from dsdistill.distillation.config import RunConfig
from dsdistill.distillation.loop import Distiller
from dsdistill.distillation.memory import Estimate, estimate
from dsdistill.distillation.run_loop import RunLoop
from dsdistill.errors import UserError
from dsdistill.networks import check_network
from dsdistill.protocol import load_protocol
from dsdistill.runtime.checkpoints import RunDirectory
from dsdistill.runtime.device import (
    available_memory,
    full_float32,
    reset_peak_memory,
    resolve_device,
    threads,
)
from dsdistill.runtime.notice import Notify, Progress, silent
from dsdistill.storage import origin, set_file
from dsdistill.synthetic.distilled import DistilledSet


@dataclass(frozen=True)
class RunStart:
    """What is known before the first step, for a display of the progress."""

    config: RunConfig
    task: Task
    real: RealDataset
    memory: Estimate
    iteration: int
    """Steps that the resumed run had taken, or 0."""
    memory_available: int | None
    """Bytes free on the device, where the system says."""


@dataclass(frozen=True)
class Summary:
    """How a run went.

    >>> summary = dsdistill.distill("digits.h5", dataset="digits", ipc=2, iterations=3)
    >>> summary.path.name, summary.images, summary.iterations
    ('digits.h5', 20, 3)
    """

    path: Path
    run_dir: Path
    images: int
    iterations: int
    seconds: float
    """In the loop, resumed parts and compiling included."""
    first_loss: float
    last_loss: float
    """Means over the first and last twentieth of the iterations of this call; NaN where it took none."""
    peak_memory_bytes: int
    """Of the whole process, as the system counts it."""
    storage_error: float
    """The largest error that storing caused in a pixel; 0 for float32."""


def distill(
    output: str | Path,
    *,
    dataset: DataSource | None = None,
    method: str | None = None,
    ipc: int | str | Sequence[int] | Mapping[str, int] | None = None,
    network: str | None = None,
    iterations: int | None = None,
    seconds: float | None = None,
    seed: int | None = None,
    device: str | None = None,
    experts: str | Path | None = None,
    root: str | Path | None = None,
    size: int | None = None,
    channels: int | None = None,
    zca: bool | None = None,
    download: bool = False,
    options: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    config: str | Path | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    notify: Notify = silent,
    started: Callable[[RunStart], None] = silent,
    progress: Callable[[dict[str, Any]], None] = silent,
    decoding: Progress = silent,
) -> Summary:
    """Distil a data set into one HDF5 file.

    >>> summary = dsdistill.distill("digits.h5", dataset="digits", ipc=1, iterations=3)
    >>> dsdistill.load("digits.h5").images.shape
    torch.Size([10, 1, 8, 8])

    What is left out comes from the method's recipe for the data set and IPC.

    Args:
        output: the file to write.
        dataset: a catalogue name, ``folder:PATH``, ``npz:PATH``, ``hf:NAME`` or ``hf:PATH``; or data in
            memory: ``(images, labels)``, a Dataset of torch or of Hugging Face, a mapping of these with
            ``train`` and ``test``, or an `ImageData`.
        method: a recipe's name (default ``dm``), or the path of a recipe file.
        ipc: images per class: one number, or one for each class, in their order (``[10, 10, 5]``) or by name
            (``{"cat": 10, "dog": 5}``).
        network: that features are matched in, such as ``convnet3``.
        iterations: steps to take.
        seconds: to spend in the loop, resumed parts included, in place of a number of iterations.
        seed: of every draw.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        experts: networks of `train_experts`, for methods that match with them or follow them.
        root: where data sets lie; default ``$DSDISTILL_DATA``, else ``~/.cache/dsdistill/data``.
        size, channels: of the images, in place of the data set's own.
        zca: whether to whiten instead of standardising; default as the recipe says.
        download: fetch a missing data set.
        options: further ones, nested as in a config file, such as ``{"optimiser": {"lr": 0.5}}``.
        overrides: ``key=value`` texts, as ``--set`` takes them.
        config: a TOML file; the ``config.toml`` of a run replays it.
        run_dir: where config, metrics and checkpoints go; default: the output with the suffix ``.run``.
        resume: continue the run in ``run_dir``, on the same CPU and threads bit-identically; a directory
            without one starts anew.
        overwrite: replace an earlier file and run.
        notify: receives sentences worth reading.
        started: called once, before the first step.
        progress: called with every iteration's entry: ``iteration``, ``loss``, its terms, ``seconds``,
            and ``discarded`` where it changed nothing.
        decoding: called with (what, done, total) while images are read one by one.

    Returns:
        how the run went.

    Raises:
        UserError: bad input, found before the run where it can be; or a non-finite loss.
        Interrupted: after a checkpoint, on SIGINT, SIGTERM, SIGHUP or SIGUSR1.
    """
    output = files.expanded(output).absolute()
    run = RunDirectory(files.expanded(run_dir or output.parent / f"{output.stem}.run").absolute())
    files.check_folder(run.path)
    flags: dict[str, Any] = {"method": method, "ipc": ipc, "network": network, "iterations": iterations}
    flags |= {"seconds": seconds, "seed": seed, "compute": {"device": device}}
    name, source = opened(dataset)
    flags["data"] = data_options(name, root, size, channels, zca, download)
    flags["engine"] = {"supply": {"path": str(experts) if experts else None}}
    explicit = merge(explicit_options(flags), options or {})
    file = files.expanded(config) if config else None
    observer = Observer(notify, started, progress, decoding)
    with _held(output, run):
        distillation = DistillationRun(output, run, observer, resume, overwrite)
        distillation.plan(explicit, overrides, file)
        return distillation.run(source)


@dataclass(frozen=True)
class Observer:
    """The callbacks of `distill`."""

    notify: Notify
    started: Callable[[RunStart], None]
    progress: Callable[[dict[str, Any]], None]
    decoding: Progress


class DistillationRun:
    """One run, begun or resumed: its options are decided by `plan`, and `run` takes it to its file."""

    def __init__(
        self, output: Path, directory: RunDirectory, observer: Observer, resume: bool, overwrite: bool
    ) -> None:
        """Check that the result can be written.

        Args:
            output: the file.
            directory: of the run.
            observer: receives notices and progress.
            resume: go on with the run in the directory, if there is one.
            overwrite: replace an earlier file and run.

        Raises:
            UserError: it cannot be written, or would replace something else.
        """
        self._output, self._directory, self._observer = output, directory, observer
        self._asked_to_resume, self._overwrite = resume, overwrite
        self._resumes = resume and directory.config_file.exists()
        self._written: dict[str, Any] = {}  # options of the run that is resumed
        self._config: RunConfig
        _check_output(output, directory, self._resumes, overwrite)

    def plan(self, explicit: Mapping[str, Any], overrides: Sequence[str], file: Path | None) -> None:
        """Resolve the options, before data are looked for.

        Args:
            explicit: nested options of the call.
            overrides: ``key=value`` texts.
            file: a config file.

        Raises:
            UserError: they are bad, or not those of the run that is resumed.
        """
        notify, directory = self._observer.notify, self._directory
        content = files.read_toml(file) if file else {}
        self._written = directory.config() if self._resumes else {}
        config = configs.resolve(explicit, overrides, merge(self._written, content), notify)
        if file:
            configs.check_replayed(content, config, file, notify)
        resolve_device(config.compute.device)
        check_network(config.network)
        load_protocol(config.protocol, config.data.name, typical(config.ipc))  # the file will name it
        if self._resumes:
            undecided = ("compute",) if isinstance(config.ipc, int) else ("compute", "ipc")
            _refuse_changes(self._written, config, directory, undecided)
        self._config = config

    def run(self, source: InMemory | None = None) -> Summary:
        """Distil, and write the file.

        Args:
            source: the data, if they are in memory.
        """
        observer, device = self._observer, resolve_device(self._config.compute.device)
        reset_peak_memory(device)
        free = available_memory(device)  # the estimate counts all that comes now
        task, real = catalog.load(self._config.data, "train", observer.notify, observer.decoding, source)
        with threads(self._config.compute.threads), full_float32():
            recompiles = self._decide(task, real, device)
            distiller = assembly.assemble(self._config, task, real, device, self._uncompiled)
            metadata = self._restore(distiller, real) if self._resumes else self._begin(distiller, real)
            memory = estimate(distiller, real)
            observer.started(RunStart(self._config, task, real, memory, distiller.iteration, free))
            cadence, budget = self._config.checkpoint, self._config.seconds
            loop = RunLoop(distiller, self._directory, cadence, _read_every(device), metadata, budget)
            if recompiles and loop.share < 1:
                self._write_uncompiled()

            def current() -> DistilledSet:
                return assembly.distilled_set(self._config, distiller, real, loop.seconds, loop.peak_memory)

            losses = _run(loop, self._config, current, observer.progress)
            distilled = current()
            for sentence in assembly.warnings_for(distiller, self._directory.discarded()):
                observer.notify(sentence)
        error = self._write(distilled, resumed_when_finished=not losses)
        return _summary(self._output, self._directory, distilled, losses, loop, error)

    def _decide(self, task: Task, real: RealDataset, device: torch.device) -> bool:
        """Decide every ``auto``; return whether a compiled run goes on where the compiler does not work.

        Raises:
            UserError: the options are not those of the run that is resumed.
        """
        asked = self._config.compute.compile
        self._config = assembly.decide_auto(self._config, task, real, device, self._observer.notify)
        fails = asked is True and not self._config.compute.compile
        if self._resumes:
            undecided = ("compute.compile",) * fails
            _refuse_changes(self._written, self._config, self._directory, undecided)
        return fails

    def _begin(self, distiller: Distiller, real: RealDataset) -> dict[str, str]:
        """Make the run's directory, and return what its checkpoints record.

        Raises:
            UserError: the file could not hold the texts of the set, or the directory is not free.
        """
        facts = assembly.attributes(self._config, distiller, real, 0.0, 0)
        set_file.check_storable(distiller.sources.task.classes, facts)
        if self._asked_to_resume:
            self._observer.notify(f"there is no run in {self._directory.path} to resume: starting anew")
        self._directory.create(configs.to_toml(self._config), self._overwrite)
        for sentence in assembly.class_notices(self._config, real):
            self._observer.notify(sentence)
        return {"fingerprint": real.fingerprint}

    def _restore(self, distiller: Distiller, real: RealDataset) -> dict[str, str]:
        """Bring a loop to where its run was, and return what the checkpoint records.

        Raises:
            UserError: every checkpoint is damaged, or the data have changed.
        """
        directory = self._directory
        state, metadata = directory.restore(self._observer.notify) or ({}, {"fingerprint": real.fingerprint})
        if metadata["fingerprint"] != real.fingerprint:
            raise UserError(
                f"{real.name} has changed since {directory.path.name} began; start anew with --overwrite"
            )
        if state:
            device = distiller.synthetic.images.device
            distiller.load_state_dict({name: value.to(device) for name, value in state.items()})
        directory.trim(distiller.iteration)
        return metadata

    def _uncompiled(self, sentence: str) -> None:
        """Go on without the compiler, which has failed."""
        self._write_uncompiled()
        self._observer.notify(sentence)

    def _write_uncompiled(self) -> None:
        """Turn compiling off, also in the run's config, so that resumed parts go without it too."""
        compute = dataclasses.replace(self._config.compute, compile=False)
        self._config = dataclasses.replace(self._config, compute=compute)
        with contextlib.suppress(UserError):  # a full disk is why compilers fail
            self._directory.write_config(configs.to_toml(self._config))

    def _write(self, distilled: DistilledSet, resumed_when_finished: bool) -> float:
        """Write the set and return the largest error of a pixel; a file of this run with results stays."""
        output = self._output
        if resumed_when_finished and _is_of_run(output, self._directory):
            return float((set_file.read(output).images - distilled.images).abs().max())
        return set_file.write(output, distilled, self._config.storage, self._observer.notify)


@contextlib.contextmanager
def _held(output: Path, run: RunDirectory) -> Iterator[None]:
    """Keep other processes from an output and a run directory, and clear both of what a kill has left.

    Raises:
        UserError: another process writes one of them; or both are the same.
    """
    if os.path.realpath(output) == os.path.realpath(run.path):
        raise UserError(f"{output} cannot be both the output and the run directory; choose another --run-dir")
    with files.hold(output, "a distillation"), files.hold(run.path, "a distillation"):
        files.sweep(output)
        files.sweep(run.path)
        yield


def _read_every(device: torch.device) -> int:
    """Return the iterations between reads of the losses: reading waits for the device."""
    return 1 if device.type == "cpu" else 10


def _run(
    loop: RunLoop,
    config: RunConfig,
    current: Callable[[], DistilledSet],
    progress: Callable[[dict[str, Any]], None],
) -> list[float]:
    """Take the loop to its end, store the snapshots that are due, and return the losses.

    Args:
        loop: not begun.
        config: of the run.
        current: returns the set as it is.
        progress: called with every entry.
    """
    losses = []
    snapshots = config.checkpoint.snapshots
    stored = math.floor(loop.share * snapshots + 1e-9)
    with contextlib.closing(iter(loop)) as entries:  # signals go to their own handlers as soon as it ends
        for entry in entries:
            losses.append(entry["loss"])
            progress(entry)
            due = math.floor(loop.share * snapshots + 1e-9)
            if stored < due < snapshots:  # the last is the output itself
                set_file.write(loop.run.snapshot(loop.iteration), current(), config.storage)
            stored = due
    return losses


def _summary(
    output: Path,
    run: RunDirectory,
    distilled: DistilledSet,
    losses: Sequence[float],
    loop: RunLoop,
    storage_error: float,
) -> Summary:
    edge = max(1, len(losses) // 20)
    return Summary(
        path=output,
        run_dir=run.path,
        images=len(distilled.images),
        iterations=int(distilled.attributes["iterations"]),
        seconds=float(distilled.attributes["seconds"]),
        first_loss=sum(losses[:edge]) / edge if losses else math.nan,
        last_loss=sum(losses[-edge:]) / edge if losses else math.nan,
        peak_memory_bytes=loop.peak_memory,
        storage_error=storage_error,
    )


def _check_output(output: Path, run: RunDirectory, resumes: bool, overwrite: bool) -> None:
    """Find out before the run that its result could not be written, or would replace something else.

    Raises:
        UserError: saying which.
    """
    set_file.check_writable(output, overwrite or resumes, ", or pass overwrite=True (--overwrite)")
    if run.path.is_symlink() and not run.path.exists():
        raise UserError(f"{run.path} is a link that leads nowhere; remove it, or choose another --run-dir")
    if resumes and not overwrite and output.exists() and not _is_of_run(output, run):
        raise UserError(
            f"{output} was not made by {run.path.name}; pass --overwrite to replace it, or name another"
        )


def _is_of_run(output: Path, run: RunDirectory) -> bool:
    """Whether a file is there and holds the set of this run."""
    if not output.exists():
        return False
    return origin.is_of_run(set_file.read(output).attributes, run.config())


def _refuse_changes(
    written: Mapping[str, Any], config: RunConfig, run: RunDirectory, undecided: tuple[str, ...] = ()
) -> None:
    """Refuse to continue a run as another one.

    Args:
        written: the options in the run's directory.
        config: what the run would go on with.
        run: the directory.
        undecided: options that are not compared yet.

    Raises:
        UserError: naming the first option that differs.
    """
    before = configs.as_table(configs.resolve({}, (), written))  # what it lacks had its default
    if not table_at(before, "engine", "supply").get("digest"):  # begun before it was written down
        undecided = (*undecided, "engine.supply.digest")
    if changes := difference(before, configs.as_table(config), ignoring=undecided):
        key, earlier, later = changes[0]
        raise UserError(
            f"cannot resume {run.path.name} with {key} = {later!r}: it was started with "
            f"{earlier!r}; leave the option as it was, or start anew with --overwrite"
        )
