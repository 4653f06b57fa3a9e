"""The judge's rows, the baselines, and evaluation from a file to a report."""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dsdistill.data import catalog
from dsdistill.data.config import DataConfig
from dsdistill.data.real import Task
from dsdistill.data.selection import random_selection
from dsdistill.errors import UserError
from dsdistill.evaluation import baselines
from dsdistill.evaluation.ensembles import Ensemble
from dsdistill.evaluation.evaluate import judge
from dsdistill.evaluation.run import evaluate
from dsdistill.evaluation.students import TrainingSet, fit, train_students
from dsdistill.runtime import provenance
from dsdistill.seeding import generator
from dsdistill.storage import set_file
from dsdistill.synthetic.distilled import DistilledDataset, DistilledSet
from dsdistill.synthetic.multi_formation import MultiFormation
from tests.helpers.evaluation import NETWORK, PACKAGE, PREPROCESS, SIZE, distilled, real, task, tiny

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
        assert (row.protocol, row.images, row.decoded, len(row.values)) == ("dm", 9, 9, 3)
        assert row.mean == pytest.approx(sum(row.values) / 3)
        assert row.std == pytest.approx(statistics.stdev(row.values))
        assert 0 <= min(row.values) <= max(row.values) <= 100
    assert seen[-1][1] == seen[-1][2] == 4 * 3 * 5 * 3
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_a_multi_formation_trains_on_decoded_images_and_its_baseline_on_as_many_as_are_stored() -> None:
    seen: list[tuple[str, int, int]] = []
    data = real(3, seed=5)
    whole = DistilledSet(
        data.unit(slice(None)),
        data.labels,
        data.classes,
        PREPROCESS,
        multi_formation=MultiFormation(factor=2),
    )
    rows = judge(
        DistilledDataset(whole),
        task(),
        real(30),
        real(40, 1, "test"),
        tiny(),
        [NETWORK, "mlp"],
        progress=lambda what, done, total: seen.append((what, done, total)),
    )
    assert [(row.set, row.images, row.decoded) for row in rows] == [
        ("distilled", 9, 36),
        ("random", 9, 9),
    ] * 2
    # five epochs of batches of four, two students: 9 batches of decoded images, 3 of real ones, two networks
    assert {total for _, _, total in seen} == {5 * 2 * (9 + 3) * 2}
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[-1][1] == seen[-1][2]


def test_judge_is_deterministic_whatever_else_is_judged() -> None:
    plain = tiny(augmentation="none", epochs=8)

    def values(networks: list[str], seed: int = 0) -> list[float]:
        rows = judge(distilled(), task(), real(30), real(40, 1), plain, networks, seed=seed)
        return [value for row in rows if row.network == NETWORK for value in row.values]

    alone = values([NETWORK])
    assert alone == values(["mlp", NETWORK])
    assert alone != values([NETWORK], seed=1)


@pytest.mark.parametrize("stack", [False, True])
def test_repeats_differ_in_weights_and_random_images_and_sets_in_images_alone(
    monkeypatch: pytest.MonkeyPatch, stack: bool
) -> None:
    told, weights, images = list[int](), list[Tensor](), list[Tensor]()

    def noting(ensemble: Ensemble, sets: list[TrainingSet], repeats: list[int], *rest: Any) -> None:
        for place, repeat in enumerate(repeats):
            own = [each[place] if stack else each for each in ensemble.parameters]
            told.append(repeat)
            weights.append(torch.cat([each.detach().flatten() for each in own]))
            images.append(sets[place][0])
        fit(ensemble, sets, repeats, *rest)

    monkeypatch.setattr("dsdistill.evaluation.students.fit", noting)
    protocol = tiny(repeats=3, epochs=1)
    judge(distilled(), task(), real(30), real(40, 1), protocol, [NETWORK], stack=stack)
    assert told == [0, 1, 2] * 2  # on distilled images, then on random ones
    assert all(torch.equal(weights[repeat], weights[3 + repeat]) for repeat in range(3))
    for one, other in itertools.combinations(range(3), 2):
        assert not torch.equal(weights[one], weights[other])
        assert torch.equal(images[one], images[other])
        assert not torch.equal(images[3 + one], images[3 + other])


