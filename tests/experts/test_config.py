"""Recipes of experts hold the published numbers; their options are checked, written and compared."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from dsdistill import UserError
from dsdistill.config.presets import EXPERT_RECIPES
from dsdistill.config.recipe import Budget, load_expert_recipe
from dsdistill.config.validation import validate
from dsdistill.data.config import DataConfig
from dsdistill.experts import config as expert_config
from dsdistill.experts.automatic import decide_auto
from dsdistill.experts.config import ExpertConfig, Sharpness, resolve
from tests.helpers.experts import CPU, told, toys


def test_recipes_hold_the_published_settings() -> None:
    ncfm, mtt = (resolve({"recipe": name, "data": {"name": "cifar10"}}) for name in ("ncfm", "mtt"))
    assert (ncfm.count, ncfm.epochs, ncfm.stored_epochs, ncfm.batch_size, ncfm.cutmix) == (
        20,
        60,
        (0, 60),
        128,
        0.5,
    )
    assert [ncfm.learning_rate(epoch) for epoch in (0, 39, 40, 49, 50, 59)] == pytest.approx(
        [0.01, 0.01, 0.002, 0.002, 0.0004, 0.0004]
    )
    assert (ncfm.momentum, ncfm.weight_decay, ncfm.augmentation.rule) == (0.9, 5e-4, "idc")
    assert (mtt.count, mtt.epochs, mtt.stored_epochs, mtt.batch_size) == (100, 50, tuple(range(51)), 256)
    assert (mtt.momentum, mtt.weight_decay, mtt.cutmix, mtt.learning_rate(49)) == (0, 0, 0, 0.01)
    assert mtt.augmentation.align_corners
    assert "flip" not in mtt.augmentation.build(mirror=False).operators
    assert resolve({"recipe": "ncfm", "data": {"name": "imagewoof"}}).epochs == 80


def test_networks_of_dance_are_those_of_ncfm_in_smaller_batches_and_tgdd_keeps_their_epochs() -> None:
    def of(recipe: str, dataset: str = "cifar10") -> ExpertConfig:
        return resolve({"recipe": recipe, "data": {"name": dataset}})

    assert of("dance") == dataclasses.replace(of("ncfm"), recipe="dance", count=5, batch_size=64)
    assert of("tgdd") == dataclasses.replace(of("dance"), recipe="tgdd", keep="all")
    subset = of("dance", "imagewoof")
    assert (subset.epochs, subset.batch_size, subset.stored_epochs) == (80, 128, (0, 80))
    assert (of("tgdd", "imagewoof").stored_epochs, of("tgdd").stored_epochs) == (
        tuple(range(81)),
        tuple(range(61)),
    )


def test_networks_of_acc_dd_are_early() -> None:
    small, large = (
        resolve({"recipe": "acc-dd", "data": {"name": name}}) for name in ("cifar10", "imagenette")
    )
    assert (small.count, small.epochs, small.stored_epochs, small.batch_size) == (5, 2, (0, 2), 64)
    assert (small.lr, small.momentum, small.weight_decay, small.cutmix) == (0.01, 0.9, 5e-4, 0.5)
    assert [small.learning_rate(epoch) for epoch in (0, 1)] == [0.01, 0.01]
    assert (large.network, large.epochs, large.cutmix) == ("resnetap10", 10, 1)
    assert [large.learning_rate(epoch) for epoch in (6, 7, 8, 9)] == pytest.approx([0.01, 0.002, 0.002, 4e-4])
    hurried = resolve({"recipe": "acc-dd", "data": {"name": "imagenette"}}, budget="laptop")
    assert hurried.learning_rate(0) == 0.01


def test_recipes_of_flat_and_smooth_trajectories_hold_the_published_settings() -> None:
    def of(recipe: str, dataset: str = "cifar10") -> ExpertConfig:
        return resolve({"recipe": recipe, "data": {"name": dataset}})

    mtt, ftd, datm, ast = (of(recipe) for recipe in ("mtt", "ftd", "datm", "ast"))
    sharpness = Sharpness(rho=0.01, alpha=0.3)
    assert ftd == dataclasses.replace(mtt, recipe="ftd", sharpness=sharpness)
    assert datm == dataclasses.replace(ftd, recipe="datm", epochs=100)
    assert [of("ftd", each).sharpness.alpha for each in ("cifar100", "tiny-imagenet", "svhn")] == [1, 1, 0.3]
    assert of("datm", "cifar100").sharpness == sharpness
    assert (mtt.sharpness, mtt.gradient_penalty, mtt.loss_weight(0)) == (Sharpness(), 0, 1)

    assert (ast.lr, ast.momentum, ast.weight_decay) == (0.003, 0.9, 1e-3)
    assert (ast.epochs, ast.batch_size, ast.stored_epochs) == (50, 256, tuple(range(51)))
    assert [ast.learning_rate(epoch) for epoch in (0, 26, 27, 49)] == pytest.approx(
        [0.003, 0.003, 0.0018, 0.0018]
    )
    assert (ast.drop_epochs, ast.drop_restarts, ast.gradient_penalty) == ([27], True, 2)
    ramp = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1, 1]
    assert [ast.loss_weight(epoch) for epoch in range(12)] == pytest.approx(ramp)
    assert (ast.augmentation, ast.sharpness) == (mtt.augmentation, Sharpness())


def test_recipes_of_teachers_hold_the_published_settings() -> None:
    def of(recipe: str, dataset: str = "cifar100") -> ExpertConfig:
        return resolve({"recipe": recipe, "data": {"name": dataset}})

    teacher, tiny = of("teacher"), of("teacher", "tiny-imagenet")
    assert (teacher.network, teacher.count, teacher.test) == ("resnet18-batch", 1, "stored")
    assert (teacher.epochs, teacher.batch_size, teacher.momentum, teacher.weight_decay) == (
        200,
        128,
        0.9,
        5e-4,
    )
    assert (teacher.optimiser, teacher.schedule, teacher.warmup_epochs) == ("sgd", "cosine", 0)
    assert teacher.stored_epochs == (0, 1, 2, 4, 8, 16, 32, 64, 128, 200)
    assert [teacher.learning_rate(epoch) for epoch in (0, 50, 100, 150)] == pytest.approx(
        [0.1, 0.05 + 0.05 * 2**-0.5, 0.05, 0.05 - 0.05 * 2**-0.5]
    )
    augmentation = teacher.augmentation.build(mirror=True)
    assert (augmentation.operators, augmentation.shift(32)) == (("crop", "flip"), 4)
    assert (tiny.epochs, tiny.batch_size, tiny.weight_decay) == (50, 256, 1e-4)
    assert [tiny.learning_rate(epoch) for epoch in (0, 1, 5, 27.5)] == pytest.approx(
        [0.002, 0.2 * (0.01 + 0.99 / 5), 0.2, 0.1]
    )
    assert of("teacher", "cifar10") == dataclasses.replace(teacher, data=DataConfig(name="cifar10"))

    early, mtt = of("early-teacher"), of("mtt")
    assert (early.lr, early.count, early.epochs, early.stored_epochs) == (1e-3, 1, 150, tuple(range(151)))
    assert of("early-teacher", "cifar10").epochs == 400
    assert dataclasses.replace(early, recipe="mtt", lr=0.01, count=100, epochs=50, test="none") == mtt


def test_the_recipe_of_el2n_is_ten_epochs_at_a_constant_rate() -> None:
    def of(dataset: str, budget: Budget = "paper") -> ExpertConfig:
        return resolve({"recipe": "el2n", "data": {"name": dataset}}, budget=budget)

    el2n, laptop, large = of("cifar10"), of("fashion-mnist", "laptop"), of("imagenet")
    assert (el2n.network, el2n.count, el2n.epochs, el2n.record_el2n) == ("resnet18-batch", 1, 10, 10)
    assert (el2n.batch_size, el2n.momentum, el2n.weight_decay, el2n.test) == (256, 0.9, 5e-4, "none")
    assert {el2n.learning_rate(epoch) for epoch in range(10)} == {0.1}
    assert el2n.augmentation == of("cifar100").augmentation
    assert (laptop.network, laptop.count, laptop.epochs) == ("resnet10-batch-w16", 2, 2)
    assert (large.weight_decay, large.crop_scale) == (1e-4, (0.08, 1.0))


@pytest.mark.parametrize(
    ("epochs", "stored"),
    [(1, (0, 1)), (2, (0, 1, 2)), (3, (0, 1, 2, 3)), (8, (0, 1, 2, 4, 8)), (9, (0, 1, 2, 4, 8, 9))],
)
def test_stored_epochs_that_double_end_with_the_last(epochs: int, stored: tuple[int, ...]) -> None:
    assert told("mtt", keep="doubling", epochs=epochs).stored_epochs == stored


@pytest.mark.parametrize(("keep", "stored"), [("ends", (0, 7)), ("last", (7,)), ([3, 0], (0, 3))])
def test_stored_epochs_are_the_ends_the_last_or_those_listed(keep: Any, stored: tuple[int, ...]) -> None:
    assert told("mtt", keep=keep, epochs=7).stored_epochs == stored


def test_warming_up_precedes_either_schedule() -> None:
    cosine = told("mtt", epochs=6, lr=1.0, schedule="cosine", warmup_epochs=2, warmup_from=0.5)
    rates = [cosine.learning_rate(epoch) for epoch in range(6)]
    assert rates == pytest.approx([0.5, 0.75, 1.0, 0.5 + 0.5 * 2**-0.5, 0.5, 0.5 - 0.5 * 2**-0.5])
    steps = told("mtt", epochs=4, lr=1.0, warmup_epochs=2, warmup_from=0.0, drop_at=[0.25, 0.75])
    assert [steps.learning_rate(epoch) for epoch in range(4)] == pytest.approx([0.0, 0.05, 0.1, 0.01])
    forever = told("mtt", epochs=2, lr=1.0, schedule="cosine", warmup_epochs=4, warmup_from=0.0)
    assert [forever.learning_rate(epoch) for epoch in range(2)] == [0.0, 0.25]


def test_weights_depend_on_no_test_image() -> None:
    one, other = (expert_config.weights(told("mtt", test=test)) for test in ("none", "stored"))
    assert one == other
    assert expert_config.weights(told("mtt", optimiser="adam")) != one
    assert expert_config.weights(told("mtt", test="validation")) == {**one, "test": "validation"}


def test_difficulty_is_not_recorded_of_a_part_of_the_images() -> None:
    with pytest.raises(
        UserError, match="of all training images, and test=validation holds some out"
    ) as caught:
        told("mtt", test="validation", record_el2n=1)
    assert "\n" not in str(caught.value)


def test_a_config_survives_being_written() -> None:
    for name in EXPERT_RECIPES.names():
        config = told(name)
        written = expert_config.to_toml(config)
        table = tomllib.loads(written)
        assert validate(ExpertConfig, table, "option", []) == config
        assert expert_config.difference(tomllib.loads(written), config) is None
        later = (
            "optimiser",
            "schedule",
            "warmup_epochs",
            "warmup_from",
            "label_smoothing",
            "test",
            "record_el2n",
            "objective",
            "twins",
        )
        for key in (*later, "sharpness", "gradient_penalty", "ramp_epochs", "ramp_from", "drop_restarts"):
            del table[key]
        if name in ("mtt", "ncfm"):  # as written before there were these options
            assert expert_config.difference(table, config) is None


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("sharpness.rho=0.05", ("sharpness.rho", 0.01, 0.05)),
        ("sharpness.alpha=1.0", ("sharpness.alpha", 0.3, 1.0)),
        ("gradient_penalty=1.0", ("gradient_penalty", 0.0, 1.0)),
        ("ramp_epochs=3", ("ramp_epochs", 0, 3)),
        ("ramp_from=0.5", ("ramp_from", 1.0, 0.5)),
        ("drop_restarts=true", ("drop_restarts", False, True)),
        ("optimiser=adamw", ("optimiser", "sgd", "adamw")),
        ("schedule=cosine", ("schedule", "steps", "cosine")),
        ("warmup_epochs=2", ("warmup_epochs", 0, 2)),
        ("label_smoothing=0.1", ("label_smoothing", 0.0, 0.1)),
        ("test=stored", ("test", "none", "stored")),
        ("test=validation", ("test", "none", "validation")),
    ],
)
def test_options_that_make_other_experts_are_named(option: str, values: tuple[str, Any, Any]) -> None:
    given = {"recipe": "ftd", "data": {"name": "digits"}}
    before = tomllib.loads(expert_config.to_toml(resolve(given)))
    assert expert_config.difference(before, resolve(given, [option])) == values
    assert expert_config.difference(before, resolve(given)) is None


def test_sharpness_is_computed_in_float32_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsdistill.runtime.device._multiplies_bf16", lambda device: True)
    found = {
        (recipe, asked): decide_auto(
            resolve({"recipe": recipe, "data": {"name": "digits"}, "compute": {"precision": asked}}),
            *toys(),
            CPU,
            print,
        ).compute.precision
        for recipe in ("mtt", "ftd")
        for asked in ("auto", "bf16")
    }
    assert found == {
        ("mtt", "auto"): "bf16",
        ("mtt", "bf16"): "bf16",
        ("ftd", "auto"): "fp32",
        ("ftd", "bf16"): "bf16",
    }


def test_a_slow_precision_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsdistill.runtime.device._multiplies_bf16", lambda device: False)
    said: list[str] = []
    asked = {"recipe": "mtt", "data": {"name": "digits"}, "compute": {"precision": "bf16"}}
    decide_auto(resolve(asked), *toys(), CPU, said.append)
    assert sum("emulates bf16" in sentence for sentence in said) == 1


def test_every_recipe_loads_and_a_file_is_one_too(tmp_path: Path) -> None:
    assert EXPERT_RECIPES.names() == [
        "acc-dd",
        "ast",
        "barlow-twins",
        "dance",
        "datm",
        "dsdistill",
        "early-teacher",
        "el2n",
        "ftd",
        "mtt",
        "ncfm",
        "teacher",
        "tgdd",
    ]
    for name in EXPERT_RECIPES.names():
        recipe = load_expert_recipe(name)
        assert recipe.follows == ("paper" if name in ("barlow-twins", "dsdistill") else "code")
        assert recipe.paper
    mine = tmp_path / "mine.toml"
    mine.write_text('title="t"\npaper="p"\nfollows="paper"\n[defaults]\ncount = 1\nepochs = 1\n')
    assert resolve({"recipe": str(mine), "data": {"name": "digits"}}).count == 1


@pytest.mark.parametrize(
    ("options", "override", "words"),
    [
        ({}, "lr=0.1", "no data set given"),
        ({"data": {"name": "digits"}}, "lr=0.1", "no recipe given"),
        ({"data": {"name": "digits"}, "recipe": "ncmf"}, "lr=0.1", "did you mean 'ncfm'"),
        ({"data": {"name": "digits"}, "recipe": "ncfm"}, "momentun=0.1", "did you mean 'momentum'"),
        ({"data": {"name": "digits"}, "recipe": "ncfm"}, "keep=[0,61]", "keep lists epochs from 0"),
        ({"data": {"name": "digits"}, "recipe": "ncfm"}, "keep=some", "'keep' is 'some'"),
        ({"data": {"name": "digits"}, "recipe": "ncfm"}, "lr=0", "'lr' is 0"),
        ({"data": {"name": "digits"}, "recipe": "ncfm"}, "count=0", "'count' is 0"),
        ({"data": {"name": "digits"}, "recipe": "ftd"}, "sharpness.roh=0.1", "did you mean 'sharpness.rho'"),
        ({"data": {"name": "digits"}, "recipe": "ftd"}, "sharpness.rho=-1", "'sharpness.rho' is -1"),
        ({"data": {"name": "digits"}, "recipe": "ftd"}, "sharpness=1", "'sharpness' is a table"),
        ({"data": {"name": "digits"}, "recipe": "ast"}, "ramp_from=2", "'ramp_from' is 2"),
        ({"data": {"name": "digits"}, "recipe": "teacher"}, "optimiser=lion", "'optimiser' is 'lion'"),
        ({"data": {"name": "digits"}, "recipe": "teacher"}, "label_smoothing=1", "'label_smoothing' is 1"),
        ({"data": {"name": "digits"}, "recipe": "teacher"}, "schedule=linear", "'schedule' is 'linear'"),
        ({"data": {"name": "digits"}, "recipe": "techer"}, "lr=0.1", "did you mean 'teacher'"),
    ],
)
def test_bad_options_get_a_sentence(options: dict[str, Any], override: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(options, [override])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


HEAD = 'title="t"\npaper="p"\nfollows="paper"\n'


def test_recipes_of_experts_begin_from_others_and_depend_on_the_data(tmp_path: Path) -> None:
    mine, yours = tmp_path / "mine.toml", tmp_path / "yours.toml"
    table = '[[settings]]\nwhen = { dataset = ["digits"] }\nset = { epochs = 3 }\nsource = "ours"\n'
    mine.write_text(HEAD + 'base = "yours.toml"\n[defaults]\nlr = 0.5\n' + table)
    yours.write_text(HEAD + 'base = "ftd"\n[defaults]\nmomentum = 0.25\nlr = 0.125\n')
    config = resolve({"recipe": str(mine), "data": {"name": "digits"}})
    assert (config.recipe, config.epochs, config.lr, config.momentum) == (str(mine), 3, 0.5, 0.25)
    assert config.sharpness == Sharpness(rho=0.01, alpha=0.3)
    assert resolve({"recipe": str(mine), "data": {"name": "svhn"}}).epochs == 50
    assert [recipe.name for recipe in load_expert_recipe(str(mine)).lineage()] == ["mine", "yours", "ftd"]
    yours.write_text(HEAD + 'base = "mine.toml"\n')
    with pytest.raises(UserError, match=r"recipe 'mine' begins from '.*yours.toml', which begins from it"):
        resolve({"recipe": str(mine), "data": {"name": "digits"}})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("set = { lr = 0.1 }", "takes when, set or per_ipc, and source"),
        ("when = {}\nste = { lr = 0.1 }", "takes when, set or per_ipc, and source"),
        ("when = { ipc_min = 10 }\nset = { lr = 0.1 }", "no such condition: ipc_min"),
        ("when = {}\nper_ipc = { lr = 0.1 }", "nothing here depends on the IPC; put per_ipc into set"),
        ('when = { dataset = "digits" }\nset = { lr = 0.1 }', "dataset is a list of names, not 'digits'"),
    ],
)
def test_settings_of_expert_recipes_are_checked(tmp_path: Path, table: str, message: str) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(HEAD + "[defaults]\ncount = 1\nepochs = 1\n[[settings]]\n" + table + "\n")
    with pytest.raises(UserError, match=f"recipe 'mine': .*{message}"):
        resolve({"recipe": str(mine), "data": {"name": "digits"}})


def test_graphs_are_for_steps_of_one_pass_on_a_gpu() -> None:
    def mode(device: str, **options: Any) -> Any:
        task, real = toys()
        return decide_auto(told(**options), task, real, torch.device(device), print).compute.cuda_graphs

    asked = {"compute": {"cuda_graphs": True, "device": "cpu"}}
    assert mode("cpu") is False
    with pytest.raises(UserError, match=r"compute\.cuda_graphs=true needs a CUDA device"):
        mode("cpu", **asked)
    assert mode("cuda") == "auto"
    assert mode("cuda", **asked) is True
    assert mode("cuda", gradient_penalty=1.0) is False
    with pytest.raises(UserError, match=r"cuda_graphs=true does not go with gradient_penalty"):
        mode("cuda", gradient_penalty=1.0, **asked)
