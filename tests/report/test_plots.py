"""Charts as files of their own."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from dsdistill.report import plots
from tests.helpers.bench import result
from tests.helpers.reports import by_class, elements


def test_plots_are_whole_files(tmp_path: Path) -> None:
    written = plots.write(tmp_path / "plots", [result(), result(ipc=10)])
    assert [path.name for path in written] == [
        "accuracy-tried-cifar10.svg",
        "seconds-tried-cifar10-ipc1.svg",
        "seconds-tried-cifar10-ipc10.svg",
        "bytes-tried-cifar10.svg",
    ]
    for path in written:
        root = ElementTree.parse(path).getroot()
        assert len(elements(root, "style")) == 1
        inside = [each for each in root if each.tag.endswith("svg")]
        assert inside
        for each in inside:
            right, low = (float(each.attrib[a]) + float(each.attrib[b]) for a, b in ENDS)
            assert right <= float(root.attrib["width"])
            assert low <= float(root.attrib["height"])
    titles = [each.text for each in by_class(ElementTree.parse(written[0]).getroot(), "title")]
    assert titles == ["cifar10", "1 per class", "10 per class"]


ENDS = (("x", "width"), ("y", "height"))
