"""Labelling a file: from the names of a set and of teachers to a file with labels."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsdistill import files
from dsdistill.config.unlabelled import check_labelled
from dsdistill.data import catalog
from dsdistill.errors import UserError
from dsdistill.labelling.committee import load_committee
from dsdistill.labelling.config import LabellingConfig
from dsdistill.labelling.labelled import identity, labelled
from dsdistill.labelling.parts import LabelParts
from dsdistill.labelling.summary import LabelSummary
from dsdistill.runtime.callbacks import Observer
from dsdistill.runtime.device import full_float32, resolve_device, resolve_precision
from dsdistill.runtime.notice import Notify
from dsdistill.runtime.ranks import ALONE, Ranks
from dsdistill.storage import origin, set_file, set_results
from dsdistill.storage.set_description import describe
from dsdistill.synthetic.distilled import DistilledSet, Scalar
from dsdistill.teachers import Committee


def run(
    file: Path,
    output: Path,
    config: LabellingConfig,
    observer: Observer,
    *,
    device: str = "auto",
    precision: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    download: bool = False,
    attributes: Mapping[str, Scalar] | None = None,
    ranks: Ranks = ALONE,
) -> LabelSummary:
    """Label a set's file and write the set with labels.

    Args:
        file: a distilled set.
        output: absolute path of the file to write.
        config: who answers, to what, and how the answers are stored.
        observer: the callbacks.
        device, precision: of the computation.
        resume: go on with an interrupted labelling.
        overwrite: replace an earlier output, or the set itself if that is the output.
        download: fetch published weights that this machine lacks.
        attributes: more of them, for the file.
        ranks: the processes that share the work; the first writes the file.

    Raises:
        UserError: bad input; a teacher of other data, classes or preprocessing; or a callback stopped it.
        Interrupted: on a signal, with views; finished epochs are kept.
    """
    with files.hold_outputs([output], "a labelling", observer.writes_nothing):
        job = _Job(file, output, config, set_file.read(file), observer, ranks)
        need = "teachers answer with the classes that images may be of"
        check_labelled(job.distilled.classes, str(file), need, "label a set that has classes")
        config.check(job.distilled)
        place = resolve_device(device)
        arithmetic = resolve_precision(precision, place, observer.on_notice)
        committee = load_committee(job.distilled, config, place, arithmetic, download)
        label_identity = identity(job.distilled, committee, config)
        ranks.check_same({"images, teachers or options": label_identity})
        result = _finished(output, label_identity) if resume and not observer.dry else None
        if result is None:
            job.check_output(overwrite)
            ranks.wait()  # until all have seen what is there
            parts = job.parts(label_identity, resume, overwrite)
            with full_float32():
                result = job.write(committee, parts, attributes or {})
        if config.kind == "views" and ranks.is_first:
            LabelParts(output, label_identity).clear()
    return LabelSummary.of(output, config.kind, result)


@dataclass(frozen=True, eq=False)
class _Job:
    """One labelling: what is read and written, and who listens."""

    file: Path
    output: Path
    config: LabellingConfig
    distilled: DistilledSet
    observer: Observer
    ranks: Ranks

    def check_output(self, overwrite: bool) -> None:
        """Check before the work that its result can be written.

        Raises:
            UserError: it cannot, or it would replace a file that is to stay.
        """
        in_place = os.path.realpath(self.output) == os.path.realpath(self.file)
        if in_place and not overwrite:
            raise UserError(
                f"{self.output} is the set itself; choose another name, or pass --overwrite to replace it"
            )
        set_file.check_writable(self.output, overwrite, ", or pass --overwrite")
        if in_place and set_results.results(self.file):
            self.observer.on_notice(f"the results in {self.file} are of its earlier labels and go with them")

    def parts(self, label_identity: str, resume: bool, overwrite: bool) -> LabelParts | None:
        """Return where finished epochs of views are kept; None where none are."""
        if self.config.kind == "static" or self.observer.dry:
            return None
        parts, ranks = LabelParts(self.output, label_identity), self.ranks
        if ranks.is_first:
            parts.begin(resume, overwrite, self.observer.on_notice)
        if ranks.count > 1:  # all write there
            if ranks.is_first:
                parts.make()
            ranks.check_shared(parts.path)
        return parts

    def write(
        self, committee: Committee, parts: LabelParts | None, attributes: Mapping[str, Scalar]
    ) -> DistilledSet:
        """Label the set, write it, its pixels stored as they are, and return it.

        Args:
            attributes: more of them.
        """
        distilled, observer, ranks = self.distilled, self.observer, self.ranks
        earlier = {"soft labels": distilled.soft_labels, "views": distilled.views}
        if dropped := [name for name, labels in earlier.items() if labels is not None]:
            observer.on_notice(f"the {' and '.join(dropped)} that {self.file.name} has are replaced")
        asks = self.config.kind == "views" and self.config.flip == "auto"
        mirror = not asks or mirrors(distilled, observer.on_notice)
        result = labelled(
            distilled, committee, self.config, mirror=mirror, observer=observer, parts=parts, ranks=ranks
        )
        if not ranks.is_first:
            ranks.check_shared(self.output)  # once it is written
            return set_file.read(self.output)
        result = dataclasses.replace(result, attributes={**result.attributes, **attributes})
        dtype = describe(self.file).dtype  # None where pixels are coded, which `result` knows
        set_file.write(self.output, result, dtype, observer.on_notice)
        ranks.check_shared(self.output)
        return result


def _finished(output: Path, label_identity: str) -> DistilledSet | None:
    """Return the set in a file if it has exactly the labels that are asked for: a kill came after it was
    written."""
    if not output.exists():
        return None
    try:
        distilled = set_file.read(output)
    except UserError:
        return None
    return distilled if distilled.attributes.get("labelling") == label_identity else None


def mirrors(distilled: DistilledSet, notify: Notify) -> bool:
    """Whether a mirrored image of a set's data keeps its label, by the data's name or options in the set.

    Args:
        notify: receives a sentence where nobody knows, and the answer is no.
    """
    stored: dict[str, Any] = {}
    with contextlib.suppress(UserError):  # options that nobody can read tell nothing
        stored = origin.stored_data(distilled.attributes)
    if isinstance(explicit := stored.get("mirror"), bool):
        return explicit
    name = str(stored.get("name") or distilled.attributes.get("dataset", ""))
    try:
        return catalog.mirrors(name)
    except UserError:
        notify(f"nobody knows whether mirrored images of {name or 'these data'} keep their labels: none are")
        return False
