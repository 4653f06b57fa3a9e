"""Runs whose classes have unequal numbers of images, real or synthetic: from the option to accuracies."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dsdistill
from dsdistill.config.ipc import Ipc
from dsdistill.config.presets import read_toml
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.distillation.assembly import decide_auto
from dsdistill.distillation.config import resolve
from dsdistill.errors import UserError
from dsdistill.runtime import compiler
from dsdistill.storage import set_file
from tests.conftest import THREADS
from tests.helpers.callbacks import Told
from tests.helpers.cli import Captured, refused, succeed
from tests.helpers.data import pixels
from tests.helpers.marks import slow_but_first
from tests.helpers.supply import NETWORK as POOLED
from tests.helpers.trajectories import RECIPE, written

NAMES = ("cat", "dog", "emu")
TRAIN = (20, 6, 2)
FAST: dict[str, Any] = {"iterations": 2, "device": "cpu"}
QUICK = {"epochs": 1, "repeats": 1, "networks": "mlp", "device": "cpu"}
TILES = ("multi_formation.factor=2", "init=mix")


@pytest.fixture
def tail(tmp_path: Path) -> str:
    """Write three classes, of which the smallest has two training images; return the data set's name."""
    labels = {"train": np.arange(3).repeat(TRAIN), "test": np.arange(3).repeat(2)}
    arrays = {
        f"{split}_{what}": pixels(len(each), 8, 8, seed=len(each)) if what == "images" else each
        for split, each in labels.items()
        for what in ("images", "labels")
    }
    np.savez(tmp_path / "tail.npz", **arrays, classes=np.array(NAMES))  # type: ignore[arg-type]
    return f"npz:{tmp_path / 'tail.npz'}"


def distilled(output: Path, ipc: Any, *overrides: str, **options: Any) -> set_file.DistilledSet:
    options = {"dataset": "digits", "network": "convnet2-w4", **FAST, **options}
    dsdistill.distill(output, ipc=ipc, overrides=["compute.compile=false", THREADS, *overrides], **options)
    return set_file.read(output)


METHODS: dict[str, tuple[str, tuple[str, ...]]] = {
    "dm": ("dm", ()),
    "dm, flipped tiles": ("dm", (*TILES, "synthetic.flip=force", "compute.class_chunk=2")),
    "mmd": ("mmd", ()),
    "attention": ("datadam", ("network=convnet2-w4-batch",)),
    "gradient": ("dsa", ("engine.supply.updates_per_network=2", "engine.supply.epochs=1")),
    "gradient, per class": ("idc", (*TILES, "engine.supply.samples=64")),
    "queue, per class": ("idm", TILES),
    "kernel": ("frepo", ("network=wideconvnet2-w4-inputbatch", "engine.supply.size=2")),
    "noise, adamw": ("dm", ("init=noise", "optimiser.kind=adamw", "optimiser.updates=per-class")),
}


@pytest.mark.parametrize("name", slow_but_first(list(METHODS)))
def test_every_engine_takes_more_images_than_the_smallest_class_has(
    tmp_path: Path, tail: str, name: str
) -> None:
    method, overrides = METHODS[name]
    notices: list[str] = []
    told = {"dataset": tail, "method": method, "callbacks": [Told(notify=notices.append)]}
    made = distilled(tmp_path / "set.h5", "4,7,3", *overrides, **told)
    assert made.counts == [4, 7, 3]
    assert len(made.images.unique(dim=0)) == 14
    assert any("fewer than the" in each for each in notices) == ("noise" not in name)
    again = distilled(tmp_path / "again.h5", [4, 7, 3], *overrides, **told)
    assert torch.equal(again.images, made.images)


def test_the_sentence_names_the_class_that_lacks_most(tmp_path: Path, tail: str) -> None:
    notices: list[str] = []
    made = distilled(tmp_path / "set.h5", 8, dataset=tail, callbacks=[Told(notify=notices.append)])
    assert made.counts == [8, 8, 8]
    assert notices[0] == (
        "class 'emu' has 2 training images, fewer than the 8 to start from: they are repeated, with a little "
        "noise, as are those of 1 more class"
    )


