"""The guides by their names on the command line. Importing this module imports no guide."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from inference.errors import UserError, nearest
from models.registry import load_class, model_class
from models.structure import verdict

if TYPE_CHECKING:
    from guides.guide import Guide, GuideSettings
    from models.dvae import DVAE, ModelSettings

__all__ = ["build_guide", "compliant", "guide_class", "guide_names"]

_FAMILY = [
    f"{sees}-{keeps}" for sees in ("past", "future", "all") for keeps in ("meanfield", "markov", "memory")
]


def guide_names() -> list[str]:
    """All names that ``--guide`` takes."""
    return ["own", "compliant", *_FAMILY]


def guide_class(model_name: str, name: str) -> type[Guide]:
    """The class of a guide for a model.

    Raises:
        UserError: for an unknown name, with the nearest known one, and for a guide that cannot draw the
            model's latents.
    """
    model = model_class(model_name)
    if name == "compliant":
        name = compliant(model.Settings(name=model_name))
    if name == "own":
        return load_class(model.own_guide)
    if name not in _FAMILY:
        raise UserError(
            f"unknown guide '{name}'.{nearest(name, guide_names())} Known guides: {', '.join(guide_names())}."
        )
    guide: type[Guide] = load_class("guides.family:FamilyGuide")
    if set(guide.latents) != set(model.latents):
        raise UserError(
            f"guide '{name}' cannot serve model '{model_name}': it draws {_sites(guide.latents)}, "
            f"and the model's latents are {_sites(model.latents)}. "
            "Take a guide that draws them all, such as the model's own (--guide own)."
        )
    return guide


def compliant(model_settings: ModelSettings) -> str:
    """The name of the guide that has the parents of the model's exact posterior, or the fewest more than
    those.
    """
    name = model_settings.name
    exact_first: list[tuple[int, str]] = []
    for candidate in ["own", *_FAMILY]:
        guide = guide_class(name, candidate)
        found = verdict(
            model_class(name).parents(model_settings), guide.parents(guide.Settings(name=candidate))
        )
        if not found.missing:
            exact_first.append((len(found.extra), candidate))
    return min(exact_first, key=lambda pair: pair[0])[1]


def build_guide(model: DVAE, model_name: str, settings: GuideSettings) -> Guide:
    """The guide that the settings describe, for a model; its weights drawn from torch's generator."""
    if settings.name == "compliant":
        settings = replace(settings, name=compliant(model_class(model_name).Settings(name=model_name)))
    return guide_class(model_name, settings.name)(model, settings)  # type: ignore[call-arg]  # each guide adds its settings


def _sites(names: tuple[str, ...]) -> str:
    return ", ".join(f"'{name}'" for name in names)
