"""From a suite to its cells: what each is told, where its files lie, and the commands that make them.

A cell's folder ``RESULTS/<data set>/<method>-ipc<N>-seed<S>/`` holds

``cell.toml``        what it was told
``set.h5, set.run/`` the distilled set and its run; snapshots are in the run
``evaluation.json``  the verdict; ``curve-<iteration>.json`` that on a snapshot
``result.json``      all of it, once the cell is finished; ``failed.txt`` why it is not
``log.txt``          what the commands said

Experts lie beside the cells of their data set: ``experts-<name>-<network>.h5``, ``.toml`` and ``.log``.
"""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import tomli_w

from dsdistill.bench.suite import MethodSettings, Suite
from dsdistill.config.options import dotted, merged
from dsdistill.config.recipe import load_recipe
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.distillation import config as configs
from dsdistill.distillation.config import RunConfig
from dsdistill.errors import UserError
from dsdistill.evaluation import baselines
from dsdistill.experts import config as expert_config
from dsdistill.networks import check_network
from dsdistill.protocol import load_protocol
from dsdistill.runtime.checkpoints import RunDirectory

_FLAGS = {"method": "method", "ipc": "ipc", "seed": "seed", "iterations": "iterations", "seconds": "seconds"}
_FLAGS |= {"network": "network", "data.name": "dataset"}


@dataclass(frozen=True)
class Environment:
    """On what and with which data a suite runs; none of it is part of what a cell is."""

    root: Path | None = None
    download: bool = False
    device: str | None = None

    def words(self) -> list[str]:
        """Return the options of a command."""
        found = ["--root", str(self.root)] if self.root else []
        found += ["--download"] if self.download else []
        return found + (["--device", self.device] if self.device else [])


