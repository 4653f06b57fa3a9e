"""The public call `label`: the teacher's epoch where it is to be chosen, then the labelling."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from dsdistill import files
from dsdistill.data.sources import DataSource
from dsdistill.errors import UserError
from dsdistill.labelling.config import Weights, resolve
from dsdistill.labelling.run import run
from dsdistill.labelling.summary import LabelSummary
from dsdistill.networks import NetworkFactory
from dsdistill.pipeline.stopping import StopData, choose_epoch
from dsdistill.runtime import launch
from dsdistill.runtime.callbacks import DryRunEnd, Listener, Observer
from dsdistill.runtime.ranks import current
from dsdistill.synthetic.answers import Encoding
from dsdistill.synthetic.views import Mixing
from dsdistill.teachers.committee import Mean, Mode
from dsdistill.teachers.reference import teacher_names


def label(
    file: str | Path,
    output: str | Path,
    *,
    teachers: str | Path | Sequence[str | Path],
    weights: Weights | None = None,
    mean: Mean | None = None,
    mode: Mode | None = None,
    parts: int | None = None,
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
    stop: Literal["auto"] | None = None,
    dataset: DataSource | None = None,
    root: str | Path | None = None,
    protocol: str | Path | None = None,
    network: str | NetworkFactory | None = None,
    device: str = "auto",
    precision: str = "auto",
    download: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[Listener] = (),
) -> LabelSummary:
    """Have teachers label a distilled set, and write the set with their labels.

    >>> summary = dsdistill.label("set.h5", "labelled.h5", teachers="pool.h5@1")
    >>> dsdistill.load("labelled.h5", labels="soft")[3][1].shape
    torch.Size([10])

    Without ``views`` every image gets one row of logits. With them a teacher answers to augmented views,
    which are stored and replayed to students (FKD; SRe2L). The real data are read only to choose an epoch.

    Args:
        file: a distilled set. Labels by teachers that it has are replaced, its hard labels and the weights of
            its images stay.
        output: the HDF5 file to write.
        teachers: a file of experts, ``FILE@EPOCH``, ``FILE#EXPERT@EPOCH`` or ``FILE#all``; several, in a list
            or with commas, are a committee. They must be of the set's data, classes and preprocessing.
        weights: of a committee: "equal" (default), numbers of which only proportions count, or "accuracy" on
            the training images that each teacher held out (option ``test`` "validation" of `train_experts`).
        mean: what is averaged: "logits" (default) or "probabilities".
        mode: "eval" (default), or "train": teachers normalise by the statistics of each batch (CV-DD).
        parts: of a batch, each normalised on its own in mode "train"; default 1, CV-DD 2.
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
        stop: "auto" chooses the epoch of the teacher, which is one expert's file then: students are trained
            on the set with static labels of each of several stored epochs, and tested on the training images
            that the teacher held out; if it held out none, on a random part of those it was trained on. The
            smaller the set, the earlier the epoch (Qin et al., NeurIPS 2024).
        dataset, root: the real data, as `evaluate` takes them; for ``stop`` alone.
        protocol, network: of the students, as `evaluate` takes them; for ``stop`` alone.
        device, precision: of the computation, as `evaluate` takes them.
        download: fetch published weights, or a data set for ``stop``, that this machine lacks.
        resume: go on with an interrupted labelling; bit-identical on the same CPU and number of threads.
        overwrite: replace an earlier output, or the set itself if that is the output.
        callbacks: listen to the labelling, and may stop it: see `Callback`.

    Returns:
        what was written, with the bytes of images and labels.

    Raises:
        UserError: bad input; a teacher of other data, classes or preprocessing, or without the accuracy to
            weigh it by; or a callback stopped it.
        Interrupted: on SIGINT, SIGTERM, SIGHUP or SIGUSR1, with views; finished epochs are kept.
    """
    file, output = files.expanded(file), files.expanded(output).absolute()
    config = resolve(
        teachers=teacher_names(teachers),
        weights=weights,
        mean=mean,
        mode=mode,
        parts=parts,
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
    ranks = current()
    resume = resume or launch.attempt() > 0
    with Observer.of_rank(callbacks, ranks) as observer:
        curve = None
        if stop not in (None, "auto"):
            raise UserError(f"stop is auto, not {stop!r}; a fixed epoch is the teacher's: FILE@EPOCH")
        if stop and not observer.dry:
            source = StopData(dataset, root, protocol, network, download)
            curve = choose_epoch(file, config, source, device, precision, observer, ranks)
            config = dataclasses.replace(config, teachers=(curve.reference,))
        with _choice_left_out(stop is not None):
            summary = run(
                file,
                output,
                config,
                observer,
                device=device,
                precision=precision,
                resume=resume,
                overwrite=overwrite,
                download=download,
                attributes={} if curve is None else {"stop_curve": curve.to_json()},
                ranks=ranks,
            )
        if curve is not None:
            summary = dataclasses.replace(summary, curve=curve.points)
        observer.on_end(summary)
    return summary


@contextmanager
def _choice_left_out(chooses: bool) -> Iterator[None]:
    """Say in the estimate of a dry run that it leaves the choice of an epoch out, which trains students.

    Raises:
        DryRunEnd: of a dry run.
    """
    try:
        yield
    except DryRunEnd as end:
        if not chooses:
            raise
        left_out = "the choice of the teacher's epoch (stop), whose students would have to be trained first"
        raise DryRunEnd(dataclasses.replace(end.estimate, leaves_out=left_out)) from end