def test_what_cannot_be_mirrored_is_not() -> None:
    def values(augmentation: str, mirror: bool) -> dict[str, list[float]]:
        protocol = tiny(augmentation=augmentation, epochs=8)
        rows = judge(distilled(), task(mirror), real(30), real(40, 1), protocol, [NETWORK], scores=True)
        return {row.set: row.values for row in rows}

    never, plain, ever = values("flip", False), values("none", False), values("flip", True)
    assert never == plain
    assert ever.keys() - plain.keys() == {"distilled-plain", "random-plain"}
    assert ever["distilled"] != ever["distilled-plain"] == plain["distilled"]


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


# Baselines --------------------------------------------------------------------------------------------------

KINDS = ["random", "herding", "k-center", "k-means", "el2n", "el2n-easy"]


def test_random_baseline_is_fresh_per_repeat_and_of_the_same_counts() -> None:
    data, counts = real(20), torch.tensor([1, 3, 2])
    sets = baselines.training_sets("random", data, counts, None, PREPROCESS, 0)
    first, again, other = sets(0), sets(0), sets(1)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(torch.bincount(first[1]), counts)
    chosen = random_selection(data, counts, generator(0, "s"))
    assert len(set(chosen.tolist())) == 6
    assert torch.equal(data.labels[chosen], torch.tensor([0, 1, 1, 1, 2, 2]))


def test_chosen_images_are_the_same_for_every_repeat() -> None:
    data, rows = real(4), torch.tensor([3, 5, 11])
    sets = baselines.training_sets("herding", data, torch.ones(3), rows, PREPROCESS, 0)
    images, labels = sets(0)
    assert torch.equal(images, PREPROCESS(data.unit(rows)))
    assert labels.tolist() == [0, 1, 2]
    assert sets(1)[0] is images


def test_names_that_stand_for_several_baselines() -> None:
    coresets = sorted(KINDS[1:])
    assert baselines.expanded(["whole", "coresets@bytes"]) == [
        "whole",
        *(f"{each}@bytes" for each in coresets),
    ]
    everything = baselines.expanded(["all", "random"])
    assert everything == [
        "random",
        *coresets,
        "random@bytes",
        *(f"{each}@bytes" for each in coresets),
        "whole",
    ]
    with pytest.raises(UserError, match="unknown baseline 'al'; did you mean 'all'"):
        baselines.check("al")


def test_every_baseline_is_judged_at_its_size() -> None:
    seen: list[tuple[str, int, int]] = []
    names = [*KINDS, *(f"{name}@bytes" for name in KINDS), "whole"]
    rows = judge(
        distilled(),
        task(),
        real(30),
        real(40, 1, "test"),
        tiny(epochs=1, repeats=1, student=NETWORK),
        baselines=names,
        affordable=16,
        progress=lambda what, done, total: seen.append((what, done, total)),
    )
    expected = {name: 16 if "@" in name else 90 if name == "whole" else 9 for name in names}
    assert {row.set: row.images for row in rows} == {"distilled": 9} | expected
    assert [row.set for row in rows] == ["distilled", *names]
    assert seen[0][0] == "choosing real images"
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[-1][1] == seen[-1][2]
    assert len({total for _, _, total in seen}) == 1


def test_a_baseline_has_the_same_students_whatever_else_is_judged() -> None:
    plain = tiny(augmentation="none", epochs=4, student=NETWORK)

    def values(names: list[str]) -> list[float]:
        rows = judge(distilled(), task(), real(30), real(40, 1), plain, baselines=names)
        return next(row.values for row in rows if row.set == "k-center")

    assert values(["k-center"]) == values(["whole", "herding", "k-center"])


def test_counts_for_the_same_bytes() -> None:
    data, stored = real(6), torch.tensor([2, 2, 2])

    def counts(affordable: int | None, name: str = "herding@bytes") -> list[int]:
        return baselines.counts_of(name, data, stored, affordable).tolist()

    assert counts(11) == [4, 4, 3]
    assert counts(1) == counts(0) == [1, 1, 1]
    assert counts(1000) == [6, 6, 6]
    assert counts(11, "herding") == counts(None, "random") == [2, 2, 2]
    assert counts(None, "whole") == [6, 6, 6]
    with pytest.raises(UserError, match="'random@bytes' needs the bytes of a set's file"):
        judge(distilled(), task(), real(9), real(9), tiny(), baselines=["random@bytes"])


