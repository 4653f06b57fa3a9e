"""The command `info`, of experts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py

from dsdistill.networks import build_network
from dsdistill.storage import expert_writer
from dsdistill.storage.hdf5 import EXPERTS, LAYOUT, set_attributes
from tests.helpers import cli as cli_helpers
from tests.helpers.expert_files import FINGERPRINT, NETWORK, metadata, states, training, written


def test_info_describes_experts(capsys: cli_helpers.Captured, tmp_path: Path) -> None:
    common = metadata(config='recipe = "my/ncfm.toml"\n')
    path = tmp_path / "pool.h5"
    trained = [
        dataclasses.replace(training(e), accuracy=0.5 + e / 8, machine=f"machine {e % 2}") for e in range(3)
    ]
    pack = common.layout.pack
    experts = ((each, (pack(state) for state in states(e))) for e, each in enumerate(trained))
    expert_writer.write(path, common, experts, 3)
    out, err = cli_helpers.succeed(capsys, "info", path)
    assert not err
    said = dict(line.split(maxsplit=1) for line in out.splitlines())
    parameters = sum(p.numel() for p in build_network(NETWORK, 1, 8, 3).parameters())
    assert said["file"].startswith(f"{path}, structure verified, ")
    assert said["experts"].startswith(f"3 of {NETWORK} ({parameters} parameters, ")
    assert said["kept"] == "epochs  0, 2 to 4, 9"
    assert said["accuracy"] == "50.00 to 75.00 % on training images"
    assert said["images"] == "1x8x8"
    assert said["classes"] == "ball, doll, kite"
    assert (said["dataset"], said["preprocess"], said["recipe"]) == ("toys", "standardise", "ncfm")
    assert (said["seed"], said["seconds"]) == ("7", "0 min 09 s")
    assert (said["machine"], said["fingerprint"]) == ("machine 0; machine 1", FINGERPRINT)


def test_info_refuses_bad_experts_with_their_own_sentence(
    capsys: cli_helpers.Captured, tmp_path: Path
) -> None:
    pool = written(tmp_path / "pool.h5")
    with h5py.File(pool, "r+") as file:
        file.attrs["version"] = 99
    assert "newer dsdistill (format version 99" in cli_helpers.refused(capsys, "info", pool)
    pool.write_bytes(pool.read_bytes()[:2000])
    assert "dsdistill: " in cli_helpers.refused(capsys, "info", pool)
    with h5py.File(pool, "w", libver=LAYOUT) as file:
        set_attributes(file, format=EXPERTS.name, version=1)
    assert f"{pool} is damaged: " in cli_helpers.refused(capsys, "info", pool)
