"""Quantities and lists as sentences show them: durations, bytes, accuracies, names."""

from __future__ import annotations

from collections.abc import Sequence


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


def listing(names: Sequence[str], most: int = 20) -> str:
    """Join names by commas; of more than ``most`` the first ones, and how many there are.

    >>> listing(("cat", "dog")), listing(("cat", "dog", "owl"), most=2)
    ('cat, dog', 'cat, dog, … (3)')
    """
    return ", ".join(names[:most]) + (f", … ({len(names)})" if len(names) > most else "")
