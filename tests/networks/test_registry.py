"""Networks of the user's own, by name: registered, in files, in modules, as objects."""

from __future__ import annotations

import importlib
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from dsdistill import networks
from dsdistill.errors import UserError
from dsdistill.networks import add_network, build_network, check_network, network_list, source_digest
from dsdistill.networks.registry import NETWORKS, added_networks, register_network
from tests.helpers.packages import install

pytestmark = pytest.mark.usefixtures("plugs")

CODE = """
from torch import nn

class MyNet(nn.Module):
    def __init__(self, channels, size, num_classes):
        super().__init__()
        self.fc = nn.Linear(channels * size**2, num_classes)

    def forward(self, x):
        return self.fc(x.flatten(1))
"""


class MyNet(nn.Module):
    def __init__(self, channels: int, size: int, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels * size**2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1))


def features(name: str) -> int:
    return build_network(name, 1, 4, 3).feature_dim


def test_a_registered_name_is_a_network() -> None:
    assert register_network("tiny-net")(MyNet) is MyNet
    check_network("tiny-net")
    assert features("tiny-net") == 16
    assert add_network("tiny-net") == add_network(MyNet) == "tiny-net"
    assert dict(added_networks())["tiny-net"] == "of this program"
    with pytest.raises(UserError, match=r"unknown network 'tinynet'; did you mean 'tiny-net'?"):
        check_network("tinynet")
    with pytest.raises(UserError, match="there is another network named 'tiny-net'; choose another name"):
        register_network("tiny-net")(nn.Linear)


def test_a_file_that_registers_may_be_imported_and_named_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = "import dsdistill\n"
    registered = CODE.replace("class MyNet", '@dsdistill.register_network("mine-twice")\nclass MyNet')
    (tmp_path / "imported_too.py").write_text(head + registered)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("imported_too")
    add_network(str(tmp_path / "imported_too.py:MyNet"))
    assert features("mine-twice") == 16
    (tmp_path / "another.py").write_text(head + registered)
    with pytest.raises(UserError, match="there is another network named 'mine-twice'"):
        add_network(str(tmp_path / "another.py:MyNet"))
    monkeypatch.delitem(sys.modules, "imported_too")


def test_a_partial_may_be_registered_anew() -> None:
    for _ in range(2):
        register_network("of-a-partial")(partial(MyNet, 1))
    with pytest.raises(UserError, match="there is another network named 'of-a-partial'"):
        register_network("of-a-partial")(partial(nn.Linear, 1))


@pytest.mark.parametrize(
    "name", ["convnet", "convnet3", "mlp-wide", "my net", "a,b", "timm:net", "net.py", "", "-a"]
)
def test_names_that_cannot_be_registered(name: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"a network of your own cannot be named {name!r}")):
        register_network(name)


def test_an_object_is_filed_under_a_readable_name() -> None:
    name = add_network(MyNet)
    assert name == f"{__name__}:MyNet"
    assert features(name) == 16
    assert network_list([MyNet, "mlp"]) == [name, "mlp"]
    assert network_list(MyNet) == [name]


def test_networks_of_one_name_are_not_mixed_up() -> None:
    def define(width: int) -> Any:
        def net(num_classes: int) -> nn.Module:
            return nn.Sequential(nn.Flatten(), nn.Linear(16, width), nn.Linear(width, num_classes))

        return net

    one, other = define(2), define(3)
    name = add_network(one)
    assert features(name) == 2
    assert add_network(other) == name
    assert features(name) == 3
    with pytest.raises(
        UserError, match=r"two networks are called .*:net: give one another name, by dsdistill.reg"
    ):
        network_list([one, other])


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (MyNet(1, 4, 3), "a MyNet that is made already serves once only: give its class, network=MyNet"),
        (
            lambda num_classes: None,
            "a lambda or a partial has none: write a def that returns what it does, or pass",
        ),
        (partial(MyNet, size=4), "a lambda or a partial has none"),
        (7, "a network is a name, a class or a function, not 7"),
    ],
)
def test_objects_that_are_no_networks(network: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        add_network(network)


def test_a_nameless_factory_can_be_given_a_name() -> None:
    register_network("small")(partial(MyNet, size=4))
    with pytest.raises(UserError):
        add_network(partial(MyNet, size=4))
    assert features("small") == 16


def test_a_file_is_named_by_its_path_and_told_without_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.py").write_text(CODE)
    with pytest.raises(
        UserError, match=r"network 'net.py:MyNet' is code of the program that used it, which is nev"
    ):
        check_network("net.py:MyNet")
    monkeypatch.chdir(tmp_path)
    assert add_network("net.py:MyNet") == str(tmp_path / "net.py:MyNet")
    assert features(str(tmp_path / "net.py:MyNet")) == features("net.py:MyNet") == 16
    assert network_list("mlp, net.py:MyNet") == ["mlp", "net.py:MyNet"]
    monkeypatch.chdir("/")
    assert add_network("net.py:MyNet") == "net.py:MyNet"  # of a file that tells no folders


def test_a_name_from_a_file_runs_no_code(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n{CODE}")
    for name in (f"{tmp_path}/net.py:MyNet", "antigravity:fly", "tests.networks.unread:MyNet"):
        for read in (check_network, features):
            with pytest.raises(UserError):
                read(name)
    assert not (tmp_path / "ran").exists()
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("net.py:YourNet", "unknown network in .*net.py: 'YourNet'; did you mean 'MyNet'?"),
        ("net.py", "say which network of net.py: net.py:NAME"),
        ("other.py:MyNet", "cannot read .*other.py: "),
        ("net.py:nn", "a network is a name, a class or a function"),
        (
            "no_module:MyNet",
            "network 'no_module:MyNet': there is no module 'no_module'; install it, or name a file",
        ),
        (
            "__main__:MyNet",
            "network '__main__:MyNet' is code of the program that used it.*network=MyNet, or name a",
        ),
        ("torchvison:resnet18", "unknown library of networks 'torchvison'; did you mean 'torchvision'?"),
    ],
)
def test_names_of_code_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    (tmp_path / "net.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        add_network(name)


def test_modules_and_installed_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = "packaged = addition:MyNet\nbroken = addition:Net"
    install(tmp_path, monkeypatch, CODE, "dsdistill.networks", points)
    assert features(add_network("addition:MyNet")) == 16
    assert ("packaged", "of the installed package addition") in added_networks()
    assert features("packaged") == 16
    with pytest.raises(UserError, match="network 'broken' of an installed package"):
        check_network("broken")
    with pytest.raises(UserError, match=r"unknown network 'packages'; did you mean 'packaged'?"):
        check_network("packages")


def test_code_that_changes_has_another_digest(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(CODE)
    (name,) = network_list(f"{file}:MyNet")
    before = source_digest([name])
    assert before == source_digest([name, "mlp"]) != ""
    file.write_text(CODE + "\n# otherwise")
    network_list(f"{file}:MyNet")
    assert source_digest([name]) != before
    assert source_digest(["mlp", "convnet3"]) == ""
    assert NETWORKS.find("mlp") is None
    assert networks.network_names()
