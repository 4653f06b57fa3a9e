"""Read data sets through Hugging Face's `datasets`: ``hf:NAME``, ``hf:NAME:CONFIG`` and ``hf:PATH``.

A path is a folder, as `save_to_disk` writes it or with files of Parquet, WebDataset (tar) or pictures; or one
file of Parquet or WebDataset. It begins with ``/``, ``~`` or ``.``; all else is a name on the server. Of that
data set the package keeps a copy, which serves without a network, and alone where nothing may be fetched.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from dsdistill.config.data_names import path_of
from dsdistill.data.config import DataConfig, Split
from dsdistill.data.memory import InMemory, splits_of
from dsdistill.data.real import RealDataset
from dsdistill.data.sources import ImageData
from dsdistill.errors import UserError, is_out_of_memory
from dsdistill.files import expanded
from dsdistill.runtime.callbacks import Callback
from dsdistill.text import shortened

_SAVED = ("state.json", "dataset_dict.json")
"""What `save_to_disk` leaves in a folder."""
READERS = {".parquet": "parquet", ".tar": "webdataset"}
_LONGEST = 300
_OLDEST = 4
"""The first version of `datasets` that runs no code of a data set."""


def read(config: DataConfig, split: Split, observer: Callback) -> RealDataset:
    """Read one split of a data set; one without a test split is split by ``test_fraction``.

    Raises:
        UserError: `datasets` is not installed, or finds no such data; or they are no labelled images.
    """
    return opened(config.name).read(config, split, observer)


def opened(name: str, fetch: bool = True) -> InMemory:
    """Open a data set, of which each split is then decoded once.

    Args:
        name: ``hf:NAME``, ``hf:NAME:CONFIG`` or ``hf:PATH``.
        fetch: whether the server may be asked; otherwise the package's own copy is read.

    Raises:
        UserError: `datasets` is not installed, or finds no such data; or they are no labelled images.
    """
    loaded = _loaded(name, fetch)
    data, notice = splits_of(loaded) if isinstance(loaded, dict) else (ImageData(loaded), "")
    return InMemory(data, name, notice, _roots(name))


def _roots(name: str) -> list[Path]:
    """Return the folders in which pictures of a data set lie: its own, and those of the package's copies."""
    import datasets
    import huggingface_hub

    copies = datasets.config.HF_DATASETS_CACHE, huggingface_hub.constants.HF_HUB_CACHE
    own = [expanded(path_of(name))] if path_of(name) else []
    places = [*own, *map(Path, copies), Path(datasets.config.DOWNLOADED_DATASETS_PATH)]
    return [each for place in places for each in (Path(os.path.abspath(place)), place.resolve())]


def _package(name: str) -> Any:
    """Return the package `datasets`.

    Raises:
        UserError: it is not installed, or so old that it runs the code of a data set.
    """
    try:
        import datasets
    except ImportError as error:
        raise UserError(f'{name} needs the package datasets: pip install "dsdistill[hf]"') from error
    if int(datasets.__version__.partition(".")[0]) < _OLDEST:
        raise UserError(
            f"{name} needs the package datasets of version {_OLDEST} or later, not {datasets.__version__}, "
            'which may run code of a data set: pip install -U "dsdistill[hf]"'
        )
    return datasets


def _loaded(name: str, fetch: bool) -> Any:
    """Return a `datasets.Dataset`, or a dictionary of some."""
    datasets = _package(name)
    path, (place, _, config) = path_of(name), name.removeprefix("hf:").partition(":")
    try:
        with _quiet(datasets), nullcontext() if fetch else _offline(datasets):
            if path:
                return _local(datasets, expanded(path))
            return datasets.load_dataset(place, config or None)
    except UserError:
        raise
    except Exception as error:  # of the network, of files, of what a server says
        if is_out_of_memory(error):
            raise
        if not (fetch or path) and isinstance(error, OSError):  # that the server may not be asked is one
            raise UserError(
                f"{name} is not on this machine; pass --download (download=True) to fetch it, or "
                "--dataset with data that are"
            ) from error
        cause = shortened(" ".join(str(error).split()) or type(error).__name__, _LONGEST)
        raise UserError(f"cannot load {name}: {cause}{_hint(place, path)}") from error


def _local(datasets: Any, path: Path) -> Any:
    if not path.exists():
        raise UserError(f"no such file or folder: {path}; write hf:PATH with one, or hf:NAME")
    if path.is_dir():
        is_saved = any((path / name).is_file() for name in _SAVED)
        return datasets.load_from_disk(str(path)) if is_saved else datasets.load_dataset(str(path))
    if path.suffix.lower() not in READERS:
        raise UserError(
            f"{path} is neither Parquet (.parquet) nor WebDataset (.tar); convert it, or name a folder"
        )
    return datasets.load_dataset(READERS[path.suffix.lower()], data_files=str(path))


def _hint(place: str, path: str) -> str:
    if path or not place:
        return ""
    if Path(place).exists():
        return f"; write hf:./{place} for what lies here"
    return "; a folder is written hf:./FOLDER, and a configuration hf:NAME:CONFIG"


@contextmanager
def _offline(datasets: Any) -> Iterator[None]:
    """Let the package, and the one it reaches the server with, ask no server."""
    import huggingface_hub

    places: tuple[Any, Any] = datasets.config, huggingface_hub.constants
    before = [place.HF_HUB_OFFLINE for place in places]
    for place in places:
        place.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for place, was in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = was


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Keep progress bars from the terminal, and what is said of every try to reach the server."""
    has_bars, server = not datasets.utils.are_progress_bars_disabled(), logging.getLogger("huggingface_hub")
    level = server.level
    datasets.utils.disable_progress_bars()
    server.setLevel(logging.ERROR)
    try:
        yield
    finally:
        server.setLevel(level)
        if has_bars:
            datasets.utils.enable_progress_bars()
