"""The public call `train_experts`: from options to a file of networks trained on real data."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from dsdistill import files
from dsdistill.config.options import data_options, explicit_options, merge
from dsdistill.data import catalog
from dsdistill.data.memory import opened
from dsdistill.data.real import RealDataset, Task
from dsdistill.data.sources import DataSource
from dsdistill.errors import NonFiniteLoss, UserError
from dsdistill.experts import config as expert_config
from dsdistill.experts.config import ExpertConfig, difference, for_sharing
from dsdistill.experts.trainer import Trainer
from dsdistill.experts.workdir import WorkDir
from dsdistill.networks import check_network
from dsdistill.networks.layout import Layout
from dsdistill.runtime import provenance
from dsdistill.runtime.device import full_float32, resolve_device, threads
from dsdistill.runtime.notice import Notify, Progress, silent
from dsdistill.runtime.signals import Interrupted, deferred_signals
from dsdistill.storage import expert_writer
from dsdistill.storage.expert_file import Expert, ExpertFile, ExpertMetadata, TrainingRecord
from dsdistill.storage.hdf5 import check_suffix


@dataclass(frozen=True)
class TrainingStart:
    """What is known before the first step, for a display of the progress."""

    config: ExpertConfig
    task: Task
    real: RealDataset
    parameters: int
    file_bytes: int
    """Of the finished file."""
    existing: int
    """Experts that the file holds already."""
    epochs_done: int
    """Epochs that the resumed run had finished."""
    epochs: int
    """Epochs of all experts that the file does not hold yet."""


@dataclass(frozen=True)
class Observer:
    """The callbacks of `train_experts`."""

    notify: Notify
    started: Callable[[TrainingStart], None]
    estimated: Callable[[float], None]
    progress: Callable[[dict[str, Any]], None]


class ExpertRun:
    """Trains the experts that a file lacks, and writes the file."""

    def __init__(
        self,
        output: Path,
        config: ExpertConfig,
        task: Task,
        real: RealDataset,
        device: torch.device,
        observer: Observer,
    ) -> None:
        """Prepare; nothing is read or written.

        Args:
            output: the file.
            config: without any ``auto``.
            task, real: the training images.
            device: that computes.
            observer: receives notices and progress.
        """
        self._output, self._config, self._device = output, config, device
        self._task, self._real = task, real
        self._observer = observer
        self._workdir = WorkDir(_parts(output), config, real.fingerprint)

    def run(self, resume: bool, overwrite: bool) -> ExpertFile:
        """Train and write.

        Args:
            resume: go on with unfinished experts.
            overwrite: replace an earlier file and unfinished experts.

        Raises:
            UserError: the file or the folder of unfinished experts holds something else, the disk is too
                full, or the loss is not finite.
            Interrupted: on SIGINT, SIGTERM, SIGHUP or SIGUSR1; every finished epoch is saved.
        """
        config, observer, workdir = self._config, self._observer, self._workdir
        existing = self._existing(resume, overwrite)
        if existing and existing.count == config.count:
            workdir.clear_written(existing.count)
            return existing
        missing = range(existing.count if existing else 0, config.count)
        epochs = len(missing) * config.epochs
        trainer = Trainer(config, self._task, self._real, self._device, self._uncompiled)
        metadata = self._metadata(trainer.layout)
        expert_writer.check_storable(metadata)
        done = workdir.epochs_done(missing) if resume else 0
        unwritten = len(missing) * (epochs - done) / epochs
        expert_writer.check_space(self._output, int((config.count + unwritten) * metadata.expert_bytes))
        if resume and not (existing or done or workdir.path.exists()):
            observer.notify(f"there are no experts in {workdir.path} to resume: starting anew")
        workdir.begin(resume, overwrite)
        workdir.drop_damaged(missing, observer.notify)
        done = workdir.epochs_done(missing)
        observer.started(
            TrainingStart(
                config,
                self._task,
                self._real,
                parameters=trainer.layout.sizes[0],
                file_bytes=config.count * metadata.expert_bytes,
                existing=missing.start,
                epochs_done=done,
                epochs=epochs,
            )
        )
        with deferred_signals() as signals:
            if done < epochs:
                observer.estimated(self._seconds_left(trainer, missing))
            for expert in missing:
                for entry in self._train(trainer, expert, signals):
                    done += 1
                    observer.progress(entry | {"done": done})
            earlier = _experts(existing) if existing else iter(())
            new = ((workdir.record(expert), workdir.snapshots(expert)) for expert in missing)
            metadata = self._metadata(trainer.layout)  # once more: the compiler may have failed since
            expert_writer.write(self._output, metadata, chain(earlier, new), config.count)
            if existing:
                existing.close()
            finished = ExpertFile.open(self._output)
            workdir.clear()
        return finished

    def _seconds_left(self, trainer: Trainer, missing: range) -> float:
        """Estimate the seconds until the last expert is trained: epochs, what each saves, and the metrics."""
        config, workdir = self._config, self._workdir
        done = [workdir.epochs_done([expert]) for expert in missing]
        epochs = [epoch + 1 for number in done for epoch in range(number, config.epochs)]
        unfinished = sum(number < config.epochs for number in done)
        stored = sum(epoch in config.stored_epochs for epoch in epochs)
        trainer.initialise(missing.start)
        saving = workdir.seconds_of_saving(trainer.state_dict())
        pace = trainer.pace()
        return len(epochs) * (pace.epoch + saving) + stored * saving + unfinished * pace.metrics

    def _existing(self, resume: bool, overwrite: bool) -> ExpertFile | None:
        """Open the file if it holds the first of the experts to train; None if all are to be trained.

        Raises:
            UserError: it holds no experts, or no others may be added to them.
        """
        output, count = self._output, self._config.count
        if not output.exists():
            return None
        try:
            experts = ExpertFile.open(output)
        except UserError as error:
            raise UserError(
                f"{output} exists and would not be replaced ({error}); choose another name"
            ) from error
        change = self._change(experts.metadata)
        if overwrite and (change or not resume):
            return None
        if change:
            key, before, now = change
            raise UserError(
                f"{output} holds experts with {key} = {before!r}, and those asked for have {now!r}; leave "
                "the option as it was to add to them, name another file, or pass --overwrite"
            )
        if experts.count > count:
            raise UserError(
                f"{output} holds {experts.count} experts, more than the {count} asked for: "
                "use its first ones, or pass --overwrite"
            )
        if experts.count == count and not resume:
            raise UserError(
                f"{output} holds these {experts.count} experts already; ask for a larger --count to add to "
                "them, or pass --overwrite to train them anew"
            )
        return experts

    def _change(self, metadata: ExpertMetadata) -> tuple[str, Any, Any] | None:
        """Return in what the experts of a file differ from those to train, with its value in both."""
        before, now = metadata.fingerprint, self._real.fingerprint
        if before != now:
            return "fingerprint", before[:8] + "…", now[:8] + "…"
        return difference(files.parse_toml(metadata.config), self._config)

    def _train(self, trainer: Trainer, expert: int, signals: list[Interrupted]) -> Iterator[dict[str, Any]]:
        """Train one expert from its latest state; yield an entry for every epoch that has been saved."""
        config, workdir = self._config, self._workdir
        trainer.initialise(expert)
        first, seconds = 0, 0.0
        if checkpoint := workdir.restore(expert, self._observer.notify):
            state, first, seconds = checkpoint
            trainer.load_state_dict(state)
        elif 0 in config.stored_epochs:
            workdir.save_snapshot(expert, 0, trainer.snapshot())
        for epoch in range(first, config.epochs):
            since = time.monotonic()
            loss = trainer.train_epoch(expert, epoch, signals)
            done = epoch + 1
            if not math.isfinite(loss):
                raise NonFiniteLoss(
                    f"expert {expert}, epoch {done}: the mean loss is {loss}; "
                    "start anew with a lower lr and --overwrite"
                )
            if done in config.stored_epochs:
                workdir.save_snapshot(expert, done, trainer.snapshot())
            metrics = trainer.training_metrics() if done == config.epochs else None
            seconds += time.monotonic() - since
            record = metrics and TrainingRecord(*metrics, seconds, self._machine(), _now())
            workdir.save(expert, done, seconds, trainer.state_dict(), record)
            yield {"expert": expert, "epoch": done, "loss": loss, "seconds": seconds}

    def _metadata(self, layout: Layout) -> ExpertMetadata:
        config, task = self._config, self._task
        return ExpertMetadata(
            network=config.network,
            layout=layout,
            dataset=task.name,
            fingerprint=self._real.fingerprint,
            classes=task.classes,
            channels=task.channels,
            size=task.size,
            preprocess=task.preprocess,
            epochs=config.stored_epochs,
            seed=config.seed,
            config=for_sharing(config),
            packages=json.dumps(provenance.package_versions()),
        )

    def _uncompiled(self, sentence: str) -> None:
        """Go on without the compiler, which has failed, and have the file say so."""
        compute = dataclasses.replace(self._config.compute, compile=False)
        self._config = dataclasses.replace(self._config, compute=compute)
        self._observer.notify(sentence)

    def _machine(self) -> str:
        return provenance.machine_name(torch.device(self._config.compute.device))


def _parts(output: Path) -> Path:
    """Return the folder of the experts that are not in the file yet."""
    return output.with_name(output.name + ".parts")


def _check_output(output: Path) -> None:
    """Check before the training that its file and the folder of unfinished experts can be written.

    Raises:
        UserError: saying what is in the way.
    """
    if os.path.isdir(output):  # unlike Path.is_dir, it takes any name
        raise UserError(f"{output} is a folder; name a file, for example {output / 'experts.h5'}")
    files.check_target(output)
    if not output.exists():
        check_suffix(output)
    files.check_folder(_parts(output))


def _experts(file: ExpertFile) -> Iterator[Expert]:
    """Yield the experts of a file."""
    for expert, record in enumerate(file.training):
        yield record, (file.snapshot(expert, epoch) for epoch in file.epochs)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def train_experts(
    output: str | Path,
    *,
    dataset: DataSource | None = None,
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
    notify: Notify = silent,
    started: Callable[[TrainingStart], None] = silent,
    estimated: Callable[[float], None] = silent,
    progress: Callable[[dict[str, Any]], None] = silent,
    decoding: Progress = silent,
) -> ExpertFile:
    """Train networks on real data and store them in one HDF5 file, for methods that match with them.

    >>> options = {"dataset": "digits", "network": "convnet2-w8", "epochs": 1}
    >>> experts = dsdistill.train_experts("experts.h5", recipe="mtt", count=2, **options)
    >>> experts.count, experts.epochs
    (2, (0, 1))

    ``dsdistill.train_experts("experts.h5", dataset="cifar10", recipe="ncfm")`` trains what NCFM needs. If the
    file already holds the first of these experts, with the same options, the others are added to it. No test
    data are read.

    Args:
        output: the file to write. Unfinished experts are in a folder of its name with ``.parts`` appended.
        dataset: a catalogue name, ``folder:PATH``, ``npz:PATH``, ``hf:NAME`` or ``hf:PATH``; or data in
            memory: ``(images, labels)``, a Dataset of torch or of Hugging Face, a mapping of these with
            ``train`` and ``test``, or an `ImageData`.
        recipe: a name, such as ``ncfm`` or ``mtt``, or the path of a recipe file.
        count: networks in the finished file.
        epochs: of training each.
        network: such as ``convnet3``.
        seed: of every random draw.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        root, size, channels, zca, download: of the data, as `distill` takes them.
        options: further ones, nested, such as ``{"keep": [0, 20, 40]}``.
        overrides: ``key=value`` texts, as ``--set`` takes them.
        resume: go on with unfinished experts; bit-identical on the same CPU and number of threads.
        overwrite: replace an earlier file and unfinished experts.
        notify: receives sentences worth reading.
        started: called once, before the first step.
        estimated: called with the estimated seconds of the training, once a few steps are timed.
        progress: called after every epoch with ``expert``, ``epoch``, ``loss`` (mean over augmented images),
            ``seconds`` of this expert, and ``done``, the finished epochs of all experts.
        decoding: called with (what, done, total) while images are read one by one.

    Returns:
        the opened file.

    Raises:
        UserError: bad input, checked before the training where possible; or a non-finite loss.
        Interrupted: on SIGINT, SIGTERM, SIGHUP or SIGUSR1; every finished epoch is saved.
    """
    output = files.expanded(output).absolute()
    _check_output(output)
    with files.hold(output, "a training"):
        files.sweep(output)
        flags = {"recipe": recipe, "count": count, "epochs": epochs, "network": network, "seed": seed}
        name, source = opened(dataset)
        data = data_options(name, root, size, channels, zca, download)
        explicit = explicit_options(flags | {"data": data, "compute": {"device": device or None}})
        config = expert_config.resolve(merge(explicit, options or {}), overrides)
        torch_device = resolve_device(config.compute.device)
        check_network(config.network)
        task, real = catalog.load(config.data, "train", notify, decoding, source)
        with threads(config.compute.threads), full_float32():
            config = expert_config.decide_auto(config, task, real, torch_device, notify)
            observer = Observer(notify, started, estimated, progress)
            return ExpertRun(output, config, task, real, torch_device, observer).run(resume, overwrite)
