"""Where the data and the protocol of a set lie: the run beside it tells, the set does not."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from dsdistill.config.options import merge
from dsdistill.config.sharing import shared
from dsdistill.errors import UserError
from dsdistill.storage import origin


def run(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return the options of a run on a folder of pictures, which exists."""
    (folder / "pets").mkdir(exist_ok=True)
    options = {"method": "dm", "seed": 3, "protocol": str(folder / "mine.toml")}
    return options | {"data": {"name": f"folder:{folder / 'pets'}", "size": 8}} | changes


def attributes(options: dict[str, Any]) -> dict[str, str]:
    return {"config": tomli_w.dumps(shared(options)), "protocol": "mine.toml", "dataset": "folder:pets"}


def write(folder: Path, options: dict[str, Any]) -> None:
    folder.mkdir()
    (folder / "config.toml").write_text(tomli_w.dumps(options))


@pytest.mark.parametrize("file", ["set.h5", "set.run/snapshot-000000002.h5"])
def test_the_run_beside_a_set_tells_where_its_data_lie(tmp_path: Path, file: str) -> None:
    options = run(tmp_path)
    write(tmp_path / "set.run", options)
    about, stored = attributes(options), {"name": "folder:pets", "size": 8}
    assert origin.data_of(tmp_path / file, about, stored) == options["data"]
    assert origin.protocol_of(tmp_path / file, about) == str(tmp_path / "mine.toml")
    (tmp_path / "pets").rmdir()
    with pytest.raises(UserError, match=r"no longer at .*pets; pass --dataset folder:PATH"):
        origin.data_of(tmp_path / file, about, stored)


def test_data_in_memory_lie_nowhere(tmp_path: Path) -> None:
    options = run(tmp_path, data={"name": "memory:arrays"})
    write(tmp_path / "set.run", options)
    with pytest.raises(UserError, match=r"memory:arrays was data in memory, .* again as dataset="):
        origin.data_of(tmp_path / "set.h5", attributes(options), options["data"])


def test_names_of_hugging_face_need_no_run_but_paths_do(tmp_path: Path) -> None:
    assert origin.data_of(tmp_path / "set.h5", {}, {"name": "hf:org/pets"}) == {"name": "hf:org/pets"}
    with pytest.raises(UserError, match=r"distilled from hf:\./pets, .*; pass --dataset hf:PATH"):
        origin.data_of(tmp_path / "set.h5", {}, {"name": "hf:./pets"})


def test_another_run_tells_nothing(tmp_path: Path) -> None:
    write(tmp_path / "set.run", run(tmp_path, seed=4))
    about, stored = attributes(run(tmp_path)), {"name": "folder:pets"}
    with pytest.raises(UserError, match=r"distilled from folder:pets, .*; pass --dataset folder:PATH"):
        origin.data_of(tmp_path / "set.h5", about, stored)
    with pytest.raises(UserError, match=r"names the protocol mine\.toml, .*; pass --protocol"):
        origin.protocol_of(tmp_path / "set.h5", about)


def test_sets_of_earlier_versions_tell_it_themselves(tmp_path: Path) -> None:
    stored = run(tmp_path)["data"]
    assert origin.data_of(tmp_path / "set.h5", {}, stored) == stored
    assert origin.protocol_of(tmp_path / "set.h5", {"protocol": "/a/mine.toml"}) == "/a/mine.toml"
    old = {"config": tomli_w.dumps(run(tmp_path))}  # with its folders
    assert origin.is_of_run(old, run(tmp_path))


def test_names_of_the_catalogue_and_of_protocols_need_no_run(tmp_path: Path) -> None:
    assert origin.data_of(tmp_path / "set.h5", {"dataset": "digits"}, {"size": 8}) == {
        "size": 8,
        "name": "digits",
    }
    assert origin.protocol_of(tmp_path / "set.h5", {}) == "dm"
    assert origin.protocol_of(tmp_path / "set.h5", {"protocol": "dsa"}) == "dsa"
    with pytest.raises(UserError, match="name the data set"):
        origin.data_of(tmp_path / "set.h5", {}, {})


@pytest.mark.parametrize("config", ["", "no TOML", "seed = 4\n"])
def test_a_set_without_a_sound_config_is_of_no_run(config: str) -> None:
    options = merge({"method": "dm"}, {"seed": 3})
    assert not origin.is_of_run({"config": config}, options)
    assert origin.is_of_run({"config": tomli_w.dumps(options)}, tomllib.loads(tomli_w.dumps(options)))
