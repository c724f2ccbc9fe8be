"""The structure of a model and its guide in text and as a graph: factorisation, comparison with the exact posterior,
number of parameters of each conditional and each network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyro.poutine as poutine
import torch
from torch import nn

from guides.core.guide import Guide
from guides.registry import compliant, guide_class
from inference.runs import create
from inference.settings.tree import Settings
from models.dvae import DVAE
from models.registry import model_class
from models.structure.formulas import conditional, factorisation, outside_time, ranges, symbols
from models.structure.graph import render
from models.structure.parents import Parents, posterior_parents, verdict

__all__ = ["Structure", "describe", "draw_graph", "networks", "structure", "total", "used_by"]


@dataclass(frozen=True)
class Structure:
    """The declared parents of a model and a guide.

    Attributes:
        model: parents of the model's sites.
        guide: parents of the guide's sites.
        latents: names of the latent sites.
    """

    model: Parents
    guide: Parents
    latents: tuple[str, ...]


def structure(settings: Settings) -> Structure:
    """The declared structure of the model and guide that the settings describe."""
    cls = model_class(settings.model.name)
    name = compliant(settings.model) if settings.guide.name == "compliant" else settings.guide.name
    guide = guide_class(settings.model, name)
    latents = cls.latents_of(settings.model)
    parents = guide.parents(replace(settings.guide, name=name), latents)
    return Structure(cls.parents(settings.model), parents, latents)


def describe(settings: Settings) -> list[str]:
    """The whole description, line by line."""
    declared = structure(settings)
    outside = outside_time(declared.model, declared.guide)
    model, guide = create(settings)
    lines = [f"model {settings.model.name}, guide {_guide_name(settings)}", ""]
    lines += [factorisation("p", declared.model, outside)]
    lines += [factorisation("q", declared.guide, outside, "x_{1:T}"), "", *_verdicts(declared), ""]
    lines += ["parameters of each conditional (a network that several use counts in each)"]
    rows = []
    for (letter, site), names in used_by(model, guide, declared.latents).items():
        parents = (declared.model if letter == "p" else declared.guide)[site]
        count = sum(networks(model, guide)[name] for name in names)
        formula = conditional(letter, site, symbols(parents), in_time=site not in outside)
        rows.append((formula, f"{count:,}", " ".join(names)))
    lines += _table(rows)
    lines += ["", "parameters of each network"]
    shared = _shared(model, guide)
    rows = [
        (n, f"{c:,}", "shared by model and guide" if n in shared else "") for n, c in networks(model, guide).items()
    ]
    lines += [*_table(rows), "", f"total {total(model, guide)}"]
    return lines


def networks(model: DVAE, guide: Guide) -> dict[str, int]:
    """The number of parameters of each direct child of model and guide; shared parameters count for the model."""
    counted: set[int] = set()
    counts: dict[str, int] = {}
    for part, module in (("model", model), ("guide", guide)):
        for name, child in _children(module):
            new = {id(p): p.numel() for p in child if id(p) not in counted}
            counted |= set(new)
            if new:
                counts[f"{part}.{name}"] = sum(new.values())
    return counts


def total(model: DVAE, guide: Guide) -> int:
    """The number of parameters of model and guide together; shared ones count once."""
    return sum(networks(model, guide).values())


def used_by(model: DVAE, guide: Guide, latents: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """The networks that each conditional uses: those in which its log-density has a gradient.

    Returns:
        names of `networks` by letter (p or q) and site.
    """
    like = next(model.parameters())
    x, lengths = torch.ones(3, 1, model.x_dim, dtype=like.dtype, device=like.device), torch.tensor([3])
    drawn: Any = poutine.trace(guide).get_trace(x, lengths)
    values = {name: drawn.nodes[name]["value"].detach() for name in latents}
    owner = {
        id(p): f"{part}.{name}"
        for part, module in (("guide", guide), ("model", model))  # the model comes last: shared ones get its name
        for name, child in _children(module)
        for p in child
    }
    names_by_site: dict[tuple[str, str], list[str]] = {}
    for letter, program in (("p", model), ("q", guide)):
        trace: Any = poutine.trace(poutine.condition(program, values)).get_trace(x, lengths)
        trace.compute_log_prob()
        parameters = list(program.parameters())
        for site in (*latents, "x") if letter == "p" else latents:
            density = trace.nodes[site]["log_prob_sum"]
            grads = (
                torch.autograd.grad(density, parameters, retain_graph=True, allow_unused=True)
                if density.requires_grad
                else [None] * len(parameters)
            )
            used = {owner[id(p)] for p, grad in zip(parameters, grads, strict=True) if grad is not None}
            names_by_site[letter, site] = [name for name in networks(model, guide) if name in used]
    return names_by_site


def draw_graph(settings: Settings, file: Path) -> None:
    """Draw the graphical model that the model's declared parents define.

    Raises:
        UserError: if graphviz is missing, for an unknown file format, and if the file cannot be written.
    """
    render(structure(settings).model, file)


def _children(module: nn.Module) -> list[tuple[str, list[nn.Parameter]]]:
    """The parameters of each direct child by the child's name, and the module's direct parameters by their names."""
    direct = [(name, [parameter]) for name, parameter in module.named_parameters(recurse=False)]
    return direct + [(name, list(child.parameters())) for name, child in module.named_children()]


def _shared(model: DVAE, guide: Guide) -> set[str]:
    guide_parameters = {id(p) for p in guide.parameters()}
    return {f"model.{name}" for name, child in _children(model) if any(id(p) in guide_parameters for p in child)}


def _verdicts(declared: Structure) -> list[str]:
    lines, complies = [], True
    outside = outside_time(declared.model, declared.guide)
    for latent in declared.latents:
        exact = ranges(sorted(posterior_parents(declared.model, latent, declared.latents), key=_time_last))
        comparison = verdict(declared.model, declared.guide, latent, declared.latents)
        complies = complies and not comparison.missing
        differs = (("missing", comparison.missing), ("extra", comparison.extra))
        parts = [f"{word} {', '.join(ranges(nodes))}" for word, nodes in differs if nodes]
        lines.append(f"exact posterior {conditional('p', latent, exact, in_time=latent not in outside)}")
        lines.append(f"guide's {latent}: {'; '.join([f'{comparison.word} variables', *parts])}")
    return [*lines, f"the guide {'complies' if complies else 'does not comply'} with the exact posterior"]


def _time_last(node: tuple[str, int]) -> tuple[bool, bool, str, int]:
    """Sort key for formulas of posteriors: latents before data, sequence-level variables last."""
    return (node[1] < 0, node[0] == "x", *node)


def _guide_name(settings: Settings) -> str:
    name = str(settings.guide.name)
    return f"{name} ({compliant(settings.model)})" if name == "compliant" else name


def _table(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    first, second = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    return [f"  {a:<{first}}  {b:>{second}}  {c}".rstrip() for a, b, c in rows]
