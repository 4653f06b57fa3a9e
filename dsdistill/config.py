"""What a run is told, from one place: recipe < config file < command line, validated once.

A recipe (``recipes/<method>.toml``) holds a published method's settings and the tables of those that depend
on the data set and the IPC. A config file holds some or all keys of `RunConfig`; every run writes them all.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import tomli_w
import torch
from annotated_types import Ge, Lt
from pydantic import Field

from dsdistill import runtime
from dsdistill.augment.dsa import Augmentation, Rule
from dsdistill.data.config import DataConfig
from dsdistill.engines import AttentionEngine, DistributionEngine, GradientEngine, TrajectoryEngine
from dsdistill.errors import UserError
from dsdistill.formation import Formation
from dsdistill.shelf import Shelf
from dsdistill.stepping import OptimiserConfig
from dsdistill.storage import Dtype
from dsdistill.synthetic import Init, Space
from dsdistill.validation import FORBID_EXTRA, dotted, validated

_WORTH_COMPILING = 1.5e8
"""Pixels through a network that take an uncompiled run some two minutes on two cores; compiling takes one."""
_WORTH_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """The siamese augmentation of real and synthetic images."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_EXTRA

    operators: str = "none"
    """Names joined by underscores, as papers write strategies; flip is left out where it changes labels."""
    rule: Rule = "single"
    align_corners: bool = False

    def build(self, mirror: bool) -> Augmentation:
        """Return the augmentation, without flips where a mirror image has another label."""
        chosen = Augmentation.parse(self.operators, rule=self.rule, align_corners=self.align_corners)
        return chosen if mirror else chosen.without("flip")


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How the work is done. ``auto`` and 0 are decided from the machine, and what they become is recorded."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_EXTRA

    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the networks' convolutions; losses, pixels and second-order gradients stay float32."""
    compile: Literal["auto"] | bool = "auto"
    """Use torch.compile; auto does on a CPU, where the run is long enough to earn back its minute."""
    chunk: Annotated[int, Ge(0)] = 0
    """Real images in one pass through a network; 0 chooses by the device's cache or memory."""
    class_chunk: Annotated[int, Ge(0)] = 0
    """Classes whose graphs are held at once; 0 chooses by the device's memory. Gradient matching holds one
    class's graph anyway, and trajectories those of a step."""
    threads: Annotated[int, Ge(0)] = 0
    """CPU threads; 0 keeps torch's choice. Bit-identical results need the same number."""

    def decided(
        self, device: torch.device, pixels: int, notify: runtime.Notify, seconds: float = 0.0
    ) -> ComputeConfig:
        """Decide every ``auto`` for a device and a run that takes so many pixels through a network.

        Args:
            notify: receives a sentence where a long run cannot be compiled.
            seconds: that the run lasts whatever its pixels; 0 where that is not said.
        """
        compile = self.compile
        if compile == "auto":
            long = seconds > _WORTH_SECONDS if seconds else pixels > _WORTH_COMPILING
            compile = device.type == "cpu" and long and runtime.can_compile(device, notify)
        return dataclasses.replace(
            self,
            device=str(device),
            precision=runtime.resolve_precision(self.precision, device),
            compile=compile,
            threads=self.threads or torch.get_num_threads(),
        )


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When a run saves its state."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_EXTRA

    seconds: Annotated[float, Ge(0)] = 60.0
    """At least this often."""
    iterations: Annotated[int, Ge(0)] = 0
    """And every so many iterations; 0 leaves it to the clock."""
    snapshots: Annotated[int, Ge(0)] = 0
    """At so many moments, equally spaced over the run, the set as it is then is kept in the run directory as
    ``snapshot-<iteration>.h5``; the last of them is the output itself. They show accuracy over time."""


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """What matching sees of the synthetic images."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_EXTRA

    flip: bool | Literal["force"] = False
    """Put the mirror images beside them in every synthetic batch (FYI): true, or force where mirroring
    changes what an image shows, as with digits. The set stores no more images for it."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything a distillation is told; two runs of one config on one CPU write the same pixels."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_EXTRA

    method: str
    data: DataConfig
    ipc: int
    network: str
    iterations: Annotated[int, Ge(1)]
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Stop after so many seconds in the loop, whatever ``iterations`` says; 0: iterations alone decide. The
    file tells how many were taken: that number makes the same pixels again."""
    seed: Annotated[int, Ge(-(2**63)), Lt(2**63)] = 0
    init: Init = "real"
    space: Space = "network"
    """Pixel space the optimiser works in; the file always holds unit pixels."""
    protocol: str = "dm"
    """The evaluation protocol the method's paper uses."""
    labels: Literal["hard", "teacher"] = "hard"
    """teacher: the set stores the logits that a trained network gives its images when they are finished, for
    methods that have such networks. Labels that are learned are stored anyway."""
    storage: Dtype = "float32"
    formation: Formation = field(default_factory=Formation)
    """Multi-formation: how many training images a stored image is decoded into."""
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    engine: Annotated[
        AttentionEngine | DistributionEngine | GradientEngine | TrajectoryEngine,
        Field(discriminator="kind"),
    ]
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A published method: what it is, its settings, and tables of those that vary."""

    __pydantic_config__: ClassVar[dict[str, str]] = FORBID_EXTRA

    name: str
    title: str
    paper: str
    follows: Literal["paper", "code"]
    """Which one the settings follow where the paper and its code differ."""
    protocol: str
    defaults: dict[str, Any] = field(default_factory=dict)
    settings: tuple[dict[str, Any], ...] = ()
    base: str = ""
    """Another recipe, whose options come first."""

    def options(self, dataset: str, ipc: int, heirs: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return the options for a data set and IPC: the defaults under every table whose ``when`` holds.

        Those of ``base`` come before them all. A table gives options as they are under ``set``, and under
        ``per_ipc`` those proportional to the IPC.

        Args:
            heirs: bases that lead here from another recipe.

        Raises:
            UserError: a table is wrong, or bases lead in a ring.
        """
        if self.base in heirs:
            raise UserError(f"recipe {self.name!r} begins from {self.base!r}, which begins from it; drop one")
        base = load_recipe(self.base) if self.base else None
        found = base.options(dataset, ipc, (*heirs, self.base)) if base else {}
        found = merged(found, {"method": self.name, "protocol": self.protocol})
        found = merged(found, self.defaults)
        for table in self.settings:
            self._check(table)
            when = table["when"]
            if unsupported := when.keys() - {"dataset", "ipc_min", "ipc_max"}:
                raise UserError(f"recipe {self.name!r}: no such condition: {', '.join(sorted(unsupported))}")
            fits = dataset in when.get("dataset", [dataset])
            if fits and when.get("ipc_min", ipc) <= ipc <= when.get("ipc_max", ipc):
                found = merged(found, table.get("set", {}))
                found = merged(found, _times(table.get("per_ipc", {}), ipc))
        return found

    def _check(self, table: Mapping[str, Any]) -> None:
        """Check one table of settings.

        Raises:
            UserError: saying what it may hold.
        """
        parts = table.keys() - {"source"}
        known = {"when", "set", "per_ipc"}
        if not {"when"} < parts <= known or not all(isinstance(table[part], Mapping) for part in parts):
            raise UserError(
                f"recipe {self.name!r}: a table of settings takes when, set or per_ipc, and source; "
                "the first three are tables"
            )
        names = table["when"].get("dataset", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"recipe {self.name!r}: dataset is a list of names, not {names!r}")
        bounds = [table["when"].get(bound, 0) for bound in ("ipc_min", "ipc_max")]
        if not all(isinstance(number, int) for number in bounds):
            raise UserError(f"recipe {self.name!r}: ipc_min and ipc_max are whole numbers")
        if not all(isinstance(value, (int, float)) for value in dotted(table.get("per_ipc", {})).values()):
            raise UserError(f"recipe {self.name!r}: per_ipc holds numbers, to be multiplied by the IPC")


