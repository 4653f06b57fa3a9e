from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dsdistill import runtime, storage
from dsdistill.data import catalog
from dsdistill.data.catalog import DataConfig
from dsdistill.data.preprocess import Standardise
from dsdistill.data.real import RealDataset, Task
from dsdistill.errors import UserError
from dsdistill.evaluation import baselines
from dsdistill.evaluation.cohorts import CPU, Cohorts, Execution, Single, Stacked, stackable
from dsdistill.evaluation.judge import judge
from dsdistill.evaluation.protocol import Protocol, load_protocol, protocol_names
from dsdistill.evaluation.run import evaluate
from dsdistill.evaluation.students import HeldOut, _fit, accuracies, train_student, train_students
from dsdistill.networks import Network, build
from dsdistill.seeding import fenced, generator
from dsdistill.selection import random_selection
from dsdistill.storage import DistilledDataset, DistilledSet
from tests.reference import student as reference

SIZE, CLASSES = 8, 3
NETWORK = (
    "convnet2-w8"  # a third block would normalise maps of 2×2, then average them: hardly anything is left
)
PACKAGE = Path(runtime.__file__).parent
PREPROCESS = Standardise.of((0.5,), (0.25,))


def tiny(**changes: object) -> Protocol:
    values: dict[str, object] = {"epochs": 4, "batch_size": 4, "repeats": 2, "lr": 0.05}
    return load_protocol("dm", **{**values, **changes})


def fresh(repeat: int, name: str = NETWORK) -> Network:
    with fenced(0, "test", repeat):
        return build(name, 1, SIZE, CLASSES)


def real(per_class: int, seed: int = 0, split: str = "train") -> RealDataset:
    """Stripes: class 0 flat, 1 horizontal, 2 vertical, under noise; learnable, but not at once."""
    labels = torch.arange(CLASSES).repeat_interleave(per_class)
    noise = torch.rand(len(labels), 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    stripes = torch.zeros(CLASSES, 1, SIZE, SIZE)
    stripes[1, :, ::2] = stripes[2, :, :, ::2] = 0.5
    pixels = (stripes[labels] + 0.5 * noise).mul(255).to(torch.uint8)
    return RealDataset("stripes", split, pixels, labels, ("flat", "rows", "columns"))


def task(mirror: bool = False, size: int = SIZE) -> Task:
    return Task("stripes", real(1).classes, 1, size, PREPROCESS, mirror)


def distilled(per_class: int = 3, soft: bool = False, **attributes: str | int | float) -> DistilledDataset:
    data = real(per_class, seed=5)
    logits = torch.nn.functional.one_hot(data.labels, CLASSES).float() * 3 if soft else None
    images = data.unit(slice(None))
    whole = DistilledSet(images, data.labels, data.classes, PREPROCESS, logits, attributes=attributes)
    return DistilledDataset(whole)


def training_set(seed: int = 5, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    data = real(3, seed)
    return PREPROCESS.to(dtype=dtype)(data.unit(slice(None)).to(dtype)), data.labels


def held_out() -> HeldOut:
    return HeldOut(real(40, seed=1, split="test"), PREPROCESS, CPU)


def weights(network: Network) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


# Protocols --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "epochs", "drop", "augmentation"),
    [
        ("dc", 300, 151, "none"),
        ("dsa", 1000, 501, "color_crop_cutout_flip_scale_rotate"),
        ("dm", 1000, 501, "color_crop_cutout_flip_scale_rotate"),
    ],
)
def test_published_protocols(name: str, epochs: int, drop: int, augmentation: str) -> None:
    protocol = load_protocol(name)
    assert protocol.name == name
    assert (protocol.epochs, protocol.drop_epoch, protocol.drop_factor) == (epochs, drop, 0.1)
    assert (protocol.lr, protocol.momentum, protocol.weight_decay) == (0.01, 0.9, 5e-4)
    assert (protocol.student, protocol.batch_size) == ("convnet", 256)
    assert (protocol.augmentation, protocol.augmentation_rule) == (augmentation, "single")
    assert not protocol.align_corners


def test_protocols_ship_with_a_source() -> None:
    assert protocol_names() == ["dc", "dm", "dsa"]
    assert all("arXiv" in load_protocol(name).source for name in protocol_names())


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
        ("epochs = ", "not TOML"),
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
    with pytest.raises(UserError, match="cannot read protocol"):
        load_protocol("absent.toml")


# Training one student ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [False, True])
def test_student_equals_the_plain_loop(soft: bool) -> None:
    protocol = tiny(epochs=5)
    augmentation = protocol.augmentation_for(mirror=True)
    images, labels = training_set(dtype=torch.float64)
    targets = torch.randn(len(labels), CLASSES, dtype=torch.float64, generator=generator(3, "t"))
    targets = targets if soft else labels

    def augment(x: Tensor, epoch: int, batch: int) -> Tensor:
        source = generator(7, "student-augment", 1, epoch, batch)
        return augmentation(x, augmentation.draw(len(x), SIZE, source, shared_operator=True))

    plain = fresh(0).double()
    rates = reference.train(
        plain,
        images,
        targets,
        epochs=5,
        batch_size=4,
        lr=0.05,
        order=lambda epoch: torch.randperm(len(images), generator=generator(7, "students", 1, epoch)),
        augment=augment,
        soft=soft,
    )
    ours = train_student(fresh(0).double(), images, targets, protocol, augmentation, seed=7, repeat=1)
    assert rates == pytest.approx([0.05, 0.05, 0.05, 0.05, 0.005, 0.005])  # E + 1 epochs, drop after 5//2 + 1
    torch.testing.assert_close(weights(ours), weights(plain), rtol=0, atol=1e-11)


def test_momentum_restarts_at_the_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, float]] = []
    taken = itertools.count()
    steps = []

    class Counting(torch.optim.SGD):
        def __init__(self, *args: object, lr: float, **options: object) -> None:
            super().__init__(*args, lr=lr, **options)  # type: ignore[arg-type]
            made.append((len(steps), lr))

        def step(self, *args: object) -> None:  # type: ignore[override]
            steps.append(next(taken))
            super().step()

    monkeypatch.setattr(torch.optim, "SGD", Counting)
    protocol = tiny(epochs=6)
    train_student(fresh(0), *training_set(), protocol, protocol.augmentation_for(False), seed=0)
    per_epoch = 3  # 9 images in batches of 4: the short one is kept
    assert len(steps) == 7 * per_epoch
    assert made == [(0, 0.05), (5 * per_epoch, pytest.approx(0.005))]  # epochs 0 … 4 at the full rate


