"""The configuration of a run, from one place: recipe < config file < command line, validated once.

A config file holds some or all keys of `RunConfig`; every run writes them all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Lt
from pydantic import Field

from dsdistill.augment.config import AugmentationConfig
from dsdistill.compute.config import OptimiserConfig
from dsdistill.config.aliases import modernise, notice
from dsdistill.config.data_names import data_name
from dsdistill.config.initial_names import SetFile, is_set_file
from dsdistill.config.ipc import Ipc, as_words, read_ipc, typical
from dsdistill.config.kinds import without_other_kinds
from dsdistill.config.options import as_toml, known_keys, merge, parse_override, table_at, with_absolute_paths
from dsdistill.config.recipe import load_recipe
from dsdistill.config.sizes import Sizes, check_sizes
from dsdistill.config.storage import Auto, Storage, decided_storage
from dsdistill.config.validation import forbid_extra, validate
from dsdistill.data.config import DataConfig
from dsdistill.engines import ENGINES, Engine
from dsdistill.errors import UserError, quoted
from dsdistill.runtime.config import ComputeConfig
from dsdistill.runtime.notice import Notify, silent
from dsdistill.storage.set_description import describe
from dsdistill.synthetic.initial import Init
from dsdistill.synthetic.multi_formation import MultiFormation
from dsdistill.synthetic.patches import PatchConfig
from dsdistill.synthetic.set import Space


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When a run saves its state."""

    seconds: Annotated[float, Ge(0)] = 60.0
    """At least this often."""
    iterations: Annotated[int, Ge(0)] = 0
    """And every so many iterations; 0 leaves it to the clock."""
    snapshots: Annotated[int, Ge(0)] = 0
    """At so many moments, equally spaced over the run, the set as it is then is kept in the run directory as
    ``snapshot-<iteration>.h5``; the last of them is the output itself. They show accuracy over time."""


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class DistillationCompute(ComputeConfig):
    """Options of the computation, and of what it need not compute anew in every iteration."""

    second_order: Literal["auto", "fp32", "bf16"] = "fp32"
    """The precision of convolutions where a gradient is differentiated: in a trajectory's steps, and of
    synthetic images whose gradients are matched. Other engines have none. auto is bf16 if the hardware
    multiplies it natively. Networks that torch's forward mode differentiates, such as an MLP or a ConvNet
    without normalisation, have float32 in that part."""
    cache_real: Literal["auto", "file"] | bool = "auto"
    """Compute what is compared of real images once for each of finitely many draws of them, and keep it, so
    that most iterations cost their synthetic side alone. It needs finitely many networks: supply snapshots,
    or a pool with points. auto does so where that is given, the run is long enough, and memory suffices.
    true keeps it in memory; file in the run directory, where a resumed run finds it."""
    cache_draws: Annotated[int, Ge(0)] = 0
    """Draws of real images and augmentation for each network, where the real side is cached; 0 chooses by
    the length of the run and the memory, 32 at most. A draw has engine.batch_real images of a class."""

    @property
    def caches(self) -> bool:
        """Whether the real side is cached; not while that is undecided."""
        return self.cache_real in (True, "file")

    @property
    def precisions(self) -> dict[str, str]:
        """The options that are precisions, by name."""
        return super().precisions | {"second_order": self.second_order}


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """What of synthetic images is learned, and how they are matched."""

    learn: Literal["images", "residual", "compensators"] = "images"
    """images: their pixels. residual: what is added to those they start from, so that weight decay pulls them
    back there (CIM). compensators: for each teacher, images that are added to those of all classes, which
    stay as they are; they count as stored images, so that each class keeps fewer than the IPC (INFER)."""

    flip: bool | Literal["force"] = False
    """Put the mirror images beside them in every synthetic batch (FYI): true, or force where mirroring
    changes what an image shows, as with digits. The set stores no more images for it."""


