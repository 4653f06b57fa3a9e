"""The one kind of error a user is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input, said in one line: what is wrong and how to mend it.

    The command line prints the message without a traceback and exits with code 2.
    """


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Build the error for a name that does not exist, with the nearest one that does.

    Args:
        kind: what the name should have named, for example ``"data set"``.
        name: what the user wrote.
        known: every accepted name.
    """
    choices = sorted(set(known))
    meant = meanings(name, choices) or difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, meant[:4]))}?" if meant else f"known: {_listed(choices)}"
    return UserError(f"unknown {kind} {name!r}; {hint}")


def meanings(name: str, known: Iterable[str]) -> list[str]:
    """Return the names that are this one but for case, or options that end in it: lr, optimiser.lr."""
    choices = sorted(set(known), key=lambda each: (each.count("."), each))
    alike = [each for each in choices if each.casefold() == name.casefold()]
    return alike or [each for each in choices if each.rpartition(".")[2] == name]


_MANY = 40


def _listed(choices: list[str]) -> str:
    few = ", ".join(choices[:_MANY])
    return few if len(choices) <= _MANY else f"{few}, … ({len(choices)} in all)"


class NonFiniteLoss(UserError):
    """The loss became infinite or NaN."""
