"""Experts for a run that names none: trained by the recipe that its method names, and kept in the cache.

Their file's name holds a digest of the data and of all options that make the weights, so that every run on
these data that needs such experts finds them, and an interrupted training goes on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dsdistill import files
from dsdistill.compute.class_activation import ClassActivation
from dsdistill.config.options import flatten
from dsdistill.config.recipe import Budget, ExpertRecipe, load_expert_recipe, load_recipe
from dsdistill.data import catalog
from dsdistill.data.memory import InMemory
from dsdistill.data.real import RealDataset
from dsdistill.distillation import initial
from dsdistill.distillation.config import RunConfig
from dsdistill.errors import OutOfTime, UserError
from dsdistill.experts import config as expert_config
from dsdistill.experts.config import ExpertConfig
from dsdistill.experts.run import pace_of, train
from dsdistill.experts.training import parts
from dsdistill.files import cache_folder
from dsdistill.networks import build_network, source_digest
from dsdistill.plugs import names_in
from dsdistill.runtime.callbacks import DryRunEnd, Observer
from dsdistill.runtime.device import resolve_device, training_precision
from dsdistill.runtime.estimate import RunEstimate
from dsdistill.runtime.notice import Notify
from dsdistill.seeding import forked
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.text import duration

_OURS = re.compile(r".+-[0-9a-f]{16}\.h5")
"""The names of files in the cache."""


@dataclass(frozen=True)
class Scale:
    """How many experts are trained, and for how long.

    Attributes:
        budget: the recipe's own scale, or that of a laptop.
        epochs: of each of so many networks, in place of that scale's; 0: that scale's.
        why: what decided ``epochs``.
    """

    budget: Budget
    epochs: int = 0
    why: str = ""

    def options(self, recipe: ExpertRecipe, dataset: str) -> dict[str, Any]:
        """Return the options of a recipe at this scale.

        Raises:
            UserError: as `ExpertRecipe.options`.
        """
        options = recipe.options(dataset, self.budget)
        return options | {"epochs": self.epochs} if self.epochs else options


@dataclass(frozen=True)
class ExpertPlan:
    """Which experts a run is to have.

    Attributes:
        method: that needs them.
        config: of their training.
        scale: of the recipe.
        note: what is known of the cost of a smaller scale.
    """

    method: str
    config: ExpertConfig
    scale: Scale
    note: str

    def file(self, fingerprint: str) -> Path:
        """Return where experts for training images of a fingerprint are kept."""
        config, options = self.config, expert_config.weights(self.config)
        # The fingerprint is of the images as they are presented; how they are whitened is no part of it.
        weights = {key: value for key, value in options.items() if key == "data.zca" or key[:5] != "data."}
        precision = training_precision(config.compute.precision, resolve_device(config.compute.device))
        key_parts = [fingerprint, weights | {"compute.precision": precision}, source_digest([config.network])]
        key = hashlib.sha256(json.dumps(key_parts, sort_keys=True).encode()).hexdigest()[:16]
        return _folder() / f"{Path(config.recipe).stem}-{key}.h5"

    def sentence(self, file: Path) -> str:
        """Say what is to be trained, why, and what else one could do."""
        config = self.config
        scale = f"{config.count} by recipe {Path(config.recipe).stem}, {config.epochs} epochs each"
        if self.scale.budget == "laptop":
            paper = load_expert_recipe(config.recipe).options(config.data.name)
            scale += (
                f" ({self.scale.why or 'laptop scale'}; the recipe has {paper['count']} of {paper['epochs']} "
                f"epochs, which --budget paper takes; {self.note})"
            )
        return (
            f"method {self.method!r} needs networks trained beforehand, and none are named: training "
            f"{scale}, to be kept in {file}; --experts FILE takes others"
        )


def budget_for(budget: Budget | None, device: torch.device) -> Budget:
    """Return the scale that is asked for; by default the paper's on a GPU, else the laptop's."""
    return budget or ("paper" if device.type == "cuda" else "laptop")


def lacks(config: RunConfig) -> bool:
    """Whether a run needs experts that none are named for; or they are gone, and their name is of the cache.

    A config that is passed on names them without their folder.
    """
    supply = config.engine.supply
    path = str(getattr(supply, "path", ""))
    names = [path] if Path(path).exists() else path.split(",")
    paths = [Path(re.sub(r"#\d+$", "", name)) for name in names]
    return supply.needs_experts or any(_OURS.fullmatch(file.name) and not file.exists() for file in paths)


@contextmanager
def provided(
    config: RunConfig, scale: Scale, observer: Observer, source: InMemory | None
) -> Iterator[dict[str, Any]]:
    """Train the experts of a run, unless the cache has them; a dry run gets untrained ones while this lasts.

    Args:
        config: of the run, its limits included.
        scale: of the recipe.
        observer: the callbacks.
        source: the data, if they are in memory.

    Yields:
        nested options of the run: their file, and how many of them the run takes.

    Raises:
        UserError: as `train_experts`; the data do not fit the run; or a callback has stopped the training.
        Interrupted: as `train_experts`.
        DryRunEnd: of a dry run; its estimate has that of the training before it.
    """
    planned = plans(config, scale)
    real = catalog.read(planned[0].config.data, "train", observer, source)
    initial.check(config, real, config.engine.supply.count or sum(each.config.count for each in planned))
    _check_networks(config, planned, real)
    by_file = {each.file(real.fingerprint): each for each in planned}
    if not observer.dry:
        files.make_folder(_folder(), parents=True)
    with files.hold_outputs(list(by_file), "a training", observer.dry, observer.on_notice):
        lacking = {file: each for file, each in by_file.items() if not _has(file, each, observer)}
        if not observer.dry:
            for file, each in lacking.items():
                _train(each, file, observer, source)
    if not observer.dry or not lacking:
        yield _options(config, {file: each.config.count for file, each in by_file.items()})
        return
    with tempfile.TemporaryDirectory() as folder:
        training: RunEstimate | None = None
        counts = {file: each.config.count for file, each in by_file.items() if file not in lacking}
        for file, each in lacking.items():
            stand_in = Path(folder) / file.name
            estimated = _estimate(each, file, observer, source, stand_in)
            training = dataclasses.replace(estimated, before=training)
            counts[stand_in] = min(ExpertFile.open(stand_in).count, each.config.count)
        try:
            yield _options(config, counts)
        except DryRunEnd as end:
            raise DryRunEnd(dataclasses.replace(end.estimate, before=training)) from end


def _check_networks(config: RunConfig, planned: Sequence[ExpertPlan], real: RealDataset) -> None:
    """Check the networks that a run is to have before they are trained.

    Raises:
        UserError: the engine could not use one of them, nor choose images by it.
    """
    channels, size = real.images.shape[1], real.images.shape[-1]
    for name in (each.config.network for each in planned):
        with forked(0, "check", 0):
            network = build_network(name, channels, size, len(real.classes)).eval()
        config.engine.check_network(name, network, channels, size)
        if config.init == "patches" and config.patches.keep == "cam":
            ClassActivation(network, name, channels, size)
    if config.init == "patches" and config.patches.score == "el2n" and not planned[0].config.record_el2n:
        raise UserError(
            "patches.score=el2n goes by what training records, and recipe "
            f"{planned[0].config.recipe} records nothing: train networks by dsdistill experts --recipe "
            "el2n, and pass --experts FILE"
        )


def _has(file: Path, planned: ExpertPlan, observer: Observer) -> bool:
    """Whether the cache has the experts that are planned."""
    is_cached = _count(file, observer.on_notice, observer.dry) >= planned.config.count
    if is_cached:
        observer.on_info(f"experts: those in {file}, trained for an earlier run")
    return is_cached


def _options(config: RunConfig, counts: Mapping[Path, int]) -> dict[str, Any]:
    """Return nested options that name experts: so many of each file."""
    supply = config.engine.supply
    path = ",".join(map(str, counts))
    if len(counts) > 1:  # each may have more, trained for another run
        path = ",".join(f"{file}#{expert}" for file, count in counts.items() for expert in range(count))
    return {"engine": {"supply": {"path": path, supply.noun: supply.count or sum(counts.values())}}}


def _estimate(
    planned: ExpertPlan, file: Path, observer: Observer, source: InMemory | None, stand_in: Path
) -> RunEstimate:
    """Estimate the training of experts, and write untrained ones.

    Raises:
        DryRunEnd: they are too large to be written for an estimate.
    """
    observer.on_notice(planned.sentence(file))
    begun = file.exists() or parts(file).exists()
    try:
        train(file, planned.config, observer.of_stage(), begun, source=source, stand_in=stand_in)
    except DryRunEnd as end:
        training: RunEstimate = end.estimate
    if not stand_in.exists():
        left_out = "the distillation, until its experts are trained: they are too large to stand in for them"
        raise DryRunEnd(dataclasses.replace(training, leaves_out=left_out))
    return training


def _train(planned: ExpertPlan, file: Path, observer: Observer, source: InMemory | None) -> None:
    """Train experts, or those that a file lacks."""
    observer.on_notice(planned.sentence(file))
    stage = observer.of_stage()
    train(file, planned.config, stage, file.exists() or parts(file).exists(), source=source)
    if stage.stop:
        raise UserError(
            "a callback stopped the training of experts, before the distillation began: what is trained is "
            "kept, and the same call goes on with it"
        )


def _count(file: Path, notify: Notify, dry: bool) -> int:
    """Count the experts in a file of the cache; one that is damaged is deleted, as it is no one else's."""
    if not file.exists():
        return 0
    try:
        return ExpertFile.open(file).count
    except UserError as error:
        notify(f"the experts are trained anew: {error}")
        if not dry:
            files.remove(file)
        return 0


