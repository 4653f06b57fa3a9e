"""One cell on the page: its file, config and seed, and what was found."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from dsdistill.bench.results import CellResult
from dsdistill.evaluation import scores
from dsdistill.evaluation.report import MATRIX_BYTES
from dsdistill.evaluation.rows import DISTILLED
from dsdistill.report.figures import anchor
from dsdistill.text import duration, kilobytes


def article(result: CellResult) -> str:
    """Return all there is to say of a cell, under the id that links lead to."""
    judged = result.evaluation
    students = f"{judged.get('protocol')}, {judged.get('epochs')} epochs, {judged.get('repeats')} students"
    facts = {
        "accuracy": _accuracy(result),
        "scores": escape(scores.sentence(judged.get("scores", {}))),
        "seed": str(result.seed),
        "network": escape(result.network),
        "protocol": escape(f"{students}, learning rate {judged.get('lr')}, last epoch"),
        "distillation": escape(
            f"{result.iterations} iterations in {duration(result.seconds)}, "
            + (f"experts in {duration(result.experts_seconds)}, " if result.experts_seconds else "")
            + f"peak memory {result.peak_memory_bytes / 1e9:.2f} GB"
        ),
        "size": escape(_size(result)),
        "file": _code(f"{result.cell}/{result.file}") + (f" ({result.doubt})" if result.doubt else ""),
        "content SHA-256": _code(result.sha256),
        "machine": escape(result.machine),
        "distilled, judged": escape(f"{result.created}; {judged.get('date', '')}"),
        "packages": escape(_packages(judged.get("packages"))),
    }
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items() if value)
    commands = "\n".join(f"$ {command}" for command in result.commands)
    title = f"{result.method}, {result.dataset}, {result.ipc} per class, seed {result.seed}"
    return (
        f'<article id="{escape(anchor(result))}"><h3>{escape(title)}</h3><dl>{listed}</dl>'
        f"{_folded('Commands', commands)}{_folded('Configuration (TOML)', result.config)}</article>\n"
    )


def _accuracy(result: CellResult) -> str:
    found = [
        f"{row.set if row.set != DISTILLED else result.method} on {row.network} "
        f"{row.accuracy} % "
        f"({', '.join(f'{value:.2f}' for value in row.values)})"
        for row in result.rows
    ]
    return "<br>".join(map(escape, found))


def _size(result: CellResult) -> str:
    row = result.main
    images = f"{row.images} images" + (f", decoded into {row.decoded}" if row.decoded != row.images else "")
    cost = result.evaluation.get("cost", {})
    soft = result.evaluation.get("soft_labels") and "label_bytes" in cost
    labels = f", {kilobytes(cost['label_bytes'])} kB of them soft labels" if soft else ""
    real = f", the bytes of {cost['real_images']:,.0f} real images" if "real_images" in cost else ""
    large = cost.get("preprocess_bytes", 0) > MATRIX_BYTES
    matrix = f"; whitening takes {kilobytes(cost['preprocess_bytes'])} kB more" if large else ""
    return f"{images}, {kilobytes(result.stored_bytes)} kB{labels}{real}{matrix}"


def _packages(found: Any) -> str:
    if isinstance(found, str):
        found = json.loads(found)
    return (
        ", ".join(f"{name} {version}" for name, version in found.items()) if isinstance(found, dict) else ""
    )


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _folded(title: str, text: str) -> str:
    return (
        f"<details><summary>{title}</summary><pre><code>{escape(text)}</code></pre></details>" if text else ""
    )
