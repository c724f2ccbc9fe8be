"""The guide of a model without latents: it has no sample sites."""

from __future__ import annotations

from typing import cast

from torch import Tensor

from guides.core.guide import Guide, GuideSettings
from models.core.sites import Sites
from models.core.time_axis import TimeAxis
from models.dvae import DVAE
from models.rnn import RNN

__all__ = ["EmptyGuide"]


class EmptyGuide(Guide):
    """A guide without sample sites."""

    declared = {}

    def __init__(self, model: DVAE, settings: GuideSettings) -> None:
        super().__init__(model)
        self.h = cast(RNN, model).h  # its parameters define dtype and device of a batch

    def encode(self, sites: Sites, lengths: Tensor) -> Tensor:
        return sites.data["x"]

    def step(self, t: TimeAxis, encoded: Tensor) -> None:
        pass
