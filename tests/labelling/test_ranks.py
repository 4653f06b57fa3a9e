"""Labels that several processes give are those of one process alone, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from dsdistill.cli import main
from dsdistill.errors import UserError
from dsdistill.labelling import answering, view_run
from dsdistill.labelling.config import LabellingConfig
from dsdistill.labelling.labelled import identity, labelled
from dsdistill.labelling.parts import LabelParts
from dsdistill.runtime.callbacks import Callback, Observer, StopRun
from dsdistill.runtime.device import threads
from dsdistill.runtime.ranks import ALONE, Ranks
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledSet
from dsdistill.teachers import Committee
from tests.helpers.evaluation import write_digits
from tests.helpers.labels import committee, config, equal
from tests.helpers.processes import together
from tests.helpers.ranks import side_by_side
from tests.helpers.storage import make


class Watch(Callback):
    """Notes the progress, and stops after so many views."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop, self.progress = stop, list[int]()

    def on_progress(self, what: str, done: int, total: int) -> None:
        self.progress.append(done)
        if self.stop is not None and done >= self.stop:
            raise StopRun("enough")


def label(
    folder: Path,
    options: LabellingConfig,
    ranks: Ranks = ALONE,
    watch: Callback | None = None,
    teachers: Committee | None = None,
) -> DistilledSet:
    """Label a set of twelve images; go on with what an earlier labelling has left in the folder."""
    teachers = teachers or committee()
    parts = LabelParts(folder / "out.h5", identity(make(), teachers, options))
    if ranks.is_first:
        parts.begin(True, False, lambda _: None)
    ranks.wait()
    observer = Observer([watch] if watch else [], silent=not ranks.is_first)
    return labelled(make(), teachers, options, observer=observer, parts=parts, ranks=ranks)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of views is an epoch, and images are labelled five at a time."""
    monkeypatch.setattr(answering, "_AT_ONCE", 5)


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("count", [2, 4])
def test_static_labels_do_not_depend_on_the_number_of_processes(
    mode: Any, count: int, tmp_path: Path
) -> None:
    teachers, options, watch = committee(0, 1, mode=mode), config(views=0, mode=mode), Watch()
    alone = label(tmp_path, options, teachers=teachers).soft_labels
    assert alone is not None
    for shared in side_by_side(count, lambda ranks: label(tmp_path, options, ranks, watch, teachers)):
        assert torch.equal(shared.soft_labels, alone)  # type: ignore[arg-type]
    assert max(watch.progress) <= 12
    assert watch.progress == sorted(watch.progress)


@pytest.mark.parametrize("every", [0.0, 1e9])
@pytest.mark.parametrize("options", [{}, {"keep": 0.4, "encoding": "top", "top": 2}])
def test_views_do_not_depend_on_the_number_of_processes(
    every: float, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_run, "_EVERY", every)
    asked = config(views=5, **options)
    alone = labelled(make(), committee(), asked).views
    assert alone is not None
    for count in (2, 3, 7):
        folder = tmp_path / str(count)
        folder.mkdir()
        first, *others = side_by_side(count, lambda ranks, to=folder: label(to, asked, ranks))  # type: ignore[misc]
        assert first.views is not None
        assert equal(first.views, alone)
        assert not any(each.views for each in others)


def test_a_stopped_labelling_goes_on_with_any_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config(views=7)
    alone = labelled(make(), committee(), asked).views
    for count, stop in ((2, 12), (3, 30)):  # views that the first process gets to by itself
        with pytest.raises(UserError, match="epochs of views: enough; resume=True goes on"):
            side_by_side(count, lambda ranks, at=stop: label(tmp_path, asked, ranks, Watch(at)))  # type: ignore[misc]
    kept = LabelParts(tmp_path / "out.h5", identity(make(), committee(), asked)).read(lambda _: None)
    assert 1 < sum(len(epochs) for epochs, _ in kept) < 7
    found = label(tmp_path, asked).views
    assert found is not None
    assert alone is not None
    assert equal(found, alone)


def test_labels_of_which_a_part_is_gone_are_not_written(tmp_path: Path) -> None:
    class Lost(LabelParts):
        def save(self, epochs: range, views: Any) -> None:
            if epochs.start == 0:
                super().save(epochs, views)

    def lost(ranks: Ranks) -> DistilledSet:
        parts = Lost(tmp_path / "out.h5", identity(make(), committee(), config()))
        return labelled(make(), committee(), config(), parts=parts, ranks=ranks)

    with pytest.raises(UserError, match="are not whole: go on with --resume"):
        side_by_side(2, lost)


# Processes --------------------------------------------------------------------------------------------------

VIEWS = ("--views", "4", "--batch-size", "8", "--no-flip")


def commands(folder: str, teacher: str) -> None:
    """Label a set and views of it, and choose the epoch of a teacher; then be refused."""
    answering._AT_ONCE = 20
    early = ("--stop", "auto", "--protocol", f"{folder}/brief.toml")
    for name, options in (("static", ()), ("views", VIEWS), ("early", early)):
        words = ["label", f"{folder}/set.h5", "--teacher", teacher, *options]
        print(main([*words, "-o", f"{folder}/{name}.h5"]))
    print(main(["label", f"{folder}/set.h5", "--teacher", f"{folder}/none.h5", "-o", f"{folder}/none.h5"]))


@pytest.mark.slow
def test_torchruns_processes_label_together(
    tmp_path: Path, pool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_digits(tmp_path / "set.h5")
    brief = tmp_path / "brief.toml"
    brief.write_text('title = "brief"\nsource = "a test"\nepochs = 2\nlr = 0.01\n')
    first, second = together(2, commands, tmp_path, f"{pool}#0")
    assert second.out == "0\n0\n0\n2\n", (first, second)
    assert first.code == 0
    said = "".join(each.err for each in (first, second))
    assert said.count("dsdistill: ") == 1
    assert "none.h5" in said
    monkeypatch.setattr(answering, "_AT_ONCE", 20)
    for name, options in (
        ("static", {}),
        ("views", {"views": 4, "batch_size": 8, "flip": False}),
        ("early", {"stop": "auto", "protocol": brief}),
    ):
        alone = tmp_path / f"{name}-alone.h5"
        teachers = f"{pool}#0"
        with threads(1):
            dsdistill.label(tmp_path / "set.h5", alone, teachers=teachers, device="cpu", **options)
        shared, whole = set_file.read(tmp_path / f"{name}.h5"), set_file.read(alone)
        if options.get("views"):
            assert equal(shared.views, whole.views)  # type: ignore[arg-type]
        else:
            assert torch.equal(shared.soft_labels, whole.soft_labels)  # type: ignore[arg-type]
        assert shared.attributes == whole.attributes
    assert not list(tmp_path.glob("*.parts"))
