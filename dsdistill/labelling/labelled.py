"""The core of labelling: a set in memory and teachers go in, the set with labels comes out."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import get_args

from torch import Tensor

from dsdistill.config.presets import PROTOCOLS
from dsdistill.labelling.answering import ViewAnswers, images_at_once, measured, static_logits
from dsdistill.labelling.config import LabellingConfig
from dsdistill.labelling.draws import ViewDraws
from dsdistill.labelling.parts import LabelParts
from dsdistill.labelling.start import LabellingStart
from dsdistill.labelling.view_run import ViewRun
from dsdistill.protocol import load_protocol
from dsdistill.runtime.allocations import beside_tensors, peak_of
from dsdistill.runtime.board import Tally
from dsdistill.runtime.callbacks import Observer
from dsdistill.runtime.estimate import RunEstimate
from dsdistill.runtime.pace import PaceMeter
from dsdistill.runtime.ranks import ALONE, Ranks
from dsdistill.synthetic.distilled import DistilledSet, Scalar
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from dsdistill.teachers import Committee
from dsdistill.teachers.committee import Unseen

WORTHWHILE = 50_000
"""Images or views below which labelling is over before its estimate would be."""

_STORED_COPIES = 3
"""Copies of the labels while a set is stored: its own, the file that is made, and what is read back of it."""

_OF_LABELS = (
    *("labels", "labelling", "own_protocol", "stop_curve"),
    *("teacher", "teacher_digest", "teacher_mean", "teacher_mode", "teacher_precision"),
    *("teacher_parts", "teacher_epochs"),
    *("teacher_accuracies", "teacher_test_accuracies", "teacher_validation_accuracies"),  # first: an old name
)


def labelled(
    distilled: DistilledSet,
    committee: Committee,
    config: LabellingConfig,
    *,
    mirror: bool = True,
    observer: Observer | None = None,
    parts: LabelParts | None = None,
    ranks: Ranks = ALONE,
) -> DistilledSet:
    """Return a set with a committee's labels, in place of the soft labels or views that it has.

    Where several processes share the work, static labels are in all of them, views in the first alone.

    Args:
        distilled: the set; it does not change. Of a multi-formation the decoded images are labelled.
        committee: on the device that computes, for the classes and the preprocessing of the set.
        config: what is labelled, and how it is stored.
        mirror: whether a mirrored image keeps its label, for views with ``flip`` "auto".
        observer: the callbacks.
        parts: where finished epochs of views are kept, and read from; None to keep them in memory alone,
            which several processes cannot.
        ranks: the processes that share the images, or the epochs of views.

    Raises:
        UserError: the set cannot be labelled so, an answer cannot be stored, or a callback stopped it.
        Interrupted: on a signal; every finished epoch of views is in ``parts``.
    """
    observer = observer or Observer()
    config.check(distilled)
    bare = dataclasses.replace(distilled, soft_labels=None, views=None)
    data = DistilledDataset(bare)
    images, attributes = data.images.to(committee.device), about(bare, committee, config)
    start = LabellingStart(bare, committee, config, len(images))
    if config.kind == "static":
        observer.on_start(start)
        logits = _static(images, len(bare.classes), committee, config, observer, ranks)
        return dataclasses.replace(bare, soft_labels=logits, attributes=attributes)
    flip = mirror if config.flip == "auto" else config.flip
    draws = ViewDraws(config, len(images), images.shape[-1], flip)
    answers = ViewAnswers(images, data.labels, committee, draws, bare.digest)
    run = ViewRun(answers, observer, parts, ranks)
    observer.on_start(dataclasses.replace(start, total=answers.total, done=run.done))
    left = answers.total - run.done
    each = config.bytes_of_view(len(bare.classes))
    label_bytes, memory = left * each, functools.partial(_memory, images, committee, answers.total * each)
    _estimate(observer, left, "views", answers.pace, label_bytes, memory, run.share)
    return dataclasses.replace(bare, views=run.views(), attributes=attributes)


def _static(
    images: Tensor,
    classes: int,
    committee: Committee,
    config: LabellingConfig,
    observer: Observer,
    ranks: Ranks,
) -> Tensor:
    """Return the logits of images, float32 [N, K], on the CPU."""
    some, tally = images[: images_at_once(images)], Tally(ranks.board())

    def pace() -> PaceMeter:
        return measured(len(some), lambda: committee.logits(some).cpu())

    def tick(done: int) -> None:
        observer.on_progress("labelling", tally.total(done), len(images))

    label_bytes = 4 * len(images) * classes
    memory = functools.partial(_memory, images, committee, label_bytes)
    _estimate(observer, len(images), "images", pace, label_bytes, memory, 1 / ranks.count)
    return static_logits(images, committee, config, tick, ranks)


def _memory(images: Tensor, committee: Committee, label_bytes: int) -> int:
    """Estimate what labelling takes: images, teachers, and the largest pass, or storing labels."""
    some = images[: images_at_once(images)]
    teachers = sum(each.nbytes for one in committee.teachers for each in one.network.parameters())
    peak = peak_of(lambda: committee.logits(some))
    answering = peak + beside_tensors(peak, committee.device, compiled=False) + label_bytes
    return images.nbytes + teachers + max(answering, _STORED_COPIES * label_bytes)


def _estimate(
    observer: Observer,
    amount: int,
    work: str,
    pace: Callable[[], PaceMeter],
    label_bytes: int,
    memory: Callable[[], int],
    share: float,
) -> None:
    """Tell what is left will take, where that is long enough to be worth knowing.

    Args:
        share: of the amount, that of this process.
    """
    if observer.silent or (amount < WORTHWHILE and not observer.dry):
        return
    measurement = pace()
    observer.on_estimate(
        RunEstimate(
            amount=amount,
            work=work,
            seconds=share * amount * measurement.step,
            warm_up=measurement.warm_up,
            memory_bytes=memory(),
            disk={"labels": label_bytes} if label_bytes else {},
            label_bytes=label_bytes,
            covers="labelling",
        )
    )


def about(distilled: DistilledSet, committee: Committee, config: LabellingConfig) -> dict[str, Scalar]:
    """Return the attributes of a labelled set: those of the set, whose labels it has, and the protocol that
    suits them."""
    teachers = committee.teachers
    attributes = {key: value for key, value in distilled.attributes.items() if key not in _OF_LABELS}
    if own := distilled.attributes.get("own_protocol"):  # earlier labels have replaced it
        attributes["protocol"] = own
    attributes |= {
        "labels": config.kind,
        "labelling": identity(distilled, committee, config),
        "teacher": committee.name,
        "teacher_digest": committee.digest,
        "teacher_mean": committee.mean,
        "teacher_mode": committee.mode,
        "teacher_precision": committee.precision,
    }
    if committee.parts > 1:
        attributes["teacher_parts"] = committee.parts
    if all(each.epoch is not None for each in teachers):
        attributes["teacher_epochs"] = ", ".join(str(each.epoch) for each in teachers)
    for images in get_args(Unseen):
        if accuracies := committee.accuracies(images):
            attributes[f"teacher_{images}_accuracies"] = ", ".join(f"{each:.4f}" for each in accuracies)
    if config.protocol is not None and not _replays(attributes.get("protocol"), config):
        attributes["own_protocol"] = attributes.get("protocol", "dm")
        attributes["protocol"] = config.protocol
    return attributes


def _replays(name: Scalar | None, config: LabellingConfig) -> bool:
    """Whether a protocol that ships replays such labels."""
    if name not in PROTOCOLS.names():
        return False
    labels = load_protocol(str(name)).labels
    same_answers = (labels.loss == "dbr") == (config.encoding == "distances")
    return labels.source == "views" and same_answers and labels.teacher_mode == config.mode


def identity(distilled: DistilledSet, committee: Committee, config: LabellingConfig) -> str:
    """Return what identifies labels, as JSON: the options, the images and the teachers."""
    identified = {"images": distilled.digest, "committee": committee.digest, "precision": committee.precision}
    return json.dumps(config.shared() | identified, sort_keys=True)
