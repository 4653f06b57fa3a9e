"""Small pictures of a set, as pages, notebooks and logs show them."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from dsdistill.synthetic import picture
from dsdistill.synthetic.distilled_dataset import DistilledDataset
from tests.helpers.storage import make


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (2, 8), (3, 128)])
def test_inline_pictures_are_small(channels: int, size: int) -> None:
    distilled = make(count=6, kinds=12, channels=channels, size=size)
    head, _, data = picture.data_uri(distilled.images, distilled.labels).partition(",")
    assert head == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        side = min(size, 48)
        assert image.size == (10 * (side + 1) - 1, 5 * (side + 1) - 1)
        alpha = np.asarray(image)[..., -1]
    assert (alpha[:side, :side] == 255).all()
    assert (alpha[side] == 0).all()  # gaps show the page


def test_omissions_are_named() -> None:
    assert (
        picture.omissions(make(count=6, kinds=12).labels) == "10 of 12 classes, 5 of up to 6 images a class"
    )
    assert picture.omissions(torch.tensor([0, 0, 11])) == ""


def drawn(html: str) -> np.ndarray:
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.asarray(image)


def test_a_set_shows_itself_in_a_notebook() -> None:
    distilled = make(count=2, kinds=3, channels=1, size=8)
    html = distilled._repr_html_()
    shown = drawn(html)[:8, :8, 0]
    assert (shown == picture.to_uint8(distilled.images[0, 0]).numpy()).all()
    assert "6 images of 1x8x8" in html
    for space in ("unit", "network"):
        data = DistilledDataset(distilled, space=space)  # type: ignore[arg-type]
        assert np.abs(drawn(data._repr_html_())[:8, :8, 0].astype(int) - shown).max() <= 1


def test_names_of_others_are_no_markup() -> None:
    images, labels = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(1).long()
    html = picture.as_html(images, labels, ["<script>\x1b"], "<b>")
    assert "<script>" not in html
    assert "<b>" not in html
    assert r"&lt;script&gt;\x1b" in html
