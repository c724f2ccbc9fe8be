"""Settings fields with a declared range, and the check of these ranges."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import field, fields, is_dataclass
from typing import Any

from dvae_pyro.errors import UserError

__all__ = ["bounded", "check_ranges"]

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
        >>> check_ranges(Optimiser(lr=-1.0), "optim")
        Traceback (most recent call last):
        dvae_pyro.errors.UserError: optim.lr=-1.0: expected at least 0.
    """
    limits = {"at least": at_least, "a number above": above, "at most": at_most}
    return field(default=default, metadata={"range": {word: v for word, v in limits.items() if v is not None}})


def check_ranges(settings: Any, key: str = "") -> None:
    """Check the numbers of a settings dataclass and of the dataclasses nested in it.

    Args:
        settings: the dataclass.
        key: its dotted key, for messages.

    Raises:
        UserError: for the first number outside its range; NaN is outside every range.
    """
    for name, value, limits in _bounded_values(settings, f"{key}." if key else ""):
        if not all(_INSIDE[word](value, bound) for word, bound in limits.items()):
            raise UserError(f"{name}={value}: expected {' and '.join(f'{w} {b}' for w, b in limits.items())}.")


def _bounded_values(settings: Any, prefix: str) -> Iterator[tuple[str, float, dict[str, float]]]:
    for item in fields(settings):
        value = getattr(settings, item.name)
        if is_dataclass(value):
            yield from _bounded_values(value, f"{prefix}{item.name}.")
        elif "range" in item.metadata and value is not None:
            yield f"{prefix}{item.name}", value, item.metadata["range"]
