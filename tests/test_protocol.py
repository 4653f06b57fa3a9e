"""Evaluation protocols: the published values, own files, and refusals."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from pathlib import Path

import pytest

from dsdistill.config.presets import PROTOCOLS
from dsdistill.errors import UserError
from dsdistill.protocol import Protocol, load_protocol, protocol_settings
from tests.helpers.evaluation import PACKAGE


@pytest.mark.parametrize(
    ("name", "epochs", "lower_from", "augmentation"),
    [
        ("dc", 300, 152, "none"),
        ("dsa", 1000, 502, "color_crop_cutout_flip_scale_rotate"),
        ("dm", 1000, 502, "color_crop_cutout_flip_scale_rotate"),
    ],
)
def test_published_protocols(name: str, epochs: int, lower_from: int, augmentation: str) -> None:
    protocol = load_protocol(name)
    assert protocol.name == name
    assert (protocol.epochs, protocol.epochs_run, protocol.drop_factor) == (epochs, epochs + 1, 0.1)
    assert (protocol.milestones, protocol.schedule) == (
        (lower_from,),
        "restart",
    )  # ⌊E/2⌋ + 1 is the last before
    assert (protocol.optimiser, protocol.lr, protocol.momentum) == ("sgd", 0.01, 0.9)
    assert (protocol.weight_decay, protocol.cutmix) == (5e-4, 0)
    assert (protocol.student, protocol.batch_size) == ("convnet", 256)
    assert (protocol.augmentation, protocol.augmentation_rule) == (augmentation, "single")
    assert not protocol.align_corners


def test_published_idc() -> None:
    protocol = load_protocol("idc")
    assert (protocol.epochs_run, protocol.schedule, protocol.milestones) == (1000, "steps", (666, 833))
    assert (protocol.optimiser, protocol.lr, protocol.momentum) == ("sgd", 0.01, 0.9)
    assert (protocol.weight_decay, protocol.drop_factor, protocol.batch_size) == (5e-4, 0.2, 64)
    assert (protocol.cutmix, protocol.cutmix_beta) == (0.5, 1)
    assert (protocol.augmentation, protocol.augmentation_rule) == ("color_crop_flip_scale_rotate", "idc")
    assert not protocol.align_corners


IDC_LIKE = [("fashion-mnist", 10, 1500), ("cifar10", 50, 1500), (None, None, 1500), ("imagenette", 1, 2000)]
IDC_LIKE += [("imagewoof", 10, 1500), ("imagenette", 13, 1000), ("imagenette", 50, 1000)]
IDC_LIKE += [("imagefruit", 51, 500), ("imagefruit", 126, 300)]


@pytest.mark.parametrize(("dataset", "ipc", "epochs"), IDC_LIKE)
def test_dance_is_idc_for_other_epochs(dataset: str | None, ipc: int | None, epochs: int) -> None:
    mine, idc = load_protocol("dance", dataset, ipc), load_protocol("idc", dataset, ipc)
    assert mine.milestones == (2 * epochs // 3, 5 * epochs // 6)
    described = {"name": "dance", "title": mine.title, "source": mine.source}
    assert mine == dataclasses.replace(idc, epochs=epochs, **described)  # type: ignore[arg-type]


DISTRIBUTIONS: dict[str, dict[str, object]] = {
    "idm": {"epochs_run": 1001, "milestones": (502,), "batch_size": 256, "optimiser": "sgd", "lr": 0.01}
    | {"weight_decay": 5e-4, "augmentation_rule": "single", "cutmix": 0.0, "student": "convnet"},
    "datadam": {"epochs_run": 1801, "milestones": (902,), "batch_size": 64, "optimiser": "sgd", "lr": 0.01}
    | {"drop_factor": 0.1, "augmentation_rule": "single", "cutmix": 0.0, "student": "convnet-batch"},
    "ncfm": {"epochs_run": 2000, "milestones": (400, 800, 1200, 1600), "batch_size": 128}
    | {"optimiser": "adamw", "lr": 1e-3, "drop_factor": 0.5, "augmentation_rule": "idc", "cutmix": 0.5},
    "fyi": {"epochs_run": 1001, "milestones": (502,), "batch_size": 256, "optimiser": "sgd", "lr": 0.01}
    | {"augmentation_rule": "fyi", "align_corners": True, "momentum": 0.9},
    "fyi-mtt": {"epochs_run": 1001, "milestones": (502,), "batch_size": 256, "lr": "learned"}
    | {"augmentation_rule": "fyi", "align_corners": True, "drop_factor": 0.1},
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_published_protocols_of_distribution_matching_and_fyi(name: str) -> None:
    protocol = load_protocol(name)
    assert {key: getattr(protocol, key) for key in DISTRIBUTIONS[name]} == DISTRIBUTIONS[name]


TRAJECTORIES: dict[str, dict[str, float | None]] = {
    "mtt": {"batch_size": 256, "weight_decay": 5e-4, "drop_factor": 0.1, "momentum_after_drop": None},
    "datm": {"batch_size": 128, "weight_decay": 5e-4, "drop_factor": 0.1, "momentum_after_drop": None},
    "ast": {"batch_size": 256, "weight_decay": 1e-3, "drop_factor": 0.5, "momentum_after_drop": 0.8},
}


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_published_protocols_of_trajectory_matching(name: str) -> None:
    protocol = load_protocol(name)
    assert {key: getattr(protocol, key) for key in TRAJECTORIES[name]} == TRAJECTORIES[name]
    assert (protocol.lr, protocol.optimiser, protocol.momentum) == ("learned", "sgd", 0.9)
    assert (protocol.epochs_run, protocol.schedule, protocol.milestones) == (1001, "restart", (502,))
    assert (protocol.student, protocol.repeats, protocol.cutmix) == ("convnet", 5, 0)
    assert protocol.augmentation == "color_crop_cutout_flip_scale_rotate"
    assert (protocol.augmentation_rule, protocol.align_corners) == ("single", True)


@pytest.mark.parametrize("schedule", ["restart", "steps"])
def test_momentum_may_change_with_the_first_drop(schedule: str) -> None:
    protocol = load_protocol("ast", schedule=schedule, drop_at=(0.25, 0.75), epochs=8)
    momenta = [protocol.momentum_in(epoch) for epoch in range(protocol.epochs_run)]
    assert momenta == [0.9 if protocol.decay(epoch) == 1 else 0.8 for epoch in range(protocol.epochs_run)]
    assert momenta.count(0.9) == {"restart": 4, "steps": 2}[schedule]
    kept = load_protocol("mtt", epochs=8)
    assert {kept.momentum_in(epoch) for epoch in range(kept.epochs_run)} == {0.9}


def test_milestones_are_those_of_integer_arithmetic() -> None:
    idc = load_protocol("idc")
    for epochs in range(1, 3001):
        protocol = dataclasses.replace(idc, epochs=epochs)
        assert protocol.milestones == (2 * epochs // 3, 5 * epochs // 6)
    assert load_protocol("idc", drop_at=(0.8, 0.2, 0.6, 0.4), epochs=2000).milestones == (
        400,
        800,
        1200,
        1600,
    )
    assert load_protocol("dm", drop_at=(), epochs=5).milestones == ()


@pytest.mark.parametrize("schedule", ["restart", "steps"])
def test_decay_counts_the_drops_so_far(schedule: str) -> None:
    protocol = load_protocol("dm", schedule=schedule, drop_at=(0.5, 0.25), epochs=8)
    decays = [protocol.decay(epoch) for epoch in range(protocol.epochs_run)]
    expected = {"restart": [1] * 4 + [0.1] * 2 + [0.01] * 3, "steps": [1] * 2 + [0.1] * 2 + [0.01] * 4}
    assert decays == pytest.approx(expected[schedule])


def test_protocols_ship_with_a_source() -> None:
    assert {"ast", "datm", "dc", "dm", "dsa", "mtt"} <= set(PROTOCOLS.names())
    cited = ("arXiv", "ECCV", "ICML")
    assert all(any(each in load_protocol(name).source for each in cited) for name in PROTOCOLS.names())


def test_flip_only_where_it_keeps_the_label() -> None:
    protocol = load_protocol("dm")
    assert "flip" in protocol.augmentation_for(mirror=True).operators
    assert protocol.augmentation_for(mirror=False).operators == ("color", "crop", "cutout", "scale", "rotate")


def test_own_protocol_file_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('title = "t"\nsource = "s"\nepochs = 7\nlr = "learned"\n')
    protocol = load_protocol(path, repeats=2, epochs=None)
    assert (protocol.name, protocol.epochs, protocol.repeats) == ("mine", 7, 2)
    assert protocol.learning_rate(0.02) == 0.02
    with pytest.raises(UserError, match="learned lr"):
        protocol.learning_rate(None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("epoch = 3", "did you mean 'epochs'"),
        ("epochs = 0", "'epochs' is 0: .*greater than or equal to 1"),
        ('epochs = "three"', "valid integer"),
        ("lr = -1.0", "'lr' is -1.0"),
        ('augmentation = "crop_fl1p"', "did you mean 'flip'"),
        ('augmentation_rule = "singel"', "augmentation_rule"),
        ("drop_at = 0.5", "'drop_at' is 0.5: .*valid tuple"),
        ("drop_at = [0.5, 1.5]", "drop_at.1' is 1.5"),
        ('schedule = "linear"', "'schedule' is 'linear'"),
        ('optimiser = "lamb"', "'optimiser' is 'lamb'"),
        ("momentum_after_drop = 1.5", "'momentum_after_drop' is 1.5"),
        ("cutmix = 2.0", "'cutmix' is 2.0"),
        ("cutmix_beta = 0", "'cutmix_beta' is 0"),
        ("epochs = ", "not valid TOML"),
        ("augmentation_constants = { rule = 1.0 }", "unknown constant of the augmentation 'rule'"),
        ('transfer = { augmentation = "flop" }', "unknown augmentation operator 'flop'"),
    ],
)
def test_bad_protocols_are_one_sentence(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    lines = ['title = "t"', 'source = "s"', "epochs = 3"]
    path.write_text("\n".join([*(x for x in lines if x.split()[0] != line.split()[0]), line]))
    with pytest.raises(UserError, match=message) as caught:
        load_protocol(path)
    assert "\n" not in str(caught.value)


def test_unknown_protocol_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'dsa'"):
        load_protocol("dsaa")
    with pytest.raises(UserError, match="cannot read"):
        load_protocol("absent.toml")


def test_protocol_files_name_their_deviations() -> None:
    for path in (PACKAGE / "presets" / "protocols").glob("*.toml"):
        text = path.read_text()
        assert "published: " in text.lower()
        assert set(tomllib.loads(text)) <= {*Protocol.__dataclass_fields__, "settings"}
        assert all(setting.source for setting in protocol_settings(path.stem))


NCFM = [("tiny-imagenet", 1, 2000), ("tiny-imagenet", 10, 300), ("tiny-imagenet", 50, 40)]
NCFM += [("cifar10", 10, 2000), ("cifar10", 50, 2000), ("tiny-imagenet", None, 2000), (None, 50, 2000)]


@pytest.mark.parametrize(("dataset", "ipc", "epochs"), NCFM)
def test_ncfm_trains_for_fewer_epochs_on_tiny_imagenet(
    dataset: str | None, ipc: int | None, epochs: int
) -> None:
    protocol = load_protocol("ncfm", dataset, ipc)
    assert (protocol.epochs, protocol.training["epochs"]) == (epochs, epochs)
    assert protocol.milestones == tuple(epochs * fifth // 5 for fifth in (1, 2, 3, 4))
    assert dataclasses.replace(protocol, epochs=2000) == load_protocol("ncfm")  # nothing else depends on it
    assert load_protocol("ncfm", dataset, ipc, epochs=7).epochs == 7


def test_idm_takes_smaller_batches_on_imagenet() -> None:
    sizes = [load_protocol("idm", dataset).batch_size for dataset in ("imagenet", "imagenette", "cifar10")]
    assert sizes == [128, 128, 256]


OWN = """
title = "t"
source = "s"
epochs = 8
[[settings]]
when = { dataset = ["digits"] }
set = { epochs = 3 }
[[settings]]
when = { ipc_min = 5 }
per_ipc = { epochs = 2 }
"""


def test_own_protocols_have_settings_of_which_later_ones_win(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(OWN)
    places = [("digits", 4), ("digits", 5), ("svhn", 6), ("svhn", 1), (None, None)]
    assert [load_protocol(path, *place).epochs for place in places] == [3, 10, 12, 8, 8]
    words = [str(setting) for setting in protocol_settings(path)]
    assert words == ["digits: epochs = 3", "every data set from IPC 5: epochs = 2 x IPC"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('when = { dataset = ["svhn"] }\nset = { epoch = 3 }', "did you mean 'epochs'"),
        ('when = { dataset = ["svhn"] }\nset = { epochs = 0 }', "'epochs' is 0"),
        ('when = { dataset = "svhn" }\nset = { epochs = 3 }', "a list of names"),
        ('when = { network = "mlp" }\nset = { epochs = 3 }', "no such condition: network"),
        ("set = { epochs = 3 }", "takes when, set or per_ipc"),
        ("when = {}\nset = 3", "takes when, set or per_ipc"),
    ],
)
def test_settings_are_checked_wherever_they_hold(tmp_path: Path, table: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"{OWN}[[settings]]\n{table}\n")
    with pytest.raises(UserError, match=message) as caught:
        load_protocol(path, "digits", 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", ["3", "[3]"])
def test_settings_are_a_list_of_tables(tmp_path: Path, settings: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'title = "t"\nsource = "s"\nepochs = 8\nsettings = {settings}\n')
    with pytest.raises(UserError, match="a list of tables"):
        load_protocol(path)


# Cosine, labels and the protocols of decoupled methods ------------------------------------------------------


@pytest.mark.parametrize("stretch", [1.0, 2.0])
def test_the_cosine_ends_at_nothing_or_at_half(stretch: float) -> None:
    protocol = load_protocol("rded", epochs=300, stretch=stretch)
    found = [protocol.decay(epoch) for epoch in range(protocol.epochs_run)]
    assert len(found) == 300
    expected = [0.5 * (1 + math.cos(math.pi * epoch / (300 * stretch))) for epoch in range(300)]
    assert found == pytest.approx(expected)
    assert found[0] == 1
    assert found[-1] == pytest.approx(0 if stretch == 1 else 0.5, abs=0.01)


def test_the_warm_up_is_linear_and_the_cosine_that_of_the_epochs_after_it() -> None:
    protocol = load_protocol("sre2l", "tiny-imagenet", 50)
    found = [protocol.decay(epoch) for epoch in range(100)]
    assert found[:5] == pytest.approx([0.01, 0.208, 0.406, 0.604, 0.802])
    expected = [0.5 * (1 + math.cos(math.pi * epoch / 95)) for epoch in range(95)]
    assert found[5:] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "dataset", "ipc", "expected"),
    [
        ("sre2l", "cifar100", 10, ("teacher", 30.0, "train", 128, 1.0, 0.0)),
        ("wmdd", "imagenet", 10, ("views", 20.0, "eval", 100, 0.0, 1.0)),
        ("sre2l", "fashion-mnist", 10, ("teacher", 30.0, "train", 50, 1.0, 0.0)),
        ("sre2l", "tiny-imagenet", 50, ("teacher", 20.0, "eval", 256, 0.0, 0.0)),
        ("sre2l", "imagenet", 10, ("teacher", 20.0, "eval", 1024, 0.0, 1.0)),
        ("fkd", "imagenet", 10, ("views", 20.0, "eval", 1024, 0.0, 1.0)),
        ("rded", "cifar10", 1, ("teacher", 20.0, "eval", 10, 0.0, 1.0)),
        ("rded", "cifar10", 10, ("teacher", 20.0, "eval", 50, 0.0, 1.0)),
        ("rded", "cifar100", 50, ("teacher", 20.0, "eval", 200, 0.0, 1.0)),
        ("rded", "tiny-imagenet", 1, ("teacher", 20.0, "eval", 100, 0.0, 1.0)),
        ("cv-dd", "cifar10", 10, ("views", 20.0, "train", 16, 0.0, 1.0)),
        ("infer", "cifar10", 10, ("static", 30.0, "eval", 64, 1.0, 0.0)),
        ("infer-dynamic", "cifar10", 10, ("teacher", 30.0, "eval", 64, 1.0, 0.0)),
        ("cim", "cifar10", 1, ("teacher", 1.0, "eval", 10, 0.0, 0.0)),
        ("cim", "cifar100", 10, ("teacher", 1.0, "eval", 100, 0.0, 0.0)),
        ("pca-soft", "imagenet", 10, ("teacher", 20.0, "eval", 128, 0.0, 1.0)),
        ("pca-hard", "imagenet", 10, ("hard", 1.0, "eval", 128, 0.0, 0.0)),
        ("pca", "imagenet", 10, ("hard", 1.0, "eval", 128, 0.0, 0.0)),
        ("pca", "cifar10", 10, ("hard", 1.0, "eval", 50, 0.0, 0.0)),
        ("early-soft", "cifar10", 10, ("static", 1.0, "eval", 256, 0.0, 0.0)),
        ("hald", "imagenet", 10, ("views", 20.0, "eval", 16, 0.0, 1.0)),
    ],
)
def test_published_protocols_of_decoupled_methods(
    name: str, dataset: str, ipc: int, expected: tuple[object, ...]
) -> None:
    protocol = load_protocol(name, dataset, ipc)
    labels = protocol.labels
    how = labels.source, labels.temperature, labels.teacher_mode
    assert (*how, protocol.batch_size, protocol.mixup, protocol.cutmix) == expected


@pytest.mark.parametrize(
    ("dataset", "crop", "operators"),
    [
        ("cifar100", None, "crop_flip"),
        ("fashion-mnist", None, "crop_flip"),
        ("tiny-imagenet", (0.08, 1.0), "flip"),
        ("imagenet", (0.08, 1.0), "flip"),
    ],
)
def test_students_of_sre2l_see_one_kind_of_crop(
    dataset: str, crop: tuple[float, float] | None, operators: str
) -> None:
    protocol = load_protocol("sre2l", dataset, 10)
    found = protocol.transform_for(True).crop
    assert (found.scale if found else None) == crop
    assert protocol.augmentation == operators


def test_labels_of_protocols_in_detail() -> None:
    assert load_protocol("infer").labels.mixed == "logits"
    assert load_protocol("cim").labels.loss == "mse"
    assert load_protocol("gift").labels.loss == "gift"
    assert load_protocol("sre2l", "tiny-imagenet", 10).labels.temperature_squared
    assert not load_protocol("sre2l", "imagenet", 10).labels.temperature_squared
    hald = load_protocol("hald").labels
    assert (hald.smoothing, hald.phases) == (0.8, (("soft", 0.25), ("hard", 0.5), ("soft", 0.25)))
    assert load_protocol("rded", "imagenette", 10).patches == 2
    assert load_protocol("rded", "cifar10", 10).crop_scale is None


def test_another_source_of_labels_takes_the_place_of_the_protocols() -> None:
    assert load_protocol("nrr-dd").with_labels("hard").labels.loss == "ce"  # distances are of views
    assert load_protocol("rded").with_labels("views").labels.source == "views"
    assert load_protocol("rded").with_labels(None).labels.source == "teacher"
    with pytest.raises(UserError, match="unknown source of labels 'sott'"):
        load_protocol("rded").with_labels("sott")  # type: ignore[arg-type]


# Cells ------------------------------------------------------------------------------------------------------


def test_pca_is_its_bench_but_for_the_cells() -> None:
    pca, bench = load_protocol("pca", "imagenet", 10), load_protocol("pca-hard", "imagenet", 10)
    assert (pca.cells, bench.cells) == (2, 1)
    assert {**pca.training, "cells": 1} == bench.training
    assert pca.transform_for(mirror=True).cells == 2


def test_cells_are_an_augmentation() -> None:
    plain = load_protocol("dm", augmentation="none", labels={"source": "hard"})
    assert not plain.augments_for(mirror=False)
    assert dataclasses.replace(plain, cells=2).augments_for(mirror=False)
    assert not load_protocol("pca").unaugmented().augments_for(mirror=True)


def test_cells_take_hard_labels_alone() -> None:
    for source in ("static", "views", "teacher", "file"):
        with pytest.raises(UserError, match=r"labels of another source .* use hard labels") as caught:
            load_protocol("pca").with_labels(source)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    assert load_protocol("pca").with_labels("hard").cells == 2


def test_cells_divide_the_image() -> None:
    load_protocol("pca").check_size(28)
    load_protocol("pca-hard").check_size(27)
    with pytest.raises(
        UserError, match="'pca' takes images for grids of 2×2 cells, which do not divide 27×27"
    ):
        load_protocol("pca").check_size(27)


FREPO = {
    ("fashion-mnist", 1): (1000, 500),
    ("cifar10", 10): (2000, 500),
    ("cifar10", 50): (5000, 500),
    ("cifar100", 1): (2000, 500),
    ("cifar100", 10): (5000, 250),
    ("cifar100", 50): (4000, 50),
    ("tiny-imagenet", 1): (20000, 500),
    ("tiny-imagenet", 10): (10000, 125),
    ("folder:pets", 100): (5000, 250),
}
"""Epochs and those of the warm-up: one step each up to 500 images, more for larger sets."""


@pytest.mark.parametrize(("dataset", "ipc"), FREPO)
def test_frepo_as_published(dataset: str, ipc: int) -> None:
    protocol = load_protocol("frepo", dataset, ipc)
    assert (protocol.epochs_run, protocol.warmup_epochs) == FREPO[dataset, ipc]
    assert (protocol.optimiser, protocol.lr, protocol.weight_decay, protocol.batch_size) == (
        "adam",
        3e-4,
        0,
        500,
    )
    images = ipc * {"cifar100": 100, "tiny-imagenet": 200}.get(dataset, 10)
    steps = protocol.epochs * -(-images // 500)
    published = {10: 1000, 100: 2000, 200: 20000, 500: 5000, 1000: 10000, 2000: 40000, 5000: 40000}
    assert steps == published[images]
    assert protocol.warmup_epochs * -(-images // 500) == 500
    rates = [protocol.decay(epoch) for epoch in range(protocol.epochs_run)]
    assert rates[0] == 0
    assert rates[protocol.warmup_epochs] == max(rates) == 1
    assert rates[-1] == pytest.approx(0.01, abs=1e-4)
    middle = (protocol.warmup_epochs + protocol.epochs) // 2
    assert rates[middle] == pytest.approx(0.505, abs=1e-3)
    assert (protocol.labels.source, protocol.labels.loss, protocol.repeats) == ("file", "sse", 5)
    augmentation = protocol.augmentation_for(mirror=True)
    assert ("flip" in augmentation.operators) == (dataset != "fashion-mnist")
    assert (augmentation.brightness, augmentation.cutout_ratio, augmentation.scale) == (0.5, 0.25, 1.25)


def test_a_protocol_may_say_how_students_are_normalised() -> None:
    frepo = load_protocol("frepo")
    assert frepo.student_for("wideconvnet3-w16-inputbatch") == "wideconvnet3-w16-none"
    assert frepo.student_for("resnet18-batch,convnet") == "resnet18-batch"
    assert frepo.student_for("") == "wideconvnet-none"
    assert load_protocol("dm").student_for("wideconvnet-inputbatch") == "wideconvnet-inputbatch"


def test_fewer_epochs_shorten_a_warm_up_that_would_not_fit() -> None:
    assert load_protocol("frepo", epochs=100).warmup_epochs == 25
    assert load_protocol("frepo", epochs=501).warmup_epochs == 500
    assert load_protocol("frepo", epochs=600, warmup_epochs=7).warmup_epochs == 7
    assert load_protocol("sre2l", "tiny-imagenet", 10, epochs=4).warmup_epochs == 0
    with pytest.raises(UserError, match="warmup_epochs is below epochs = 3, not 9"):
        load_protocol("frepo", epochs=3, warmup_epochs=9)
    with pytest.raises(UserError, match="'warmup_epochs' is 'five'"):
        load_protocol("frepo", epochs=3, warmup_epochs="five")


def test_constants_of_an_augmentation_are_checked() -> None:
    with pytest.raises(UserError, match=r"augmentation scale must lie between 1 and 100, got 0\.5"):
        load_protocol("frepo", augmentation_constants={"scale": 0.5})
    with pytest.raises(UserError, match=r"constant of the augmentation 'sacle'; did you mean 'scale'"):
        load_protocol("frepo", augmentation_constants={"sacle": 1.5})
