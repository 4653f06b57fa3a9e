"""Cells on the page: each one's file, config, seed and accuracies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dsdistill.bench.results import CellResult, EvaluationResult
from dsdistill.evaluation import scores
from dsdistill.evaluation.report import MATRIX_BYTES
from dsdistill.evaluation.rows import DISTILLED
from dsdistill.files import parse_json
from dsdistill.report.figures import anchor
from dsdistill.report.markup import escape, escape_lines
from dsdistill.text import duration, kilobytes

_SHAREABLE = ("network", "protocol", "conditions SHA-256", "machine", "packages")
"""Facts that are said once where all cells have the same."""


def articles(results: Sequence[CellResult]) -> str:
    """Return an article for every cell, under the id that links lead to, after what all cells share."""
    facts = [_facts(each) for each in results]
    shared = {
        key: facts[0][key]
        for key in _SHAREABLE
        if len(facts) > 1 and facts[0][key] and len({each[key] for each in facts}) == 1
    }
    top = f'<p class="quiet">The same in all cells:</p>{_listed(shared)}' if shared else ""
    own = [{key: value for key, value in each.items() if key not in shared} for each in facts]
    inside = "".join(_article(result, each) for result, each in zip(results, own, strict=True))
    return f'{top}<div class="cells">{inside}</div>'


def version(result: CellResult) -> str:
    """Return the version of dsdistill that evaluated a cell; empty where its report does not say."""
    return _packages(result).get("dsdistill", "")


def _article(result: CellResult, facts: Mapping[str, str]) -> str:
    commands = "\n".join(f"$ {command}" for command in result.commands)
    title = f"{result.method}, {result.dataset}, {result.ipc} per class, seed {result.seed}"
    return (
        f'<article id="{escape(anchor(result))}"><h3>{escape(title)}</h3>{_listed(facts)}'
        f"{_folded('Commands', commands)}{_folded('Configuration (TOML)', result.config)}</article>\n"
    )


def _facts(result: CellResult) -> dict[str, str]:
    """Return what is known of a cell, as HTML by its name."""
    evaluations = result.evaluations
    return {
        "accuracy": "<br>".join(map(escape, _accuracies(result))),
        "scores": _lines(scores.sentence(each.report.get("scores", {})) for each in evaluations),
        "seed": str(result.seed),
        "network": escape(result.network),
        "protocol": _lines(map(_protocol, evaluations)),
        "distillation": escape(
            f"{result.iterations} iterations in {duration(result.seconds)}, "
            + (f"experts in {duration(result.experts_seconds)}, " if result.experts_seconds else "")
            + (f"teachers in {duration(result.teacher_seconds)}, " if result.teacher_seconds else "")
            + (f"labels in {duration(result.label_seconds)}, " if result.label_seconds else "")
            + f"peak memory {result.peak_memory_bytes / 1e9:.2f} GB"
        ),
        "size": escape(_size(result)),
        "file": _code(f"{result.cell}/{result.file}")
        + (f" ({result.file_problem})" if result.file_problem else ""),
        "content SHA-256": _code(result.sha256),
        "conditions SHA-256": _code(str(result.report.get("conditions", ""))),
        "machine": escape(result.machine),
        "distilled, evaluated": escape(f"{result.created}; {_dates(evaluations)}"),
        "packages": escape(", ".join(f"{name} {each}" for name, each in _packages(result).items())),
    }


def _listed(facts: Mapping[str, str]) -> str:
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{value}</dd>' for name, value in facts.items() if value)}</dl>"


def _lines(texts: Iterable[str]) -> str:
    """Return different texts as lines of HTML."""
    return "<br>".join(escape(text) for text in dict.fromkeys(texts) if text)


def _accuracies(result: CellResult) -> Iterator[str]:
    for evaluation in result.evaluations:
        suffix = f", evaluation {evaluation.name}" if evaluation.name else ""
        suffix += f", {evaluation.bits} bits" if result.is_copy(evaluation) else ""
        for row in evaluation.rows:
            trained_on = row.set if row.set != DISTILLED else result.method
            values = ", ".join(f"{value:.2f}" for value in row.values)
            yield f"{trained_on} on {row.network} {row.accuracy} % ({values}){suffix}"


def _protocol(evaluation: EvaluationResult) -> str:
    report = evaluation.report
    students = f"{report.get('protocol')}, {report.get('epochs')} epochs, {report.get('repeats')} students"
    return f"{students}, learning rate {report.get('lr')}, last epoch"


def _dates(evaluations: Sequence[EvaluationResult]) -> str:
    """Return the first and the last date of evaluations."""
    dates = sorted(str(each.report.get("date", "")) for each in evaluations)
    return " to ".join(dict.fromkeys((dates[0], dates[-1])))


def _size(result: CellResult) -> str:
    row = result.main
    images = f"{row.images} images" + (f", decoded into {row.decoded}" if row.decoded != row.images else "")
    cost = result.report.get("cost", {})
    soft = result.report.get("soft_labels") and "label_bytes" in cost
    labels = f", {kilobytes(cost['label_bytes'])} kB of them soft labels" if soft else ""
    real = f", the bytes of {cost['real_images']:,.0f} real images" if "real_images" in cost else ""
    real += f" coded alike, in {cost['coded_bits']:g} bits a pixel" if real and "coded_bits" in cost else ""
    large = cost.get("preprocess_bytes", 0) > MATRIX_BYTES
    matrix = f"; whitening takes {kilobytes(cost['preprocess_bytes'])} kB more" if large else ""
    return f"{images}, {kilobytes(result.stored_bytes)} kB{labels}{real}{matrix}"


def _packages(result: CellResult) -> dict[str, str]:
    """Return the versions of packages; earlier files have them as JSON."""
    packages: Any = result.report.get("packages")
    if isinstance(packages, str):
        try:
            packages = parse_json(packages)
        except ValueError:
            return {}
    return {str(name): str(each) for name, each in packages.items()} if isinstance(packages, dict) else {}


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>" if text else ""


def _folded(title: str, text: str) -> str:
    if not text:
        return ""
    return f"<details><summary>{title}</summary><pre><code>{escape_lines(text)}</code></pre></details>"
