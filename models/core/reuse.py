"""Work that a model and its guide share: a network that both apply to the same tensors is computed once.

SRNN's guide, for instance, runs the model's LSTM over the past of x, as the model itself does. Within `computed_once`,
the second of two equal calls of a `pure` function returns the result of the first, with its graph: the gradient of the
sum of both uses flows back through it once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from pyro.nn import PyroModule
from pyro.poutine import runtime
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

__all__ = ["computed_once", "pure"]

P = ParamSpec("P")
T = TypeVar("T")


class computed_once(Messenger):
    """A context in which a `pure` function is computed once for the same arguments.

    Arguments are the same if they are the same objects, unchanged; networks, if they also have the same weights. The
    results are kept until the context ends. A single frame is always computed: looking for it would take as long.

    Example:
        >>> import torch
        >>> from models.core.tensors import shift
        >>> u = torch.ones(3, 1, 1)
        >>> with computed_once():
        ...     first, second, other = shift(u), shift(u), shift(u + 0.0)
        >>> first is second, first is other
        (True, False)
    """

    def __init__(self) -> None:
        super().__init__()
        self.results: dict[Any, tuple[Any, Any]] = {}

    def __exit__(self, *error: Any) -> None:
        self.results.clear()
        super().__exit__(*error)


def pure(function: Callable[P, T]) -> Callable[P, T]:
    """Mark a function of tensors, or the `forward` of a network, whose result depends on nothing but its arguments and
    is never written to.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        once = next((handler for handler in runtime._PYRO_STACK if isinstance(handler, computed_once)), None)
        if once is None or any(_single_frame(v) for v in args):
            return function(*args, **kwargs)
        parts = [part for argument in (*args, *kwargs.items()) for part in _parts(argument)]
        if any(isinstance(part, PyroModule) for part in parts):  # its weights may be random
            return function(*args, **kwargs)
        key = (function, torch.is_grad_enabled(), *map(_identity, parts))
        if key not in once.results:
            once.results[key] = parts, function(*args, **kwargs)  # parts stay alive, so that their ids stay theirs
        result: T = once.results[key][1]
        return result

    return call


def _single_frame(argument: Any) -> bool:
    return isinstance(argument, Tensor) and argument.dim() > 2 and argument.shape[-3] == 1


def _parts(argument: Any) -> list[Any]:
    """What an argument consists of: a network of its parts, weights and buffers too; None, a default, of nothing."""
    if isinstance(argument, nn.Module):  # `modules()` and `parameters()` take several times as long
        own = [argument, *argument._parameters.values(), *argument._buffers.values()]
        return own + [part for child in argument._modules.values() for part in _parts(child)]
    return [] if argument is None else [argument]


def _identity(part: Any) -> Any:
    if isinstance(part, Tensor):
        return id(part), part._version
    return id(part) if isinstance(part, nn.Module) else part
