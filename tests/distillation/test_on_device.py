"""Every recipe runs on a CUDA device as it does on a CPU, and has the host wait for it nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import dsdistill
from dsdistill.config.presets import RECIPES
from dsdistill.distillation.loop import Distiller, IterationReport
from tests.helpers.marks import slow_if
from tests.helpers.on_device import BATCH, CONVNET, EAGER, RESNET, SCORED, WIDE, images, networks
from tests.helpers.stand_in import Device, Wait, stand_in

FOLLOWING = ("engine.steps=3", "engine.start.most=2", "engine.expert_epochs=2")
TRAINED = ("engine.supply.batch_size=8", "engine.supply.samples=8", "engine.supply.updates_per_network=9")
POPULATION = ("engine.supply.size=2", "engine.supply.max_age=2")
CHOSEN = ("synthetic.flip=force",)
CASES: dict[str, tuple[str, Sequence[str]]] = {
    "acc-dd": (CONVNET, TRAINED),
    "ast": (CONVNET, FOLLOWING),
    "cda": (BATCH, ()),
    "cim": (BATCH, ()),
    "cv-dd": (f"{BATCH},{RESNET}", ()),
    "dance": (CONVNET, ()),
    "datadam": ("", ()),
    "datadam-paper": ("", ()),
    "datm": (CONVNET, FOLLOWING),
    "dc": ("", ()),
    "dm": ("", ()),
    "dream": ("", (*TRAINED, "engine.batch_real=8")),
    "dsa": ("", ()),
    "dsdistill": (CONVNET, ()),
    "frepo": ("", POPULATION),
    "frepo-flip": ("", (*POPULATION, *CHOSEN)),
    "ftd": (CONVNET, FOLLOWING),
    "fyi-dm": ("", CHOSEN),
    "fyi-dsa": ("", CHOSEN),
    "fyi-mtt": (CONVNET, (*FOLLOWING, *CHOSEN)),
    "idc": ("", TRAINED),
    "idc-i": ("", TRAINED),
    "idm": ("", ("engine.supply.size=2", "engine.supply.steps=1", "engine.supply.batch_size=8")),
    "infer": (f"{BATCH},{RESNET}", ()),
    "infer-dynamic": (f"{BATCH},{RESNET}", ()),
    "krr-st": (WIDE, POPULATION),
    "mdc": ("", TRAINED),
    "mmd": ("", ()),
    "mtt": (CONVNET, FOLLOWING),
    "ncfm": (CONVNET, ("engine.discrepancy.frequencies=16",)),
    "ncfm-minmax": (CONVNET, ("engine.discrepancy.frequencies=16",)),
    "nrr-dd": (RESNET, ()),
    "pca": (SCORED, ()),
    "rded": (BATCH, ()),
    "sre2l": (RESNET, ()),
    "tesla": (CONVNET, FOLLOWING),
    "tgdd": (CONVNET, ()),
    "wmdd": (BATCH, ()),
}
"""By recipe: the networks of the files that it reads, and what makes it small."""

ALIKE = {
    "cda",
    "datadam-paper",
    "dc",
    "frepo-flip",
    "ftd",
    "fyi-dm",
    "fyi-dsa",
    "fyi-mtt",
    "idc",
    "idc-i",
    "infer-dynamic",
    "mtt",
    "ncfm",
    "rded",
    "tesla",
}
"""Recipes that run the same lines as another one; in the slow tests."""

SIZES = {"nrr-dd": 16}
"""Sides of the images for methods that need a last map of several places."""

RATE = "the learned rate is read once, before the steps of a student, to refuse one that is not positive"
THRESHOLD = "whether an iteration is discarded is read off its loss"
SOLVED = "whether Cholesky's decomposition exists is read off each, as the diagonal is raised where not"
PLATEAU = "the loss is read, as the rate falls where it stagnates"
EXPECTED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("ast", "ftd", "fyi-mtt", "mtt", "tesla"), (RATE,)),
    "datm": (RATE, THRESHOLD, THRESHOLD),
    **dict.fromkeys(("frepo", "frepo-flip", "krr-st"), (SOLVED, SOLVED)),
    **dict.fromkeys(("ncfm", "ncfm-minmax"), (PLATEAU,)),
}
"""Why an iteration has the host wait for the device, each time that it does; those of all other recipes do
not."""


def test_every_recipe_is_among_the_cases() -> None:
    assert set(RECIPES.names()) == CASES.keys()
    assert EXPECTED.keys() <= CASES.keys()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("networks")


class _Counted:
    """Counts what has the host wait in each iteration."""

    def __init__(self, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
        self.iterations: list[list[Wait]] = []
        step = Distiller.step

        def counted(distiller: Distiller) -> IterationReport:
            assert distiller.synthetic.images.is_cuda
            with device.counting() as waits:
                report = step(distiller)
            self.iterations.append(waits)
            return report

        monkeypatch.setattr(Distiller, "step", counted)


@pytest.mark.parametrize("method", slow_if(CASES, ALIKE))
def test_a_recipe_on_the_device(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    named, overrides = CASES[method]
    size = SIZES.get(method, 8)
    options: dict[str, Any] = {
        "dataset": images(size),
        "method": method,
        "ipc": 2 if "infer" in method else 1,
    }
    options["network"] = (named or (WIDE if "frepo" in method else CONVNET)).replace(SCORED, BATCH)
    if named:
        options["experts"] = ",".join(str(networks(folder, each, size)) for each in named.split(","))
    with stand_in() as device:
        counted = _Counted(device, monkeypatch)
        dsdistill.distill(
            tmp_path / "set.h5", **options, iterations=2, device="cuda", overrides=[*EAGER, *overrides]
        )
    assert dsdistill.load(tmp_path / "set.h5", space="unit").images.isfinite().all()
    waits = counted.iterations[-1] if counted.iterations else []
    assert len(waits) == len(EXPECTED.get(method, ())), list(map(str, waits))
