"""Folders of results that were never run, and a reader of the pages made of them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import torch

from dsdistill.bench.results import CellResult, Point
from dsdistill.data.preprocess import Standardise
from dsdistill.evaluation.rows import Row
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledSet
from tests.helpers.bench import result, row

METHODS = ("dc", "dsa", "dm", "idc-i", "idc", "idm", "datadam", "ncfm", "mtt", "datm")


REAL_OF_ONE = {"random": (48, 10), "herding": (52, 10), "random@bytes": (62, 100), "full": (92, 50_000)}
REAL_OF_MORE = {"random": (62, 10), "herding": (66, 10), "random@bytes": (75, 100), "full": (92, 5_000)}
"""Accuracy of real images where sets have one image per class, and where they have more; and how many."""


def small_set(classes: int = 3, each: int = 2, channels: int = 1, size: int = 4) -> DistilledSet:
    """Return a set of noise with named classes."""
    images = torch.rand(classes * each, channels, size, size, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(classes).repeat_interleave(each)
    names = tuple(f"class {label}" for label in range(classes))
    return DistilledSet(images, labels, names, Standardise.of((0.5,) * channels, (0.2,) * channels))


def stored(folder: Path, found: CellResult, distilled: DistilledSet | None = None) -> CellResult:
    """Put a cell on disk, its set and its log beside it."""
    cell = folder / found.cell
    (cell / "set.run").mkdir(parents=True)
    set_file.write(cell / "set.h5", distilled or small_set())
    log = [json.dumps({"iteration": at, "loss": 10.0 / at}) for at in range(1, 300)]
    (cell / "set.run" / "metrics.jsonl").write_text("\n".join([*log, '{"iteration": 300, "lo']))
    table = found.to_dict() | {"sha256": set_file.digest(cell / "set.h5")}
    (cell / "result.json").write_text(json.dumps(table))
    return found


def grid(
    methods: Sequence[str] = METHODS,
    ipcs: Sequence[int] = (1, 10),
    datasets: Sequence[str] = ("cifar10", "fashion-mnist"),
    networks: Sequence[str] = ("convnet", "resnet18"),
) -> list[CellResult]:
    """Return a cell for each method, IPC and data set; by default 40. The first method has the baselines.

    Methods get better in their order, more images too, and further students worse; at one image per class
    random images for the same bytes are better than every method.
    """
    return [
        _cell(dataset, method, ipc, networks, number)
        for dataset in datasets
        for ipc in ipcs
        for number, method in enumerate(methods)
    ]


def _cell(dataset: str, method: str, ipc: int, networks: Sequence[str], number: int) -> CellResult:
    rows: list[Row] = []
    for further, network in enumerate(networks):
        mean = 40.0 + 2 * number + (20 if ipc > 1 else 0) - 5 * further
        rows.append(row("distilled", [mean - 1, mean + 0.5, mean + 0.5], network, 10 * ipc))
        if number == 0:
            for name, (level, images) in (REAL_OF_ONE if ipc == 1 else REAL_OF_MORE).items():
                rows.append(row(name, [level - 2.0, level + 1.0, level + 1.0], network, images * ipc))
    curve = [
        Point(25 * 2**step, 12.0 * (number + 1) * 2**step, rows[0].mean - 8 + 2 * step, 1.0, 2)
        for step in range(5)
    ]
    return result(method, ipc, dataset=dataset, rows=rows, curve=curve, seconds=curve[-1].seconds)


class Page(HTMLParser):
    """Ids, links, addresses, texts and tables of a page, whose elements have to be closed."""

    VOID = ("meta", "link", "br", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.tables: list[list[list[str]]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note what a tag loads, names or leads to."""
        table = dict(attributes)
        self.tags.append(tag)
        self.ids += [table["id"] or ""] if "id" in table else []
        if tag == "a":
            self.links.append(table["href"] or "")
        self.loaded += [table[key] or "" for key in ("src", "srcset", "data", "action") if key in table]
        self.loaded += [table["href"] or ""] if tag in ("link", "use", "image") else []
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note an element without content."""
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        """Check that it closes what was opened last."""
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Add text to the cell of a table that it is in."""
        if {"th", "td"} & set(self._open):
            self.tables[-1][-1][-1] += data


def elements(root: ElementTree.Element, tag: str) -> list[ElementTree.Element]:
    """Return the elements of a tag, whatever their namespace, in their order."""
    return [each for each in root.iter() if each.tag.rpartition("}")[2] == tag]


def by_class(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    """Return the elements of a class of the style sheet, in their order."""
    return [each for each in root.iter() if name in each.attrib.get("class", "").split()]
