"""What a distillation will take: seconds by the pace of its first iterations, memory, and disk."""

from __future__ import annotations

import bisect
import dataclasses
import time

import torch

from dsdistill.config.ipc import typical
from dsdistill.config.recipe import load_recipe
from dsdistill.config.storage import CodingConfig, pixel_bytes
from dsdistill.distillation.config import RunConfig
from dsdistill.distillation.loop import Distiller
from dsdistill.distillation.memory import Estimate
from dsdistill.distillation.start import RunStart
from dsdistill.distillation.work import trial_parts
from dsdistill.protocol import load_protocol
from dsdistill.runtime.device import process_memory
from dsdistill.runtime.estimate import RunEstimate
from dsdistill.runtime.pace import PaceMeter, StepPace
from dsdistill.runtime.ranks import LonePart
from dsdistill.synthetic.answers import Encoding
from dsdistill.synthetic.views import bytes_of_view
from dsdistill.text import byte_size, duration

_ENTRY_BYTES = 160  # of a line of the log, about
_CHECKPOINTS = 3  # two that are kept, and one while it is written
_LONG = 600.0  # seconds, above which the iterations of a recipe are worth a sentence


def measure(distiller: Distiller, at_once: int) -> PaceMeter:
    """Take steps until the pace is known.

    Args:
        distiller: ready to run; it goes on from where it is.
        at_once: iterations that are timed together: waiting for the device takes time.
    """
    pace = PaceMeter()
    if not distiller.iterations:
        pace.add(1, 0.0)
        return pace
    while not pace.is_known:
        since = time.monotonic()
        reports = [distiller.step() for _ in range(at_once)]
        torch.stack([value for report in reports for value in report.terms.values()]).tolist()  # waits
        caching = sum(report.caching for report in reports)
        pace.add(at_once, time.monotonic() - since - caching)
    return pace


def trial_estimate(config: RunConfig, distiller: Distiller, start: RunStart, at_once: int) -> RunEstimate:
    """Take a few steps, if there is memory for them, and estimate the run; the distiller is used up.

    Args:
        config: resolved.
        distiller, at_once: as for `measure`.
        start: what is known of the run.
    """
    done, memory = distiller.iteration, start.memory
    device = distiller.synthetic.images.device
    if not start.fits and device.type == "cpu" and distiller.iterations:  # a GPU raises an error; a CPU kills
        return run_estimate(config, distiller, memory, None, done, 0.0)
    before = _seconds_of_beginning(distiller)
    parts = trial_parts(config, start.real, distiller.parts, device)
    if parts > 1 and distiller.sources.cache is None:
        pace = _measure_parts(distiller, parts)
    else:
        pace = measure(distiller, at_once).pace
    if cache := distiller.sources.cache:
        cache.forget()  # the run will begin without it
    pace = dataclasses.replace(pace, warm_up=pace.warm_up + before)
    return run_estimate(config, distiller, memory, pace, done, pace.warm_up)


def _seconds_of_beginning(distiller: Distiller) -> float:
    """Estimate by a few steps what training networks before the first iteration takes, and leave the rest."""
    since, steps, left, pace = time.monotonic(), 0, 0, PaceMeter()
    for done, total in distiller.begin():
        pace.add(done - steps, time.monotonic() - since)
        since, steps, left = time.monotonic(), done, total - done
        if pace.is_known:
            break
    distiller.sources.supply.leave_untrained()
    return pace.warm_up + (steps + left) * pace.step if steps else 0.0


