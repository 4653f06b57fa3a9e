"""How a run stores its images: coded in a few bits, or as float32 where that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import dsdistill
from dsdistill.config.storage import CodingConfig
from dsdistill.distillation.config import resolve, to_toml
from dsdistill.errors import UserError
from dsdistill.files import read_toml
from dsdistill.storage import set_file
from dsdistill.storage.set_description import describe
from dsdistill.synthetic.coded import Coding
from tests.newcomer.notices import Notices

RUN: dict[str, Any] = {"dataset": "digits", "network": "convnet2-w8", "ipc": 1, "iterations": 2}


def distill(output: Path, *overrides: str, **options: Any) -> dsdistill.Summary:
    return dsdistill.distill(output, **RUN, **options, overrides=["compute.threads=1", *overrides])


def test_a_run_codes_its_images(tmp_path: Path) -> None:
    plain, coded = tmp_path / "plain.h5", tmp_path / "coded.h5"
    distill(plain, "storage=float32")
    summary = distill(coded, "storage.bits=2", "storage.groups=8", "checkpoint.snapshots=2")
    found, original = set_file.read(coded), set_file.read(plain)
    assert found.coded is not None
    assert found.coded.coding == Coding(2, 4, 8)
    assert summary.storage_error == float((found.images - original.images).abs().max()) > 0
    (snapshot,) = (tmp_path / "coded.run").glob("snapshot-*.h5")
    assert describe(snapshot).coded == Coding(2, 4, 8)
    again = distill(coded, "storage.bits=2", "storage.groups=8", "checkpoint.snapshots=2", resume=True)
    assert again.storage_error == summary.storage_error


def test_a_run_stores_a_byte_a_pixel(tmp_path: Path) -> None:
    exact, usual = tmp_path / "exact.h5", tmp_path / "usual.h5"
    distill(exact, "storage=float32")
    summary = distill(usual)
    assert describe(exact).storage == "float32"
    assert describe(usual).coded == Coding(8, 0, 0)
    assert read_toml(tmp_path / "usual.run" / "config.toml")["storage"]["bits"] == 8
    found, original = set_file.read(usual).images, set_file.read(exact).images
    low, high = original.amin((1, 2, 3)), original.amax((1, 2, 3))
    assert (low < 0).any()  # nothing is clipped
    most = 0.5 / 255 + 2**-11  # half a level, and that offsets are float16
    assert ((found - original).abs().amax((1, 2, 3)) <= most * (high - low) + 2**-11).all()
    assert summary.storage_error == float((found - original).abs().max()) > 0


def test_whitened_sets_are_stored_as_they_are() -> None:
    options: dict[str, Any] = {"data": {"name": "digits", "zca": True}, "ipc": 1}
    assert resolve(options).stored_as == "float32"
    assert resolve({**options, "storage": {"bits": 4}}).stored_as == CodingConfig(bits=4)
    assert resolve({"data": {"name": "digits"}, "ipc": 1}).stored_as == CodingConfig(bits=8)


def test_another_storage_is_named_where_a_run_is_resumed(tmp_path: Path) -> None:
    distill(tmp_path / "set.h5")
    with pytest.raises(UserError, match="storage = 'float32': it was started with 'bits = 8, patch = auto"):
        distill(tmp_path / "set.h5", "storage=float32", resume=True)
    distill(tmp_path / "set.h5", "storage=auto", resume=True)


def test_finished_images_are_never_lost_to_a_budget(tmp_path: Path) -> None:
    notices = Notices()
    distill(tmp_path / "set.h5", "storage.budget=60B", callbacks=[notices])
    assert describe(tmp_path / "set.h5").storage == "float32"
    assert "stored as float32: the budget leaves" in " ".join(notices.sentences)
    distill(tmp_path / "plain.h5", "storage=float32")
    plain = set_file.read(tmp_path / "plain.h5")
    assert torch.equal(set_file.read(tmp_path / "set.h5").images, plain.images)


def test_options_survive_a_config_file(tmp_path: Path) -> None:
    options = {"data": {"name": "digits"}, "ipc": 1, "storage": {"bits": 2, "budget": "10 ipc"}}
    config = resolve(options)
    (tmp_path / "config.toml").write_text(to_toml(config))
    assert resolve({}, (), read_toml(tmp_path / "config.toml")) == config
    assert resolve({**options, "storage": "uint8"}).storage == "uint8"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("storage.patch=9", "a patch of 9×9 is larger than an image of 8×8"),
        ("storage.budget=5B", r"a budget of '5B' is below one image of 64 pixels"),
    ],
)
def test_what_can_be_known_is_refused_before_the_run(tmp_path: Path, override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        distill(tmp_path / "set.h5", override)
    assert not (tmp_path / "set.run").exists()


def test_images_that_are_decoded_further_are_not_refined(tmp_path: Path) -> None:
    notices = Notices()
    distill(tmp_path / "set.h5", "storage.refine=3", method="idc", callbacks=[notices])
    assert "stored as float32: refining is for sets" in " ".join(notices.sentences)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("storage=float8", "'storage' is 'float8'"),
        ("storage.bits=9", "'storage.bits' is 9"),
        ("storage.budget=much", "a budget is a number of bytes"),
    ],
)
def test_bad_options(override: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        resolve({"data": {"name": "digits"}, "ipc": 1}, [override])
