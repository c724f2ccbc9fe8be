"""Every conditional of a model or a guide names its equation, and the number is found where it says."""

from __future__ import annotations

import importlib
import inspect
import re
from pkgutil import iter_modules
from types import ModuleType

import pytest

import guides
import models
from guides.core.guide import Guide
from models.dvae import DVAE

MODULES = [
    f"{package.__name__}.{found.name}"
    for package in (models, guides)
    for found in iter_modules(package.__path__)
    if not found.ispkg
]


def conditionals(module: ModuleType) -> dict[str, str]:
    """The docstrings of the methods of its models and guides that return a distribution."""
    return {
        f"{owner.__name__}.{name}": inspect.getdoc(method) or ""
        for owner in vars(module).values()
        if inspect.isclass(owner) and issubclass(owner, DVAE | Guide) and owner.__module__ == module.__name__
        for name, method in vars(owner).items()
        if inspect.isfunction(method)
        and "Distribution" in str(method.__annotations__.get("return"))
        and not str(method.__annotations__["return"]).startswith(("dict", "tuple"))
    }


@pytest.mark.parametrize("name", MODULES)
def test_conditionals_name_an_equation(name: str) -> None:
    module = importlib.import_module(name)
    numbered = set(re.findall(r"\\tag\{(\w+)\}", module.__doc__ or ""))
    for method, doc in conditionals(module).items():
        cited = re.search(r"Eqs?\. (\w+)", doc)
        assert cited, f"{method}: {doc}"
        if "of this module" in doc:
            assert cited[1] in numbered, f"{method} names Eq. {cited[1]}; numbered here: {sorted(numbered)}"


def test_conditionals_are_found() -> None:
    found = conditionals(importlib.import_module("models.kvae"))
    assert set(found) == {f"KVAE.{name}" for name in ("prior", "transition", "emission", "decoder")}