def test_real_images_are_weighed_as_they_would_be_stored(tmp_path: Path) -> None:
    data = real(100)
    path = tmp_path / "real.h5"
    every = DistilledSet(data.unit(slice(None)), data.labels, data.classes, PREPROCESS)
    set_file.write(path, every, "uint8")
    assert baselines.affordable(data, set_file.describe(path).image_bytes, 0) == pytest.approx(300, rel=0.02)
    half = DistilledSet(every.images[:150], every.labels[:150], data.classes, PREPROCESS)
    set_file.write(path, half, "uint8")
    assert baselines.affordable(data, set_file.describe(path).image_bytes, 0) == pytest.approx(150, rel=0.1)
    assert baselines.affordable(data, 1, 0) == 0


def test_the_whole_training_set_is_trained_on_for_as_many_steps() -> None:
    protocol = tiny(epochs=100, batch_size=10)  # 101 epochs
    told = baselines.protocols(protocol, {"distilled": 20, "random@bytes": 40, "whole": 200})
    assert told["distilled"] == told["random@bytes"] == protocol
    assert told["whole"] == tiny(epochs=21, batch_size=10)  # 101 · 4 / 20, rounded up
    told = baselines.protocols(protocol, {"distilled": 10, "whole": 2000})
    assert told["whole"].epochs == 10
    told = baselines.protocols(tiny(epochs=3), {"distilled": 10, "whole": 2000})
    assert told["whole"].epochs == 3

    said: list[str] = []
    rows = judge(
        distilled(),
        task(),
        real(20),
        real(40, 1, "test"),
        tiny(epochs=12, repeats=1, batch_size=16),
        [NETWORK],
        baselines=["whole"],
        notify=said.append,
    )
    assert [(row.set, row.images, row.epochs) for row in rows] == [("distilled", 9, 12), ("whole", 60, 10)]
    assert said == [
        "whole: 10 epochs of all 60 images, by 1 student, are 660 image passes, "
        "5.64 times those on the distilled set"
    ]