RECIPES = Shelf("recipes", "method")


def load_recipe(name: str) -> Recipe:
    """Read a recipe by name, or from the path of a TOML file.

    Raises:
        UserError: there is no such recipe, or the file is not one.
    """
    table = RECIPES.read(name)
    if str(table.get("base", "")).endswith(".toml"):  # beside the recipe, wherever it is read from
        table["base"] = str(RECIPES.find(name).parent / table["base"])
    return validated(Recipe, table, f"recipe {table['name']!r}: key", known_keys(Recipe))


def resolve(
    explicit: Mapping[str, Any], overrides: Iterable[str] = (), file: Mapping[str, Any] | None = None
) -> RunConfig:
    """Join recipe, config file and command line into one validated config; later ones win.

    Args:
        explicit: nested options, as in a config file, that were given by name.
        overrides: ``key=value`` texts, dotted keys, values in TOML (a bare word is a string).
        file: the content of a config file.

    Raises:
        UserError: an unknown key, with the nearest one; a value out of range; something required is missing.
    """
    given = merged(file or {}, explicit)
    for text in overrides:
        given = merged(given, parsed_override(text))
    data, ipc = given.get("data", {}), given.get("ipc")
    if not isinstance(data, Mapping):
        raise UserError(f"option 'data' is a table, not {data!r}; give its keys, such as data.name")
    dataset = data.get("name")
    if not dataset:
        raise UserError("no data set given; pass --dataset NAME (dsdistill datasets lists them)")
    if ipc is None:
        raise UserError("no IPC (images per class) given; pass --ipc N")
    if not isinstance(ipc, int) or isinstance(ipc, bool):
        raise UserError(f"option 'ipc' is {ipc!r}: it takes a whole number, the images per class")
    if ipc < 1:
        raise UserError(f"IPC must be at least 1, not {ipc}; pass --ipc 1 or more")
    given = with_absolute_paths(given)
    recipe = load_recipe(str(given.get("method", "dm")))
    options, known = recipe.options(dataset, ipc), known_keys(RunConfig)
    if _table(given, "engine", "supply").keys() == {"path"}:
        engine = {key: value for key, value in _table(given, "engine").items() if key != "supply"}
        alone: RunConfig = validated(RunConfig, merged(options, {**given, "engine": engine}), "option", known)
        if not hasattr(getattr(alone.engine, "supply", None), "path"):
            raise UserError(
                f"method {recipe.name!r} takes no networks trained beforehand: leave out --experts "
                "(or --pool)"
            )
    return validated(RunConfig, merged(options, given), "option", known)


