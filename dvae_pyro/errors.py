"""Errors that the user can fix: command lines print the message without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["ProcessLost", "UserError", "first_line", "nearest"]


class UserError(ValueError):
    """A mistake in the input: the message says what was got, what was expected and what to do."""


class ProcessLost(UserError):
    """Another process of the training has ended; that process prints the cause."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Suggest the choice most like `name`: ``" Did you mean 'dkf'?"``, or an empty string.

    Example:
        >>> nearest("dfk", ["dkf", "vae"])
        " Did you mean 'dkf'?"
        >>> nearest("zzz", ["dkf", "vae"])
        ''
    """
    matches = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type where the message is empty; for quoting in our messages."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
