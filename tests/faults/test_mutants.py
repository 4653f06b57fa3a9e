"""Damaged files: each is refused with one line, or what is read is as it was."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.faults.conftest import CAMPAIGN
from tests.faults.injector import Injector
from tests.faults.mutations import byte_mutations, node_mutations, value_mutations
from tests.faults.scenarios import SCENARIOS, Scenario, content_of_set
from tests.faults.test_interruptions import is_refusal

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the injector is for Linux")

MEMORY = 1 << 30
"""Bytes that a command on a damaged file may take, beyond those of an idle one."""

seeded = settings(
    derandomize=True,
    max_examples=1000 if CAMPAIGN else 12,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
fewer = settings(seeded, max_examples=200 if CAMPAIGN else 5)


@dataclass(frozen=True)
class Subject:
    """A file to damage, and what then reads it.

    Attributes:
        folder: that it lies in; copied for each mutant.
        file: its name there.
        words: the command.
        content: of the result; None if the printed text counts.
        right: the content or text without damage.
    """

    folder: Path
    file: str
    words: list[str]
    right: Any
    content: Callable[[Path], Any] | None = None


def check(
    subject: Subject, mutation: Callable[[Path], None], injector: Injector, tally: Counter[str], kind: str
) -> None:
    """Damage a copy of the file, and read it."""
    copy = subject.folder.with_name("mutant")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(subject.folder, copy)
    file = next(copy.glob(subject.file))
    whole = file.read_bytes()
    mutation(file)
    changed = file.read_bytes() != whole
    outcome = injector.run(copy, subject.words, memory=MEMORY)
    tally[f"{kind} mutants"] += 1
    assert not outcome.hangs
    if outcome.code != 0:
        assert is_refusal(outcome), f"code {outcome.code}: {outcome.text}"
        tally[f"{kind} mutants refused"] += 1
    elif changed:
        content = subject.content(copy) if subject.content else without_sizes(outcome.text)
        assert content == subject.right or lacks_results(content, subject.right), "the content differs"


def without_sizes(text: str) -> str:
    """Leave out the line of a description that says how long the file is."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("file"))


def lacks_results(text: Any, right: Any) -> bool:
    """Whether descriptions of a set agree but for evaluations that are gone: the set is as it was."""
    if not isinstance(text, str):
        return False
    lines, expected = text.splitlines(), right.splitlines()
    of_set = [line for line in expected if "protocol dm" not in line]
    return [line for line in lines if "protocol dm" not in line] == of_set and set(lines) <= set(expected)


def _after(name: str, injector: Injector, folder: Path) -> tuple[Scenario, int]:
    """Run a scenario and what comes before it; return it and the changes that it made."""
    scenario = next(each for each in SCENARIOS if each.name == name)
    scenario.prepare(injector, folder)
    outcome = injector.run(folder, scenario.words)
    assert outcome.code == 0, outcome.text
    return scenario, outcome.changes


@pytest.fixture(scope="module")
def distilled(injector: Injector, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("distilled") / "whole"
    _after("evaluate", injector, folder)
    shutil.rmtree(folder / "set.run")
    words = ["info", "set.h5"]
    return Subject(folder, "set.h5", words, without_sizes(injector.run(folder, words).text))


@pytest.fixture(scope="module")
def labelled(injector: Injector, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("labelled") / "whole"
    _after("label", injector, folder)
    shutil.rmtree(folder / "set.run")
    words = ["info", "views.h5"]
    return Subject(folder, "views.h5", words, without_sizes(injector.run(folder, words).text))


@pytest.fixture(scope="module")
def experts(injector: Injector, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("experts") / "whole"
    _after("experts", injector, folder)
    words = ["weights", "experts.h5"]
    return Subject(folder, "experts.h5", words, without_sizes(injector.run(folder, words).text))


@pytest.fixture(scope="module")
def npz(injector: Injector, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("npz") / "whole"
    folder.mkdir()
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(40) % 4
    np.savez(folder / "data.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    words = ["distill", "--dataset", "npz:data.npz", "--network", "convnet2-w8", "--ipc", "1", "-o", "set.h5"]
    words += ["--iterations", "1", "--set", "compute.compile=false"]
    whole = shutil.copytree(folder, folder.with_name("done"))
    assert injector.run(whole, words).code == 0
    return Subject(folder, "data.npz", words, content_of_set(whole), content_of_set)


def _half(injector: Injector, folder: Path, name: str, file: str) -> Subject:
    """Kill a command when it has come four fifths of its way, and go on with it."""
    whole, half = folder / "done", folder / "half"
    scenario, changes = _after(name, injector, whole)
    half.mkdir()
    assert injector.run(half, scenario.words, at=changes * 4 // 5).code == -9
    assert any(half.glob(file)), sorted(half.rglob("*"))
    words = [*scenario.words, *scenario.again]
    return Subject(half, file, words, scenario.content(whole), scenario.content)


@pytest.fixture(scope="module")
def checkpoint(injector: Injector, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("checkpoint")
    return _half(injector, folder, "distill", "set.run/checkpoint-*2.safetensors")


@pytest.fixture(scope="module")
def part(injector: Injector, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("part")
    return _half(injector, folder, "experts", "experts.h5.parts/*/epoch-00001.safetensors")


@pytest.mark.parametrize("kind", ["distilled", "labelled", "experts"])
def test_bytes_of_a_file(
    kind: str, request: pytest.FixtureRequest, injector: Injector, tally: Counter[str]
) -> None:
    subject = request.getfixturevalue(kind)
    seeded(given(byte_mutations)(lambda mutation: check(subject, mutation, injector, tally, "byte")))()


@pytest.mark.parametrize("kind", ["distilled", "labelled", "experts"])
def test_nodes_of_a_file(
    kind: str, request: pytest.FixtureRequest, injector: Injector, tally: Counter[str]
) -> None:
    subject = request.getfixturevalue(kind)
    seeded(given(node_mutations)(lambda mutation: check(subject, mutation, injector, tally, "semantic")))()


@pytest.mark.parametrize("kind", ["npz", "checkpoint", "part"])
def test_bytes_of_what_a_run_reads(
    kind: str, request: pytest.FixtureRequest, injector: Injector, tally: Counter[str]
) -> None:
    subject = request.getfixturevalue(kind)
    fewer(given(byte_mutations)(lambda mutation: check(subject, mutation, injector, tally, "byte")))()


@pytest.mark.parametrize("kind", ["checkpoint", "part"])
@pytest.mark.parametrize("config", [byte_mutations, value_mutations], ids=["bytes", "values"])
def test_the_config_of_a_run(
    kind: str, config: Any, request: pytest.FixtureRequest, injector: Injector, tally: Counter[str]
) -> None:
    subject = request.getfixturevalue(kind)
    config_of = Subject(
        subject.folder, "set.run/config.toml" if kind == "checkpoint" else "experts.h5.parts/config.toml",
        subject.words, subject.right, subject.content,
    )  # fmt: skip
    what = "byte" if config is byte_mutations else "semantic"
    fewer(given(config)(lambda mutation: check(config_of, mutation, injector, tally, what)))()
