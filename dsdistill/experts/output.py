"""The file of a training of experts: what it holds before, and what is written in the end."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor

from dsdistill import files
from dsdistill.errors import UserError
from dsdistill.experts.config import ExpertConfig, difference
from dsdistill.experts.trainer import EL2N
from dsdistill.experts.workdir import WorkDir
from dsdistill.runtime.callbacks import Observer
from dsdistill.storage import expert_writer
from dsdistill.storage.expert_file import Expert, ExpertFile, ExpertMetadata


class ExpertOutput:
    """The file that a training writes.

    Attributes:
        path: of the file.
    """

    def __init__(self, path: Path, config: ExpertConfig, workdir: WorkDir, observer: Observer) -> None:
        """Name it; nothing is read or written.

        Args:
            path: of the file.
            config: of the training.
            workdir: where experts are that are not in the file yet.
            observer: the callbacks.
        """
        self.path = path
        self._config, self._workdir, self._observer = config, workdir, observer

    def existing(self, resume: bool, overwrite: bool) -> ExpertFile | None:
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
        output, count = self.path, self._config.count
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
        before, now = metadata.fingerprint, self._workdir.fingerprint
        if before != now:
            return "fingerprint", before[:8] + "…", now[:8] + "…"
        return difference(files.parse_toml(metadata.config), self._config)

    def write(self, existing: ExpertFile | None, missing: range, metadata: ExpertMetadata) -> ExpertFile:
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
        expert_writer.write(self.path, metadata, chain(earlier, new), count, self._scores(existing, missing))
        if existing:
            existing.close()
        finished = ExpertFile.open(self.path)
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


def _experts(file: ExpertFile) -> Iterator[Expert]:
    """Yield the experts of a file."""
    for expert, record in enumerate(file.training):
        yield record, (file.snapshot(expert, epoch) for epoch in file.epochs)
