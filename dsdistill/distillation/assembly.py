"""From a config to a loop ready to run."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, MutableMapping, Sequence
from typing import Any

import torch

from dsdistill.compute.chunks import equal_chunk, images_per_bytes
from dsdistill.compute.embedder import Embedder
from dsdistill.compute.learner import Learner
from dsdistill.config.initial_names import is_set_file
from dsdistill.config.ipc import counts_of, decided
from dsdistill.config.sharing import shared
from dsdistill.config.sizes import decided_sizes
from dsdistill.data.batches import RealBatches
from dsdistill.data.real import RealDataset, Task
from dsdistill.distillation import initial
from dsdistill.distillation.caching import build_cache, decide_caching
from dsdistill.distillation.config import RunConfig, as_table
from dsdistill.distillation.loop import Distiller
from dsdistill.distillation.stored import begin_learning, stored_counts
from dsdistill.distillation.work import pixels_of_run
from dsdistill.engines.base import Engine
from dsdistill.engines.sources import Sources
from dsdistill.errors import UserError
from dsdistill.networks.base import Network
from dsdistill.runtime.device import resolve_precision
from dsdistill.runtime.notice import Notify, once
from dsdistill.runtime.ranks import ALONE, Ranks
from dsdistill.supply.base import NetworkRequest, PassOptions
from dsdistill.supply.cost import Sizes
from dsdistill.synthetic.initial import images_to_start_from
from dsdistill.synthetic.set import SyntheticSet


def decide_auto(
    config: RunConfig, task: Task, real: RealDataset, device: torch.device, notify: Notify
) -> RunConfig:
    """Decide every ``auto`` from the machine, data and work, so that the written config replays the run.

    Raises:
        UserError: the IPC does not fit the classes of the data; a file to start from holds another set; or
            the real side cannot be cached.
    """
    config = initial.resolved(dataclasses.replace(config, ipc=decided(config.ipc, task.classes)))
    supply: Any = config.engine.supply.resolved()
    config = dataclasses.replace(config, engine=dataclasses.replace(config.engine, supply=supply))
    compute = decide_caching(config, task, real, device)
    config = dataclasses.replace(config, compute=compute)
    counts = len(set(counts_of(config.ipc, task.num_classes))) if config.engine.class_by_class else 1
    if compute.compile == "auto" and counts > _COMPILED_SIZES:
        compute = dataclasses.replace(compute, compile=False)
    data = dataclasses.replace(config.data, size=task.size, channels=task.channels)
    sizes = decided_sizes(config.sizes, config.ipc)
    config = dataclasses.replace(config, data=data, storage=config.stored_as, sizes=sizes)
    pixels, options = pixels_of_run(config, real), compiled_options(config, real)
    compute = compute.decide(device, pixels, notify, options, config.seconds)
    return dataclasses.replace(config, compute=compute)


_COMPILED_SIZES = 6  # of classes: each takes a compilation, and torch stops at eight


_SAME_CODE = {
    *("iterations", "seconds", "seed", "init", "init_candidates", "init_digest", "checkpoint"),
    *("storage", "protocol", "labels", "compute"),
}
"""Options from which compiled code does not follow; those of ``compute`` are part of the digest already."""


def compiled_options(config: RunConfig, real: RealDataset) -> dict[str, Any]:
    """Return what the compiled code of a run follows from, besides its options of ``compute``.

    Args:
        config: whose sizes and supply are decided.
        real: the training images, whose numbers are the sizes of batches.
    """
    table = shared(as_table(config))
    return {key: table[key] for key in table.keys() - _SAME_CODE} | {"images": real.fingerprint}


def is_too_short(asked: RunConfig, config: RunConfig, real: RealDataset) -> bool:
    """Whether a run is not compiled because it would not make up for the time that takes.

    Args:
        asked: before `decide_auto`.
        config: after it.
        real: the training images.
    """
    pixels = pixels_of_run(config, real)
    return asked.compute.is_too_short(config.compute, pixels, config.seconds)


def _check_updates(config: RunConfig, engine: Engine[Any], synthetic: SyntheticSet, network: Network) -> None:
    """Refuse rules of the pixel optimiser that the space or the network does not allow.

    Raises:
        UserError: naming the option to change.
    """
    if config.optimiser.clamp_every and not synthetic.has_bounds:
        pixels = synthetic.pixels == "images"
        what = "whitened pixels are" if pixels else "the difference to real images is"
        raise UserError(
            f"{what} not clamped: set optimiser.clamp_every=0" + (" or space=unit" if pixels else "")
        )
    if config.optimiser.updates == "per-class" and not engine.separable(network):
        raise UserError(
            "this loss couples the classes, so per-class updates are not possible: set "
            "optimiser.updates=joint, or choose a network of instance normalisation if the batch "
            f"normalisation of {config.network} couples them"
        )


def _flipped(config: RunConfig, task: Task) -> bool:
    """Decide whether mirror images are matched too.

    Raises:
        UserError: a mirror image of such data has another label.
    """
    if config.synthetic.flip is True and not task.mirror:
        raise UserError(
            f"a mirror image of {task.name} may have another label, or none: set synthetic.flip=false, "
            "or synthetic.flip=force to do it all the same"
        )
    return bool(config.synthetic.flip)


def _check_labels(config: RunConfig, has_teacher: bool) -> None:
    """Check that there is a teacher where one gives the labels.

    Raises:
        UserError: there is none.
    """
    if config.labels == "teacher" and not has_teacher:
        raise UserError(
            "labels=teacher are those of a trained network, and this method has none: set labels=hard, or "
            "use a method that matches with a pool or follows experts"
        )


def assemble(
    config: RunConfig,
    task: Task,
    real: RealDataset,
    device: torch.device,
    notify: Notify,
    ranks: Ranks = ALONE,
    store: MutableMapping[Hashable, Any] | None = None,
) -> Distiller:
    """Put a run together.

    Args:
        config: resolved.
        task, real: what is distilled; images that leave most of a CUDA device free are moved to it.
        device: where it is computed.
        notify: receives one sentence if the compiler fails; the rest of the run then goes without it.
        ranks: the processes that share the run.
        store: where the cached real side is kept, if that is to be in files.

    Raises:
        UserError: the network cannot take such images, the IPC does not fit the data, or so many processes
            cannot share the loss.
    """
    engine: Engine[Any] = config.engine
    initial.check_data(config, real)
    compute = config.compute
    supply = engine.build_networks(
        NetworkRequest(config.network, task, device, config.seed, real.fingerprint, real=real)
    )
    teachers = supply.teachers
    _check_labels(config, teachers is not None)
    sharing = supply.count if engine.compensates else 0
    counts = stored_counts(config, task.num_classes, sharing)
    synthetic = initial.build(config, task, real, counts, teachers, device).to(device)
    synthetic.flip = _flipped(config, task)
    synthetic.sizes = decided_sizes(config.sizes, config.ipc)
    begin_learning(config, synthetic, sharing)
    real = real.resident_on(device)  # not before: the set begins on the CPU
    precision = resolve_precision(compute.precision, device)
    notify = once(notify)  # several functions are compiled, and one notice says it for all
    passes = (supply.network, task.size, device, precision, bool(compute.compile), compute.chunk, notify)
    augmentation = config.augmentation.build(task.mirror)
    supply.ready(PassOptions(task.channels, task.size, precision, bool(compute.compile), notify))
    embedder = Embedder(*passes, features=engine.features(supply.network))
    batches = RealBatches.of(task, real, config.seed, device)
    cache = build_cache(config, supply.network, task, real, store)
    clusters = engine.clusters(batches)
    learner = Learner(*passes, second_order=resolve_precision(compute.second_order, device))
    sources = Sources(batches, supply, embedder, learner, augmentation, clusters, cache)
    sources.ranks = ranks
    engine.prepare(synthetic, sources)
    if config.labels == "teacher" and synthetic.label_logits is not None:
        raise UserError(
            "labels are learned here, or a teacher's: set engine.labels.learned=false, or labels=hard"
        )
    synthetic.to(device)
    _check_updates(config, engine, synthetic, supply.network)
    class_chunk = compute.class_chunk or _classes_at_once(engine, synthetic, task, device)
    return Distiller(
        engine, synthetic, sources, config.optimiser, config.iterations, class_chunk, config.size_period
    )


_GRAPH_BYTES = {"cpu": 1 << 26, "cuda": 1 << 32}  # of the largest map of a ConvNet, of all images in a graph


def _classes_at_once(engine: Engine[Any], synthetic: SyntheticSet, task: Task, device: torch.device) -> int:
    """Choose how many classes' graphs are held: on a CPU more in one pass save no time, and cost memory."""
    images = images_per_bytes(_GRAPH_BYTES[device.type], task.size)
    of_class = synthetic.copies * engine.images_at_once(max(synthetic.decoded_counts))
    return equal_chunk(task.num_classes, max(1, images // of_class))


def class_notices(config: RunConfig, real: RealDataset, stored: Sequence[int]) -> list[str]:
    """Say, if it is so, that classes have fewer images than the set starts from, or than the engine takes.

    Args:
        stored: images of each class that are learned, or that something learned is added to.
    """
    return [*_repetition_notice(config, real, stored), *_small_batch_notice(config.engine, real)]


def _repetition_notice(config: RunConfig, real: RealDataset, stored: Sequence[int]) -> Iterator[str]:
    if config.init in ("noise", "patches") or is_set_file(config.init):
        return
    needed = images_to_start_from(stored, config.init, config.multi_formation)
    lacking = [most - real_count for most, real_count in zip(needed, real.counts.tolist(), strict=True)]
    if (most := max(lacking)) <= 0:
        return
    label, others = lacking.index(most), sum(count > 0 for count in lacking) - 1
    more = f", as are those of {others} more class{'es' * (others > 1)}" if others else ""
    yield (
        f"class {real.classes[label]!r} has {int(real.counts[label])} training images, fewer than the "
        f"{needed[label]} to start from: they are repeated, with a little noise{more}"
    )


def _small_batch_notice(engine: Engine[Any], real: RealDataset) -> Iterator[str]:
    smallest = int(real.counts.argmin())
    per_class = engine.cost(Sizes(counts=real.counts, decoded=torch.ones_like(real.counts))).real_per_class
    name, count = real.classes[smallest], int(real.counts[smallest])
    if count < per_class:
        yield (
            f"the smallest class, {name!r}, has {count} training images, so its batches hold all of them; "
            f"the recipe asks for {per_class} (engine.batch_real)"
        )


def warnings_for(distiller: Distiller, discarded: int) -> list[str]:
    """Return sentences on what may be wrong with a finished loop, though every number in it is finite.

    Args:
        distiller: the loop.
        discarded: iterations that changed nothing.
    """
    sentences, iterations = [], distiller.iteration
    if discarded:
        sentences.append(
            f"{discarded} of {iterations} iterations were discarded, their loss being above engine.skip_above"
            + ("; raise it, or train experts for longer" if 2 * discarded > iterations else "")
        )
    lr = distiller.synthetic.student_lr
    if lr is not None and not lr.item() > 0:
        sentences.append(
            f"the student's learning rate, which is learned, ended at {lr.item():.3g}, which protocols "
            "that take it refuse: start anew with a lower engine.student.learning.lr, or evaluate with one "
            "that does not, such as dm"
        )
    return sentences
