"""A suite's cells: their settings, where their files lie, and the commands that distil and evaluate them.

A cell's folder ``RESULTS/<data set>/<method>-ipc<N>-seed<S>/`` holds

``cell.toml``        its settings
``set.h5, set.run/`` the distilled set and its run; snapshots are in the run
``labelled.h5``      the set with stored labels of teachers, where the suite asks for them
``set-4bits.h5``     a copy in so many bits a pixel, of either, where the suite asks for it
``evaluation.json``  the report on the set, or ``evaluation-<name>.json`` for each of several evaluations;
                     ``evaluation.4bits.json`` that on a copy, ``curve-<iteration>.json`` that on a snapshot
``result.json``      all of it, once the cell is finished; ``failed.txt`` why it is not
``log.txt``          the output of the commands

Experts lie beside the cells of their data set: ``experts-<name>-<network>.h5``, ``.toml`` and ``.log``.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsdistill.bench import encode_step
from dsdistill.bench.expert_set import Environment, ExpertSet, overrides, slug
from dsdistill.bench.label_step import CellTeacher, LabelStep, teacher_words
from dsdistill.config.options import flatten
from dsdistill.config.sharing import values_without_folders
from dsdistill.data import catalog
from dsdistill.evaluation.rows import size_of
from dsdistill.runtime.checkpoints import RunDirectory

_FLAGS = {"method": "method", "ipc": "ipc", "seed": "seed", "iterations": "iterations", "seconds": "seconds"}
_FLAGS |= {"network": "network", "data.name": "dataset"}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation of a cell's set.

    Attributes:
        name: empty for the only evaluation of a suite without tables of them.
        networks: students; the first also evaluates snapshots.
        students, epochs: 0 leaves them to the protocol. precision: empty leaves it to the device.
        labels: where they come from, in place of what the protocol says; empty leaves it to that.
        labelled: whether students learn from the labels of the cell's labelling.
        teachers: that label batches or controls, and that students are compared with.
        bits: of a pixel, where a copy of the set is evaluated that was encoded; 0: the set as it is.
        baselines: evaluated with it. baselines_from: the cells that evaluate those it shares with them.
    """

    name: str = ""
    protocol: str
    networks: tuple[str, ...]
    seed: int
    students: int = 0
    epochs: int = 0
    precision: str = ""
    labels: str = ""
    labelled: bool = False
    teachers: tuple[CellTeacher, ...] = ()
    scores: bool = False
    bits: int = 0
    baselines: tuple[str, ...] = ()
    baselines_from: tuple[str, ...] = ()

    def of_copy(self, bits: int) -> Evaluation:
        """Return the same evaluation of a copy of the set, with the baselines that are coded like it."""
        baselines = tuple(name for name in self.baselines if size_of(name))
        return dataclasses.replace(self, bits=bits, scores=False, baselines=baselines, baselines_from=())

    def settings(self, cell_seed: int) -> dict[str, Any]:
        """Return all that decides its results; a seed or precision only where it differs from the default."""
        table: dict[str, Any] = {"protocol": self.protocol, "networks": list(self.networks)}
        table |= {"baselines": list(self.baselines), "students": self.students, "epochs": self.epochs}
        table |= {"scores": True} if self.scores else {}
        table |= {"precision": self.precision} if self.precision else {}
        table |= {"labels": self.labels} if self.labels else {}
        if self.teachers:
            table["teacher"] = ",".join(str(each.reference) for each in self.teachers)
        return table | ({"seed": self.seed} if self.seed != cell_seed else {})

    def words(self, file: Path, report: Path, results: Path, environment: Environment) -> list[str]:
        """Return the beginning of its command, for a set or a snapshot of it."""
        words = ["evaluate", str(file), "--json", str(report), "--protocol", self.protocol]
        words += ["--epochs", str(self.epochs)] if self.epochs else []
        words += ["--precision", self.precision] if self.precision else []
        words += ["--labels", self.labels] if self.labels else []
        words += teacher_words(self.teachers, results)
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
    experts: tuple[ExpertSet, ...] = field(default=(), compare=False)
    """That it matches with, or recovers from; several are a committee."""
    label: LabelStep | None = None
    """None where no evaluation needs stored labels."""
    bits: tuple[int, ...] = ()
    """Of a pixel, in the copies of its set that are encoded and evaluated, too."""

    @property
    def name(self) -> str:
        """Its folder below the results."""
        return f"{slug(self.dataset)}/{slug(Path(self.method).stem)}-ipc{self.ipc}-seed{self.seed}"

    @property
    def all_evaluations(self) -> tuple[Evaluation, ...]:
        """The evaluations of its set, then those of each copy."""
        copies = (each.of_copy(bits) for bits in self.bits for each in self.evaluations)
        return *self.evaluations, *copies

    @property
    def teachers(self) -> tuple[CellTeacher, ...]:
        """Whoever labels its set, or batches and controls of an evaluation."""
        labelling = self.label.teachers if self.label else ()
        every = [*labelling, *(teacher for each in self.evaluations for teacher in each.teachers)]
        return tuple({str(each.reference): each for each in every}.values())

    @property
    def needs(self) -> tuple[ExpertSet, ...]:
        """The networks that are trained before it."""
        every = [*self.experts, *(each.experts for each in self.teachers)]
        return tuple({each.name: each for each in every}.values())

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
        table: dict[str, Any] = {"distil": dict(self.options), "evaluate": evaluate}
        if self.experts:
            several = {Path(each.name).name: each.settings() for each in self.experts}
            table["experts"] = several if len(several) > 1 else self.experts[0].settings()
        if self.bits:
            table["bits"] = list(self.bits)
        if self.label:
            table["label"] = self.label.settings()
        if self.teachers:
            table["teachers"] = {
                Path(each.experts.name).name: each.experts.settings() for each in self.teachers
            }
        return table

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
            options["engine.supply.path"] = ",".join(str(each.file(results)) for each in self.experts)
        return words + overrides(options) + environment.words()

    def about_labels(self) -> str:
        """Say what is labelled and how many bytes that takes; empty where nothing is."""
        if self.label is None:
            return ""
        return self.label.about(catalog.class_count(self.dataset))

    def labelled_file(self, results: Path) -> Path:
        """Return where the set lies with its labels."""
        return results / self.name / "labelled.h5"

    def labelling(self, results: Path, environment: Environment) -> list[str]:
        """Return the words that label the finished set, or go on with it, where the suite asks for that."""
        assert self.label
        words = self.label.command(results / self.name / "set.h5", self.labelled_file(results), results)
        return words + environment.words()

    def uncoded_file(self, evaluation: Evaluation, results: Path) -> Path:
        """Return where the set lies that is evaluated, or whose copy is."""
        return self.labelled_file(results) if evaluation.labelled else results / self.name / "set.h5"

    def evaluated_file(self, evaluation: Evaluation, results: Path) -> Path:
        """Return where the set or the copy lies that is evaluated."""
        file = self.uncoded_file(evaluation, results)
        return encode_step.coded_file(file, evaluation.bits) if evaluation.bits else file

    def encode(self, evaluation: Evaluation, results: Path) -> list[str]:
        """Return the words that encode the copy which is evaluated."""
        return encode_step.command(self.uncoded_file(evaluation, results), evaluation.bits)

    def evaluate(self, evaluation: Evaluation, results: Path, environment: Environment) -> list[str]:
        """Return the words of one evaluation of the finished set, or of a copy."""
        file = self.evaluated_file(evaluation, results)
        words = evaluation.words(file, self.report(evaluation, results), results, environment)
        words += ["--networks", ",".join(evaluation.networks), "--baselines", ",".join(evaluation.baselines)]
        words += ["--resume", *(["--scores"] if evaluation.scores else [])]
        return words + (["--repeats", str(evaluation.students)] if evaluation.students else [])

    def evaluate_snapshot(self, results: Path, snapshot: Path, environment: Environment) -> list[str]:
        """Return the words that evaluate the set as it was before the end."""
        first = self.evaluations[0]
        words = first.words(snapshot, self.snapshot_report(results, snapshot), results, environment)
        words += ["--networks", first.networks[0], "--baselines", "", "--no-save"]
        return [*words, "--repeats", str(self.curve_students)]

    def commands(self, results: Path, environment: Environment) -> list[str]:
        """Return the commands that distil, label, encode and evaluate the set, for people.

        The last ones are those of all evaluations, as they are ordered.

        They are passed on with the results, so they name no folder of this machine but that of the results.
        """
        environment = dataclasses.replace(environment, root=None)
        results = Path(results.name) if results.is_absolute() else results
        commands = [each.command(results, environment) for each in self.needs]
        commands.append(self.distil(results, environment))
        commands += [self.labelling(results, environment)] if self.label else []
        encoded = {self.evaluated_file(each, results): each for each in self.all_evaluations if each.bits}
        commands += [self.encode(each, results) for each in encoded.values()]
        commands += [self.evaluate(each, results, environment) for each in self.all_evaluations]
        return [shlex.join(["dsdistill", *values_without_folders(words)]) for words in commands]

    def report(self, evaluation: Evaluation, results: Path) -> Path:
        """Return where the report of an evaluation lies."""
        suffix = f"-{evaluation.name}" if evaluation.name else ""
        suffix += f".{evaluation.bits}bits" if evaluation.bits else ""
        return results / self.name / f"evaluation{suffix}.json"

    def snapshot_report(self, results: Path, snapshot: Path) -> Path:
        """Return where the report on a snapshot lies."""
        return results / self.name / f"{snapshot.stem.replace('snapshot', 'curve')}.json"

    def run(self, results: Path) -> RunDirectory:
        """Return the run of its distillation."""
        return RunDirectory(results / self.name / "set.run")