@forbid_extra
@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The whole configuration of a distillation; two runs of one on one CPU write the same pixels."""

    method: str
    """A recipe's name, or the path of a recipe file."""
    data: DataConfig
    ipc: Ipc
    """Images per class: one number, or one for each class; see `dsdistill.config.ipc`."""
    network: str
    """Whose features or gradients are matched; see the command ``networks``. A committee's are several names
    with commas between them."""
    iterations: Annotated[int, Ge(0)]
    """Steps to take; 0 stores the images that the run starts from."""
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Stop after so many seconds in the loop, whatever ``iterations`` says; 0: iterations alone decide. The
    file tells how many were taken: that number makes the same pixels again."""
    seed: Annotated[int, Ge(-(2**63)), Lt(2**63)] = 0
    """Of every random draw."""
    init: Init | SetFile = "real"
    """What the images start from: real images, or noise; see `dsdistill.synthetic.initial.initialise`. Or the
    file of a set, of which images, IPC and multi-formation are taken, and no labels but the classes."""
    init_candidates: Annotated[int, Ge(0)] = 0
    """Random images of a class that are clustered where ``init`` is kmeans, clusters or representative; 0
    clusters them all."""
    init_digest: str = ""
    """Which set that file holds; written down when a run begins, so that it never goes on from another."""
    patches: PatchConfig = field(default_factory=PatchConfig)
    """Which real images or crops are chosen where ``init`` is patches."""
    space: Space = "network"
    """Pixel space the optimiser works in; the file always holds unit pixels."""
    protocol: str = "dm"
    """The evaluation protocol the method's paper uses."""
    student: str = ""
    """The network that the set is made for, where it is not the one that is matched."""
    labels: Literal["hard", "teacher"] = "hard"
    """teacher: the set stores the logits that a trained network gives its images when they are finished, for
    methods that have such networks. Labels that are learned are stored anyway."""
    storage: Storage | Auto = "auto"
    """How pixels are stored: float32, float16, uint8 (which clips them to [0, 1] and rounds them to 256
    levels), or coded in fewer bits, with the options of `CodingConfig`. auto: in 8 bits, each image's range
    in 256 levels, which clips nothing; float32 with data.zca."""
    sizes: Sizes = ()
    """How many first images of each class are to be a good set themselves (MDC), ascending, the last the IPC:
    [1, 2, 5, 10]; or auto. Empty: the set is good as a whole only. See `dsdistill.config.sizes`."""
    size_period: Annotated[int, Ge(1)] = 100
    """Iterations after which another of the sizes is chosen, to be matched beside the whole set."""
    multi_formation: MultiFormation = field(default_factory=MultiFormation)
    """Multi-formation: how many training images a stored image is decoded into."""
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    engine: Annotated[Engine[Any], ENGINES]
    """What is matched: attention, distributions, gradients, trajectories, or an objective of your own."""
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    compute: DistillationCompute = field(default_factory=DistillationCompute)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)

    @property
    def stored_as(self) -> Storage:
        """How pixels are stored, once auto is decided."""
        return decided_storage(self.storage, self.data.zca)

    def __post_init__(self) -> None:
        check_sizes(self.sizes, self.ipc)
        if self.sizes and not self.engine.matches_prefixes:
            raise UserError(
                "sizes are for methods that match each class with real images, such as idc, dm or datadam, "
                f"and {self.method} is none: choose another --method, or set sizes=[]"
            )
        if self.synthetic.learn != "compensators":
            return
        if not self.engine.compensates:
            raise UserError(
                "synthetic.learn=compensators is for methods that recover images from teachers: pass "
                "--method infer, or set synthetic.learn=images"
            )
        if typical(self.ipc) == 1:
            raise UserError("IPC 1 has no room for compensators: pass --ipc 2 or more")
        for option, absent, fits in (
            ("data.zca", "false", not self.data.zca),
            ("multi_formation.factor", 1, self.multi_formation.is_identity),
            ("optimiser.ema", 0, not self.optimiser.ema),
        ):
            if not fits:
                raise UserError(f"a set of compensators goes without {option}: set {option}={absent}")


