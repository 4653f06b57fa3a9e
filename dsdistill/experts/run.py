"""The public call `train_experts`: from options to a file of networks trained on real data."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dsdistill import files
from dsdistill.config.options import data_options, explicit_options, merge, table_at
from dsdistill.config.recipe import Budget
from dsdistill.config.unlabelled import check_labelled, is_labelled
from dsdistill.data import catalog
from dsdistill.data.memory import InMemory, opened
from dsdistill.data.sources import DataSource
from dsdistill.errors import UserError
from dsdistill.experts import config as expert_config
from dsdistill.experts.automatic import decide_auto, is_too_short
from dsdistill.experts.config import ExpertConfig
from dsdistill.experts.images import ExpertData
from dsdistill.experts.trainer import Pace, Trainer
from dsdistill.experts.training import ExpertRun, parts
from dsdistill.networks import NetworkFactory, add_network
from dsdistill.plugs import without_folder
from dsdistill.runtime import launch
from dsdistill.runtime.callbacks import Listener, Observer
from dsdistill.runtime.device import full_float32, resolve_device, threads
from dsdistill.runtime.notice import silent
from dsdistill.runtime.ranks import ALONE, Ranks, current
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.storage.hdf5 import check_suffix


def _check_output(output: Path) -> None:
    """Check before the training that its file and the folder of unfinished experts can be written.

    Raises:
        UserError: saying what is in the way.
    """
    if os.path.isdir(output):  # unlike Path.is_dir, it takes any name
        raise UserError(f"{output} is a folder; name a file, for example {output / 'experts.h5'}")
    files.check_target(output)
    if not output.exists():
        check_suffix(output)
    files.check_folder(parts(output))


def committee(output: Path, networks: str | None) -> list[tuple[Path, str | None]]:
    """Return the file and the network of each training: of one network ``NAME.h5``, else ``NAME-NETWORK.h5``.

    Args:
        output: ``NAME.h5``.
        networks: names with commas between them, or None for the recipe's; code that is named is loaded.

    Raises:
        UserError: there is no such network; or two of them would have one file.
    """
    words = [word.strip() for word in (networks or "").split(",")]
    names = list(dict.fromkeys(add_network(word) for word in words if word))
    if len(names) < 2:
        return [(output, names[0] if names else None)]
    endings = [re.sub(r"[^\w.-]+", "-", without_folder(name)) for name in names]
    if len(set(endings)) < len(names):
        raise UserError(f"two of the networks {networks} would have one file; train them one by one")
    outputs = [output.with_name(f"{output.stem}-{ending}{output.suffix}") for ending in endings]
    return list(zip(outputs, names, strict=True))


def train_experts(
    output: str | Path,
    *,
    dataset: DataSource | None = None,
    recipe: str | None = None,
    budget: Budget = "paper",
    count: int | None = None,
    epochs: int | None = None,
    network: str | NetworkFactory | None = None,
    seed: int | None = None,
    device: str | None = None,
    root: str | Path | None = None,
    size: int | None = None,
    channels: int | None = None,
    zca: bool | None = None,
    download: bool = False,
    options: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[Listener] = (),
) -> ExpertFile:
    """Train networks on real data and store them in one HDF5 file, for methods that match with them.

    >>> options = {"dataset": "digits", "network": "convnet2-w8", "epochs": 1}
    >>> experts = dsdistill.train_experts("experts.h5", recipe="mtt", count=2, **options)
    >>> experts.count, experts.epochs
    (2, (0, 1))

    ``dsdistill.train_experts("experts.h5", dataset="cifar10", recipe="ncfm")`` trains what NCFM needs. If the
    file already holds the first of these experts, with the same options, the others are added to it. No test
    data are read, unless the option ``test`` is "stored"; with "validation" a tenth of the training images is
    held out, for the accuracy on them.

    Args:
        output: the file to write. Unfinished experts are in a folder of its name with ``.parts`` appended.
        dataset: a catalogue name, ``folder:PATH``, ``npz:PATH``, ``hf:NAME`` or ``hf:PATH``; or data in
            memory: ``(images, labels)``, a Dataset of torch or of Hugging Face, a mapping of these with
            ``train`` and ``test``, or an `ImageData`.
        recipe: a name, such as ``ncfm`` or ``mtt``, or the path of a recipe file.
        budget: the scale of the recipe: "paper", or "laptop" for fewer experts of fewer epochs.
        count: networks in the finished file.
        epochs: of training each.
        network: such as ``convnet3``, or your own, as `distill` takes it.
        seed: of every random draw.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        root, size, channels, zca, download: of the data, as `distill` takes them.
        options: further ones, nested, such as ``{"keep": [0, 20, 40]}``.
        overrides: ``key=value`` texts, as ``--set`` takes them.
        resume: go on with unfinished experts; bit-identical on the same CPU and number of threads.
        overwrite: replace an earlier file and unfinished experts.
        callbacks: listen to the training, and may stop it: see `Callback`. A function is called with every
            epoch's entry.

    Returns:
        the opened file.

    Raises:
        UserError: bad input, checked before the training where possible; or a non-finite loss.
        Interrupted: on SIGINT, SIGTERM, SIGHUP or SIGUSR1; every finished epoch is saved.
    """
    output = files.expanded(output).absolute()
    ranks = current()
    resume = resume or launch.attempt() > 0
    _check_output(output)
    with (
        Observer.of_rank(callbacks, ranks) as observer,
        files.hold_outputs([output], "a training", observer.writes_nothing),
    ):
        flags: dict[str, Any] = {"recipe": recipe, "count": count, "epochs": epochs, "seed": seed}
        flags["network"] = network if network is None else add_network(network)
        name, source = opened(dataset)
        data = data_options(name, root, size, channels, zca, download)
        explicit = explicit_options(flags | {"data": data, "compute": {"device": device or None}})
        asked = expert_config.resolve(merge(explicit, options or {}), overrides, budget)
        experts = train(output, asked, observer, resume, overwrite, source, ranks=ranks)
        observer.on_end(experts)
    return experts


def pace_of(asked: ExpertConfig, observer: Observer, source: InMemory | None = None) -> Pace:
    """Time a few steps of training experts; nothing is kept of them.

    Args:
        asked, observer, source: as for `train`.

    Raises:
        UserError: as `train_experts`.
    """
    device = resolve_device(asked.compute.device)
    add_network(asked.network)
    task, real = catalog.load(asked.data, "train", observer, source)
    with threads(asked.compute.threads), full_float32():
        config = decide_auto(asked, task, real, device, silent)
        trainer = Trainer(config, task, real, device, silent)
        trainer.initialise(0)
        return trainer.pace()


def _as_begun(asked: ExpertConfig, output: Path) -> ExpertConfig:
    """Return the options with what an unfinished training decided on compiling, so that it goes on alike.

    Raises:
        UserError: what it has written cannot be read.
    """
    file = parts(output) / "config.toml"
    if asked.compute.compile != "auto" or not file.exists():
        return asked
    decision = table_at(files.read_toml(file), "compute").get("compile")
    if not isinstance(decision, bool):
        return asked
    return dataclasses.replace(asked, compute=dataclasses.replace(asked.compute, compile=decision))


def train(
    output: Path,
    asked: ExpertConfig,
    observer: Observer,
    resume: bool = False,
    overwrite: bool = False,
    source: InMemory | None = None,
    stand_in: Path | None = None,
    ranks: Ranks = ALONE,
) -> ExpertFile:
    """Train experts of resolved options into a file that nobody else writes.

    Args:
        output: the file.
        asked: the options; each ``auto`` is decided here.
        observer: the callbacks.
        resume, overwrite: as for `train_experts`.
        source: the data, if they are in memory.
        stand_in: of a dry run, where to write experts that are not trained, to time what follows.
        ranks: the processes that share the experts.

    Raises:
        UserError, Interrupted: as `train_experts`.
    """
    if resume:
        asked = _as_begun(asked, output)
    device = resolve_device(asked.compute.device)
    add_network(asked.network)
    with ranks.first_before_others():  # which find decoded what the first has decoded
        data = _read(asked, observer, source)
    task, real = data.task, data.train
    ranks.check_same({"options": expert_config.for_sharing(asked), "training images": real.fingerprint})
    with threads(asked.compute.threads), full_float32():
        config = decide_auto(asked, task, real, device, observer.on_notice)
        config = _agreed(config, ranks)
        observer.on_info(expert_config.decisions(asked, config))
        short = is_too_short(asked, config, real)
        run = ExpertRun(output, config, data, device, observer, short, ranks)
        if stand_in and observer.dry:
            run.write_untrained(stand_in)
        return run.run(resume, overwrite)


def _read(asked: ExpertConfig, observer: Observer, source: InMemory | None) -> ExpertData:
    """Read the images.

    Raises:
        UserError: they cannot be read, or lack the labels that the training needs.
    """
    source = catalog.opened(asked.data, source)
    task, real = catalog.load(asked.data, "train", observer, source)
    if asked.needs_labels:
        need = f"recipe {Path(asked.recipe).stem!r} trains classifiers"
        check_labelled(task.classes, task.name, need, "take data with labels, or --recipe barlow-twins")
    if asked.holds_out:
        remedy = "set test=none, or take data with labels"
        check_labelled(task.classes, task.name, "test=validation measures accuracy", remedy)
    stored = asked.test == "stored" and is_labelled(task.classes)
    return ExpertData(task, real, catalog.read(asked.data, "test", observer, source) if stored else None)


def _agreed(config: ExpertConfig, ranks: Ranks) -> ExpertConfig:
    """Return a config whose code is compiled if the first process has decided so."""
    compiles = ranks.of_first(str(bool(config.compute.compile))) == str(True)
    return dataclasses.replace(config, compute=dataclasses.replace(config.compute, compile=compiles))
