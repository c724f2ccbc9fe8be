"""The front ends by their names, as ``data.frontend`` gives them. Importing this module imports no front end."""

from __future__ import annotations

import importlib

from corpora.frontends.base import FrontEnd
from corpora.settings import DataSettings
from dvae_pyro.errors import UserError, nearest

__all__ = ["FRONT_ENDS", "open_frontend"]


#: Constructor of each front end as ``"module:function"``, imported on use.
FRONT_ENDS: dict[str, str] = {
    "stft": "corpora.frontends.stft:open_stft",
    "fbank": "corpora.frontends.fbank:open_fbank",
    "log_magnitude": "corpora.frontends.fbank:open_log_magnitude",
    "frames": "corpora.frontends.base:open_frames",
    "waveform": "corpora.frontends.waveform:open_waveform",
}


def open_frontend(settings: DataSettings, bins: int) -> FrontEnd:
    """The front end that the settings name, for a model with `bins` values per frame."""
    if settings.frontend not in FRONT_ENDS:
        raise UserError(
            f"unknown front end data.frontend={settings.frontend!r}, expected one of "
            f"{', '.join(FRONT_ENDS)}.{nearest(settings.frontend, FRONT_ENDS)}"
        )
    module, function = FRONT_ENDS[settings.frontend].split(":")
    frontend: FrontEnd = getattr(importlib.import_module(module), function)(settings, bins)
    return frontend
