"""Files of tensors prove to be what was written, to the last bit."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save

from dsdistill.runtime import tensors

TENSORS = {
    "weights": torch.arange(6.0).reshape(2, 3),
    "iteration": torch.tensor(7),
    "flag": torch.tensor([True, False]),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "none": torch.empty(0),
    "transposed": torch.arange(6.0).reshape(2, 3).T,
}
METADATA = {"config": "abc", "seconds": "1.5"}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    tensors.write(tmp_path / "a", TENSORS, METADATA)
    found, metadata = tensors.read(tmp_path / "a")
    assert metadata == METADATA
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], value) for name, value in TENSORS.items())
    assert all(found[name].dtype == value.dtype for name, value in TENSORS.items())


def test_the_library_reads_them(tmp_path: Path) -> None:
    dtypes = (torch.float64, torch.float16, torch.int32, torch.int16, torch.int8, torch.uint8)
    written = TENSORS | {str(dtype): torch.arange(5).to(dtype) for dtype in dtypes}
    tensors.write(tmp_path / "a", written, METADATA)
    found = load((tmp_path / "a").read_bytes())
    assert found.keys() == written.keys()
    assert all(torch.equal(found[name], value) for name, value in written.items())
    with safe_open(tmp_path / "a", "pt") as file:
        assert METADATA.items() <= file.metadata().items()


def test_writing_takes_no_copy_of_the_tensors(tmp_path: Path) -> None:
    large = {"weights": torch.zeros(1 << 22), "more": torch.ones(1 << 22)}
    tracemalloc.start()
    try:
        tensors.write(tmp_path / "a", large, METADATA)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < large["weights"].nbytes / 2


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a"
    tensors.write(path, {"weights": torch.arange(3.0), "n": torch.tensor(1)}, {"config": "abc"})
    content = path.read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        with pytest.raises((ValueError, OSError)):
            tensors.read(path)
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises((ValueError, OSError)):
            tensors.read(path)


@pytest.mark.parametrize(
    "change",
    [
        {"weights": torch.arange(6).reshape(2, 3).to(torch.int32)},
        {"weights": torch.arange(6.0).reshape(3, 2)},
        {"weights": torch.arange(6.0)},
        {"weights": TENSORS["weights"].view(torch.int32)},
        {"more": torch.zeros(1)},
    ],
)
def test_dtype_shape_and_names_are_part_of_the_digest(
    tmp_path: Path, change: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "a"
    tensors.write(path, TENSORS, METADATA)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    path.write_bytes(save(load(content) | change, header["__metadata__"]))
    with pytest.raises(ValueError, match="does not match its digest"):
        tensors.read(path)


def test_a_file_without_a_digest_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(save({"weights": torch.zeros(2)}))
    with pytest.raises(ValueError, match="does not match its digest"):
        tensors.read(tmp_path / "a")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "none", "."):
        with pytest.raises(OSError):  # noqa: PT011 - the system's words
            tensors.read(tmp_path / name)
