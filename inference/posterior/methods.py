"""The methods of inference by name. Importing this module imports none of them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from dvae_pyro.errors import UserError, nearest

__all__ = ["METHODS", "method"]

METHODS = {
    "vem": "inference.posterior.gradient:vem",
    "refine": "inference.posterior.gradient:refine",
    "point": "inference.posterior.gradient:point",
    "mala": "inference.posterior.chains:mala",
    "smc": "inference.posterior.online:smc",
    "metropolis": "inference.posterior.chains:metropolis",
}
"""``"module:function"`` of each method, a function from a problem and settings to a posterior."""


def method(name: str) -> Callable[..., Any]:
    """The method of a name.

    Raises:
        UserError: for an unknown name.
    """
    if name not in METHODS:
        raise UserError(f"unknown --inference '{name}'.{nearest(name, METHODS)} Known: {', '.join(METHODS)}.")
    module, _, function = METHODS[name].partition(":")
    loaded: Callable[..., Any] = getattr(import_module(module), function)
    return loaded
