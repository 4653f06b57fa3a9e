"""A suite's cells: their settings, where their files lie, and the commands that distil and evaluate them.

A cell's folder ``RESULTS/<data set>/<method>-ipc<N>-seed<S>/`` holds

``cell.toml``        its settings
``set.h5, set.run/`` the distilled set and its run; snapshots are in the run
``evaluation.json``  the report on the set, or ``evaluation-<name>.json`` for each of several evaluations;
                     ``curve-<iteration>.json`` that on a snapshot
``result.json``      all of it, once the cell is finished; ``failed.txt`` why it is not
``log.txt``          the output of the commands

Experts lie beside the cells of their data set: ``experts-<name>-<network>.h5``, ``.toml`` and ``.log``.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from dsdistill.config.options import flatten
from dsdistill.config.sharing import told
from dsdistill.runtime.checkpoints import RunDirectory
from dsdistill.text import within

_FLAGS = {"method": "method", "ipc": "ipc", "seed": "seed", "iterations": "iterations", "seconds": "seconds"}
_FLAGS |= {"network": "network", "data.name": "dataset"}


@dataclass(frozen=True)
class Environment:
    """On what and with which data a suite runs; none of it is part of a cell's settings."""

    root: Path | None = None
    download: bool = False
    device: str | None = None
    threads: int = 0
    """Of each command; 0 leaves them to it."""

    def words(self) -> list[str]:
        """Return the options of a command."""
        words = ["--root", str(self.root)] if self.root else []
        words += ["--download"] if self.download else []
        return words + (["--device", self.device] if self.device else [])


