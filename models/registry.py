"""The models by their names on the command line. Importing this module imports no model."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from dvae_pyro.errors import UserError, nearest

if TYPE_CHECKING:
    from models.dvae import DVAE, ModelSettings

__all__ = ["MODELS", "build_model", "load_class", "model_class", "model_names"]

MODELS = {
    "vae": "models.vae:VAE",
    "dkf": "models.dkf:DKF",
    "storn": "models.storn:STORN",
    "vrnn": "models.vrnn:VRNN",
    "srnn": "models.srnn:SRNN",
    "rvae": "models.rvae:RVAE",
    "dsae": "models.dsae:DSAE",
    "kvae": "models.kvae:KVAE",
    "fhvae": "models.fhvae:FHVAE",
    "beta_vae": "models.fhvae:BetaVAE",
    "hit_dvae": "models.hit_dvae:HiTDVAE",
    "light_dvae": "models.light_dvae:LigHTDVAE",
    "ms_stcn": "models.ms_stcn:MSSTCN",
    "stcn": "models.stcn:STCN",
    "rnn": "models.rnn:RNN",
    "z_forcing": "models.z_forcing:ZForcing",
}
"""``"module:Class"`` of each model by name; a new model is one line here."""


def model_names() -> list[str]:
    """All names that ``--model`` accepts."""
    return list(MODELS)


def load_class(place: str) -> type:
    """The class at ``"module:Class"``."""
    module, _, name = place.partition(":")
    loaded: type = getattr(import_module(module), name)
    return loaded


def model_class(name: str) -> type[DVAE]:
    """The class of a model.

    Raises:
        UserError: for an unknown name, with the nearest known one.
    """
    if name not in MODELS:
        raise UserError(f"unknown model '{name}'.{nearest(name, MODELS)} Known models: {', '.join(MODELS)}.")
    return load_class(MODELS[name])


def build_model(settings: ModelSettings) -> DVAE:
    """The model that the settings describe, with weights initialised by torch's generator."""
    return model_class(settings.name)(settings)
