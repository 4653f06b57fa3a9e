"""Quantities, lists and names as sentences and tables show them: durations, bytes, accuracies, safe texts.

Names come from files that others made, so they pass `plain` or `cell` on their way out: to a terminal, a
picture, a table or a page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters: ESC begins commands of a terminal, and so does 0x9b
    "\u2028\u2029\ud800-\udfff"  # line breaks of Unicode; halves of characters, which no encoding has
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # changes of direction: what is read is not what is there
)
_LONGEST = 500  # characters of a name


def plain(text: str, most: int | None = _LONGEST) -> str:
    r"""Return a text in one line, which a terminal shows and does not obey.

    Control characters, line breaks, marks of direction and lone surrogates become escapes.

    >>> print(plain("red\x1b[31m\nsecond line"), plain("a long name", most=6))
    red\x1b[31m\nsecond line a lon…

    Args:
        most: characters of the result; what is longer ends in "…". None leaves it as long as it is.
    """
    beginning = text if most is None else text[: most + 1]
    safe = _UNSAFE.sub(_escape, beginning)
    return safe if most is None or len(safe) <= most else safe[: most - 1] + "…"


def plain_lines(text: str) -> str:
    r"""Return a text of several lines like `plain`; its line breaks and tabs stay.

    >>> print(plain_lines("first\nsecond\x9b"))
    first
    second\x9b
    """
    return "\n".join("\t".join(plain(part, None) for part in line.split("\t")) for line in text.split("\n"))


def _escape(unsafe: re.Match[str]) -> str:
    return unsafe[0].encode("unicode_escape").decode("ascii")


_FORMULA = re.compile("['=+\\-@\t\r\n＝＋－＠]")  # what makes a spreadsheet compute a cell, and our own mark


def cell(text: str) -> str:
    r"""Return a text for a cell of a CSV file, which a spreadsheet shows and does not compute.

    A text that begins like a formula gets an apostrophe before it, as OWASP advises; so does one that begins
    with an apostrophe. To read such a column back, drop one leading apostrophe. Control characters are
    escaped as by `plain`. Numbers need no `cell`.

    >>> cell("=1+1"), cell("cat"), cell("'t")
    ("'=1+1", 'cat', "''t")
    """
    return "'" * bool(_FORMULA.match(text)) + plain(text, None)


def within(text: str, most: int) -> str:
    """Return the beginning of a text that takes at most so many bytes in UTF-8.

    >>> within("naïve", 3)
    'na'
    """
    return text.encode(errors="ignore")[:most].decode(errors="ignore")


def shortened(text: str, most: int, rest: str = "") -> str:
    """Cut a text that has more than ``most`` characters.

    Args:
        most: characters of the result.
        rest: where the whole is to be found.

    >>> shortened("one two three", 9), shortened("one two three", 16), shortened("1 2 3 4 5 6 7", 12, "log")
    ('one two …', 'one two three', '1 2 … (log)')
    """
    if len(text) <= most:
        return text
    end = " …" + f" ({rest})" * bool(rest)
    return text[: most - len(end)].rstrip() + end


def clock(seconds: float) -> str:
    """Write a running time to the second.

    >>> clock(24), clock(3723)
    ('0 min 24 s', '1 h 02 min')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


def duration(seconds: float) -> str:
    """Write a time as tables do, to its largest unit; empty where it is not known (NaN).

    >>> duration(24.2), duration(200), duration(3723), duration(float("nan"))
    ('24.2 s', '3 min', '1 h 02 min', '')
    """
    if seconds != seconds:
        return ""
    if seconds < 60:
        return f"{seconds:.3g} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def byte_size(count: float) -> str:
    """Write a number of bytes, in decimal units.

    >>> byte_size(512), byte_size(29_638), byte_size(4.2e9)
    ('512 B', '29.6 KB', '4.2 GB')
    """
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def kilobytes(count: float) -> str:
    """Write bytes as kB without their unit, for a column of them; empty where they are not known (NaN).

    >>> kilobytes(262_039)
    '262.0'
    """
    return "" if count != count else f"{count / 1e3:,.1f}"


def spread(mean: float, std: float, count: int) -> str:
    """Write mean ± standard deviation of ``count`` values, and no ± where there is one.

    >>> spread(98.222, 0.27, 5), spread(98.222, 0.0, 1)
    ('98.22 ± 0.27', '98.22')
    """
    return f"{mean:.2f} ± {std:.2f}" if count > 1 else f"{mean:.2f}"


def ranges(numbers: Sequence[int]) -> str:
    """Write ascending numbers briefly.

    >>> ranges((0, 5, 6, 7, 8, 60))
    '0, 5 to 8, 60'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in runs)


_LISTED = 80  # characters of a name in a list


def listing(names: Sequence[str], most: int = 20) -> str:
    """Join names by commas, each in one line; of more than ``most`` the first ones, and how many there are.

    >>> listing(("cat", "dog")), listing(("cat", "dog", "owl"), most=2)
    ('cat, dog', 'cat, dog, … (3)')
    """
    more = f", … ({len(names)})" if len(names) > most else ""
    return ", ".join(plain(name, _LISTED) for name in names[:most]) + more
