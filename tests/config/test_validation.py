"""Checking tables of options: whatever they hold, a config or one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tomli_w

from dsdistill.config.presets import EXPERT_RECIPES, PROTOCOLS, RECIPES, Presets
from dsdistill.config.sharing import shared
from dsdistill.distillation import config as configs
from dsdistill.errors import UserError
from dsdistill.experts import config as expert_configs
from dsdistill.files import read_toml
from dsdistill.protocol import load_protocol
from tests.helpers.mutants import mutated_toml, refusal


def distilled(path: Path) -> None:
    options = {"method": str(path), "data": {"name": "cifar10"}, "ipc": 10}
    tomli_w.dumps(shared(configs.as_table(configs.resolve(options))))


def trained(path: Path) -> None:
    expert_configs.to_toml(expert_configs.resolve({"recipe": str(path), "data": {"name": "cifar10"}}))


def followed(path: Path) -> None:
    protocol = load_protocol(path)
    assert protocol.milestones is not None
    assert 0 <= protocol.momentum_in(3) <= 1


def outcomes(path: Path, texts: list[str], read: Callable[[Path], None], count: int) -> set[str]:
    """Read mutants of texts; whatever is raised but a UserError of one line fails the test."""
    found = set()
    for seed in range(count):
        path.write_bytes(mutated_toml(texts[seed % len(texts)], seed))
        sentence = refusal(lambda: read(path))
        assert "\n" not in sentence, seed
        assert len(sentence) < 1500, seed
        found.add("refused" if sentence else "read")
    return found


@pytest.mark.parametrize(
    ("presets", "read"), [(RECIPES, distilled), (EXPERT_RECIPES, trained), (PROTOCOLS, followed)]
)
def test_mutants_of_presets(tmp_path: Path, presets: Presets, read: Callable[[Path], None]) -> None:
    texts = [presets.find(name).read_text() for name in presets.names()]
    assert outcomes(tmp_path / "mine.toml", texts, read, 80) == {"read", "refused"}


def test_mutants_of_a_runs_config(tmp_path: Path) -> None:
    options = [{"method": name, "data": {"name": "digits"}, "ipc": 1} for name in ("dm", "idc", "mtt")]
    texts = [configs.to_toml(configs.resolve(each)) for each in options]

    def replayed(path: Path) -> None:
        again = configs.to_toml(configs.resolve({}, (), read_toml(path)))
        path.write_text(again)
        read_toml(path)  # what was accepted can be written and read

    assert outcomes(tmp_path / "config.toml", texts, replayed, 80) == {"read", "refused"}


def test_mutants_of_the_options_of_experts(tmp_path: Path) -> None:
    config = expert_configs.resolve({"recipe": "mtt", "data": {"name": "digits"}})

    def compared(path: Path) -> None:
        expert_configs.difference(read_toml(path), config)

    assert outcomes(tmp_path / "config.toml", [expert_configs.to_toml(config)], compared, 80) == {
        "read",
        "refused",
    }


@pytest.mark.parametrize("number", [10**30, "9" * 25, -(2**63) - 1])
def test_integers_beyond_64_bits(number: object) -> None:
    options = {"data": {"name": "digits"}, "ipc": 1, "engine": {"batch_real": number}}
    with pytest.raises(UserError, match="64 bits"):
        configs.resolve(options)


def test_long_values_are_cut_in_messages() -> None:
    with pytest.raises(UserError) as caught:
        configs.resolve({"data": {"name": "digits"}, "ipc": 1, "engine": "x" * 10_000})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", ["1e400", "inf", "nan", "-inf"])
def test_numbers_are_finite(value: str) -> None:
    options = {"method": "dm", "data": {"name": "digits"}, "ipc": 1}
    with pytest.raises(UserError, match=r"optimiser\.lr"):
        configs.resolve(options, [f"optimiser.lr={value}"])
