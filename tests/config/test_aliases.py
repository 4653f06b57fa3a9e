"""Options under their old names mean the same as under the new ones, and one notice says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import dsdistill
from dsdistill.config.aliases import RENAMED_KEYS, modernise
from dsdistill.distillation.config import as_table, resolve, to_toml
from tests.conftest import THREADS, TINY
from tests.helpers.callbacks import Told

BASE: dict[str, Any] = {"data": {"name": "digits"}, "ipc": 2}


@pytest.mark.parametrize(
    ("method", "old", "new"),
    [
        ("dm", "formation.factor=2", "multi_formation.factor=2"),
        ("dsa", "engine.training.epochs=7", "engine.supply.epochs=7"),
        ("idc", "engine.training.samples=9", "engine.supply.samples=9"),
        ("dm", "optimiser.stepping=per-class", "optimiser.updates=per-class"),
        ("idc", "optimiser.stepping=together", "optimiser.updates=joint"),
    ],
)
def test_old_names_work(method: str, old: str, new: str) -> None:
    notices: list[str] = []
    options = BASE | {"method": method}
    assert resolve(options, [old], notify=notices.append) == resolve(options, [new])
    assert len(notices) == 1
    assert "is now called" in notices[0]
    silence: list[str] = []
    resolve(options, [new], notify=silence.append)
    assert silence == []


def test_a_config_file_of_an_older_version_replays() -> None:
    config = resolve(BASE | {"method": "idc"})
    old = as_table(config)
    old["formation"] = old.pop("multi_formation")
    old["engine"]["training"] = {
        key: value for key, value in old["engine"].pop("supply").items() if key != "kind"
    }
    old["optimiser"]["stepping"] = old["optimiser"].pop("updates")
    notices: list[str] = []
    assert resolve({}, (), old, notices.append) == config
    assert len(notices) == 1


def test_a_recipe_of_an_older_version_means_the_same(tmp_path: Path) -> None:
    old, new = ("defaults.formation", "engine.training"), ("defaults.multi_formation", "engine.supply")
    configs, notices = [], []
    for table, per_ipc in (old, new):
        path = tmp_path / f"{per_ipc}.toml"
        path.write_text(
            'title = "Mine"\npaper = "none"\nfollows = "paper"\nprotocol = "dsa"\nbase = "dsa"\n'
            f"[{table}]\nfactor = 2\n[[settings]]\nwhen = {{}}\nset = {{ optimiser = {{ lr = 0.5 }} }}\n"
            f"per_ipc = {{ {per_ipc} = {{ epochs = 4 }} }}\n"
        )
        config = resolve(BASE | {"method": str(path)}, notify=notices.append)
        configs.append({key: value for key, value in as_table(config).items() if key != "method"})
    assert configs[0] == configs[1]
    assert configs[0]["engine"]["supply"]["epochs"] == 8
    assert len(notices) == 1


def test_the_new_name_wins_where_both_are_there() -> None:
    both = {"formation": {"factor": 3, "mode": "multi"}, "multi_formation": {"factor": 2}}
    assert modernise(both) == {"multi_formation": {"factor": 2, "mode": "multi"}}


def test_new_options_are_left_alone() -> None:
    options = as_table(resolve(BASE | {"method": "dsa"}))
    renamed: list[str] = []
    assert modernise(options, renamed) == options
    assert renamed == []
    assert not any(key in to_toml(resolve(BASE)) for key in ("stepping", "[formation]"))
    assert set(RENAMED_KEYS) == {"formation", "engine.training", "optimiser.stepping"}


def test_a_call_says_once_that_names_changed(tmp_path: Path) -> None:
    notices: list[str] = []
    overrides = [THREADS, "formation.factor=2", "optimiser.stepping=together"]
    dsdistill.distill(
        tmp_path / "set.h5",
        **TINY,
        device="cpu",
        overrides=overrides,
        callbacks=[Told(notify=notices.append)],
    )
    assert sum("is now called" in notice for notice in notices) == 1
