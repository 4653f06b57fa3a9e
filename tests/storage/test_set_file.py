"""The HDF5 file: round trips, what a stock reader sees, refusals to write, results, the torch data set."""

from __future__ import annotations

import hashlib
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dsdistill.data.preprocess import Standardise
from dsdistill.errors import UserError
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.synthetic.multi_formation import Mode, MultiFormation, decode
from tests.helpers.storage import make, same, standardise, zca

GOLDEN = Path(__file__).parent.parent / "golden" / "version-1.h5"


def golden_set() -> DistilledSet:
    """What `GOLDEN` holds; it was made by ``storage.write(GOLDEN, golden_set())`` and one `append_result`."""
    return DistilledSet(
        images=(torch.arange(4 * 3 * 4 * 4).reshape(4, 3, 4, 4) - 30) / 128,
        labels=torch.tensor([0, 0, 1, 1]),
        classes=("naïve", "second"),
        preprocess=Standardise(torch.tensor([0.25, 0.5, 0.75]), torch.tensor([0.5, 0.25, 0.125])),
        soft_labels=torch.tensor([[2.0, -1.0], [1.5, 0.0], [-0.5, 3.0], [0.25, 0.75]]),
        attributes={"method": "golden", "seed": 7, "learned_lr": 0.015625, "config": "iterations = 10\n"},
    )


# Round trips ------------------------------------------------------------------------------------------------


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
    found = set_file.describe(path)
    assert found.multi_formation == distilled.multi_formation
    assert (found.counts, found.decoded_counts) == (
        (4, 4, 4),
        (distilled.multi_formation.decoded_count(4),) * 3,
    )


def test_factor_one_is_written_as_plain_images(tmp_path: Path) -> None:
    set_file.write(tmp_path / "a.h5", make())
    set_file.write(tmp_path / "b.h5", make(multi_formation=MultiFormation(mode="multi")))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert set_file.describe(tmp_path / "a.h5").decoded_counts == (4, 4, 4)


def test_same_set_same_bytes(tmp_path: Path) -> None:
    set_file.write(tmp_path / "a.h5", make())
    set_file.write(tmp_path / "b.h5", make())
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


# What others see --------------------------------------------------------------------------------------------


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


def test_chunks_are_an_image_or_256_kilobytes(tmp_path: Path) -> None:
    for size, rows in ((8, 12), (64, 5), (160, 1)):
        set_file.write(tmp_path / "set.h5", make(size=size))
        with h5py.File(tmp_path / "set.h5") as file:
            assert file["images"].chunks == (rows, 3, size, size)


def test_checksum_is_as_documented(tmp_path: Path) -> None:
    set_file.write(tmp_path / "set.h5", make(soft_labels=torch.ones(12, 3)), "float16")
    digest = hashlib.sha256()
    with h5py.File(tmp_path / "set.h5") as file:
        for path in sorted(
            ["images", "labels", "soft_labels", "classes", *(f"preprocess/{n}" for n in file["preprocess"])]
        ):
            array = file[path][()]
            digest.update(
                json.dumps([path, list(array.shape), array.dtype.str]).encode() + b"\n" + array.tobytes()
            )
        attributes = {
            "@format": "dsdistill",
            "@version": 1,
            "@method": "dm",
            "@seed": 3,
            "@seconds": 1.5,
            "decode@factor": 1,
            "decode@mode": "none",
            "images@scale": 1.0,
            "preprocess@kind": "standardise",
        }
        for key in sorted(attributes):
            digest.update(json.dumps([key, attributes[key]]).encode() + b"\n")
        assert file.attrs["sha256"].decode() == digest.hexdigest()


def test_golden_file_of_version_1() -> None:
    """Version 1 stays readable for ever. Do not regenerate the file; a change of format is a new version."""
    assert same(set_file.read(GOLDEN), golden_set())
    assert set_file.load(GOLDEN).lr == 0.015625
    assert set_file.results(GOLDEN) == [{"protocol": "golden", "mean": 0.5, "values": [0.25, 0.75]}]


# Refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"images": torch.zeros(12, 3, 8)}, "float32 \\[N,C,H,W\\]"),
        ({"images": torch.zeros(12, 3, 8, 8).double()}, "got float64"),
        ({"images": torch.full((12, 3, 8, 8), torch.nan)}, "not finite"),
        ({"labels": torch.zeros(11, dtype=torch.int64)}, "one an image"),
        ({"labels": torch.arange(12)}, r"\[0, 3\)"),
        ({"labels": torch.tensor([0, 1] * 6)}, "class-major"),
        ({"classes": ()}, "0 classes"),
        ({"soft_labels": torch.zeros(12, 4)}, r"float32 \[12,3\]"),
        ({"soft_labels": torch.full((12, 3), torch.inf)}, "not finite"),
        ({"multi_formation": MultiFormation(factor=9)}, "smaller factor"),
        ({"multi_formation": MultiFormation(factor=0)}, "factor 0"),
    ],
)
def test_a_set_that_makes_no_sense_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(**fields)


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


# Results ----------------------------------------------------------------------------------------------------


def test_results_are_kept_in_order_and_leave_the_set_alone(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    set_file.write(path, make())
    assert set_file.results(path) == []
    with h5py.File(path) as file:
        before = file.attrs["sha256"]
    added = [{"protocol": f"p{i}", "mean": i / 7, "values": [0.1, i], "student": "μ"} for i in range(12)]
    for result in added:
        set_file.append_result(path, result)
    assert set_file.results(path) == added
    assert same(set_file.read(path), make())
    with h5py.File(path) as file:
        assert file.attrs["sha256"] == before


def test_results_added_at_once_are_all_kept(tmp_path: Path) -> None:
    set_file.write(tmp_path / "set.h5", make())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: set_file.append_result(tmp_path / "set.h5", {"n": i}), range(12)))
    assert sorted(result["n"] for result in set_file.results(tmp_path / "set.h5")) == list(range(12))


def test_a_changed_result_is_noticed_and_a_bad_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    set_file.write(path, make())
    set_file.append_result(path, {"mean": 0.5})
    for bad in ({"mean": float("nan")}, {"mean": torch.ones(1)}):
        with pytest.raises(UserError, match="JSON"):
            set_file.append_result(path, bad)
    with h5py.File(path, "r+") as file:
        assert file["results/0"].asstr()[()] == '{"mean": 0.5}'
        file["results/0"][()] = b'{"mean": 0.9}'
    with pytest.raises(UserError, match="/results/0 does not match"):
        set_file.results(path)
    assert same(set_file.read(path), make())
    for missing in (tmp_path / "absent.h5", tmp_path / "no" / "folder.h5"):
        with pytest.raises(UserError, match="no file at"):
            set_file.append_result(missing, {})


def test_describe(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    set_file.write(path, make(soft_labels=make().images[:, :, 0, 0]), "float16")
    set_file.append_result(path, {"mean": 0.5})
    found = set_file.describe(path)
    assert (found.counts, found.shape, found.dtype) == ((4, 4, 4), (3, 8, 8), "float16")
    assert found.has_soft_labels
    assert found.attributes == {"method": "dm", "seed": 3, "seconds": 1.5}
    assert found.results == [{"mean": 0.5}]
    assert 0 < found.image_bytes <= 12 * 3 * 8 * 8 * 2 + 64
    assert found.label_bytes > 12 * 3 * 2  # random logits barely compress
    assert (
        found.image_bytes + found.label_bytes + found.preprocess_bytes
        < found.file_bytes
        == path.stat().st_size
    )


# Before a run -----------------------------------------------------------------------------------------------


def test_check_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_file.check_writable(tmp_path / "set.h5")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.chdir(tmp_path)
    set_file.check_writable("set.h5")

    for path, message in (
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "set.h5", "mkdir -p"),
        ("/proc/set.h5", "cannot write in /proc"),
    ):
        with pytest.raises(UserError, match=message):
            set_file.check_writable(path)

    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="would not be replaced"):
        set_file.check_writable(tmp_path / "thesis.txt", overwrite=True)
    with pytest.raises(UserError, match="is a file"):
        set_file.check_writable(tmp_path / "thesis.txt" / "set.h5")
    with pytest.raises(UserError, match="is a file"):
        set_file.write(tmp_path / "thesis.txt" / "set.h5", make())

    set_file.write(tmp_path / "set.h5", make())
    set_file.check_writable(tmp_path / "set.h5", overwrite=True)
    with pytest.raises(UserError, match="exists; choose another name"):
        set_file.check_writable(tmp_path / "set.h5", overwrite=False)


