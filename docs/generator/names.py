"""reference/names.md: the models, guides, likelihoods, front ends, corpora and configs, from their registries."""

from __future__ import annotations

import importlib
import importlib.resources
import inspect
import re
from collections.abc import Sequence

from corpora.frontends.registry import FRONT_ENDS
from corpora.registry import CORPORA
from guides.registry import guide_names
from inference.settings.overrides import config_names, read_config
from models.likelihoods.base import LIKELIHOODS
from models.registry import MODELS

__all__ = ["page"]


def page() -> str:
    """The page in Markdown."""
    guides = ", ".join(f"`{name}`" for name in guide_names())
    configs = [(name, f"`{read_config(name).get('model.name', '')}`", _comment(name)) for name in config_names()]
    return "\n".join(
        [
            _HEAD,
            _table("Models", ("`--model`", "what"), _models()),
            f"## Guides\n\n`--guide` takes {guides}; see [guides](../explanation/guides.md).\n",
            _table(
                "Likelihoods",
                ("`model.likelihood`", "what", "data"),
                [(name, _of_object(kind.place), kind.support_text) for name, kind in LIKELIHOODS.items()],
            ),
            _table(
                "Front ends",
                ("`data.frontend`", "what"),
                [(name, _of_object(path)) for name, path in FRONT_ENDS.items()],
            ),
            _table("Corpora", ("`--corpus`", "what"), [(name, _of_module(path)) for name, path in CORPORA.items()]),
            _table("Settings of the papers", ("`--config`", "model", "source"), configs),
        ]
    )


_HEAD = """# Names

This page is written from the registries when the site is built: what can be named on the command line.
[Corpora](corpora.md) has their layouts and splits, [settings of the papers](configs.md) the parameters and departures.
"""


def _table(heading: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [f"## {heading}\n", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [
        "| " + " | ".join(cell.replace("|", "\\|") for cell in (f"`{name}`", *cells)) + " |" for name, *cells in rows
    ]
    return "\n".join(lines) + "\n"


def _of_module(path: str) -> str:
    return _first_sentence(importlib.import_module(path.partition(":")[0]).__doc__ or "")


def _of_object(path: str) -> str:
    module, _, name = path.partition(":")
    return _first_sentence(inspect.getdoc(getattr(importlib.import_module(module), name)) or "") or _of_module(path)


def _models() -> list[tuple[str, ...]]:
    """Each model with what its module says, or, where an earlier model has that module, what its class says."""
    modules = [path.partition(":")[0] for path in MODELS.values()]
    return [
        (name, _of_object(path) if module in modules[:place] else _of_module(path))
        for place, ((name, path), module) in enumerate(zip(MODELS.items(), modules, strict=True))
    ]


def _comment(config: str) -> str:
    """The first sentence of the comment at the top of a packaged config."""
    folder, _, row = config.partition("/")
    text = (importlib.resources.files("configs") / folder / f"{row}.yaml").read_text(encoding="utf-8")
    lines = re.match(r"(?:#.*\n)*", text)
    return _first_sentence("\n".join(line[1:] for line in (lines[0] if lines else "").splitlines()))


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.strip().partition("\n\n")[0].split())
    return re.split(r"(?<=[A-Za-z0-9)\]\"`])\.(?:\s+(?=[A-Z`])|$)", paragraph.replace("``", "`"))[0]
