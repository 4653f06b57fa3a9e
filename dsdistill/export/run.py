"""Export: from a distilled set's file to the format of another program."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsdistill.errors import UserError, unknown
from dsdistill.export.ddranking import export_ddranking
from dsdistill.export.hdf5 import export_h5
from dsdistill.export.huggingface import export_huggingface
from dsdistill.export.parquet import export_parquet
from dsdistill.export.png import export_png
from dsdistill.export.pt import export_pt
from dsdistill.export.webdataset import export_webdataset
from dsdistill.files import expanded, set_aside
from dsdistill.runtime.callbacks import Listener, Observer
from dsdistill.runtime.estimate import refuse_dry_run
from dsdistill.storage import set_file


@dataclass(frozen=True)
class Exporter:
    """A format to write.

    Attributes:
        suffixes: of the outputs that are written so where no format is named; "" is a folder's.
        option: the only option that it takes.
        default: of that option.
        mark: a file that every folder of the format holds.
        write: takes the set, the output, and the option if there is one; returns sentences on the result.
    """

    suffixes: tuple[str, ...] = ()
    option: str | None = None
    default: str | None = None
    mark: str = ""
    write: Callable[..., list[str]] = lambda *_: []


def _pt(path: Path, out: Path, space: Any) -> list[str]:
    if space not in ("network", "unit"):
        raise unknown("space", space, ("network", "unit"))
    return export_pt(path, out, space)


EXPORTERS = {
    "png": Exporter(("",), mark="labels.csv", write=lambda path, out: [export_png(path, out)]),
    "pt": Exporter((".pt", ".pth"), "space", "network", write=_pt),
    "h5": Exporter(
        (".h5", ".hdf5"), "dtype", "uint8", write=lambda path, out, dtype: [export_h5(path, out, dtype)]
    ),
    "ddranking": Exporter((), "protocol", None, "ddranking.yaml", export_ddranking),
    "hf": Exporter(mark="data/train-00000-of-00001.parquet", write=export_huggingface),
    "parquet": Exporter((".parquet",), write=export_parquet),
    "webdataset": Exporter((".tar",), mark="dsdistill.json", write=export_webdataset),
}


def export_set(
    file: str | Path,
    output: str | Path,
    *,
    to: str | None = None,
    space: str | None = None,
    dtype: str | None = None,
    protocol: str | None = None,
    overwrite: bool = False,
    callbacks: Sequence[Listener] = (),
) -> Path:
    """Write a distilled set in a format that other programs read, or in fewer bytes.

    >>> dsdistill.export_set("set.h5", "set.pt").name
    'set.pt'
    >>> torch.load("set.pt", weights_only=True)["images"].shape
    torch.Size([10, 1, 8, 8])

    Args:
        file: a distilled set.
        output: a file or a folder to create; a .pt and other single files are replaced.
        to: "png" (a folder of pictures by class, and labels.csv), "pt" (a dict for torch.load), "h5" (the
            same set with smaller pixels), "ddranking" (a folder for its evaluators), "hf" (a folder for
            Hugging Face's datasets, with a card), "parquet", "webdataset" (a .tar, or a folder of them);
            default by the suffix, png for a folder.
        space: for pt: "network" (preprocessed, the default) or "unit" (0 black, 1 white).
        dtype: for h5: "float32", "float16" or "uint8", the default.
        protocol: for ddranking: how students are trained; default the method's own.
        overwrite: replace a folder or a .h5 that an earlier export in the same format wrote.
        callbacks: their `on_notice` receives sentences on what is lost, such as pixels that are clipped.

    Returns:
        the path of what was written.

    Raises:
        UserError: the set cannot be read, the format is unknown or does not hold such a set, an option is not
            for it, or the output cannot be written.
    """
    out = expanded(output)
    with Observer(callbacks) as observer:
        refuse_dry_run(observer)
        kind = _kind(to, out)
        arguments = _arguments(kind, {"space": space, "dtype": dtype, "protocol": protocol})
        path = expanded(file)
        with set_aside(out) if overwrite and _is_earlier(kind, path, out) else nullcontext():
            sentences = EXPORTERS[kind].write(path, out, *arguments)
        for sentence in sentences:
            observer.on_notice(sentence)
    return out


def _is_earlier(kind: str, path: Path, out: Path) -> bool:
    """Whether an output is there that an earlier export in a format wrote, and that is not the set itself."""
    if kind == "h5":
        with suppress(UserError, OSError):
            return bool(set_file.digest(out)) and not os.path.samefile(path, out)
    mark = EXPORTERS[kind].mark
    return bool(mark) and (out / mark).is_file()


def _arguments(kind: str, options: Mapping[str, str | None]) -> list[str | None]:
    """Return the option that a format takes, if it takes one.

    Raises:
        UserError: another one is given.
    """
    exporter = EXPORTERS[kind]
    for name, value in options.items():
        if value is not None and name != exporter.option:
            owner = next(known for known, each in EXPORTERS.items() if each.option == name)
            raise UserError(f"--{name} is for {owner}, not for {kind}; leave it out")
    return [] if exporter.option is None else [options[exporter.option] or exporter.default]


def _kind(to: str | None, path: Path) -> str:
    """Return the format that was named or, without a name, that of the output's suffix."""
    if to is not None:
        if to not in EXPORTERS:
            raise unknown("export format", to, EXPORTERS)
        return to
    suffix = path.suffix.lower()
    kinds = [name for name, each in EXPORTERS.items() if suffix in each.suffixes]
    if not kinds:
        raise UserError(
            f"no format goes by the suffix {suffix!r}: end the output in .pt, .h5, .parquet or .tar, name a "
            f"folder, or choose with --to {', '.join(EXPORTERS)}"
        )
    return kinds[0]
