"""Imports from the call to the file: pixels, labels, provenance, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import dsdistill
from tests.helpers.callbacks import Closed, Told
from tests.helpers.imports import LABELS, digits, imported, network, refused, saved, unit


def test_the_file_holds_the_images_class_by_class_and_their_origin(tmp_path: Path) -> None:
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    images = unit()
    source = saved(tmp_path / "theirs.pt", {"images": images[order], "labels": LABELS[order], "lr": 0.02})
    distilled, summary = imported(source, method="theirs")
    assert torch.equal(distilled.labels, LABELS)
    assert sorted(map(tuple, distilled.images[4:6].flatten(1).tolist())) == sorted(
        map(tuple, images[4:6].flatten(1).tolist())
    )
    assert distilled.classes == digits().classes
    assert torch.equal(distilled.preprocess.state()["mean"], digits().preprocess.state()["mean"])
    about = dict(distilled.attributes)
    assert json.loads(str(about.pop("data")))["name"] == "digits"
    assert about == {
        "method": "theirs",
        "imported_from": "theirs.pt (tensors)",
        "dataset": "digits",
        "protocol": "dm",
        "learned_lr": 0.02,
    }
    assert (summary.format, summary.space, summary.images) == ("tensors", "unit", 20)
    assert any("values lie between" in sentence for sentence in summary.notices)


def test_two_imports_of_a_source_are_equal(tmp_path: Path) -> None:
    source = saved(tmp_path / "a.pt", (unit(), LABELS))
    for name in ("one.h5", "two.h5"):
        dsdistill.import_set(source, tmp_path / name, dataset="digits")
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


@pytest.mark.parametrize("space", ["auto", "standardised"])
def test_standardised_pixels_are_brought_back(tmp_path: Path, space: str) -> None:
    source = saved(tmp_path / "a.pt", (network(unit()), LABELS))
    distilled, summary = imported(source, space=space)
    torch.testing.assert_close(distilled.images, unit(), atol=1e-5, rtol=0)
    assert summary.space == "standardised"


def test_whitened_pixels_are_brought_back_where_it_is_said(tmp_path: Path) -> None:
    whitening = digits(zca=True).preprocess
    source = saved(tmp_path / "a.pt", (network(unit(), whitening), LABELS))
    distilled, summary = imported(source, space="zca")
    torch.testing.assert_close(distilled.images, unit(), atol=1e-4, rtol=0)
    assert (summary.space, distilled.preprocess.kind) == ("zca", "zca")
    torch.testing.assert_close(
        distilled.preprocess(distilled.images), network(unit(), whitening), atol=1e-4, rtol=0
    )


def test_bytes_and_their_floats_are_divided(tmp_path: Path) -> None:
    assert torch.equal(
        imported(saved(tmp_path / "b.pt", (unit() > 0.5, LABELS)))[0].images, (unit() > 0.5).float()
    )
    images = (unit() * 255).round()
    for number, each in enumerate((images.to(torch.uint8), images, images.to(torch.int64))):
        distilled, summary = imported(saved(tmp_path / f"{number}.pt", (each, LABELS)))
        assert torch.equal(distilled.images, images / 255)
        assert summary.space == "unit"


def test_the_constants_of_another_data_set_undo_theirs(tmp_path: Path) -> None:
    mean, std = 0.1307, 0.3081  # MNIST's
    source = saved(tmp_path / "a.pt", ((unit() - mean) / std, LABELS))
    distilled, _ = imported(source, constants="mnist")
    torch.testing.assert_close(distilled.images, unit(), atol=1e-5, rtol=0)
    assert distilled.preprocess.state()["std"].tolist() == [pytest.approx(std)]


@pytest.mark.parametrize(
    ("images", "options", "match"),
    [
        (unit() * 0.4 - 0.2, {}, "space of the pixels is unclear.*pass --space unit, standardised or zca"),
        (unit() * 60 - 30, {}, "space of the pixels is unclear"),
        (unit(), {"space": "lab"}, "unknown space 'lab'"),
        (unit().masked_fill(unit() > 0.9, float("nan")), {}, "not finite"),
        (torch.full((20, 1, 8, 8), 256), {}, "integers from 256 to 256"),
        (torch.zeros(20, 1, 9, 9), {}, "the images are 1x9x9 .* of digits 1x8x8; pass --size 9"),
        (unit().expand(-1, 3, -1, -1) * torch.tensor([1, 0.5, 1]).view(3, 1, 1), {}, "pass --channels 3"),
        (
            torch.zeros(20, 1, 8, 9),
            {},
            r"the images are 1x8x9 \(channels, height, width\) and those of digits 1x8x8$",
        ),
        (unit(), {"dataset": "digit"}, "unknown data set 'digit'; did you mean 'digits'"),
        (
            network(unit()),
            {"dataset": "digits", "channels": 3},
            "are 1x8x8 .* of digits 3x8x8; pass --channels 1",
        ),
        (unit(), {"lr": float("nan")}, "learning rate must be a number above 0, not nan"),
        (unit(), {"method": "a\nb"}, "choose another --method"),
        (unit(), {"protocol": "mttt"}, "unknown protocol"),
        (unit(), {"protocol": "mtt"}, "protocol mtt takes a learned learning rate; pass --lr"),
        (unit(), {"constants": "cifar11"}, "did you mean 'cifar10'"),
        (unit(), {"format": "hdf"}, "unknown import format 'hdf'"),
        (unit(), {"which": 0}, "--which is for dc, not for tensors; leave it out"),
        (unit(), {"factor": 9}, "choose a smaller factor"),
        (unit(), {"factor": 0}, "numbers are at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, images: torch.Tensor, options: dict, match: str
) -> None:
    refused(saved(tmp_path / "a.pt", (images, LABELS)), match, **options)


def test_an_output_is_not_replaced(tmp_path: Path) -> None:
    source = saved(tmp_path / "a.pt", (unit(), LABELS))
    (tmp_path / "mine.h5").write_text("mine")
    with pytest.raises(dsdistill.UserError, match="exists"):
        dsdistill.import_set(source, tmp_path / "mine.h5", dataset="digits")
    with pytest.raises(dsdistill.UserError, match=r"name it a\.h5"):
        dsdistill.import_set(source, tmp_path / "a.npz", dataset="digits")
    assert (tmp_path / "mine.h5").read_text() == "mine"


def test_grey_images_of_three_equal_channels_become_grey(tmp_path: Path) -> None:
    distilled, _ = imported(saved(tmp_path / "a.pt", (unit().expand(-1, 3, -1, -1), LABELS)))
    assert torch.equal(distilled.images, unit())


def test_another_size_is_taken_where_it_is_asked_for(tmp_path: Path) -> None:
    distilled, _ = imported(saved(tmp_path / "a.pt", (torch.rand(20, 1, 9, 9), LABELS)), size=9)
    assert distilled.images.shape == (20, 1, 9, 9)
    assert json.loads(str(distilled.attributes["data"]))["size"] == 9


def test_what_is_inferred_is_told_once_and_in_the_summary(tmp_path: Path) -> None:
    told: list[str] = []
    _, summary = imported(saved(tmp_path / "a.pt", unit()), callbacks=[Told(notify=told.append)])
    assert tuple(told) == summary.notices
    assert len(told) == len(set(told)) == 3
    assert "2 of each" in told[2]


def test_strange_pixels_are_taken_where_the_space_is_named(tmp_path: Path) -> None:
    source = saved(tmp_path / "a.pt", (unit() * 60 - 30, LABELS))
    distilled, summary = imported(source, space="unit")
    assert torch.equal(distilled.images, unit() * 60 - 30)
    assert "taken as unit lie mostly between -27" in summary.notices[1]
    refused(
        source.rename(tmp_path / "data.pt"),
        "lie mostly between .*; if they are in unit space, pass --space unit",
        factor=1,
    )


def test_callbacks_are_closed_even_if_the_import_is_refused(tmp_path: Path) -> None:
    source, output = saved(tmp_path / "a.pt", (unit(), LABELS)), tmp_path / "set.h5"
    closed = Closed()
    dsdistill.import_set(source, output, dataset="digits", callbacks=[closed])
    assert closed.times == 1
    with pytest.raises(dsdistill.UserError):
        dsdistill.import_set(source, output, dataset="digits", callbacks=[closed])
    assert closed.times == 2
