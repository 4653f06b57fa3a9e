"""The public call `label`: from the names of a set and of teachers to a file with labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dsdistill import files
from dsdistill.data import catalog
from dsdistill.errors import UserError
from dsdistill.labelling.committee import load_committee
from dsdistill.labelling.config import LabellingConfig, Weights, resolve
from dsdistill.labelling.labelled import identity, labelled
from dsdistill.labelling.parts import LabelParts
from dsdistill.labelling.summary import LabelSummary
from dsdistill.runtime.callbacks import Listener, Observer
from dsdistill.runtime.device import full_float32, resolve_device, resolve_precision
from dsdistill.runtime.notice import Notify
from dsdistill.storage import origin, set_file
from dsdistill.synthetic.answers import Encoding
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.views import Mixing
from dsdistill.teachers import Committee
from dsdistill.teachers.committee import Mean, Mode


def label(
    file: str | Path,
    output: str | Path,
    *,
    teachers: str | Path | Sequence[str | Path],
    weights: Weights | None = None,
    mean: Mean | None = None,
    mode: Mode | None = None,
    views: int | None = None,
    batch_size: int | None = None,
    crop_scale: tuple[float, float] | None = None,
    flip: bool | Literal["auto"] | None = None,
    mixing: Mixing | None = None,
    beta: float | None = None,
    keep: float | None = None,
    encoding: Encoding | None = None,
    top: int | None = None,
    seed: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[Listener] = (),
) -> LabelSummary:
    """Have teachers label a distilled set, and write the set with their labels.

    >>> summary = dsdistill.label("set.h5", "labelled.h5", teachers="pool.h5@1")
    >>> dsdistill.load("labelled.h5", labels="soft")[3][1].shape
    torch.Size([10])

    Without ``views`` every image gets one row of logits. With them a teacher answers to augmented views,
    which are stored and replayed to students (FKD; SRe2L). The real data are not read.

    Args:
        file: a distilled set. Labels by teachers that it has are replaced, its hard labels and the weights of
            its images stay.
        output: the HDF5 file to write.
        teachers: a file of experts, ``FILE@EPOCH``, ``FILE#EXPERT@EPOCH`` or ``FILE#all``; several, in a list
            or with commas, are a committee. They must be of the set's data, classes and preprocessing.
        weights: of a committee: "equal" (default), or "accuracy" on test images, as their files state it.
        mean: what is averaged: "logits" (default) or "probabilities".
        mode: "eval" (default), or "train": teachers normalise by the statistics of each batch (CV-DD).
        views: of each image; 0, the default, labels the images themselves.
        batch_size: views of a batch, at most; default 64.
        crop_scale: smallest and largest share of the area that is cropped; default (0.08, 1).
        flip: mirror half of the views; default "auto": where a mirrored image of these data keeps its label.
        mixing: "cutmix" (default), "mixup" or "none".
        beta: of its Beta distribution; default 1 for cutmix and 0.8 for mixup.
        keep: share of the batches that are stored, chosen at random (LPLD); default 1.
        encoding: of the answers to views: "float16" (default), "float32", "uint8" (256 levels), "top" (the
            ``top`` largest logits and the rest), or "distances" to the two labels of a mixed image (NRR-DD).
        seed: of every random draw; default 0.
        device, precision: of the computation, as `evaluate` takes them.
        resume: go on with an interrupted labelling; bit-identical on the same CPU and number of threads.
        overwrite: replace an earlier output, or the set itself if that is the output.
        callbacks: listen to the labelling, and may stop it: see `Callback`.

    Returns:
        what was written, with the bytes of images and labels.

    Raises:
        UserError: bad input; a teacher of other data, classes or preprocessing; or a callback stopped it.
        Interrupted: on SIGINT, SIGTERM, SIGHUP or SIGUSR1, with views; finished epochs are kept.
    """
    file, output = files.expanded(file), files.expanded(output).absolute()
    names = [str(teachers)] if isinstance(teachers, str | Path) else [str(each) for each in teachers]
    config = resolve(
        teachers=[text.strip() for name in names for text in name.split(",") if text.strip()],
        weights=weights,
        mean=mean,
        mode=mode,
        views=views,
        batch_size=batch_size,
        crop_scale=crop_scale,
        flip=flip,
        mixing=mixing,
        beta=beta,
        keep=keep,
        encoding=encoding,
        top=top,
        seed=seed,
    )
    with Observer(callbacks) as observer, files.hold_outputs([output], "a labelling", observer.dry):
        job = _Job(file, output, config, set_file.read(file), observer)
        config.check(job.distilled)
        place = resolve_device(device)
        arithmetic = resolve_precision(precision, place, observer.on_notice)
        committee = load_committee(job.distilled, config, place, arithmetic)
        wanted = identity(job.distilled, committee, config)
        result = _finished(output, wanted) if resume and not observer.dry else None
        if result is None:
            job.check_output(overwrite)
            parts = job.parts(wanted, resume, overwrite)
            with full_float32():
                result = job.write(committee, parts)
        if config.kind == "views":
            LabelParts(output, wanted).clear()
        summary = LabelSummary.of(output, config.kind, result)
        observer.on_end(summary)
    return summary


@dataclass(frozen=True, eq=False)
class _Job:
    """One labelling: what is read and written, and who listens."""

    file: Path
    output: Path
    config: LabellingConfig
    distilled: DistilledSet
    observer: Observer

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
        if in_place and set_file.results(self.file):
            self.observer.on_notice(f"the results in {self.file} are of its earlier labels and go with them")

    def parts(self, wanted: str, resume: bool, overwrite: bool) -> LabelParts | None:
        """Return where finished epochs of views are kept; None where none are."""
        if self.config.kind == "static" or self.observer.dry:
            return None
        parts = LabelParts(self.output, wanted)
        parts.begin(resume, overwrite, self.observer.on_notice)
        return parts

    def write(self, committee: Committee, parts: LabelParts | None) -> DistilledSet:
        """Label the set, write it, its pixels stored as they are, and return it."""
        distilled, observer = self.distilled, self.observer
        earlier = {"soft labels": distilled.soft_labels, "views": distilled.views}
        if dropped := [name for name, labels in earlier.items() if labels is not None]:
            observer.on_notice(f"the {' and '.join(dropped)} that {self.file.name} has are replaced")
        asks = self.config.kind == "views" and self.config.flip == "auto"
        mirror = not asks or mirrors(distilled, observer.on_notice)
        result = labelled(distilled, committee, self.config, mirror=mirror, observer=observer, parts=parts)
        dtype = set_file.describe(self.file).dtype
        set_file.write(self.output, result, dtype, observer.on_notice)
        return result


def _finished(output: Path, wanted: str) -> DistilledSet | None:
    """Return the set in a file if it has exactly the labels that are asked for: a kill came after it was
    written."""
    if not output.exists():
        return None
    try:
        found = set_file.read(output)
    except UserError:
        return None
    return found if found.attributes.get("labelling") == wanted else None


def mirrors(distilled: DistilledSet, notify: Notify) -> bool:
    """Whether a mirrored image of a set's data keeps its label, by the data's name or options in the set.

    Args:
        notify: receives a sentence where nobody knows, and the answer is no.
    """
    stored = origin.stored_data(distilled.attributes)
    if isinstance(explicit := stored.get("mirror"), bool):
        return explicit
    name = str(stored.get("name") or distilled.attributes.get("dataset", ""))
    try:
        return catalog.mirrors(name)
    except UserError:
        notify(f"nobody knows whether mirrored images of {name or 'these data'} keep their labels: none are")
        return False
