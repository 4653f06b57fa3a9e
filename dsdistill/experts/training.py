"""Training the experts that a file lacks, and writing the file.

Where several processes share them, each trains whole experts and writes their parts. The first writes the
file, and all else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from dsdistill.config.sharing import file_name
from dsdistill.errors import NonFiniteLoss
from dsdistill.experts.config import ExpertConfig, compiled_options, for_sharing
from dsdistill.experts.images import ExpertData
from dsdistill.experts.output import ExpertOutput
from dsdistill.experts.start import TrainingStart
from dsdistill.experts.trainer import Trainer
from dsdistill.experts.workdir import WorkDir
from dsdistill.networks.layout import Layout
from dsdistill.runtime import compiled_runs, provenance
from dsdistill.runtime.callbacks import Observer, StopRun
from dsdistill.runtime.device import process_memory
from dsdistill.runtime.estimate import RunEstimate
from dsdistill.runtime.notice import Notify, silent
from dsdistill.runtime.ranks import ALONE, Ranks
from dsdistill.runtime.signals import Interrupted, deferred_signals
from dsdistill.storage import expert_writer
from dsdistill.storage.expert_file import ExpertFile, ExpertMetadata, Snapshot, TrainingRecord

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
        ranks: Ranks = ALONE,
    ) -> None:
        """Prepare; nothing is read or written.

        Args:
            output: the file.
            config: without any ``auto``.
            data: the images; those of test where the accuracy on them is to be stored.
            device: that computes.
            observer: the callbacks.
            too_short: the training is not compiled because it would not make up for the time that takes.
            ranks: the processes that share the experts.
        """
        self._ranks = ranks
        self._output, self._config, self._device = output, config, device
        self._data = data
        self._observer, self._too_short = observer, too_short
        self._workdir = WorkDir(parts(output), config, data.train.fingerprint)
        self._file = ExpertOutput(output, config, self._workdir, observer)
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
        config, observer = self._config, self._observer
        existing = self._file.existing(resume, overwrite)
        if existing and existing.count == config.count and not observer.dry:
            if self._ranks.is_first:
                self._workdir.clear_written(existing.count)
            return existing
        missing = range(existing.count if existing else 0, config.count)
        trainer = self._trainer(observer.on_notice if observer.dry else self._uncompiled)
        metadata = self._metadata(trainer.layout)
        expert_writer.check_storable(metadata)
        self._ranks.wait()  # until all have seen the file as it is
        done = self._begin(missing, resume, overwrite, metadata) if self._ranks.is_first else 0
        self._ranks.check_shared(self._workdir.path)
        start = TrainingStart(
            config,
            self._data.task,
            self._data.train,
            parameters=trainer.layout.sizes[0],
            file_bytes=config.count * metadata.expert_bytes,
            existing=missing.start,
            epochs_done=done,
            epochs=len(missing) * config.epochs,
            held_out=len(self._data.train) - trainer.images,
            too_short=self._too_short,
        )
        observer.on_start(start)
        return self._train_and_write(existing, missing, trainer, start)

    def _trainer(self, notify: Notify, test: bool = True) -> Trainer:
        """Return what trains the experts.

        Args:
            notify: receives a notice if the compiler fails.
            test: whether it is to know the test images.
        """
        data = self._data
        unseen = data.test if test else None
        return Trainer(self._config, data.task, data.train, self._device, notify, unseen)

    def _begin(self, missing: range, resume: bool, overwrite: bool, metadata: ExpertMetadata) -> int:
        """Make the folder of unfinished experts, or accept it, and return the epochs that are finished.

        Raises:
            UserError: it holds something else, or the disk is too full.
        """
        config, observer, workdir = self._config, self._observer, self._workdir
        done = workdir.epochs_done(missing) if resume else 0
        unwritten = len(missing) - done / config.epochs
        expert_writer.check_space(self._output, int((config.count + unwritten) * metadata.expert_bytes))
        if observer.dry:
            return done
        if resume and not (missing.start or done or workdir.path.exists()):
            observer.on_notice(f"there are no experts in {workdir.path} to resume: starting anew")
        workdir.begin(resume, overwrite)
        workdir.drop_damaged(missing, observer.on_notice)
        return workdir.epochs_done(missing)

    def _train_and_write(
        self, existing: ExpertFile | None, missing: range, trainer: Trainer, start: TrainingStart
    ) -> ExpertFile:
        """Train the missing experts, and write the file."""
        observer, ranks = self._observer, self._ranks
        with deferred_signals() as signals:
            own = self._dealt(missing)
            if ranks.is_first and (start.epochs_done < start.epochs or observer.dry):
                observer.on_estimate(self._estimate(trainer, missing, own, start))
            self._train_all(trainer, own, start, signals)
            ranks.wait()  # until all have trained theirs
            if not ranks.is_first:
                ranks.check_shared(self._output)  # once it is written
                return ExpertFile.open(self._output)
            finished = self._finished(missing)
            if self._config.compute.compile and finished:
                options = compiled_options(self._config, self._data.train)
                compiled_runs.remember(self._config.compute.code(options))
            written = self._file.write(existing, missing[:finished], self._metadata(trainer.layout))
            ranks.check_shared(self._output)
            return written

    def _dealt(self, missing: range) -> list[int]:
        """Return which of the missing experts this process trains."""
        ranks, epochs = self._ranks, self._config.epochs
        if ranks.count == 1:
            return list(missing)
        done = [self._workdir.epochs_done([expert]) for expert in missing] if ranks.is_first else []
        left = [epochs - each for each in json.loads(ranks.of_first(json.dumps(done)))]
        unfinished = sum(each > 0 for each in left)
        if 0 < unfinished < ranks.count:
            experts = "1 expert" if unfinished == 1 else f"{unfinished} experts"
            idle = ranks.count - unfinished
            verb = "has" if idle == 1 else "have"
            self._observer.on_notice(f"{experts} and {ranks.count} processes: {idle} {verb} nothing to do")
        owners = ranks.deal(left)
        return [
            expert
            for expert, epochs_left, owner in zip(missing, left, owners, strict=True)
            if epochs_left and owner == ranks.index
        ]

    def write_untrained(self, path: Path) -> None:
        """Write a file like that of the experts, whose weights are all random: what follows is timed with it.

        It holds as many experts as `_STAND_IN_BYTES` allow. If that is none, no file is written.
        """
        trainer = self._trainer(silent, test=False)
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

    def _train_all(
        self, trainer: Trainer, experts: Sequence[int], start: TrainingStart, signals: list[Interrupted]
    ) -> None:
        """Train experts until a callback, here or in another process, stops it."""
        board = self._ranks.board()
        with contextlib.suppress(StopRun), board.stops_others():
            for expert in experts:
                for entry in self._train(trainer, expert, signals):
                    done = start.epochs_done + board.add("epochs", 1)
                    self._observer.on_epoch(entry | {"done": done})
                    if self._observer.stop and done < start.epochs:
                        raise self._observer.stop
                    if board.is_stopped:
                        return

    def _finished(self, missing: range) -> int:
        """Return how many experts, from the first missing one on, are trained to the end."""
        epochs = self._config.epochs
        done = (self._workdir.epochs_done([expert]) == epochs for expert in missing)
        return sum(1 for _ in itertools.takewhile(bool, done))

    def _estimate(
        self, trainer: Trainer, missing: range, own: Sequence[int], start: TrainingStart
    ) -> RunEstimate:
        """Estimate the training until the last expert is trained: epochs, what each saves, and the metrics.

        A dry run saves nothing, so that the seconds of saving are not among its own. Where processes share
        the experts, each has about as much to do.

        Args:
            own: those of the missing experts that this process trains.
        """
        config, workdir, dry = self._config, self._workdir, self._observer.dry
        done = [0 if dry else workdir.epochs_done([expert]) for expert in own]
        epochs = [epoch + 1 for number in done for epoch in range(number, config.epochs)]
        unfinished = sum(number < config.epochs for number in done)
        stored = sum(epoch in config.stored_epochs for epoch in epochs)
        trainer.initialise(missing.start)
        state = trainer.state_dict()
        saving = 0.0 if dry else workdir.seconds_of_saving(state)
        pace = trainer.pace(len(epochs) * trainer.batches)
        seconds = len(epochs) * (pace.epoch + saving) + stored * saving + unfinished * pace.metrics
        if trainer.unseen:
            seconds += stored * pace.metrics * len(trainer.unseen) / trainer.images
        checkpoints = 2 * len(missing) * sum(each.nbytes for each in state.values())
        unwritten = len(missing) * start.file_bytes // config.count
        return RunEstimate(
            covers="experts",
            amount=start.epochs - start.epochs_done,
            work="epochs",
            seconds=seconds,
            warm_up=pace.warm_up,
            memory_bytes=trainer.memory_bytes(),
            process_bytes=process_memory(self._device),
            disk={"file": start.file_bytes, "until it is written": unwritten + checkpoints},
        )

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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
