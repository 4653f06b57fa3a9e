"""Experts: networks trained on real data and stored as they were after some of their epochs."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from dsdistill import files
from dsdistill.config.options import data_options, merged
from dsdistill.data import catalog
from dsdistill.data.real import RealDataset, Task
from dsdistill.data.reporter import Progress, silent
from dsdistill.distillation.run import (
    _silent,
)
from dsdistill.errors import NonFiniteLoss, UserError
from dsdistill.experts import config as expert_config
from dsdistill.experts.config import ExpertConfig, difference, to_toml
from dsdistill.experts.trainer import Trainer
from dsdistill.experts.workdir import WorkDir
from dsdistill.networks import check_network
from dsdistill.networks.layout import Layout
from dsdistill.runtime import provenance
from dsdistill.runtime.device import full_float32, resolve_device, threads
from dsdistill.runtime.notice import Notify
from dsdistill.runtime.signals import signals_noted
from dsdistill.storage import expert_writer
from dsdistill.storage.expert_file import Expert, ExpertFile, ExpertMetadata, TrainingRecord


@dataclass(frozen=True)
class TrainingStart:
    """What is known before the first step, for whoever shows progress."""

    config: ExpertConfig
    task: Task
    real: RealDataset
    parameters: int
    file_bytes: int
    """Of the finished file."""
    before: int
    """Experts in the file already."""
    epochs_done: int
    """Epochs that a run which is being resumed has behind it."""
    epochs: int
    """Epochs of all experts that are not in the file yet."""


def make(
    output: Path,
    config: ExpertConfig,
    task: Task,
    real: RealDataset,
    device: torch.device,
    *,
    resume: bool,
    overwrite: bool,
    notify: Notify,
    started: Callable[[TrainingStart], None],
    estimated: Callable[[float], None],
    progress: Callable[[dict[str, Any]], None],
) -> ExpertFile:
    """Train the experts that a file lacks and write it. See ``dsdistill.experts`` for what is not said here.

    Args:
        config: resolved.
        task, real: the training images.
        device: where it is computed.

    Raises:
        UserError: the file or its parts hold something else, the disk is too full, or the loss is not finite.
        Interrupted: on SIGINT or SIGTERM; every finished epoch is saved.
    """
    held = _held(output, config, real, resume, overwrite)
    first = held.count if held else 0
    if held and first == config.count:
        return held
    trainer = Trainer(config, task, real, device, notify)
    facts = _facts(config, task, real, trainer.layout)
    parts = WorkDir(output.with_name(output.name + ".parts"), config, real.fingerprint)
    left = range(first, config.count)
    total = len(left) * config.epochs
    behind = parts.epochs_done(left) if resume else 0
    unwritten = len(left) * (total - behind) / total
    expert_writer.check_space(output, int((config.count + unwritten) * facts.expert_bytes))
    parts.begin(resume, overwrite)
    done = parts.epochs_done(left)
    size = config.count * facts.expert_bytes
    started(TrainingStart(config, task, real, trainer.layout.sizes[0], size, first, done, total))
    with signals_noted() as received:
        if done < total:
            estimated(trainer.pace() * (total - done))
        for expert in left:
            for entry in _trained(trainer, parts, expert, config, received, notify):
                done += 1
                progress(entry | {"done": done})
        earlier = _stored(held) if held else iter(())
        new = ((parts.training(expert), parts.snapshots(expert)) for expert in left)
        expert_writer.write(output, facts, chain(earlier, new), config.count)
    if held:
        held.close()
    parts.clear()
    return ExpertFile.open(output)


def _held(
    output: Path, config: ExpertConfig, real: RealDataset, resume: bool, overwrite: bool
) -> ExpertFile | None:
    """Open the file whose experts are the first of those asked for; None where all are to be trained.

    Raises:
        UserError: the file is no buffer, or is not to be added to.
    """
    if not output.exists():
        return None
    try:
        found = ExpertFile.open(output)
    except UserError as error:
        raise UserError(
            f"{output} exists and would not be replaced ({error}); choose another name"
        ) from error
    differs = difference(found.metadata.config, config)
    if found.metadata.fingerprint != real.fingerprint:
        differs = ("fingerprint", found.metadata.fingerprint[:8] + "…", real.fingerprint[:8] + "…")
    if overwrite and (differs or not resume):
        return None
    if differs:
        key, before, now = differs
        raise UserError(
            f"{output} holds experts with {key} = {before!r}, and those asked for have {now!r}; leave the "
            "option as it was to add to them, name another file, or pass --overwrite"
        )
    if found.count > config.count:
        raise UserError(
            f"{output} holds {found.count} experts, more than the {config.count} asked for: "
            "use its first ones, or pass --overwrite"
        )
    if found.count == config.count and not resume:
        raise UserError(
            f"{output} holds these {found.count} experts already; ask for a larger --count to add to them, "
            "or pass --overwrite to train them anew"
        )
    return found


def _trained(
    trainer: Trainer,
    parts: WorkDir,
    expert: int,
    config: ExpertConfig,
    received: list[int],
    notify: Notify,
) -> Iterator[dict[str, Any]]:
    """Train one expert from where it is; yield an entry for every epoch once its state is on the disk."""
    trainer.start(expert)
    begun, seconds = 0, 0.0
    if found := parts.restore(expert, notify):
        state, begun, seconds = found
        trainer.load_state_dict(state)
    elif 0 in config.kept:
        parts.keep(expert, 0, trainer.layout.pack(trainer.network.state_dict()))
    for epoch in range(begun, config.epochs):
        since = time.monotonic()
        loss = trainer.epoch(expert, epoch, received)
        if not math.isfinite(loss):
            raise NonFiniteLoss(
                f"expert {expert}, epoch {epoch + 1}: the mean loss is {loss}; "
                "start anew with a lower lr and --overwrite"
            )
        done = epoch + 1
        if done in config.kept:
            parts.keep(expert, done, trainer.layout.pack(trainer.network.state_dict()))
        graded = trainer.grade() if done == config.epochs else None
        seconds += time.monotonic() - since
        training = graded and TrainingRecord(*graded, seconds, _machine(config), _now())
        parts.save(expert, done, seconds, trainer.state_dict(), training)
        yield {"expert": expert, "epoch": done, "loss": loss, "seconds": seconds}


def _stored(held: ExpertFile) -> Iterator[Expert]:
    """Yield the experts of a file."""
    for expert, training in enumerate(held.training):
        yield training, (held.snapshot(expert, epoch) for epoch in held.epochs)


def _facts(config: ExpertConfig, task: Task, real: RealDataset, layout: Layout) -> ExpertMetadata:
    return ExpertMetadata(
        network=config.network,
        layout=layout,
        dataset=task.name,
        fingerprint=real.fingerprint,
        classes=task.classes,
        channels=task.channels,
        size=task.size,
        preprocess=task.preprocess,
        epochs=config.kept,
        seed=config.seed,
        config=to_toml(config),
        packages=json.dumps(provenance.packages()),
    )


def _machine(config: ExpertConfig) -> str:
    return provenance.machine(torch.device(config.compute.device))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def train_experts(
    output: str | Path,
    *,
    dataset: str | None = None,
    recipe: str | None = None,
    count: int | None = None,
    epochs: int | None = None,
    network: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    root: str | Path | None = None,
    size: int | None = None,
    channels: int | None = None,
    zca: bool | None = None,
    download: bool = False,
    options: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    notify: Notify = _silent,
    started: Callable[[TrainingStart], None] = _silent,
    estimated: Callable[[float], None] = _silent,
    progress: Callable[[dict[str, Any]], None] = _silent,
    decoding: Progress = silent,
) -> ExpertFile:
    """Train networks on real data and store them in one HDF5 file, for methods that match with them.

    ``dsdistill.train_experts("pool.h5", dataset="cifar10", recipe="ncfm")`` trains what NCFM needs. Where the
    file already holds the first of the experts asked for, with the same options, the others are added to it.
    No test data are read.

    Args:
        output: the file to write; beside it, unfinished experts lie in a folder with ``.parts`` appended.
        dataset: a catalogue name, ``folder:PATH`` or ``npz:PATH``.
        recipe: ``ncfm``, ``mtt``, or the path of a recipe file.
        count: networks in the finished file.
        epochs: of training each.
        network: such as ``convnet3``.
        seed: of every draw.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        root, size, channels, zca, download: of the data, as `distill` takes them.
        options: further ones, nested, such as ``{"keep": [0, 20, 40]}``.
        overrides: ``key=value`` texts, as ``--set`` takes them.
        resume: go on with unfinished experts, on the same CPU and threads bit-identically.
        overwrite: replace an earlier file and unfinished experts.
        notify: receives sentences worth reading.
        started: called once, before the first step.
        estimated: called with about how many seconds the training will take, once a few steps are timed.
        progress: called after every epoch with ``expert``, ``epoch``, ``loss`` (mean, of augmented images),
            ``seconds`` of this expert, and ``done``, the epochs of all.
        decoding: called with (what, done, total) while picture files are read.

    Returns:
        the file, opened.

    Raises:
        UserError: bad input, found before the training where it can be; or a non-finite loss.
        Interrupted: on SIGINT or SIGTERM; every finished epoch is saved.
    """
    output = Path(output).expanduser().absolute()
    if output.is_dir():
        raise UserError(f"{output} is a folder; name a file, for example {output / 'experts.h5'}")
    files.check_folder(output)
    flags = {"recipe": recipe, "count": count, "epochs": epochs, "network": network, "seed": seed}
    given: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    data = data_options(dataset, root, size, channels, zca, download)
    given |= {"data": data} if data else {}
    given |= {"compute": {"device": device}} if device else {}
    told = expert_config.resolve(merged(given, options or {}), overrides)
    where = resolve_device(told.compute.device)
    check_network(told.network)
    task, real = catalog.load(told.data, "train", notify, decoding)
    with threads(told.compute.threads), full_float32():
        cfg = expert_config.resolved(told, task, real, where, notify)
        return make(
            output,
            cfg,
            task,
            real,
            where,
            resume=resume,
            overwrite=overwrite,
            notify=notify,
            started=started,
            estimated=estimated,
            progress=progress,
        )