# The torch data set -----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_stock_dataloader_with_workers(tmp_path: Path) -> None:
    distilled = make(attributes={"learned_lr": 0.02, "method": "mtt"})
    set_file.write(tmp_path / "set.h5", distilled)
    dataset = set_file.load(tmp_path / "set.h5")
    (tmp_path / "set.h5").unlink()  # nothing of it is needed any more

    assert len(dataset) == 12
    assert (dataset.lr, dataset.classes, dataset.attributes["method"]) == (0.02, distilled.classes, "mtt")
    mean = distilled.preprocess.state()["mean"].view(-1, 1, 1)
    std = distilled.preprocess.state()["std"].view(-1, 1, 1)
    torch.testing.assert_close(dataset.images, (distilled.images - mean) / std)
    torch.testing.assert_close(dataset.preprocess(distilled.images), dataset.images)

    image, label = dataset[11]
    assert (image.shape, image.dtype, type(label), label) == ((3, 8, 8), torch.float32, int, 2)
    batches = list(DataLoader(dataset, batch_size=5, num_workers=2))
    assert torch.equal(torch.cat([images for images, _ in batches]), dataset.images)
    assert torch.equal(torch.cat([labels for _, labels in batches]), dataset.labels)
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[3][0], dataset[3][0])  # what spawned workers get


def test_space_and_soft_labels(tmp_path: Path) -> None:
    soft = torch.randn(12, 3, generator=torch.Generator().manual_seed(5))
    distilled = make(soft_labels=soft)
    set_file.write(tmp_path / "set.h5", distilled)
    dataset = set_file.load(tmp_path / "set.h5", space="unit", labels="soft")
    assert torch.equal(dataset.images, distilled.images)
    assert torch.equal(dataset[7][1], soft[7])
    assert dataset.lr is None
    assert set_file.load(tmp_path / "set.h5")[7][1] == 1

    set_file.write(tmp_path / "set.h5", make())
    with pytest.raises(UserError, match="no soft labels"):
        set_file.load(tmp_path / "set.h5", labels="soft")
    with pytest.raises(UserError, match="unknown space"):
        set_file.load(tmp_path / "set.h5", space="pixel")  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["single", "multi", "bound"])
@pytest.mark.parametrize("whitened", [False, True])
def test_a_multi_formation_is_decoded_class_by_class(tmp_path: Path, mode: Mode, whitened: bool) -> None:
    path, multi_formation = tmp_path / "set.h5", MultiFormation(factor=3, mode=mode, bound=12)
    labels = torch.tensor([0] * 5 + [2] * 7)  # one class has none
    soft = torch.randn(12, 3, generator=torch.Generator().manual_seed(5))
    preprocess = zca(3 * 8 * 8) if whitened else standardise(3)
    distilled = make(labels=labels, soft_labels=soft, preprocess=preprocess, multi_formation=multi_formation)
    set_file.write(path, distilled)
    decoded = torch.cat(
        [decode(distilled.images[rows], multi_formation) for rows in (slice(5), slice(5, 12))]
    )

    pixels = set_file.load(path, space="unit", labels="soft")
    assert torch.equal(pixels.images, decoded)
    counts = [multi_formation.decoded_count(5), multi_formation.decoded_count(7)]
    assert pixels.labels.tolist() == [0] * counts[0] + [2] * counts[1]
    assert (pixels.stored.tolist(), pixels.multi_formation, len(pixels)) == (
        [5, 0, 7],
        multi_formation,
        sum(counts),
    )
    origins = torch.cat([multi_formation.origins(5), 5 + multi_formation.origins(7)])
    assert pixels.soft_labels is not None
    assert torch.equal(pixels.soft_labels, soft[origins])
    assert torch.equal(pixels[len(pixels) - 1][1], soft[origins[-1]])

    seen = set_file.load(path)
    torch.testing.assert_close(seen.images, preprocess(decoded))
    assert seen[0][1] == 0

    stored = set_file.load(path, space="unit", labels="soft", decode=False)
    assert torch.equal(stored.images, distilled.images)
    assert torch.equal(stored.labels, labels)
    assert torch.equal(stored[11][1], soft[11])
    assert (stored.stored.tolist(), stored.multi_formation) == ([5, 0, 7], multi_formation)
