"""Which labels the students of a planned evaluation learn from, told before anything is distilled."""

from __future__ import annotations

from collections.abc import Iterable

from dsdistill.bench.label_step import CellTeacher, LabelStep
from dsdistill.config.ipc import typical
from dsdistill.config.labels import Source
from dsdistill.distillation.config import RunConfig
from dsdistill.errors import UserError
from dsdistill.evaluation.baselines import needs_teacher
from dsdistill.evaluation.rows import DISTILLED_HARD, LABELLED
from dsdistill.plugs import names_in
from dsdistill.protocol import Protocol


def source_of(
    protocol: Protocol,
    chosen: str,
    config: RunConfig,
    step: LabelStep | None,
    teachers: tuple[CellTeacher, ...],
) -> Source:
    """Return where the labels of students come from.

    Args:
        protocol: with the labels that were chosen.
        chosen: by the suite, in place of the protocol's; or empty.
        step: how the set is labelled.
        teachers: who labels batches.

    Raises:
        UserError: nothing makes the labels that are wanted.
    """
    source = protocol.labels.source
    name = f'labels = "{chosen}"' if chosen else f"protocol {protocol.name!r}"
    kind = step.config.kind if step else None
    if source == "file":
        return "static" if kind == "static" or makes_labels(config) else "hard"
    if source == "static" and not (kind == "static" or makes_labels(config)):
        raise UserError(
            f"{name} trains on stored logits of each image, which nothing makes: write label = {{}} and "
            "teacher = NAME"
        )
    if source == "views":
        _check_views(protocol, step if kind == "views" else None, name)
    if source == "teacher" and not teachers:
        raise UserError(f"{name} has a teacher label every batch: write teacher = NAME of an [experts.NAME]")
    return source


def _check_views(protocol: Protocol, step: LabelStep | None, name: str) -> None:
    """Check that a labelling makes the views that a protocol's loss takes.

    Raises:
        UserError: it makes none, or others.
    """
    if step is None:
        raise UserError(
            f"{name} trains on stored views, which nothing makes: write label = {{ views = "
            f"{protocol.epochs} }} and teacher = NAME"
        )
    distances = step.config.encoding == "distances"
    if distances and protocol.labels.loss != "dbr":
        raise UserError(f'{name} takes logits, and label makes two distances: use protocol = "nrr-dd"')
    if not distances and protocol.labels.loss == "dbr":
        raise UserError(f'{name} takes two distances: write label = {{ encoding = "distances" }}')


def decoded_count(config: RunConfig) -> int:
    """Return the number of training images per class; of a set with compensators, at most so many."""
    count = config.multi_formation.decoded_count(typical(config.ipc))
    compensated = config.synthetic.learn == "compensators"  # of each network one for every image that is left
    return count * (1 + len(names_in(config.network))) if compensated else count


def makes_labels(config: RunConfig) -> bool:
    """Whether a distillation ends with soft labels: learned ones, or those of a network of the run."""
    learned = getattr(getattr(config.engine, "labels", None), "learned", False)
    return config.labels == "teacher" or bool(learned)


def is_possible(baseline: str, source: Source, config: RunConfig, teacher: bool) -> bool:
    """Whether a baseline can be evaluated beside a set: controls of labels need soft ones and a teacher."""
    if source == "hard" and (needs_teacher(baseline) or baseline == DISTILLED_HARD):
        return False
    if source == "views" and baseline.endswith(LABELLED) and decoded_count(config) != typical(config.ipc):
        return False  # its images are fewer than those that the views are of
    return teacher or not needs_teacher(baseline)


def check_possible(
    baselines: Iterable[str], source: Source, config: RunConfig, teachers: tuple[CellTeacher, ...]
) -> None:
    """Check the baselines that a method names itself.

    Raises:
        UserError: one cannot be evaluated with it.
    """
    for name in baselines:
        if is_possible(name, source, config, bool(teachers)):
            continue
        if needs_teacher(name) and not teachers:
            raise UserError(f"baseline {name!r} needs a teacher: write teacher = NAME of an [experts.NAME]")
        why = "hard labels" if source == "hard" else "views of decoded images, which are more"
        raise UserError(f"baseline {name!r} is a control of soft labels, and students have {why}: drop it")