def test_accuracy_pads_the_last_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    test, network = real(5, split="test"), fresh(0)
    monkeypatch.setattr("dsdistill.evaluation.students._TEST_PIXELS", 4 * SIZE**2)  # chunks 4, 4, 4, 3
    shapes = [(x.shape[0], len(y)) for x, y in HeldOut(test, PREPROCESS, CPU)]
    assert shapes == [(4, 4), (4, 4), (4, 4), (4, 3)]
    predicted = network(PREPROCESS(test.unit(slice(None)))).argmax(1)
    expected = (predicted == test.labels).float().mean().item()
    found = accuracies(Single(network, Execution()), HeldOut(test, PREPROCESS, CPU), Execution())
    assert found == [pytest.approx(expected)]


def test_dropout_draws_from_the_seed_alone() -> None:
    def trained(disturb: int) -> Tensor:
        network = fresh(0)
        network.classifier = torch.nn.Sequential(torch.nn.Dropout(0.5), network.classifier)
        torch.rand(disturb)
        return weights(
            train_student(network, *training_set(), tiny(), tiny().augmentation_for(False), seed=0)
        )

    assert torch.equal(trained(1), trained(5))


# Many students ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-11)])
@pytest.mark.parametrize("own_sets", [False, True])
def test_stacked_students_equal_single_ones(dtype: torch.dtype, tolerance: float, own_sets: bool) -> None:
    protocol = tiny(epochs=3)
    augmentation = protocol.augmentation_for(mirror=True)
    common = training_set(dtype=dtype)
    sets = [training_set(seed, dtype) if own_sets else common for seed in range(3)]
    networks = [fresh(repeat).to(dtype) for repeat in range(3)]
    stacked = Stacked(networks, Execution())
    repeats = [4, 5, 6]
    _fit(stacked, sets, repeats, protocol, augmentation, 0, None, Execution(), lambda done, total: None)
    for i, (network, (images, labels)) in enumerate(zip(networks, sets, strict=True)):
        train_student(network, images, labels, protocol, augmentation, seed=0, repeat=repeats[i])
        ours = torch.cat([p.detach()[i].flatten() for p in stacked.parameters])
        torch.testing.assert_close(ours, weights(network), rtol=0, atol=tolerance)


@pytest.mark.parametrize("together", [3, 2])
def test_stacking_keeps_accuracies(monkeypatch: pytest.MonkeyPatch, together: int) -> None:
    monkeypatch.setattr("dsdistill.evaluation.students._STACKED_PIXELS", together * 4 * SIZE**2)
    protocol = tiny(repeats=3, epochs=12, augmentation="color_crop_flip")
    augmentation = protocol.augmentation_for(mirror=False)
    common = training_set()
    seen: list[tuple[int, int]] = []
    found = [
        train_students(
            fresh,
            lambda repeat: common,
            held_out(),
            protocol,
            augmentation,
            Cohorts(Execution()),
            seed=0,
            stack=stack,
            tick=lambda done, total: seen.append((done, total)),
        )
        for stack in (False, True)
    ]
    assert found[0] == found[1]
    assert len(set(found[0])) > 1
    assert seen[-1] == (3 * 13 * 3, 3 * 13 * 3)


