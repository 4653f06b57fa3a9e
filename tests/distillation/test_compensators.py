"""Runs that learn compensators (INFER): what is stored, stopping, labels, evaluation, refusals."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.data.preprocess import Standardise
from dsdistill.distillation import config as configs
from dsdistill.distillation.estimate import disk
from dsdistill.errors import UserError
from dsdistill.networks import build_network
from dsdistill.plugs import names_in
from dsdistill.storage import set_file
from dsdistill.storage.expert_file import ExpertFile
from dsdistill.synthetic.set import SyntheticSet
from tests.conftest import THREADS
from tests.helpers.callbacks import Told

NETWORKS = "convnet2-w6-batch,convnet2-w8-batch"
RUN: dict[str, Any] = {"dataset": "digits", "method": "infer", "ipc": 3, "network": NETWORKS}
RUN |= {"iterations": 6, "device": "cpu", "overrides": [THREADS, "compute.compile=false", "storage=float32"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, two_teachers: str) -> Path:
    """Return the file of a finished run; beside it lies ``killed.run``, as a kill on its way left it."""
    folder = tmp_path_factory.mktemp("infer")

    def keep(entry: dict[str, Any]) -> None:
        if entry["iteration"] == 5:
            shutil.copytree(folder / "set.run", folder / "killed.run")

    words = [*RUN["overrides"], "checkpoint.iterations=1"]
    dsdistill.distill(folder / "set.h5", **RUN | {"overrides": words}, experts=two_teachers, callbacks=[keep])
    return folder / "set.h5"


def test_naturals_are_real_and_stay_so(run: Path) -> None:
    ours = set_file.read(run)
    assert ours.compensators is not None
    assert (len(ours.images), len(ours.compensators), ours.decoded_count) == (20, 4, 60)
    _, real = catalog.load(DataConfig(name="digits"), "train")
    for image, label in zip(ours.images, ours.labels.tolist(), strict=True):
        mine = real.unit(real.indices_of(label))
        assert (mine - image).abs().amax((1, 2, 3)).min() < 1e-6
    assert (ours.compensators != 0).any((1, 2, 3)).all()
    assert (ours.compensators < 0).any()
    sums = ours.decode()[0].unflatten(0, (10, 6))[:, 2:]
    assert sums.min() == 0
    assert sums.max() <= 1


def test_what_a_run_says(run: Path, two_teachers: str, tmp_path: Path) -> None:
    started: list[Any] = []
    summary = dsdistill.distill(
        tmp_path / "again.h5", **RUN, experts=two_teachers, callbacks=[Told(started=started.append)]
    )
    assert started[0].describe()[0].endswith("-> 20 images and 4 compensators, 60 training images")
    assert summary.images == 24
    again, first = set_file.read(tmp_path / "again.h5"), set_file.read(run)
    assert torch.equal(again.compensators, first.compensators)  # type: ignore[arg-type]
    assert torch.equal(again.images, first.images)


def test_killed_and_resumed_is_bit_identical(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run.with_name("killed.run"), tmp_path / "set.run")
    assert not (tmp_path / "set.run" / "checkpoint-000000006.safetensors").exists()
    summary = dsdistill.distill(tmp_path / "set.h5", resume=True)
    assert summary.iterations == 6
    ours, whole = set_file.read(tmp_path / "set.h5"), set_file.read(run)
    assert torch.equal(ours.compensators, whole.compensators)  # type: ignore[arg-type]
    assert torch.equal(ours.images, whole.images)


def test_students_train_on_decoded_images_with_a_committees_static_labels(
    run: Path, two_teachers: str, tmp_path: Path
) -> None:
    teachers = two_teachers.split(",")
    dsdistill.label(run, tmp_path / "labelled.h5", teachers=teachers, device="cpu", precision="fp32")
    labelled = set_file.read(tmp_path / "labelled.h5")
    assert labelled.soft_labels is not None
    assert labelled.soft_labels.shape == (60, 10)
    seen = labelled.preprocess(labelled.decode()[0])
    logits = []
    for path in teachers:
        experts = ExpertFile.open(path)
        network = build_network(experts.metadata.network, 1, 8, 10)
        network.load_state_dict(experts.state(0, 1))
        with torch.no_grad():
            logits.append(network.eval()(seen))
    torch.testing.assert_close(labelled.soft_labels, torch.stack(logits).mean(0), atol=1e-4, rtol=1e-4)
    report = dsdistill.evaluate(
        tmp_path / "labelled.h5",
        epochs=1,
        repeats=1,
        networks="convnet2-w4",
        baselines="random",
        device="cpu",
    )
    rows = {row.set: (row.images, row.decoded, row.regime) for row in report.rows}
    assert rows["distilled"] == (24, 60, "SL")
    assert rows["random"] == (24, 24, "HL")


def test_the_default_student_is_the_first_network(run: Path, two_teachers: str, tmp_path: Path) -> None:
    """Under the protocol of the dynamic labels, whose teachers come with the evaluation."""
    shutil.copy(run, tmp_path / "set.h5")
    report = dsdistill.evaluate(
        tmp_path / "set.h5",
        protocol="infer-dynamic",
        teacher=two_teachers.split(","),
        epochs=1,
        repeats=1,
        baselines=(),
        device="cpu",
    )
    assert [(row.network, row.decoded, row.regime) for row in report.rows] == [
        ("convnet2-w6-batch", 60, "SL+KD")
    ]


def test_an_import_decodes_and_says_so(run: Path, tmp_path: Path) -> None:
    said: list[str] = []
    dsdistill.import_set(run, tmp_path / "again.h5", dataset="digits", callbacks=[Told(notify=said.append)])
    found, ours = set_file.read(tmp_path / "again.h5"), set_file.read(run)
    assert found.compensators is None
    assert torch.equal(found.images, ours.decode()[0])
    assert "the 24 stored images, compensators among them, are decoded into 60" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ipc": 1}, "IPC 1 has no room for compensators: pass --ipc 2 or more"),
        ({"method": "dm"}, "is for methods that recover images from teachers: pass --method infer"),
        ({"overrides": ["multi_formation.factor=2"]}, "set multi_formation.factor=1"),
        ({"overrides": ["optimiser.ema=0.9"]}, "set optimiser.ema=0"),
        ({"zca": True}, "set data.zca=false"),
    ],
)
def test_bad_options_are_refused_before_networks_are_trained(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    told = RUN | {"options": {"synthetic": {"learn": "compensators"}}, "overrides": []} | options
    if told["method"] == "dm":
        told |= {"network": "convnet2-w6"}
    with pytest.raises(UserError, match=message) as refused:
        dsdistill.distill(tmp_path / "set.h5", **told, experts="auto")
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.glob("*.h5"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ipc": [3] * 9 + [4]}, "all have one IPC: pass --ipc N"),
        ({"overrides": ["optimiser.clamp_every=1"]}, "not clamped: set optimiser.clamp_every=0"),
    ],
)
def test_what_data_and_teachers_do_not_allow_is_refused(
    tmp_path: Path, two_teachers: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        dsdistill.distill(tmp_path / "set.h5", **RUN | options, experts=two_teachers)
    assert "\n" not in str(refused.value)


def test_a_set_to_start_from_asks_for_the_ipc_that_leaves_its_images(
    run: Path, two_teachers: str, tmp_path: Path
) -> None:
    start = set_file.read(run)
    plain = dataclasses.replace(start, compensators=None, soft_labels=None, attributes={})
    set_file.write(tmp_path / "start.h5", plain)
    told = {key: value for key, value in RUN.items() if key != "ipc"} | {"init": tmp_path / "start.h5"}
    naturals = start.counts[0]
    with pytest.raises(
        UserError, match=rf"start.h5 has {naturals} images per class, .*: pass --ipc (\d+)"
    ) as no:
        dsdistill.distill(tmp_path / "set.h5", **told, experts=two_teachers)
    ipc = int(str(no.value).rpartition(" ")[2])
    dsdistill.distill(tmp_path / "set.h5", **told, ipc=ipc, experts=two_teachers)
    assert torch.equal(set_file.read(tmp_path / "set.h5").images, start.images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ipc": 2, "network": ",".join(f"convnet2-w{n}-batch" for n in range(2, 14))}, "IPC 2 has no room"),
        ({"ipc": [3] * 9 + [4]}, "all have one IPC"),
        ({"method": "rded", "ipc": 1, "overrides": ["patches.grid=3"]}, "3 cells do not divide a side of 8"),
        ({"method": "rded", "ipc": 40, "overrides": ["patches.pool=30"]}, "set a larger patches.pool"),
        ({"method": "rded", "ipc": 1, "overrides": ["patches.score=el2n"]}, "recipe teacher records nothing"),
        (
            {"method": "rded", "ipc": 1, "overrides": ["patches.keep=cam"], "network": "resnet10-batch,mlp"},
            "class activation",
        ),
        (
            {"method": "cv-dd", "ipc": 2, "overrides": ["engine.committee.priors=[1.0]"]},
            "has 1 numbers for 2 teachers: give one for each",
        ),
        ({"method": "sre2l", "ipc": 1, "overrides": ["synthetic.flip=true"]}, "set synthetic.flip=false"),
        ({"method": "cim", "ipc": 1, "overrides": ["engine.mask.of=cam"]}, "the mask is of whole images"),
        ({"method": "cim", "ipc": 1, "overrides": ["init=noise"]}, "have no real images to be paired with"),
    ],
)
def test_what_the_data_do_not_allow_is_refused_before_networks_are_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv("DSDISTILL_CACHE", str(tmp_path / "cache"))
    told = {"dataset": "digits", "method": "infer", "device": "cpu"} | options
    with pytest.raises(UserError, match=message):
        dsdistill.distill(tmp_path / "set.h5", **told, experts="auto")
    assert not list(tmp_path.rglob("*.h5*"))


def recipe(dataset: str, method: str = "infer") -> configs.RunConfig:
    return configs.resolve({"method": method, "ipc": 10, "data": {"name": dataset}})


@pytest.mark.parametrize(
    ("dataset", "weight", "iterations", "crop", "shift", "networks"),
    [
        ("cifar10", 1.0, 1000, None, (0, 4), 4),
        ("cifar100", 1.0, 1000, None, (0, 4), 4),
        ("tiny-imagenet", 1.0, 1000, None, (0, 4), 4),
        ("imagenet", 0.01, 2000, (0.08, 1.0), (0, 32), 3),
    ],
)
def test_the_recipe_says_what_the_code_does(
    dataset: str, weight: float, iterations: int, crop: Any, shift: Any, networks: int
) -> None:
    ours = recipe(dataset)
    engine: Any = ours.engine
    assert (engine.alignment.weight, engine.alignment.first, ours.iterations) == (weight, 10.0, iterations)
    assert (engine.view.crop, engine.view.flip, engine.view.shift) == (crop, crop is not None, shift)
    assert (ours.init, ours.synthetic.learn, ours.optimiser.lr) == ("real", "compensators", 0.25)
    assert (ours.optimiser.clamp_every, engine.batch_classes, ours.protocol) == (0, 1000, "infer")
    assert len(names_in(ours.network)) == networks


def test_dynamic_labels_change_the_protocol_alone() -> None:
    static, dynamic = (configs.as_table(recipe("cifar10", name)) for name in ("infer", "infer-dynamic"))
    changed = {key for key in static if static[key] != dynamic[key]}
    assert changed == {"method", "protocol"}
    assert dynamic["protocol"] == "infer-dynamic"


@pytest.mark.parametrize(("storage", "size"), [("float32", 4), ("uint8", 2)])
def test_the_bytes_of_compensators_are_estimated(storage: Any, size: int) -> None:
    preprocess = Standardise.of((0.5,), (0.5,))
    sets = [SyntheticSet(torch.zeros(20, 1, 8, 8), (2,) * 10, "network", preprocess) for _ in range(2)]
    sets[1].learn_compensators(2)
    config = configs.resolve(
        {"method": "infer", "ipc": 3, "data": {"name": "digits"}, "storage": storage, "iterations": 1}
    )

    class Loop:
        """What is read of a loop."""

        def __init__(self, synthetic: SyntheticSet) -> None:
            self.synthetic, self.sources, self.task = synthetic, self, self
            self.preprocess = preprocess
            self.cache = None

        def state_bytes(self) -> int:
            return 0

    plain, more = (disk(config, Loop(each), 1)["set"] for each in sets)  # type: ignore[arg-type]
    assert more - plain == 4 * 64 * size
