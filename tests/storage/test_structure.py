"""Files that claim more than they hold, or lead elsewhere: refused from their headers."""

from __future__ import annotations

import contextlib
import random
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from dsdistill.cli import console
from dsdistill.errors import UserError
from dsdistill.runtime import device
from dsdistill.storage import set_file, set_results, structure
from dsdistill.storage.expert_file import ExpertFile, holds_experts
from dsdistill.storage.hdf5 import LAYOUT, checksum, contents, fixed_text, set_attributes
from dsdistill.storage.set_description import describe
from tests.helpers.expert_files import refused
from tests.helpers.labels import with_views
from tests.helpers.mutants import refusal as refused_sentence
from tests.helpers.storage import make, refusal, same

Change = Callable[[h5py.File], Any]
ATTRIBUTES = {"seconds": 1.5, "iterations": 3, "data": '{"name": "digits"}', "dataset": "digits"}
RESULT = {"set": "distilled", "network": "mlp", "protocol": "dm", "epochs": 3, "mean": 1.0, "std": 0.0}
RESULT |= {"values": [1.0], "images": 12, "decoded": 12, "seconds": 1.0, "date": "2026-01-02"}


def written(path: Path) -> Path:
    """Write a set with a result."""
    set_file.write(path, make(attributes=ATTRIBUTES))
    set_results.append_result(path, RESULT)
    return path


def changed(path: Path, change: Change) -> Path:
    with h5py.File(path, "r+", libver=LAYOUT) as file:
        change(file)
    return path


def hollow(file: h5py.File, name: str, *shape: int) -> None:
    file.create_dataset(name, shape, "u1", chunks=(1, *shape[1:]), compression="gzip")


def nested(file: h5py.File) -> None:
    file.create_group("/".join("abcdefgh"))


def circle(file: h5py.File) -> None:
    file["preprocess"]["again"] = file["preprocess"]


def many(file: h5py.File) -> None:
    for number in range(200):
        file.create_group(f"g{number}")


def long_attribute(file: h5py.File) -> None:
    file.attrs["config"] = np.bytes_(b"x" * (structure.LONGEST + 1))


def twice_packed(file: h5py.File) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((1 << 20,))
    for _ in range(3):
        properties.set_deflate(9)
    space = h5py.h5s.create_simple((1 << 20,))
    made = h5py.h5d.create(file.id, b"packed", h5py.h5t.NATIVE_UINT8, space, properties)
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.zeros(1 << 20, np.uint8))


def inflating(file: h5py.File) -> None:
    """Store a chunk of 64 bytes that becomes 90 MB."""
    node = file.create_dataset("bomb", (64,), "u1", chunks=(64,), compression="gzip")
    node.id.write_direct_chunk((0,), zlib.compress(bytes(90_000_000), 1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: [hollow(file, f"a{number}", 1000, 1000) for number in range(20)], "is incomplete"),
        (lambda file: hollow(file, "small", 10, 1000), "is incomplete"),
        (lambda file: file.create_dataset("plain", (10, 1000), "u1"), "is incomplete"),
        (lambda file: hollow(file, "results/1", 2 * 10**9, 1), "claims 2 GB"),
        (lambda file: hollow(file, "huge", 2**33, 2**31 - 1), "claims 1.84e+10 GB"),
        (lambda file: file.create_dataset("results/1", data=fixed_text("x" * ((1 << 24) + 1))), "evaluation"),
        (lambda file: file.__setitem__("soft", h5py.SoftLink("/images")), "is a link"),
        (lambda file: file.__setitem__("out", h5py.ExternalLink("b.h5", "/images")), "is a link"),
        (lambda file: file.__setitem__("again", file["images"]), "more nodes"),
        (circle, "more nodes"),
        (nested, "more nodes"),
        (many, "more nodes"),
        (long_attribute, "too long"),
        (twice_packed, "stored in an unknown way"),
        (inflating, "larger than it claims"),
        (lambda file: file.create_dataset("none", dtype="f4"), "unknown type"),
        (lambda file: file.create_dataset("text", data="of variable length"), "unknown type"),
        (lambda file: file.create_dataset("pair", data=np.zeros(3, "i4,f4")), "unknown type"),
        (lambda file: file.__setitem__("type", np.dtype("f4")), "neither a group nor a data set"),
    ],
)
def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, said: str) -> None:
    monkeypatch.setattr(structure, "NODES", 150)
    path = changed(written(tmp_path / "set.h5"), change)
    assert said in refusal(path)
    assert "damaged" in refusal(path)
    with pytest.raises(UserError, match="damaged"):
        set_results.results(path)


