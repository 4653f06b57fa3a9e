"""Plain labelling and ours do the same work, and the benchmark of both runs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks import labelling
from benchmarks.labelling import MEAN, QUICK, STD
from dsdistill.storage import set_file
from tests.reference import fkd


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(labelling, "quiet_allocator", lambda: True)


@pytest.mark.parametrize("what", ["views", "training"])
def test_variants_can_be_run(what: str) -> None:
    for prepare in labelling.compared(what, QUICK).values():
        prepare()()


def test_both_label_every_image_as_often_by_the_same_teacher() -> None:
    plain, ours = labelling.plain_views(QUICK)(), labelling.our_views(QUICK, "fp32")()
    batches = [torch.load(file, weights_only=True) for file in sorted(plain.rglob("*.tar"))]
    views = set_file.read(ours).views
    assert views is not None
    sizes = [len(batch[5]) for batch in batches]
    assert sizes == views.starts.diff().tolist() == [8, 8, 4] * 2
    assert {str(batch[5].dtype) for batch in batches} == {str(views.answers.parts["values"].dtype)}
    teacher = labelling.committee(QUICK).teachers[0].network
    files = [plain.parent / f"{number}.png" for number in range(QUICK.images)]
    rows = next(fkd.order(QUICK.images, 1))[:8]
    images, logits = fkd.replay(files, rows, plain / "epoch_0" / "batch_0.tar", MEAN, STD)
    torch.testing.assert_close(teacher(images), logits, rtol=2e-3, atol=2e-3)


def test_a_plain_view_is_ours_up_to_the_rounding_of_bytes(tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(pixels.numpy()).save(tmp_path / "image.png")
    box = [1, 2, 6, 9]
    theirs = fkd.view(fkd.opened(tmp_path / "image.png"), box, False, MEAN, STD)
    crops = labelling.LabellingConfig().crop.draw(1, 12, torch.Generator())
    crops.boxes[0] = torch.tensor(box)
    ours = crops(((pixels / 255 - MEAN[0]) / STD[0])[None, None])[0]
    assert (ours - theirs).abs().max() <= 1.5 / 255 / STD[0]
