"""From a suite to its cells: every name and option is checked before the first of them begins."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any

from dsdistill.bench import encode_step
from dsdistill.bench.cells import Cell, Evaluation
from dsdistill.bench.conditions import Conditions
from dsdistill.bench.expert_set import ExpertSet, slug
from dsdistill.bench.label_sources import check_possible, decoded_count, is_possible, source_of
from dsdistill.bench.label_step import CellTeacher, LabelStep
from dsdistill.bench.suite import OWN, EvaluationSettings, Suite, at_ipc, references, table_names
from dsdistill.config.ipc import typical
from dsdistill.config.options import merge
from dsdistill.config.recipe import load_recipe
from dsdistill.config.sharing import file_name, network_names
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.distillation import config as configs
from dsdistill.distillation.config import RunConfig
from dsdistill.errors import UserError
from dsdistill.evaluation import baselines
from dsdistill.evaluation.rows import DISTILLED_HARD
from dsdistill.experts import config as expert_config
from dsdistill.networks import add_network, add_networks
from dsdistill.plugs import names_in
from dsdistill.protocol import load_protocol
from dsdistill.supply.teachers import TeachersConfig


def plan(suite: Suite) -> list[Cell]:
    """Return the cells of a suite: by data set, IPC, method and seed.

    Everything that can be is checked: no cell starts where a later one is misspelt.

    Raises:
        UserError: an unknown data set, method, network, protocol, baseline or option; or a method that
            matches with experts where the suite has none for it.
    """
    _check_names(suite)
    cells: list[Cell] = []
    for dataset in suite.datasets:
        for ipc in sorted({*suite.ipcs, *(ipc for each in suite.method.values() for ipc in each.ipcs)}):
            for method in suite.methods:
                if ipc in (suite.settings_of(method).ipcs or suite.ipcs):
                    cells += [_cell(suite, dataset, method, ipc, seed) for seed in suite.seeds]
    names = [cell.name for cell in cells]
    folded = [name.casefold() for name in names]  # some file systems ignore case
    if double := next((name for name in names if folded.count(name.casefold()) > 1), None):
        raise UserError(f"suite {suite.name!r} has two cells named {double}; rename a data set or a method")
    return _with_baselines(cells, suite)


def matching(cells: Sequence[Cell], only: str) -> list[Cell]:
    """Return the cells whose names hold one of some texts, separated by commas; ``*`` and ``?`` match.

    Raises:
        UserError: there is none.
    """
    parts = [part.strip() for part in only.split(",") if part.strip()]
    selected = [cell for cell in cells if any(fnmatch.fnmatch(cell.name, f"*{part}*") for part in parts)]
    if parts and not selected:
        raise UserError(f"no cell matches --only {only!r}; they are named like {cells[0].name}")
    return selected if parts else list(cells)


def _check_names(suite: Suite) -> None:
    names = [*suite.baselines, *(name for each in suite.method.values() for name in each.baselines)]
    names += [name for each in suite.evaluation.values() for name in each.baselines or ()]
    for name in baselines.expanded_names(names):
        baselines.check(name)
        if baselines.needs_teacher(name) and not any(map(suite.teacher_of, suite.methods)):
            raise UserError(
                f"suite {suite.name!r}: baseline {name!r} needs a teacher: write teacher = NAME of an "
                "[experts.NAME]"
            )
    for name in (*suite.networks, *(name for each in suite.evaluation.values() for name in each.networks)):
        add_network(name)
    for name in suite.datasets:
        catalog.check(name)
    for method in suite.methods:
        load_recipe(suite.recipe_of(method))


def _cell(suite: Suite, dataset: str, method: str, ipc: int, seed: int) -> Cell:
    settings = suite.settings_of(method)
    try:
        options = _options(suite, dataset, method, ipc, seed)
        config = configs.resolve(options)
        if suite.coded_bits_of(method) and config.storage == "auto":  # copies are encoded of what is exact
            options = merge(options, {"storage": "float32"})
            config = configs.resolve(options)
        if config.ipc != ipc:
            raise UserError("options set no ipc in a suite: name the numbers of images in ipcs")
        add_networks(config.network)
        add_networks(config.student or config.network)
        teachers = _teachers(suite, method, config)
        step = _label_step(suite, method, config, teachers)
        evaluations = tuple(_evaluations(suite, method, config, step, teachers))
        if step and not any(each.labelled for each in evaluations):
            _check_unused(step, settings.label is not None, evaluations)
            step = None
        experts = _experts(suite, settings.experts, config)
        bits = suite.coded_bits_of(method)
        encode_step.check_possible(bits, config, step)
    except UserError as error:
        raise UserError(f"suite {suite.name!r}, method {method!r}: {error}") from error
    return Cell(
        dataset=dataset,
        method=method,
        ipc=ipc,
        seed=seed,
        network=network_names(config.network),
        options=options,
        evaluations=evaluations,
        curve=suite.curve,
        curve_students=suite.curve_students,
        gain_over=settings.gain_over,
        experts=experts,
        label=step,
        bits=bits,
    )


def _check_unused(step: LabelStep, own: bool, evaluations: Sequence[Evaluation]) -> None:
    """Check that labels which no evaluation of a cell needs can be left out.

    Raises:
        UserError: the method itself asks for them.
    """
    if own:
        names = ", ".join(dict.fromkeys(each.protocol for each in evaluations))
        other = 'protocol = "fkd" or labels = "views"' if step.config.views else 'labels = "static"'
        raise UserError(
            f"nobody learns from the labels of label: protocol {names} takes others; write {other}"
        )


def _options(suite: Suite, dataset: str, method: str, ipc: int, seed: int) -> dict[str, Any]:
    """Return the options of a distillation over its recipe."""
    settings = suite.settings_of(method)
    tables = [suite.experts[name] for name in table_names(settings.experts)]
    network = ",".join(dict.fromkeys(each.network for each in tables if each.network)) or suite.network
    protocol = "" if suite.protocol == OWN else suite.protocol
    explicit: dict[str, Any] = {"network": network, "protocol": protocol}
    own = suite.iterations if settings.iterations is None else settings.iterations
    explicit |= {"iterations": at_ipc(own, ipc), "seconds": suite.seconds}
    options: dict[str, Any] = {"method": suite.recipe_of(method), "ipc": ipc, "seed": seed}
    options |= {"data": {"name": dataset}}
    options |= {key: value for key, value in explicit.items() if value}
    options |= {"checkpoint": {"snapshots": suite.curve}} if suite.curve else {}
    return merge(merge(options, suite.set), settings.set)


def _evaluations(
    suite: Suite, method: str, config: RunConfig, step: LabelStep | None, teachers: tuple[CellTeacher, ...]
) -> Iterable[Evaluation]:
    """Yield the evaluations of a cell, each with the baselines of its table; the first with the method's.

    Raises:
        UserError: nothing makes the labels that one needs, or a baseline of the method cannot be evaluated.
    """
    settings, tables = suite.settings_of(method), suite.evaluation or {"": EvaluationSettings()}
    for place, name in enumerate(settings.evaluations or tables):
        table = tables[name]
        chosen = table.labels or settings.labels or suite.labels
        protocol = _protocol(suite, method, table.protocol, config)
        loaded = load_protocol(protocol, config.data.name, typical(config.ipc)).with_labels(chosen or None)
        if loaded.transfer:
            raise UserError(
                f"suites do not teach students other data, which protocol {loaded.name!r} is for: evaluate "
                "such sets by dsdistill evaluate --transfer"
            )
        source = source_of(loaded, chosen, config, step, teachers)
        labelled = step is not None and step.config.kind == source
        if place == 0:
            check_possible(baselines.expanded_names(settings.baselines), source, config, teachers)
        if place == 0 and suite.curve and labelled:
            raise UserError("snapshots have no stored labels: leave out curve, or evaluate otherwise first")
        names = suite.baselines if table.baselines is None else table.baselines
        possible = [
            each
            for each in baselines.expanded_names(names)
            if is_possible(each, source, config, bool(teachers))
        ]
        students = (loaded.student_for(config.student or config.network), *suite.networks)
        for seed in table.seeds or (config.seed,):
            yield Evaluation(
                name=f"{name}-seed{seed}" if table.seeds else name,
                protocol=protocol,
                networks=table.networks or tuple(dict.fromkeys(students)),
                seed=seed,
                students=table.students or suite.students,
                epochs=at_ipc(table.epochs or suite.epochs, typical(config.ipc)),
                precision=table.precision,
                labels=chosen,
                labelled=labelled,
                teachers=() if source == "hard" else teachers,
                scores=suite.scores,
                baselines=tuple(possible),
            )


def _protocol(suite: Suite, method: str, named: str, config: RunConfig) -> str:
    """Return the protocol of an evaluation.

    Args:
        named: in its table; empty, or "own".
    """
    of_method = suite.settings_of(method).protocol
    protocol = named or of_method or config.protocol
    if protocol != OWN:
        return protocol
    return of_method if of_method not in ("", OWN) else load_recipe(suite.recipe_of(method)).protocol


def _label_step(
    suite: Suite, method: str, config: RunConfig, teachers: tuple[CellTeacher, ...]
) -> LabelStep | None:
    """Return how the sets of a method are labelled, if they are.

    Raises:
        UserError: there is no teacher for it, or an option cannot be.
    """
    options = suite.label_of(method)
    if options is None:
        return None
    if not teachers and suite.settings_of(method).label is None and any(map(suite.teacher_of, suite.methods)):
        return None  # the suite's, for the methods that have a teacher
    if not teachers:
        raise UserError("label needs a teacher: write teacher = NAME of an [experts.NAME]")
    step = LabelStep({"seed": config.seed, **options}, teachers, decoded_count(config))
    step.config  # noqa: B018 (raises if an option cannot be)
    return step


def _teachers(suite: Suite, method: str, config: RunConfig) -> tuple[CellTeacher, ...]:
    """Return who labels for a method."""
    return tuple(
        CellTeacher(_expert_set(suite, each.source, config), each)
        for each in references(suite.teacher_of(method))
    )


def _experts(suite: Suite, names: str, config: RunConfig) -> tuple[ExpertSet, ...]:
    """Return the experts that a cell matches with, or recovers from.

    Raises:
        UserError: its method needs some and has none, takes none, or takes those of one table alone.
    """
    supply, tables = config.engine.supply, table_names(names)
    if not tables and supply.needs_experts:
        raise UserError("it matches with trained networks: name a table of experts in [method.NAME]")
    if tables and not supply.takes_experts:
        raise UserError("it takes no networks trained beforehand: leave out experts, or call them teacher")
    if len(tables) > 1 and not isinstance(supply, TeachersConfig):
        raise UserError(f"it matches with the experts of one table, and {len(tables)} are named: keep one")
    return tuple(_expert_set(suite, name, config) for name in tables)


def _expert_set(suite: Suite, name: str, config: RunConfig) -> ExpertSet:
    """Return the networks of a table for a cell: those for its data, whitening and, by default, network.

    Raises:
        UserError: an option cannot be, or there is no one network.
    """
    table = suite.experts[name]
    if not table.network and len(names_in(config.network)) > 1:
        raise UserError(
            f"experts of one network are in a table, not of {config.network}: write a table for each, with "
            'its network, and experts = "NAME,NAME"'
        )
    default = DataConfig(name=config.data.name)
    data = {
        key: value
        for key, value in vars(config.data).items()
        if key not in ("root", "download") and (key == "name" or value != getattr(default, key))
    }
    network = table.network or config.network
    options: dict[str, Any] = {"recipe": table.recipe, "data": data, "network": network}
    sizes = {"count": table.count, "epochs": table.epochs}
    options |= {key: value for key, value in sizes.items() if value}
    options = merge(options, table.set)
    add_network(str(options["network"]))
    expert_config.resolve(options)
    parts = [name, file_name(str(options["network"])), *(["zca"] if config.data.zca else [])]
    return ExpertSet(f"{slug(config.data.name)}/experts-{slug('-'.join(parts))}", options)


def _with_baselines(cells: Iterable[Cell], suite: Suite) -> list[Cell]:
    """Leave baselines that several evaluations share to the first of them.

    Those that fill bytes or have the labels of a set, those that scores compare, and a method's own stay with
    every cell.
    """
    first: dict[tuple[Any, ...], tuple[str, str]] = {}
    planned = []
    for cell in cells:
        own = baselines.expanded_names(suite.settings_of(cell.method).baselines)
        evaluations: list[Evaluation] = []
        for evaluation in cell.evaluations:
            conditions, here = Conditions.of_plan(cell, evaluation), (cell.name, evaluation.name)
            names, sources = [], []
            for name in evaluation.baselines:
                compared = evaluation.scores and name in (baselines.RANDOM, baselines.FULL)
                source = first.setdefault((conditions, evaluation.networks, name), here)
                alone = "@" in name or compared or baselines.needs_teacher(name) or name == DISTILLED_HARD
                if source == here or alone:
                    names.append(name)
                elif source[0] != cell.name:
                    sources.append(source[0])
            names += own if not evaluations else []
            evaluations.append(
                dataclasses.replace(
                    evaluation,
                    baselines=tuple(dict.fromkeys(names)),
                    baselines_from=tuple(dict.fromkeys(sources)),
                )
            )
        planned.append(dataclasses.replace(cell, evaluations=tuple(evaluations)))
    return planned