@pytest.mark.parametrize("factor", [1, 2])
def test_networks_that_are_stored_take_unequal_classes(tmp_path: Path, pool: Path, factor: int) -> None:
    told = {"method": "ncfm", "experts": pool, "network": POOLED}
    tiles = (f"multi_formation.factor={factor}", "labels=teacher", "engine.batch_real=16")
    ipc = [1, 2, 3, 1, 1, 1, 1, 1, 1, 2]
    made = distilled(tmp_path / "set.h5", ipc, *tiles, **told)
    assert made.counts == ipc
    assert made.soft_labels is not None
    assert len(made.soft_labels) == sum(ipc) * factor**2


def test_students_follow_experts_on_unequal_classes(tmp_path: Path) -> None:
    task, real = catalog.load(DataConfig(name="digits"), "train")
    written(tmp_path / "experts.h5", task, real)
    (tmp_path / "method.toml").write_text(RECIPE)
    ipc = [1, 2, 3, 1, 1, 1, 1, 1, 1, 2]
    told = {"method": str(tmp_path / "method.toml"), "experts": tmp_path / "experts.h5"}
    made = distilled(tmp_path / "set.h5", ipc, "init=correct", "checkpoint.iterations=1", **told)
    assert made.counts == ipc
    assert made.soft_labels is not None
    assert made.soft_labels.shape == (14, 10)


@pytest.mark.parametrize("method", slow_but_first(["idm", "dm", "dsa"]))
@pytest.mark.parametrize("ipc", [[2] * 10, "2,2,2,2,2,2,2,2,2,2", {str(digit): 2 for digit in range(10)}])
def test_equal_numbers_make_the_run_of_one_number(tmp_path: Path, method: str, ipc: Any) -> None:
    one, other = (
        distilled(tmp_path / f"{name}.h5", each, method=method, network="convnet2-w4")
        for name, each in (("one", 2), ("other", ipc))
    )
    assert torch.equal(one.images, other.images)
    texts = [(tmp_path / f"{name}.run" / "config.toml").read_text() for name in ("one", "other")]
    assert texts[0] == texts[1]
    assert one.attributes["ipc"] == other.attributes["ipc"] == 2


def test_a_file_of_unequal_classes_is_loaded_and_evaluated(tmp_path: Path, tail: str) -> None:
    output, notices = tmp_path / "set.h5", list[str]()
    distilled(output, {"dog": 2, "cat": 1, "emu": 5}, *TILES, dataset=tail)
    data = dsdistill.load(output)
    assert data.stored.tolist() == [1, 2, 5]
    assert torch.bincount(data.labels).tolist() == [4, 8, 20]  # decoded
    assert (data.ipc, data.attributes["ipc"]) == (3, "1,2,5")
    assert tomllib.loads(str(data.attributes["config"]))["ipc"] == [1, 2, 5]
    report = dsdistill.evaluate(output, **QUICK, baselines="random", callbacks=[Told(notify=notices.append)])
    assert [(row.images, row.decoded) for row in report.rows] == [(8, 32), (5, 5)]
    assert notices == ["baselines take all 2 training images of class 'emu': the set stores 5"]


def test_a_run_of_unequal_classes_is_replayed_and_resumed(tmp_path: Path, tail: str) -> None:
    steps: list[int] = []

    def stop(entry: dict[str, Any]) -> None:
        steps.append(entry["iteration"])
        if len(steps) == 3:
            raise KeyboardInterrupt

    every = ("storage=float32", "checkpoint.iterations=1", "optimiser.updates=per-class")
    told = {"dataset": tail, "iterations": 5}
    whole = distilled(tmp_path / "whole.h5", "1,2,5", *every, **told)
    with pytest.raises(KeyboardInterrupt):
        distilled(tmp_path / "part.h5", "1,2,5", *every, callbacks=[stop], **told)
    with pytest.raises(UserError, match=r"cannot resume part.run with ipc = \[1, 2, 4\]"):
        distilled(tmp_path / "part.h5", "1,2,4", *every, resume=True, **told)
    by_name = {"cat": 1, "dog": 2, "emu": 5}
    resumed = distilled(tmp_path / "part.h5", by_name, *every, resume=True, **told)
    assert torch.equal(resumed.images, whole.images)
    config = tmp_path / "whole.run" / "config.toml"
    assert read_toml(config)["ipc"] == [1, 2, 5]
    notices: list[str] = []
    dsdistill.distill(tmp_path / "again.h5", config=config, callbacks=[Told(notify=notices.append)])
    assert torch.equal(set_file.read(tmp_path / "again.h5").images, whole.images)
    assert not any("they stay" in each for each in notices)


