r"""RVAE's guide, which conditions on the same variables as the exact posterior (Leglaive et al., 2020):

.. math:: q(z_{1:T} | x_{1:T}) = \prod_t q(z_t | z_{1:t-1}, x_{t:T}),

or, for the non-causal model, \prod_t q(z_t | z_{1:t-1}, x_{1:T}).
"""

from __future__ import annotations

from guides.core.family import RecurrentGuide

__all__ = ["CausalRVAEGuide", "NoncausalRVAEGuide"]


class CausalRVAEGuide(RecurrentGuide):
    """q(z_t | z_{1:t-1}, x_{t:T}): the family's future-memory."""

    kind = "future-memory"


class NoncausalRVAEGuide(RecurrentGuide):
    """q(z_t | z_{1:t-1}, x_{1:T}): the family's all-memory."""

    kind = "all-memory"
