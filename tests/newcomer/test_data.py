"""Any data in: arrays, a Dataset of torch, one of Hugging Face; distilled, judged and trained on alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

import dsdistill
from tests.helpers.notices import Notices

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(40) % 2
QUICK: dict[str, Any] = {"ipc": 1, "network": "convnet2-w8", "iterations": 2}
SHORT: dict[str, Any] = {"epochs": 1, "repeats": 1}


class Pets(Dataset[tuple[torch.Tensor, int]]):
    """What a newcomer has: a Dataset with a transform to floats."""

    classes = ("cat", "dog")

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(IMAGES[index]).permute(2, 0, 1) / 255, int(LABELS[index])


def test_arrays_are_distilled_and_the_set_is_judged_on_them(tmp_path: Path) -> None:
    data = (torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255, torch.from_numpy(LABELS))
    said = Notices()
    summary = dsdistill.distill(tmp_path / "set.h5", dataset=data, callbacks=[said], **QUICK)
    assert summary.images == 2
    assert "memory:arrays: values in 0..1, 1 is white" in said.sentences
    told = Notices()
    report = dsdistill.evaluate(tmp_path / "set.h5", dataset=data, callbacks=[told], **SHORT)
    assert (report.dataset, len(report.rows)) == ("memory:arrays", 2)
    assert not any("not the data the set was distilled from" in sentence for sentence in told.sentences)
    other = (255 - IMAGES, LABELS)
    dsdistill.evaluate(tmp_path / "set.h5", dataset=other, callbacks=[told], baselines="", **SHORT)
    assert any("not the data the set was distilled from" in sentence for sentence in told.sentences)


def test_a_dataset_keeps_the_names_of_its_classes(tmp_path: Path) -> None:
    dsdistill.distill(tmp_path / "set.h5", dataset={"train": Pets(), "test": Pets()}, **QUICK)
    assert dsdistill.load(tmp_path / "set.h5").classes == ("cat", "dog")
    named = dsdistill.ImageData(Pets(), classes=["chat", "chien"], name="animaux")
    dsdistill.distill(tmp_path / "named.h5", dataset=named, **QUICK)
    file = dsdistill.load(tmp_path / "named.h5")
    assert (file.classes, file.attributes["dataset"]) == (("chat", "chien"), "memory:animaux")


def test_experts_are_trained_on_data_in_memory(tmp_path: Path) -> None:
    options: dict[str, Any] = {"recipe": "mtt", "count": 1, "epochs": 1, "network": "convnet2-w8"}
    experts = dsdistill.train_experts(tmp_path / "experts.h5", dataset=(IMAGES, LABELS), **options)
    assert experts.count == 1


def test_a_run_on_data_in_memory_says_that_it_needs_them_again(tmp_path: Path) -> None:
    file, data = tmp_path / "set.h5", (IMAGES, LABELS)
    dsdistill.distill(file, dataset=data, overrides=["compute.threads=1"], **QUICK)
    config = (tmp_path / "set.run" / "config.toml").read_text()
    assert config.startswith("# memory:arrays was data in memory, which no file holds")
    assert str(dsdistill.load(file).attributes["config"]).startswith("# memory:arrays was data in memory")
    again = tmp_path / "again.h5"
    replay: dict[str, Any] = {"config": tmp_path / "set.run" / "config.toml"}
    with pytest.raises(dsdistill.UserError, match="give the same data again as dataset="):
        dsdistill.distill(again, **replay)
    with pytest.raises(dsdistill.UserError, match="give the same data again as dataset="):
        dsdistill.evaluate(file, **SHORT)
    dsdistill.distill(again, dataset=data, **replay)
    assert torch.equal(dsdistill.load(again).images, dsdistill.load(file).images)
    dsdistill.distill(file, dataset=data, resume=True, overrides=["compute.threads=1"], **QUICK)
    with pytest.raises(dsdistill.UserError, match=r"memory:arrays has changed since set\.run began"):
        dsdistill.distill(
            file, dataset=(255 - IMAGES, LABELS), resume=True, overrides=["compute.threads=1"], **QUICK
        )


def test_a_table_of_hugging_face_is_data_too(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    table = datasets.Dataset.from_dict(
        {"image": list(IMAGES), "label": LABELS.tolist()}, features=datasets.Features(kinds)
    )
    splits = table.train_test_split(0.5, seed=0)
    dsdistill.distill(tmp_path / "a.h5", dataset=splits, **QUICK)
    splits.save_to_disk(tmp_path / "pets")
    dsdistill.distill(tmp_path / "b.h5", dataset=f"hf:{tmp_path / 'pets'}", **QUICK)
    a, b = dsdistill.load(tmp_path / "a.h5"), dsdistill.load(tmp_path / "b.h5")
    assert torch.equal(a.images, b.images)
    assert (b.classes, b.attributes["dataset"]) == (("cat", "dog"), "hf:./pets")
    report = dsdistill.evaluate(tmp_path / "b.h5", **SHORT)  # the run beside it tells where the data lie
    assert report.dataset == "hf:./pets"


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (IMAGES, "images without labels; give \\(images, labels\\)"),
        ((IMAGES, LABELS[:3]), "for 40 images; give one label per image"),
        ([(IMAGES[0], 0), (IMAGES[1, :5], 1)] * 3, "pass size="),
        ((IMAGES - 100.0, LABELS), "leave out what normalises them"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, data: Any, sentence: str) -> None:
    with pytest.raises(dsdistill.UserError, match=sentence) as caught:
        dsdistill.distill(tmp_path / "set.h5", dataset=data, **QUICK)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
