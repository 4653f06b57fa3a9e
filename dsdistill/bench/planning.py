"""From a suite to its cells: every name and option is checked before the first of them begins."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any

from dsdistill.bench.cells import Cell, Evaluation, ExpertSet, slug
from dsdistill.bench.conditions import Conditions
from dsdistill.bench.suite import EvaluationSettings, MethodSettings, Suite
from dsdistill.config.options import merge
from dsdistill.config.recipe import load_recipe
from dsdistill.config.sharing import file_name
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.distillation import config as configs
from dsdistill.distillation.config import RunConfig
from dsdistill.errors import UserError
from dsdistill.evaluation import baselines
from dsdistill.experts import config as expert_config
from dsdistill.networks import add_network
from dsdistill.protocol import load_protocol


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
    named = [*suite.baselines, *(name for each in suite.method.values() for name in each.baselines)]
    named += [name for each in suite.evaluation.values() for name in each.baselines or ()]
    for name in baselines.expanded_names(named):
        baselines.check(name)
        if baselines.needs_teacher(name):
            raise UserError(f"suite {suite.name!r}: baseline {name!r} needs a teacher, and suites have none")
    for name in (*suite.networks, *(name for each in suite.evaluation.values() for name in each.networks)):
        add_network(name)
    for name in suite.datasets:
        catalog.check(name)
    for method in suite.methods:
        load_recipe(suite.recipe_of(method))


def _cell(suite: Suite, dataset: str, method: str, ipc: int, seed: int) -> Cell:
    settings = suite.settings_of(method)
    options = _options(suite, dataset, method, ipc, seed)
    try:
        config = configs.resolve(options)
        if config.ipc != ipc:
            raise UserError("options set no ipc in a suite: name the numbers of images in ipcs")
        for name in config.architectures:
            add_network(name)
        evaluations = tuple(_evaluations(suite, settings, config))
        for evaluation in evaluations:
            load_protocol(evaluation.protocol, dataset, ipc)
        experts = _experts(suite, settings, config)
    except UserError as error:
        raise UserError(f"suite {suite.name!r}, method {method!r}: {error}") from error
    return Cell(
        dataset=dataset,
        method=method,
        ipc=ipc,
        seed=seed,
        network=file_name(config.network),
        options=options,
        evaluations=evaluations,
        curve=suite.curve,
        curve_students=suite.curve_students,
        gain_over=settings.gain_over,
        experts=experts,
    )


def _options(suite: Suite, dataset: str, method: str, ipc: int, seed: int) -> dict[str, Any]:
    """Return the options of a distillation over its recipe."""
    settings = suite.settings_of(method)
    own = settings.iterations[ipc] if isinstance(settings.iterations, dict) else settings.iterations
    explicit: dict[str, Any] = {"network": suite.network, "protocol": suite.protocol}
    explicit |= {"iterations": own or suite.iterations, "seconds": suite.seconds}
    options: dict[str, Any] = {"method": suite.recipe_of(method), "ipc": ipc, "seed": seed}
    options |= {"data": {"name": dataset}}
    options |= {key: value for key, value in explicit.items() if value}
    options |= {"checkpoint": {"snapshots": suite.curve}} if suite.curve else {}
    return merge(merge(options, suite.set), settings.set)


def _evaluations(suite: Suite, settings: MethodSettings, config: RunConfig) -> Iterable[Evaluation]:
    """Yield the evaluations of a cell, each with the baselines of its table."""
    tables = suite.evaluation or {"": EvaluationSettings()}
    for name in settings.evaluations or tables:
        table = tables[name]
        names = suite.baselines if table.baselines is None else table.baselines
        for seed in table.seeds or (config.seed,):
            yield Evaluation(
                name=f"{name}-seed{seed}" if table.seeds else name,
                protocol=table.protocol or config.protocol,
                networks=table.networks or tuple(dict.fromkeys((config.architectures[0], *suite.networks))),
                seed=seed,
                students=table.students or suite.students,
                epochs=table.epochs or suite.epochs,
                precision=table.precision,
                scores=suite.scores,
                baselines=tuple(baselines.expanded_names(names)),
            )


def _experts(suite: Suite, settings: MethodSettings, config: RunConfig) -> ExpertSet | None:
    """Return the experts that a cell matches with: those for its data, whitening and network.

    Raises:
        UserError: its method needs some and has none.
    """
    if not settings.experts:
        if config.engine.supply.needs_experts:
            raise UserError("it matches with trained networks: name a table of experts in [method.NAME]")
        return None
    table = suite.experts[settings.experts]
    default = DataConfig(name=config.data.name)
    data = {
        key: value
        for key, value in vars(config.data).items()
        if key not in ("root", "download") and (key == "name" or value != getattr(default, key))
    }
    options: dict[str, Any] = {"recipe": table.recipe, "data": data, "network": config.network}
    sizes = {"count": table.count, "epochs": table.epochs}
    options |= {key: value for key, value in sizes.items() if value}
    options = merge(options, table.set)
    expert_config.resolve(options)
    network = str(options["network"])
    parts = [settings.experts, file_name(network), *(["zca"] if config.data.zca else [])]
    return ExpertSet(f"{slug(config.data.name)}/experts-{slug('-'.join(parts))}", options)


def _with_baselines(cells: Iterable[Cell], suite: Suite) -> list[Cell]:
    """Leave baselines that several evaluations share to the first of them.

    Those for the bytes of a set, those that scores compare, and a method's own stay with every cell.
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
                if source == here or "@" in name or compared:
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
