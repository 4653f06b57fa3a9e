"""A distilled set as a folder of Hugging Face's datasets, with its card."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from dsdistill.errors import UserError
from dsdistill.evaluation.rows import Row
from dsdistill.export.huggingface import card, export_huggingface
from dsdistill.export.training_images import TrainingImages
from dsdistill.storage import set_results
from dsdistill.storage.set_description import describe
from tests.helpers.exports import of_cifar, written


def text_of(path: Path) -> str:
    return card(describe(path), TrainingImages(path))


def test_the_card_tells_origin_accuracies_and_terms(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    of_cifar(path, attributes={"dataset": "cifar10", "protocol": "dsa", "method": "dsa", "seconds": 61.0})
    assert "holds no evaluation" in text_of(path)
    row = Row("distilled", "convnet3", "dsa", 1000, 51.25, 0.5, [50.75, 51.75], 6, 6, 3.0)
    set_results.append_result(path, vars(row))
    set_results.append_result(path, {"mine": 1})
    text = text_of(path)
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["license"] == "unknown"
    assert head["pretty_name"] == "cifar10, distilled by dsa"
    assert head["size_categories"] == ["n<1K"]
    assert "6 synthetic training images of 3 classes" in text
    assert "| distilled | HL | 6 | convnet3 | dsa | 1000 | 51.25 ± 0.50 | 2 |" in text
    assert "seconds: 1 min 01 s" in text
    assert "mean [0.5, 0.5, 0.5] and std [0.25, 0.25, 0.25]" in text
    assert "Its authors state no licence" in text


def test_the_card_of_ones_own_data_says_that_the_terms_are_unknown(tmp_path: Path) -> None:
    about = {"dataset": "folder:pets", "method": "dm", "imported_from": "a.pt (tensors)"}
    written(tmp_path / "set.h5", attributes=about)
    text = text_of(tmp_path / "set.h5")
    assert "Unknown: see the source of the data." in text
    assert "imported from: a.pt (tensors)" in text


def test_names_of_others_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    classes = ("<script>alert()</script>", "a|b\n# c", "](http://x)")
    written(
        tmp_path / "set.h5", classes=classes, attributes={"method": 'x"\n---\nlicense: mit', "dataset": "=x"}
    )
    text = text_of(tmp_path / "set.h5")
    head = yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))
    assert head["license"] == "unknown"
    assert head["pretty_name"] == '=x, distilled by x"\\n---\\nlicense: mit'
    assert "<script" not in text
    assert "\n# c" not in text
    assert "\\]\\(http" in text or "\\](http" in text


def test_datasets_loads_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets.disable_progress_bars()
    distilled = written(tmp_path / "set.h5", soft_labels=torch.arange(18.0).reshape(6, 3))
    sentences = export_huggingface(tmp_path / "set.h5", tmp_path / "hf")
    assert "terms of the data" in sentences[-1]
    data = datasets.load_dataset(str(tmp_path / "hf"), split="train", cache_dir=str(tmp_path / "cache"))
    assert data.features["label"].names == ["plane", "car", "bird"]
    assert data[0]["image"].size == (7, 5)
    tensors = data.with_format("torch")
    torch.testing.assert_close(tensors[:]["pixels"], distilled.images, atol=0, rtol=0)
    assert torch.equal(tensors[:]["label"], distilled.labels)
    assert torch.equal(torch.as_tensor(data[5]["logits"]), torch.tensor([15.0, 16.0, 17.0]))


def test_the_folder_is_whole_or_absent(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    written(tmp_path / "set.h5")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(UserError, match="not an empty folder"):
        export_huggingface(tmp_path / "set.h5", tmp_path / "full")
    export_huggingface(tmp_path / "set.h5", tmp_path / "hf")
    assert sorted(str(file.relative_to(tmp_path / "hf")) for file in (tmp_path / "hf").rglob("*.*")) == [
        "README.md",
        "data/train-00000-of-00001.parquet",
    ]