@pytest.mark.parametrize(
    ("judged", "options", "message"),
    [
        (Task("two", ("a", "b"), 1, SIZE, PREPROCESS, True), {}, "3 classes but two has 2"),
        (Task("abc", ("flat", "b", "c"), 1, SIZE, PREPROCESS, True), {}, "class 1 is 'rows'"),
        (task(size=16), {}, "1×8×8 but stripes is loaded at 1×16×16"),
        (task(), {"networks": ["resnet8"]}, "unknown network 'resnet8'"),
        (task(), {"baselines": ["randon"]}, "did you mean 'random'"),
        (task(), {"baselines": ["k-centre"]}, "did you mean 'k-center'"),
        (task(), {"baselines": ["herdin@bytes"]}, "unknown baseline 'herdin'; did you mean 'herding'"),
        (task(), {"baselines": ["herding@byte"]}, "did you mean '@bytes'"),
        (task(), {"baselines": ["whole@bytes"]}, "'whole' goes with no number of bytes; drop '@bytes'"),
        (task(), {"baselines": ["all@bytes"]}, "'all' goes with no number of bytes; drop '@bytes'"),
    ],
)
def test_misfits_are_one_sentence(judged: Task, options: dict[str, list[str]], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        judge(distilled(), judged, real(9), real(9), tiny(), **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_too_few_real_images_are_said() -> None:
    for name in ("random", "herding"):
        with pytest.raises(UserError, match="has 2 train images, fewer than the 3"):
            judge(distilled(), task(), real(2), real(9), tiny(epochs=1), ["mlp"], baselines=[name])


# From file to report ----------------------------------------------------------------------------------------


@pytest.fixture
def digits_file(tmp_path: Path) -> Path:
    """Two random digits of each class, as a distilled set."""
    task, train = catalog.load(DataConfig(name="digits"), "train")
    chosen = random_selection(train, torch.full((10,), 2), generator(0, "digits"))
    about = {"dataset": "digits", "data": json.dumps({"name": "digits", "size": None, "zca": True})}
    about |= {"network": "convnet3-w8", "fingerprint": train.fingerprint}
    images = train.unit(chosen)
    path = tmp_path / "digits.h5"
    made = DistilledSet(images, train.labels[chosen], train.classes, task.preprocess, attributes=about)
    set_file.write(path, made)
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
    stored = set_file.results(digits_file)
    assert [row["values"] for row in stored] == [row["values"] for row in written["rows"]]
    assert stored[0]["dataset"] == "digits"
    assert set_file.load(digits_file).classes  # still verifies


def test_an_evaluation_that_found_the_same_again_is_recorded_once(digits_file: Path) -> None:
    def evaluated(**options: Any) -> list[float]:
        told = {"repeats": 2, "epochs": 1, "networks": "mlp", "baselines": "", "device": "cpu"} | options
        return evaluate(digits_file, **told).rows[0].values

    assert evaluated() == evaluated()
    assert evaluated(seed=1) == evaluated(seed=1) != evaluated()
    evaluated(epochs=2)
    assert [(row["epochs"], row["seed"]) for row in set_file.results(digits_file)] == [(1, 0), (1, 1), (2, 0)]


def test_a_stopped_evaluation_goes_on_from_the_rows_it_left(
    digits_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def evaluated(**options: Any) -> list[tuple[str, str, list[float]]]:
        told = {"repeats": 2, "epochs": 2, "networks": "mlp,convnet2-w4", "baselines": "random,herding"}
        report = evaluate(digits_file, notify=said.append, **told | {"device": "cpu"} | options)
        return [(row.network, row.set, row.values) for row in report.rows]

    trained: list[str] = []

    def training(build: Any, *rest: Any, **options: Any) -> list[float]:
        trained.append(type(build(0)).__name__)
        return train_students(build, *rest, **options)

    def progress(what: str, done: int, total: int) -> None:
        seen.append((what, done, total))
        if stopping and what == "convnet2-w4 on random":
            raise KeyboardInterrupt

    monkeypatch.setattr("dsdistill.evaluation.evaluate.train_students", training)
    stopping, seen = True, list[tuple[str, int, int]]()
    with pytest.raises(KeyboardInterrupt):
        evaluated(progress=progress)
    assert len(set_file.results(digits_file)) == 4
    trained.clear()
    seen.clear()
    stopping = False
    rows = evaluated(progress=progress, resume=True)
    assert trained == ["ConvNet", "ConvNet"]
    assert "4 of the 4 rows in the file are kept" in said
    assert [row[:2] for row in rows] == [
        (network, kind) for network in ("mlp", "convnet2-w4") for kind in ("distilled", "random", "herding")
    ]
    assert seen[-1][1] == seen[-1][2]
    assert len(set_file.results(digits_file)) == 6
    assert evaluated(resume=True) == rows == evaluated()
    assert len(trained) == 2 + 6  # nothing, then everything
    evaluated(resume=True, repeats=1, baselines="")
    assert len(trained) == 8 + 2
    mine = digits_file.with_name("dm.toml")  # of the same name, and not the same
    mine.write_text('title = ""\nsource = ""\nepochs = 2\nbatch_size = 7\n')
    evaluated(resume=True, protocol=mine, baselines="")
    assert len(trained) == 10 + 2
    assert any(each.startswith("0 of the 8 rows in the file are kept: all are of other") for each in said)


def write_stripes(folder: Path, train_seed: int = 0, test_seed: int = 1) -> str:
    """Write real images; return their name in the catalogue."""
    train, test = real(9, train_seed), real(9, test_seed)
    arrays = {"x_train": train.images, "y_train": train.labels, "x_test": test.images, "y_test": test.labels}
    path = folder / "stripes.npz"
    np.savez(path, classes=train.classes, **{name: each.numpy() for name, each in arrays.items()})
    return f"npz:{path}"


@pytest.fixture
def stripes_file(tmp_path: Path) -> Path:
    """A distilled set of real images that can be written anew."""
    name, data = write_stripes(tmp_path), real(3, seed=5)
    _, train = catalog.load(DataConfig(name=name), "train")
    about = {"dataset": name, "fingerprint": train.fingerprint}
    path = tmp_path / "stripes.h5"
    unit = data.unit(slice(None))
    set_file.write(path, DistilledSet(unit, data.labels, data.classes, PREPROCESS, attributes=about))
    return path


@pytest.mark.parametrize(
    ("other", "kept"),
    [("nothing", 2), ("threads", 2), ("machine", 0), ("code", 0), ("seed", 0), ("train", 0), ("test", 0)],
)
def test_rows_of_another_machine_code_seed_or_data_are_found_anew(
    stripes_file: Path, monkeypatch: pytest.MonkeyPatch, other: str, kept: int
) -> None:
    def evaluated(**options: Any) -> list[str]:
        said: list[str] = []
        told = {"repeats": 1, "epochs": 1, "networks": "mlp", "device": "cpu"} | options
        evaluate(stripes_file, notify=said.append, **told)
        return said

    monkeypatch.setattr(provenance, "machine_name", lambda device: "a CPU, 2 threads")
    assert evaluated() == []
    if other in ("threads", "machine"):
        found = "a CPU, 4 threads" if other == "threads" else "another CPU, 2 threads"
        monkeypatch.setattr(provenance, "machine_name", lambda device: found)
    if other == "code":
        monkeypatch.setattr(provenance, "code_digest", lambda: "changed")
    if other in ("train", "test"):
        write_stripes(stripes_file.parent, **{f"{other}_seed": 7})
    *before, last = evaluated(resume=True, **{"seed": 1} if other == "seed" else {})
    assert last.startswith(f"{kept} of the 2 rows in the file are kept")
    assert len(set_file.results(stripes_file)) == 4 - kept
    name = f"npz:{stripes_file.with_suffix('.npz')}"
    unlike = f"{name} on this machine is not the data the set was distilled from"
    assert before == ([unlike] if other == "train" else [])


def test_evaluate_a_multi_formation(digits_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    set_file.write(
        path, dataclasses.replace(set_file.read(digits_file), multi_formation=MultiFormation(factor=2))
    )
    report = evaluate(path, repeats=1, epochs=1, device="cpu")
    assert [(row["images"], row["decoded"]) for row in set_file.results(path)] == [(20, 80), (20, 20)]
    assert list(report.table().columns[2].cells) == ["20 → 80 decoded", "20"]


def test_evaluate_at_the_same_bytes_and_on_everything(digits_file: Path) -> None:
    names = "random, random@bytes, whole, random"
    report = evaluate(digits_file, repeats=1, epochs=1, device="cpu", networks="mlp", baselines=names)
    fit = int(report.cost["real_images"])
    assert 20 < fit < 80  # the file holds 20 in float32, of values that 8 bits hold
    assert [row.images for row in report.rows] == [20, 20, fit, 1347]
    assert [row["images"] for row in set_file.results(digits_file)[-4:]] == [20, 20, fit, 1347]
    assert f"as many bytes as {fit} real images" in str(report.table().caption)
    assert list(report.table().columns[1].cells) == ["distilled", "random", "random@bytes", "whole"]
    rows = [dataclasses.replace(row, epochs=12) if row.set == "whole" else row for row in report.rows]
    table = dataclasses.replace(report, rows=rows).table()
    assert list(table.columns[1].cells)[-1] == "whole, 12 epochs"
    report.append_to(digits_file, rows[-1])
    assert set_file.results(digits_file)[-1]["epochs"] == 12


def test_evaluate_across_networks_without_saving(digits_file: Path) -> None:
    before = set_file.results(digits_file)
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
    assert set_file.results(digits_file) == before
    table = report.table()
    assert table.row_count == 2
    assert "digits" in str(table.title)
    assert list(table.columns[3].cells) == [f"{row.mean:.2f}" for row in report.rows]  # one student: no ±


def test_evaluate_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    data = real(2)
    set_file.write(path, DistilledSet(data.unit(slice(None)), data.labels, data.classes, PREPROCESS))
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
makers = ("engines", "supply", "distillation", "experts", "objectives")
assert not [m for m in sys.modules if m.startswith(tuple("dsdistill." + name for name in makers))]
assert not {{"torchvision", "kornia", "matplotlib", "sklearn", "timm"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