@pytest.mark.parametrize(
    ("ipc", "method", "compiled"),
    [
        (2, "dsa", True),
        ((1, 2, 3, 4, 5, 6, 6, 6, 6, 6), "dsa", True),
        ((1, 2, 3, 4, 5, 6, 7, 7, 7, 7), "dsa", False),
        ((1, 2, 3, 4, 5, 6, 7, 7, 7, 7), "mtt", True),
    ],
)
def test_a_run_is_not_compiled_for_many_sizes_of_classes(
    monkeypatch: pytest.MonkeyPatch, ipc: Ipc, method: str, compiled: bool
) -> None:
    monkeypatch.setattr(compiler, "why_unavailable", lambda device: None)
    told = {"data": {"name": "digits"}, "method": method, "ipc": ipc, "iterations": 10**9}
    config, device = resolve(told), torch.device("cpu")
    task, real = catalog.load(config.data, "train")
    monkeypatch.setattr(type(config.engine.supply), "resolved", lambda supply: supply)  # there is no file
    assert decide_auto(config, task, real, device, print).compute.compile is compiled


@pytest.mark.parametrize(("ipc", "batch"), [(1, 5000), ("1,1,1,2", 5000), ("10,30,10,10", 256)])
def test_recipes_go_by_the_rounded_mean(ipc: Ipc | str, batch: int) -> None:
    config = resolve({"data": {"name": "cifar10"}, "method": "idm", "ipc": ipc})
    assert config.engine.batch_real == batch  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ipc", "1,2"], "--ipc has 2 numbers, and there are 3 classes"),
        (["--ipc", "cat=1,dog=2"], "no number of images for class 'emu'"),
        (["--ipc", "cat=1,dog=2,emus=3"], "unknown class in --ipc 'emus'; did you mean 'emu'?"),
        (["--ipc", "1,2,0"], "IPC must be at least 1, not 0"),
        (["--ipc", "cat"], "option 'ipc' is 'cat': it takes a whole number"),
        (["--set", "ipc.cat=1"], "no number of images for class 'dog'"),
        (["--set", "ipc=[1, 'a', 2]"], "it takes a whole number"),
    ],
)
def test_what_does_not_fit_is_one_line(
    capsys: Captured, tmp_path: Path, tail: str, words: list[str], said: str
) -> None:
    command = ["distill", "--dataset", tail, "--network", "convnet2-w4", "-o", tmp_path / "set.h5"]
    assert said in refused(capsys, *command, *words)
    assert not list(tmp_path.glob("set*"))


def test_the_command_takes_numbers_by_name(capsys: Captured, tmp_path: Path, tail: str) -> None:
    words = ["--dataset", tail, "--network", "convnet2-w4", "--iterations", 1, "--set", THREADS]
    words += ["--set", "compute.compile=false"]
    _, err = succeed(capsys, "distill", *words, "--ipc", "cat=3,dog=2,emu=1", "-o", tmp_path / "set.h5")
    assert "-> 6 synthetic images" in err
    assert "dm npz:tail.npz IPC 1 to 3" in err
    assert set_file.read(tmp_path / "set.h5").counts == [3, 2, 1]
    (tmp_path / "more.toml").write_text("ipc = { cat = 1, dog = 1, emu = 2 }\n")
    config = ["--config", tmp_path / "more.toml"]
    succeed(capsys, "distill", *words, *config, "-o", tmp_path / "more.h5")
    assert set_file.read(tmp_path / "more.h5").counts == [1, 1, 2]
    assert "6 of 1x8x8, 1 to 3 a class" in succeed(capsys, "info", tmp_path / "set.h5")[0]
