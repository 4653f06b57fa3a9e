"""Baselines: their names, sizes and images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dsdistill.data.selection import random_selection
from dsdistill.encoding.encode import with_coded
from dsdistill.encoding.search import bytes_of
from dsdistill.errors import UserError
from dsdistill.evaluation import baselines
from dsdistill.seeding import generator
from dsdistill.storage import set_file
from dsdistill.storage.set_description import describe
from dsdistill.storage.set_sizes import sizes_of
from dsdistill.synthetic.coded import Coding, encode
from dsdistill.synthetic.distilled import DistilledSet
from tests.helpers.evaluation import PREPROCESS, real, tiny

CORESETS = ["el2n", "el2n-easy", "herding", "k-center", "k-means"]

# Names ------------------------------------------------------------------------------------------------------


def test_names_that_stand_for_several_baselines() -> None:
    equal_bytes = [f"{name}@bytes" for name in CORESETS]
    assert baselines.expanded_names(["full", "coresets@bytes"]) == ["full", *equal_bytes]
    every = baselines.expanded_names(["all", "random"])
    assert every == ["random", *CORESETS, "random@bytes", *equal_bytes, "full"]


def test_sizes_are_names_of_their_own() -> None:
    names = ["herding@10 ipc", "herding@10IPC", "random@31kB", "random@31 kb", "random@31KB+labels"]
    assert baselines.expanded_names(names) == ["herding@10ipc", "random@31kB", "random@31kB+labels"]
    for name in baselines.expanded_names(names):
        baselines.check(name)
    assert baselines.expanded_names(["coresets@2ipc"]) == [f"{name}@2ipc" for name in CORESETS]


def test_the_former_name_of_full_is_understood() -> None:
    assert baselines.expanded_names(["whole", "random", "full"]) == ["full", "random"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("al", "unknown baseline 'al'; did you mean 'all'"),
        ("randon", "did you mean 'random'"),
        ("k-centre", "did you mean 'k-center'"),
        ("herdin@bytes", "unknown baseline 'herdin'; did you mean 'herding'"),
        ("herding@byte", "did you mean '@bytes'"),
        ("herding@step", "did you mean '@steps'"),
        ("herding@ten ipc", "unknown ending of a baseline '@ten ipc'"),
        (
            "herding@10epochs",
            "baseline 'herding@10epochs': a budget is a number of bytes or of float32 images",
        ),
        ("random@10ipc+label", r"baseline 'random@10ipc\+label': a budget is"),
        ("random@0B", "holds nothing"),
        ("full@bytes", "'full' takes no number of bytes or steps; drop '@bytes'"),
        ("full@steps", "'full' takes no number of bytes or steps; drop '@steps'"),
        ("all@bytes", "'all' takes no number of bytes or steps; drop '@bytes'"),
    ],
)
def test_unknown_names_are_one_sentence(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        baselines.check(name)
    assert "\n" not in str(caught.value)


# Sizes ------------------------------------------------------------------------------------------------------


def test_counts_for_the_same_bytes() -> None:
    data, stored = real(6), torch.tensor([2, 2, 2])

    def counts(real_images: int | None, name: str = "herding@bytes") -> list[int]:
        return baselines.counts_of(name, data, stored, real_images).tolist()

    assert counts(11) == [4, 4, 3]
    assert counts(1) == counts(0) == [1, 1, 1]
    assert counts(1000) == [6, 6, 6]
    assert counts(11, "herding") == counts(None, "random") == [2, 2, 2]
    assert counts(11, "herding@steps") == counts(None, "random@steps+labels") == [2, 2, 2]
    assert counts(None, "full") == [6, 6, 6]
    with pytest.raises(UserError, match="'random@bytes' needs the bytes of a set's file"):
        counts(None, "random@bytes")


@pytest.mark.parametrize("name", ["random", "herding"])
def test_a_class_with_fewer_images_gives_all(name: str) -> None:
    assert baselines.counts_of(name, real(2), torch.tensor([3, 1, 2]), None).tolist() == [2, 1, 2]


def test_others_take_what_a_small_class_lacks() -> None:
    data = real(20)
    data = data.part(torch.cat([torch.arange(20), torch.arange(20, 22), torch.arange(40, 60)]))
    assert data.counts.tolist() == [20, 2, 20]
    taken = baselines.counts_of("herding@bytes", data, torch.tensor([5, 5, 5]), 17)
    assert taken.tolist() == [8, 2, 7]


def test_chosen_images_are_weighed_as_a_set_stores_them(tmp_path: Path) -> None:
    data = real(20)
    found = baselines.training_sets("random", data, torch.tensor([4, 4, 4]), None, PREPROCESS, 0)(0)
    assert found.real_rows is not None
    stored = DistilledSet(data.unit(found.real_rows), found.labels, data.classes, PREPROCESS)
    set_file.write(tmp_path / "set.h5", stored, "uint8")
    assert found.image_bytes == describe(tmp_path / "set.h5").image_bytes


def test_real_images_are_weighed_as_they_would_be_stored(tmp_path: Path) -> None:
    data = real(100)
    path = tmp_path / "real.h5"
    every = DistilledSet(data.unit(slice(None)), data.labels, data.classes, PREPROCESS)
    half = DistilledSet(every.images[:150], every.labels[:150], data.classes, PREPROCESS)
    for content, count, tolerance in ((every, 300, 0.02), (half, 150, 0.1)):
        set_file.write(path, content, "uint8")
        size = describe(path).image_bytes
        assert baselines.images_in_bytes(data, size, 0) == pytest.approx(count, rel=tolerance)
    assert baselines.images_in_bytes(data, 1, 0) == 0


@pytest.mark.parametrize("coding", [None, Coding(2, 4, 16), Coding(1, 4, 0), Coding(8, 0, 0)])
@pytest.mark.parametrize("count", [10, 20, 50, 300])
def test_real_images_fit_into_the_bytes_that_they_are_compared_for(count: int, coding: Coding | None) -> None:
    data = real(100)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1))

    def size(rows: torch.Tensor) -> int:
        plain = DistilledSet(
            data.unit(rows.sort().values), data.labels[rows.sort().values], data.classes, PREPROCESS
        )
        if coding is None:
            return sizes_of(plain, "uint8").image_bytes
        return sizes_of(with_coded(plain, encode(plain.images, coding))).image_bytes

    found = baselines.images_in_bytes(data, size(order[:count]), 0, coding)
    assert found == pytest.approx(count, rel=0.1, abs=1)  # another sample compresses a little otherwise
    assert baselines.images_in_bytes(data, 1, 0, coding) == 0


@pytest.mark.parametrize("coding", [None, Coding(2, 4, 16)])
def test_real_images_fill_the_sizes_that_baselines_name(coding: Coding | None) -> None:
    data = real(100)
    names = ["random@2kB", "herding@2kB+labels", "random@2ipc", "random@bytes", "random"]
    pixels, classes = data.images[0].numel(), len(data.counts)
    assert baselines.images_filling(names, data, 0, coding) == {
        "2kB": baselines.images_in_bytes(data, 2000, 0, coding),
        "2ipc": baselines.images_in_bytes(data, 2 * 4 * pixels * classes, 0, coding),
    }
    with pytest.raises(UserError, match=r"@9B: 9 bytes hold 0 images of .*, which has 3 classes"):
        baselines.images_filling(["random@9B"], data, 0, coding)


def test_the_full_training_set_is_trained_on_for_as_many_steps() -> None:
    protocol = tiny(epochs=100, batch_size=10)  # 101 epochs
    shorter = baselines.full_protocol(protocol, 200, [20, 40])
    assert shorter == tiny(epochs=21, batch_size=10)  # 101 · 4 / 20, rounded up
    assert baselines.full_protocol(protocol, 2000, [10]).epochs == 10  # at least
    assert baselines.full_protocol(tiny(epochs=3), 2000, [10]).epochs == 3  # the protocol has fewer


def test_a_schedule_keeps_its_shares_on_the_full_training_set() -> None:
    protocol = tiny(epochs=100, batch_size=10, schedule="cosine", warmup_epochs=40)
    shorter = baselines.full_protocol(protocol, 2000, [10])
    assert (shorter.epochs, shorter.warmup_epochs) == (10, 4)


@pytest.mark.parametrize("schedule", ["restart", "cosine"])
@pytest.mark.parametrize("decoded", [36, 37, 9])
def test_real_images_are_trained_on_for_as_many_steps(schedule: str, decoded: int) -> None:
    protocol = tiny(epochs=20, batch_size=4, schedule=schedule)
    wanted = protocol.steps(decoded)
    longer = baselines.stretched_protocol(protocol, 9, wanted)
    assert 0 <= longer.steps(9) - wanted < 3  # an epoch has three steps
    assert longer == protocol.lasting(longer.epochs)


def test_random_images_for_as_many_steps_are_those_for_as_many_epochs() -> None:
    data, counts = real(20), torch.tensor([2, 2, 2])

    def rows(name: str) -> list[int]:
        found = baselines.training_sets(name, data, counts, None, PREPROCESS, 7, Coding(2, 4, 16))(1)
        assert found.real_rows is not None
        assert torch.equal(found.images, PREPROCESS(data.unit(found.real_rows)))  # in 8 bits, not coded
        return found.real_rows.tolist()

    assert rows("random") == rows("random@steps") == rows("random@steps+labels")


# Images -----------------------------------------------------------------------------------------------------


def test_random_images_are_drawn_anew_for_every_repeat_in_equal_counts() -> None:
    data, counts = real(20), torch.tensor([1, 3, 2])
    sets = baselines.training_sets("random", data, counts, None, PREPROCESS, 0)
    first, again, other = sets(0), sets(0), sets(1)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    assert torch.equal(torch.bincount(first.labels), counts)
    chosen = random_selection(data, counts, generator(0, "s"))
    assert len(set(chosen.tolist())) == 6
    assert torch.equal(data.labels[chosen], torch.tensor([0, 1, 1, 1, 2, 2]))


def test_chosen_images_are_the_same_for_every_repeat() -> None:
    data, positions = real(4), torch.tensor([3, 5, 11])
    sets = baselines.training_sets("herding", data, torch.ones(3), positions, PREPROCESS, 0)
    chosen = sets(0)
    assert torch.equal(chosen.images, PREPROCESS(data.unit(positions)))
    assert chosen.labels.tolist() == [0, 1, 2]
    assert sets(1).images is chosen.images


def test_only_images_of_as_many_bytes_are_coded() -> None:
    data, counts, coding = real(20), torch.tensor([1, 3, 2]), Coding(1, 4, 0)
    plain = baselines.training_sets("random", data, counts, None, PREPROCESS, 0, coding)(0)
    assert torch.equal(
        plain.images, baselines.training_sets("random", data, counts, None, PREPROCESS, 0)(0).images
    )
    found = baselines.training_sets("random@bytes", data, counts, None, PREPROCESS, 0, coding)(0)
    assert found.real_rows is not None
    coded = encode(data.unit(found.real_rows), coding)
    assert found.image_bytes == bytes_of(coded)
    coded = coded.decode()
    assert torch.equal(found.images, PREPROCESS(coded))
