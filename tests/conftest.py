"""What every test file shares."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import shapes

shapes.install()  # before the package is imported

import dsdistill  # noqa: E402
from dsdistill.data import packaged  # noqa: E402

HELPERS = {file.stem for file in (Path(__file__).parent / "helpers").glob("[!_]*.py")}
pytest.register_assert_rewrite(*(f"tests.helpers.{name}" for name in HELPERS - {"shapes"}))

TINY: dict[str, Any] = {"dataset": "digits", "ipc": 1, "network": "convnet2-w8", "iterations": 3}
"""A run of under a second; bit-identical ones need one number of threads."""

THREADS = "compute.threads=1"

FLOAT32 = [THREADS, "compute.precision=fp32"]
"""The same on CPUs with and without bf16."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``gpu`` where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what tests cache out of the user's cache, and the other way round."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSDISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _on_the_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests of bits off a GPU, which adds in an order of its own; and what they start.

    Fixtures of a wider scope come before this one: they name the device themselves.
    """
    if not request.node.get_closest_marker("gpu"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a finished tiny run; its run directory lies beside it. Not to be changed."""
    output = tmp_path_factory.mktemp("finished") / "set.h5"
    dsdistill.distill(output, **TINY, device="cpu", overrides=[THREADS])
    return output


@pytest.fixture
def made(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished run for one test, ``set.h5`` and ``set.run``."""
    shutil.copytree(finished.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / finished.name


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of two trained networks of the digits. Not to be changed."""
    from tests.helpers.supply import train_pool  # not before its asserts are to be rewritten

    return train_pool(tmp_path_factory.mktemp("pool") / "pool.h5")


@pytest.fixture(scope="session")
def two_teachers(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the files, with a comma between them, of a trained network of digits each. Not to be changed."""
    folder = tmp_path_factory.mktemp("teachers")
    told: dict[str, Any] = {"dataset": "digits", "recipe": "teacher", "count": 1, "epochs": 1}
    paths = []
    for network in ("convnet2-w6-batch", "convnet2-w8-batch"):
        paths.append(folder / f"{network}.h5")
        words = ["compute.compile=false", THREADS]
        dsdistill.train_experts(paths[-1], **told, network=network, device="cpu", overrides=words)
    return ",".join(map(str, paths))


@pytest.fixture
def plugs() -> Iterator[None]:
    """Take back what a test registers: networks, engines, discrepancies."""
    from dsdistill.engines import ENGINES
    from dsdistill.engines.discrepancies import DISCREPANCIES
    from dsdistill.networks.registry import NETWORKS

    with NETWORKS.restored(), ENGINES.restored(), DISCREPANCIES.restored():
        yield


@pytest.fixture
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for data, cached or installed, in the test's own folder only."""
    monkeypatch.setenv("DSDISTILL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("DSDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packaged, "DEBIAN_FASHION", tmp_path / "not installed")
