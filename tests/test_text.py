"""Texts on their way out: to a terminal, into a sentence, into a table."""

from __future__ import annotations

import csv
import io

import pytest

from dsdistill.text import cell, listing, plain, plain_lines, within

UNSAFE = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]
UNSAFE += ["\u061c", "\u200e", "\u200f", "\u2028", "\u2029", *map(chr, range(0x202A, 0x202F))]
UNSAFE += [*map(chr, range(0x2066, 0x206A)), "\ud800", "\udfff"]


@pytest.mark.parametrize("character", UNSAFE, ids=lambda character: f"{ord(character):04x}")
def test_what_a_terminal_obeys_is_escaped(character: str) -> None:
    assert plain(f"a{character}b") == f"a{character.encode('unicode_escape').decode()}b"
    assert plain(f"a{character}b").isascii()
    if character not in "\n\t":
        assert plain_lines(f"a\n\t{character}") == f"a\n\t{plain(character)}"


def test_other_texts_stay_as_they_are() -> None:
    for text in ("naïve", "猫", "family 👩‍👩‍👧", "[red]:cat:\\n", ""):
        assert plain(text) == plain_lines(text) == text


def test_lengths_are_bounded() -> None:
    assert plain("x" * 100_000) == "x" * 499 + "…"
    assert plain("\x1b" * 100, 10) == "\\x1b\\x1b\\…"
    assert plain("x" * 1000, None) == "x" * 1000
    assert len(listing(["x" * 1000] * 30)) < 20 * 83
    assert within("猫" * 100, 100) == "猫" * 33
    assert within("a\ud800b", 10) == "ab"


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-cat", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "'=1", "'t"]
)
def test_formulas_are_quoted_and_read_back(text: str) -> None:
    file = io.StringIO()
    csv.writer(file).writerow([cell(text)])
    (read,) = next(csv.reader(io.StringIO(file.getvalue())))
    assert read.startswith("'")
    assert read.removeprefix("'") == plain(text)


def test_other_cells_stay_as_they_are() -> None:
    assert [cell(text) for text in ("cat", "a=b", "1-2", "")] == ["cat", "a=b", "1-2", ""]
