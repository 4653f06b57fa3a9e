"""Students of every protocol train on a CUDA device, and no step of theirs has the host wait for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import dsdistill
from dsdistill.config.presets import PROTOCOLS
from dsdistill.evaluation import students, transfer
from dsdistill.evaluation.tuning import Tuning
from dsdistill.protocol import Protocol, load_protocol
from tests.helpers.marks import slow_if
from tests.helpers.on_device import BATCH, CONVNET, EAGER, WIDE, images, networks
from tests.helpers.stand_in import Device, Wait, stand_in

ALIKE = {"dc", "dsa", "fyi", "fyi-mtt", "idm", "infer-dynamic", "mtt", "pca-hard", "pca-soft"}
"""Protocols that run the same lines as another one; in the slow tests."""

TARGETS = "krr-st"
"""The protocol that pre-trains students on targets, which the set must have."""


@dataclasses.dataclass(frozen=True)
class _Files:
    """Sets by what they hold besides images: "hard" nothing, "soft" a learned rate and labels, "views" and
    "distances" stored views, "targets" targets; and the teacher that gave them."""

    teacher: Path
    sets: dict[str, Path]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> _Files:
    """Distil and label on the device."""
    folder = tmp_path_factory.mktemp("sets")
    teacher = networks(folder, BATCH)
    trajectory = ["engine.steps=2", "engine.start.most=2", "engine.expert_epochs=2", "engine.skip_above=0"]
    options: dict[str, Any] = {"dataset": images(), "ipc": 2, "iterations": 1, "device": "cuda"}
    recipes: dict[str, tuple[str, str, list[str]]] = {
        "hard": ("dm", CONVNET, []),
        "soft": ("datm", CONVNET, trajectory),
        "targets": ("krr-st", WIDE, ["engine.supply.size=2", "engine.supply.max_age=2"]),
    }
    sets = {name: folder / f"{name}.h5" for name in (*recipes, "views", "distances")}
    with stand_in():
        for name, (method, network, more) in recipes.items():
            told = {} if name == "hard" else {"experts": networks(folder, network)}
            told |= {"method": method, "network": network, "overrides": [*EAGER, *more]}
            dsdistill.distill(sets[name], **options, **told)
        for name, encoding in (("views", "float16"), ("distances", "distances")):
            views: dict[str, Any] = {"views": 3, "batch_size": 4, "encoding": encoding}
            dsdistill.label(sets["hard"], sets[name], teachers=teacher, device="cuda", **views)
    return _Files(teacher, sets)


def needed(protocol: Protocol) -> str:
    """Return which of the sets a protocol can be tried on."""
    if protocol.name == TARGETS:
        return "targets"
    if protocol.labels.source == "views":
        return "distances" if protocol.labels.loss == "dbr" else "views"
    return "hard" if protocol.labels.source == "hard" else "soft"


def counted(device: Device, monkeypatch: pytest.MonkeyPatch) -> list[list[Wait]]:
    """Return, once students are trained, what has the host wait in each training or tuning of theirs."""
    trainings: list[list[Wait]] = []
    fit, tune = students.fit, Tuning._fine_tune

    def trained(ensemble: Any, sets: Any, *arguments: Any, **more: Any) -> None:
        assert all(each.images.is_cuda for each in sets)
        assert all(each.is_cuda for each in ensemble.parameters)
        with device.counting() as waits:
            fit(ensemble, sets, *arguments, **more)
        trainings.append(waits)

    def tuned(*arguments: Any) -> None:
        with device.counting() as waits:
            tune(*arguments)
        trainings.append(waits)

    for module in (students, transfer):
        monkeypatch.setattr(module, "fit", trained)
    monkeypatch.setattr(Tuning, "_fine_tune", tuned)
    return trainings


@pytest.mark.parametrize("name", slow_if(PROTOCOLS.names(), ALIKE))
def test_a_protocol_on_the_device(files: _Files, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    epochs = 4 if load_protocol(name).labels.phases[1:] else 1
    options: dict[str, Any] = {"protocol": name, "repeats": 2, "epochs": epochs, "networks": CONVNET}
    if name == TARGETS:
        options |= {"networks": WIDE, "transfer": [images()], "steps": 2, "baselines": ""}
    else:
        options |= {
            "dataset": images(),
            "teacher": files.teacher,
            "baselines": "random" if name == "dm" else "",
        }
    options |= {"device": "cuda", "precision": "fp32", "compile": False, "cuda_graphs": False, "save": False}
    with stand_in() as device:
        trainings = counted(device, monkeypatch)
        report = dsdistill.evaluate(files.sets[needed(load_protocol(name))], **options)
    assert report.rows[0].set == "distilled"
    assert trainings
    for waits in trainings:
        assert not waits, list(map(str, waits))
