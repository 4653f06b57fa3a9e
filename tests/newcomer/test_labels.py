"""Labels by teachers: a file of views is read by what everybody has, and trains a student."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

import dsdistill

ROOT = Path(__file__).parents[2]


@pytest.fixture
def views(finished: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    options = {"views": 6, "batch_size": 4, "flip": True, "encoding": "float32"}
    return dsdistill.label(finished, "views.h5", teachers=pool, **options).path


def script() -> str:
    """Return the script of the page on labels that reads views without dsdistill."""
    blocks = (ROOT / "docs" / "labels.md").read_text().split("```python\n")[1:]
    (found,) = [block.split("```")[0] for block in blocks if "h5py" in block]
    return found


def test_a_script_of_15_lines_trains_on_views_with_stock_h5py_and_torch(views: Path) -> None:
    lines = [line for line in script().splitlines() if line and not line.startswith(("import", "from"))]
    assert len(lines) <= 15
    assert "dsdistill" not in script()
    assert max(map(len, lines)) <= 120
    batches: list[tuple[torch.Tensor, torch.Tensor]] = []
    code = script().replace(".backward()", ".backward(), batches.append((x, logits))")
    torch.manual_seed(0)
    exec(compile(code, "script", "exec"), {"batches": batches})
    ours = dsdistill.load(views, views=True)
    assert len(batches) == len(ours) == 18
    for (images, logits), (expected, answers) in zip(batches, ours, strict=True):  # type: ignore[call-overload]
        torch.testing.assert_close(images, expected, rtol=0, atol=2e-6)  # interpolated in another order
        assert torch.equal(logits, answers)


def test_without_crops_the_script_sees_our_batches_bit_for_bit(
    finished: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"views": 3, "batch_size": 4, "flip": True, "crop_scale": (1.0, 1.0)}
    dsdistill.label(finished, "views.h5", teachers=pool, **options)
    batches: list[tuple[torch.Tensor, torch.Tensor]] = []
    code = script().replace(".backward()", ".backward(), batches.append((x, logits))")
    exec(compile(code, "script", "exec"), {"batches": batches})
    ours = dsdistill.load("views.h5", views=True)
    whole = (ours.views.crops == torch.tensor([0, 0, 8, 8])).all(1)
    assert whole.all()
    for (images, logits), (expected, answers) in zip(batches, ours, strict=True):  # type: ignore[call-overload]
        assert torch.equal(images, expected)
        assert torch.equal(logits.float(), answers)


def test_a_loader_serves_whole_batches(views: Path) -> None:
    dataset = dsdistill.load(views, views=True)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    seen = 0
    for images, logits in DataLoader(dataset, batch_size=None, num_workers=2, shuffle=True):
        loss = torch.nn.functional.cross_entropy(network(images), logits.softmax(1))
        loss.backward()
        seen += len(images)
    assert seen == 60


def test_static_labels_come_with_their_images(finished: Path, pool: Path, tmp_path: Path) -> None:
    summary = dsdistill.label(finished, tmp_path / "soft.h5", teachers=[pool, f"{pool}#1@0"])
    image, logits = dsdistill.load(summary.path, labels="soft")[3]
    assert image.shape == (1, 8, 8)
    assert logits.shape == (10,)
    assert summary.label_bytes > 0
    assert "2 teachers" not in str(summary)