@dataclass(frozen=True)
class ExpertSet:
    """Networks that cells match with; trained before them."""

    name: str
    """Their file below the results, without its suffix."""
    options: Mapping[str, Any]

    def file(self, results: Path) -> Path:
        """Return their file."""
        return results / f"{self.name}.h5"

    def told(self) -> dict[str, Any]:
        """Return what makes them what they are."""
        return dict(self.options)

    def told_file(self, results: Path) -> Path:
        """Return where that is written."""
        return results / f"{self.name}.toml"

    def log(self, results: Path) -> Path:
        """Return where their command's words go."""
        return results / f"{self.name}.log"

    def command(self, results: Path, where: Environment) -> list[str]:
        """Return the words that train them, or go on with it."""
        told = dotted(self.options)
        words = [
            "experts",
            "-o",
            str(self.file(results)),
            "--resume",
            "--dataset",
            str(told.pop("data.name")),
        ]
        words += ["--recipe", str(told.pop("recipe"))]
        return words + _settings(told) + where.words()


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One distillation and its verdict."""

    dataset: str
    method: str
    ipc: int
    seed: int
    network: str
    protocol: str
    options: Mapping[str, Any]
    """All that the distillation is told over its recipe."""
    networks: tuple[str, ...]
    """Students; the one distilled with is first."""
    students: int = 0
    epochs: int = 0
    baselines: tuple[str, ...] = ()
    curve: int = 0
    curve_students: int = 1
    scores: bool = False
    experts: ExpertSet | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """Its folder below the results."""
        return f"{slug(self.dataset)}/{slug(Path(self.method).stem)}-ipc{self.ipc}-seed{self.seed}"

    def told(self) -> dict[str, Any]:
        """Return what makes the cell what it is, as TOML can hold it; where it runs is no part of that."""
        judged: dict[str, Any] = {"protocol": self.protocol, "networks": list(self.networks)}
        judged |= {"baselines": list(self.baselines), "students": self.students, "epochs": self.epochs}
        judged |= {"curve": self.curve, "curve_students": self.curve_students}
        judged |= {"scores": True} if self.scores else {}
        trained = {"experts": dict(self.experts.options)} if self.experts else {}
        return {"distil": dict(self.options), "evaluate": judged, **trained}

    def told_file(self, results: Path) -> Path:
        """Return where that is written."""
        return results / self.name / "cell.toml"

    def distil(self, results: Path, where: Environment) -> list[str]:
        """Return the words that distil the set, or go on with it."""
        folder = results / self.name
        told = dotted(self.options)
        words = ["distill", "-o", str(folder / "set.h5"), "--run-dir", str(folder / "set.run"), "--resume"]
        for key, flag in _FLAGS.items():
            if key in told:
                words += [f"--{flag}", str(told.pop(key))]
        if self.experts:
            told["engine.supply.path"] = str(self.experts.file(results))
        return words + _settings(told) + where.words()

    def evaluate(self, results: Path, where: Environment) -> list[str]:
        """Return the words that judge the finished set."""
        folder = results / self.name
        words = self._judge(folder / "set.h5", folder / "evaluation.json", where)
        words += ["--networks", ",".join(self.networks), "--baselines", ",".join(self.baselines)]
        words += ["--resume", *(["--scores"] if self.scores else [])]
        return words + (["--repeats", str(self.students)] if self.students else [])

    def evaluate_snapshot(self, results: Path, snapshot: Path, where: Environment) -> list[str]:
        """Return the words that judge the set as it was before the end."""
        words = self._judge(snapshot, self.verdict(results, snapshot), where)
        words += ["--networks", self.networks[0], "--baselines", "", "--no-save"]
        return [*words, "--repeats", str(self.curve_students)]

    def commands(self, results: Path, where: Environment) -> list[str]:
        """Return the commands that make and judge the set, for people."""
        first = [self.experts.command(results, where)] if self.experts else []
        made = [*first, self.distil(results, where), self.evaluate(results, where)]
        return [shlex.join(["dsdistill", *words]) for words in made]

    def _judge(self, file: Path, verdict: Path, where: Environment) -> list[str]:
        words = ["evaluate", str(file), "--json", str(verdict), "--protocol", self.protocol]
        words += ["--epochs", str(self.epochs)] if self.epochs else []
        return [*words, "--seed", str(self.seed), *where.words()]

    def verdict(self, results: Path, snapshot: Path) -> Path:
        """Return where the verdict on a snapshot is kept."""
        return results / self.name / f"{snapshot.stem.replace('snapshot', 'curve')}.json"

    def run(self, results: Path) -> RunDirectory:
        """Return the run of its distillation."""
        return RunDirectory(results / self.name / "set.run")


def plan(suite: Suite) -> list[Cell]:
    """Return the cells of a suite: by data set, IPC, method and seed.

    Everything that can be is checked: no cell starts where a later one is misspelt.

    Raises:
        UserError: an unknown data set, method, network, protocol, baseline or option; or a method that
            matches with experts where the suite has none for it.
    """
    beside = baselines.expanded(suite.baselines)
    own = baselines.expanded(name for told in suite.method.values() for name in told.baselines)
    for name in (*beside, *own):
        baselines.check(name)
    for name in suite.networks:
        check_network(name)
    for name in suite.datasets:
        catalog.check(name)
    for method in suite.methods:
        load_recipe(method)
    cells: list[Cell] = []
    for dataset in suite.datasets:
        for ipc in sorted({*suite.ipcs, *(ipc for told in suite.method.values() for ipc in told.ipcs)}):
            for method in suite.methods:
                told = suite.method.get(method, MethodSettings())
                if ipc in (told.ipcs or suite.ipcs):
                    cells += [_cell(suite, told, dataset, method, ipc, seed) for seed in suite.seeds]
    names = [cell.name for cell in cells]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"suite {suite.name!r} has two cells named {double}; rename a data set or a method")
    return _with_baselines(cells, beside)


def judges(cells: Iterable[Cell]) -> dict[str, Cell]:
    """Return for each of a suite's cells, by name, the one that judges its baselines: the first alike."""
    first: dict[tuple[Any, ...], Cell] = {}
    return {cell.name: first.setdefault(_judged_as(cell), cell) for cell in cells}


def matching(cells: Sequence[Cell], only: str) -> list[Cell]:
    """Return the cells whose names hold one of some texts, separated by commas; ``*`` and ``?`` match.

    Raises:
        UserError: there is none.
    """
    wanted = [part.strip() for part in only.split(",") if part.strip()]
    found = [cell for cell in cells if any(fnmatch.fnmatch(cell.name, f"*{part}*") for part in wanted)]
    if wanted and not found:
        raise UserError(f"no cell matches --only {only!r}; they are named like {cells[0].name}")
    return found if wanted else list(cells)


