"""The public calls `distill` and `train_experts`: each one function from options to a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsdistill.config.options import data_options, difference, merged, table_at
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
from dsdistill.runtime.notice import Notify
from dsdistill.storage import set_file


@dataclass(frozen=True)
class RunStart:
    """What is known before the first step, for whoever shows progress."""

    config: RunConfig
    task: Task
    real: RealDataset
    memory: Estimate
    iteration: int
    """Steps taken by the run that is being resumed, or 0."""
    memory_available: int | None
    """Bytes free on the device, where the system says."""


@dataclass(frozen=True)
class Summary:
    """How a run went."""

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


def _silent(_: Any) -> None:
    return


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
    notify: Notify = _silent,
    started: Callable[[RunStart], None] = _silent,
    progress: Callable[[dict[str, Any]], None] = _silent,
) -> Summary:
    """Distil a data set into one HDF5 file.

    ``dsdistill.distill("digits.h5", dataset="digits", ipc=10)`` is the shortest use; whatever is left out
    comes from the method's recipe for the data set and IPC.

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
            and ``discarded`` where it left everything as it was.

    Returns:
        how it went.

    Raises:
        UserError: bad input, found before the run where it can be; or a non-finite loss.
        Interrupted: on SIGINT or SIGTERM, after a checkpoint.
    """
    output = Path(output).expanduser().absolute()
    run = RunDirectory(Path(run_dir).expanduser().absolute() if run_dir else output.with_suffix(".run"))
    going_on = resume and run.config_file.exists()
    _check_output(output, run, going_on, overwrite)
    before = read_toml(run.config_file) if going_on else {}
    written = merged(before, read_toml(Path(config)) if config else {})
    flags: dict[str, Any] = {"method": method, "ipc": ipc, "network": network, "iterations": iterations}
    flags |= {"seconds": seconds, "seed": seed}
    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    data = data_options(dataset, root, size, channels, zca, download)
    given |= {"data": data} if data else {}
    given |= {"engine": {"supply": {"path": str(experts)}}} if experts else {}
    given |= {"compute": {"device": device}} if device else {}
    told = configs.resolve(merged(given, options or {}), overrides, written)
    if config:
        configs.check_replayed(read_toml(Path(config)), told, Path(config), notify)

    where = resolve_device(told.compute.device)
    check_network(told.network)
    load_protocol(told.protocol)  # the file will name it
    if going_on:
        _refuse_changes(before, told, run, undecided=("compute",))  # before data are looked for
    reset_peak_memory(where)
    free = available_memory(where)  # of which the estimate counts all that comes now
    task, real = catalog.load(told.data, "train", notify)
    with threads(told.compute.threads), full_float32():
        cfg = assembly.resolved(told, task, real, where, notify)
        if going_on:
            _refuse_changes(before, cfg, run)
        distiller = assembly.build(cfg, task, real, where, notify)
        if going_on:
            facts = _restored(run, distiller, real, notify)
        else:
            facts = {"fingerprint": real.fingerprint}
            if resume:
                notify(f"there is no run in {run.path} to resume: starting anew")
            run.create(configs.to_toml(cfg), overwrite)
        if not going_on and (sentence := assembly.small_class_notice(cfg.engine, real)):
            notify(sentence)
        half = cfg.compute.precision == "bf16" and where.type == "cpu"
        started(RunStart(cfg, task, real, estimate(distiller, real, half), distiller.iteration, free))

        read_every = 1 if where.type == "cpu" else 10  # reading a loss waits for the device
        saving = cfg.checkpoint
        watch = RunLoop(distiller, run, saving.seconds, saving.iterations, read_every, facts, cfg.seconds)
        losses = []
        kept = math.floor(watch.share * saving.snapshots + 1e-9)
        for entry in watch:
            losses.append(entry["loss"])
            progress(entry)
            due = math.floor(watch.share * saving.snapshots + 1e-9)  # which of them has been reached
            if kept < due < saving.snapshots:
                so_far = assembly.distilled_set(cfg, distiller, real, watch.seconds, watch.peak_memory)
                set_file.write(run.snapshot(distiller.iteration), so_far, cfg.storage)
            kept = due
        spent = watch.seconds
        for sentence in assembly.warnings_for(distiller, run.discarded()):
            notify(sentence)
        made = assembly.distilled_set(cfg, distiller, real, spent, watch.peak_memory)
    if not losses and _made_by(output, run):  # resumed when finished: the file may hold results by now
        error = float((set_file.read(output).images - made.images).abs().max())
    else:
        error = set_file.write(output, made, cfg.storage)
    edge = max(1, len(losses) // 20)
    return Summary(
        path=output,
        run_dir=run.path,
        images=len(made.images),
        iterations=distiller.iteration,
        seconds=spent,
        first_loss=sum(losses[:edge]) / edge if losses else float("nan"),
        last_loss=sum(losses[-edge:]) / edge if losses else float("nan"),
        peak_memory_bytes=watch.peak_memory,
        storage_error=error,
    )


def _check_output(output: Path, run: RunDirectory, going_on: bool, overwrite: bool) -> None:
    """Find out before the run that its result could not be written, or would replace something else.

    Raises:
        UserError: saying which.
    """
    if output == run.path:
        raise UserError(f"{output} cannot be both the output and the run directory; choose another --run-dir")
    set_file.check_writable(output, overwrite or going_on, ", or pass overwrite=True (--overwrite)")
    if going_on and not overwrite and output.exists() and not _made_by(output, run):
        raise UserError(
            f"{output} was not made by {run.path.name}; pass --overwrite to replace it, or name another"
        )


def _made_by(output: Path, run: RunDirectory) -> bool:
    """Whether a file is there and holds the set of this run."""
    if not output.exists():
        return False
    return set_file.read(output).attributes.get("config") == configs.for_sharing(read_toml(run.config_file))


def _restored(run: RunDirectory, distiller: Distiller, real: RealDataset, notify: Notify) -> dict[str, str]:
    """Bring a loop to where its run was, and return what the checkpoint records.

    Raises:
        UserError: every checkpoint is damaged, or the data have changed.
    """
    state, facts = run.restore(notify) or ({}, {"fingerprint": real.fingerprint})
    if facts["fingerprint"] != real.fingerprint:
        raise UserError(f"{real.name} has changed since {run.path.name} began; start anew with --overwrite")
    if state:
        device = distiller.synthetic.images.device
        distiller.load_state_dict({name: value.to(device) for name, value in state.items()})
    run.trim(distiller.iteration)
    return facts


def _refuse_changes(
    written: Mapping[str, Any], now: RunConfig, run: RunDirectory, undecided: tuple[str, ...] = ()
) -> None:
    """Refuse to continue a run as another one, looking at all options but the undecided.

    Raises:
        UserError: naming the first option that differs.
    """
    before = configs.as_table(configs.resolve({}, (), written))  # what it lacks had its default
    if not table_at(before, "engine", "supply").get("digest"):  # begun before it was written down
        undecided = (*undecided, "engine.supply.digest")
    if changes := difference(before, configs.as_table(now), ignoring=undecided):
        key, earlier, later = changes[0]
        raise UserError(
            f"cannot resume {run.path.name} with {key} = {later!r}: it was started with "
            f"{earlier!r}; leave the option as it was, or start anew with --overwrite"
        )