def check_replayed(file: Mapping[str, Any], told: RunConfig, path: Path, notify: runtime.Notify) -> None:
    """Check that a run of a config file's settings is one of its method.

    A run's ``config.toml`` holds every setting: of another method's recipe nothing would be left.

    Args:
        file: its content.
        told: the run, resolved.
        notify: receives a sentence where IPC or data set are others, as settings may depend on them.

    Raises:
        UserError: the method is another one.
    """
    whole = {"method", "data", "ipc", "network", "iterations", "engine", "optimiser", "compute"}
    if not whole <= file.keys():
        return
    method, now = str(file.get("method")), told.method
    if method != now:
        raise UserError(
            f"{path} holds every setting of {method}, so that nothing would be left of {now}'s: leave out "
            "--config, or keep in the file only what you mean to set"
        )
    before = file.get("ipc"), _table(file, "data").get("name")
    if before != (told.ipc, told.data.name):
        notify(f"the settings in {path} are those for {before[1]} at IPC {before[0]}; they stay")


def _table(options: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """Return a table in nested options; empty where there is none."""
    found: Any = options
    for key in keys:
        found = found.get(key, {}) if isinstance(found, Mapping) else {}
    return found if isinstance(found, Mapping) else {}


def data_options(
    name: str | None,
    root: str | Path | None,
    size: int | None,
    channels: int | None,
    zca: bool | None,
    download: bool,
) -> dict[str, Any]:
    """Return the options of the data that were given, as a config file has them."""
    said = {"name": name, "root": str(root) if root else None, "size": size, "channels": channels}
    said |= {"zca": zca, "download": download or None}
    return {key: value for key, value in said.items() if value is not None}


def as_table(config: RunConfig) -> dict[str, Any]:
    """Return a config as nested options that TOML can hold; absent options are left out."""
    return _plain(dataclasses.asdict(config))


def to_toml(config: RunConfig) -> str:
    """Write a config as TOML that `resolve` reads back to an equal one."""
    return tomli_w.dumps(as_table(config))


def for_sharing(table: Mapping[str, Any]) -> str:
    """Write a config's table as TOML that names files without their folders: sets are passed on."""
    named: dict[str, Any] = {"method": Path(table["method"]).name}
    if path := table["engine"].get("supply", {}).get("path"):
        named["engine"] = {"supply": {"path": Path(path).name}}
    return tomli_w.dumps(merged(table, named))


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested options over others; tables merge, anything else replaces."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        both_tables = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = merged(below, value) if both_tables else value  # type: ignore[arg-type]
    return result


def with_absolute_paths(given: Mapping[str, Any]) -> dict[str, Any]:
    """Make paths absolute: a config is replayed, and a set evaluated, from other folders too."""

    def absolute(path: Any) -> str:
        return str(Path(str(path)).expanduser().absolute())

    result = dict(given)
    data = dict(given["data"])
    kind, colon, path = str(data["name"]).partition(":")
    if colon and path:
        data["name"] = f"{kind}:{absolute(path)}"
    if data.get("root"):
        data["root"] = absolute(data["root"])
    result["data"] = data
    supply = result.get("engine", {}).get("supply", {}) if isinstance(result.get("engine"), Mapping) else {}
    if isinstance(supply, Mapping) and supply.get("path"):
        result = merged(result, {"engine": {"supply": {"path": absolute(supply["path"])}}})
    for key in ("method", "protocol"):
        if str(given.get(key, "")).endswith(".toml"):
            result[key] = absolute(given[key])
    return result


def parsed_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set takes key=value, not {text!r}; for example --set optimiser.lr=0.5")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    for part in reversed(key.strip().split(".")):
        parsed = {part: parsed}
    return parsed


def known_keys(kind: type[Any], prefix: str = "") -> list[str]:
    """List the dotted keys of a config dataclass, those of every engine included."""
    keys: list[str] = []
    for name, hint in get_type_hints(kind).items():
        if get_origin(hint) is ClassVar:
            continue
        nested = [kind for kind in (get_args(hint) or (hint,)) if dataclasses.is_dataclass(kind)]
        if nested:
            keys += [key for each in nested for key in known_keys(each, f"{prefix}{name}.")]  # type: ignore[arg-type]
        elif not name.startswith("__"):
            keys.append(prefix + name)
    return list(dict.fromkeys(keys))


def _times(options: Mapping[str, Any], ipc: int) -> dict[str, Any]:
    """Multiply every number in nested options."""
    return {
        key: _times(value, ipc) if isinstance(value, Mapping) else value * ipc
        for key, value in options.items()
    }


def _plain(value: Any) -> Any:
    """Make options TOML can hold: no None, no paths, no tuples."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
