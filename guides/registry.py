"""The guides by their names on the command line. Importing this module imports no guide."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dvae_pyro.errors import UserError, nearest
from models.registry import load_class, model_class
from models.structure.parents import Verdict, verdict

if TYPE_CHECKING:
    from guides.core.guide import Guide, GuideSettings
    from models.dvae import DVAE, ModelSettings

__all__ = ["build_guide", "compare", "compliant", "current_name", "guide_class", "guide_names"]

_LADDER = ["independent", "precision"]
_FAMILY = [f"{sees}-{keeps}" for sees in ("past", "future", "all") for keeps in ("meanfield", "markov", "memory")]


def guide_names() -> list[str]:
    """All names that ``--guide`` accepts."""
    return ["paper", "compliant", *_FAMILY, *_LADDER]


def current_name(name: str) -> str:
    """Today's name of a guide: "own" is an earlier name of "paper"."""
    return "paper" if name == "own" else name


def guide_class(model: str | ModelSettings, name: str) -> type[Guide]:
    """The class of a guide for a model.

    Args:
        model: the model's settings, or its name for the default settings.
        name: the guide's name.

    Raises:
        UserError: for an unknown name, with the nearest known one, and for a guide that cannot draw the
            model's latents.
    """
    settings = _model_settings(model)
    cls = model_class(settings.name)
    name = current_name(name)
    if name == "compliant":
        name = compliant(settings)
    if name == "paper":
        return load_class(cls.guide_path(settings))
    if name.startswith("auto"):
        raise UserError(
            f"guide '{name}' cannot be trained: the parameters of Pyro's AutoGuides belong to the sequences of one "
            "batch, so they cannot infer the latents of others. Train a guide that reads the data, such as --guide "
            "paper; `python -m evaluation.inference_gap RUN --guide auto-normal` compares it with an AutoNormal."
        )
    if name not in guide_names():
        raise UserError(
            f"unknown guide '{name}'.{nearest(name, guide_names())} Known guides: {', '.join(guide_names())}."
        )
    latents = cls.latents_of(settings)
    serves = "layer1" in latents if name in _LADDER else _in_time(cls, settings) == {cls.frame_latent}
    if not serves:
        what = "layers of latents, 'layer1' nearest the data" if name in _LADDER else "one latent in each frame"
        raise UserError(
            f"guide '{name}' does not support model '{settings.name}': it draws {what}, but the "
            f"model's latents are {', '.join(repr(latent) for latent in latents) or 'none'}. "
            "Use a guide that draws them, such as --guide paper."
        )
    return load_class(cls.guide_path(settings) if name in _LADDER else "guides.core.family:RecurrentGuide")


def _in_time(cls: type[DVAE], settings: ModelSettings) -> set[str]:
    """The latents that a conditional of the model names with a frame."""
    named = {parent.partition("[")[0] for names in cls.parents(settings).values() for parent in names if "[" in parent}
    return named & set(cls.latents_of(settings))


def compliant(model: str | ModelSettings) -> str:
    """The name of the guide that has all parents of the model's exact posterior and the fewest further ones.

    Raises:
        UserError: if no guide has all of them.
    """
    settings = _model_settings(model)
    cls = model_class(settings.name)
    extra_parents: dict[str, int] = {}
    for candidate in ["paper", *(_FAMILY if _in_time(cls, settings) == {cls.frame_latent} else [])]:
        verdicts = compare(settings, candidate)
        if not any(one.missing for one in verdicts.values()):
            extra_parents[candidate] = sum(len(one.extra) for one in verdicts.values())
    if not extra_parents:
        raise UserError(
            f"no guide has all parents of the exact posterior of model '{settings.name}'. Use --guide paper."
        )
    return min(extra_parents, key=lambda name: extra_parents[name])


def compare(model: str | ModelSettings, name: str) -> dict[str, Verdict]:
    """Compare a guide, with its default settings, with the exact posterior: a verdict by latent."""
    settings = _model_settings(model)
    name = compliant(settings) if name == "compliant" else name
    cls, guide = model_class(settings.name), guide_class(settings, name)
    latents = cls.latents_of(settings)
    declared = guide.parents(guide.Settings(name=name), latents)
    return {latent: verdict(cls.parents(settings), declared, latent, latents) for latent in latents}


def build_guide(model: DVAE, model_settings: str | ModelSettings, settings: GuideSettings) -> Guide:
    """The guide of a model that the settings describe, with weights initialised by torch's generator."""
    name = compliant(model_settings) if settings.name == "compliant" else settings.name
    cls: Any = guide_class(model_settings, name)
    guide: Guide = cls(model, replace(settings, name=name))
    return guide


def _model_settings(model: str | ModelSettings) -> ModelSettings:
    return model_class(model).Settings(name=model) if isinstance(model, str) else model
