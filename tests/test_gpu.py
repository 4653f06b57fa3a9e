"""The complete path on a CUDA device."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch

import dsdistill
from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.distillation.loop import Distiller, IterationReport
from dsdistill.storage import set_file
from tests.helpers.callbacks import Killed, Told
from tests.helpers.trajectories import RECIPE, written


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_distil_and_evaluate(tmp_path: Path, precision: str) -> None:
    told = {"dataset": "digits", "ipc": 2, "network": "convnet2-w16", "iterations": 20, "device": "cuda"}
    overrides = [f"compute.precision={precision}"]
    summary = dsdistill.distill(tmp_path / "a.h5", **told, overrides=overrides)
    assert summary.last_loss < summary.first_loss
    report = dsdistill.evaluate(tmp_path / "a.h5", device="cuda", epochs=20, repeats=2, precision=precision)
    assert [row.set for row in report.rows] == ["distilled", "random"]
    assert all(10 < value <= 100 for row in report.rows for value in row.values)


@pytest.mark.gpu
def test_the_device_changes_no_draw(tmp_path: Path) -> None:
    told = {"dataset": "digits", "ipc": 1, "network": "convnet2-w16", "iterations": 2}
    exact = ["compute.precision=fp32", "compute.compile=false", "storage=float32"]
    for device in ("cpu", "cuda"):
        dsdistill.distill(tmp_path / f"{device}.h5", **told, device=device, overrides=exact)
    images = [dsdistill.load(tmp_path / f"{device}.h5", space="unit").images for device in ("cpu", "cuda")]
    torch.testing.assert_close(*images, rtol=1e-3, atol=1e-3)


def kill(entry: dict[str, Any]) -> None:
    if entry["iteration"] == 8:
        raise Killed


def killed_and_resumed(folder: Path, told: dict[str, Any]) -> tuple[Path, Path, Path]:
    """Make the set of twelve iterations, the same after a kill at the eighth, and that of the first six."""
    straight, output, half = (folder / f"{name}.h5" for name in ("straight", "set", "half"))
    dsdistill.distill(straight, **told)
    dsdistill.distill(half, **told | {"iterations": 6})
    with pytest.raises(Killed):
        dsdistill.distill(output, **told, callbacks=[kill])
    assert not output.exists()
    steps: list[int] = []
    dsdistill.distill(output, **told, resume=True, callbacks=[lambda entry: steps.append(entry["iteration"])])
    assert steps == [7, 8, 9, 10, 11, 12]
    return straight, output, half


@pytest.mark.gpu
@pytest.mark.parametrize("network", ["convnet2-w16", "convnet2-w16-batch"])
@pytest.mark.parametrize("method", ["dm", "dsa", "idc"])
def test_killed_and_resumed(tmp_path: Path, method: str, network: str) -> None:
    """Sums are not bit-identical on CUDA: resuming must end much nearer than the last steps went."""
    told: dict[str, Any] = {"dataset": "digits", "method": method, "ipc": 2, "network": network}
    told |= {"device": "cuda", "iterations": 12}
    told["overrides"] = ["checkpoint.iterations=6", "compute.precision=fp32", "compute.compile=false"]
    told["overrides"] += ["engine.supply.epochs=5"] if method == "dsa" else []
    straight, output, half = killed_and_resumed(tmp_path, told)
    whole, resumed, before = (dsdistill.load(f, space="unit").images for f in (straight, output, half))
    assert (resumed - whole).abs().max() < 0.03 * (whole - before).abs().max()


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["dc", "dsa", "idc-i", "idc"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradient_matching_on_the_device(tmp_path: Path, method: str, precision: str) -> None:
    told: dict[str, Any] = {"dataset": "digits", "method": method, "ipc": 1, "network": "convnet2-w16"}
    summary = dsdistill.distill(
        tmp_path / "a.h5",
        **told,
        iterations=20,
        device="cuda",
        overrides=[f"compute.precision={precision}"],
    )
    assert summary.iterations == 20
    report = dsdistill.evaluate(tmp_path / "a.h5", device="cuda", epochs=20, repeats=2, precision=precision)
    assert [row.set for row in report.rows] == ["distilled", "random"]
    assert all(10 < value <= 100 for row in report.rows for value in row.values)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return networks trained on the device, their second epoch after an interruption."""
    file = tmp_path_factory.mktemp("pool") / "pool.h5"
    told: dict[str, Any] = {
        "dataset": "digits",
        "recipe": "ncfm",
        "network": "convnet2-w16",
        "device": "cuda",
    }

    def kill_after_one(entry: dict[str, Any]) -> None:
        if entry["done"] == 1:
            raise Killed

    with pytest.raises(Killed):
        dsdistill.train_experts(file, **told, count=2, epochs=2, callbacks=[kill_after_one])
    dsdistill.train_experts(file, **told, count=2, epochs=2, resume=True)
    return file


