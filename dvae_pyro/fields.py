"""Settings fields with a declared range or with a few values to choose from, and their check."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import Field, field, fields, is_dataclass
from typing import Any

from dvae_pyro.errors import UserError

__all__ = ["bounded", "check_fields", "expected_choice", "one_of"]

_INSIDE: dict[str, Callable[[float, float], bool]] = {
    "at least": operator.ge,
    "a number above": operator.gt,
    "at most": operator.le,
}


def bounded(
    default: Any, *, at_least: float | None = None, above: float | None = None, at_most: float | None = None
) -> Any:
    """A dataclass field with a range; None, where the field's type allows it, is always accepted.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Optimiser:
        ...     lr: float = bounded(1e-3, at_least=0)
        >>> check_fields(Optimiser(lr=-1.0), "optim")
        Traceback (most recent call last):
        dvae_pyro.errors.UserError: optim.lr=-1.0: expected at least 0.
    """
    limits = {"at least": at_least, "a number above": above, "at most": at_most}
    return field(default=default, metadata={"range": {word: v for word, v in limits.items() if v is not None}})


def one_of(*choices: bool | str | None) -> Any:
    """A dataclass field that takes one of a few values, of which the first is its default; None stands for null.

    The type of the field is ``str`` rather than a ``Literal``, which OmegaConf knows from 2.4 on only.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Optimiser:
        ...     name: str = one_of("adam", "adamw")
        ...     schedule: str | None = one_of(None, "cosine")
        >>> Optimiser()
        Optimiser(name='adam', schedule=None)
        >>> check_fields(Optimiser(schedule="sine"), "optim")
        Traceback (most recent call last):
        dvae_pyro.errors.UserError: optim.schedule takes one of cosine or null, got 'sine'.
    """
    return field(default=choices[0], metadata={"choices": choices})


def expected_choice(choices: Sequence[bool | str | None]) -> str:
    """The values of a field in words, as YAML has them.

    Example:
        >>> expected_choice([None, "linear", True])
        'one of linear, true or null'
    """
    named = ", ".join(
        choice if isinstance(choice, str) else str(choice).lower() for choice in choices if choice is not None
    )
    return f"one of {named}{' or null' if None in choices else ''}"


def check_fields(settings: Any, key: str = "") -> None:
    """Check the values of a settings dataclass and of the dataclasses nested in it.

    Args:
        settings: the dataclass.
        key: its dotted key, for messages.

    Raises:
        UserError: for the first value outside its range, or that is not among the field's choices; NaN is outside every
            range.
    """
    for name, item, value in _values(settings, f"{key}." if key else ""):
        choices = item.metadata.get("choices")
        if choices is not None and value not in choices:
            raise UserError(f"{name} takes {expected_choice(choices)}, got {value!r}.")
        limits = item.metadata.get("range", {})
        if value is not None and not all(_INSIDE[word](value, bound) for word, bound in limits.items()):
            raise UserError(f"{name}={value}: expected {' and '.join(f'{w} {b}' for w, b in limits.items())}.")


def _values(settings: Any, prefix: str) -> Iterator[tuple[str, Field[Any], Any]]:
    """Dotted key, field and value of every setting."""
    for item in fields(settings):
        value = getattr(settings, item.name)
        if is_dataclass(value):
            yield from _values(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}", item, value
