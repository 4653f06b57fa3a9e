"""Parse TOML and JSON that others may have written: whatever the text, a table or a `ValueError` of one line.

The parsers themselves recurse as deep as the text nests, and some of their faults are no `ValueError`. What
programs do with the values recurses as well, and cannot write integers of thousands of digits.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dsdistill.errors import UserError, quoted
from dsdistill.files.checks import reason
from dsdistill.files.reading import read_text

LARGEST = 1 << 22
"""Characters of a TOML text, at most."""
DEEPEST = 32
"""Tables and lists within one another, at most; also the parts of a dotted key."""

_PART = r"""(?:(?<![\w-])[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"{_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{DEEPEST},}}+")


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML.

    >>> parse_toml("optimiser.lr = 0.5")
    {'optimiser': {'lr': 0.5}}

    Raises:
        ValueError: it is not TOML, or nests deeper or is larger than any settings do.
    """
    if len(text) > LARGEST:
        raise ValueError(f"it has {len(text):,} characters, and settings have {LARGEST:,} at most")
    if match := _LONG_KEY.search(text):  # tomllib takes a time that grows with the square of the parts
        line = text.count("\n", 0, match.start()) + 1
        raise ValueError(f"a key of more than {DEEPEST} parts (at line {line})")
    return _parsed(tomllib.loads, text)


def parse_json(text: str | bytes) -> Any:
    """Parse JSON. NaN and infinity, which Python writes, are none.

    >>> parse_json('{"mean": 0.5}')
    {'mean': 0.5}

    Raises:
        ValueError: it is not JSON, or nests deeper than any settings or results do.
    """
    return _parsed(_loads, text)


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        UserError: it cannot be read, or is not TOML.
    """
    return _read(path, parse_toml, "valid TOML")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read the JSON object in a file.

    Raises:
        UserError: it cannot be read, is not JSON, or holds anything but an object.
    """
    table = _read(path, parse_json, "whole JSON")
    if not isinstance(table, dict):
        raise UserError(f"{path} holds no JSON object")
    return table


def _read(path: str | Path, parse: Callable[[str], Any], kind: str) -> Any:
    try:
        return parse(read_text(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error
    except ValueError as error:
        raise UserError(f"{path} is not {kind}: {reason(error)}") from error


def _loads(text: str | bytes) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number")

    def finite(digits: str) -> float:
        if not math.isfinite(number := float(digits)):
            raise ValueError(f"{digits[:40]} is too large a number")
        return number

    return json.loads(text, parse_constant=refuse, parse_float=finite)


def _parsed(parse: Callable[[Any], Any], text: str | bytes) -> Any:
    """Parse a text and check the values.

    Raises:
        ValueError: naming what is wrong in one line.
    """
    try:
        value = parse(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        digits = str(error).startswith("Exceeds the limit")  # of Python, for the digits of an integer
        raise ValueError(_TOO_LARGE if digits else reason(error)) from error
    _check(value)
    return value


_TOO_DEEP = f"it nests tables or lists more than {DEEPEST} deep"
_TOO_LARGE = "an integer is beyond 64 bits"


def _check(value: Any) -> None:
    """Check parsed values, however deep they nest.

    Raises:
        ValueError: they nest too deep, an integer is beyond 64 bits, or a text cannot be written as UTF-8.
    """
    layer, depth = [value], 0
    while layer:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(_TOO_DEEP)
        inside: list[Any] = []
        for each in layer:
            if isinstance(each, Mapping):
                inside += each.keys()
                inside += each.values()
            elif isinstance(each, list):
                inside += each
            elif isinstance(each, int) and not -(2**63) <= each < 2**63:
                raise ValueError(_TOO_LARGE)
            elif isinstance(each, str) and not is_text(each):
                raise ValueError(f"a text holds half of a character: {quoted(each)}")
        layer = inside


def is_text(text: str) -> bool:
    """Whether a text can be written as UTF-8: lone surrogates, as broken file names have, cannot.

    >>> is_text("naïve"), is_text("broken \\udcff")
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