def _measure_parts(distiller: Distiller, parts: int) -> StepPace:
    """Time an iteration's first part, and then twice as much: the difference is that of every further one.

    Args:
        parts: of equal work, about, in which an iteration is divided.
    """
    most = distiller.parts
    own = -(-most // parts)
    paces = []
    for some in (own, min(2 * own, most)):
        distiller.divide(LonePart(some, most))
        paces.append(measure(distiller, 1))
    one, two = (each.step for each in paces)
    each = max(0.0, two - one) / own
    share = min(2 * own, most) / most
    return StepPace(one + each * (most - own), sum(each.warm_up for each in paces), share)


def run_estimate(
    config: RunConfig,
    distiller: Distiller,
    memory: Estimate,
    pace: StepPace | None,
    done: int,
    spent: float,
) -> RunEstimate:
    """Estimate what is left of a run.

    Args:
        config: resolved.
        distiller: its loop.
        memory: what it takes in memory.
        pace: measured; None where the run does not fit into memory.
        done: iterations that are taken.
        spent: seconds of the run's budget that are gone.
    """
    amount, seconds = max(0, config.iterations - done), None
    if pace and config.seconds and config.iterations:
        seconds = max(0.0, config.seconds - spent)
        amount = _within(seconds, distiller, pace.step)
    elif pace:
        seconds = _seconds_of(amount, distiller, pace.step)
    labels, about_labels = _labels(config, distiller)
    return RunEstimate(
        covers="distillation",
        amount=amount,
        work="iterations",
        seconds=seconds,
        share=pace.share if pace else 1.0,
        warm_up=pace.warm_up if pace else 0.0,
        memory_bytes=memory.total,
        cached_bytes=memory.cached,
        process_bytes=process_memory(distiller.synthetic.images.device),
        disk=disk(config, distiller, done + amount),
        label_bytes=labels,
        later=about_labels,
        leaves_out=_refining(config),
    )


def _seconds_of(amount: int, distiller: Distiller, step: float) -> float:
    """Estimate what so many further iterations take, with what the first of them compute for all."""
    cache = distiller.sources.cache
    return amount * step + (cache.seconds_to_come(amount) if cache else 0.0)


def _within(seconds: float, distiller: Distiller, step: float) -> int:
    """Estimate how many further iterations there will be in so many seconds."""
    most = round(seconds / step)
    if distiller.sources.cache is None:
        return most
    return bisect.bisect_left(range(most), seconds, key=lambda amount: _seconds_of(amount, distiller, step))


def _refining(config: RunConfig) -> str:
    """Say that coded pixels are refined after the last iteration; empty where they are not."""
    storage = config.stored_as
    steps = storage.refine if isinstance(storage, CodingConfig) else 0
    return f"the {steps:,} steps of storage.refine, which come after the last iteration" if steps else ""


def _labels(config: RunConfig, distiller: Distiller) -> tuple[int, dict[str, str]]:
    """Return the bytes of the labels that students of the run's protocol replay, and words; 0 without any."""
    protocol = load_protocol(config.protocol, config.data.name, typical(config.ipc))
    if protocol.labels.source != "views":
        return 0, {}
    encoding: Encoding = "distances" if protocol.labels.loss == "dbr" else "float16"
    views = protocol.views_wanted
    images, classes = sum(distiller.synthetic.decoded_counts), distiller.sources.task.num_classes
    count = images * views * bytes_of_view(encoding, classes)
    words = f"{byte_size(count)} once it is labelled, at most: {views} views of each image, {encoding}"
    return count, {"labels": words}


def disk(config: RunConfig, distiller: Distiller, iterations: int) -> dict[str, int]:
    """Return the bytes that a run writes, at most, by what they are for."""
    task, learned = distiller.sources.task, distiller.synthetic
    pixel = pixel_bytes(config.stored_as)
    stored = int(learned.images.numel() * pixel) + learned.labels.nbytes
    if learned.compensators is not None:  # which 8 bits do not hold
        stored += int(learned.compensators.numel() * max(2, pixel))
    if learned.targets is not None:
        stored += learned.targets.nbytes
    if learned.label_logits is not None:
        stored += learned.label_logits.nbytes
    elif config.labels == "teacher":
        stored += 4 * sum(learned.decoded_counts) * task.num_classes
    stored += sum(each.nbytes for each in task.preprocess.state().values())
    parts = {
        "set": stored,
        "checkpoints": _CHECKPOINTS * distiller.state_bytes(),
        "real side": 0 if (cache := distiller.sources.cache) is None or cache.in_memory else cache.bytes,
        "log": _ENTRY_BYTES * iterations,
        "snapshots": max(0, config.checkpoint.snapshots - 1) * stored,
    }
    return {name: count for name, count in parts.items() if count}


def advice(config: RunConfig, estimate: RunEstimate) -> str:
    """Say whose the iterations of a long run are, if its recipe sets them; empty for a short run.

    Args:
        config: resolved; its iterations are those of the recipe.
        estimate: of all of them.
    """
    if config.seconds or estimate.seconds is None or estimate.seconds <= _LONG:
        return ""
    recipe = load_recipe(config.method)
    whose = {"paper": "those of its paper", "code": "those of its authors' code"}[recipe.follows]
    whose = "our choice" if recipe.paper == "ours" else whose
    return (
        f"the {config.iterations:,} iterations of {recipe.name} are {whose}, and take about "
        f"{duration(estimate.seconds)} here; --seconds 600 or --iterations N (seconds=600, iterations=N) "
        "makes a shorter run"
    )