@dataclass(frozen=True)
class ExpertSet:
    """Networks that cells match with; trained before them."""

    name: str
    """Their file below the results, without its suffix."""
    options: Mapping[str, Any]

    def file(self, results: Path) -> Path:
        """Return their file."""
        return results / f"{self.name}.h5"

    def settings(self) -> dict[str, Any]:
        """Return all that decides their weights."""
        return dict(self.options)

    def settings_file(self, results: Path) -> Path:
        """Return where the settings are written."""
        return results / f"{self.name}.toml"

    def log(self, results: Path) -> Path:
        """Return where the output of their command goes."""
        return results / f"{self.name}.log"

    def command(self, results: Path, environment: Environment) -> list[str]:
        """Return the words that train them, or go on with it."""
        options = flatten(self.options)
        words = ["experts", "-o", str(self.file(results)), "--resume"]
        words += ["--dataset", str(options.pop("data.name")), "--recipe", str(options.pop("recipe"))]
        return words + _overrides(options) + environment.words()


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation of a cell's set.

    Attributes:
        name: empty for the only evaluation of a suite without tables of them.
        networks: students; the first also evaluates snapshots.
        students, epochs: 0 leaves them to the protocol. precision: empty leaves it to the device.
        baselines: evaluated with it. baselines_from: the cells that evaluate those it shares with them.
    """

    name: str = ""
    protocol: str
    networks: tuple[str, ...]
    seed: int
    students: int = 0
    epochs: int = 0
    precision: str = ""
    scores: bool = False
    baselines: tuple[str, ...] = ()
    baselines_from: tuple[str, ...] = ()

    def settings(self, cell_seed: int) -> dict[str, Any]:
        """Return all that decides its results; a seed or precision only where it differs from the default."""
        table: dict[str, Any] = {"protocol": self.protocol, "networks": list(self.networks)}
        table |= {"baselines": list(self.baselines), "students": self.students, "epochs": self.epochs}
        table |= {"scores": True} if self.scores else {}
        table |= {"precision": self.precision} if self.precision else {}
        return table | ({"seed": self.seed} if self.seed != cell_seed else {})

    def words(self, file: Path, report: Path, environment: Environment) -> list[str]:
        """Return the beginning of its command, for a set or a snapshot of it."""
        words = ["evaluate", str(file), "--json", str(report), "--protocol", self.protocol]
        words += ["--epochs", str(self.epochs)] if self.epochs else []
        words += ["--precision", self.precision] if self.precision else []
        return [*words, "--seed", str(self.seed), *environment.words()]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One distillation and its evaluations."""

    dataset: str
    method: str
    """Its name in the suite; its recipe is among the options."""
    ipc: int
    seed: int
    network: str
    """That features are matched in."""
    options: Mapping[str, Any]
    """Of the distillation, over its recipe."""
    evaluations: tuple[Evaluation, ...]
    """The first is the one that snapshots have, too."""
    curve: int = 0
    curve_students: int = 1
    gain_over: str = ""
    """Another method of the suite, over which tables state the gain."""
    experts: ExpertSet | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """Its folder below the results."""
        return f"{slug(self.dataset)}/{slug(Path(self.method).stem)}-ipc{self.ipc}-seed{self.seed}"

    def settings(self) -> dict[str, Any]:
        """Return what makes the cell what it is, as TOML can hold it; where it runs is no part of that."""
        first = self.evaluations[0]
        if first.name:
            evaluate: dict[str, Any] = {each.name: each.settings(self.seed) for each in self.evaluations}
            evaluate |= {"first": first.name}
        else:
            evaluate = first.settings(self.seed)
        evaluate |= {"curve": self.curve, "curve_students": self.curve_students}
        evaluate |= {"gain_over": self.gain_over} if self.gain_over else {}
        experts = {"experts": self.experts.settings()} if self.experts else {}
        return {"distil": dict(self.options), "evaluate": evaluate, **experts}

    def settings_file(self, results: Path) -> Path:
        """Return where the settings are written."""
        return results / self.name / "cell.toml"

    def distil(self, results: Path, environment: Environment) -> list[str]:
        """Return the words that distil the set, or go on with it."""
        folder = results / self.name
        options = flatten(self.options)
        words = ["distill", "-o", str(folder / "set.h5"), "--run-dir", str(folder / "set.run"), "--resume"]
        for key, flag in _FLAGS.items():
            if key in options:
                words += [f"--{flag}", str(options.pop(key))]
        if self.experts:
            options["engine.supply.path"] = str(self.experts.file(results))
        return words + _overrides(options) + environment.words()

    def evaluate(self, evaluation: Evaluation, results: Path, environment: Environment) -> list[str]:
        """Return the words of one evaluation of the finished set."""
        words = evaluation.words(
            results / self.name / "set.h5", self.report(evaluation, results), environment
        )
        words += ["--networks", ",".join(evaluation.networks), "--baselines", ",".join(evaluation.baselines)]
        words += ["--resume", *(["--scores"] if evaluation.scores else [])]
        return words + (["--repeats", str(evaluation.students)] if evaluation.students else [])

    def evaluate_snapshot(self, results: Path, snapshot: Path, environment: Environment) -> list[str]:
        """Return the words that evaluate the set as it was before the end."""
        first = self.evaluations[0]
        words = first.words(snapshot, self.snapshot_report(results, snapshot), environment)
        words += ["--networks", first.networks[0], "--baselines", "", "--no-save"]
        return [*words, "--repeats", str(self.curve_students)]

    def commands(self, results: Path, environment: Environment) -> list[str]:
        """Return the commands that distil and evaluate the set, for people.

        They are passed on with the results, so they name no folder of this machine but that of the results.
        """
        environment = dataclasses.replace(environment, root=None)
        results = Path(results.name) if results.is_absolute() else results
        commands = [self.experts.command(results, environment)] if self.experts else []
        commands.append(self.distil(results, environment))
        commands += [self.evaluate(each, results, environment) for each in self.evaluations]
        return [shlex.join(["dsdistill", *told(words)]) for words in commands]

    def report(self, evaluation: Evaluation, results: Path) -> Path:
        """Return where the report of an evaluation lies."""
        suffix = f"-{evaluation.name}" if evaluation.name else ""
        return results / self.name / f"evaluation{suffix}.json"

    def snapshot_report(self, results: Path, snapshot: Path) -> Path:
        """Return where the report on a snapshot lies."""
        return results / self.name / f"{snapshot.stem.replace('snapshot', 'curve')}.json"

    def run(self, results: Path) -> RunDirectory:
        """Return the run of its distillation."""
        return RunDirectory(results / self.name / "set.run")


_LONGEST = 120  # bytes of a part of a file's name


def slug(name: str) -> str:
    """Turn the name of a data set or a method into one for files."""
    kind, colon, path = name.partition(":")
    text = f"{kind}-{Path(path).name}" if colon else name
    return within(re.sub(r"[^\w.-]+", "-", text).strip("-."), _LONGEST).rstrip("-.") or "unnamed"


def _overrides(options: Mapping[str, Any]) -> list[str]:
    """Write options as ``--set`` takes them."""
    words = []
    for key, value in options.items():
        written = tomli_w.dumps({"value": value}).partition("=")[2].strip()
        words += ["--set", f"{key}={' '.join(written.split()) if isinstance(value, list) else written}"]
    return words
