"""Any network: a class, a function or a name in a file, to match in, to train as expert, and as student."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dsdistill

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "new_network.py"
OPTIONS = ["compute.compile=false", "compute.threads=1"]

pytestmark = pytest.mark.usefixtures("plugs")


class SmallNet(nn.Module):
    def __init__(self, channels: int, size: int, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 6, 3, padding=1)
        self.deeper = nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AvgPool2d(2)
        self.fc = nn.Linear(6 * (size // 4) ** 2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.conv(x)))
        x = self.pool(self.relu(self.deeper(x)))
        logits: Tensor = self.fc(x.flatten(1))
        return logits


def of_classes_only(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, num_classes))


def distilled(folder: Path, network: object, method: str = "dm", **options: object) -> torch.Tensor:
    dsdistill.distill(
        folder / "set.h5",
        dataset="digits",
        method=method,
        ipc=2,
        iterations=2,
        network=network,  # type: ignore[arg-type]
        overrides=[*OPTIONS, *(f"{key}={value}" for key, value in options.items())],
        overwrite=True,
    )
    return dsdistill.load(folder / "set.h5").images


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("dm", {}),
        ("mmd", {}),
        ("datadam", {}),
        ("idm", {"engine.supply.size": 2, "engine.supply.start": 1, "engine.supply.networks": 1}),
        ("dsa", {"engine.supply.epochs": 1}),
        ("idc", {"engine.supply.samples": 64, "engine.batch_real": 8}),
    ],
)
def test_methods_match_in_a_class_of_ones_own(tmp_path: Path, method: str, options: dict[str, int]) -> None:
    images = distilled(tmp_path, SmallNet, method, **options)
    assert images.isfinite().all()
    assert not torch.equal(images, distilled(tmp_path, SmallNet, method, **options | {"seed": 1}))


class ConvNet(nn.Module):
    """The package's convnet2-w8, written anew."""

    def __init__(self, channels: int, size: int, num_classes: int) -> None:
        super().__init__()
        for level, width in enumerate((channels, 8)):
            self.add_module(f"conv{level}", nn.Conv2d(width, 8, 3, padding=1))
            self.add_module(f"norm{level}", nn.GroupNorm(8, 8))
            self.add_module(f"relu{level}", nn.ReLU(inplace=True))
            self.add_module(f"pool{level}", nn.AvgPool2d(2))
        self.head = nn.Linear(8 * (size // 4) ** 2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children():
            x = module(x.flatten(1) if module is self.head else x)
        return x


@pytest.mark.parametrize(("method", "options"), [("dm", {}), ("dc", {"engine.supply.epochs": 1})])
def test_a_copy_of_a_known_network_distils_the_same_pixels(
    tmp_path: Path, method: str, options: dict[str, int]
) -> None:
    mine, known = (distilled(tmp_path, each, method, **options) for each in (ConvNet, "convnet2-w8"))
    torch.testing.assert_close(mine, known, rtol=1e-4, atol=1e-4)


def test_experts_and_what_follows_them(tmp_path: Path) -> None:
    experts = dsdistill.train_experts(
        tmp_path / "experts.h5",
        dataset="digits",
        recipe="mtt",
        network=SmallNet,
        count=1,
        epochs=2,
        overrides=OPTIONS,
    )
    assert experts.metadata.network.endswith(":SmallNet")
    dsdistill.distill(
        tmp_path / "set.h5",
        dataset="digits",
        method="mtt",
        ipc=1,
        iterations=2,
        network=SmallNet,
        experts=tmp_path / "experts.h5",
        overrides=[*OPTIONS, "engine.steps=2", "engine.expert_epochs=1", "engine.start.most=1"],
    )
    assert dsdistill.load(tmp_path / "set.h5").images.isfinite().all()


def test_students_are_any_networks(tmp_path: Path, finished: Path) -> None:
    def evaluate() -> dict[str, list[float]]:
        report = dsdistill.evaluate(
            finished,
            networks=[SmallNet, of_classes_only, "convnet2-w4"],
            epochs=2,
            repeats=2,
            baselines=(),
            save=False,
        )
        return {row.network.rpartition(":")[2]: row.values for row in report.rows}

    values = evaluate()
    assert list(values) == ["SmallNet", "of_classes_only", "convnet2-w4"]
    assert evaluate() == values


def test_a_set_tells_its_network_and_is_evaluated_with_it_in_the_same_program(tmp_path: Path) -> None:
    distilled(tmp_path, SmallNet)
    report = dsdistill.evaluate(tmp_path / "set.h5", epochs=1, repeats=1, baselines=())
    assert [row.network for row in report.rows] == [f"{__name__}:SmallNet"]


def test_a_registered_network_goes_by_its_name(tmp_path: Path) -> None:
    dsdistill.register_network("small-net")(SmallNet)
    assert torch.equal(distilled(tmp_path, "small-net"), distilled(tmp_path, SmallNet))


def test_the_example_distils_from_its_file(tmp_path: Path) -> None:
    name = f"{EXAMPLE}:SmallNet"
    assert distilled(tmp_path, name).shape == (20, 1, 8, 8)
    report = dsdistill.evaluate(tmp_path / "set.h5", networks=name, epochs=1, repeats=1, baselines=())
    assert [row.network for row in report.rows] == ["new_network.py:SmallNet"]
    replay = tmp_path / "set.run" / "config.toml"
    dsdistill.distill(tmp_path / "again.h5", config=replay)
    again = dsdistill.load(tmp_path / "again.h5").images
    assert torch.equal(again, dsdistill.load(tmp_path / "set.h5").images)
    assert str(EXAMPLE.parent).encode() not in (tmp_path / "again.h5").read_bytes()


class TwoHeads(SmallNet):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :, None]


class Broken(SmallNet):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no kernel for this")


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (TwoHeads, r"network .*:TwoHeads returns \[2, 10, 1\], not logits \[B, 10\]"),
        (Broken, "Broken cannot take 1x8x8 images in a batch of 2: RuntimeError: no kernel for this"),
        (SmallNet(1, 8, 10), "a SmallNet that is made already serves once only: give its class"),
        ("nowhere.py:Net", r"cannot read .*nowhere\.py: "),
        ("__main__:Net", "network '__main__:Net' is code of the program that used it"),
    ],
)
def test_networks_that_are_refused(tmp_path: Path, finished: Path, network: object, said: str) -> None:
    with pytest.raises(dsdistill.UserError, match=said):
        distilled(tmp_path, network)
    with pytest.raises(dsdistill.UserError, match=said):
        dsdistill.evaluate(finished, networks=[network], save=False)  # type: ignore[list-item]
    with pytest.raises(dsdistill.UserError, match=said):
        dsdistill.train_experts(
            tmp_path / "experts.h5",
            dataset="digits",
            recipe="mtt",
            network=network,  # type: ignore[arg-type]
        )
