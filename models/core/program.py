"""The base class of models and guides: a Pyro module with local parameters.

A call of a program sends a ``param`` message for each parameter, as `pyro.module` does: `pyro.infer.SVI` trains them in
place, `poutine.trace(param_only=True)` records them, and `poutine.lift` replaces them by random weights. The parameters
stay in the module. The global parameter store is neither read nor written, so programs of one class do not share
weights; to use the store, call `pyro.module`.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from pyro.nn import PyroModule
from pyro.params.param_store import param_with_module_name
from pyro.poutine import runtime
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import effectful
from torch import Tensor, nn
from torch.distributions import constraints
from torch.func import functional_call

from models.core.effects import effect

__all__ = ["Program", "unlisted"]


class Program(PyroModule):
    """The base class of models and guides: a `PyroModule` with local parameters, for any global setting of Pyro.

    `PyroSample` and `PyroParam` attributes work as in every Pyro module, also in children converted by
    `pyro.nn.module.to_pyro_module_`; the names of their sites begin with the name of the class. Other children stay
    plain modules: access through `PyroModule` would take as long as running them.
    """

    like: Tensor
    """A scalar with the dtype and device of the program."""

    def __init__(self) -> None:
        super().__init__(type(self).__name__)
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def __getattr__(self, name: str) -> Tensor | nn.Module:
        attributes = self.__dict__
        if name in attributes.get("_pyro_samples", ()) or name in attributes.get("_pyro_params", ()):
            managed: Tensor = super().__getattr__(name)
            return managed
        value = nn.Module.__getattr__(self, name)  # PyroModule would write children to the parameter store
        if isinstance(value, PyroModule) and not value._pyro_name:
            value._pyro_set_supermodule(f"{self._pyro_name}.{name}", self._pyro_context)
        return value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if "_substituted" not in self.__dict__ and runtime._PYRO_STACK and lists_parameters():
            substitutes = self._list_parameters()
            if substitutes:
                self.__dict__["_substituted"] = True
                try:
                    return functional_call(self, substitutes, args, kwargs)
                finally:
                    del self.__dict__["_substituted"]
        return super().__call__(*args, **kwargs)

    def _list_parameters(self) -> dict[str, Tensor]:
        """Send a ``param`` message for each parameter; returns the values of those that a handler replaces."""
        module = f"{self._pyro_name}_{id(self):x}"  # unique to this program: SVI identifies parameters by name
        substitutes: dict[str, Tensor] = {}
        for name, parameter in self.named_parameters():
            alias: Any = parameter.view_as(parameter)
            alias.unconstrained = weakref.ref(parameter)
            site = param_with_module_name(module, name)
            value = _param(site, alias, constraint=constraints.real, name=site)
            if value is not alias:
                substitutes[name] = value
        return substitutes


@effectful(type="param")
def _param(name: str, value: Tensor, constraint: Any = None) -> Tensor:
    return value


@effect("lists_parameters")
def lists_parameters() -> bool:
    """Effect: whether programs list their parameters. The default is yes."""
    return True


class unlisted(Messenger):
    """A context in which programs do not list their parameters, unless an outer handler requests it."""

    def __enter__(self) -> Any:
        around = runtime._PYRO_STACK
        self._requested = any(hasattr(frame, f"_pyro{post}_param") for frame in around for post in ("", "_post"))
        return super().__enter__()

    def _pyro_lists_parameters(self, msg: Any) -> None:
        msg["value"], msg["done"] = self._requested, True