POOLED = ("ncfm", "ncfm-minmax", "dance", "tgdd")
"""Methods that match features in trained networks."""


def features_matched(method: str, pool: Path, *overrides: str) -> dict[str, Any]:
    told: dict[str, Any] = {"dataset": "digits", "method": method, "ipc": 1, "network": "convnet2-w16"}
    told |= {"experts": pool} if method in POOLED else {}
    return told | {"device": "cuda", "overrides": list(overrides)}


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["dm", "mmd", "idm", *POOLED, "datadam", "datadam-paper"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("compiled", ["false", "true"])
@pytest.mark.filterwarnings("default")  # torch's compiler warns of what it does itself
def test_features_are_matched_on_the_device(
    tmp_path: Path, pool: Path, method: str, precision: str, compiled: str
) -> None:
    told = features_matched(method, pool, f"compute.precision={precision}", f"compute.compile={compiled}")
    said: list[str] = []
    dsdistill.distill(tmp_path / "a.h5", **told, iterations=3, callbacks=[Told(notify=said.append)])
    assert not [sentence for sentence in said if "torch.compile" in sentence]
    assert set_file.read(tmp_path / "a.h5").images.isfinite().all()


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["idm", "ncfm-minmax"])
def test_queue_and_adversary_killed_and_resumed(tmp_path: Path, pool: Path, method: str) -> None:
    """What else a checkpoint holds: a queue of networks, AdamW's moments, an adversary."""
    overrides = ("checkpoint.iterations=6", "compute.precision=fp32", "compute.compile=false")
    told = features_matched(method, pool, *overrides) | {"iterations": 12}
    straight, output, half = killed_and_resumed(tmp_path, told)
    whole, resumed, before = (set_file.read(file).images for file in (straight, output, half))
    assert (resumed - whole).abs().max() < 0.03 * (whole - before).abs().max()