def test_a_sound_content_that_is_too_large_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "set.h5")
    monkeypatch.setattr(device, "available_memory", lambda device: 10_000)
    said = refusal(path)
    assert "its content takes" in said
    assert "free" in said
    assert "damaged" not in said


def test_views_are_read_into_less_memory_than_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distilled = with_views(views=500, encoding="float32")
    assert distilled.views is not None
    set_file.write(tmp_path / "set.h5", distilled)
    size = sum(column.nbytes for column in distilled.views.columns().values())
    monkeypatch.setattr(device, "available_memory", lambda device: 4 * size)
    assert set_file.read(tmp_path / "set.h5").views is not None
    monkeypatch.setattr(device, "available_memory", lambda device: 2 * size)
    assert "its content takes" in refusal(tmp_path / "set.h5")


def test_highly_compressible_images_are_read(tmp_path: Path) -> None:
    blank = make(count=40, size=64)
    set_file.write(tmp_path / "set.h5", make(count=40, size=64, images=blank.images * 0))
    assert not set_file.read(tmp_path / "set.h5").images.any()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: hollow(file, "preprocess/more", 10**5, 10**5), "claims"),
        (lambda file: hollow(file, "training/more", 100, 100), "is incomplete"),
        (lambda file: file.__setitem__("out", h5py.ExternalLink("b.h5", "/weights")), "is a link"),
        (lambda file: file["training/accuracy"].write_direct(np.array([np.nan, 1])), "not finite"),
        (lambda file: file.attrs.__setitem__("config", fixed_text("a = " + "[" * 5000)), "deep"),
        (lambda file: file.attrs.__setitem__("channels", fixed_text("1")), "unknown type"),
        (lambda file: file.attrs.__setitem__("layout", fixed_text("[]")), "a layout lists"),
        (
            lambda file: file.attrs.__setitem__(
                "layout", fixed_text('{"parameters": [["a", [-1], "float32"]], "buffers": []}')
            ),
            "a layout holds",
        ),
        (
            lambda file: file.attrs.__setitem__(
                "layout", fixed_text('{"parameters": [["a", [3], "load"]], "buffers": []}')
            ),
            "a layout holds",
        ),
    ],
)
def test_experts_that_are_refused(pool: Path, change: Change, said: str) -> None:
    changed(pool, change)
    assert holds_experts(pool)
    refused(lambda: ExpertFile.open(pool), said, "damaged")


def test_experts_without_weights_in_the_file(pool: Path) -> None:
    def packed(file: h5py.File) -> None:
        weights = file["weights"][()]
        del file["weights"]
        file.create_dataset("weights", data=weights * 0, chunks=(1, 1, weights.shape[2]), compression="gzip")

    changed(pool, packed)
    refused(lambda: ExpertFile.open(pool), "/weights is compressed")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(pool: Path, value: float) -> None:
    def of_version_1(file: h5py.File) -> None:  # which has no digests
        file.attrs["version"] = 1
        file["weights"][1, 2, 5] = value

    changed(pool, of_version_1)
    experts = ExpertFile.open(pool)
    assert experts.flat(0, experts.epochs[2]).isfinite().all()
    refused(lambda: experts.flat(1, experts.epochs[2]), "damaged at expert 1", "not finite")


def test_weights_and_records_that_were_changed_are_refused(pool: Path) -> None:
    """By whatever wrote checksums of chunks that fit."""
    sound = pool.read_bytes()
    changed(pool, lambda file: file["weights"].__setitem__((1, 2, 5), 0.25))
    experts = ExpertFile.open(pool)
    assert experts.flat(1, experts.epochs[1]).isfinite().all()
    refused(lambda: experts.flat(1, experts.epochs[2]), "damaged at expert 1", "other values")
    experts.close()
    changes: list[Change] = [
        lambda file: file["training/loss"].__setitem__(0, 0.25),
        lambda file: file["digests"].__setitem__((0, 0, 0, 0), file["digests"][0, 0, 0, 0] ^ 1),
        lambda file: file.attrs.__setitem__("seed", 8),
        lambda file: file.attrs.__delitem__("sha256"),
    ]
    for change in changes:
        pool.write_bytes(sound)
        changed(pool, change)
        refused(lambda: ExpertFile.open(pool), "damaged")


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """A thousand data sets, each of them small, claim a gigabyte together."""
    path = written(tmp_path / "set.h5")
    changed(path, lambda file: [hollow(file, f"a{number}", 1000, 1000) for number in range(1000)])
    assert path.stat().st_size < 1_000_000
    tracemalloc.start()
    refusal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000


