"""Seeded changes of TOML and JSON texts, as a careless editor or a failing disk makes them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from dsdistill.errors import UserError

VALUES = (
    *("0", "-1", "true", "inf", "nan", "[]", "{}", "[1]", "[[]]", '""', '"x"', '"a.b.c"', '"nan"', "1e308"),
    *("9" * 18, "9" * 25, "9" * 5000, f'"{"9" * 25}"', f'"{"9" * 5000}"', "0x" + "f" * 400, "1e-320"),
    *("1979-05-27", "07:32:00", "[{}]", "{ a = 1 }", "{ a = { b = 1 } }", "[" * 500 + "]" * 500, '"all"'),
    *('"\\u0000"', '"\\u001b[31m"', f'"{"x" * 3000}"', "'''a\nb'''", '["dm", "dm"]', '{ kind = "x" }'),
)
KEYS = (
    *("a", "kind", "a.b", "'a b'", "''", ".", '"a.b"', ".".join("a" * 40), "when", "set", "ipc_min", "base"),
    *("per_ipc", "settings", "defaults", "method", "evaluation", "experts", "engine.supply", "data"),
)


def mutated_toml(text: str, seed: int) -> bytes:
    """Change a value, a key, a line or a byte of a TOML text."""
    draw = random.Random(seed)
    lines = text.split("\n")
    number = draw.choice([number for number, line in enumerate(lines) if line.strip()])
    kind = draw.choice(["value"] * 5 + ["key", "table", "delete", "copy", "byte"])
    if kind == "value":
        number = draw.choice([number for number, line in enumerate(lines) if "=" in line])
        lines[number] = f"{lines[number].partition('=')[0]}= {draw.choice(VALUES)}"
    elif kind == "key":
        lines.insert(number, f"{draw.choice(KEYS)} = {draw.choice(VALUES)}")
    elif kind == "table":
        lines.insert(number, draw.choice(["[{}]", "[[{}]]"]).format(draw.choice(KEYS)))
    elif kind == "delete":
        del lines[number]
    elif kind == "copy":
        lines[number] = draw.choice(lines)
    data = bytearray("\n".join(lines).encode())
    if kind == "byte":
        data[draw.randrange(len(data))] = draw.randrange(256)
    return bytes(data)


def mutated_json(text: str, seed: int, values: Sequence[str]) -> str:
    """Put another value in the place of a number, text or constant of a JSON text."""
    draw = random.Random(seed)
    scalar = r'(?<=: )("(?:[^"\\]|\\.)*"|[-\d.e+]+|true|false|null)'
    place = draw.choice(list(re.finditer(scalar, text)))
    return f"{text[: place.start()]}{draw.choice(values)}{text[place.end() :]}"


def refusal(call: Callable[[], Any]) -> str:
    """Return the sentence by which a call refuses its input; empty if it does not. Other errors pass."""
    try:
        call()
    except UserError as error:
        return str(error)
    return ""
