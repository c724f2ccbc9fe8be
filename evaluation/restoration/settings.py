"""The settings ``noise.*``, ``reverb.*`` and ``inference.*``, which are not part of a run's settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from omegaconf import OmegaConf

from dvae_pyro.errors import UserError
from dvae_pyro.fields import check_fields
from inference.observation.settings import NoiseSettings, ReverbSettings
from inference.posterior.problem import InferenceSettings
from inference.settings.overrides import apply_layer, parse_overrides, quoted

__all__ = ["RestorationSettings", "split_overrides"]

SECTIONS = ("noise", "reverb", "inference")
ALIASES = {"noise.from": "noise.span"}


@dataclass
class RestorationSettings:
    """The settings of an observed program, besides those of its run."""

    noise: NoiseSettings = field(default_factory=NoiseSettings)
    reverb: ReverbSettings = field(default_factory=ReverbSettings)
    inference: InferenceSettings = field(default_factory=InferenceSettings)


def split_overrides(overrides: Sequence[str]) -> tuple[RestorationSettings, list[str]]:
    """Split overrides into the settings of noise and inference, and the overrides of the run.

    Raises:
        UserError: A key is unknown, or a value is out of range; the message names it.
    """
    ours = [item for item in overrides if item.partition(".")[0] in SECTIONS]
    layer = {ALIASES.get(key, key): value for key, value in parse_overrides([_as_text(i) for i in ours]).items()}
    tree = OmegaConf.structured(RestorationSettings)
    apply_layer(tree, layer, "")
    settings = OmegaConf.to_object(tree)
    assert isinstance(settings, RestorationSettings)
    check_fields(settings)
    if not 0.0 <= settings.inference.burn_in < 1.0:
        raise UserError(f"inference.burn_in={settings.inference.burn_in:g}: expected a fraction from 0 to below 1.")
    return settings, [item for item in overrides if item not in ours]


def _as_text(item: str) -> str:
    """Quote an interval such as 1:30, which YAML would read as the number 90."""
    key, _, value = item.partition("=")
    return f"{key}={quoted(value)}" if key in ALIASES else item