VALUES: list[Any] = [
    *(b"x", b"", b"\xff", np.int64(-1), np.int64(0), np.int64(2**62), np.nan, np.inf, -1.5, np.zeros(3), "x"),
    *(np.bytes_("[" * 5000), np.bytes_("9" * 5000), np.bytes_('{"a": NaN}'), np.bytes_("null"), np.uint8(9)),
    *(True, h5py.Empty("f4"), np.bytes_("\x1b[31m"), np.bytes_("a.b")),
]
ARRAYS: list[Any] = [
    *(np.zeros(0), np.zeros((2, 2)), np.array(5), np.full((12, 3, 8, 8), np.nan, "f4"), np.arange(12) - 3),
    *(np.array([b"a", b"\xff"]), np.full(12, 2**62), np.zeros((12, 3, 8, 8), "c8"), np.zeros(3, "i4,f4")),
    *(np.array([2**63], "u8"), np.array([b""]), np.arange(12) // 4, np.zeros((1, 1, 1, 1), "f4")),
]


def mutate(file: h5py.File, draw: random.Random) -> None:
    """Change one node or attribute of a file to something else that HDF5 can hold."""
    paths: list[str] = []
    file.visit(paths.append)
    path, kind = draw.choice(paths), draw.choice(["delete", "attribute", "root", "forget", "array", "move"])
    if kind == "delete":
        del file[path]
    elif kind == "attribute":
        file[path].attrs[draw.choice([*file[path].attrs, "new"])] = draw.choice(VALUES)
    elif kind == "root":
        file.attrs[draw.choice([*file.attrs, "new"])] = draw.choice(VALUES)
    elif kind == "forget":
        del file.attrs[draw.choice([*file.attrs])]
    elif kind == "array":
        del file[path]
        file[path] = draw.choice(ARRAYS)
    else:
        file.move(path, draw.choice(["moved", "a/b/c/d/e/f", "results/x", "preprocess/z"]))


def test_mutants_of_sets(tmp_path: Path) -> None:
    """Each mutant is refused in one line or is a sound set, even where its checksum is made right."""
    sound = written(tmp_path / "set.h5").read_bytes()
    original, path, found = set_file.read(tmp_path / "set.h5"), tmp_path / "mutant.h5", set()
    for seed in range(60):
        path.write_bytes(sound)
        draw = random.Random(seed)
        forged = draw.random() < 0.7
        with h5py.File(path, "r+", libver=LAYOUT) as file:
            mutate(file, draw)
            if forged:
                with contextlib.suppress(Exception):
                    set_attributes(file, sha256=checksum(*contents(file)))
        sentences = [
            refused_sentence(lambda: set_file.load(path)),
            refused_sentence(lambda: console.print_description(path, describe(path))),
        ]
        assert not any("\n" in each or len(each) > 600 for each in sentences), seed
        if not sentences[0] and not forged:
            assert same(set_file.read(path), original), seed
        found.add("refused" if sentences[0] else "read")
    assert found == {"refused", "read"}


def test_mutants_of_experts(shared: Path, tmp_path: Path) -> None:
    sound, path, found = shared.read_bytes(), tmp_path / "mutant.h5", set()

    def use() -> None:
        experts = ExpertFile.open(path)
        console.print_experts(experts)
        experts.state(0, experts.epochs[0])
        experts.state(experts.count - 1, experts.epochs[-1])

    for seed in range(60):
        path.write_bytes(sound)
        with h5py.File(path, "r+", libver=LAYOUT) as file:
            mutate(file, random.Random(seed))
        sentence = refused_sentence(use)
        assert "\n" not in sentence, seed
        assert len(sentence) < 600, seed
        found.add("refused" if sentence else "read")
    assert found == {"refused"}
