"""Texts that others wrote: parsed, or refused in one line, at once and whatever they hold."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

import dsdistill
from dsdistill.errors import UserError
from dsdistill.files import parse_json, parse_toml, read_json, read_toml
from dsdistill.files.documents import DEEPEST, LARGEST


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "[" * 100_000, "deep"),
        ("a = " + "[" * 40 + "]" * 40, "deep"),
        ("a = " + "{b = " * 100_000, "deep"),
        ("a = " + "9" * 5000, "64 bits"),
        ("a = 0x" + "f" * 5000, "64 bits"),
        ("a = 9223372036854775808", "64 bits"),
        (".".join(["a"] * 200_000) + " = 1", "a key of more than 32 parts (at line 1)"),
        ("b = 1\n[" + ' . "x" . '.join(["a"] * 30_000) + "]", "a key of more than 32 parts (at line 2)"),
        ("a = '" + "x" * LARGEST + "'", "characters"),
        ("a." * 1_000_000, "a key of more than"),
        ("x" * 2_000_000, "Expected '='"),
        ("a = 1\na = 2", "Cannot overwrite"),
        ("a = 2020-99-99", "Expected newline"),
    ],
)
def test_toml_that_is_refused(text: str, said: str) -> None:
    begun = time.monotonic()
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        parse_toml(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert time.monotonic() - begun < 5  # without a bound, the third key takes hours


def test_toml_within_the_bounds() -> None:
    deepest = parse_toml(".".join(["a"] * (DEEPEST - 2)) + " = 9223372036854775807")
    for _ in range(DEEPEST - 2):
        deepest = deepest["a"]
    assert deepest == 2**63 - 1
    assert parse_toml('a = "x.y.z"\n[b]\nc = [1.5, inf]') == {"a": "x.y.z", "b": {"c": [1.5, float("inf")]}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "deep"),
        ('{"a":' * 100_000, "deep"),
        ("[" * 40 + "]" * 40, "deep"),
        ("9" * 5000, "64 bits"),
        ("9" * 100, "64 bits"),
        ("[NaN]", "NaN is no number"),
        ("-Infinity", "Infinity is no number"),
        ("1e999", "too large"),
        ('"\\ud800"', "half of a character"),
        ('{"\\udfff": 1}', "half of a character"),
        ("", "Expecting value"),
        ('{"a": 1', "delimiter"),
        (b"\xff", "utf-8"),
    ],
)
def test_json_that_is_refused(text: str | bytes, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_toml, read_json])
def test_files_that_are_none(tmp_path: Path, read: object) -> None:
    for name, content, said in (
        ("binary", b"\xff\xfe", "is not"),
        ("cut", b'{"a": [1, ', "is not"),
        ("list", b"[1, 2]", "no JSON object" if read is read_json else "is not valid TOML"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=said) as caught:
            read(tmp_path / name)  # type: ignore[operator]
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(UserError, match="No such file"):
        read(tmp_path / "absent")  # type: ignore[operator]
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="it is a pipe"):
        read(tmp_path / "pipe")  # type: ignore[operator]


def test_one_file_parses_toml() -> None:
    package = Path(dsdistill.__file__).parent
    parsers = [path.name for path in package.rglob("*.py") if "import tomllib" in path.read_text()]
    assert parsers == ["documents.py"]
