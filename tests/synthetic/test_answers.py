"""A teacher's answers in few bytes."""

from __future__ import annotations

import math

import pytest
import torch

from dsdistill.errors import UserError
from dsdistill.synthetic.answers import Answers, encode, encode_distances
from tests.helpers.labels import noise

LOGITS = 4 * noise(6, 5)


@pytest.mark.parametrize(
    ("encoding", "top", "nbytes", "error"),
    [
        ("float32", None, 6 * 5 * 4, 0.0),
        ("float16", None, 6 * 5 * 2, 0.01),
        ("uint8", None, 6 * (5 + 4 + 4), 0.05),
        ("top", 5, 6 * (5 * (2 + 4) + 2), 0.01),
        ("top", 2, 6 * (2 * (2 + 4) + 2), math.inf),
    ],
)
def test_encodings_hold_logits_in_the_bytes_that_they_say(
    encoding: str, top: int | None, nbytes: int, error: float
) -> None:
    answers = encode(LOGITS, encoding, top)  # type: ignore[arg-type]
    assert len(answers) == 6
    assert answers.nbytes == nbytes
    found = answers[:]
    assert found.dtype == torch.float32
    shifted = found + (LOGITS - found).mean(1, keepdim=True)  # `top` holds log-probabilities
    assert (shifted - LOGITS).abs().max() <= error
    assert torch.equal(answers[2:4], found[2:4])
    assert torch.equal(answers[torch.tensor([5, 0])], found[[5, 0]])


def test_uint8_errs_by_half_a_level_at_most() -> None:
    step = (LOGITS.amax(1) - LOGITS.amin(1)) / 255
    error = (encode(LOGITS, "uint8")[:] - LOGITS).abs()
    assert (error <= 0.5001 * step[:, None]).all()
    assert torch.equal(encode(torch.full((2, 3), 7.0), "uint8")[:], torch.full((2, 3), 7.0))


def test_the_largest_keep_their_probability_and_the_others_share_the_rest() -> None:
    probabilities = encode(LOGITS, "top", 2)[:].double().softmax(1)
    expected = LOGITS.double().softmax(1)
    for found, right in zip(probabilities, expected, strict=True):
        largest = right.argsort(descending=True)
        torch.testing.assert_close(found[largest[:2]], right[largest[:2]], rtol=5e-3, atol=1e-4)
        share = right[largest[2:]].sum() / 3
        torch.testing.assert_close(found[largest[2:]], share.expand(3), rtol=5e-3, atol=1e-4)


def test_one_that_is_certain_of_all_can_be_stored() -> None:
    found = encode(torch.tensor([[1e4, 0.0, -1e4]]), "top", 1)[:]
    assert found.isfinite().all()
    assert found.softmax(1).tolist() == [[1.0, 0.0, 0.0]]


def test_distances_are_two_numbers_of_two_bytes() -> None:
    answers = encode_distances(torch.tensor([[0.5, 2.0], [1e9, 0.0]]), 7)
    assert answers.nbytes == 8
    assert answers[:].tolist() == [[0.5, 2.0], [65504.0, 0.0]]


def test_joined() -> None:
    parts = [encode(LOGITS[:2], "uint8"), encode(LOGITS[2:], "uint8")]
    assert torch.equal(Answers.cat(parts)[:], encode(LOGITS, "uint8")[:])


@pytest.mark.parametrize("top", [0, 6, None])
def test_no_more_logits_than_classes(top: int | None) -> None:
    with pytest.raises(UserError, match=rf"the largest logits to keep are 1 to 5, .*, not {top}"):
        encode(LOGITS, "top", top)


def test_what_float16_cannot_hold_is_refused() -> None:
    with pytest.raises(
        UserError, match="float16 cannot hold logits as large as these; store them as float32"
    ):
        encode(torch.tensor([[1e5, 0.0]]), "float16")


@pytest.mark.parametrize(
    ("encoding", "parts", "sentence"),
    [
        ("float8", {}, "unknown encoding of labels 'float8'"),
        ("float16", {}, "float16 labels hold values, not "),
        ("float16", {"values": torch.zeros(2, 3)}, r"values is torch.float32 \[2, 3\]"),
        ("float32", {"values": torch.zeros(2, 4)}, "do not fit 3 classes"),
        ("float32", {"values": torch.full((1, 3), math.nan)}, "not finite"),
        (
            "top",
            {
                "values": torch.zeros(1, 1).half(),
                "classes": torch.full((1, 1), 3).int(),
                "rest": torch.zeros(1).half(),
            },
            "name a class outside the 3 there are",
        ),
        (
            "uint8",
            {"values": torch.zeros(2, 3).byte(), "low": torch.zeros(1), "step": torch.zeros(2)},
            r"low is torch.float32 \[1\]",
        ),
    ],
)
def test_parts_that_make_no_sense(encoding: str, parts: dict[str, torch.Tensor], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Answers(encoding, 3, parts)  # type: ignore[arg-type]
