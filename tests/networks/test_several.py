"""A run that names several networks, with commas between them."""

from __future__ import annotations

from pathlib import Path

import pytest

import dsdistill
from dsdistill.bench.planning import plan
from dsdistill.bench.suite import load_suite
from dsdistill.config.sharing import shared
from dsdistill.distillation import config as configs
from dsdistill.errors import UserError
from dsdistill.evaluation.request import students_of
from dsdistill.networks import add_networks
from dsdistill.plugs import names_in
from dsdistill.protocol import load_protocol
from tests.helpers.evaluation import distilled

SUITE = """
title = "Several networks"
datasets = ["digits"]
methods = ["sre2l"]
ipcs = [1]
network = "convnet2,mlp"
teacher = "teachers"
[experts.teachers]
recipe = "teacher"
[method.sre2l]
experts = "teachers"
"""

OWN = "import torch\nclass Net(torch.nn.Sequential):\n    pass\n"


def test_names_are_cut_at_commas_but_not_in_the_path_of_a_file(tmp_path: Path) -> None:
    assert names_in(" convnet3, mlp,,convnet3") == ["convnet3", "mlp"]
    folder = tmp_path / "a,b"
    folder.mkdir()
    (folder / "net.py").write_text(OWN)
    assert names_in(f"{folder}/net.py:Net") == [f"{folder}/net.py:Net"]
    listed = f"{folder.parent}/net.py:Net"
    (folder.parent / "net.py").write_text(OWN)
    assert names_in(f"{listed},convnet3") == [listed, "convnet3"]
    assert names_in("") == [""]  # which no network is called


def test_each_is_checked_made_absolute_and_told_without_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    assert add_networks("convnet3, net.py:Net") == f"convnet3,{tmp_path}/net.py:Net"
    with pytest.raises(UserError, match="'convent3'"):
        add_networks("mlp,convent3")
    given = {"method": "sre2l", "ipc": 1, "data": {"name": "digits"}, "network": "convnet3,net.py:Net"}
    table = configs.as_table(configs.resolve(given))
    assert table["network"] == f"convnet3,{tmp_path}/net.py:Net"
    assert add_networks("net.py:Net,convnet3") == f"{tmp_path}/net.py:Net,convnet3"
    assert shared(table)["network"] == "convnet3,net.py:Net"
    assert shared(shared(table)) == shared(table)


def test_methods_that_take_one_network_refuse_several(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^method 'dm' takes one network, not convnet2,mlp: name one of them$"
    ):
        dsdistill.distill(tmp_path / "a.h5", dataset="digits", ipc=1, network="convnet2,mlp", device="cpu")


def test_students_of_a_set_have_its_first_network() -> None:
    made = distilled(network="convnet2-w4, convnet2-w6")
    assert students_of((), made, load_protocol("dm")) == ["convnet2-w4"]


def test_suites_train_experts_of_one_network(tmp_path: Path) -> None:
    suite = tmp_path / "mine.toml"
    suite.write_text(SUITE)
    with pytest.raises(UserError, match="experts of one network are in a table, not of convnet2,mlp"):
        plan(load_suite(str(suite)))


def test_a_suite_finds_each_file_of_networks_from_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(SUITE.replace("convnet2,mlp", "net.py:Net,mlp,other.py:Net"))
    suite = load_suite(tmp_path / "mine.toml")
    assert suite.network == f"{tmp_path}/net.py:Net,mlp,{tmp_path}/other.py:Net"
