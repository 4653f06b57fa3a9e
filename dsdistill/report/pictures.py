"""The images of distilled sets on the page, with the names of their classes."""

from __future__ import annotations

from collections.abc import Sequence

from dsdistill.bench.results import CellResult
from dsdistill.errors import UserError
from dsdistill.report import families
from dsdistill.report.figures import anchor
from dsdistill.report.markup import escape, link, note
from dsdistill.storage import set_file
from dsdistill.synthetic import picture
from dsdistill.synthetic.distilled import DistilledSet

_NAME = 24  # characters of a class name
_ABOUT = (
    "A column per class. Pixels as stored, clipped to [0, 1]; a multi-formation shows tiles. A click on a "
    "picture enlarges it."
)


def pictures(results: Sequence[CellResult]) -> str:
    """Return the images of every method, data set and IPC, by its first seed whose set can be read."""
    titles = families.places(results)
    groups: dict[tuple[str, str, int], dict[str, str]] = {}
    for each in results:
        group = groups.setdefault((each.suite, each.dataset, each.ipc), {})
        if each.method in group or each.folder is None or each.file_problem:
            continue  # the cell says so
        try:
            distilled = set_file.read(each.folder / each.file)
        except UserError:
            continue
        group[each.method] = _figure(each, distilled)
    drawn = {families.at(titles[key[:2]], key[2]): "".join(group.values()) for key, group in groups.items()}
    parts = [
        f'<h3>{escape(title)}</h3><div class="pictures">{inside}</div>'
        for title, inside in drawn.items()
        if inside
    ]
    return note(_ABOUT) + "".join(parts) if parts else ""


def _figure(result: CellResult, distilled: DistilledSet) -> str:
    """Return one picture, which a click enlarges, under the names of its classes."""
    shown = distilled.labels.unique()[: picture.INLINE_CLASSES].tolist()
    names = [distilled.classes[label] for label in shown]
    heads = "".join(f"<span>{escape(name, _NAME)}</span>" for name in names)
    omitted = picture.omissions(distilled.labels)
    caption = link(f"#{anchor(result)}", f"{result.method}, seed {result.seed}")
    caption += f"; {escape(omitted)}" if omitted else ""
    alt = f"Distilled images of {result.dataset} by {result.method}; columns: {', '.join(names)}"
    address = picture.data_uri(distilled.images, distilled.labels)
    image = f'<img src="{address}" alt="{escape(alt)}" loading="lazy">'
    frame = f'<span class="frame" style="--classes:{len(names)}">'
    return (
        f"<figure><figcaption>{caption}</figcaption><details><summary>{frame}"
        f'<span class="names" aria-hidden="true">{heads}</span>{image}</span></summary></details></figure>'
    )
