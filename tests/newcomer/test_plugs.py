"""New objectives: a discrepancy and an engine of one's own, from a program, a recipe, or a package."""

from __future__ import annotations

import runpy
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

import dsdistill

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
OPTIONS = ["compute.compile=false", "compute.threads=1"]
TINY: dict[str, Any] = {"dataset": "digits", "ipc": 2, "iterations": 3, "network": "convnet2-w4"}

pytestmark = pytest.mark.usefixtures("plugs")

RECIPE = """
title = "Moments"
base = "dm"
plugin = "new_discrepancy.py"
defaults = { engine = { discrepancy = { kind = "moments", spread = 0.25 } } }
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    shutil.copy(EXAMPLES / "new_discrepancy.py", tmp_path)
    (tmp_path / "moments.toml").write_text(RECIPE)
    return tmp_path / "moments.toml"


@pytest.mark.parametrize("name", ["new_discrepancy.py", "new_network.py"])
def test_the_examples_are_short_and_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (EXAMPLES / name).read_text()
    code = [line for line in text.split('"""', 2)[2].splitlines() if line.strip()]
    assert len(code) <= 30
    monkeypatch.chdir(tmp_path)
    short = text.replace("iterations=20", "iterations=2").replace("epochs=20", "epochs=1, repeats=1")
    (tmp_path / name).write_text(short)
    runpy.run_path(name, run_name="__main__")
    assert dsdistill.load(next(tmp_path.glob("*.h5"))).images.isfinite().all()


def test_a_recipe_brings_its_discrepancy_and_replays(recipe: Path, tmp_path: Path) -> None:
    dsdistill.distill(tmp_path / "set.h5", method=str(recipe), overrides=OPTIONS, **TINY)
    made = dsdistill.load(tmp_path / "set.h5")
    dsdistill.distill(tmp_path / "again.h5", config=tmp_path / "set.run" / "config.toml")
    assert torch.equal(dsdistill.load(tmp_path / "again.h5").images, made.images)
    other = [*OPTIONS, "engine.discrepancy.spread=2"]
    dsdistill.distill(tmp_path / "other.h5", method=str(recipe), overrides=other, **TINY)
    assert not torch.equal(dsdistill.load(tmp_path / "other.h5").images, made.images)


def test_options_of_a_plug_are_known_by_name(recipe: Path, tmp_path: Path) -> None:
    for override, said in (
        ("engine.discrepancy.spred=1", "did you mean 'engine.discrepancy.spread'"),
        ("engine.discrepancy.spread=much", "option 'engine.discrepancy.spread' is 'much'"),
    ):
        with pytest.raises(dsdistill.UserError, match=said):
            dsdistill.distill(tmp_path / "set.h5", method=str(recipe), overrides=[override], **TINY)


def test_a_replay_without_the_plug_says_how_to_give_it(tmp_path: Path) -> None:
    options = {"engine": {"kind": "elsewhere"}}
    with pytest.raises(
        dsdistill.UserError, match=r"'engine.kind' 'elsewhere'; known: attention, .*register_engine"
    ):
        dsdistill.distill(tmp_path / "set.h5", options=options, **TINY)


def test_an_engine_of_ones_own(tmp_path: Path) -> None:
    @dsdistill.register_engine
    @dataclass(frozen=True, kw_only=True)
    class Nearest(dsdistill.MatchingEngine):
        kind: Literal["nearest"] = "nearest"
        weight: float = 1.0

        def loss(self, synthetic: Any, sources: Any) -> dict[str, Tensor]:
            rows = sources.siamese()
            real = sources.real_means(self.batch_real, rows)
            fake = sources.synthetic_features(synthetic, rows).means()
            return {"nearest": self.weight * (real - fake).square().sum()}

    options = {"engine": {"kind": "nearest"}}

    def distilled(name: str, *overrides: str, **more: Any) -> Tensor:
        dsdistill.distill(
            tmp_path / name, overrides=[*OPTIONS, "engine.batch_real=32", *overrides], **TINY, **more
        )
        return dsdistill.load(tmp_path / name).images

    dm = distilled("dm.h5")
    torch.testing.assert_close(distilled("mine.h5", options=options), dm)  # the same objective
    assert not torch.allclose(distilled("heavier.h5", "engine.weight=9", options=options), dm, atol=1e-3)


PACKAGE = """
from dataclasses import dataclass
from typing import Literal
import dsdistill

@dataclass(frozen=True, kw_only=True)
class Packaged(dsdistill.Discrepancy):
    kind: Literal["packaged"] = "packaged"

    def distance(self, real, fake):
        return sum((r.mean(0) - f.mean(0)).abs().sum() for r, f in zip(real, fake))
"""


def test_an_installed_package_adds_a_discrepancy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_package.py").write_text(PACKAGE)
    told = tmp_path / "their_package-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text("[dsdistill.discrepancies]\npackaged = their_package:Packaged\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    options = {"engine": {"discrepancy": {"kind": "packaged"}}}
    summary = dsdistill.distill(tmp_path / "set.h5", options=options, overrides=OPTIONS, **TINY)
    assert summary.images == 20
    monkeypatch.delitem(sys.modules, "their_package")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'plugin = "../new_discrepancy.py"',
            "plugin is a file of Python beside the recipe, FILE.py, not '../new",
        ),
        ('plugin = "absent.py"', "cannot read .*absent.py: "),
        ('plugin = "wrong.py"', "wrong.py cannot be loaded: ZeroDivisionError: "),
    ],
)
def test_plugins_that_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "wrong.py").write_text("1 / 0")
    (tmp_path / "mine.toml").write_text(f'title = "t"\nbase = "dm"\n{text}\n')
    with pytest.raises(dsdistill.UserError, match=said):
        dsdistill.distill(tmp_path / "set.h5", method=str(tmp_path / "mine.toml"), **TINY)


@pytest.mark.parametrize("result", ["sum of a list", "classes", "real features"])
def test_a_distance_that_is_no_loss_is_refused(tmp_path: Path, result: str) -> None:
    @dsdistill.register_discrepancy
    @dataclass(frozen=True, kw_only=True)
    class Wrong(dsdistill.Discrepancy):
        kind: Literal["wrong"] = "wrong"

        def distance(self, real: Any, fake: Any) -> Any:
            each = torch.stack([f.mean() for f in fake])
            return {"sum of a list": 1.5, "classes": each, "real features": real[0].sum()}[result]

    options = {"engine": {"discrepancy": {"kind": "wrong"}}}
    with pytest.raises(
        dsdistill.UserError, match="the distance of the discrepancy 'wrong' is no scalar with a"
    ):
        dsdistill.distill(tmp_path / "set.h5", options=options, overrides=OPTIONS, **TINY)


def test_a_class_that_is_no_discrepancy_is_refused() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Empty(dsdistill.Discrepancy):
        kind: Literal["empty"] = "empty"

    with pytest.raises(dsdistill.UserError, match="discrepancy Empty lacks the method distance"):
        dsdistill.register_discrepancy(Empty)
    with pytest.raises(
        dsdistill.UserError, match=r"register_engine takes a dataclass derived from dsdistill.Engine"
    ):
        dsdistill.register_engine(Empty)  # type: ignore[type-var]
