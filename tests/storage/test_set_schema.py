"""What the file of a set holds: round trips, what a stock reader sees, and content that is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

import h5py
import numpy as np
import pytest
import torch

from dsdistill.errors import UserError
from dsdistill.storage import set_file, set_results
from dsdistill.storage.hdf5 import SET
from dsdistill.storage.set_description import describe
from dsdistill.storage.set_schema import as_stored
from dsdistill.synthetic.multi_formation import Mode, MultiFormation
from tests.helpers.labels import equal, with_views
from tests.helpers.storage import changed, make, refusal, same, standardise, zca


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 5), (4, 3)])
def test_float32_round_trip_is_exact(tmp_path: Path, channels: int, size: int) -> None:
    soft = torch.randn(12, 3, generator=torch.Generator().manual_seed(2))
    attributes = {
        "config": "x = 1\n" * 20_000,
        "node": "μ→Ω 猫",
        "empty": "",
        "big": 2**63 - 1,
        "nan": np.nan,
    }
    for fields in (
        {"attributes": {}},
        {"soft_labels": soft, "attributes": attributes, "classes": ("", "猫", "a b")},
        {"preprocess": zca(channels * size * size)},
    ):
        distilled = make(channels=channels, size=size, **fields)
        assert set_file.write(tmp_path / "set.h5", distilled) == 0.0
        assert same(set_file.read(tmp_path / "set.h5"), distilled)


def test_types_of_attributes_survive(tmp_path: Path) -> None:
    set_file.write(tmp_path / "set.h5", make(attributes={"i": 1, "f": 1.0, "s": "1"}))
    assert {k: type(v) for k, v in set_file.read(tmp_path / "set.h5").attributes.items()} == {
        "i": int,
        "f": float,
        "s": str,
    }


def test_smaller_types_cost_what_write_says(tmp_path: Path) -> None:
    distilled = make()
    half = set_file.write(tmp_path / "half.h5", distilled, "float16")
    assert torch.equal(set_file.read(tmp_path / "half.h5").images, distilled.images.half().float())
    assert half == (distilled.images.half().double() - distilled.images.double()).abs().max()

    byte = set_file.write(tmp_path / "byte.h5", distilled, "uint8")
    back = set_file.read(tmp_path / "byte.h5")
    assert byte == pytest.approx(max(float(distilled.images.max()) - 1, -float(distilled.images.min())))
    assert (back.images - distilled.images.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6
    assert back.images.max() == 1
    assert back.images.min() == 0
    assert set_file.write(tmp_path / "again.h5", back, "uint8") == 0.0  # bytes survive any number of trips


def test_one_class_and_absent_classes(tmp_path: Path) -> None:
    for distilled in (
        make(count=1, kinds=1),
        make(labels=torch.tensor([0] * 6 + [2] * 6)),
    ):
        set_file.write(tmp_path / "set.h5", distilled)
        assert same(set_file.read(tmp_path / "set.h5"), distilled)


@pytest.mark.parametrize("mode", ["single", "multi", "bound"])
def test_a_multi_formation_survives(tmp_path: Path, mode: Mode) -> None:
    path = tmp_path / "set.h5"
    distilled = make(multi_formation=MultiFormation(factor=3, mode=mode, bound=17))
    assert set_file.write(path, distilled) == 0.0
    assert same(set_file.read(path), distilled)
    with h5py.File(path) as file:
        assert {name: file["decode"].attrs[name] for name in file["decode"].attrs} == {
            "factor": 3,
            "mode": mode.encode(),
            "bound": 17,
        }
    found = describe(path)
    assert found.multi_formation == distilled.multi_formation
    assert (found.counts, found.decoded_counts) == (
        (4, 4, 4),
        (distilled.multi_formation.decoded_count(4),) * 3,
    )


def test_factor_one_is_written_as_plain_images(tmp_path: Path) -> None:
    set_file.write(tmp_path / "a.h5", make())
    set_file.write(tmp_path / "b.h5", make(multi_formation=MultiFormation(mode="multi")))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert describe(tmp_path / "a.h5").decoded_counts == (4, 4, 4)


def test_same_set_same_bytes(tmp_path: Path) -> None:
    set_file.write(tmp_path / "a.h5", make())
    set_file.write(tmp_path / "b.h5", make())
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_stock_h5py_reads_it(tmp_path: Path) -> None:
    distilled = make(soft_labels=torch.zeros(12, 3), classes=("a", "bb", "猫"))
    set_file.write(tmp_path / "set.h5", distilled, "uint8")
    with h5py.File(tmp_path / "set.h5") as file:
        images = file["images"]
        assert (images.compression, images.compression_opts, images.shuffle) == ("gzip", 4, True)
        assert images.fletcher32
        unit = images[:] * images.attrs["scale"]
        np.testing.assert_allclose(unit, distilled.images.clamp(0, 1).numpy(), atol=0.5001 / 255)
        assert list(file["classes"].asstr()) == ["a", "bb", "猫"]
        assert file["labels"].dtype == np.int64
        assert (file.attrs["format"], file.attrs["version"]) == (b"dsdistill", 1)
        assert file.attrs["method"].decode() == "dm"
        assert (file["decode"].attrs["factor"], file["decode"].attrs["mode"]) == (1, b"none")
        assert file["preprocess"].attrs["kind"] == b"standardise"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attributes": {"sha256": "x"}}, "the format's own"),
        ({"attributes": {"": "x"}}, "the format's own"),
        ({"attributes": {"flag": True}}, "got bool"),
        ({"attributes": {"seed": 2**63}}, "64 bits"),
        ({"attributes": {"config": "a\0b"}}, "cannot store"),
        ({"attributes": {"config": "\udcff"}}, "cannot store"),
        ({"classes": ("a", "b\0", "c")}, "cannot store"),
        ({"preprocess": standardise(1), "images": torch.zeros(12, 3, 8, 8)}, None),
        ({"preprocess": standardise(2)}, "another shape"),
        ({"preprocess": zca(12)}, "another shape"),
    ],
)
def test_what_the_file_cannot_hold_is_refused(tmp_path: Path, fields: dict, message: str | None) -> None:
    if message is None:  # one mean for all channels is sound
        set_file.write(tmp_path / "set.h5", make(**fields))
        return
    with pytest.raises(UserError, match=message):
        set_file.write(tmp_path / "set.h5", make(**fields))
    assert list(tmp_path.iterdir()) == []


def test_float16_overflow_and_unknown_type_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="float16 cannot hold"):
        set_file.write(tmp_path / "set.h5", make(images=torch.full((12, 3, 8, 8), -7e4)), "float16")
    with pytest.raises(UserError, match="unknown storage dtype"):
        set_file.write(tmp_path / "set.h5", make(), "int8")  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_sound_file_with_unsound_content_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    for change, message in (
        ({"decode__factor": 2}, "mode 'none'"),
        ({"decode__factor": 2, "decode__mode": "up"}, "mode 'up'"),
        ({"decode__factor": 0}, "factor 0"),
        ({"decode__factor": 9, "decode__mode": "single"}, "choose a smaller factor"),
        ({"decode__factor": "x"}, "damaged"),
        ({"decode__mode": 1}, "mode '1'"),
        ({"preprocess__kind": "magic"}, ""),
        ({"images__scale": "x"}, "damaged"),
        ({"version": "one"}, "damaged"),
    ):
        set_file.write(path, make())
        changed(path, **change)
        assert message in refusal(path)
    for name in ("images", "labels", "classes", "preprocess", "decode"):
        set_file.write(path, make())
        with h5py.File(path, "r+") as file:
            del file[name]
        changed(path)
        assert "damaged" in refusal(path)
    for name, array in (
        ("images", np.zeros((12, 3, 8, 8), np.int32)),
        ("labels", np.zeros(12, np.int32)),
        ("labels", np.full(12, 3)),
        ("soft_labels", np.zeros((12, 2), np.float32)),
    ):
        set_file.write(path, make(soft_labels=torch.zeros(12, 3)))
        with h5py.File(path, "r+") as file:
            scale = dict(file[name].attrs)
            del file[name]
            file.create_dataset(name, data=array).attrs.update(scale)
        changed(path)
        refusal(path)


def test_a_changed_result_is_noticed_and_a_bad_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    set_file.write(path, make())
    set_results.append_result(path, {"mean": 0.5})
    for bad in ({"mean": float("nan")}, {"mean": torch.ones(1)}):
        with pytest.raises(UserError, match="JSON"):
            set_results.append_result(path, bad)
    with h5py.File(path, "r+") as file:
        assert file["results/0"].asstr()[()] == '{"mean": 0.5}'
        file["results/0"][()] = b'{"mean": 0.9}'
    with pytest.raises(UserError, match="/results/0 does not match"):
        set_results.results(path)
    assert same(set_file.read(path), make())
    for missing in (tmp_path / "absent.h5", tmp_path / "no" / "folder.h5"):
        with pytest.raises(UserError, match="no file at"):
            set_results.append_result(missing, {})


# Labels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixing", ["none", "cutmix", "mixup"])
@pytest.mark.parametrize(
    "options",
    [{}, {"encoding": "float32"}, {"encoding": "uint8"}, {"encoding": "top", "top": 2}, {"keep": 0.5}],
)
def test_views_survive(tmp_path: Path, mixing: str, options: dict[str, object]) -> None:
    distilled = with_views(mixing=mixing, **options)
    set_file.write(tmp_path / "set.h5", distilled)
    again = set_file.read(tmp_path / "set.h5")
    assert same(again, distilled)
    assert again.views is not None
    assert distilled.views is not None
    assert equal(again.views, distilled.views)


def test_only_files_with_views_or_weights_have_version_2(tmp_path: Path) -> None:
    path, weights = tmp_path / "set.h5", torch.rand(12)
    soft = torch.zeros(12, 3)
    for distilled, version in (
        (make(), 1),
        (make(soft_labels=soft), 1),
        (make(sample_weights=weights), 2),
        (with_views(encoding="distances"), 2),
    ):
        set_file.write(path, distilled)
        assert same(set_file.read(path), distilled)
        with h5py.File(path) as file:
            assert file.attrs["version"] == version


def test_an_earlier_dsdistill_refuses_views_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_file.write(tmp_path / "set.h5", with_views())
    monkeypatch.setattr(set_file, "SET", dataclasses.replace(SET, version=1))
    sentence = "written by a newer dsdistill (format version 2, this one reads 1); upgrade dsdistill"
    assert sentence in refusal(tmp_path / "set.h5")


def test_a_stock_reader_finds_views_as_documented(tmp_path: Path) -> None:
    distilled = with_views(mixing="mixup", encoding="uint8")
    views, path = distilled.views, tmp_path / "set.h5"
    assert views is not None
    set_file.write(path, distilled)
    with h5py.File(path) as file:
        group = file["views"]
        types = {name: (str(node.dtype), node.shape) for name, node in group.items() if name != "answers"}
        assert types == {
            "rows": ("int32", (36,)),
            "crops": ("int16", (36, 4)),
            "flips": ("uint8", (36,)),
            "partners": ("int32", (36,)),
            "starts": ("int64", (10,)),
            "epochs": ("int32", (9,)),
            "weights": ("float64", (9,)),
        }
        assert np.array_equal(group["crops"][:], views.crops.numpy())
        values, low, step = (group[f"answers/{name}"][:] for name in ("values", "low", "step"))
        logits = low[:, None] + step[:, None] * values
        assert np.array_equal(logits, views.answers[:].numpy())
        about = {name: group.attrs[name] for name in group.attrs}
        assert about == {
            "size": 8,
            "images": 12,
            "mixing": b"mixup",
            "encoding": b"uint8",
            "pool": 0,
            "digest": distilled.digest.encode(),
        }


def test_views_of_other_images_are_refused_when_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    set_file.write(path, with_views())
    with h5py.File(path, "r+") as file:
        file["images"][0] += 0.5
    changed(path)
    assert "the views are of the images of another set" in refusal(path)


@pytest.mark.parametrize(
    ("node", "sentence"),
    [("views/crops", "views hold rows, crops"), ("views/answers/values", "labels hold values")],
)
def test_views_that_lack_a_column(tmp_path: Path, node: str, sentence: str) -> None:
    path = tmp_path / "set.h5"
    set_file.write(path, with_views())
    with h5py.File(path, "r+") as file:
        del file[node]
    changed(path)
    assert sentence in refusal(path)


def test_pixels_as_they_are_read_back(tmp_path: Path) -> None:
    for dtype in get_args(set_file.Dtype):
        set_file.write(tmp_path / "set.h5", make(), dtype)
        assert torch.equal(as_stored(make().images, dtype), set_file.read(tmp_path / "set.h5").images)