def _folder() -> Path:
    return cache_folder() / "experts"


def limits(config: RunConfig, scale: Scale) -> dict[str, Any]:
    """Return nested options of a run with which experts of a scale will do; empty where they do anyway.

    Raises:
        UserError: the method names a recipe of experts that does not exist, or has no such scale.
    """
    options = scale.options(_recipe(config), config.data.name)
    engine = config.engine.within(int(options["epochs"])) if scale.budget == "laptop" else {}
    return {"engine": engine} if engine else {}


def describe(limits: Mapping[str, Any]) -> list[str]:
    """Return a sentence on limits, if there are any."""
    options = ", ".join(f"{key}={value}" for key, value in flatten(limits).items())
    return [f"experts of this scale have fewer epochs than the recipe reads: {options}"] if options else []


def plans(config: RunConfig, scale: Scale) -> list[ExpertPlan]:
    """Decide which experts a run has that names none: those of each of its networks, a file each.

    Args:
        config: of the run, its limits included.
        scale: of the recipe.

    Raises:
        UserError: as `plan`.
    """
    networks = names_in(config.engine.supply.expert_networks(config.network)) or [""]
    return [plan(config, scale, network) for network in networks]


def plan(config: RunConfig, scale: Scale, network: str | None = None) -> ExpertPlan:
    """Decide which experts of one network a run has that names none.

    Args:
        config: of the run, its limits included.
        scale: of the recipe.
        network: one of those that the run names; the only one by default.

    Raises:
        UserError: the method names a recipe of experts that does not exist, or has no such scale.
    """
    recipe = _recipe(config)
    options = scale.options(recipe, config.data.name)
    data = {key: value for key, value in dataclasses.asdict(config.data).items() if value is not None}
    data |= {"root": str(config.data.root)} if config.data.root else {}
    networks = config.engine.supply.expert_networks(config.network)
    name = network or networks
    explicit = {
        "recipe": _recipe_name(config),
        "data": data,
        **({"network": name} if name else {}),
        "count": max(int(options["count"]), -(-config.engine.supply.count // (len(names_in(networks)) or 1))),
        "epochs": max(int(options["epochs"]), config.engine.epochs_read),
        "compute": {"device": config.compute.device, "threads": config.compute.threads},
    }
    note = str(recipe.laptop.get("note", "what that costs in accuracy was not measured"))
    return ExpertPlan(config.method, expert_config.resolve(explicit, budget=scale.budget), scale, note)


_EPOCHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""How many a time buys: one of few numbers, so that later runs find the experts of earlier ones."""


def scale_within(config: RunConfig, seconds: float, observer: Observer, source: InMemory | None) -> Scale:
    """Decide how many epochs experts are trained for in a time, by the pace of a few steps of each network.

    Args:
        config: of the run.
        seconds: that the training of all experts may take.
        observer, source: as for `provided`.

    Raises:
        OutOfTime: one epoch takes longer.
        UserError: as `plan`.
    """
    planned = plans(config, Scale("laptop"))
    paces = [(each.config.count, pace_of(each.config, observer, source)) for each in planned]
    epoch = sum(count * pace.epoch for count, pace in paces)
    others = sum(pace.warm_up + count * pace.metrics for count, pace in paces)
    paper = int(_recipe(config).options(config.data.name)["epochs"])
    fitting = [epochs for epochs in _EPOCHS if epochs <= paper and others + epochs * epoch <= seconds]
    if not fitting:
        raise OutOfTime(
            f"one epoch of the experts of {config.method} takes {duration(others + epoch)} here, and they "
            f"have {duration(seconds)}: pass a larger --budget, or train them first and pass --experts FILE"
        )
    return Scale("laptop", fitting[-1], f"what fits into {duration(seconds)}")


def _recipe(config: RunConfig) -> ExpertRecipe:
    """Return the recipe of experts of a method, or else that of the kind of networks it takes."""
    return load_expert_recipe(_recipe_name(config))


def _recipe_name(config: RunConfig) -> str:
    """Return the name of that recipe, or the path of its file."""
    return load_recipe(config.method).experts or str(config.engine.supply.recipe)
