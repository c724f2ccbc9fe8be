r"""STORN's guide, as in the benchmark paper (Bie et al., 2021): q(z_{1:T} | x_{1:T}) = \prod_t q(z_t | x_{1:t})."""

from __future__ import annotations

from guides.core.family import RecurrentGuide

__all__ = ["STORNGuide"]


class STORNGuide(RecurrentGuide):
    """q(z_t | x_{1:t}): the family's past-meanfield."""

    kind = "past-meanfield"
