"""Suites that others wrote: planned, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import tomli_w

from dsdistill.bench.planning import plan
from dsdistill.bench.suite import load_suite
from dsdistill.config.presets import SUITES
from dsdistill.files import parse_toml
from tests.helpers.mutants import mutated_toml, refusal


def test_mutants_of_suites(tmp_path: Path) -> None:
    texts = [SUITES.find(name).read_text() for name in SUITES.names()]
    path, found = tmp_path / "mine.toml", set()

    def planned() -> None:
        for cell in plan(load_suite(path))[:3]:
            json.dumps(cell.settings())
            parse_toml(tomli_w.dumps(cell.settings()))

    for seed in range(60):
        path.write_bytes(mutated_toml(texts[seed % len(texts)], seed))
        sentence = refusal(planned)
        assert "\n" not in sentence, seed
        assert len(sentence) < 1500, seed
        found.add("refused" if sentence else "planned")
    assert found == {"refused", "planned"}