@pytest.mark.gpu
def test_a_class_at_a_time_is_all_of_them_on_the_device(tmp_path: Path, pool: Path) -> None:
    exact = ("compute.precision=fp32", "compute.compile=false", "storage=float32")
    for chunk in (0, 1):
        told = features_matched("dm", pool, *exact, f"compute.class_chunk={chunk}")
        dsdistill.distill(tmp_path / f"{chunk}.h5", **told, iterations=2)
    images = [set_file.read(tmp_path / f"{chunk}.h5").images for chunk in (0, 1)]
    torch.testing.assert_close(*images, rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
def test_baselines_are_chosen_on_the_device(tmp_path: Path, pool: Path) -> None:
    dsdistill.distill(tmp_path / "a.h5", **features_matched("dm", pool), iterations=2)
    report = dsdistill.evaluate(
        tmp_path / "a.h5", device="cuda", epochs=5, repeats=2, baselines="random,herding,k-center,el2n,full"
    )
    sets = ["distilled", "random", "herding", "k-center", "el2n", "full"]
    assert [row.set for row in report.rows] == sets


@pytest.fixture(scope="module")
def following(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return options of a run that follows experts, whose weights walk at random."""
    folder = tmp_path_factory.mktemp("following")
    (folder / "method.toml").write_text(RECIPE)
    experts = written(folder / "experts.h5", *catalog.load(DataConfig(name="digits"), "train"))
    overrides = [f"engine.supply.path={experts}", "compute.precision=fp32", "compute.compile=false"]
    overrides += ["engine.perturbation=1", "engine.between=equal"]
    return {"dataset": "digits", "ipc": 2, "method": str(folder / "method.toml"), "overrides": overrides}


@pytest.mark.gpu
@pytest.mark.parametrize("init", ["real", "correct", "representative"])
def test_the_device_changes_no_student(tmp_path: Path, following: dict[str, Any], init: str) -> None:
    sets = []
    for device in ("cpu", "cuda"):
        options = {"init": init, "storage": "float32"}
        told = following | {"options": options, "iterations": 2, "device": device}
        dsdistill.distill(tmp_path / f"{device}.h5", **told)
        sets.append(set_file.read(tmp_path / f"{device}.h5"))
    one, other = sets
    torch.testing.assert_close(one.images, other.images, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(one.soft_labels, other.soft_labels, rtol=1e-3, atol=1e-3)
    assert one.attributes["learned_lr"] == pytest.approx(other.attributes["learned_lr"], rel=1e-3)


@pytest.mark.gpu
def test_following_experts_killed_and_resumed(tmp_path: Path, following: dict[str, Any]) -> None:
    """As above, for pixels, labels and learning rate."""
    told = following | {"device": "cuda", "iterations": 12, "options": {"checkpoint": {"iterations": 6}}}
    straight, output, half = killed_and_resumed(tmp_path, told)
    for values in zip(*map(learned, (straight, output, half)), strict=True):
        whole, resumed, before = values
        assert (resumed - whole).abs().max() < 0.03 * (whole - before).abs().max()


def learned(file: Path) -> tuple[torch.Tensor, ...]:
    made = set_file.read(file)
    assert made.soft_labels is not None
    return made.images, made.soft_labels, torch.tensor(made.attributes["learned_lr"], dtype=torch.float64)


@pytest.mark.gpu
@pytest.mark.parametrize("network", ["convnet2-w16", "convnet2-w16-batch"])
def test_graphs_change_no_expert(tmp_path: Path, network: str) -> None:
    told: dict[str, Any] = {"dataset": "digits", "recipe": "ncfm", "network": network, "device": "cuda"}
    weights, said = [], list[str]()
    for graphs in ("true", "false"):
        overrides = ["compute.precision=fp32", f"compute.cuda_graphs={graphs}"]
        options = {"count": 1, "epochs": 1, "overrides": overrides, "callbacks": [Told(notify=said.append)]}
        experts = dsdistill.train_experts(tmp_path / f"{graphs}.h5", **told, **options)
        weights.append(experts.flat(0, 1))
    assert not [sentence for sentence in said if "CUDA graphs" in sentence]
    torch.testing.assert_close(*weights, rtol=1e-2, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("network", ["convnet2-w16", "convnet2-w16-batch"])
def test_graphs_change_no_student(tmp_path: Path, repeats: int, network: str) -> None:
    dsdistill.distill(tmp_path / "set.h5", dataset="digits", ipc=2, iterations=20, device="cuda")
    told: dict[str, Any] = {"epochs": 20, "repeats": repeats, "networks": network, "baselines": ""}
    values, said = [], list[str]()
    for graphs in (True, False):
        told |= {
            "device": "cuda",
            "precision": "fp32",
            "save": False,
            "callbacks": [Told(notify=said.append)],
        }
        values.append(dsdistill.evaluate(tmp_path / "set.h5", cuda_graphs=graphs, **told).rows[0].mean)
    assert not [sentence for sentence in said if "CUDA graphs" in sentence]
    assert values[0] == pytest.approx(values[1], abs=3)


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["dm", "dsa", "datadam", "idm"])
def test_an_iteration_does_not_wait_for_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """The first iteration may, as may what is done between them."""
    step = Distiller.step

    def watched(distiller: Distiller) -> IterationReport:
        torch.cuda.set_sync_debug_mode("error" if distiller.iteration else "default")
        try:
            return step(distiller)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Distiller, "step", watched)
    told: dict[str, Any] = {"dataset": "digits", "method": method, "ipc": 1, "network": "convnet2-w16"}
    dsdistill.distill(tmp_path / "set.h5", **told, iterations=3, device="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_device_changes_no_label(tmp_path: Path, mode: Literal["eval", "train"]) -> None:
    dsdistill.distill(tmp_path / "set.h5", dataset="digits", ipc=2, iterations=2, device="cuda")
    teachers = tmp_path / "experts.h5"
    dsdistill.train_experts(teachers, dataset="digits", recipe="mtt", count=2, epochs=2, device="cuda")
    found = []
    for device in ("cpu", "cuda"):
        options = {"teachers": f"{teachers}#all", "mode": mode, "device": device, "precision": "fp32"}
        options |= {"views": 8, "batch_size": 5, "encoding": "float32"}
        summary = dsdistill.label(tmp_path / "set.h5", tmp_path / f"{device}.h5", **options)
        found.append(set_file.read(summary.path).views)
    one, other = found
    assert one is not None
    assert other is not None
    torch.testing.assert_close(one.answers[:], other.answers[:], rtol=1e-3, atol=1e-3)
    assert torch.equal(one.crops, other.crops)