def resolve(
    explicit: Mapping[str, Any],
    overrides: Iterable[str] = (),
    file: Mapping[str, Any] | None = None,
    notify: Notify = silent,
) -> RunConfig:
    """Join recipe, config file and command line into one validated config; later ones win.

    Args:
        explicit: nested options, as in a config file, that were set by name.
        overrides: ``key=value`` texts, dotted keys, values in TOML (a bare word is a string).
        file: the content of a config file.
        notify: receives a sentence where an option was renamed.

    Raises:
        UserError: an unknown key, with the nearest one; a value out of range; something required is missing.
    """
    layers = [file or {}, explicit, *map(parse_override, overrides)]
    options: dict[str, Any] = {}
    renamed: list[str] = []
    for layer in layers:
        options = merge(options, modernise(layer, renamed))
    dataset, ipc = _data_and_ipc(options)
    options = with_absolute_paths({**options, "ipc": ipc})
    recipe = load_recipe(str(options.get("method", "dm")))
    recipe.load_plugins()
    defaults, known = recipe.options(dataset, typical(ipc), renamed), known_keys(RunConfig)
    defaults = _of_chosen_kinds(defaults, options)
    if renamed:
        notify(notice(renamed))
    if table_at(options, "engine", "supply").keys() == {"path"}:
        engine = {key: value for key, value in table_at(options, "engine").items() if key != "supply"}
        without = merge(defaults, {**options, "engine": engine})
        alone: RunConfig = validate(RunConfig, without, "option", known)
        if not alone.engine.supply.takes_experts:
            raise UserError(
                f"method {recipe.name!r} takes no networks trained beforehand: leave out --experts"
            )
    if "network" in options:  # then the set is made for it, whatever the recipe's own is for
        defaults = {key: value for key, value in defaults.items() if key != "student"}
    return validate(RunConfig, merge(defaults, options), "option", known)


def _of_chosen_kinds(defaults: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's options without those of its engine that other choices replace.

    A recipe is made of its engine, so with another kind of that nothing is left out, and both are refused.
    """
    engine, chosen = table_at(defaults, "engine"), table_at(options, "engine")
    kind = chosen.get("kind", engine.get("kind"))
    if kind != engine.get("kind") or (found := ENGINES.find(str(kind))) is None:
        return defaults
    return {**defaults, "engine": without_other_kinds(engine, chosen, found)}


def _data_and_ipc(options: Mapping[str, Any]) -> tuple[str, Ipc]:
    """Return the name of the data set and the IPC, on which recipes depend.

    Raises:
        UserError: one of them is missing or of a wrong type; or a set to start from cannot be read.
    """
    data, ipc = options.get("data", {}), options.get("ipc")
    if not isinstance(data, Mapping):
        raise UserError(f"option 'data' is a table, not {quoted(data)}; give its keys, such as data.name")
    if not (dataset := data.get("name")):
        raise UserError("no data set given; pass --dataset NAME (dsdistill datasets lists them)")
    if ipc is None and is_set_file(init := str(options.get("init", ""))):
        ipc = describe(init).counts
    if ipc is None:
        raise UserError("no IPC (images per class) given; pass --ipc N")
    return dataset, read_ipc(ipc)


def check_replayed(file: Mapping[str, Any], config: RunConfig, path: Path, notify: Notify) -> None:
    """Check that a run with a config file's settings is one of its method.

    A run's ``config.toml`` holds every setting: of another method's recipe nothing would be left.

    Args:
        file: its content.
        config: the run, resolved.
        path: of the file.
        notify: receives a sentence where IPC or data set are others, as settings may depend on them.

    Raises:
        UserError: the method is another one.
    """
    complete = {"method", "data", "ipc", "network", "iterations", "engine", "optimiser", "compute"}
    if not complete <= file.keys():
        return
    method, now = str(file.get("method")), config.method
    if method != now:
        raise UserError(
            f"{path} holds every setting of {method}, so that nothing would be left of {now}'s: leave out "
            "--config, or keep in the file only what you mean to set"
        )
    ipc, dataset = read_ipc(file["ipc"]), data_name(str(table_at(file, "data").get("name")))
    if (ipc, dataset) != (config.ipc, data_name(config.data.name)):
        notify(f"the settings in {path} are those for {dataset} at IPC {as_words(ipc)}; they stay")


def as_table(config: RunConfig) -> dict[str, Any]:
    """Return a config as nested options that TOML can hold; absent options are left out."""
    return _plain(dataclasses.asdict(config))


def to_toml(config: RunConfig) -> str:
    """Write a config as TOML that `resolve` reads back to an equal one."""
    return as_toml(as_table(config))


def _plain(value: Any) -> Any:
    """Make options TOML can hold: no None, no paths, no tuples."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