def test_what_can_be_stacked() -> None:
    assert stackable(fresh(0))
    assert not stackable(fresh(0, "convnet2-w8-batch"))
    with pytest.raises(UserError, match="cannot be stacked"):
        judge(distilled(), task(), real(9), real(9), tiny(), ["convnet2-w8-batch"], stack=True)


def test_refilled_cohorts_never_recompile() -> None:
    """Two sets, three students each, two batch shapes: each piece of code is compiled once per shape."""
    compiled: list[tuple[int, ...]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        compiled.append(tuple(x.shape[0] for x in inputs if x.dim() == 4 and x.shape[1] == 1))
        return graph.forward

    class Recording(Execution):
        def prepared(self, function):  # type: ignore[no-untyped-def]
            return torch.compile(function, dynamic=False, backend=backend)

    protocol = tiny(repeats=3, epochs=2)
    augmentation = protocol.augmentation_for(mirror=False)
    cohorts, plain = Cohorts(Recording()), Cohorts(Execution())
    for seed in (5, 6):
        common = training_set(seed)
        found, expected = (
            train_students(
                fresh, lambda repeat, s=common: s, held_out(), protocol, augmentation, c, seed=seed
            )
            for c in (cohorts, plain)
        )
        assert found == pytest.approx(expected, abs=0.02)
    assert len(compiled) == 3, compiled  # batches of 4 and of 1, and the test chunk


# The judge --------------------------------------------------------------------------------------------------


def test_judge_rows() -> None:
    seen: list[tuple[str, int, int]] = []
    names = [NETWORK, "mlp", NETWORK]
    protocol = tiny(repeats=3)
    rows = judge(
        distilled(),
        task(),
        real(30),
        real(40, 1, "test"),
        protocol,
        names,
        progress=lambda what, done, total: seen.append((what, done, total)),
    )
    assert [(row.network, row.set) for row in rows] == [
        (NETWORK, "distilled"),
        (NETWORK, "random"),
        ("mlp", "distilled"),
        ("mlp", "random"),
    ]
    for row in rows:
        assert (row.protocol, row.images, len(row.values)) == ("dm", 9, 3)
        assert row.mean == pytest.approx(sum(row.values) / 3)
        assert row.std == pytest.approx(statistics.stdev(row.values))
        assert 0 <= min(row.values) <= max(row.values) <= 100
    assert seen[-1][1] == seen[-1][2] == 4 * 3 * 5 * 3
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_judge_is_deterministic_whatever_else_is_judged() -> None:
    plain = tiny(augmentation="none", epochs=8)

    def values(networks: list[str], seed: int = 0) -> list[float]:
        rows = judge(distilled(), task(), real(30), real(40, 1), plain, networks, seed=seed)
        return [value for row in rows if row.network == NETWORK for value in row.values]

    alone = values([NETWORK])
    assert alone == values(["mlp", NETWORK])
    assert alone != values([NETWORK], seed=1)


def test_students_learn() -> None:
    protocol = tiny(epochs=30, augmentation="none")
    (row,) = judge(distilled(), task(), real(3), real(40, 1), protocol, [NETWORK], baselines=())
    assert row.mean > 80
    (alone,) = judge(distilled(), task(), real(3), real(40, 1), tiny(repeats=1), ["mlp"], baselines=())
    assert alone.std == 0


def test_soft_labels_train_the_student() -> None:
    protocol = tiny(epochs=10, augmentation="none")
    soft, hard = (
        judge(distilled(soft=soft), task(), real(9), real(40, 1), protocol, [NETWORK], baselines=())[0]
        for soft in (True, False)
    )
    assert soft.mean > 50
    assert soft.values != hard.values


def test_random_baseline_is_fresh_per_repeat_and_of_the_same_counts() -> None:
    data, counts = real(20), torch.tensor([1, 3, 2])
    first, again, other = (baselines.baseline("random", data, counts, PREPROCESS, 0, r) for r in (0, 0, 1))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(torch.bincount(first[1]), counts)
    chosen = random_selection(data, counts, generator(0, "s"))
    assert len(set(chosen.tolist())) == 6
    assert torch.equal(data.labels[chosen], torch.tensor([0, 1, 1, 1, 2, 2]))


@pytest.mark.parametrize(
    ("judged", "options", "message"),
    [
        (Task("two", ("a", "b"), 1, SIZE, PREPROCESS, True), {}, "3 classes but two has 2"),
        (Task("abc", ("flat", "b", "c"), 1, SIZE, PREPROCESS, True), {}, "class 1 is 'rows'"),
        (task(size=16), {}, "1×8×8 but stripes is loaded at 1×16×16"),
        (task(), {"networks": ["resnet8"]}, "unknown network 'resnet8'"),
        (task(), {"baselines": ["randon"]}, "did you mean 'random'"),
    ],
)
def test_misfits_are_one_sentence(judged: Task, options: dict[str, list[str]], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        judge(distilled(), judged, real(9), real(9), tiny(), **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_too_few_real_images_are_said() -> None:
    with pytest.raises(UserError, match="has 2 train images, fewer than the 3"):
        judge(distilled(), task(), real(2), real(9), tiny(epochs=1), ["mlp"])


# From file to report ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two random digits of each class, as a distilled set."""
    task, train = catalog.load(DataConfig(name="digits"), "train")
    chosen = random_selection(train, torch.full((10,), 2), generator(0, "digits"))
    about = {"dataset": "digits", "data": json.dumps({"name": "digits", "size": None, "zca": True})}
    about |= {"network": "convnet3-w8", "fingerprint": train.fingerprint}
    images = train.unit(chosen)
    path = tmp_path_factory.mktemp("sets") / "set.h5"
    made = DistilledSet(images, train.labels[chosen], train.classes, task.preprocess, attributes=about)
    storage.write(path, made)
    return path


def test_evaluate_writes_json_and_results(digits_file: Path, tmp_path: Path) -> None:
    said: list[str] = []
    report = evaluate(
        digits_file,
        repeats=2,
        epochs=3,
        device="cpu",
        json=tmp_path / "report.json",
        notify=said.append,
    )
    assert said == []
    written = json.loads((tmp_path / "report.json").read_text())
    assert written == json.loads(json.dumps(report.to_dict()))
    assert {"rows", "file", "dataset", "epochs", "seed", "machine", "date", "packages"} <= set(written)
    assert [row["set"] for row in written["rows"]] == ["distilled", "random"]
    assert set(written["rows"][0]) >= {"set", "network", "protocol", "mean", "std", "values"}
    assert written["rows"][0]["network"] == "convnet3-w8"
    assert (written["dataset"], written["epochs"], written["repeats"]) == ("digits", 3, 2)
    stored = storage.results(digits_file)
    assert [row["values"] for row in stored] == [row["values"] for row in written["rows"]]
    assert stored[0]["dataset"] == "digits"
    assert storage.load(digits_file).classes  # still verifies


def test_evaluate_across_networks_without_saving(digits_file: Path) -> None:
    before = storage.results(digits_file)
    report = evaluate(
        digits_file,
        networks="mlp, convnet3-w8",
        baselines="",
        repeats=1,
        epochs=2,
        protocol="dc",
        device="cpu",
        precision="fp32",
        save=False,
    )
    assert [(row.network, row.set) for row in report.rows] == [
        ("mlp", "distilled"),
        ("convnet3-w8", "distilled"),
    ]
    assert storage.results(digits_file) == before
    table = report.table()
    assert table.row_count == 2
    assert "digits" in str(table.title)


def test_evaluate_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    data = real(2)
    storage.write(path, DistilledSet(data.unit(slice(None)), data.labels, data.classes, PREPROCESS))
    with pytest.raises(UserError, match="name the data set"):
        evaluate(path)
    with pytest.raises(UserError, match="3 classes but digits has 10"):
        evaluate(path, dataset="digits")
    with pytest.raises(UserError, match="does not exist"):
        evaluate(path, dataset="digits", json=tmp_path / "absent" / "report.json")


def test_evaluation_knows_no_engine() -> None:
    """Checked without the package's own ``__init__``, which offers distilling as well."""
    code = f"""
import sys, types
package = types.ModuleType("dsdistill")
package.__path__ = [{str(PACKAGE)!r}]
sys.modules["dsdistill"] = package
import dsdistill.evaluation.run
makers = ("engines", "sources", "synthetic", "supply", "distiller", "experts", "objectives")
assert not [m for m in sys.modules if m.startswith(tuple("dsdistill." + name for name in makers))]
assert not {{"torchvision", "kornia", "matplotlib", "sklearn", "timm"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_protocol_files_name_their_deviations() -> None:
    for path in (PACKAGE / "protocols").glob("*.toml"):
        text = path.read_text()
        assert "published: " in text.lower()
        assert set(tomllib.loads(text)) <= set(Protocol.__dataclass_fields__)
