"""The public call `distill`: from options to a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dsdistill.config.options import data_options, difference, explicit_options, merge, table_at
from dsdistill.config.presets import read_toml
from dsdistill.data import catalog
from dsdistill.data.real import RealDataset, Task
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
from dsdistill.storage import set_file
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
    dataset: str | None = None,
    method: str | None = None,
    ipc: int | None = None,
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
        dataset: a catalogue name, ``folder:PATH`` or ``npz:PATH``.
        method: a recipe's name (default ``dm``), or the path of a recipe file.
        ipc: images per class.
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
        decoding: called with (what, done, total) while picture files are read.

    Returns:
        how the run went.

    Raises:
        UserError: bad input, found before the run where it can be; or a non-finite loss.
        Interrupted: on SIGINT or SIGTERM, after a checkpoint.
    """
    output = Path(output).expanduser().absolute()
    run = RunDirectory(Path(run_dir).expanduser().absolute() if run_dir else output.with_suffix(".run"))
    resumes = resume and run.config_file.exists()
    _check_output(output, run, resumes, overwrite)
    flags: dict[str, Any] = {"method": method, "ipc": ipc, "network": network, "iterations": iterations}
    flags |= {"seconds": seconds, "seed": seed, "compute": {"device": device}}
    flags["data"] = data_options(dataset, root, size, channels, zca, download)
    flags["engine"] = {"supply": {"path": str(experts) if experts else None}}
    explicit = merge(explicit_options(flags), options or {})
    file = read_toml(Path(config)) if config else {}
    written = read_toml(run.config_file) if resumes else {}
    plan = configs.resolve(explicit, overrides, merge(written, file), notify)
    if config:
        configs.check_replayed(file, plan, Path(config), notify)
    torch_device = resolve_device(plan.compute.device)
    check_network(plan.network)
    load_protocol(plan.protocol)  # the file will name it
    if resumes:
        _refuse_changes(written, plan, run, undecided=("compute",))  # before data are looked for
    reset_peak_memory(torch_device)
    free = available_memory(torch_device)  # the estimate counts all that comes now
    task, real = catalog.load(plan.data, "train", notify, decoding)
    with threads(plan.compute.threads), full_float32():
        plan = assembly.decide_auto(plan, task, real, torch_device, notify)
        if resumes:
            _refuse_changes(written, plan, run)
        distiller = assembly.assemble(plan, task, real, torch_device, notify)
        if resumes:
            metadata = _restore(run, distiller, real, notify)
        else:
            metadata = {"fingerprint": real.fingerprint}
            if resume:
                notify(f"there is no run in {run.path} to resume: starting anew")
            run.create(configs.to_toml(plan), overwrite)
            if sentence := assembly.small_class_notice(plan.engine, real):
                notify(sentence)
        memory = estimate(distiller, real)
        started(RunStart(plan, task, real, memory, distiller.iteration, free))
        loop = RunLoop(distiller, run, plan.checkpoint, _read_every(torch_device), metadata, plan.seconds)
        losses = _run(loop, plan, distiller, real, progress)
        distilled = assembly.distilled_set(plan, distiller, real, loop.seconds, loop.peak_memory)
        for sentence in assembly.warnings_for(distiller, run.discarded()):
            notify(sentence)
    error = _write(output, run, distilled, plan, resumed_when_finished=not losses)
    return _summary(output, run, distilled, losses, loop, error)


def _read_every(device: torch.device) -> int:
    """Return the iterations between reads of the losses: reading waits for the device."""
    return 1 if device.type == "cpu" else 10


def _run(
    loop: RunLoop,
    config: RunConfig,
    distiller: Distiller,
    real: RealDataset,
    progress: Callable[[dict[str, Any]], None],
) -> list[float]:
    """Take the loop to its end, store the snapshots that are due, and return the losses."""
    losses = []
    snapshots = config.checkpoint.snapshots
    stored = math.floor(loop.share * snapshots + 1e-9)
    for entry in loop:
        losses.append(entry["loss"])
        progress(entry)
        due = math.floor(loop.share * snapshots + 1e-9)
        if stored < due < snapshots:  # the last is the output itself
            current = assembly.distilled_set(config, distiller, real, loop.seconds, loop.peak_memory)
            set_file.write(loop.run.snapshot(distiller.iteration), current, config.storage)
        stored = due
    return losses


def _write(
    output: Path, run: RunDirectory, distilled: DistilledSet, config: RunConfig, resumed_when_finished: bool
) -> float:
    """Write the set and return the largest error of a pixel; a file of this run with results stays."""
    if resumed_when_finished and _is_of_run(output, run):
        return float((set_file.read(output).images - distilled.images).abs().max())
    return set_file.write(output, distilled, config.storage)


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
    if output == run.path:
        raise UserError(f"{output} cannot be both the output and the run directory; choose another --run-dir")
    set_file.check_writable(output, overwrite or resumes, ", or pass overwrite=True (--overwrite)")
    if resumes and not overwrite and output.exists() and not _is_of_run(output, run):
        raise UserError(
            f"{output} was not made by {run.path.name}; pass --overwrite to replace it, or name another"
        )


def _is_of_run(output: Path, run: RunDirectory) -> bool:
    """Whether a file is there and holds the set of this run."""
    if not output.exists():
        return False
    written = configs.for_sharing(read_toml(run.config_file))
    return set_file.read(output).attributes.get("config") == written


def _restore(run: RunDirectory, distiller: Distiller, real: RealDataset, notify: Notify) -> dict[str, str]:
    """Bring a loop to where its run was, and return what the checkpoint records.

    Raises:
        UserError: every checkpoint is damaged, or the data have changed.
    """
    state, metadata = run.restore(notify) or ({}, {"fingerprint": real.fingerprint})
    if metadata["fingerprint"] != real.fingerprint:
        raise UserError(f"{real.name} has changed since {run.path.name} began; start anew with --overwrite")
    if state:
        device = distiller.synthetic.images.device
        distiller.load_state_dict({name: value.to(device) for name, value in state.items()})
    run.trim(distiller.iteration)
    return metadata


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
