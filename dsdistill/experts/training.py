"""Training the experts that a file lacks, and writing the file."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsdistill import files
from dsdistill.config.sharing import file_name
from dsdistill.errors import NonFiniteLoss, UserError
from dsdistill.experts.config import ExpertConfig, compiled_options, difference, for_sharing
from dsdistill.experts.images import ExpertData
from dsdistill.experts.start import TrainingStart
from dsdistill.experts.trainer import EL2N, Trainer
from dsdistill.experts.workdir import WorkDir
from dsdistill.networks.layout import Layout
from dsdistill.runtime import compiled_runs, provenance
from dsdistill.runtime.callbacks import Observer
from dsdistill.runtime.device import process_memory
from dsdistill.runtime.estimate import RunEstimate
from dsdistill.runtime.notice import silent
from dsdistill.runtime.signals import Interrupted, deferred_signals
from dsdistill.storage import expert_writer
from dsdistill.storage.expert_file import Expert, ExpertFile, ExpertMetadata, Snapshot, TrainingRecord

_STAND_IN_BYTES = 1 << 28
"""Of a file of untrained experts, at most."""

_ACCURACIES = {"stored": "test_accuracy", "validation": "validation_accuracy"}
"""By the option ``test``: the field of a record, and the tensor of a checkpoint, that holds the accuracies so
far on images that no step sees."""


class ExpertRun:
    """Trains the experts that a file lacks, and writes the file."""

    def __init__(
        self,
        output: Path,
        config: ExpertConfig,
        data: ExpertData,
        device: torch.device,
        observer: Observer,
        too_short: bool = False,
    ) -> None:
        """Prepare; nothing is read or written.

        Args:
            output: the file.
            config: without any ``auto``.
            data: the images; those of test where the accuracy on them is to be stored.
            device: that computes.
            observer: the callbacks.
            too_short: the training is not compiled because it would not make up for the time that takes.
        """
        self._output, self._config, self._device = output, config, device
        self._data = data
        self._observer, self._too_short = observer, too_short
        self._workdir = WorkDir(parts(output), config, data.train.fingerprint)
        self._accuracy = _ACCURACIES.get(config.test, "")

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
        config, data, observer, workdir = self._config, self._data, self._observer, self._workdir
        existing = self._existing(resume, overwrite)
        if existing and existing.count == config.count and not observer.dry:
            workdir.clear_written(existing.count)
            return existing
        missing = range(existing.count if existing else 0, config.count)
        trainer = Trainer(config, data.task, data.train, self._device, self._uncompiled, data.test)
        metadata = self._metadata(trainer.layout)
        expert_writer.check_storable(metadata)
        done = workdir.epochs_done(missing) if resume else 0
        unwritten = len(missing) - done / config.epochs
        expert_writer.check_space(self._output, int((config.count + unwritten) * metadata.expert_bytes))
        if not observer.dry:
            if resume and not (existing or done or workdir.path.exists()):
                observer.on_notice(f"there are no experts in {workdir.path} to resume: starting anew")
            workdir.begin(resume, overwrite)
            workdir.drop_damaged(missing, observer.on_notice)
            done = workdir.epochs_done(missing)
        start = TrainingStart(
            config,
            data.task,
            data.train,
            parameters=trainer.layout.sizes[0],
            file_bytes=config.count * metadata.expert_bytes,
            existing=missing.start,
            epochs_done=done,
            epochs=len(missing) * config.epochs,
            held_out=len(data.train) - trainer.images,
            too_short=self._too_short,
        )
        observer.on_start(start)
        with deferred_signals() as signals:
            if done < start.epochs or observer.dry:
                observer.on_estimate(self._estimate(trainer, missing, start))
            finished = self._train_all(trainer, missing, done, signals)
            if self._config.compute.compile and finished:
                options = compiled_options(self._config, data.train)
                compiled_runs.remember(self._config.compute.code(options))
            return self._write(existing, missing[:finished], self._metadata(trainer.layout))

    def write_untrained(self, path: Path) -> None:
        """Write a file like that of the experts, whose weights are all random: what follows is timed with it.

        It holds as many experts as `_STAND_IN_BYTES` allow. If that is none, no file is written.
        """
        trainer = Trainer(self._config, self._data.task, self._data.train, self._device, silent)
        metadata = self._metadata(trainer.layout)
        count = min(self._config.count, _STAND_IN_BYTES // metadata.expert_bytes)
        record = TrainingRecord(0.0, 0.0, 0.0, self._machine(), _now())
        scores = [torch.zeros(len(self._data.train))] * (count if self._config.record_el2n else 0)

        def snapshots(expert: int) -> Iterator[Snapshot]:
            for place in range(len(metadata.epochs)):
                trainer.initialise(expert * len(metadata.epochs) + place)
                yield trainer.snapshot()

        if count:
            experts = ((record, snapshots(each)) for each in range(count))
            expert_writer.write(path, metadata, experts, count, scores)

    def _train_all(self, trainer: Trainer, missing: range, done: int, signals: list[Interrupted]) -> int:
        """Train the missing experts until a callback stops it; return how many of them are finished."""
        finished = 0
        for expert in missing:
            for entry in self._train(trainer, expert, signals):
                done += 1
                self._observer.on_epoch(entry | {"done": done})
                if self._observer.stop and done < len(missing) * self._config.epochs:
                    finished += entry["epoch"] == self._config.epochs
                    return finished
            finished += 1
        return finished

    def _write(self, existing: ExpertFile | None, missing: range, metadata: ExpertMetadata) -> ExpertFile:
        """Write the file: the experts that it holds, and those that are finished now.

        Args:
            existing: the file as it is.
            missing: numbers of the finished experts that it lacks.
            metadata: once more, as the compiler may have failed since.

        Raises:
            UserError: there is none; or the file cannot be written.
        """
        stop, count = self._observer.stop, missing.stop
        if stop and count < self._config.count:
            self._observer.on_notice(
                f"stopped by a callback with {count} of {self._config.count} experts: {stop}; "
                "resume=True goes on"
            )
        if not count:
            raise UserError(
                f"stopped before the first expert was finished, so that there is no file: {stop}; "
                "resume=True (--resume) goes on"
            )
        if existing and not missing:
            return existing
        earlier = _experts(existing) if existing else iter(())
        new = ((self._workdir.record(expert), self._workdir.snapshots(expert)) for expert in missing)
        expert_writer.write(
            self._output, metadata, chain(earlier, new), count, self._scores(existing, missing)
        )
        if existing:
            existing.close()
        finished = ExpertFile.open(self._output)
        if count == self._config.count:
            self._workdir.clear()
        else:
            self._workdir.clear_written(count)
        return finished

    def _scores(self, existing: ExpertFile | None, missing: range) -> list[Tensor]:
        """Return the EL2N of the training images by each expert, if it is recorded."""
        if not self._config.record_el2n:
            return []
        earlier = [existing.el2n(expert) for expert in range(existing.count)] if existing else []
        return earlier + [self._workdir.tensor(expert, EL2N) for expert in missing]

    def _estimate(self, trainer: Trainer, missing: range, start: TrainingStart) -> RunEstimate:
        """Estimate the training until the last expert is trained: epochs, what each saves, and the metrics.

        A dry run saves nothing, so that the seconds of saving are not among its own.
        """
        config, workdir, dry = self._config, self._workdir, self._observer.dry
        done = [0 if dry else workdir.epochs_done([expert]) for expert in missing]
        epochs = [epoch + 1 for number in done for epoch in range(number, config.epochs)]
        unfinished = sum(number < config.epochs for number in done)
        stored = sum(epoch in config.stored_epochs for epoch in epochs)
        trainer.initialise(missing.start)
        state = trainer.state_dict()
        saving = 0.0 if dry else workdir.seconds_of_saving(state)
        pace = trainer.pace()
        seconds = len(epochs) * (pace.epoch + saving) + stored * saving + unfinished * pace.metrics
        if trainer.unseen:
            seconds += stored * pace.metrics * len(trainer.unseen) / trainer.images
        checkpoints = 2 * len(missing) * sum(each.nbytes for each in state.values())
        unwritten = len(missing) * start.file_bytes // config.count
        return RunEstimate(
            covers="experts",
            amount=len(epochs),
            work="epochs",
            seconds=seconds,
            warm_up=pace.warm_up,
            memory_bytes=trainer.memory_bytes(),
            process_bytes=process_memory(self._device),
            disk={"file": start.file_bytes, "until it is written": unwritten + checkpoints},
        )

    def _existing(self, resume: bool, overwrite: bool) -> ExpertFile | None:
        """Open the file if it holds the first of the experts to train; None if all are to be trained.

        Raises:
            UserError: it holds no experts, or no others may be added to them; a dry run trains all then.
        """
        try:
            return self._checked_existing(resume, overwrite)
        except UserError:
            if not self._observer.dry:
                raise
            return None

    def _checked_existing(self, resume: bool, overwrite: bool) -> ExpertFile | None:
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
        before, now = metadata.fingerprint, self._data.train.fingerprint
        if before != now:
            return "fingerprint", before[:8] + "…", now[:8] + "…"
        return difference(files.parse_toml(metadata.config), self._config)

    def _train(self, trainer: Trainer, expert: int, signals: list[Interrupted]) -> Iterator[dict[str, Any]]:
        """Train one expert from its latest state; yield an entry for every epoch that has been saved."""
        config, workdir = self._config, self._workdir
        trainer.initialise(expert)
        first, seconds = 0, 0.0
        if checkpoint := workdir.restore(expert, self._observer.on_notice):
            state, first, seconds = checkpoint
            tested = state.pop(self._accuracy, torch.empty(0)).tolist()
            trainer.load_state_dict(state)
        else:
            tested = self._stored(trainer, expert, 0)
        for epoch in range(first, config.epochs):
            since = time.monotonic()
            loss = trainer.train_epoch(expert, epoch, signals)
            done = epoch + 1
            if not math.isfinite(loss):
                raise NonFiniteLoss(
                    f"expert {expert}, epoch {done}: the mean loss is {loss}; "
                    "start anew with a lower lr and --overwrite"
                )
            accuracy = self._stored(trainer, expert, done)
            tested += accuracy
            if done == config.epochs and done not in config.stored_epochs:
                trainer.finish_epoch()  # which storing does otherwise
            metrics = trainer.training_metrics() if done == config.epochs else None
            seconds += time.monotonic() - since
            accuracies: dict[str, Any] = {self._accuracy: tuple(tested)} if tested else {}
            record = metrics and TrainingRecord(*metrics, seconds, self._machine(), _now(), **accuracies)
            state = trainer.state_dict()
            state |= {name: torch.tensor(each, dtype=torch.float64) for name, each in accuracies.items()}
            workdir.save(expert, done, seconds, state, record)
            entry = {"expert": expert, "epoch": done, "loss": loss, "seconds": seconds}
            yield entry | ({self._accuracy: accuracy[0]} if accuracy else {})

    def _stored(self, trainer: Trainer, expert: int, epoch: int) -> list[float]:
        """Store the weights of an epoch, if they are to be kept.

        Returns:
            the accuracy on images that no step sees, if it is to be kept with them.
        """
        if epoch not in self._config.stored_epochs:
            return []
        if epoch:
            trainer.finish_epoch()
        self._workdir.save_snapshot(expert, epoch, trainer.snapshot())
        return [trainer.unseen_accuracy()] if trainer.unseen else []

    def _metadata(self, layout: Layout) -> ExpertMetadata:
        config, task = self._config, self._data.task
        return ExpertMetadata(
            network=file_name(config.network),
            layout=layout,
            dataset=task.name,
            fingerprint=self._data.train.fingerprint,
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
        self._observer.on_notice(sentence)

    def _machine(self) -> str:
        return provenance.machine_name(torch.device(self._config.compute.device))


def parts(output: Path) -> Path:
    """Return the folder of the experts that are not in the file yet."""
    return output.with_name(output.name + ".parts")


def _experts(file: ExpertFile) -> Iterator[Expert]:
    """Yield the experts of a file."""
    for expert, record in enumerate(file.training):
        yield record, (file.snapshot(expert, epoch) for epoch in file.epochs)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
