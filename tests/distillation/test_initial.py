"""Runs that start from the file of a set."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from dsdistill.errors import UserError
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledSet
from tests.conftest import THREADS

OPTIONS: dict[str, Any] = {"dataset": "digits", "network": "convnet2-w8", "device": "cpu"}


def refined(output: Path, init: str | Path, *overrides: str, **options: Any) -> DistilledSet:
    told = OPTIONS | {"method": "dm", "iterations": 0} | options
    dsdistill.distill(output, init=init, overrides=[THREADS, *overrides], **told)
    return set_file.read(output)


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """Return a set of unequal classes, decoded by a multi-formation."""
    output = tmp_path / "tiles.h5"
    told = ["init=mix", "multi_formation.factor=2", THREADS]
    dsdistill.distill(output, **OPTIONS, method="dm", ipc=[1, 2] * 5, iterations=1, overrides=told)
    return output


@pytest.mark.parametrize("space", ["network", "unit"])
def test_images_numbers_and_multi_formation_are_those_of_the_file(
    tmp_path: Path, tiles: Path, space: str
) -> None:
    before, after = set_file.read(tiles), refined(tmp_path / "set.h5", tiles, f"space={space}")
    torch.testing.assert_close(after.images, before.images, atol=1e-6, rtol=0)
    assert torch.equal(after.labels, before.labels)
    assert after.multi_formation == before.multi_formation
    assert after.multi_formation.factor == 2
    stepped = refined(tmp_path / "stepped.h5", tiles, f"space={space}", iterations=2)
    assert not torch.equal(stepped.images, after.images)


def test_the_file_is_named_by_its_place_and_shared_without_it(
    tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(finished, tmp_path / "first.h5")
    monkeypatch.chdir(tmp_path)
    made = refined(tmp_path / "set.h5", "first.h5")
    written = tomllib.loads((tmp_path / "set.run" / "config.toml").read_text())
    assert written["init"] == str(tmp_path / "first.h5")
    assert written["init_digest"] == set_file.digest("first.h5")
    assert written["ipc"] == 1
    assert tomllib.loads(str(made.attributes["config"]))["init"] == "first.h5"
    replayed = tmp_path / "replayed.h5"
    dsdistill.distill(replayed, config=tmp_path / "set.run" / "config.toml")
    assert torch.equal(set_file.read(replayed).images, made.images)


def test_a_resumed_run_goes_on_from_the_same_file(tmp_path: Path, finished: Path) -> None:
    first = Path(shutil.copy(finished, tmp_path / "first.h5"))
    whole = refined(tmp_path / "whole.h5", first, iterations=3)

    def stop(entry: dict[str, Any]) -> None:
        if entry["iteration"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refined(tmp_path / "part.h5", first, iterations=3, callbacks=[stop])
    shutil.copy(tmp_path / "whole.h5", first)
    with pytest.raises(UserError, match=r"first.h5 holds another set .* than the one this run was started"):
        refined(tmp_path / "part.h5", first, iterations=3, resume=True)
    shutil.copy(finished, first)
    resumed = refined(tmp_path / "part.h5", first, iterations=3, resume=True)
    assert torch.equal(resumed.images, whole.images)
    dsdistill.distill(tmp_path / "part.h5", resume=True)  # finished, by its own config


@pytest.mark.parametrize(
    ("init", "options", "said"),
    [
        ("none.h5", {}, "no file at .*none.h5"),
        ("{finished}", {"ipc": 2}, "set.h5 has 1 images per class, and this run 2: leave out --ipc"),
        ("{finished}", {"size": 16}, "images of 1x8x8, and this run has 1x16x16: pass --size 8"),
        ("{finished}", {"zca": True}, "standardise, and this run has zca: pass --set data.zca=false"),
        (
            "nois",
            {"ipc": 1},
            "option 'init' is 'nois': input should be 'real', .* or a set's file, such as set.h5",
        ),
    ],
)
def test_bad_input_is_refused_before_the_run(
    tmp_path: Path, finished: Path, init: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said) as caught:
        refined(tmp_path / "out.h5", init.format(finished=finished), **options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_set_is_not_refined_into_its_own_file(tmp_path: Path) -> None:
    output = tmp_path / "set.h5"
    told: dict[str, Any] = {"dataset": "digits", "ipc": 1, "iterations": 1, "overrides": [THREADS]}
    dsdistill.distill(output, **told)
    before = output.read_bytes()
    with pytest.raises(UserError, match="write to another file"):
        dsdistill.distill(output, init=output, overwrite=True, **told)
    assert output.read_bytes() == before
