"""Files of sets: results, description, and writing that fails."""

from __future__ import annotations

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import pytest
import torch

from dsdistill.errors import UserError
from dsdistill.storage import set_file
from tests.helpers.labels import with_views
from tests.helpers.storage import make, same


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


def test_bytes_of_labels_are_those_of_all_their_nodes(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    set_file.write(path, make())
    hard = set_file.describe(path)
    assert (hard.labels, hard.view_bytes) == ("hard", 0)

    labelled = dataclasses.replace(with_views(views=30), sample_weights=torch.rand(12))
    set_file.write(path, labelled)
    with h5py.File(path) as file:
        sizes = {name: file[name].id.get_storage_size() for name in ("labels", "sample_weights")}
        nodes = [*file["views"].values(), *file["views/answers"].values()]
        views = sum(node.id.get_storage_size() for node in nodes if isinstance(node, h5py.Dataset))
    found = set_file.describe(path)
    assert found.view_bytes == views > 360 * 3 * 2
    assert found.label_bytes == views + sum(sizes.values())
    assert found.image_bytes == hard.image_bytes
    assert found.labels == "hard, weights of images, 360 views (30 epochs, cutmix, float16)"


def test_pixels_that_are_viewed_are_stored_as_they_are(tmp_path: Path) -> None:
    for dtype in ("uint8", "float16"):
        with pytest.raises(UserError, match=f"{dtype} changes the pixels, and a teacher has"):
            set_file.write(tmp_path / "set.h5", with_views(), dtype)
    assert list(tmp_path.iterdir()) == []


def test_views_are_loaded_in_place_of_images(tmp_path: Path) -> None:
    path, labelled = tmp_path / "set.h5", with_views()
    set_file.write(path, labelled)
    dataset = set_file.load(path, views=True)
    assert [len(images) for images, _ in dataset] == [5, 5, 2] * 3  # type: ignore[attr-defined]
    assert len(set_file.load(path)) == 12
    with pytest.raises(UserError, match="leave space, labels, decode and ipc out"):
        set_file.load(path, "unit", views=True)


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


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_file.write(tmp_path / "set.h5", make())

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for write in (
        lambda: set_file.write(tmp_path / "set.h5", make(classes=("x", "y", "z"))),
        lambda: set_file.append_result(tmp_path / "set.h5", {"mean": 1}),
    ):
        with pytest.raises(UserError, match=r"cannot write .*set.h5: No space left on device$"):
            write()
    assert same(set_file.read(tmp_path / "set.h5"), make())
    assert [file.name for file in tmp_path.iterdir()] == ["set.h5"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    set_file.write(tmp_path / "real" / "set.h5", make())
    (tmp_path / "link.h5").symlink_to(tmp_path / "real" / "set.h5")
    set_file.write(tmp_path / "link.h5", make(count=1))
    set_file.append_result(tmp_path / "link.h5", {"mean": 1})
    assert (tmp_path / "link.h5").is_symlink()
    assert len(set_file.load(tmp_path / "real" / "set.h5")) == 3
    assert set_file.results(tmp_path / "real" / "set.h5") == [{"mean": 1}]


@pytest.mark.parametrize("damage", ["set", "results", "bytes"])
def test_a_result_is_added_only_to_what_reads_back_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    path = tmp_path / "set.h5"
    set_file.write(path, make())
    set_file.append_result(path, {"n": 1})
    before, add = path.read_bytes(), set_file.add_result

    def adding(file: h5py.File, number: int, text: str) -> None:
        add(file, number, text)
        if damage == "set":
            file["labels"][0] += 1
        elif damage == "results":
            del file["results/0"]
        else:
            file["results"].create_dataset("x", data=1)

    monkeypatch.setattr(set_file, "add_result", adding)
    with pytest.raises(UserError, match=r"set\.h5 stays as it is: with the result it"):
        set_file.append_result(path, {"n": 2})
    assert path.read_bytes() == before
    monkeypatch.undo()
    set_file.append_result(path, {"n": 2})
    assert set_file.results(path) == [{"n": 1}, {"n": 2}]


def test_what_is_replaced_passes_on_its_permissions_and_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    set_file.write(path, make())
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 12345, 23456)
    before = path.stat()
    for change in (lambda: set_file.write(path, make()), lambda: set_file.append_result(path, {"mean": 1.0})):
        change()
        now = path.stat()
        assert (now.st_mode, now.st_uid, now.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
