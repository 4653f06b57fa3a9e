"""Result files of published methods, as their code writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

import dsdistill
from tests.helpers.imports import LABELS, digits, imported, network, refused, saved, unit

LOGITS = 5.0 * one_hot(LABELS, 10) + 0.1


def mtt(folder: Path, step: object = "best", labels: torch.Tensor = LABELS, lr: float | None = None) -> Path:
    saved(folder / f"images_{step}.pt", network(unit()))
    saved(folder / f"labels_{step}.pt", labels)
    if lr is not None:
        saved(folder / f"lr_{step}.pt", torch.tensor(lr))
    return folder


def test_the_folder_where_one_is_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mtt(tmp_path / "run"))
    dsdistill.import_set(".", tmp_path / "set.h5", dataset="digits")
    assert dsdistill.load(tmp_path / "set.h5").attributes["imported_from"] == "run (mtt)"


def test_a_folder_of_mtt(tmp_path: Path) -> None:
    distilled, summary = imported(mtt(tmp_path / "run"), lr=0.03, protocol="mtt")
    torch.testing.assert_close(distilled.images, unit(), atol=1e-5, rtol=0)
    assert torch.equal(distilled.labels, LABELS)
    assert (distilled.attributes["protocol"], distilled.attributes["learned_lr"]) == ("mtt", 0.03)
    assert summary.format == "mtt"
    assert any("flattered" in sentence for sentence in summary.notices)


def test_without_a_rate_a_protocol_that_needs_none_is_stored(tmp_path: Path) -> None:
    distilled, summary = imported(mtt(tmp_path / "run"))
    assert distilled.attributes["protocol"] == "dm"
    assert "pass --lr RATE --protocol mtt" in summary.notices[-1]


def test_a_folder_of_datm_has_logits_and_a_rate(tmp_path: Path) -> None:
    mtt(tmp_path / "run" / "Normal", labels=LOGITS, lr=0.01)
    distilled, _ = imported(tmp_path / "run")
    assert distilled.soft_labels is not None
    assert torch.equal(distilled.soft_labels, LOGITS)
    assert distilled.attributes["protocol"] == "datm"
    assert distilled.attributes["learned_lr"] == pytest.approx(0.01)


def test_a_folder_of_mtt_with_whitening(tmp_path: Path) -> None:
    whitening = digits(zca=True).preprocess
    saved(tmp_path / "run" / "images_100.pt", network(unit(), whitening))
    saved(tmp_path / "run" / "images_zca_100.pt", unit())
    saved(tmp_path / "run" / "labels_100.pt", LABELS)
    distilled, summary = imported(tmp_path / "run")
    assert (summary.space, distilled.preprocess.kind) == ("zca", "zca")
    torch.testing.assert_close(distilled.images, unit(), atol=1e-4, rtol=0)
    distilled, summary = imported(tmp_path / "run" / "images_zca_100.pt")
    assert (summary.space, torch.equal(distilled.images, unit())) == ("unit", True)


def test_several_iterations_of_mtt(tmp_path: Path) -> None:
    for step in (0, 500):
        mtt(tmp_path / "run", step)
    refused(tmp_path / "run", r"holds several sets \(images_0.pt, images_500.pt\); name one of the files")
    assert imported(tmp_path / "run" / "images_500.pt")[1].format == "mtt"
    mtt(tmp_path / "run")
    assert any("images_best.pt" in sentence for sentence in imported(tmp_path / "run")[1].notices)
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "holds no images_best.pt", format="mtt")


@pytest.mark.parametrize("name", ["data.pt", "data_20000.pt"])
def test_data_of_idc_and_ncfm_is_decoded(tmp_path: Path, name: str) -> None:
    source = saved(tmp_path / name, [unit() * 1.02, LABELS])  # a step of the optimiser after the last clamp
    refused(source, "pass --factor: 2 for most of IDC")
    distilled, summary = imported(source, factor=2)
    assert torch.equal(distilled.images, unit() * 1.02)
    assert (distilled.multi_formation.factor, distilled.decoded_count) == (2, 80)
    assert distilled.attributes["protocol"] == {"data.pt": "idc"}.get(name, "ncfm")
    assert (summary.format, summary.space) == ("idc", "unit")


def test_the_factor_in_the_name_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "conv3in_grad_mse_nd2000_cut_niter2000_factor3_lr0.005_mix_ipc2"
    saved(folder / "data.pt", [unit(), LABELS])
    distilled, summary = imported(folder)
    assert distilled.multi_formation.factor == 3
    assert any("factor 3, as the name of its folder says" in sentence for sentence in summary.notices)
    assert imported(folder / "data.pt", factor=1)[0].multi_formation.is_identity
    saved(folder / "data_best.pt", [unit(), LABELS])
    refused(folder, r"several sets \(data.pt, data_best.pt\)")
    saved(tmp_path / "ncfm" / "distilled_data" / "data_500.pt", [unit(), LABELS])
    assert imported(tmp_path / "ncfm", factor=2)[0].attributes["protocol"] == "ncfm"


def test_results_of_dm_with_accuracies_of_numpy(tmp_path: Path) -> None:
    sets = [[network(unit(seed=seed)), LABELS] for seed in range(2)]
    content = {"data": sets, "accs_all_exps": {"ConvNet": [np.float64(0.5)]}}
    source = saved(tmp_path / "res_DSA_MNIST_ConvNet_2ipc.pt", content)
    refused(source, "holds 2 sets; choose one with --which 0 to 1")
    refused(source, "no set 2 in .*: it holds 2", which=2)
    distilled, summary = imported(source, which=1)
    torch.testing.assert_close(distilled.images, unit(seed=1), atol=1e-5, rtol=0)
    assert (summary.format, distilled.attributes["protocol"]) == ("dc", "dsa")
    assert any("for IDM pass --factor 2" in sentence for sentence in summary.notices)
    one = saved(tmp_path / "res_DM_MNIST_ConvNet_2ipc.pt", {"data": sets[:1]})
    assert imported(one, factor=2)[0].multi_formation.factor == 2
    refused(saved(tmp_path / "other.pt", {"images": unit()}), "no list 'data'", format="dc")


def test_a_cifar_100_set_of_mtt_keeps_the_constants_of_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dsdistill.importing import source as module

    monkeypatch.setitem(module.CONSTANTS_IN_USE, "digits", "mnist")
    saved(tmp_path / "run" / "images_best.pt", (unit() - 0.1307) / 0.3081)
    saved(tmp_path / "run" / "labels_best.pt", LABELS)
    distilled, _ = imported(tmp_path / "run")
    torch.testing.assert_close(distilled.images, unit(), atol=1e-5, rtol=0)
    assert distilled.preprocess.state()["mean"].tolist() == [pytest.approx(0.1307)]
    assert module.CONSTANTS_IN_USE["cifar100"] == "cifar10"