def slug(name: str) -> str:
    """Make a file name of a data set's or a method's."""
    kind, colon, path = name.partition(":")
    text = f"{kind}-{Path(path).name}" if colon else name
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "unnamed"


def _cell(suite: Suite, told: MethodSettings, dataset: str, method: str, ipc: int, seed: int) -> Cell:
    given: dict[str, Any] = {"method": method, "ipc": ipc, "seed": seed, "data": {"name": dataset}}
    asked: dict[str, Any] = {"network": suite.network, "protocol": suite.protocol}
    asked |= {"iterations": suite.iterations, "seconds": suite.seconds}
    given |= {key: value for key, value in asked.items() if value}
    given |= {"checkpoint": {"snapshots": suite.curve}} if suite.curve else {}
    options = merged(merged(given, suite.set), told.set)
    try:
        config = configs.resolve(options)
        check_network(config.network)
        load_protocol(config.protocol)
        experts = _experts(suite, told, config)
    except UserError as error:
        raise UserError(f"suite {suite.name!r}, method {method!r}: {error}") from error
    return Cell(
        dataset=dataset,
        method=method,
        ipc=ipc,
        seed=seed,
        network=config.network,
        protocol=config.protocol,
        options=options,
        networks=tuple(dict.fromkeys((config.network, *suite.networks))),
        students=suite.students,
        epochs=suite.epochs,
        baselines=tuple(baselines.expanded(told.baselines)),
        curve=suite.curve,
        curve_students=suite.curve_students,
        scores=suite.scores,
        experts=experts,
    )


def _experts(suite: Suite, told: MethodSettings, config: RunConfig) -> ExpertSet | None:
    """Say which experts a cell matches with: those for its data, whitening and network.

    Raises:
        UserError: its method needs some and has none.
    """
    needed = getattr(getattr(config.engine, "supply", None), "path", None) == ""
    if not told.experts:
        if needed:
            raise UserError("it matches with trained networks: name a table of experts in [method.NAME]")
        return None
    settings = suite.experts[told.experts]
    plain = DataConfig(name=config.data.name)
    data = {
        key: value
        for key, value in vars(config.data).items()
        if key not in ("root", "download") and (key == "name" or value != getattr(plain, key))
    }
    asked = {"count": settings.count, "epochs": settings.epochs}
    options: dict[str, Any] = {"recipe": settings.recipe, "data": data, "network": config.network}
    options |= {key: value for key, value in asked.items() if value}
    options = merged(options, settings.set)
    expert_config.resolve(options)
    network = str(options["network"])
    parts = [told.experts, network, *(["zca"] if config.data.zca else [])]
    return ExpertSet(f"{slug(config.data.name)}/experts-{slug('-'.join(parts))}", options)


def _with_baselines(cells: Iterable[Cell], names: Sequence[str]) -> list[Cell]:
    """Give each cell the baselines it judges besides its own: those equal for others only once."""
    cells, found = list(cells), []
    first = judges(cells)
    for cell in cells:
        compared = (baselines.RANDOM, baselines.FULL) if cell.scores else ()
        again = tuple(name for name in names if "@" in name or name in compared)
        own = names if first[cell.name] is cell else again
        found.append(changed(cell, baselines=tuple(dict.fromkeys((*own, *cell.baselines)))))
    return found


def _judged_as(cell: Cell) -> tuple[Any, ...]:
    """Return all that baselines of a cell depend on, but for those that depend on a set's bytes."""
    data = sorted(dotted(configs.as_table(configs.resolve(cell.options))["data"]).items())
    learned = load_protocol(cell.protocol).lr == "learned"  # baselines are trained at the set's rate
    own_rate = cell.method if learned else ""
    return cell.ipc, cell.seed, cell.protocol, cell.networks, str(data), own_rate


def _settings(told: Mapping[str, Any]) -> list[str]:
    """Write options as ``--set`` takes them."""
    words = []
    for key, value in told.items():
        written = tomli_w.dumps({"value": value}).partition("=")[2].strip()
        words += ["--set", f"{key}={' '.join(written.split()) if isinstance(value, list) else written}"]
    return words
