"""Names of data sets: which hold a path, and what is told of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsdistill.config.data_names import data_name, is_memory, path_of


def test_only_a_path_loses_its_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    titles = {
        "cifar10": "cifar10",
        "folder:/home/me/pets/": "folder:pets",
        "folder:pets/": "folder:pets",
        "npz:~/deep/pets.npz": "npz:pets.npz",
        "folder:.": f"folder:{tmp_path.name}",
        "hf:~/deep/pets": "hf:./pets",
        "hf:./pets": "hf:./pets",
        "hf:uoft-cs/cifar10": "hf:uoft-cs/cifar10",
        "hf:org/name:config": "hf:org/name:config",
        "memory:CIFAR10": "memory:CIFAR10",
    }
    assert {name: data_name(name) for name in titles} == titles
    assert {data_name(title) for title in titles.values()} == set(titles.values())  # sharing twice


def test_data_in_memory_have_no_path() -> None:
    assert is_memory("memory:arrays")
    assert not is_memory("folder:memory")
    assert [path_of(name) for name in ("memory:arrays", "hf:../a", "hf:a/b", "npz:a")] == [
        "",
        "../a",
        "",
        "a",
    ]
