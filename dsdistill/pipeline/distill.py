"""The public call `distill`: experts where a method needs some, then the distillation."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dsdistill import files
from dsdistill.config.options import data_options, explicit_options, merge, parse_override, table_at
from dsdistill.config.recipe import Budget, check_budget
from dsdistill.data import catalog
from dsdistill.data.memory import InMemory, opened
from dsdistill.data.sources import DataSource
from dsdistill.distillation.config import RunConfig
from dsdistill.distillation.output import held
from dsdistill.distillation.run import DistillationRun
from dsdistill.distillation.summary import Summary
from dsdistill.errors import UserError
from dsdistill.networks import NetworkFactory, add_networks
from dsdistill.pipeline import experts as automatic
from dsdistill.pipeline.experts import Scale
from dsdistill.pipeline.time_budget import TimeBudget
from dsdistill.runtime import launch
from dsdistill.runtime.callbacks import Listener, Observer
from dsdistill.runtime.checkpoints import ReadOnlyRun, RunDirectory
from dsdistill.runtime.device import resolve_device
from dsdistill.runtime.notice import silent
from dsdistill.runtime.ranks import current


def distill(
    output: str | Path,
    *,
    dataset: DataSource | None = None,
    method: str | None = None,
    ipc: int | str | Sequence[int] | Mapping[str, int] | None = None,
    network: str | NetworkFactory | None = None,
    iterations: int | None = None,
    seconds: float | None = None,
    init: str | Path | None = None,
    seed: int | None = None,
    device: str | None = None,
    experts: str | Path | None = None,
    budget: Budget | str | None = None,
    root: str | Path | None = None,
    size: int | None = None,
    channels: int | None = None,
    zca: bool | None = None,
    download: bool = False,
    options: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    config: str | Path | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[Listener] = (),
) -> Summary:
    """Distil a data set into one HDF5 file.

    >>> summary = dsdistill.distill("digits.h5", dataset="digits", ipc=1, iterations=3)
    >>> dsdistill.load("digits.h5").images.shape
    torch.Size([10, 1, 8, 8])

    What is left out comes from the method's recipe for the data set and IPC.

    Args:
        output: the file to write.
        dataset: a catalogue name, ``folder:PATH``, ``npz:PATH``, ``hf:NAME`` or ``hf:PATH``; or data in
            memory: ``(images, labels)``, a Dataset of torch or of Hugging Face, a mapping of these with
            ``train`` and ``test``, or an `ImageData`.
        method: a recipe's name (default ``dm``), or the path of a recipe file.
        ipc: images per class: one number, or one for each class, in their order (``[10, 10, 5]``) or by name
            (``{"cat": 10, "dog": 5}``). Of data without labels it is the number of images in all.
        network: that features are matched in: a name, such as ``convnet3`` or ``module.py:MyNet``, or a class
            or function that makes a `torch.nn.Module` (see `register_network`). A committee's are several
            names with commas between them.
        iterations: steps to take.
        seconds: to spend in the loop, resumed parts included, in place of a number of iterations.
        init: what the images start from: ``real``, ``noise``, ``kmeans``, ``mix``, ``clusters``, ``correct``,
            ``representative`` or ``patches``; or the file of a set, such as ``set.h5``, whose images are
            refined, and whose IPC is taken.
        seed: of every draw.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        experts: a file of `train_experts`, for methods that match with trained networks or follow them.
            Without one they are trained first, by the recipe that the method names, and kept in
            ``$DSDISTILL_CACHE`` (default ``~/.cache/dsdistill``) for later runs on the same data; "auto" says
            so whatever ``config`` names.
        budget: the scale of experts that are trained first: "paper" or "laptop"; default: the paper's on a
            GPU, else the laptop's. Or the time that all may take, such as "10min": experts are trained for so
            many epochs as a quarter of it allows, and the loop takes what is left.
        root: where data sets lie; default ``$DSDISTILL_DATA``, else ``~/.cache/dsdistill/data``.
        size, channels: of the images, in place of the data set's own.
        zca: whether to whiten instead of standardising; default as the recipe says.
        download: fetch a missing data set.
        options: further ones, nested as in a config file, such as ``{"optimiser": {"lr": 0.5}}``.
        overrides: ``key=value`` texts, as ``--set`` takes them.
        config: a TOML file; the ``config.toml`` of a run replays it.
        run_dir: where config, metrics and checkpoints go; default: the output with the suffix ``.run``.
        resume: continue the run in ``run_dir``, on the same CPU and threads bit-identically; a directory
            without one starts anew.
        overwrite: replace an earlier file and run.
        callbacks: listen to the run, and may stop it: see `Callback`. A function is called with every
            iteration's entry.

    Returns:
        how the run went.

    Raises:
        UserError: bad input, found before the run where it can be; or a non-finite loss.
        Interrupted: after a checkpoint, on SIGINT, SIGTERM, SIGHUP or SIGUSR1.
    """
    available = None if budget is None else TimeBudget.read(budget)
    scale = None if budget is None or available else check_budget(budget)
    if experts == "":
        raise UserError("--experts is empty: name a file of experts, or say auto to have them trained")
    output = files.expanded(output).absolute()
    ranks = current()
    folder = files.expanded(run_dir or output.parent / f"{output.stem}.run").absolute()
    run = RunDirectory(folder) if ranks.is_first else ReadOnlyRun(folder)
    resume = resume or launch.attempt() > 0
    files.check_folder(run.path)
    flags: dict[str, Any] = {"method": method, "ipc": ipc, "iterations": iterations}
    flags["network"] = network if network is None else add_networks(network)
    flags["init"] = None if init is None else str(init)
    flags |= {"seconds": seconds, "seed": seed, "compute": {"device": device}}
    name, source = opened(dataset)
    flags["data"] = data_options(name, root, size, channels, zca, download)
    path = {"auto": ""}.get(str(experts), str(experts)) if experts else None  # auto: whatever a config names
    flags["engine"] = {"supply": {"path": path}}
    explicit = merge(explicit_options(flags), options or {})
    file = files.expanded(config) if config else None
    with Observer.of_rank(callbacks, ranks) as observer, held(output, run, observer.writes_nothing):
        distillation = DistillationRun(output, run, observer, resume, overwrite, ranks)
        distillation.plan(explicit, overrides, file)
        if available and not distillation.resumes:
            available.check(distillation.set_by_user)
        if automatic.lacks(distillation.config):
            source = catalog.opened(distillation.config.data, source)  # which three readers share
            asked = (distillation.config, scale, available, observer, source)
            scale_json = json.dumps(dataclasses.asdict(_scale(*asked))) if ranks.is_first else ""
            common_scale = Scale(**json.loads(ranks.of_first(scale_json)))  # by the clock of one
            limits = automatic.limits(distillation.config, common_scale)
            for sentence in automatic.describe(limits):
                observer.on_notice(sentence)
            # What the user has set comes before the limits, and may ask for more epochs.
            distillation.plan(explicit, overrides, file, limits, silent)
            with contextlib.ExitStack() as stack:
                with ranks.first_before_others():  # which find them trained
                    trained = automatic.provided(distillation.config, common_scale, observer, source)
                    provision = stack.enter_context(trained)
                explicit, overrides = merge(explicit, provision), _named(overrides)
                distillation.plan(_within(available, explicit, distillation), overrides, file, limits, silent)
                summary = distillation.run(source, _clock(available, distillation))
        else:
            if scale:
                observer.on_notice(f"budget {budget!r} changes nothing: no experts are trained for this run")
            if available:
                distillation.plan(_within(available, explicit, distillation), overrides, file, notify=silent)
            summary = distillation.run(source, _clock(available, distillation))
        observer.on_end(summary)
    return summary


def _scale(
    config: RunConfig,
    named: Budget | None,
    available: TimeBudget | None,
    observer: Observer,
    source: InMemory | None,
) -> Scale:
    """Decide the scale of experts: the one that is named, or what the time allows."""
    if available is None:
        return Scale(automatic.budget_for(named, resolve_device(config.compute.device)))
    return automatic.scale_within(config, available.for_experts, observer, source)


def _within(
    available: TimeBudget | None, explicit: dict[str, Any], distillation: DistillationRun
) -> dict[str, Any]:
    """Return the options of a run that takes the time that is left; a resumed one keeps its own.

    A method without iterations has no use for it.

    Raises:
        OutOfTime: no time is left.
    """
    if available is None or (left := _clock(available, distillation)) is None:
        return explicit
    available.check_left()
    return merge(explicit, {"seconds": left()})


def _clock(available: TimeBudget | None, distillation: DistillationRun) -> Callable[[], float] | None:
    """Return what tells the seconds that are left; None where no time is given or has a use."""
    if available is None or distillation.resumes or not distillation.config.iterations:
        return None
    return lambda: available.left


def _named(overrides: Sequence[str]) -> list[str]:
    """Leave out texts that name no file of experts, as an empty path does."""
    tables = {text: table_at(parse_override(text), "engine", "supply") for text in overrides}
    return [text for text in overrides if tables[text].get("path") != ""]
