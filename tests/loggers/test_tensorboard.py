"""Event files of TensorBoard, read back by TensorBoard itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import dsdistill
from dsdistill.errors import UserError
from tests.conftest import THREADS, TINY
from tests.helpers.writers import events, uninstall


def test_numbers_pictures_and_options_can_be_read(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    entries: list[dict[str, Any]] = []
    writer = dsdistill.loggers.TensorBoard(tmp_path / "runs")
    options: dict[str, Any] = TINY | {"overrides": [THREADS], "device": "cpu"}
    dsdistill.distill(tmp_path / "set.h5", **options, callbacks=[writer, entries.append])
    assert writer.place.startswith(f"{tmp_path / 'runs'};")
    read = events(tmp_path / "runs" / "distillation")
    losses = [(event.step, event.value) for event in read.Scalars("loss")]
    assert losses == [(entry["iteration"], pytest.approx(entry["loss"])) for entry in entries]
    assert [event.step for event in read.Images("set")] == [1, 2, 3, 3]
    assert read.Images("set")[0].width == 4 * (10 * 9 - 1)
    (text,) = read.Tensors("options/text_summary")
    assert b"data.name = digits" in text.tensor_proto.string_val[0]


def test_stages_do_not_purge_each_other(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    writer = dsdistill.loggers.TensorBoard(tmp_path)
    for stage, steps in (("experts", 18), ("distillation", 3)):
        writer.open(stage, "mtt digits", {}, 1)
        for step in range(1, steps + 1):
            writer.write({"loss": 0.5}, step)
        writer.close(failed=False)
    assert len(events(tmp_path / "experts").Scalars("loss")) == 18
    assert len(events(tmp_path / "distillation").Scalars("loss")) == 3


def test_without_the_package_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    uninstall(monkeypatch, "torch.utils.tensorboard")
    with pytest.raises(
        UserError, match=r"^TensorBoard is not installed: pip install tensorboard, or pip .*\[l"
    ):
        dsdistill.loggers.TensorBoard("runs")
